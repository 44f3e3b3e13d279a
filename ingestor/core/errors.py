"""Every error the product raises on purpose; the branch of the tree decides what is done about it.

- `TransientError`: tried again, later, a bounded number of times.
- `DocumentError`: becomes a Problem of that one document; every other document goes on.
- `FatalError`: the process stops with one clear line and the exit code of the class; nothing is lost.

Invariant: `str(error)` is a sentence for the user, `error.remedy` says what to do about it; neither holds a secret.
"""

from typing import ClassVar

CHROMA = "Chroma"
MACHINE = "this machine"
NEXT_DAY = "the next day's budget"
DECISION = "a decision"
"""What documents wait for, as messages name it; an embedding endpoint is named by its URL."""


class IngestorError(Exception):
    """Base of all errors raised on purpose."""

    exit_code: ClassVar[int] = 1
    service: str = MACHINE
    """What it came from, and of one that is transient, what has to come back first. Empty: only the document itself."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def sentence(self) -> str:
        """The message and its remedy in one line, as the command line prints it."""
        return f"{self} - {self.remedy}" if self.remedy else str(self)


class TransientError(IngestorError):
    """It failed now and may succeed later without anybody doing anything."""

    exit_code = 4

    def __init__(self, message: str, *, remedy: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(TransientError):
    """The embedding provider asks to slow down (HTTP 429), and may say what it allows."""

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        retry_after_seconds: float | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, retry_after_seconds=retry_after_seconds)
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute


class BudgetSpent(TransientError):
    """What the user lets embedding cost in a day is spent; `retry_after_seconds` is the time until the next day."""

    service = NEXT_DAY


class Undecided(TransientError):
    """Somebody has to decide before new texts are embedded; `retry_after_seconds` is when it is looked at again."""

    service = DECISION


class ServiceUnavailable(TransientError):
    """An outside service (embedding endpoint, Chroma) is out of reach, times out or answers nonsense."""

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        retry_after_seconds: float | None = None,
        may_be_a_text: bool = False,
        billed_tokens: int | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, retry_after_seconds=retry_after_seconds)
        self.may_be_a_text = may_be_a_text
        """Whether a text of the call may be the reason: the endpoint has received it, and said or did this."""
        self.billed_tokens = billed_tokens
        """Tokens that a provider bills for the call all the same; 0: so many as were sent, None: nothing."""


class ChromaUnavailable(ServiceUnavailable):
    """Chroma is out of reach, does not answer in time, or fails at what it was asked."""

    service = CHROMA


class UnusableVectors(ServiceUnavailable):
    """The model answers texts of a call with vectors that are none: not finite, zero, or no numbers at all."""

    def __init__(
        self, message: str, *, positions: frozenset[int], remedy: str = "", billed_tokens: int | None = None
    ) -> None:
        super().__init__(message, remedy=remedy, billed_tokens=billed_tokens)
        self.positions = positions
        """Places of these texts in the call; when others are sound, the fault lies with the texts."""


class DeletionHeld(TransientError):
    """The deletion waits for somebody's approval, and is not carried out meanwhile."""

    service = ""


class UnstableDocument(TransientError):
    """The file changed while it was read, or is still being written."""

    service = ""


class DocumentError(IngestorError):
    """This document cannot be indexed as it is; it becomes a Problem.

    With `is_unknown` it cannot even be told what it holds now: unknown is not gone, so what was indexed of it stays.
    """

    exit_code = 3

    def __init__(self, message: str, *, remedy: str = "", is_unknown: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.is_unknown = is_unknown


class UnreadableDocument(DocumentError):
    """The file cannot be opened or read, or is no regular file."""


class UndecodableDocument(DocumentError):
    """The bytes are binary, or text in no encoding that could be told for certain."""


class UnconvertibleDocument(DocumentError):
    """The file is damaged, locked, without text, or does harm to the converter that its format needs."""


class UncuttableDocument(DocumentError):
    """Decoding or cutting it ran into a fault of this program."""


class UnusableMetadata(DocumentError):
    """Metadata of one's own - front matter, a sidecar, a `.ingestor.toml` - cannot be told, or is none that may be."""


class OversizeDocument(DocumentError):
    """The file is larger than `watch.max_file_bytes`, or its text than `convert.max_text_bytes`."""


class RejectedByModel(DocumentError):
    """The embedding model refuses a text of this document (HTTP 400, 413, 422)."""


class CallTooLarge(RejectedByModel):
    """The provider refuses a call for its size, and may say what it allows (HTTP 400, 413, 422)."""

    def __init__(
        self, message: str, *, remedy: str = "", max_inputs: int | None = None, max_tokens: int | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.max_inputs = max_inputs
        self.max_tokens = max_tokens


class RejectedByChroma(DocumentError):
    """Chroma refuses a record of this document."""


class FatalError(IngestorError):
    """The process cannot go on; it stops and says why."""


class ConfigError(FatalError):
    """A setting is unknown, missing or wrong."""

    exit_code = 2


class AuthenticationFailed(FatalError):
    """A key or token was refused (HTTP 401, 403)."""

    exit_code = 2


class RecipeMismatch(FatalError):
    """The collection was built by another model, dimension, prefix or distance than the settings name."""

    exit_code = 2


class ForeignCollection(FatalError):
    """Another data folder, or a copy of this one, fills the collection."""

    exit_code = 2


class AlreadyRunning(FatalError):
    """Another instance holds the lock of the data folder or of the Chroma folder."""

    exit_code = 5


class LedgerCorrupt(FatalError):
    """The ledger file is no readable ledger."""

    exit_code = 6


class LedgerLost(FatalError):
    """The ledger file was deleted or replaced while it was open; the next start goes by what is there, or heals it."""

    exit_code = 4


class CollectionLost(FatalError):
    """The collection was deleted while it was open; the next start makes it again, without an embedding call."""

    exit_code = 4


class WatcherDied(FatalError):
    """File events cannot be had, and could not be had again."""
