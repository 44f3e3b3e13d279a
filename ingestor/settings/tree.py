"""Tree: everything that can be set, and what the settings of each watched folder are.

Invariant: settings that exist fit together: those of one source among themselves, and the sources with each other.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ingestor.core.errors import ConfigError, IngestorError
from ingestor.core.escaping import escaped
from ingestor.core.profiles import profile_for
from ingestor.core.sizes import FILLED
from ingestor.settings.embedding import EmbeddingSettings
from ingestor.settings.groups import (
    ChromaSettings,
    ChunkSettings,
    ConvertSettings,
    EvaluationSettings,
    HttpSettings,
    LogSettings,
    VectorSettings,
    WatchSettings,
)
from ingestor.settings.kinds import COLLECTION_NAME, Group, OwnMetadata, Patterns, Place, secretive
from ingestor.settings.variables import DELIMITER, PREFIX

LEDGER_FILE = "ledger.sqlite3"
"""The ledger of a folder that is the only one."""


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
    return secretive(value) if isinstance(value, Mapping) else value


class SourceSettings(Group):
    """One of several watched folders. What it does not name is as the other settings have it."""

    folder: Place
    """The watched folder."""
    name: str = Field(default="", pattern=r"^(?:[^\W_]\w{0,39})?$")
    """What commands call it; empty: the folder's own name. Its documents and its ledger bear it."""
    collection: str = Field(default="", pattern=f"^$|{COLLECTION_NAME}")
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
    """Several folders, each with a collection, in place of `watch_dir`: see "Several folders" in the README."""
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


def setting_names() -> list[str]:
    """Dotted names of all settings, in the order of the tree."""
    return [name for name, _ in setting_fields()]


def secret_names() -> list[str]:
    """Those of the names whose values nobody may see."""
    return [name for name, field in setting_fields() if SecretStr in get_args(field.annotation)]


def setting_fields(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting with its declaration, in the order of the tree."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


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
