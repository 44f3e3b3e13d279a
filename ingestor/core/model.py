"""The nouns: immutable values that every floor shares.

Invariant: a path is relative to the watched folder, "/" separated, with undecodable bytes of a file name kept as
surrogates (`os.fsdecode`); the root itself is "".
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from typing import TypeAlias

from ingestor.core.formats import Format

Scalar: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Scalar]

Version: TypeAlias = tuple[int, int, int, int, bool]
"""What of a stat hints at the content: inode, size, mtime, ctime, and whether the file is regular.

The device is left out: its number changes with a reboot. As a glance, it is a plain tuple because a comparison of the
whole folder holds one for every file: Python's search for garbage forgets tuples of numbers, and visits objects of a
class again and again, which would take as long as all else.
"""
Identity: TypeAlias = tuple[int, int, int]
"""What a rename keeps of a version: inode, size and mtime."""
Glance: TypeAlias = tuple[Version, str, bool]
"""As much of an entry as a reconcile needs: version, fingerprint of the cutting recipe, whether it is unfinished."""


def identity_of(version: Version) -> Identity:
    """What tells a renamed file from any other: an inode alone is soon that of another file."""
    return version[0], version[1], version[2]


@dataclass(frozen=True, slots=True)
class Hint:
    """Something happened at this path: it makes us look, and is never believed."""

    path: str
    is_folder: bool = False
    is_closed: bool = False
    """The writer closed the file or renamed it into place: its content is complete."""


class DoubtKind(StrEnum):
    """Why the whole folder is looked at again."""

    OVERFLOW = "overflow"
    """The kernel's queue of events was full."""
    THREAD = "thread"
    """A thread of the watch has died, or met a fault."""
    BACKLOG = "backlog"
    """Events come faster than they are taken out."""
    FOLDERS = "folders"
    """The watch has a wrong idea of the folders, or does not watch all of them."""
    ROOT = "root"
    """The watched folder went, was replaced, or something was mounted or unmounted."""
    UNAVAILABLE = "unavailable"
    """The folder, or what is known of it, could not be read."""
    HINTS = "hints"
    """More paths changed at once than are looked at one by one."""
    APPROVED = "approved"
    """Deletions that were held back were approved."""
    COLLECTION = "collection"
    """The collection is not what was written."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why events may have been lost, or why else the folder is to be compared, in one sentence."""

    reason: str
    kind: DoubtKind

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Stat:
    """What the file system says of a file without opening it; times in nanoseconds since the epoch."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    is_regular: bool = True
    attached: str = field(default="", compare=False)
    """Name of what is attached to the file (`core/attaching.py`), for what was looked at just now: the ledger keeps it
    with the cutting recipe."""

    @property
    def version(self) -> Version:
        """What hints at the content."""
        return self.inode, self.size_bytes, self.mtime_ns, self.ctime_ns, self.is_regular

    def same_content_as(self, other: "Stat") -> bool:
        """Whether nothing hints at different content."""
        return self.version == other.version


UNKNOWN_STAT = Stat(size_bytes=0, mtime_ns=0, ctime_ns=0, device=0, inode=0, is_regular=False)
"""The stat of a file that was not looked at: none is like it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scan of the folder, or of a part of it, has found.

    `unreadable` maps folders that could not be listed to the reason: nothing below them is known, so nothing below
    them may be taken for deleted; a `.ingestor.toml` with a fault is told there, too. `skipped` maps paths left out on
    purpose (symlinks, sidecars without a file) to the reason. `attached` names what is attached to files, where
    anything is. `unconverted` are files that nothing here can convert to text: they are not looked into, and what was
    indexed of them stays.
    """

    files: Mapping[str, Version]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    attached: Mapping[str, str] = field(default_factory=dict)
    unconverted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """Sizes of chunks, as estimated for the embedding model."""

    max_tokens: int
    overlap_tokens: int


@dataclass(frozen=True, slots=True)
class Attached:
    """What the folders that a file lies in say of it."""

    layer: Mapping[str, Scalar | tuple[Scalar, ...] | None] = field(default_factory=dict)
    """Metadata of one's own, see `core/metadata.py`."""
    size: ChunkSize | None = None
    """None: as the settings say."""
    is_known: bool = True
    """Whether all that these folders say could be told."""


NOTHING = Attached()


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, read while it did not change; `content_hash` is their SHA-256 in hex."""

    stat: Stat
    raw: bytes
    content_hash: str
    attached: Attached = NOTHING
    sidecar: bytes | None = None
    """The bytes of the file that tells of this one."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text. Lines count from 1 and both ends are included."""

    text: str
    start_line: int
    end_line: int
    heading: str = ""
    """Path of the headings above the chunk, " > " separated."""
    page: int = 0
    """Page, slide or sheet that the chunk begins on, from 1; 0 in a document that has none."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What a file of another format says, as Markdown."""

    text: str
    pages: tuple[int, ...] = ()
    """The line, from 1, that each page, slide or sheet begins with, from the first on; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Text:
    """A file as text, read while it did not change; `content_hash` is the SHA-256 of its bytes in hex."""

    path: str
    stat: Stat
    content_hash: str
    text: str
    metadata: Metadata = field(default_factory=dict)
    """Of one's own: what the text, its folders and its sidecar say."""
    size: ChunkSize | None = None
    """How to cut it; None: as the settings say."""
    begin: int = 0
    """The character at which front matter ends, and what is cut begins."""
    converted_from: Format | None = None
    """The format that it was converted from; None for the text that the file itself is."""
    pages: tuple[int, ...] = ()
    """As in `Converted`."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file as text, cut into chunks in their order."""

    path: str
    stat: Stat
    content_hash: str
    file_type: str
    title: str
    chunks: tuple[Chunk, ...]
    metadata: Metadata = field(default_factory=dict)
    """Of one's own, but for the title."""


@dataclass(frozen=True, slots=True)
class Record:
    """What Chroma holds for a chunk, but for its vector."""

    id: str
    text: str
    metadata: Metadata
    tag: str
    """Fingerprint of the metadata without the time of ingestion: tells whether a record needs a retag."""


@dataclass(frozen=True, slots=True)
class Retag:
    """New metadata for a record that exists."""

    id: str
    metadata: Metadata
    is_whole: bool = True
    """Whether the record is to have this and no more; otherwise it is what differs from what it is known to have."""


class Stage(StrEnum):
    """Where on its way a document failed."""

    READ = "read"
    DECODE = "decode"
    CUT = "cut"
    EMBED = "embed"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Problem:
    """A per-document fault, as a value; times in seconds since the epoch."""

    stage: Stage
    kind: str
    """Name of the error class."""
    reason: str
    remedy: str
    attempts: int
    since_seconds: float
    next_try_seconds: float | None = None
    """None: tried again when the file changes, or on `ingestor retry`."""
    service: str = ""
    """What has failed in place of the document, and is waited for; empty for a fault of the document."""


@dataclass(frozen=True, slots=True)
class ServiceWait:
    """Documents that wait for one service to come back; times in seconds since the epoch."""

    service: str
    documents: int
    reason: str
    """What the service said last, or what was said of it."""
    remedy: str
    since_seconds: float
    """Since when the first of them waits."""
    next_try_seconds: float
    """When the next one is tried."""


DAMAGED = "damaged"
"""Tag of a record that the collection holds with another text or vector than it should, or does not find by it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger knows of one document: the state that Chroma holds, and what is doubtful about it."""

    path: str
    document_id: str
    stat: Stat
    content_hash: str
    cutting: str
    """Fingerprint of the cutting recipe that the chunks were made with, and the name of what was attached to the file.

    A Problem has the name alone."""
    tags: Mapping[str, str]
    """Record id -> tag of the metadata that Chroma is known to hold; an empty tag is not known. See `DAMAGED`, too."""
    doubtful: frozenset[str] = frozenset()
    """Record ids that Chroma may or may not hold, after a write that was begun and not finished."""
    problem: Problem | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether something is left to do, whatever the file says: a write that never ended, a damaged record."""
        return bool(self.doubtful) or any(tag in {"", DAMAGED} for tag in self.tags.values())


class Priority(StrEnum):
    """What is gone goes before live changes, and these go before the backfill of a scan."""

    GONE = "gone"
    """The file was gone when it was queued: that costs no call, and nobody is to find it any more."""
    LIVE = "live"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the durable queue: this path has to be looked at again; times in seconds since the epoch."""

    path: str
    priority: Priority
    enqueued_seconds: float
    not_before_seconds: float
    attempts: int = 0
    problem: Problem | None = None
    """Why the last attempt failed; the next one is not before `not_before_seconds`."""
    generation: int = 0
    """Grows with every hint for the path, so that work on an older hint does not acknowledge a newer one."""

    @property
    def is_live(self) -> bool:
        """Whether somebody has just changed the file, or it is gone: it goes before what a comparison has found."""
        return self.priority is not Priority.BACKFILL


class Outcome(StrEnum):
    """What became of a document."""

    ADDED = "added"
    CHANGED = "changed"
    RENAMED = "renamed"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be done in Chroma so that it holds exactly this document, and the ledger entry that says so.

    `replace` are ids of damaged records, to be deleted before anything is added; `embed` are records whose vectors are
    needed, because they are new, doubtful or to be replaced; `retag` are records that exist and need new metadata
    (doubtful ones are in both: `add` ignores an id that exists); `drop` are ids to delete.
    """

    path: str
    outcome: Outcome
    before: Entry | None
    after: Entry | None
    embed: tuple[Record, ...] = ()
    retag: tuple[Retag, ...] = ()
    drop: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()

    @property
    def touches_chroma(self) -> bool:
        """Whether there is anything to write besides the ledger entry."""
        return bool(self.embed or self.retag or self.drop)


class Purpose(StrEnum):
    """What a text is embedded for: some models want different prefixes."""

    DOCUMENT = "document"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything besides the text that decides vectors; the same in ledger, vector store and collection."""

    provider: str
    model: str
    dimensions: int
    """Length of the vectors; 0 where the model alone knows it until its first answer."""
    document_prefix: str = ""
    query_prefix: str = ""

    def text_to_send(self, text: str, purpose: Purpose = Purpose.DOCUMENT) -> str:
        """The exact text that the model gets."""
        return (self.document_prefix if purpose is Purpose.DOCUMENT else self.query_prefix) + text


@dataclass(frozen=True, slots=True)
class Usage:
    """What embedding has cost; counters that only grow."""

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    milliseconds: int = 0
    """Time that answered calls took, summed: calls that run at once count each."""
    lookups: int = 0
    """Texts that were looked for in the vector store."""
    hits: int = 0
    """Texts that were found there."""
    wasted_requests: int = 0
    """Those of the requests that were, or may have been, paid for, and brought nothing of use."""
    wasted_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(own + its for own, its in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result. `score` is higher for better whatever the collection's distance is."""

    id: str
    score: float
    distance: float
    document: str
    metadata: Metadata
