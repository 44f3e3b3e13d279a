"""Embedding through any OpenAI-compatible endpoint: one `embed`, one request, no retry.

Invariants: what `embed` returns was checked against what was asked; the request carries what the settings say and
nothing that the environment adds; no message, repr or exception chain holds the key.
"""

import asyncio
import importlib
import socket
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import numpy as np

from ingestor.adapters import tls
from ingestor.adapters.openai_answers import BETWEEN, ErrorBody, Nonsense, codes_of, is_page, parsed, words_of
from ingestor.core.errors import (
    AuthenticationFailed,
    CallTooLarge,
    ConfigError,
    IngestorError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    UnusableVectors,
)
from ingestor.core.model import Recipe, Usage
from ingestor.core.network import STRAIGHT, Route
from ingestor.core.profiles import without_lone_surrogates
from ingestor.core.refusals import Refusal, fault_of_a_text, is_rate_code, refusal_of
from ingestor.core.waits import asked_wait_seconds, bounded_wait_seconds, reset_wait_seconds
from ingestor.ports import Vectors

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_BILLING_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "insufficient_balance",
        "arrearage",
        "allocationquota.freetieronly",
    }
)
_KEY_CODES: Final = frozenset({"invalid_api_key", "invalidapikey"})
_MODEL_CODES: Final = frozenset({"model_not_found", "modelnotfound"})
"""Codes, in lower case, that mean the same under whatever status they come."""

_FAILURES: Final = frozenset(str(status.value) for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)
"""Statuses as an error under another status may name them."""
_REMEDIES: Final = {
    "batch": (
        "the text is longer than the server's batch: lower chunk.max_tokens, or start llama-server with a larger -ub"
    ),
    "nan": "use another model, or another quantisation of it, and run `ingestor retry`",
}
"""What helps against `fault_of_a_text`."""
_REJECTIONS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_REDIRECTS: Final = (
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
)
_KEPT_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "transfer-encoding",
        "x-stainless-raw-response",  # the client looks for it in its own request to tell how the answer is wanted
    }
)
_UNSENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})
"""Errors of the HTTP client before the endpoint could have seen the request."""
_HAS_BEGUN: Final = ContextVar("has_begun", default=False)
"""Whether the answer to the call of this task has begun, as one that is billed."""
_KEEPALIVE_SECONDS: Final = 600.0
"""How long an idle connection is kept, so that one document every few minutes costs no new TLS handshake."""
_PROBING: Final = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        # More often than the routers that forget idle connections without a word: the impatient ones take two minutes.
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 45),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        # A machine that wakes up from sleep must not wait for an answer on a connection that has died meanwhile.
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 20_000),
    )
    if hasattr(socket, name)
)
"""Socket options of every connection: seconds, but for the last, in milliseconds."""
_CA_SETTING: Final = "embedding.ca_file"
_MAX_READ_WORDS: Final = 5_000
"""Characters of a provider's message that limits are looked for in."""
_MAX_WORDS: Final = 300
"""Characters of a provider's message that are passed on; a longer one ends in an ellipsis."""


class OpenAIEmbedder:
    """An OpenAI-compatible `/embeddings` endpoint behind the port `Embedder`.

    `base_url` ends before `/embeddings`; a query of it goes behind that. An empty `api_key` sends no key, for
    endpoints on one's own machine. `key_setting` is how messages name the setting that holds the key.
    `timeout_seconds` bounds a whole call, an answer that trickles included. `route` is the way to the endpoint; the
    variables of the environment are not read. Belongs to one event loop. Raises `ConfigError` for a base URL or key
    that no request could carry.
    """

    def __init__(  # noqa: PLR0913  # plain arguments, one for each setting, all but the first by name
        self,
        recipe: Recipe,
        *,
        base_url: str,
        api_key: str,
        max_batch_inputs: int,
        max_batch_tokens: int,
        max_concurrency: int,
        timeout_seconds: float,
        sends_dimensions: bool,
        key_setting: str = "embedding.api_key",
        route: Route = STRAIGHT,
    ) -> None:
        self._recipe = recipe
        self._base_url = base_url
        self._route = route
        self._place = route.described(shown_url(base_url))
        self._api_key = _checked_key(api_key, key_setting)
        self._max_batch_inputs = max_batch_inputs
        self._max_batch_tokens = max_batch_tokens
        self._max_concurrency = max_concurrency
        self._timeout_seconds = timeout_seconds
        self._asked_dimensions = recipe.dimensions if sends_dimensions else 0
        self._key_setting = key_setting
        self._client: AsyncOpenAI | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self._recipe!r}, base_url={self._place!r})"

    @property
    def recipe(self) -> Recipe:
        """What decides the vectors; carries the dimensions as soon as an answer has told them."""
        return self._recipe

    @property
    def max_batch_inputs(self) -> int:
        """How many texts one call may carry."""
        return self._max_batch_inputs

    @property
    def max_batch_tokens(self) -> int:
        """How many estimated tokens one call may carry."""
        return self._max_batch_tokens

    @property
    def max_concurrency(self) -> int:
        """How many calls may run at once."""
        return self._max_concurrency

    async def open(self) -> None:
        """Make the client, which takes a second; sends no request. Raises `ServiceUnavailable` after `close`."""
        if self._is_closed:
            raise _closed()
        await self._opened()

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, Usage]:
        """Embed the exact texts in one request; float32, shape (texts, dimensions). No text, no request.

        A lone surrogate, which no request can carry, is sent as U+FFFD. Raises `RateLimited`, `ServiceUnavailable`
        (`UnusableVectors` when single vectors are at fault), `RejectedByModel`, `AuthenticationFailed`, and
        `ConfigError` for a model or base URL that does not exist, and for a file of authorities without any.
        """
        if not texts:
            return np.empty((0, self._recipe.dimensions), dtype=np.float32), Usage()
        answer = await self._ask([without_lone_surrogates(text) for text in texts])
        if isinstance(answer, IngestorError):
            # Raised outside of any handler: the client's error, chained to ours, would carry the request's headers.
            raise answer
        content, headers = answer
        fault: IngestorError
        try:
            vectors, tokens = parsed(content, len(texts), self._recipe.dimensions)
        except ErrorBody as error:
            fault = self._refusal(HTTPStatus.OK, headers, error.body)
        except Nonsense as nonsense:
            fault = self._nonsensical(nonsense)
        else:
            if not self._recipe.dimensions:
                self._recipe = replace(self._recipe, dimensions=vectors.shape[1])
            return vectors, Usage(requests=1, texts=len(texts), tokens=tokens)
        raise fault

    async def close(self) -> None:
        """Let go of the connections; later calls raise `ServiceUnavailable`. May be called twice."""
        self._is_closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _nonsensical(self, nonsense: Nonsense) -> ServiceUnavailable:
        said = f"{self._place} answered nonsense: {self._redacted(str(nonsense))}"
        if nonsense.positions:
            return UnusableVectors(
                said, positions=nonsense.positions, remedy=nonsense.remedy, billed_tokens=nonsense.tokens
            )
        return ServiceUnavailable(said, remedy=nonsense.remedy, billed_tokens=nonsense.tokens)

    async def _ask(self, texts: list[str]) -> tuple[bytes, Mapping[str, str]] | IngestorError:
        """The body and the headers of a successful answer, or what went wrong."""
        if self._is_closed:
            return _closed()
        client = await self._opened()
        import openai  # noqa: PLC0415  # half a second that commands without embedding should not pay

        try:
            _HAS_BEGUN.set(False)
            async with asyncio.timeout(self._timeout_seconds):
                answer = await client.embeddings.with_raw_response.create(
                    model=self._recipe.model,
                    input=texts,
                    encoding_format="float",
                    extra_body={"dimensions": self._asked_dimensions} if self._asked_dimensions else None,
                )
                return answer.content, answer.headers
        except (TimeoutError, openai.APITimeoutError):
            return ServiceUnavailable(
                f"{self._place} gave no complete answer within {self._timeout_seconds:g} s",
                remedy="it is tried again; if it stays so, look at the network or raise the timeout",
                may_be_a_text=True,
                billed_tokens=0,
            )
        except openai.APIStatusError as error:
            return self._refusal(error.status_code, error.response.headers, error.body)
        except openai.APIConnectionError as error:
            if fault := tls.certificate_fault(error):
                return await asyncio.to_thread(tls.distrust, shown_url(self._base_url), self._route, fault, _CA_SETTING)
            cause = error.__cause__ or error
            words = self._redacted(str(cause) or type(cause).__name__)
            return ServiceUnavailable(
                f"{self._place} broke its answer off: {words}"
                if _HAS_BEGUN.get()
                else f"{self._place} is out of reach: {words}",
                remedy=self._remedy("look at the network and the base URL"),
                may_be_a_text=type(cause).__name__ not in _UNSENT,
                billed_tokens=0 if _HAS_BEGUN.get() else None,
            )

    async def _opened(self) -> "AsyncOpenAI":
        async with self._opening:
            if self._client is None:
                # Importing takes half a second and building a TLS context tens of milliseconds: not on the event loop.
                self._client = await asyncio.to_thread(self._made)
            return self._client

    def _made(self) -> "AsyncOpenAI":
        import openai  # noqa: PLC0415  # as in `_ask`

        async def dress(request: Any) -> None:  # noqa: ANN401  # httpx or httpx2, whichever this openai sits on
            """Leave nothing in the headers but what this adapter says: the client adds OPENAI_* of the environment."""
            for name in set(request.headers) - _KEPT_HEADERS:
                del request.headers[name]
            request.headers["Host"] = request.url.netloc.decode("ascii")
            request.headers["Accept"] = "application/json"
            request.headers["Content-Type"] = "application/json"
            request.headers["User-Agent"] = "ingestor"
            if self._api_key:
                request.headers["Authorization"] = f"Bearer {self._api_key}"

        async def keep(response: Any) -> None:  # noqa: ANN401  # as above
            """Have the kernel see to it that an idle connection is not forgotten on its way, or is known to be dead."""
            stream = response.extensions.get("network_stream")
            connection = stream and stream.get_extra_info("socket")
            if response.status_code == HTTPStatus.OK:
                _HAS_BEGUN.set(True)
            if connection is not None:
                for level, option, value in _PROBING:
                    connection.setsockopt(level, option, value)

        limits = openai.DEFAULT_CONNECTION_LIMITS
        http = importlib.import_module(type(limits).__module__.partition(".")[0])  # httpx or httpx2, as above
        base_url, query = _parted(self._base_url)
        client = openai.AsyncOpenAI(
            api_key="set for each request",
            base_url=base_url,
            default_query=dict(parse_qsl(query, keep_blank_values=True)),
            max_retries=0,
            timeout=self._timeout_seconds,
            http_client=openai.DefaultAsyncHttpxClient(
                **tls.client_options(http, self._base_url, self._route),
                follow_redirects=False,
                timeout=self._timeout_seconds,
                event_hooks={"request": [dress], "response": [keep]},
                limits=http.Limits(
                    max_connections=limits.max_connections,
                    max_keepalive_connections=limits.max_keepalive_connections,
                    keepalive_expiry=_KEEPALIVE_SECONDS,
                ),
            ),
        )
        _ = client.embeddings.with_raw_response  # what is loaded when it is first asked for
        return client

    def _refusal(self, status: int, headers: Mapping[str, str], body: object) -> IngestorError:
        """The error that an HTTP status other than success stands for, or an error under that of a success."""
        told = words_of(body)
        limits = refusal_of(told[:_MAX_READ_WORDS])
        words = self._redacted(told)
        said = f"(HTTP {status}): {words}" if words else f"(HTTP {status})"
        codes = codes_of(body)
        if status == HTTPStatus.OK:
            status = next((int(code) for code in codes if code in _FAILURES), status)
        waits = self._told_to_wait(status, codes, said, limits, headers)
        if waits is not None:
            return waits
        if fault := fault_of_a_text(told[:_MAX_READ_WORDS]):
            return RejectedByModel(f"{self._recipe.model} cannot embed a text {said}", remedy=_REMEDIES[fault])
        if is_page(body) and status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ServiceUnavailable(
                f"{self._place} refuses the request with a web page {said}",
                remedy=BETWEEN,
                may_be_a_text=True,
            )
        fatal = self._misconfigured(status, codes, said, headers)
        if fatal is not None:
            return fatal
        if status in _REJECTIONS:
            return self._rejection(status, said, limits)
        return ServiceUnavailable(
            f"{self._place} fails {said}",
            remedy="it is tried again; if it stays so, look at the provider's status page"
            if status != HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
            else self._remedy("look for a proxy in between"),
            retry_after_seconds=bounded_wait_seconds(asked_wait_seconds(headers, time.time())),
            may_be_a_text=True,
        )

    def _told_to_wait(
        self, status: int, codes: frozenset[str], said: str, limits: Refusal, headers: Mapping[str, str]
    ) -> ServiceUnavailable | RateLimited | None:
        """What is only about how much was sent, or paid, until now, if it is that."""
        now_seconds = time.time()
        asked_seconds = asked_wait_seconds(headers, now_seconds)
        if codes & _BILLING_CODES or status == HTTPStatus.PAYMENT_REQUIRED:
            return ServiceUnavailable(
                f"the account at {self._place} has no quota left {said}",
                remedy="look at the provider's billing page: add credit or raise the spending limit",
                retry_after_seconds=bounded_wait_seconds(asked_seconds, is_quota=True),
            )
        if status == HTTPStatus.TOO_MANY_REQUESTS or any(map(is_rate_code, codes)):
            for told_seconds in (limits.retry_after_seconds, reset_wait_seconds(headers, now_seconds)):
                asked_seconds = told_seconds if asked_seconds is None else asked_seconds
            return RateLimited(
                f"{self._place} asks to slow down {said}",
                remedy="it is tried again; if it stays so, ask the provider for a higher limit",
                retry_after_seconds=bounded_wait_seconds(asked_seconds),
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
            )
        return None

    def _remedy(self, otherwise: str) -> str:
        """What helps where no answer of the endpoint's own has come; `otherwise` is for one without a proxy."""
        proxy = self._route.proxy
        return f"it is tried again; if it stays so, {f'look at that proxy ({proxy.origin})' if proxy else otherwise}"

    def _rejection(self, status: int, said: str, limits: Refusal) -> RejectedByModel:
        """What a request is refused with that could be told by looking at it."""
        message = f"{self._recipe.model} refuses the request {said}"
        if limits.max_inputs or limits.max_tokens or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            remedy = "a smaller call is tried; set embedding.max_batch_inputs to spare the attempt"
            return CallTooLarge(message, remedy=remedy, max_inputs=limits.max_inputs, max_tokens=limits.max_tokens)
        remedy = "if it is about the text, change the file; if about the request, check model and dimensions"
        if limits.max_text_tokens:
            remedy = f"the model takes {limits.max_text_tokens} tokens a text: set chunk.max_tokens well below that"
        return RejectedByModel(message, remedy=remedy)

    def _misconfigured(
        self, status: int, codes: frozenset[str], said: str, headers: Mapping[str, str]
    ) -> AuthenticationFailed | ConfigError | ServiceUnavailable | None:
        """What no waiting cures, if it is that; a redirect in any case."""
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or codes & _KEY_CODES:
            return AuthenticationFailed(
                f"{self._place} refuses the key {said}",
                remedy=f"check that {self._key_setting} is whole, valid, and allowed to use {self._recipe.model}",
            )
        if status == HTTPStatus.NOT_FOUND or codes & _MODEL_CODES:
            return ConfigError(
                f"{self._place} knows no model {self._recipe.model!r}, or is not the base URL {said}",
                remedy="check the model's name, and that the base URL ends before /embeddings (most end in /v1)",
            )
        if status in _REDIRECTS:
            return self._moved(status, said, headers.get("location", ""))
        return None

    def _moved(self, status: int, said: str, location: str) -> ConfigError | ServiceUnavailable:
        """What a redirect means. Nobody follows it: it could take key and texts anywhere.

        A permanent one, and one to another place for embeddings, stay as they are; any other may be the page where a
        network wants a login, and pass.
        """
        place = urlsplit(urljoin(f"{_parted(self._base_url)[0].rstrip('/')}/embeddings", location))
        base = place._replace(netloc=place.netloc.rpartition("@")[2], fragment="")
        shown = self._redacted(base.geturl()) if location else "an address that it does not name"
        message = f"{self._place} redirects to {shown} {said}"
        head, _, last = base.path.rstrip("/").rpartition("/")
        if location and last == "embeddings":
            target = self._redacted(base._replace(path=head).geturl())
            if base._replace(path=head).geturl() == self._base_url.rstrip("/"):
                return ConfigError(message, remedy="it redirects to itself: ask whoever runs the endpoint")
            return ConfigError(message, remedy=f"set embedding.base_url to {target}")
        if status in (HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.PERMANENT_REDIRECT):
            return ConfigError(message, remedy="set embedding.base_url to where the endpoint is now")
        remedy = "if that is where this network wants a login, log in; if it is not, check embedding.base_url"
        return ServiceUnavailable(message, remedy=remedy, may_be_a_text=True)  # or a firewall's page about a text

    def _redacted(self, words: str) -> str:
        """One line of bounded length without the key, which some servers repeat."""
        line = " ".join(words.split())
        if self._api_key:
            line = line.replace(self._api_key, "[key]")
        return line if len(line) <= _MAX_WORDS else line[: _MAX_WORDS - 1] + "…"


def _closed() -> ServiceUnavailable:
    return ServiceUnavailable("the embedding client is closed")


def load() -> None:
    """Import what the first call needs, which takes 0.6 s that may pass while something else is waited for."""
    importlib.import_module("openai.resources.embeddings")


def shown_url(base_url: str) -> str:
    """The base URL without user, password and query. Raises `ConfigError` when it is no URL."""
    try:
        parts = urlsplit(base_url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "the base URL of the embedding endpoint is no http or https URL",
            remedy="give it like https://api.openai.com/v1",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _parted(base_url: str) -> tuple[str, str]:
    """A base URL without its query, and the query."""
    parts = urlsplit(base_url)
    return parts._replace(query="", fragment="").geturl(), parts.query


def _checked_key(api_key: str, key_setting: str) -> str:
    if not all("!" <= character <= "~" for character in api_key):
        raise ConfigError(
            "the key of the embedding endpoint holds a space, line break or other character that a header cannot carry",
            remedy=f"copy the key into {key_setting} anew",
        )
    return api_key
