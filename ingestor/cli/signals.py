"""Signals: a command that is told to end takes with it what it has started."""

import signal
from collections.abc import Coroutine
from functools import partial
from typing import TypeVar

import typer

_T = TypeVar("_T")


def run_in_order(work: Coroutine[object, object, _T]) -> _T:
    """Run a command's work; SIGTERM and SIGHUP end it as Ctrl-C does, in order.

    The exit code is then the one that shells give a process that such a signal has ended: 128 and its number.
    """
    import asyncio

    from ingestor.adapters.ending_signals import ending_signals

    async def until_told() -> _T:
        told: list[signal.Signals] = []
        task = asyncio.current_task()

        def end(number: signal.Signals) -> None:
            told.append(number)
            if task is not None:
                task.cancel()

        for number in ending_signals():
            asyncio.get_running_loop().add_signal_handler(number, partial(end, number))
        try:
            return await work
        except asyncio.CancelledError:
            if told:
                raise typer.Exit(128 + told[0]) from None
            raise

    return asyncio.run(until_told())
