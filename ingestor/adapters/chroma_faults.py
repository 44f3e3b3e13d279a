"""Faults of Chroma: what its client raises, as what it means.

Invariant: nothing that Chroma raises reaches a caller as it is, but a fault of our own does: it has to be seen as such.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from ingestor.core.errors import (
    AuthenticationFailed,
    ChromaUnavailable,
    CollectionLost,
    IngestorError,
    RecipeMismatch,
)

_WORDS = 300


def finds_no_id(error: Exception) -> bool:
    """Whether Chroma has stumbled over a record that its database has and its index has not.

    The index may have lost it, or it is deleted at that moment: of 8,000 searches beside 600 deletes ten failed so.
    """
    return "Error finding id" in str(error)


@contextmanager
def translation(doing: str, refused: type[IngestorError]) -> Iterator[None]:
    """Raise what Chroma raises as what it means; `refused` is what a refusal of the arguments means here."""
    try:
        yield
    except IngestorError:
        raise
    except Exception as error:
        translation = _translated(error, doing, refused)
        if translation is None:
            raise
        raise translation from error


def _translated(error: Exception, doing: str, refused: type[IngestorError]) -> IngestorError | None:
    """None for what Chroma never raises: a fault of our own, which has to be seen as such."""
    from chromadb import errors  # noqa: PLC0415 - the client has imported chromadb already

    status = _status_of(error)
    words = _words(error)
    translation: IngestorError | None = None
    if isinstance(error, httpx.TimeoutException):
        translation = ChromaUnavailable(f"Chroma did not answer in time while {doing}")
    elif isinstance(error, httpx.TransportError):
        translation = ChromaUnavailable(f"Chroma was out of reach while {doing}: {type(error).__name__} {words}")
    elif isinstance(error, errors.NotFoundError):
        translation = CollectionLost(
            f"the collection was deleted or renamed by somebody else; noticed while {doing}",
            remedy="start again: it is made and filled anew, without an embedding call",
        )
    elif isinstance(error, errors.ChromaAuthError | errors.AuthorizationError) or status in {401, 403}:
        translation = AuthenticationFailed(
            f"Chroma refused the token while {doing}", remedy="set INGESTOR_CHROMA__TOKEN"
        )
    elif isinstance(error, errors.InvalidDimensionException) or "expecting embedding with dimension" in words:
        translation = RecipeMismatch(
            f"Chroma refused while {doing}: {words}",
            remedy="take the old embedding settings back, or choose another INGESTOR_CHROMA__COLLECTION",
        )
    elif isinstance(error, errors.InternalError | errors.RateLimitError | errors.VersionMismatchError):
        translation = ChromaUnavailable(f"Chroma failed while {doing}: {words}", remedy=_remedy(words))
    elif isinstance(error, errors.ChromaError) or status in {400, 413, 422}:
        translation = refused(f"Chroma refused while {doing}: {words}")
    elif status is not None or _is_nonsense(error):
        translation = ChromaUnavailable(f"Chroma answered nonsense while {doing}: {words}")
    elif isinstance(error, ValueError | TypeError):
        translation = refused(f"Chroma refused while {doing}: {words}")
    return translation


def _status_of(error: Exception) -> int | None:
    """The HTTP status that an error of no kind stands for: Chroma raises a bare Exception for what it cannot read."""
    cause = error.__context__
    return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None


def _is_nonsense(error: Exception) -> bool:
    """Whether an answer of the server was no JSON, or JSON of another shape."""
    return isinstance(error, json.JSONDecodeError | KeyError)


def _remedy(words: str) -> str:
    is_disk = any(sign in words.lower() for sign in ("compaction", "hnsw", "disk", "code: 13", "code: 778"))
    return "see whether the disk is full; if it is not, restart the server" if is_disk else ""


def _words(error: Exception) -> str:
    """What an error says in one line, short enough for a log."""
    return " ".join(str(error).split())[:_WORDS] or type(error).__name__
