"""Faults put into the engine on purpose: each has to be found out by some seed.

A mutant is one function of the engine (or of a double, where it stands for what SQLite does) with a piece of its text
replaced. Whoever changes that piece of the engine changes the mutant with it: one whose piece is not found is an error.

Where two safeguards see to the same, a mutant is without both, and a seed finds it only if nothing is wrong in that
seed without either of them: so each is shown to save what the other one would have to.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from ingestor.adapters import chroma_hold
from ingestor.app import owning
from ingestor.core.owning import Ours
from ingestor.engine import embedding, following, guard, in_work, intake, patrol, pipeline, sync, worker, writer
from tests import doubles_ledger
from tests.simulation.world import Scenario


@dataclass(frozen=True, slots=True)
class Edit:
    """`old`, which occurs once in a function of `owner`, becomes `new`."""

    owner: type | ModuleType
    function: str
    old: str
    new: str


@contextmanager
def living(edits: Sequence[Edit]) -> Iterator[None]:
    """Let the engine be edited for a while."""
    with ExitStack() as edited:
        for owner, function in dict.fromkeys((edit.owner, edit.function) for edit in edits):
            original: Callable[..., object] = owner.__dict__[function]
            source = textwrap.dedent(inspect.getsource(original))
            for edit in edits:
                if (edit.owner, edit.function) == (owner, function):
                    if source.count(edit.old) != 1:
                        raise LookupError(f"{edit.old!r} is not once in {owner.__name__}.{function}")
                    source = source.replace(edit.old, edit.new)
            names: dict[str, Any] = {}
            unwrapped = inspect.unwrap(original) if inspect.isfunction(original) else original
            code = compile(source, f"<{function}>", "exec")
            exec(code, unwrapped.__globals__, names)  # noqa: S102 - the product's own text, but for some pieces of it
            edited.callback(setattr, owner, function, original)
            setattr(owner, function, names[function])
        yield


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, found in the seeds from `seed` on."""

    name: str
    owner: type | ModuleType
    function: str
    old: str
    new: str
    seed: int = 1
    scenario: Mapping[str, Any] = field(default_factory=dict)
    """What is otherwise in the scenario than usually."""
    twin: Edit | None = None
    """The other safeguard, which has to be out as well before something is wrong."""

    def __str__(self) -> str:
        return self.name

    @property
    def edits(self) -> Sequence[Edit]:
        """What differs from the engine."""
        own = Edit(self.owner, self.function, self.old, self.new)
        return (own,) if self.twin is None else (own, self.twin)

    def at_large(self, scenario: Scenario) -> Scenario:
        """The scenario that it is looked for in."""
        operations = {**scenario.operations, **self.scenario.get("operations", {})}
        return replace(scenario, **{**self.scenario, "operations": operations})


_Claim, _Worker, _Writer = worker._Claim, worker.Worker, writer.Writer
_Ledger = doubles_ledger.MemoryLedger
_LEASES_STAY = Edit(_Worker, "_lease", ", in_work=in_work", "")
"""What a turn has left leased is not given to the next who asks."""
_RENAMES = {"operations": {"rename": 12, "swap": 12, "rename a folder": 8, "edit": 12, "delete": 6}}
_SLOW_CHROMA = {"only": frozenset({"chroma slow"}), "faults": 2.0}
_SLOW_LEDGER = {"only": frozenset({"ledger slow", "thread slow"}), "faults": 2.0}
_CHROMA_AWAY = {"only": frozenset({"chroma fails"}), "faults": 2.0}
_ENDPOINT_AWAY = {"only": frozenset({"endpoint"}), "faults": 2.0, "operations": {"edit": 12, "delete": 12}}
_HOLDS = {"operations": {"replace everything": 12, "delete a folder": 6, "create many": 6}, "deaths": 3.0}
_OWNERS = {"owners": 1.0}
_OVERFLOWS = {"only": frozenset({"watch overflow", "thread slow"}), "faults": 4.0}

MUTANTS = (
    # A path is in work by one task, and a document belongs to one
    Mutant(
        "a claim of another's document",
        _Claim,
        "try_take",
        "return held is None or held.path == self._path",
        "return True",
    ),
    Mutant("a document is taken from a file that is there", _Worker, "_before", "if look == (None, None)", "if True"),
    # Windows between an await and its commit; look-again
    Mutant("no look before a commit", _Writer, "_commit", "if found is not Standing.AS_PLANNED", "if False"),
    Mutant(
        "what was overtaken is not looked at again, and nobody sees that its lease is nobody's",
        _Worker,
        "_write",
        "if standing is not Standing.AS_PLANNED:\n",
        "if False:\n",
        twin=_LEASES_STAY,
    ),
    Mutant(
        "what is to be looked at again is not given back, and nobody sees that its lease is nobody's",
        _Worker,
        "_look_again",
        "await self._ledger_lane.run(self._ledger.release, [again])",
        "pass",
        twin=_LEASES_STAY,
    ),
    Mutant(
        "what failed is not given back, and nobody sees that its lease is nobody's",
        _Worker,
        "_postpone",
        "await self._ledger_lane.run(self._ledger.release, [postponed])",
        "pass",
        twin=_LEASES_STAY,
    ),
    Mutant(
        "what is gone is prepared to its end",
        intake.Intake,
        "take_gone",
        "turn.cut_short()",
        "pass",
        scenario=_ENDPOINT_AWAY,
    ),
    Mutant(
        "a path in work is never missed",
        in_work.Turn,
        "misses",
        "return self._goes_by is _Sight.UNKNOWN or self._goes_by != found",
        "return False",
        scenario=_ENDPOINT_AWAY,
    ),
    # Requeue and acknowledge
    Mutant(
        "a change is acknowledged before it is done",
        sync.Protocol,
        "mark",
        "if plans or removed:",
        "await self._ledger_lane.run(self._ledger.commit, [], [write.change for write in group])\n"
        "    if plans or removed:",
    ),
    Mutant(
        "a gone path that is unknown stays in the queue",
        _Worker,
        "_finish_unknown",
        "await self._acknowledge([task.change for task in gone])",
        "pass",
    ),
    Mutant(
        "a lease of which nobody has heard is kept",
        _Worker,
        "_lease",
        ", in_work=in_work",
        "",
        scenario={"only": frozenset({"ledger lost"}), "faults": 4.0},
    ),
    Mutant(
        "a dead process keeps its leases, and nobody sees that they are nobody's",
        pipeline.Pipeline,
        "prepare",
        "await self._ledger_lane.run(ledger.release_all)",
        "pass",
        twin=_LEASES_STAY,
    ),
    Mutant(
        "nobody hears that a service is back",
        _Worker,
        "_are_back",
        "await self._ledger_lane.run(self._ledger.hasten, self._runtime.now_seconds(), service)",
        "pass",
        scenario=_CHROMA_AWAY,
        seed=290,
    ),
    # The write protocol
    Mutant("nothing is marked", sync.Protocol, "mark", "if plans or removed:", "if False:"),
    Mutant(
        "old records go before new ones come",
        sync.Protocol,
        "apply",
        "records = [record for plan in plans for record in plan.embed]",
        "await self._sink_lane.run(self._sink.drop, [id_ for plan in plans for id_ in plan.before.tags])"
        " if all(plan.before for plan in plans) else None\n"
        "    records = [record for plan in plans for record in plan.embed]",
    ),
    Mutant("metadata is not renewed", sync.Protocol, "apply", "if retagged:", "if False:"),
    Mutant(
        "a group is committed although it failed",
        _Writer,
        "_carry_out",
        "except IngestorError as error:\n        _settle(group, error)",
        "except IngestorError as error:\n        self._applied += group\n        self._is_applied.set()",
        scenario=_CHROMA_AWAY,
    ),
    # Following
    Mutant(
        "hints of the time of a scan are forgotten",
        following.Follower,
        "_reconcile_all",
        "await self._reconciler.reconcile()",
        "await self._reconciler.reconcile()\n        self._settling.clear()",
        scenario=_OVERFLOWS,
    ),
    Mutant(
        "the folder is not compared after a doubt",
        following.Follower,
        "run",
        "await self._reconcile_all()",
        "self.reconciled.set() or self.begun.set()",
    ),
    Mutant(
        "what rests is forgotten",
        following.Follower,
        "_look_at_files",
        "self._settling.postpone(",
        "(lambda *_: None)(",
    ),
    Mutant(
        "what is looked at is in step",
        following.Follower,
        "_looking",
        "self._is_looking = True",
        "pass",
        scenario=_SLOW_LEDGER,
    ),
    # What is held back
    Mutant("what is held is deleted", _Ledger, "hold", "self.holding.setdefault(path, False)", "pass", scenario=_HOLDS),
    Mutant(
        "what is held is forgotten with the process",
        pipeline.Pipeline,
        "prepare",
        "collection_id = self._parts.sink.collection_id",
        "await self._ledger_lane.run(ledger.hold_no_more, ledger.held())\n"
        "    collection_id = self._parts.sink.collection_id",
        scenario=_HOLDS,
    ),
    Mutant(
        "a comparison begins with nothing held",
        guard.Guard,
        "_keep",
        "if verdict.back:",
        "await self._lane.run(self._ledger.hold_no_more, verdict.stays)\n    if verdict.back:",
        scenario=_HOLDS,
    ),
    Mutant(
        "a comparison of a part lets go of what is held elsewhere",
        guard,
        "judged",
        "(is_whole and path not in glances)",
        "path not in glances",
        scenario=_HOLDS,
    ),
    Mutant(
        "a hint of one file carries out what is held",
        _Ledger,
        "mark",
        "if self.holding.get(path) is False:",
        "if False:",
        scenario=_HOLDS,
    ),
    Mutant(
        "a comparison queues what is held, and the ledger lets it be deleted",
        guard,
        "judged",
        "if path not in waiting and path not in joins",
        "if path not in joins",
        scenario=_HOLDS,
        seed=644,
        twin=Edit(_Ledger, "mark", "if self.holding.get(path) is False:", "if False:"),
    ),
    Mutant(
        "a file that is back is held still, whether it is compared or committed",
        guard.Guard,
        "_keep",
        "if verdict.back:",
        "if False:",
        scenario=_HOLDS,
        twin=Edit(_Ledger, "commit", "self.hold_no_more(settled(plans, changes))", "pass"),
    ),
    Mutant(
        "a deletion that is held stays leased, and nobody sees that its lease is nobody's",
        _Worker,
        "_process",
        "# It is in the set of those that wait for approval, where comparisons find it again.\n"
        "            await self._acknowledge([task.change])",
        "pass",
        scenario=_HOLDS,
        twin=_LEASES_STAY,
    ),
    Mutant(
        "nobody carries out what was approved",
        following.Follower,
        "_follow",
        "if await self._reconciler.is_approved():",
        "if False:",
        seed=41,
        scenario=_HOLDS,
    ),
    # Money
    Mutant(
        "a text is in two calls at once", embedding.Embedding, "request", "if key not in self._promised:", "if True:"
    ),
    Mutant(
        "a vector is handed out and not kept",
        embedding.Embedding,
        "_embed",
        "await self._lane.run(self._vectors.put, pairs)",
        "pass",
    ),
    # What others do to the collection
    Mutant(
        "nobody patrols",
        patrol.Patrol,
        "_go_round",
        "if found.corrections:",
        "if False:",
        scenario={"only": frozenset({"chroma late"}), "faults": 4.0, "deaths": 3.0},
    ),
    # Whose the collection is
    Mutant(
        "another owner is let in",
        owning,
        "_judge",
        "raise another_owner(row.name, row.metadata, is_at_work=is_fresh(row.metadata, now_seconds))",
        "pass",
        scenario=_OWNERS,
    ),
    Mutant(
        "a copy of the data folder is let in, whether or not it is told that the other one works",
        owning,
        "_judge",
        "match found:",
        "match Standing.OWN if found in {Standing.BUSY, Standing.RIVALLED} else found:",
        scenario=_OWNERS,
        twin=Edit(owning, "_judge", "(original := file.original())", "(original := '')"),
    ),
    Mutant(
        "nobody sees that another owner has taken the collection, nor that another process has",
        chroma_hold.Hold,
        "check",
        "if held_id not in {None, self.labels[OWNER_KEY]}:",
        "if False:",
        scenario=_OWNERS,
        twin=Edit(chroma_hold.Hold, "check", "if process not in {None, self.process, self.predecessor}:", "if False:"),
    ),
    Mutant(
        "the records of a stranger are taken for one's own",
        Ours,
        "has",
        'return tag in {"", self.tag} or tag in self.former',
        "return True",
        scenario=_OWNERS,
    ),
)
