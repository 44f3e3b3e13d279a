"""Origins: the places that settings come from, each read whole.

Invariant: a key that no setting has is an error that names it, and the setting that was probably meant.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import starmap
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource, SettingsError

from ingestor.core.errors import ConfigError
from ingestor.settings.tree import Settings, setting_names
from ingestor.settings.variables import (
    CONTROLS,
    DELIMITER,
    PREFIX,
    VARIABLE_LABELS,
    legible,
    provider_keys,
    variable,
    variable_sources,
)

CONFIG_FILE = "ingestor.toml"
_TABLES = frozenset({"watch.metadata"})
"""Settings that are tables themselves, whose keys are the user's."""
_PATHS = frozenset({"watch_dir", "data_dir", "chroma.path", "chroma.ca_file", "embedding.ca_file"})


@dataclass(frozen=True, slots=True)
class Origin:
    """One place that settings come from: a label for people, the values by dotted name, and provider keys."""

    label: str
    values: Mapping[str, Any] = field(repr=False)
    provider_keys: Mapping[str, str] = field(repr=False)


def origins(config_file: Path | None, overrides: Mapping[str, Any]) -> list[Origin]:
    """All places, the first one to win first. Raises `ConfigError` for what cannot be read, and for unknown keys."""
    return [
        Origin("command line", overrides, {}),
        *starmap(_variables, variable_sources(Settings).items()),
        _toml(config_file),
    ]


def _variables(label: str, source: EnvSettingsSource) -> Origin:
    """Values of a source of variables. What the source itself would pass over in silence is an error here."""
    groups = {name.rpartition(".")[0] for name in setting_names()}
    for key in source.env_vars:
        if key.upper().startswith(PREFIX) and key.upper() not in CONTROLS:
            dotted = key[len(PREFIX) :].lower().replace(DELIMITER, ".")
            if dotted not in groups:
                check_known(dotted, label)
    try:
        # An empty file of a secret is one that was not filled in.
        values = {name: value for name, value in _flat(source()) if value != ""}
    except (SettingsError, RecursionError) as error:
        message = f"the settings of the {label} cannot be read: {error}"
        raise ConfigError(message, remedy="a group of settings given as one variable must be a JSON object") from error
    return Origin(label, values, provider_keys(source))


def default_folders(config_file: Path | None) -> Mapping[str, Path]:
    """The default folders, by setting, while a settings file elsewhere is in force: they lie beside that.

    The same file is the same collection then, wherever a command is started.
    """
    named = _named(config_file)
    if named is None or named.absolute().parent == Path.cwd():
        return {}
    defaults = {name: Settings.model_fields[name].default for name in ("watch_dir", "data_dir")}
    return {name: named.absolute().parent / default for name, default in defaults.items()}


def _named(config_file: Path | None) -> Path | None:
    return config_file or (Path(path) if (path := os.environ.get("INGESTOR_CONFIG")) else None)


def _toml(config_file: Path | None) -> Origin:
    named = _named(config_file)
    file = named or Path(CONFIG_FILE)
    shown = legible(str(file))
    try:
        # As in the environment, what is empty is not set.
        values = {name: value for name, value in _flat(tomllib.loads(file.read_text(encoding="utf-8"))) if value != ""}
    except (FileNotFoundError, PermissionError) as error:
        if named is None and not os.access(file, os.F_OK):
            return Origin(CONFIG_FILE, {}, {})
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
        embedding = source.get("embedding") if isinstance(source, dict) else None
        if isinstance(embedding, dict) and isinstance(embedding.get("ca_file"), str):
            embedding["ca_file"] = file.absolute().parent / _expanded("sources", embedding["ca_file"])
    return Origin(str(file), values, {})


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


def check_known(name: str, label: str) -> None:
    """Raise `ConfigError` for a name that no setting has, with the one that was probably meant."""
    known = setting_names()
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    shown = variable(name) if label in VARIABLE_LABELS else name
    message = f"unknown setting {legible(shown)} ({label})"
    remedy = f"did you mean {near[0]} ({variable(near[0])})?" if near else "`ingestor config` lists every setting"
    raise ConfigError(message, remedy=remedy)
