"""Settings: one tree, the same names in `ingestor.toml`, `.env`, the environment and the secrets folder.

Invariant: every value is validated before anything starts, and is known with the place it came from. A key that no
setting has is an error that names it. Secrets are `SecretStr`: no log, repr or page shows them.

Order, the first one wins: command line, environment, `.env`, secrets folder, `ingestor.toml`, default.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ingestor.core.choosing import choice_of
from ingestor.core.errors import ConfigError, IngestorError, UnusableMetadata
from ingestor.core.escaping import escaped
from ingestor.core.formats import Format
from ingestor.core.metadata import Layer, layer_of
from ingestor.core.profiles import PROVIDERS, checked_dimensions, profile_for
from ingestor.core.sizes import DEFAULT_MAX_TOKENS, FILLED, MIN_MAX_TOKENS

PREFIX = "INGESTOR_"
DELIMITER = "__"
CONFIG_FILE = "ingestor.toml"
DOTENV_FILE = ".env"
SECRETS_DIR = "/run/secrets"
_CONTROLS = frozenset({"INGESTOR_CONFIG", "INGESTOR_SECRETS_DIR"})
"""Variables that say where settings are, and are none themselves."""
_KEY_FALLBACKS = {profile.provider: profile.key_variable for profile in PROVIDERS.values() if profile.key_variable}
_TABLES = frozenset({"watch.metadata"})
"""Settings that are tables themselves, whose keys are the user's."""
_PATHS = frozenset({"watch_dir", "data_dir", "chroma.path"})
LEDGER_FILE = "ledger.sqlite3"
"""The ledger of a folder that is the only one."""
_MAX_SECRET_BYTES = 1 << 16
_MAX_SHOWN_CHARACTERS = 300
_MAX_NAME_CHARACTERS = 500
_COLLECTION_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]$"
MAX_CHUNK_TOKENS = 8192
"""Of `chunk.max_tokens`, whatever the model takes."""
_HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+")
_PASSWORD = re.compile(r"//[^/@]*@")
_YEAR_SECONDS = 366 * 24 * 3600
_ANYBODYS = ("max_concurrency", "timeout_seconds")
"""Settings of a model that hold for another provider, too."""
_OF_THE_MODEL: Mapping[str, Any] = {"dimensions": None, "price_per_million_tokens": None, "max_cost_per_day": None}
"""Settings that speak of the configured model alone."""


def _lines(value: object) -> object:
    """Patterns from one string: a JSON array, or one pattern a line, or commas between them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except RecursionError:
            message = "lists are nested too deeply"
            raise ValueError(message) from None
    return [part.strip() for line in value.splitlines() for part in line.split(",") if part.strip()]


def _own_metadata(value: object) -> object:
    """Metadata from a table, or from a JSON object."""
    try:
        values = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, Mapping):
        message = 'it must be a table, or as a variable a JSON object such as {"team": "legal"}'
        raise ValueError(message)  # noqa: TRY004 - pydantic makes an error of the setting of this one alone
    try:
        return layer_of(values, "this setting")
    except UnusableMetadata as error:
        raise ValueError(error.sentence) from error


def _one_line(value: str) -> str:
    """What a name may be: whatever ends up in a request or in a log line."""
    if not value.isprintable():
        message = "it holds a control character or bytes that are no UTF-8"
        raise ValueError(message)
    if len(value) > _MAX_NAME_CHARACTERS:
        message = f"it is longer than {_MAX_NAME_CHARACTERS} characters"
        raise ValueError(message)
    return value


def _place(value: Path) -> Path:
    if "\0" in str(value):
        message = "no path holds a NUL"
        raise ValueError(message)
    return value


def _sendable(value: SecretStr | None) -> SecretStr | None:
    """A key that an HTTP header can carry: a client that is given another one shows it in its error."""
    if value is None:
        return None
    key = value.get_secret_value().strip()
    if not all(" " <= character <= "~" for character in key):
        message = "it holds what no request can carry: a line break, another control, or a letter beyond ASCII"
        raise ValueError(message)
    return SecretStr(key) if key else None


Patterns = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_lines)]
OwnMetadata = Annotated[Layer, NoDecode, BeforeValidator(_own_metadata)]
Name = Annotated[str, AfterValidator(_one_line)]
Names = Annotated[tuple[Name, ...], NoDecode, BeforeValidator(_lines)]
Formats = Annotated[tuple[Format, ...], NoDecode, BeforeValidator(_lines)]
Place = Annotated[Path, AfterValidator(_place)]
Secret = Annotated[SecretStr | None, AfterValidator(_sendable)]


class _Group(BaseModel):
    # An error repeats no input: it may be a secret, and `--debug` shows the error behind the error.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class WatchSettings(_Group):
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


class ChunkSettings(_Group):
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


class EmbeddingSettings(_Group):
    """The embedding model."""

    provider: Literal[
        "local",
        "openai",
        "dashscope",
        "dashscope-intl",
        "ollama",
        "vllm",
        "tei",
        "lmstudio",
        "infinity",
        "xinference",
        "chroma-default",
    ] = "local"
    """`local` (no key, no network), `openai` (any OpenAI-compatible endpoint) or one more of `ingestor models`."""
    model: Name = ""
    """Name of the model; empty: the provider's default."""
    base_url: Name = ""
    """URL of the endpoint; empty: the provider's own."""
    api_key: Secret = None
    """Key of the endpoint; falls back to `OPENAI_API_KEY` or `DASHSCOPE_API_KEY`."""
    dimensions: int | None = Field(default=None, ge=1, le=65536)
    """Length of the vectors, where the model lets one choose; empty: the model's default."""
    max_batch_inputs: int | None = Field(default=None, ge=1, le=2048)
    """Most texts of one call; empty: the provider's limit, but at most 128."""
    max_concurrency: int = Field(default=8, ge=1, le=64)
    """Most calls at once; fewer while the provider slows down or asks for less."""
    requests_per_minute: int | None = Field(default=None, ge=1, le=10**9)
    """Most calls in any minute; empty: no limit but what the provider answers."""
    tokens_per_minute: int | None = Field(default=None, ge=1, le=10**12)
    """Most tokens in any minute, as estimated before a call; empty: no limit but what the provider answers."""
    max_tokens_per_day: int | None = Field(default=None, ge=0, le=10**15)
    """Most tokens of a day, local time; then documents that need the model wait for the next day."""
    max_cost_per_day: float | None = Field(default=None, ge=0, le=10**9)
    """Most money of a day, in the currency of the price; needs a price."""
    price_per_million_tokens: float | None = Field(default=None, ge=0, le=10**9)
    """Price of a million tokens; empty: the list price that `ingestor models` shows."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Seconds after which a call is given up and tried again."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            profile = profile_for(self.provider, self.model_name)
        except ConfigError as error:
            raise ValueError(f"model: {error.sentence}") from error
        try:
            checked_dimensions(profile, self.dimensions or 0)
        except ConfigError as error:
            raise ValueError(f"dimensions: {error.sentence}") from error
        most = profile.max_batch_inputs
        if self.max_batch_inputs is not None and self.max_batch_inputs > most and profile.has_fixed_limits:
            message = f"max_batch_inputs: {profile.model} takes at most {most} texts a call"
            raise ValueError(message)
        return self

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        if not value:
            return value
        if not value.startswith(("http://", "https://")):
            message = "it must begin with http:// or https://"
            raise ValueError(message)
        try:
            parts = urlsplit(value)
            host = (parts.hostname or "").encode("idna").decode() if parts.port != 0 else ""
        except ValueError:
            host = ""
        if not _HOST.fullmatch(host) or " " in value:
            message = "it is no URL: the host or the port cannot be told"
            raise ValueError(message)
        return value

    @property
    def model_name(self) -> str:
        """The model, or the provider's default."""
        return self.model or PROVIDERS[self.provider].default_model

    def varied(self, given: Mapping[str, Any]) -> Self:
        """These settings with others in their place, as far as they still speak of the same model and provider.

        URL, key, limits and prices are a provider's own: another one gets the key that its own variable holds. Raises
        `ValidationError`.
        """
        fields: dict[str, Any] = self.model_dump()
        provider = given.get("provider", self.provider)
        if provider != self.provider:
            fields = {name: fields[name] for name in _ANYBODYS}
            fields["api_key"] = provider_key(str(provider))
        elif given.get("model", self.model_name) != self.model_name:
            fields |= _OF_THE_MODEL
            profile = profile_for(self.provider, str(given["model"]))
            if self.max_batch_inputs and profile.is_known:
                fields["max_batch_inputs"] = min(self.max_batch_inputs, profile.max_batch_inputs)
        return type(self)(**(fields | dict(given)))


class ConvertSettings(_Group):
    """How files that are no text are made text; needs `pip install 'ingestor[documents]'`."""

    formats: Formats = ()
    """Formats to convert, of `pdf`, `docx`, `pptx`, `xlsx`, `epub`, `html`, `ipynb`; empty: all."""
    timeout_seconds: float = Field(default=60.0, ge=0.1, le=3600)
    """Seconds after which a conversion is given up; the file becomes a Problem."""
    max_memory_bytes: int = Field(default=1024**3, ge=640 * 1024**2, le=1024**5)
    """Address space, in bytes, of a process that converts; a file that needs more becomes a Problem."""
    max_text_bytes: int = Field(default=10 * 1024 * 1024, ge=1, le=1024**3)
    """Files whose text is larger than this, in bytes of UTF-8, become a Problem."""


class VectorSettings(_Group):
    """The store of vectors that were paid for."""

    max_bytes: int = Field(default=1024**3, ge=1024**2, le=1024**5)
    """Size in bytes above which the vectors that were not used for longest go."""


class HnswSettings(_Group):
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


class ChromaSettings(_Group):
    """Where the collection is."""

    mode: Literal["managed", "http", "persistent", "memory", "cloud"] = "managed"
    """`managed` (the daemon runs a server of its own), `http`, `persistent` (in this process), `memory` or `cloud`."""
    path: Place | None = None
    """Folder of the database (managed, persistent); empty: `chroma` in the data folder."""
    host: Name = Field(default="127.0.0.1", min_length=1)
    """Host of the server (http)."""
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
    collection: str = Field(default="documents", pattern=_COLLECTION_NAME)
    """Name of the collection."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Seconds after which a call of Chroma is given up."""
    max_tombstone_ratio: float = Field(default=2.0, ge=0, le=1_000_000)
    """Deleted records in the index, per live one, above which the daemon copies the collection afresh; 0: never."""
    hnsw: HnswSettings = HnswSettings()
    """The index."""


class EvaluationSettings(_Group):
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


class HttpSettings(_Group):
    """The HTTP server of the daemon: the page, the API, health."""

    enabled: bool = True
    """Whether `ingestor run` serves its page and its API."""
    host: Name = Field(default="127.0.0.1", min_length=1)
    """Address to listen at; anything but the loopback interface needs a token."""
    port: int = Field(default=8765, ge=0, le=65535)
    """Port to listen at; 0: one that is free, which the log and `ingestor status` tell."""
    token: Secret = None
    """What who asks has to show: as `Authorization: Bearer`, or once in the form of the page."""
    allowed_hosts: Names = ()
    """Names that requests may call it by; empty: `http.host` and those of the loopback interface, any with a token."""


class LogSettings(_Group):
    """What is told on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is told."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: for people on a terminal, JSON otherwise."""


def _tables(value: object) -> object:
    """Sources from one string: a JSON array of objects."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        message = "it is no JSON array of objects"
        raise ValueError(message) from None


def _without_secrets(value: object) -> object:
    if isinstance(value, Mapping) and "api_key" in value:
        message = "api_key does not belong here: the key is that of the embedding settings, or the provider's variable"
        raise ValueError(message)
    return value


class SourceSettings(_Group):
    """One of several watched folders. What it does not name is as the other settings have it."""

    folder: Place
    """The watched folder."""
    name: str = Field(default="", pattern=r"^(?:[^\W_]\w{0,39})?$")
    """What commands call it; empty: the folder's own name. Its documents and its ledger bear it."""
    collection: str = Field(default="", pattern=f"^$|{_COLLECTION_NAME}")
    """Name of its collection; empty: `chroma.collection`. Several sources may share one."""
    include: Patterns | None = None
    """Patterns of the files to take."""
    exclude: Patterns | None = None
    """Patterns of what to leave out."""
    metadata: OwnMetadata = Field(default_factory=dict)
    """Metadata of all its documents, besides that of the setting `watch.metadata`."""
    chunk: Mapping[str, Any] = {}
    """How its documents are cut: the keys of the settings `chunk`."""
    embedding: Annotated[Mapping[str, Any], BeforeValidator(_without_secrets)] = {}
    """Its embedding model: the keys of the settings `embedding`, but for the key."""

    @property
    def called(self) -> str:
        """Its name, or else the folder's."""
        return self.name or re.sub(r"\W+", "_", self.folder.absolute().name).strip("_")[:40] or "source"


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    watch_dir: Place = Path("watched_dir")
    """The folder that is the collection."""
    sources: Annotated[tuple[SourceSettings, ...], NoDecode, BeforeValidator(_tables)] = ()
    """Several folders, each with a collection, in place of `watch_dir`: see "Several folders" below."""
    data_dir: Place = Path(".ingestor")
    """Folder of the ledger, the vector store and the managed Chroma database."""
    watch: WatchSettings = WatchSettings()
    chunk: ChunkSettings = ChunkSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    convert: ConvertSettings = ConvertSettings()
    vectors: VectorSettings = VectorSettings()
    chroma: ChromaSettings = ChromaSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    _source_name: str = PrivateAttr("")
    _ledger_file: str = PrivateAttr(LEDGER_FILE)

    @property
    def source_name(self) -> str:
        """Which of several sources these are the settings of; empty for the only one."""
        return self._source_name

    @property
    def ledger_file(self) -> str:
        """Name of the ledger, a file of the data folder."""
        return self._ledger_file

    def varied(self, *, ledger_file: str, collection: str, embedding: EmbeddingSettings | None = None) -> Self:
        """These settings with another ledger, collection and model."""
        changed = {
            "chroma": self.chroma.model_copy(update={"collection": collection}),
            "embedding": embedding or self.embedding,
        }
        found = self.model_copy(update=changed)
        found._ledger_file = ledger_file  # noqa: SLF001 - another one of this class
        return found

    def each(self) -> "tuple[Settings, ...]":
        """The settings of each source, in their order; of the only one, where there are no several.

        Raises `ConfigError` where sources do not fit together.
        """
        if not self.sources:
            return (self,)
        if "watch_dir" in self.model_fields_set:
            raise ConfigError(
                "a folder to watch is named, and [[sources]] name others",
                remedy="leave out the folder (watch_dir), or make it one of the sources",
            )
        found = tuple(self._of(source) for source in self.sources)
        _check_apart(found)
        return found

    def _of(self, source: SourceSettings) -> Self:
        name = source.called
        try:
            given = self.chunk.model_dump(include=self.chunk.model_fields_set)
            embedding = self.embedding.varied(source.embedding)
            chunk = _fitting(ChunkSettings(**(given | dict(source.chunk))), embedding)
        except (ValueError, ConfigError) as error:
            message = f"the source {name!r} cannot be: {_reason(error)}"
            raise ConfigError(message, remedy="correct it in [[sources]]") from error
        patterns = {"include": source.include, "exclude": source.exclude}
        watching: dict[str, Any] = {key: value for key, value in patterns.items() if value is not None}
        watching["metadata"] = {**self.watch.metadata, **source.metadata}
        changed = {
            "sources": (),
            "watch_dir": source.folder,
            "watch": self.watch.model_copy(update=watching),
            "chunk": chunk,
            "embedding": embedding,
            "chroma": self.chroma.model_copy(update={"collection": source.collection or self.chroma.collection}),
        }
        found = self.model_copy(update=changed)
        found._source_name = name  # noqa: SLF001 - another one of this class
        found._ledger_file = f"ledger-{name}.sqlite3"  # noqa: SLF001 - as above
        return found

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `load_settings` alone, which reads every source itself to know where each value is from."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check(self) -> Self:
        # A validator may finish what it validates; nobody has seen it before.
        self.__dict__["chunk"] = _fitting(self.chunk, self.embedding)
        return self

    @property
    def chroma_path(self) -> Path:
        """Folder of the Chroma database."""
        return self.chroma.path or self.data_dir / "chroma"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in force, for `ingestor config`: its value is masked when it is secret."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and where each came from (dotted name -> origin)."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[Setting]:
        """Every setting in force, in the order of the tree."""
        return [
            Setting(name, _shown(value), self.origins.get(name) or self.origins.get(name.split(".")[0], "default"))
            for name, value in _leaves(self.settings)
        ]


def load_settings(config_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Read all sources. `overrides` (dotted name -> value) come from the command line.

    Raises `ConfigError` that names the key, the place it came from and what is wrong with it.
    """
    origins = _origins(config_file, overrides or {})
    merged: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for origin in origins:
        for name, value in origin.values.items():
            _check_known(name, origin.label)
            if name not in merged:
                merged[name] = value
                labels[name] = origin.label
    _fall_back_to_provider_key(merged, labels, origins)
    try:
        settings = Settings(**_nested(merged))
    except ValidationError as error:
        raise _invalid(error, labels) from error
    settings.each()
    return Loaded(settings, labels)


def _fitting(chunk: ChunkSettings, embedding: EmbeddingSettings) -> ChunkSettings:
    """How to cut for a model: what nobody has set follows the model. Raises `ValueError` for chunks too long for it."""
    # DashScope cuts a longer text without a word, and others refuse it.
    profile = profile_for(embedding.provider, embedding.model_name)
    if not profile.is_known or chunk.max_tokens <= profile.max_text_tokens:
        return chunk
    if "max_tokens" not in chunk.model_fields_set:
        return chunk.model_copy(update={"max_tokens": int(profile.max_text_tokens * FILLED)})
    message = f"chunk.max_tokens: {profile.model} takes at most {profile.max_text_tokens} tokens a text"
    raise ValueError(message)


def _check_apart(sources: Sequence[Settings]) -> None:
    """Raise `ConfigError` where two sources have one name, or would write the same file or model into a collection."""
    for place, one in enumerate(sources):
        for other in sources[:place]:
            names = f"the sources {other.source_name!r} and {one.source_name!r}"
            if one.source_name.casefold() == other.source_name.casefold():
                raise ConfigError(f"two sources are called {one.source_name!r}", remedy="give each a name of its own")
            if one.chroma.collection != other.chroma.collection:
                continue
            if one.embedding != other.embedding:
                raise ConfigError(
                    f"{names} share the collection {one.chroma.collection!r}, and have different embedding settings",
                    remedy="give one of them a collection of its own",
                )
            folders = [Path(os.path.realpath(each.watch_dir)) for each in (one, other)]
            if folders[0].is_relative_to(folders[1]) or folders[1].is_relative_to(folders[0]):
                raise ConfigError(
                    f"{names} share the collection {one.chroma.collection!r}, and one lies in the other",
                    remedy="give one of them a collection of its own, or leave it out",
                )


def _reason(error: Exception) -> str:
    """What is wrong, without the value: it may be a secret."""
    if isinstance(error, IngestorError):
        return error.sentence
    if not isinstance(error, ValidationError):
        return escaped(str(error))
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return escaped(": ".join(filter(None, (place, str(first["msg"]).removeprefix("Value error, ")))))


def provider_key(provider: str) -> SecretStr | None:
    """The key that a provider's own variable holds, wherever variables are set; None when there is none."""
    name = _KEY_FALLBACKS.get(provider, "")
    keys = (origin.provider_keys[name] for origin in _variable_origins() if name in origin.provider_keys)
    return next(map(SecretStr, keys), None)


def setting_names() -> list[str]:
    """Dotted names of all settings, in the order of the tree."""
    return [name for name, _ in setting_fields()]


def setting_fields(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting with its declaration, in the order of the tree."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def variable(name: str) -> str:
    """Environment variable of a dotted name."""
    return PREFIX + name.replace(".", DELIMITER).upper()


@dataclass(frozen=True, slots=True)
class _Origin:
    """One place that settings come from: a label for people, the values by dotted name, and provider keys."""

    label: str
    values: Mapping[str, Any]
    provider_keys: Mapping[str, str]


def _origins(config_file: Path | None, overrides: Mapping[str, Any]) -> list[_Origin]:
    return [_Origin("command line", overrides, {}), *_variable_origins(), _toml(config_file)]


def _variable_origins() -> list[_Origin]:
    return [
        _variables("environment", EnvSettingsSource(Settings)),
        _variables(f"{DOTENV_FILE} file", _dotenv()),
        _variables("secrets folder", _SecretFiles(Settings)),
    ]


def _dotenv() -> DotEnvSettingsSource:
    # Where the current folder may not be searched, it holds no settings for us.
    file = DOTENV_FILE if os.access(DOTENV_FILE, os.R_OK) else None
    try:
        return DotEnvSettingsSource(Settings, env_file=file, dotenv_filtering="only_existing")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"the file {DOTENV_FILE} cannot be read: {reason}"
        raise ConfigError(message, remedy="it must be readable, in UTF-8, and hold lines such as NAME=value") from error


class _SecretFiles(EnvSettingsSource):
    """Files named as variables, in the secrets folder and in the one of systemd, which goes before it.

    What is not for us is not even opened: others have secrets in the same folder.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        for name in ("INGESTOR_SECRETS_DIR", "CREDENTIALS_DIRECTORY"):
            folder = os.environ.get(name) or (SECRETS_DIR if name in _CONTROLS and name not in os.environ else "")
            for file in _secret_files(Path(folder), name) if folder else ():
                found[file.name.lower()] = _secret(file)
        return found


def _secret_files(folder: Path, named_by: str) -> list[Path]:
    """The files of a folder that are for us; none when it is missing."""
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        if named_by not in os.environ:
            return []
        message = f"the secrets folder {_legible(str(folder))} ({named_by}) cannot be read: {error.strerror}"
        raise ConfigError(message, remedy="check that it is a folder that ingestor may list") from error
    ours = _KEY_FALLBACKS.values()
    return [file for file in files if file.name.upper().startswith(PREFIX) or file.name.upper() in ours]


def _secret(file: Path) -> str:
    remedy = "it must be a readable text file that holds nothing but the value"
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MAX_SECRET_BYTES + 1)
        if len(raw) > _MAX_SECRET_BYTES:
            raise ConfigError(f"the secret {file} has more than {_MAX_SECRET_BYTES:,} bytes", remedy=remedy)
        return raw.decode("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"the secret {file} cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError:
        raise ConfigError(f"the secret {file} is no UTF-8", remedy=remedy) from None


def _variables(label: str, source: EnvSettingsSource) -> _Origin:
    """Values of a source of variables. What the source itself would pass over in silence is an error here."""
    groups = {name.rpartition(".")[0] for name in setting_names()}
    for key in source.env_vars:
        if key.upper().startswith(PREFIX) and key.upper() not in _CONTROLS:
            dotted = key[len(PREFIX) :].lower().replace(DELIMITER, ".")
            if dotted not in groups:
                _check_known(dotted, label)
    try:
        # An empty file of a secret is one that was not filled in.
        values = {name: value for name, value in _flat(source()) if value != ""}
    except (SettingsError, RecursionError) as error:
        message = f"the settings of the {label} cannot be read: {error}"
        raise ConfigError(message, remedy="a group of settings given as one variable must be a JSON object") from error
    keys = {name: value for name in _KEY_FALLBACKS.values() if (value := source.env_vars.get(name.lower()))}
    return _Origin(label, values, keys)


def _toml(config_file: Path | None) -> _Origin:
    named = config_file or (Path(path) if (path := os.environ.get("INGESTOR_CONFIG")) else None)
    file = named or Path(CONFIG_FILE)
    shown = _legible(str(file))
    try:
        # As in the environment, what is empty is not set.
        values = {name: value for name, value in _flat(tomllib.loads(file.read_text(encoding="utf-8"))) if value != ""}
    except (FileNotFoundError, PermissionError) as error:
        if named is None and not os.access(file, os.F_OK):
            return _Origin(CONFIG_FILE, {}, {})
        if isinstance(error, PermissionError):
            message = f"the settings file {shown} may not be read"
            raise ConfigError(message, remedy="check its permissions and those of its folder") from error
        message = f"the settings file {shown} does not exist"
        raise ConfigError(message, remedy="check --config or INGESTOR_CONFIG") from error
    except (OSError, ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"the settings file {shown} cannot be read: {reason}"
        raise ConfigError(message, remedy="it must be a readable TOML file in UTF-8") from error
    # A path in a file means the same wherever the command is started.
    for name in _PATHS & values.keys():
        if isinstance(values[name], str):
            values[name] = file.absolute().parent / _expanded(name, values[name])
    for source in values.get("sources", ()) if isinstance(values.get("sources"), list) else ():
        if isinstance(source, dict) and isinstance(source.get("folder"), str):
            source["folder"] = file.absolute().parent / _expanded("sources", source["folder"])
    return _Origin(str(file), values, {})


def _expanded(name: str, path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        message = f"setting {name} ({variable(name)}) is wrong: there is no such user as it names after the tilde"
        raise ConfigError(message, remedy="write the path in full") from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in _TABLES:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return tree


def _check_known(name: str, label: str) -> None:
    known = setting_names()
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    shown = variable(name) if label in {"environment", f"{DOTENV_FILE} file", "secrets folder"} else name
    message = f"unknown setting {_legible(shown)} ({label})"
    remedy = f"did you mean {near[0]} ({variable(near[0])})?" if near else "`ingestor config` lists every setting"
    raise ConfigError(message, remedy=remedy)


def _fall_back_to_provider_key(merged: dict[str, Any], labels: dict[str, str], origins: Sequence[_Origin]) -> None:
    name = _KEY_FALLBACKS.get(str(merged.get("embedding.provider", "")))
    if name is None or "embedding.api_key" in merged:
        return
    for origin in origins:
        if name in origin.provider_keys:
            merged["embedding.api_key"] = origin.provider_keys[name]
            labels["embedding.api_key"] = f"{name} ({origin.label})"
            return


def _legible(name: str) -> str:
    """A name that a user has made up, so that it fits into a line."""
    return escaped(name if len(name) <= _MAX_SHOWN_CHARACTERS else name[: _MAX_SHOWN_CHARACTERS - 1] + "…")


def _invalid(error: ValidationError, labels: Mapping[str, str]) -> ConfigError:
    """Name the first wrong setting. The value itself is not repeated: it may be a secret."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = ".".join(part for part in first["loc"] if isinstance(part, str))
    reason = escaped(str(first["msg"]).removeprefix("Value error, "))
    key, _, its_reason = reason.partition(": ")
    if f"{name}.{key}" in setting_names():  # what fits a group together names the one that is at fault
        name, reason = f"{name}.{key}", its_reason
    group, *place = first["loc"] or ("",)
    if group == "sources" and place:
        number, *keys = place
        key = ".".join(map(str, keys))
        place_of_it = f"its {int(number) + 1}. one, {key}" if isinstance(number, int) else key
        message = f"setting sources ({variable('sources')}) is wrong: {place_of_it}: {reason}"
        name = "sources"
    elif name in setting_names():
        message = f"setting {name} ({variable(name)}) is wrong: {reason}"
    elif name:
        message = f"settings do not fit together, in {name}: {reason}"
    else:
        message = f"settings do not fit together: {reason}"
    concerned = [label for each, label in labels.items() if each == name or not name or each.startswith(f"{name}.")]
    return ConfigError(message, remedy=f"change it where it is set: {' or '.join(dict.fromkeys(concerned))}")


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, each in enumerate(value, 1):
                yield from _leaves(each, f"{prefix}{name}.{number}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple) or (isinstance(value, Mapping) and value):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None or value == {} else _PASSWORD.sub("//********@", str(value))
