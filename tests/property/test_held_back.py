"""The set of held deletions under everything at once: additions, deletions, renames, hints, retries, deaths, approvals.

Whatever has been held back is found until its deletion is approved, its file is there again, or its text goes on under
another path. The mutants below let go of it at one place each, and each has to be found out.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ingestor.core import guarding
from ingestor.core.model import Change, Priority
from ingestor.engine import guard as guard_module
from tests.doubles_ledger import MemoryLedger
from tests.mortal import Crash, Fate, mortal
from tests.property.test_protocol import the_protocol_alone
from tests.world import World

PATHS = tuple(f"{folder}/{number}" for folder in "ab" for number in range(4))
paths = st.sampled_from(PATHS)
some = st.lists(paths, min_size=1, max_size=6, unique=True)
deaths = st.builds(lambda at, after: Fate(at, is_after=after), st.integers(1, 30), st.booleans())


class Held(RuleBasedStateMachine):
    """A folder that loses much, and a process that does not live long."""

    lived: ClassVar[dict[str, int]] = {}
    """What all examples together have gone through."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.approves = False
        self.texts = count()
        self.guarded: dict[str, str] = {}
        """The text of every path that is held back, as the collection had it then."""

    @initialize()
    def fill(self) -> None:
        self.write(list(PATHS))
        self._run(self.world.sync)

    @rule(chosen=some)
    def write(self, chosen: list[str]) -> None:
        for path in chosen:
            # Of one size, so that nothing but its content tells it from another file of the same inode.
            self.world.folder.write(path, f"text {next(self.texts):06}".encode())

    @rule(names=st.sampled_from((1, 4, 12)))
    def add(self, names: int) -> None:
        for _ in range(names):
            self.world.folder.write(f"new/{next(self.texts)}", f"text {next(self.texts):06}".encode())

    @rule(chosen=some)
    def delete(self, chosen: list[str]) -> None:
        for path in chosen:
            self.world.folder.delete(path)

    @rule(folder=st.sampled_from(("a", "b", "new", "")))
    def lose(self, folder: str) -> None:
        self.world.folder.delete(folder)

    @rule(old=paths, new=paths, is_edited=st.booleans())
    def rename(self, old: str, new: str, is_edited: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        if old != new and self.world.folder.look(new) is None:
            self.world.folder.rename(old, new)
            if is_edited and self.world.folder.look(new) is not None:
                self.write([new])  # with the inode of the old one

    @rule(folder=st.sampled_from(("a", "b", "")))
    def replace(self, folder: str) -> None:
        """Other files take the place of all in a folder, and get their inodes."""
        for path in list(self.world.folder.scan(folder).files):
            new = f"new/{next(self.texts)}"
            self.world.folder.rename(path, new)
            self.write([new])

    @rule(path=paths)
    def restore(self, path: str) -> None:
        """The text of a held document comes back, maybe under another path."""
        text = next(iter(self.guarded.values()), "")
        if text and self.world.folder.look(path) is None:
            self.world.folder.write(path, text.encode())

    @rule(chosen=some)
    def follow_hints(self, chosen: list[str]) -> None:
        self._run(lambda: self.world.work(chosen))

    @rule(chosen=some)
    def retry(self, chosen: list[str]) -> None:
        self.world.ledger.enqueue(chosen, Change("", Priority.LIVE, 1.0, 1.0))

    @rule(folder=st.sampled_from(("a", "b", "new", "", "")))
    def compare(self, folder: str) -> None:
        """A part or the whole, and nobody works."""

        async def life() -> None:
            pipeline = self.world.pipeline()
            await pipeline.reconciler.reconcile_parts([folder])
            await pipeline.close()

        self._run(life)

    @rule()
    def sync(self) -> None:
        self._run(self.world.sync)
        self.count("syncs")

    @rule(fate=deaths)
    def die_in_a_sync(self, fate: Fate) -> None:
        with mortal(self.world, fate), suppress(BaseExceptionGroup, Crash):
            self._run(self.world.sync)
        self.count("deaths", fate.is_dead)

    @rule()
    def approve(self) -> None:
        """Also of what no longer is missing: that is judged anew when it goes missing again."""
        self.world.approve()
        self.guarded.clear()
        self.count("approvals")

    @invariant()
    def what_is_held_is_found(self) -> None:
        files = self.world.folder.scan().files
        texts = {self.world.folder.read(path).raw.decode() for path in files}
        waiting = self.world.waiting()
        # Those that are back, or go on elsewhere, are held no more as soon as a comparison has seen it.
        for path, text in list(self.guarded.items()):
            if path in files or text in texts:
                del self.guarded[path]
        found = {(source, text) for source, text, _ in self.world.records()}
        assert self.guarded.items() <= found
        assert self.guarded.keys() <= waiting
        for source, text in found:
            if source in waiting and source not in files and text not in texts:
                self.guarded[source] = text
        self.count("held", len(self.guarded))

    def count(self, name: str, more: int = 1) -> None:
        self.lived[name] = self.lived.get(name, 0) + more

    def _run(self, life: Callable[[], object]) -> None:
        asyncio.run(life())  # type: ignore[arg-type]  # a coroutine function of the world


def run_machine(examples: int, *, phases: Sequence[Phase] = tuple(Phase)) -> None:
    with the_protocol_alone():
        run_state_machine_as_test(
            Held,
            settings=settings(
                max_examples=examples,
                stateful_step_count=15,
                deadline=None,
                derandomize=True,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.mark.timeout(600)
def test_what_is_held_back_is_deleted_by_nothing_but_approval(tell: Callable[[str], None]) -> None:
    Held.lived.clear()
    run_machine(60)
    lived = Held.lived
    assert lived["held"] > 50
    tell(", ".join(f"{number} {name}" for name, number in sorted(lived.items())))


def hold_the_latest(self: MemoryLedger, chosen: Iterable[str]) -> None:
    self.holding = dict.fromkeys(chosen, False)


def begin_anyway(self: MemoryLedger, entries: object, dropped: int = 0, _: object = ()) -> None:
    MARK(self, entries, dropped)  # type: ignore[arg-type]  # as it was called


def by_the_share_of_now(*arguments: object, **more: object) -> object:
    verdict = JUDGED(*arguments, **more)  # type: ignore[arg-type]  # as it was called
    glances, snapshot, limit = arguments[1], arguments[2], arguments[4]
    is_too_much = limit.holds_back(gone=len(arguments[0]), known=len(glances), found=len(snapshot.files))  # type: ignore[attr-defined, arg-type]  # as before
    return verdict if is_too_much else guarding.Verdict(arguments[0], (), (), tuple(verdict.stays), 0)  # type: ignore[arg-type]  # as before


def adopt_by_inode(self: MemoryLedger, path: str, stat: object, content_hash: str) -> object:
    holding, self.holding = self.holding, {}
    try:
        return KIN(self, path, stat, content_hash)  # type: ignore[arg-type]  # as it was called
    finally:
        self.holding = holding


MARK, JUDGED, KIN = MemoryLedger.mark, guarding.judged, MemoryLedger.kin
MUTANTS: dict[str, tuple[object, str, object]] = {
    "the set is what was missed last": (MemoryLedger, "hold", hold_the_latest),
    "a deletion that is held begins all the same": (MemoryLedger, "mark", begin_anyway),
    "the share is judged anew each time": (guard_module, "judged", by_the_share_of_now),
    "a file with the inode of a held one takes its document": (MemoryLedger, "kin", adopt_by_inode),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_finds_out_whoever_lets_go_of_what_is_held(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_machine(300, phases=(Phase.generate,))
