"""Listing: documents as people look for them, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ingestor.core.model import Problem


class State(StrEnum):
    """What has become of a document."""

    INDEXED = "indexed"
    PROBLEM = "problem"
    """It could not be indexed: what failed is told beside it."""
    QUEUED = "queued"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents are looked for; what is empty leaves none out."""

    folder: str = ""
    """Those at or below it."""
    text: str = ""
    """Part of the path; ASCII letters may be of either case."""
    file_type: str = ""
    """MIME type."""
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A document, or a file that is queued to become one; None for what nobody knows of that yet."""

    path: str
    document_id: str | None
    chunks: int
    size_bytes: int | None
    modified_seconds: float | None
    """Seconds since the epoch."""
    state: State
    problem: Problem | None
    waits_for: str = ""
    """The service that a queued one waits for; empty where it waits for its turn."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of what was looked for."""

    total: int
    """How many there are, on all pages."""
    documents: Sequence[Listed]
