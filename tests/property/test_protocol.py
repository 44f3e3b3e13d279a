"""The write protocol under everything at once: edits, moves, faults, lost hints, and death at any call.

After each clean sync the collection must equal a fresh ingestion of the folder, and another sync must do nothing. The
mutants below are the protocol with one of its steps left out: each has to be found out by the same machine.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from ingestor.core.backoff import Backoff
from ingestor.core.errors import ServiceUnavailable
from ingestor.core.model import Entry, Plan
from ingestor.core.planning import doubtful_entry
from ingestor.engine import pipeline as pipeline_module
from ingestor.engine import sync as sync_module
from ingestor.engine.sync import Protocol, Write
from ingestor.engine.verify import Auditor
from tests.doubles_ledger import MemoryLedger
from tests.doubles_sink import MemorySink
from tests.mortal import Crash, Fate, mortal
from tests.world import World

PATHS = ("a", "b", "d/c", "d/e", "f/g")
FOLDERS = ("d", "f", "moved")
LINES = ("one", "two", "three", "four", "five")
ATTACHED = ("a.meta.json", "d/c.meta.json", "d/.ingestor.toml", ".ingestor.toml")

paths = st.sampled_from(PATHS)
contents = st.lists(st.sampled_from(LINES), max_size=5).map("\n".join)
STEPS = ("mark", "add", "retag", "drop", "commit", "put", "embed", "lease")
deaths = st.builds(lambda at, after: Fate(at, is_after=after), st.integers(1, 40), st.booleans()) | st.builds(
    lambda at, of, after: Fate(at, is_after=after, of=of), st.integers(1, 2), st.sampled_from(STEPS), st.booleans()
)
"""Anywhere, and, because these are few among many, at the steps of the protocol."""
deaths_in_a_write = st.builds(
    lambda of, after: Fate(1, is_after=after, of=of),
    st.sampled_from(("mark", "add", "retag", "drop", "commit")),
    st.booleans(),
)
Told = Counter[tuple[str, tuple[tuple[str, object], ...]]]


def told(world: World) -> Told:
    """Every record but for what two ingestions of the same folder may differ in."""
    return Counter(
        (str(held.document), tuple(sorted((k, v) for k, v in (held.metadata or {}).items() if k not in DIFFERING)))
        for held in world.sink.held.values()
    )


DIFFERING = {"document_id", "ingested_at"}


class Disturbed(RuleBasedStateMachine):
    """A folder, a collection, and a process that does not live long."""

    lived: ClassVar[Counter[str]] = Counter()
    """What all examples together have gone through."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.deaths = 0
        self.losses = 0

    @initialize(files=st.dictionaries(paths, contents, min_size=1))
    def fill(self, files: dict[str, str]) -> None:
        for path, content in files.items():
            self.world.folder.write(path, content.encode())

    @rule(path=paths, content=contents)
    def edit(self, path: str, content: str) -> None:
        self.world.folder.write(path, content.encode())

    @rule(path=paths)
    def turn_binary(self, path: str) -> None:
        self.world.folder.write(path, b"\0")

    @rule(path=st.sampled_from((*PATHS, *FOLDERS)))
    def delete(self, path: str) -> None:
        self.world.folder.delete(path)

    @rule(old=paths, new=paths)
    def rename(self, old: str, new: str) -> None:
        if old != new:
            self.world.folder.rename(old, new)

    @rule(old=st.sampled_from(FOLDERS), new=st.sampled_from(FOLDERS))
    def rename_folder(self, old: str, new: str) -> None:
        if old != new:
            self.world.folder.delete(new)
            self.world.folder.rename(old, new)

    @rule(path=paths)
    def touch(self, path: str) -> None:
        if self.world.folder.look(path) is not None:
            self.world.folder.touch(path)

    @rule(path=st.sampled_from(ATTACHED), value=st.sampled_from((1, 2, ["x", "y"])))
    def attach(self, path: str, value: object) -> None:
        """Metadata of one's own, for a file or for all below a folder."""
        told = json.dumps(value)
        self.world.folder.write(
            path, (f'{{"own": {told}}}' if path.endswith(".json") else f"metadata.own = {told}").encode()
        )

    @rule(path=st.sampled_from(ATTACHED))
    def detach_or_spoil(self, path: str) -> None:
        """A settings file with a fault would leave its files what they have, which no fresh ingestion gives them."""
        if path == "a.meta.json":
            self.world.folder.write(path, b"{")
        else:
            self.world.folder.delete(path)

    @rule(old=paths, new=paths)
    def copy(self, old: str, new: str) -> None:
        if self.world.folder.look(old) is not None:
            self.world.folder.write(new, self.world.folder.read(old).raw)

    @rule(hinted=st.lists(paths, max_size=4))
    def follow_hints(self, hinted: list[str]) -> None:
        """Some hints arrive, some twice, the others are lost."""
        self._run(lambda: self.world.work(hinted))

    @rule(hinted=st.lists(paths, min_size=1, max_size=4), fate=deaths)
    def die_following_hints(self, hinted: list[str], fate: Fate) -> None:
        with mortal(self.world, fate), suppress(BaseExceptionGroup, Crash):
            self._run(lambda: self.world.work(hinted))
        self.deaths += fate.is_dead

    @rule(fate=deaths)
    def die_in_a_sync(self, fate: Fate) -> None:
        with mortal(self.world, fate), suppress(BaseExceptionGroup, Crash):
            self._run(self.world.sync)
        self.deaths += fate.is_dead

    @rule(path=paths, content=contents, fate=deaths_in_a_write)
    def edit_and_die(self, path: str, content: str, fate: Fate) -> None:
        """An edit adds and drops: a death at either is what most of the protocol is for."""
        self.edit(path, content)
        self.die_in_a_sync(fate)

    @rule(times=st.integers(1, 3))
    def provider_fails(self, times: int) -> None:
        self.world.embedder.faults.extend(ServiceUnavailable("the provider is away") for _ in range(times))
        self._run(self.world.sync)
        self.world.embedder.faults.clear()

    @rule(verb=st.sampled_from(("add", "retag", "drop")), is_after=st.booleans())
    def chroma_fails(self, verb: str, is_after: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        """The write did not happen, or it did and only its answer was lost."""
        self.world.sink.fail(verb, ServiceUnavailable("Chroma is away"), is_after=is_after)
        self._run(self.world.sync)
        self.world.sink._faults.clear()

    @precondition(lambda self: self.losses < 2)
    @rule()
    def lose_the_ledger(self) -> None:
        self._run(self.world.sync)
        self.world.ledger = MemoryLedger()
        self.losses += 1

    @precondition(lambda self: self.losses < 2)
    @rule()
    def lose_the_collection(self) -> None:
        self.world.sink = MemorySink()
        self.world.sink._collection_id = f"another-{self.losses}"
        self.losses += 1

    @rule()
    def sync(self) -> None:
        self._run(self.world.sync)
        fresh = World()
        fresh.folder = self.world.folder
        self._run(fresh.sync)
        self.lived["syncs"] += 1
        assert told(self.world) == told(fresh)
        self.world.sink.calls.clear()
        attempts = len(self.world.embedder.attempts)
        self._run(self.world.sync)
        assert self.world.sink.writes == [], "a healed collection needs no write"
        assert len(self.world.embedder.attempts) == attempts, "nor an embedding"

    def teardown(self) -> None:
        self.sync()
        self.lived.update(examples=1, deaths=self.deaths)
        paid = Counter(chain.from_iterable(self.world.embedder.calls))
        # A death between an answer and the vector store loses what was in flight, and nothing else is paid twice.
        assert max(paid.values(), default=0) <= 1 + self.deaths

    def _run(self, life: Callable[[], object]) -> None:
        asyncio.run(life())  # type: ignore[arg-type]  # a coroutine function of the world


async def nothing_is_off(_: Auditor) -> bool:
    """The audit at the start would mend what the protocol has broken: here the protocol stands alone."""
    return False


@contextmanager
def the_protocol_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Auditor, "is_off", nothing_is_off)
        patch.setattr(pipeline_module, "EMBEDDING_RETRY", Backoff(0.0001, 0.0001, max_attempts=1))
        yield


def run_machine(examples: int, *, phases: Sequence[Phase] = tuple(Phase)) -> None:
    with the_protocol_alone():
        run_state_machine_as_test(
            Disturbed,
            settings=settings(
                max_examples=examples,
                stateful_step_count=12,
                deadline=None,
                derandomize=True,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.mark.timeout(600)
def test_the_collection_equals_the_folder_whatever_happens(tell: Callable[[str], None]) -> None:
    Disturbed.lived.clear()
    run_machine(60)
    lived = Disturbed.lived
    told = f"{lived['examples']} state-machine examples, {lived['syncs']} of their syncs compared"
    tell(f"{told}, {lived['deaths']} deaths")


def without_marks_for_adds(plan: Plan) -> Entry:
    begun = doubtful_entry(plan)
    return replace(begun, doubtful=begun.doubtful - {record.id for record in plan.embed})


def without_marks_for_drops(plan: Plan) -> Entry:
    begun = doubtful_entry(plan)
    dropped = set(plan.drop)
    kept = {id_: tag for id_, tag in begun.tags.items() if id_ not in dropped}
    return replace(begun, doubtful=begun.doubtful - dropped, tags=kept)


async def commit_before_write(self: Protocol, group: Sequence[Write]) -> None:
    await self.commit(group)
    await ORIGINAL_MARK(self, [replace(each, plan=replace(each.plan, before=each.plan.after)) for each in group])


ORIGINAL_MARK = Protocol.mark


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "mutant",
    [without_marks_for_adds, without_marks_for_drops, commit_before_write],
    ids=lambda mutant: mutant.__name__,
)
def test_the_machine_finds_out_a_protocol_without_one_of_its_steps(
    mutant: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if mutant is commit_before_write:
        monkeypatch.setattr(Protocol, "mark", mutant)
    else:
        monkeypatch.setattr(sync_module, "doubtful_entry", mutant)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_machine(300, phases=(Phase.generate,))
