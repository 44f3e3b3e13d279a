"""The hold that a process has on a collection that it writes to; a part of the sink.

Invariant: the metadata of the collection is read again right before a sign of life is written into it, and every other
key is written back as it was found.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ingestor.core.errors import ForeignCollection
from ingestor.core.model import Scalar
from ingestor.core.owning import BEAT_KEY, OWNER_KEY, PROCESS_KEY, told

ANOTHER_NAME = "set another chroma.collection (INGESTOR_CHROMA__COLLECTION)"
TAKE_OVER = "or run `ingestor sync --take-over` so that its records follow the folder here"
PART_COPY = "give the copy another chroma.collection and delete its owner.json and ledgers"


@dataclass(frozen=True, slots=True)
class Hold:
    """What the metadata says while the collection is this process's to write to."""

    labels: Mapping[str, Scalar]
    is_shared: bool
    """Whether other machines reach the collection, so that signs of life are needed."""
    is_new: bool
    """Whether the collection had another owner before, or none."""
    predecessor: str
    """The process that had it before; by its name a metadata of before is known that another program has put back."""
    on_rival: Callable[[str, float], None]
    """Told of another process with the same owner's id: its name, and its sign of life in seconds."""

    @property
    def process(self) -> str:
        """The name of this process."""
        return str(self.labels[PROCESS_KEY])

    def is_told(self, metadata: Mapping[str, Any]) -> bool:
        """Whether the metadata still says that the collection is this process's."""
        return metadata.get(PROCESS_KEY) == self.process

    def check(self, name: str, metadata: Mapping[str, Any]) -> None:
        """Raise `ForeignCollection` when somebody else has taken the collection."""
        held_id = metadata.get(OWNER_KEY)
        if held_id not in {None, self.labels[OWNER_KEY]}:
            raise another_owner(name, metadata)
        process = metadata.get(PROCESS_KEY)
        if process not in {None, self.process, self.predecessor}:
            self.on_rival(str(process), float(metadata.get(BEAT_KEY) or 0))
            raise rivalled(name, metadata)


def another_owner(name: str, metadata: Mapping[str, Any], *, is_at_work: bool = False) -> ForeignCollection:
    """The refusal of a collection that another data folder owns, whose daemon may be at work right now."""
    message = f"the collection {name!r} belongs to the data folder {told(metadata)}"
    if is_at_work:
        return ForeignCollection(
            f"{message}, whose daemon is at work", remedy=f"{ANOTHER_NAME}; {TAKE_OVER}, once that daemon has ended"
        )
    return ForeignCollection(message, remedy=f"{ANOTHER_NAME}, {TAKE_OVER}")


def orphaned(name: str, metadata: Mapping[str, Any]) -> ForeignCollection:
    """The refusal of a collection whose owner was this very data folder, as far as its path and machine say."""
    return ForeignCollection(
        f"the collection {name!r} was filled from this data folder, {told(metadata)}, which has lost its owner file"
        " and its ledger",
        remedy="run the command once with --take-over: nothing is embedded again",
    )


def rivalled(name: str, metadata: Mapping[str, Any]) -> ForeignCollection:
    """The refusal of a collection that a copy of this data folder is at work on."""
    return ForeignCollection(
        f"a process with a copy of this data folder is at work on the collection {name!r}: {told(metadata)}",
        remedy=PART_COPY,
    )
