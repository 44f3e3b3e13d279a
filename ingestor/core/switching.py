"""Switching: one collection put in the place of another, as steps of which each may be repeated.

Theory of operation
-------------------
Chroma renames one collection at a time, and the ledgers, one for each source of the collection, lie in files beside
it, so that a switch takes several calls, and the process may die between any two. Nothing is remembered of how far it
came. What is looked at instead is the scene: which name each collection bears (Chroma's id stays through a rename) and
of which collection each ledger file speaks. The scene tells the next step, and the step changes the scene. Whoever
finds the journal of a switch goes on.

The serving collection steps aside only when all that takes space on the disk, and may fail for it, has been done. Until
then the switch may be left. From then on it is completed, unless the collection that was to take the place is gone:
then the old one steps back.

Invariant: a collection with records is never deleted here, and its name is never taken from one that is
neither of both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Swap:
    """What becomes of the ledger of one source. Ledgers go by their file names."""

    ledger: str
    next_ledger: str = ""
    """The ledger of the next collection; empty: the same ledger goes on, and speaks of the next collection."""
    kept_ledger: str = ""
    """Where the content of the serving ledger is kept; empty: nowhere."""

    @property
    def files(self) -> tuple[str, ...]:
        """The ledgers that it names."""
        return tuple(filter(None, (self.ledger, self.next_ledger, self.kept_ledger)))


@dataclass(frozen=True, slots=True)
class Switch:
    """What is put in the place of what. Collections go by Chroma's ids."""

    name: str
    """The name that is served."""
    serving_id: str
    """The collection that gives way."""
    aside_name: str
    """The name that it takes."""
    next_id: str
    """The collection that takes its place."""
    swaps: tuple[Swap, ...]
    """One for each source of the collection."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is at one moment."""

    names: Mapping[str, str]
    """The name of every collection, by id."""
    notes: Mapping[str, str]
    """Of which collection each ledger file speaks, by the file's name; "" for one that speaks of none yet."""


class Step(StrEnum):
    """What is to be done next."""

    KEEP_LEDGER = "keep ledger"
    """Copy the serving ledger."""
    STEP_ASIDE = "step aside"
    """Rename the serving collection."""
    CLEAR = "clear"
    """Delete an empty collection that has been made under the name meanwhile."""
    STEP_IN = "step in"
    """Rename the next collection."""
    STEP_BACK = "step back"
    """Give the serving collection its name back: the next one is gone."""
    TAKE_LEDGER = "take ledger"
    """Replace what the ledger says by what the next ledger says."""
    NOTE_LEDGER = "note ledger"
    """Let the ledgers that go on speak of the next collection."""
    DROP_LEDGER = "drop ledger"
    """Delete the file of the next ledger."""
    END = "end"
    """Nothing is left to do: forget the switch."""


def next_step(switch: Switch, scene: Scene) -> tuple[Step, Swap]:
    """What to do next about a switch, from nothing but what there is; and of which ledger, where it is about one."""
    first = switch.swaps[0]
    serving_name, next_name = scene.names.get(switch.serving_id), scene.names.get(switch.next_id)
    is_free = switch.name not in scene.names.values()
    if next_name is None:
        return (Step.STEP_BACK if is_free and serving_name == switch.aside_name else Step.END), first
    for swap in switch.swaps:
        if _is_to_keep(switch, swap, scene):
            return Step.KEEP_LEDGER, swap
    if serving_name == switch.name:
        return Step.STEP_ASIDE, first
    if next_name != switch.name:
        return (Step.STEP_IN if is_free else Step.CLEAR), first
    for swap in switch.swaps:
        step = _ledger_step(switch, swap, scene)
        if step is not Step.END:
            return step, swap
    return Step.END, first


def _is_to_keep(switch: Switch, swap: Swap, scene: Scene) -> bool:
    is_serving = scene.notes.get(swap.ledger) == switch.serving_id
    return bool(swap.kept_ledger) and is_serving and scene.notes.get(swap.kept_ledger) != switch.serving_id


def _ledger_step(switch: Switch, swap: Swap, scene: Scene) -> Step:
    """What to do next about a ledger when the collections bear their names."""
    told = scene.notes.get(swap.ledger)
    if not swap.next_ledger:
        # One that is missing, or speaks of another collection yet, is made to agree with the one that is there.
        return Step.NOTE_LEDGER if told == switch.serving_id else Step.END
    if swap.next_ledger not in scene.notes:
        return Step.END
    is_taken = told == switch.next_id or scene.notes[swap.next_ledger] != switch.next_id
    return Step.DROP_LEDGER if is_taken else Step.TAKE_LEDGER
