"""Examination: every check in its turn.

Invariant: a check that fails or hangs is a finding, and every other check is made all the same. The process can end
whatever a check is waiting for.
"""

import asyncio
import threading
import traceback
from collections.abc import Callable, Sequence

from ingestor.app.doctor import (
    chroma,
    clock,
    configuration,
    converters,
    embedding,
    events,
    folders,
    http,
    instances,
    ledgers,
    names,
    space,
    watching,
)
from ingestor.app.doctor.premises import Premises
from ingestor.core.diagnosing import EXIT_UNEXPECTED, Finding, Level, failure, warning
from ingestor.core.errors import IngestorError
from ingestor.settings import Loaded

CHECK_SECONDS = 30.0
"""How long a check may take: each call of it to the outside has a shorter limit of its own."""

Check = Callable[[Premises], Sequence[Finding]]

CHECKS: Sequence[tuple[str, Check]] = (
    ("settings", configuration.check),
    ("folder", folders.check),
    ("names", names.check),
    ("clock", clock.check),
    ("watching", watching.check),
    ("events", events.check),
    ("converters", converters.check),
    ("space", space.check),
    ("instances", instances.check),
    ("ledger", ledgers.check),
    ("chroma", chroma.check),
    ("http", http.check),
    ("embedding", embedding.check),
)


async def examine(
    loaded: Loaded,
    *,
    is_calling: bool = True,
    tries_folders: bool = False,
    checks: Sequence[tuple[str, Check]] = CHECKS,
    seconds: float = CHECK_SECONDS,
) -> list[Finding]:
    """Make the checks, one after the other; nothing is raised and nothing is left behind."""
    premises = Premises(loaded, loaded.settings.each(), is_calling, tries_folders)
    found: list[Finding] = []
    try:
        for name, check in checks:
            found += await _bounded(name, check, premises, seconds)
    finally:
        events.sweep(premises)
    return found


async def _bounded(name: str, check: Check, premises: Premises, seconds: float) -> Sequence[Finding]:
    """What a check finds, or that it does not come to an end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[Finding]] = loop.create_future()

    def settle(findings: Sequence[Finding]) -> None:
        if not answer.done():
            answer.set_result(findings)

    def work() -> None:
        findings = _checked(name, check, premises)
        try:
            loop.call_soon_threadsafe(settle, findings)
        except RuntimeError:
            return  # it took too long: the loop is closed, and nobody waits any more

    # A daemon: the interpreter joins any other thread at its end, and this one may hang in a dead network share.
    threading.Thread(target=work, name=f"doctor-{name}", daemon=True).start()
    try:
        return await asyncio.wait_for(answer, seconds)
    except TimeoutError:
        sentence = f"the check was given up after {seconds:g} s"
        return [warning(name, sentence, "see whether disk, network and services answer", seconds=seconds)]


def _checked(name: str, check: Check, premises: Premises) -> Sequence[Finding]:
    try:
        return check(premises)
    except IngestorError as error:
        return [failure(name, error)]
    except Exception as error:  # noqa: BLE001 - a check that fails is a finding: all others are still to be made
        sentence = f"the check itself failed: {type(error).__name__}: {error}"
        remedy = "report the traceback that `ingestor doctor --json` tells"
        facts = {"traceback": traceback.format_exc()}
        return [Finding(name, Level.ERROR, sentence, remedy, facts, EXIT_UNEXPECTED)]
