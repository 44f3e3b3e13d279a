"""`init`: a settings file to begin with, in which every value is explained.

Invariant: what is written was validated together with all that the environment sets, holds no key, and is read by
`load_settings` as it was meant. A file that is there is only replaced by leave.
"""

import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ingestor.adapters.settings_file import replace_settings
from ingestor.core.errors import ConfigError
from ingestor.core.profiles import PROVIDERS, ProviderProfile, profile_for
from ingestor.language import translated
from ingestor.settings import CONFIG_FILE, DOTENV_FILE, SECRETS_DIR, Loaded, Settings, load_settings, variable

_NO_FILE: Final = Path(os.devnull)
_KEY: Final = "embedding.api_key"
_TOKEN: Final = "chroma.token"  # noqa: S105 - the name of the setting
_WIDTH: Final = 108
_SENTENCE_END: Final = re.compile("(?<=。)(?=.)")
_EXAMPLE_DIMENSIONS: Final = 1024
_EXAMPLE_TOKENS_PER_DAY: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Answers:
    """What somebody wants to begin with; what is empty or None is left to the defaults."""

    watch_dir: str = "watched_dir"
    provider: str = "local"
    model: str = ""
    base_url: str = ""
    key_variable: str = ""
    """Where the key is read from; empty: the provider's own variable."""
    mode: str = "managed"
    host: str = ""
    port: int | None = None
    collection: str = "documents"

    def as_settings(self) -> dict[str, Any]:
        """What was chosen, by dotted name."""
        chosen: dict[str, Any] = {
            "watch_dir": self.watch_dir,
            "embedding.provider": self.provider,
            "embedding.model": self.model,
            "embedding.base_url": self.base_url,
            "chroma.mode": self.mode,
            "chroma.host": self.host,
            "chroma.port": self.port,
            "chroma.collection": self.collection,
        }
        return {name: value for name, value in chosen.items() if value not in {"", None}}


@dataclass(frozen=True, slots=True)
class Begun:
    """What was written, and what is left to do."""

    file: Path
    watch_dir: Path
    has_folder: bool
    key_variable: str
    """What the key of the model is read from, or of Chroma Cloud; empty where none is needed."""
    has_key: bool
    outranked: Mapping[str, str]
    """Settings of the file that something else goes before, with its name."""
    suggestions: Sequence[str]
    """What of the folder could be left out."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A setting of the file. `example` is what it is worth trying; the value in force where there is one."""

    name: str
    comment: str
    example: Any = None


def refuse_existing(file: Path) -> None:
    """Raise `ConfigError` for a file that is there."""
    if os.path.lexists(file):
        raise ConfigError(f"the settings file {file} exists", remedy="change it there, or write it anew with --force")


def init(file: Path, answers: Answers, *, is_forced: bool, makes_folder: bool) -> Begun:
    """Write a settings file. Raises `ConfigError` for values that cannot be, and for a file that cannot be written."""
    if not is_forced:
        refuse_existing(file)
    if mistake := not_a_folder(answers.watch_dir):
        raise ConfigError(mistake, remedy="name a folder")
    key_variable = key_variable_of(answers)
    chosen = answers.as_settings()
    validated = load_settings(_NO_FILE, chosen)
    _refuse_meaningless(answers, chosen)
    model = validated.settings.embedding.model_name
    chosen = {**chosen, "embedding.model": model, "watch_dir": _from_folder_of(file, answers.watch_dir)}
    text = _text(chosen, validated.settings, PROVIDERS[answers.provider], key_variable)
    watch_dir = Path(answers.watch_dir).expanduser()
    if makes_folder:
        _make(watch_dir)
    try:
        replace_settings(file, text, is_new=not is_forced)
    except FileExistsError as error:
        raise ConfigError(f"{error.filename2 or error.filename} exists", remedy="look at it, or use --force") from error
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a value is no UTF-8"
        raise ConfigError(
            f"the settings file {file} cannot be written: {reason}",
            remedy="name another with --config, in a folder that is there and may be written",
        ) from error
    return _begun(file, watch_dir, key_variable, chosen, load_settings(file))


def mistake_in(answers: Answers) -> str:
    """What is wrong with answers, those of the environment included; empty when nothing is."""
    try:
        load_settings(_NO_FILE, answers.as_settings())
    except ConfigError as error:
        return str(error)
    return not_a_folder(answers.watch_dir)


def not_a_folder(path: str) -> str:
    """Why a path can be no watched folder; empty for a folder, and for one that is still to be made."""
    place = Path(path).expanduser()
    return f"{path} is no folder" if os.path.lexists(place) and not place.is_dir() else ""


def _refuse_meaningless(answers: Answers, chosen: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for what was chosen and would be left out of the file, as nobody reads it."""
    places = {"chroma.host": {"http"}, "chroma.port": {"http", "managed"}}
    for name, modes in places.items():
        if name in chosen and answers.mode not in modes:
            remedy = f"leave it out, or add --chroma-mode {min(modes)}"
            raise ConfigError(f"{name} means nothing where chroma.mode is {answers.mode}", remedy=remedy)
    if "embedding.base_url" in chosen and PROVIDERS[answers.provider].is_in_process:
        message = f"embedding.base_url means nothing for the provider {answers.provider}"
        raise ConfigError(message, remedy="leave it out, or add --provider openai")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the folder {folder} cannot be made: {error.strerror}"
        raise ConfigError(message, remedy="name another, or mend the permissions of the folder above it") from error


def _begun(file: Path, watch_dir: Path, key_variable: str, chosen: Mapping[str, Any], loaded: Loaded) -> Begun:
    from ingestor.app.suggesting import first_suggestions  # noqa: PLC0415 - half the program, once a file is written

    settings = loaded.settings
    needed, secret = key_variable, settings.embedding.api_key
    if not key_variable and settings.chroma.mode == "cloud":
        needed, secret = variable(_TOKEN), settings.chroma.token
    return Begun(
        file=file,
        watch_dir=watch_dir,
        has_folder=watch_dir.is_dir(),
        key_variable=needed,
        has_key=secret is not None,
        outranked={
            name: f"{variable(name)} ({origin})"
            for name in chosen
            if (origin := loaded.origins.get(name, str(file))) != str(file)
        },
        suggestions=first_suggestions(settings),
    )


def key_variables(provider: str) -> list[str]:
    """The variables that the key of a provider may be read from, the usual one first."""
    return [name for name in (PROVIDERS[provider].key_variable, variable(_KEY)) if name]


def key_variable_of(answers: Answers) -> str:
    """Where the key is read from; "" where none is needed. Raises `ConfigError` for a variable that nobody reads."""
    provider = PROVIDERS.get(answers.provider)
    if provider is None:
        return ""  # told with the other settings
    read = key_variables(answers.provider)
    if answers.key_variable and answers.key_variable not in read:
        raise ConfigError(
            f"ingestor does not read a key from {answers.key_variable}",
            remedy=f"for {answers.provider} it reads {' or '.join(read)}",
        )
    if answers.key_variable:
        return answers.key_variable
    return read[0] if provider.needs_key and not answers.base_url else ""


def _from_folder_of(file: Path, folder: str) -> str:
    """A path as the file is to name it: what it names is taken from its own folder."""
    is_here = file.absolute().parent == Path.cwd()
    return folder if is_here or folder.startswith("~") else str(Path(folder).absolute())


def _text(chosen: Mapping[str, Any], settings: Settings, provider: ProviderProfile, key_variable: str) -> str:
    groups = {
        "": _folders(),
        "watch": _watching(),
        "chunk": _cutting(settings),
        "embedding": _embedding(settings, provider),
        "chroma": _chroma(settings),
        "http": _serving(settings),
        "log": _logging(),
    }
    notes = {"embedding": _key_note(provider, key_variable), "chroma": _token_note(settings.chroma.mode)}
    parts = ["\n".join(line for paragraph in _HEAD for line in _commented(paragraph))]
    for group, lines in groups.items():
        written = [f"[{group}]"] if group else []
        written += _commented(notes[group]) if notes.get(group) else []
        parts.append("\n".join([*written, *_written(lines, chosen)]))
    return "\n\n".join(parts) + "\n"


_HEAD: Final = (
    "Settings of ingestor, begun by `ingestor init`.",
    "",
    (
        "Where a line is commented out, its default holds. `ingestor config` shows every setting in force and where "
        f"it is from. The first one wins: command line, environment (INGESTOR_CHROMA__PORT), {DOTENV_FILE}, secrets "
        f"folder ({SECRETS_DIR}), this file. Paths are taken from the folder of this file. Keys and tokens do not "
        "belong here."
    ),
)


def _folders() -> tuple[_Line, ...]:
    return (
        _Line("watch_dir", "The folder whose text files are the collection, with all folders below."),
        _Line(
            "data_dir",
            "Where ingestor keeps what it knows: ledger, vectors, its own Chroma database. On a local disk.",
            ".ingestor",
        ),
    )


def _watching() -> tuple[_Line, ...]:
    return (
        _Line("watch.include", "Patterns, as in .gitignore, of the files to take; none: all.", ["*.md", "*.txt"]),
        _Line("watch.exclude", "Patterns of what to leave out, besides what is left out by default.", ["drafts/"]),
        _Line("watch.max_file_bytes", "Larger files are not indexed; `ingestor problems` lists them.", 10_485_760),
        _Line("watch.follow_symlinks", "Follow symbolic links that stay inside of the folder.", False),  # noqa: FBT003 - the value
        _Line("watch.rescan_seconds", "How often the whole folder is compared, whatever events came.", 3600.0),
        _Line("watch.polling", '"always" looks instead of waiting for events; "auto" does so on NFS, SMB…', "auto"),
    )


def _cutting(settings: Settings) -> tuple[_Line, ...]:
    most = settings.chunk.max_tokens
    return (_Line("chunk.max_tokens", "Most tokens of a chunk; a change has every file cut anew.", most),)


def _embedding(settings: Settings, provider: ProviderProfile) -> tuple[_Line, ...]:
    named = (
        _Line("embedding.provider", f"One of: {', '.join(PROVIDERS)}. `ingestor models` tells of each."),
        _Line("embedding.model", "The model. Another one needs a rebuilt collection: `ingestor rebuild`."),
    )
    if provider.is_in_process:
        return named
    profile = profile_for(provider.provider, settings.embedding.model_name)
    dimensions = profile.default_dimensions or _EXAMPLE_DIMENSIONS
    return (
        *named,
        _Line("embedding.base_url", "Where the endpoint is, without `/embeddings`.", provider.base_url),
        _Line("embedding.dimensions", "Length of the vectors, where the model lets one choose.", dimensions),
        _Line(
            "embedding.max_tokens_per_day",
            "What a day may cost; then documents that need the model wait for the next.",
            _EXAMPLE_TOKENS_PER_DAY,
        ),
        _Line("embedding.max_concurrency", "Most calls at once.", settings.embedding.max_concurrency),
        _Line("embedding.timeout_seconds", "After which a call is given up and tried again.", 60.0),
    )


def _chroma(settings: Settings) -> tuple[_Line, ...]:
    chroma = settings.chroma
    mode = _Line(
        "chroma.mode",
        '"managed": the daemon runs a server of its own. "http": a server that is there. "persistent": in the process, '
        'while no server is needed. "memory": for trials. "cloud": Chroma Cloud.',
    )
    collection = _Line("chroma.collection", "Name of the collection: 3 to 512 of a-z, A-Z, 0-9, . _ -")
    port = _Line("chroma.port", "Port of the server, for any Chroma client.", chroma.port)
    path = _Line("chroma.path", "Folder of the database; on a local disk.", ".ingestor/chroma")
    server = (
        _Line("chroma.host", "Host of the server.", chroma.host),
        port,
        _Line("chroma.ssl", "Speak TLS with the server.", chroma.ssl),
    )
    database = (
        _Line("chroma.tenant", "Tenant.", chroma.tenant),
        _Line("chroma.database", "Database.", chroma.database),
    )
    by_mode = {
        "managed": (port, path),
        "http": (*server, *database),
        "persistent": (path,),
        "memory": (),
        "cloud": database,
    }
    return (mode, collection, *by_mode[chroma.mode])


def _serving(settings: Settings) -> tuple[_Line, ...]:
    return (
        _Line("http.enabled", "Whether the daemon serves its page and its API.", settings.http.enabled),
        _Line("http.host", f"Others reach it at 0.0.0.0, with the token of {variable('http.token')}.", "127.0.0.1"),
        _Line("http.port", "Port of the page.", settings.http.port),
    )


def _logging() -> tuple[_Line, ...]:
    return (
        _Line("log.level", "Least severity that is told: debug, info, warning, error.", "info"),
        _Line("log.format", '"console" for people, "json" for machines, "auto": by where it goes.', "auto"),
    )


def _key_note(provider: ProviderProfile, key_variable: str) -> str:
    if provider.is_in_process:
        return ""
    if not key_variable:
        return f"No key is sent, unless {variable(_KEY)} holds one."
    return (
        f"The key is read from {key_variable}: a variable of the environment, a line of {DOTENV_FILE}, "
        f"or a file of that name in the secrets folder ({SECRETS_DIR}). Never write it here."
    )


def _token_note(mode: str) -> str:
    if mode not in {"http", "cloud"}:
        return ""
    return f"A token is read from {variable(_TOKEN)}: the environment, {DOTENV_FILE}, or the secrets folder."


def _written(lines: Iterable[_Line], chosen: Mapping[str, Any]) -> Iterable[str]:
    for line in lines:
        is_chosen = line.name in chosen
        value = chosen[line.name] if is_chosen else line.example
        yield from _commented(line.comment)
        yield f"{'' if is_chosen else '# '}{line.name.rpartition('.')[2]} = {_spelled(value)}"


def _commented(text: str) -> Iterable[str]:
    """A comment in the reader's language; what is written without spaces has a line a sentence."""
    told = translated(text)
    lines = textwrap.wrap(told, _WIDTH) if told == text else _SENTENCE_END.split(told)
    return (f"# {line}".rstrip() for line in lines or [""])


def _spelled(value: object) -> str:
    """A value as TOML: JSON's strings, numbers, truths and lists are TOML's, but for one control."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def default_file() -> Path:
    """The settings file that commands read where none is named."""
    return Path(os.environ.get("INGESTOR_CONFIG") or CONFIG_FILE)
