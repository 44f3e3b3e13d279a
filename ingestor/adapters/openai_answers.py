"""What an OpenAI-compatible endpoint answers, read with care: vectors, or what is wrong with them.

Invariant: what `parsed` returns has one usable vector for each text, in the order of the texts; whatever else came says
how many tokens it has cost.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from pydantic_core import from_json

from ingestor.ports import Vectors

_PAGE: Final = re.compile(r"<(?:!doctype html|html|head|title|body)\b", re.IGNORECASE)
_ENDPOINT: Final = "it is tried again, with growing pauses; if it stays so, ask whoever runs the endpoint"
_NEVER: Final = "this does not heal by itself: ask whoever runs the endpoint, or use another one"
_NATIVE: Final = (
    "this does not heal by itself: the server answers in a form of its own; let embedding.base_url name its "
    "OpenAI-compatible interface (most end in /v1)"
)
BETWEEN: Final = "this is not the provider's answer: look for a firewall, a proxy or a login in between"
_TITLE: Final = re.compile(r"<(title|h1)\b[^>]*>(.{1,200}?)</\1", re.IGNORECASE | re.DOTALL)
_MAX_TOLD_TOKENS: Final = 100_000_000
"""Tokens of one call; whoever counts more than that counts nothing that could be believed, or kept."""
_MAX_SHOWN: Final = 80
"""Characters of an answer that is shown because nothing in it says more."""


class Nonsense(Exception):
    """An answer that is not what was asked for; `positions` are those of single vectors at fault, if it is that."""

    def __init__(self, message: str, *, remedy: str = _ENDPOINT, positions: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.positions = positions
        self.tokens = 0
        """Tokens that the provider says it has counted; 0 when it does not say."""


class ErrorBody(Exception):
    """An error under the status of a success; `body` is what the endpoint says of it."""

    def __init__(self, body: object) -> None:
        super().__init__()
        self.body = body


def parsed(answer: bytes, count: int, dimensions: int) -> tuple[Vectors, int]:
    """The vectors in the order of the texts, and the tokens that the provider counted (0 when it does not say).

    `dimensions` 0 takes any length. Raises `Nonsense`, and `ErrorBody` when an error came instead of vectors.
    """
    try:
        content = from_json(answer)
    except ValueError:
        words = answer.decode(errors="replace")
        if is_page(words):
            raise Nonsense(f"a web page: {words_of(words)[:_MAX_SHOWN]}", remedy=BETWEEN) from None
        raise Nonsense(f"no JSON but {answer[:_MAX_SHOWN]!r}") from None
    if (body := _error_in(content)) is not None:
        raise ErrorBody(body)
    tokens = _tokens_of(content)
    try:
        return _checked(_ordered(_rows_of(content), count), dimensions), tokens
    except Nonsense as nonsense:
        nonsense.tokens = tokens
        raise


def words_of(body: object) -> str:
    """What the provider says, wherever in its answer it says it; of a web page its title."""
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error", "msg"):
            if body.get(name):
                return words_of(body[name])
        return json.dumps(body, ensure_ascii=False, default=str)
    if is_page(body) and (title := _TITLE.search(str(body))):
        return title[2]
    return "" if body is None else str(body)


def codes_of(body: object) -> frozenset[str]:
    """The codes and types that an error bears, in lower case."""
    if not isinstance(body, Mapping):
        return frozenset()
    return frozenset(str(body[name]).lower() for name in ("code", "type") if body.get(name))


def is_page(body: object) -> bool:
    """Whether it is a web page of a firewall, a proxy or a login, not the answer of the provider."""
    return isinstance(body, str) and _PAGE.search(body) is not None


def _error_in(content: object) -> object | None:
    if not isinstance(content, Mapping) or content.get("data"):
        return None
    error: object = content.get("error")
    return error or (content if content.get("code") and content.get("message") else None)


def _tokens_of(content: object) -> int:
    usage = content.get("usage") if isinstance(content, Mapping) else None
    if not isinstance(usage, Mapping):
        return 0
    tokens = usage.get("total_tokens") or usage.get("prompt_tokens")
    return tokens if isinstance(tokens, int) and 0 < tokens <= _MAX_TOLD_TOKENS else 0


def _rows_of(content: object) -> list[Any]:
    rows = content.get("data") if isinstance(content, Mapping) else None
    if isinstance(rows, list):
        return rows
    if isinstance(content, list) and content and isinstance(content[0], list | Mapping):
        raise Nonsense("no list of vectors under `data` but a bare list", remedy=_NATIVE)
    told = "null" if content is None else words_of(content)
    raise Nonsense(f"no list of vectors but: {told}")


def _ordered(rows: list[Any], count: int) -> list[Vectors]:
    """One vector for each text, put in order by `index`; where no row has one, in the order of the rows."""
    if len(rows) != count:
        raise Nonsense(f"{len(rows)} vectors for {count} texts")
    indexes = [row.get("index") if isinstance(row, Mapping) else None for row in rows]
    if all(isinstance(row, Mapping) for row in rows) and not any(index is not None for index in indexes):
        indexes = list(range(count))
    placed: dict[int, Vectors | None] = {}
    for index, row in zip(indexes, rows, strict=True):
        if type(index) is not int or not 0 <= index < count:
            raise Nonsense(f"a vector with index {index!r} for {count} texts", remedy=_NEVER)
        if index in placed:
            raise Nonsense(f"two vectors with index {index}", remedy=_NEVER)
        placed[index] = _vector(row.get("embedding"))
    vectors = [vector for index in range(count) if (vector := placed[index]) is not None]
    if len(vectors) < count:
        if all(_is_nested(row.get("embedding")) for row in rows):
            raise Nonsense("an embedding that is no vector of numbers but a list of lists", remedy=_NATIVE)
        if all(isinstance(row.get("embedding"), str) for row in rows):
            raise Nonsense("an embedding that is text, and no vector of numbers", remedy=_NATIVE)
        unusable = frozenset(index for index, vector in placed.items() if vector is None)
        raise Nonsense("an embedding that is no vector of numbers", positions=unusable)
    return vectors


def _is_nested(embedding: object) -> bool:
    return isinstance(embedding, list) and bool(embedding) and all(isinstance(each, list) for each in embedding)


def _vector(embedding: object) -> Vectors | None:
    """One vector; None for what is none, such as the nulls that some servers write for NaN."""
    try:
        if isinstance(embedding, str):
            # A server that ignores `encoding_format` sends little-endian float32 in base64.
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
        numbers = np.asarray(embedding)
    except ValueError:
        return None
    if numbers.ndim != 1 or numbers.dtype.kind not in "if":
        return None
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        return numbers.astype(np.float32)


def _checked(rows: list[Vectors], dimensions: int) -> Vectors:
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise Nonsense(f"vectors of different dimensions: {sorted(lengths)}")
    (length,) = lengths
    if length == 0:
        raise Nonsense("vectors without dimensions")
    if dimensions and length != dimensions:
        raise Nonsense(
            f"vectors of {length} dimensions where {dimensions} are expected",
            remedy="check the model's name and the dimensions in the settings",
        )
    vectors = np.stack(rows)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    for words, is_unusable in (
        ("a vector with a number that is not finite", ~np.isfinite(squares)),
        ("a zero vector", squares == 0),
    ):
        if is_unusable.any():
            raise Nonsense(words, positions=frozenset(np.flatnonzero(is_unusable).tolist()))
    return vectors
