"""Signals: a command that is told to end takes with it what it has started."""

import signal
from collections.abc import Coroutine
from typing import TypeVar

import typer

EXIT_TERMINATED = 128 + signal.SIGTERM

_T = TypeVar("_T")


def run_in_order(work: Coroutine[object, object, _T]) -> _T:
    """Run a command's work; SIGTERM ends it as Ctrl-C does, in order, with the exit code that shells give it."""
    import asyncio

    async def until_terminated() -> _T:
        was_told = False
        task = asyncio.current_task()

        def end() -> None:
            nonlocal was_told
            was_told = True
            if task is not None:
                task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        try:
            return await work
        except asyncio.CancelledError:
            if was_told:
                raise typer.Exit(EXIT_TERMINATED) from None
            raise

    return asyncio.run(until_terminated())
