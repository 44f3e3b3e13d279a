"""Groups: the settings of each part, with what each may be.

Invariant: every field has a description below it, and its unit in its name.
"""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ingestor.core.choosing import choice_of
from ingestor.core.errors import ConfigError
from ingestor.core.network import server_url
from ingestor.core.profiles import checked_dimensions, profile_for
from ingestor.core.sizes import DEFAULT_MAX_TOKENS, MIN_MAX_TOKENS
from ingestor.settings.kinds import (
    COLLECTION_NAME,
    Formats,
    Group,
    HostNames,
    Name,
    Names,
    OwnMetadata,
    Patterns,
    Place,
    Proxied,
    Secret,
)

MAX_CHUNK_TOKENS = 8192
"""Of `chunk.max_tokens`, whatever the model takes."""
_YEAR_SECONDS = 366 * 24 * 3600


class WatchSettings(Group):
    """What belongs to the collection, and how changes are noticed."""

    include: Patterns = ()
    """Patterns (gitignore syntax) of the files to take; empty: all."""
    exclude: Patterns = ()
    """Patterns (gitignore syntax) of what to leave out, besides the built-in ones; `!pattern` takes back in."""
    follow_symlinks: bool = False
    """Follow symbolic links whose target lies inside the watched folder."""
    max_file_bytes: int = Field(default=10 * 1024 * 1024, ge=1, le=1024**3)
    """Files larger than this, in bytes, become a Problem."""
    quiet_seconds: float = Field(default=1.0, ge=0.1, le=30)
    """How many seconds a file that nobody has closed must rest before it is read."""
    rescan_seconds: float = Field(default=3600.0, ge=1, le=_YEAR_SECONDS)
    """Seconds between two comparisons of the whole folder with the ledger."""
    max_delete_ratio: float = Field(default=0.5, ge=0, le=1)
    """A comparison that misses more than this share of the documents deletes nothing until `ingestor approve`."""
    max_delete_documents: int = Field(default=100, ge=1, le=10**9)
    """With fewer documents than this, only a folder that is suddenly empty has to be approved."""
    polling: Literal["auto", "always", "never"] = "auto"
    """Look for changes by polling: `auto` does so where the kernel sends no events (NFS, SMB, FUSE, 9p…)."""
    metadata: OwnMetadata = Field(default_factory=dict)
    """Metadata of your own for every document; a table, or as a variable a JSON object."""


class ChunkSettings(Group):
    """How documents are cut."""

    max_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=MIN_MAX_TOKENS, le=MAX_CHUNK_TOKENS)
    """Most tokens of a chunk, by an estimate for the embedding model; not set, fewer where the model takes less."""
    overlap_tokens: int = Field(default=0, ge=0, le=4096)
    """Tokens that a chunk repeats of the one before it; an overlap makes every edit dearer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.overlap_tokens * 2 > self.max_tokens:
            message = "overlap_tokens may be at most half of max_tokens"
            raise ValueError(message)
        return self


class ConvertSettings(Group):
    """How files that are no text are made text; needs `pip install 'ingestor[documents]'`."""

    formats: Formats = ()
    """Formats to convert, of `pdf`, `docx`, `pptx`, `xlsx`, `epub`, `html`, `ipynb`; empty: all."""
    timeout_seconds: float = Field(default=60.0, ge=0.1, le=3600)
    """Seconds after which a conversion is given up; the file becomes a Problem."""
    max_memory_bytes: int = Field(default=1024**3, ge=640 * 1024**2, le=1024**5)
    """Address space, in bytes, of a process that converts; a file that needs more becomes a Problem."""
    max_text_bytes: int = Field(default=10 * 1024 * 1024, ge=1, le=1024**3)
    """Files whose text is larger than this, in bytes of UTF-8, become a Problem."""


class VectorSettings(Group):
    """The store of vectors that were paid for."""

    max_bytes: int = Field(default=1024**3, ge=1024**2, le=1024**5)
    """Size in bytes above which the vectors that were not used for longest go."""


class HnswSettings(Group):
    """The index of the collection. Chroma takes nonsense here without a word, so the limits are ours."""

    space: Literal["cosine", "l2", "ip"] = "cosine"
    """Distance; cannot be changed once the collection exists."""
    ef_search: int = Field(default=100, ge=1, le=10_000)
    """Candidates looked at by a search: more finds better and takes longer."""
    ef_construction: int = Field(default=64, ge=1, le=10_000)
    """Candidates looked at by an insertion."""
    max_neighbors: int = Field(default=32, ge=2, le=512)
    """Links of a record in the graph."""
    num_threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads of the index; a local Chroma accepts and ignores it."""


class ChromaSettings(Group):
    """Where the collection is."""

    mode: Literal["managed", "http", "persistent", "memory", "cloud"] = "managed"
    """`managed` (the daemon runs a server of its own), `http`, `persistent` (in this process), `memory` or `cloud`."""
    path: Place | None = None
    """Folder of the database (managed, persistent); empty: `chroma` in the data folder."""
    host: Name = Field(default="127.0.0.1", min_length=1)
    """Host of the server (http), or its URL where it is served below a path."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port of the server (managed, http)."""
    ssl: bool = False
    """Speak TLS with the server (http)."""
    token: Secret = None
    """Token of the server (http) or API key (cloud)."""
    tenant: Name = Field(default="default_tenant", min_length=1)
    """Tenant (http, cloud)."""
    database: Name = Field(default="default_database", min_length=1)
    """Database (http, cloud)."""
    collection: str = Field(default="documents", pattern=COLLECTION_NAME)
    """Name of the collection."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Seconds after which a call of Chroma is given up."""
    proxy: Proxied = None
    """URL of the HTTP proxy before a server elsewhere, or `none`; empty: what HTTPS_PROXY, NO_PROXY… say."""
    ca_file: Place | None = None
    """PEM file of authorities to trust besides the usual ones, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    max_tombstone_ratio: float = Field(default=2.0, ge=0, le=1_000_000)
    """Deleted records in the index, per live one, above which the daemon copies the collection afresh; 0: never."""
    hnsw: HnswSettings = HnswSettings()
    """The index."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            _ = self.url
        except ValueError as error:
            message = f"host: {error}"
            raise ValueError(message) from None
        return self

    @property
    def url(self) -> str:
        """Where the server is (http)."""
        port = self.port if "port" in self.model_fields_set else None
        return server_url(self.host, port, is_encrypted=self.ssl)


class EvaluationSettings(Group):
    """What `ingestor evaluate` compares."""

    models: Names = ()
    """Models to compare, each as PROVIDER/MODEL[@DIMENSIONS]; empty: the configured one and the built-in one."""

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                choice = choice_of(name)
                checked_dimensions(profile_for(choice.provider, choice.model), choice.dimensions or 0)
            except ConfigError as error:
                raise ValueError(error.sentence) from error
        return value


class HttpSettings(Group):
    """The HTTP server of the daemon: the page, the API, health."""

    enabled: bool = True
    """Whether `ingestor run` serves its page and its API."""
    host: Name = Field(default="127.0.0.1", min_length=1)
    """Address to listen at; anything but the loopback interface needs a token."""
    port: int = Field(default=8765, ge=0, le=65535)
    """Port to listen at; 0: one that is free, which the log and `ingestor status` tell."""
    token: Secret = None
    """What who asks has to show: as `Authorization: Bearer`, or once in the form of the page."""
    allowed_hosts: HostNames = ()
    """Names that requests may call it by; empty: `http.host` and those of the loopback interface, any with a token."""


class LogSettings(Group):
    """What is told on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is told."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: for people on a terminal, JSON otherwise."""
