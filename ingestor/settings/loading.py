"""Loading: all places put together, in their order.

Invariant: every value is validated before anything starts, and is known with the place it came from.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from ingestor.core.errors import ConfigError
from ingestor.core.escaping import escaped
from ingestor.core.network import MASK
from ingestor.settings.kinds import EndpointUrl, ProxyUrl
from ingestor.settings.network import ambient
from ingestor.settings.origins import Origin, check_known, default_folders, origins
from ingestor.settings.tree import Settings, setting_names
from ingestor.settings.variables import KEY_FALLBACKS, variable

_QUOTED = re.compile("'([^']*)'")


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
        by_default = ambient(self.settings)
        return [
            Setting(name, *by_default[name])
            if name in by_default
            else Setting(name, _shown(value), self.origins.get(name) or self.origins.get(name.split(".")[0], "default"))
            for name, value in _leaves(self.settings)
        ]


def load_settings(config_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Read all sources. `overrides` (dotted name -> value) come from the command line.

    Raises `ConfigError` that names the key, the place it came from and what is wrong with it.
    """
    places = origins(config_file, overrides or {})
    merged: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for origin in places:
        for name, value in origin.values.items():
            check_known(name, origin.label)
            if name not in merged:
                merged[name] = value
                labels[name] = origin.label
    _fall_back_to_provider_key(merged, labels, places)
    for name, folder in default_folders(config_file).items():
        if name != "watch_dir" or not merged.get("sources"):
            merged.setdefault(name, folder)
    try:
        settings = Settings(**_nested(merged))
    except ValidationError as error:
        raise _invalid(error, labels) from error
    settings.each()
    return Loaded(settings, labels)


def _fall_back_to_provider_key(merged: dict[str, Any], labels: dict[str, str], places: Sequence[Origin]) -> None:
    name = KEY_FALLBACKS.get(str(merged.get("embedding.provider", "")))
    if name is None or "embedding.api_key" in merged:
        return
    for origin in places:
        if name in origin.provider_keys:
            merged["embedding.api_key"] = origin.provider_keys[name]
            labels["embedding.api_key"] = f"{name} ({origin.label})"
            return


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return tree


def _reason(kind: str, message: str) -> str:
    """What pydantic says, but for what it says in words of Python, or so that no catalogue can have it."""
    if kind == "literal_error":
        return f"it must be one of {', '.join(_QUOTED.findall(message))}"
    if kind == "path_type":
        return "it must be a path"
    return message.removeprefix("Value error, ")


def _invalid(error: ValidationError, labels: Mapping[str, str]) -> ConfigError:
    """Name the first wrong setting. The value itself is not repeated: it may be a secret."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = ".".join(part for part in first["loc"] if isinstance(part, str))
    reason = escaped(_reason(first["type"], str(first["msg"])))
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
        return str(value) if isinstance(value, EndpointUrl | ProxyUrl) else MASK
    if isinstance(value, tuple) or (isinstance(value, Mapping) and value):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None or value == {} else str(value)
