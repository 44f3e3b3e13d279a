"""Embedding functions named in a collection's configuration; a part of the sink, which never calls one.

Invariant: in a process of ours, a function that a collection names is built as a stand-in that knows its name and
configuration and nothing else. Chroma's client builds the function of a collection with every `add` and `modify`: a
real one would import its package, and want a key that this process may have under another name, each time.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from ingestor.adapters.chroma_faults import translation
from ingestor.core.asking import DEFAULT_FUNCTION, OPENAI_FUNCTION, OURS, Function
from ingestor.core.errors import ConfigError

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_REPLACEABLE: Final = frozenset({DEFAULT_FUNCTION, OPENAI_FUNCTION, OURS, ""})
"""What we name, and nothing: any other name was chosen by somebody else."""
_SPACES: Final = ["cosine", "l2", "ip"]


class _StandIn:
    """What Chroma's client asks an embedding function for when it reads and writes configurations."""

    function_name: ClassVar[str] = ""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)

    def __call__(self, input: list[str]) -> list[Any]:  # noqa: A002 - Chroma compares the signature
        raise NotImplementedError(f"records are written with vectors of their own: {len(input)} texts came without")

    @classmethod
    def name(cls) -> str:
        return cls.function_name

    @classmethod
    def build_from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config)

    def get_config(self) -> dict[str, Any]:
        return self._config

    def is_legacy(self) -> bool:
        return False

    def default_space(self) -> str:
        return _SPACES[0]

    def supported_spaces(self) -> list[str]:
        return _SPACES

    def validate_config(self, config: Mapping[str, Any]) -> None:
        """Take any configuration: it is ours, or it is there already."""

    def validate_config_update(self, old_config: Mapping[str, Any], new_config: Mapping[str, Any]) -> None:
        """Take any change, as above."""


def stand_in(function: Function) -> Any:  # noqa: ANN401 - what Chroma takes for an embedding function
    """What a collection is made with so that it names a function."""
    return _kind(function.name)(function.config)


def keep_from_building(collection: "Collection") -> None:
    """Have a stand-in built of whatever function a collection names, from now on and in this process."""
    if name := _held(collection).name:
        _kind(name)


def name_function(client: "ClientAPI", collection: "Collection", function: Function) -> tuple["Collection", str]:
    """Have a collection name a function; gives the collection as it is then, and a sentence on why it does not, if so.

    Raises `ServiceUnavailable`; a refusal is no error, since only others than us need the function.
    """
    held = _held(collection)
    name = collection.name
    if held == function:
        return collection, ""
    if held.name not in _REPLACEABLE:
        return collection, (
            f"the collection {name!r} names the embedding function {held.name!r}, which somebody else has chosen:"
            f" questions as text are embedded by that one, and not by {function.name!r}"
        )
    words = ""
    try:
        with translation(f"naming the embedding function of {name!r}", ConfigError):
            collection.modify(configuration={"embedding_function": stand_in(function)})
    except ConfigError as error:
        # Chroma's client compares the old function with the new one after the server has taken it.
        words = str(error)
    with translation(f"opening the collection {name!r}", ConfigError):
        current = client.get_collection(name, embedding_function=None)
    if _held(current) == function:
        return current, ""
    return current, f"the collection {name!r} does not take the embedding function {function.name!r}: {words}"


def _held(collection: "Collection") -> Function:
    """The function that a collection names, under no name where it names none."""
    held = collection.configuration_json.get("embedding_function") or {}
    config = held.get("config") or {}
    return Function(str(held.get("name") or ""), {key: value for key, value in config.items() if value is not None})


def _kind(name: str) -> type[_StandIn]:
    """The class of stand-ins of a name, known to Chroma under it."""
    from chromadb.utils.embedding_functions import known_embedding_functions  # noqa: PLC0415 - the client has done so

    known: dict[str, Any] = known_embedding_functions
    kind = known.get(name)
    if not (isinstance(kind, type) and issubclass(kind, _StandIn)):
        kind = known[name] = type("_Named", (_StandIn,), {"function_name": name})
    return kind
