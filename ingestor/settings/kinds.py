"""Kinds: what several settings may hold, and how each is read from a variable.

Invariant: what passes can be sent, logged and written down; no error repeats a secret.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr
from pydantic_settings import NoDecode

from ingestor.core.errors import ConfigError, UnusableMetadata
from ingestor.core.formats import Format
from ingestor.core.metadata import Layer, layer_of
from ingestor.core.network import DIRECT, MASK, masked_url, proxy_of

_MAX_NAME_CHARACTERS = 500
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
COLLECTION_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]$"


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
    """What a name may be: whatever ends up in a request or in a log line; files and variables add a line break."""
    value = value.strip()
    if not value.isprintable():
        message = "it holds a control character or bytes that are no UTF-8"
        raise ValueError(message)
    if len(value) > _MAX_NAME_CHARACTERS:
        message = f"it is longer than {_MAX_NAME_CHARACTERS} characters"
        raise ValueError(message)
    return value


def _host_name(value: str) -> str:
    """A name as a request tells it, without its port; anything else would never be one."""
    if not _HOST_NAME.fullmatch(value) and not _is_address(value):
        message = "each is a name alone, as docs.example: no scheme, no port, no path and no star"
        raise ValueError(message)
    return value


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        return False
    return True


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


class ProxyUrl(SecretStr):
    """URL of an HTTP proxy, which everybody is shown without its user name and password."""

    def _display(self) -> str:
        value = self.get_secret_value()
        if value == DIRECT:
            return value
        try:
            return proxy_of(value, "").shown
        except ConfigError:
            return MASK  # it was not looked at yet, and is no URL


class EndpointUrl(SecretStr):
    """URL of an endpoint, which everybody is shown without the user name, the password and the query it may hold."""

    def _display(self) -> str:
        return masked_url(self.get_secret_value())


def _endpoint(value: EndpointUrl) -> EndpointUrl:
    return EndpointUrl(_one_line(value.get_secret_value()))


def secretive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model as somebody has written them, with each URL as what it is shown as."""
    kinds: Mapping[str, Callable[[str], SecretStr]] = {"base_url": EndpointUrl, "proxy": ProxyUrl}
    return {
        name: kinds[name](value) if name in kinds and isinstance(value, str) else value
        for name, value in values.items()
    }


def _proxy(value: ProxyUrl | None) -> ProxyUrl | None:
    if value is None:
        return None
    url = value.get_secret_value().strip()
    if url != DIRECT:
        try:
            proxy_of(url, "this setting")
        except ConfigError as error:
            raise ValueError(error.sentence) from None
    return ProxyUrl(url)


Patterns = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_lines)]
OwnMetadata = Annotated[Layer, NoDecode, BeforeValidator(_own_metadata)]
Name = Annotated[str, AfterValidator(_one_line)]
Names = Annotated[tuple[Name, ...], NoDecode, BeforeValidator(_lines)]
HostNames = Annotated[tuple[Annotated[str, AfterValidator(_host_name)], ...], NoDecode, BeforeValidator(_lines)]
Formats = Annotated[tuple[Format, ...], NoDecode, BeforeValidator(_lines)]
Place = Annotated[Path, AfterValidator(_place)]
Endpoint = Annotated[EndpointUrl, AfterValidator(_endpoint)]
Proxied = Annotated[ProxyUrl | None, AfterValidator(_proxy)]
Secret = Annotated[SecretStr | None, AfterValidator(_sendable)]


class Group(BaseModel):
    """Settings that belong together."""

    # An error repeats no input: it may be a secret, and `--debug` shows the error behind the error.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
