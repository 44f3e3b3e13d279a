"""A real embedding endpoint on loopback: OpenAI-compatible, deterministic, counting, and able to misbehave on demand.

In a test's own process, in a thread::

    with EmbeddingServer(max_inputs=10) as server:
        server.inject(Fault(FaultKind.STATUS, status=429, headers={"retry-after": "2"}))
        ...  # talk to server.base_url
        assert server.counters.texts == 10

In a process of its own (`python tests/embedding_server.py --port 0 --max-inputs 10`): prints one JSON line with
`base_url`, `counters_url` and `faults_url`, then serves until SIGTERM or SIGINT. GET on the counters' URL gives the
counters, POST of a list of faults as JSON objects to the faults' URL injects them.

Invariant: equal text, model and dimensions give the equal vector, in every process; texts that share words or Chinese
characters are nearer than texts that do not. An injected fault is used up by exactly one request, in order.
"""

import argparse
import base64
import contextlib
import json
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

DEFAULT_DIMENSIONS = 64
SAMPLE_TEXT = "The folder is the collection. 文件夹就是集合。"
"""By which the product sees that the model is the same still; test_gate.py holds it to the product's own."""
_FIRST_CJK = 0x2E80
_DRIP_SECONDS = 0.05
_HELD_SECONDS = 0.02


def vector_of(text: str, dimensions: int = DEFAULT_DIMENSIONS) -> NDArray[np.float32]:
    """A unit vector of the text's character n-grams: triples everywhere, pairs and single characters where Chinese."""
    codes = np.frombuffer(f" {text.casefold()} ".encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    is_cjk = codes >= _FIRST_CJK
    pairs = codes[:-1] * np.uint64(0x1_0001) + codes[1:]
    grams = np.concatenate(
        [codes[is_cjk], pairs[is_cjk[:-1] & is_cjk[1:]], pairs[:-1] * np.uint64(0x1F_0007) + codes[2:]]
    )
    # Fibonacci hashing with one fold: spreads neighbouring codes over the whole range, alike in every process.
    mixed = grams * np.uint64(0x9E37_79B9_7F4A_7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58_476D_1CE4_E5B9)
    places = ((mixed >> np.uint64(17)) % np.uint64(dimensions)).astype(np.int64)
    signs = np.where(mixed >> np.uint64(63), 1.0, -1.0)
    sums = np.bincount(places, weights=signs, minlength=dimensions)
    if not sums.any():
        sums[0] = 1.0
    return (sums / np.linalg.norm(sums)).astype(np.float32)


def tokens_of(texts: Iterable[str]) -> int:
    """What this server counts as tokens: four bytes each, at least one a text."""
    return sum(max(1, len(text.encode("utf-8", "surrogatepass")) // 4) for text in texts)


class FaultKind(StrEnum):
    """How one coming request is answered instead of well."""

    STATUS = "status"
    """`status`, `headers` and `body` as given; without a body an error in the provider's form."""
    BODY = "body"
    """Status 200 with `body`."""
    MALFORMED = "malformed"
    """Status 200, JSON that ends in the middle."""
    FEWER = "fewer"
    """One vector less than texts."""
    MORE = "more"
    """One vector more than texts."""
    SHUFFLED = "shuffled"
    """Right vectors with right indexes, in another order."""
    DUPLICATE_INDEX = "duplicate_index"
    NO_INDEX = "no_index"
    NOT_A_NUMBER = "not_a_number"
    """NaN inside the last vector."""
    ZERO = "zero"
    """The last vector is all zeros."""
    WRONG_DIMENSION = "wrong_dimension"
    """All vectors one number too long."""
    RAGGED = "ragged"
    """The last vector one number too long."""
    BASE64 = "base64"
    """Right vectors in base64 although floats were asked for."""
    NO_USAGE = "no_usage"
    DRIP = "drip"
    """The right answer, a byte each 50 ms."""
    RESET = "reset"
    """The connection is reset before any answer; with `seconds`, after that time."""
    CUT = "cut"
    """The connection ends in the middle of the body."""
    HANG = "hang"
    """No answer until `seconds` have passed (0: until the server closes)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad answer to come."""

    kind: FaultKind
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Received:
    """One embedding request as it arrived; header names in lower case."""

    texts: tuple[str, ...]
    model: str
    dimensions: int | None
    encoding_format: str | None
    headers: Mapping[str, str]


@dataclass(slots=True)
class Counters:
    """What has happened so far; `calls`, `texts` and `tokens` are what a provider would bill."""

    requests: int = 0
    """Embedding requests that arrived, whatever became of them."""
    calls: int = 0
    """Of these, answered with status 200."""
    texts: int = 0
    tokens: int = 0
    repeated_texts: int = 0
    """Texts of answered calls that an earlier answered call had carried already."""
    connections: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    too_large: int = 0
    """Requests refused because they carry too many texts or tokens."""
    too_many: int = 0
    """Requests refused because too many requests or tokens came in a short time."""


class EmbeddingServer:
    """The server; a context manager that listens on a free loopback port and counts.

    `dimensions` are those of a request that names none, `allowed_dimensions` those it may name (empty: any).
    `max_inputs`, `max_tokens` and `api_key` are enforced when given. An answer takes `latency_seconds` plus
    `latency_per_text_seconds` for every text, and none comes for `held_dimensions` while these are set. A request with
    a text that holds `reject_marker` is answered with 400; the vector of a text that holds `spoil_marker` is NaN in
    every answer; a request with a text that holds a word of `poison` gets its fault each time.
    More than `window_requests` requests or `window_tokens` tokens in any `window_seconds` are answered with 429. At
    most `capacity` requests are worked on at once, the others wait. A server that is not `is_outspoken` names no limit
    when it refuses.
    Leaving the context raises when a handler failed on its own: then the test has proved nothing.
    """

    def __init__(  # noqa: PLR0913  # one argument for each thing a provider can be set to
        self,
        *,
        port: int = 0,
        dimensions: int = DEFAULT_DIMENSIONS,
        allowed_dimensions: Sequence[int] = (),
        max_inputs: int = 2_048,
        max_tokens: int = 300_000,
        api_key: str = "",
        latency_seconds: float = 0.0,
        latency_per_text_seconds: float = 0.0,
        reject_marker: str = "",
        spoil_marker: str = "",
        poison: Mapping[str, Fault] | None = None,
        window_seconds: float = 60.0,
        window_requests: int = 0,
        window_tokens: int = 0,
        capacity: int = 0,
        is_outspoken: bool = True,
    ) -> None:
        self.window_seconds = window_seconds
        self.window_requests = window_requests
        self.window_tokens = window_tokens
        self.is_outspoken = is_outspoken
        self.places = threading.Semaphore(capacity) if capacity else contextlib.nullcontext()
        self._window: deque[tuple[float, int]] = deque()
        self.dimensions = dimensions
        self.allowed_dimensions = tuple(allowed_dimensions)
        self.max_inputs = max_inputs
        self.max_tokens = max_tokens
        self.api_key = api_key
        self.latency_seconds = latency_seconds
        self.latency_per_text_seconds = latency_per_text_seconds
        self.held_dimensions = 0
        self.reject_marker = reject_marker
        self.spoil_marker = spoil_marker
        self.poison = dict(poison or {})
        self.is_another_model = False
        """Whether vectors are those of another model than before."""
        self.samples = 0
        """Requests for the vector of `SAMPLE_TEXT`, which are counted here alone, as are its tokens."""
        self.sample_tokens = 0
        self.received: list[Received] = []
        self.counters = Counters()
        self._faults: deque[Fault] = deque()
        self._answered: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _HttpServer(("127.0.0.1", port), self)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.02,), name="embedding-server", daemon=True
        )

    @property
    def url(self) -> str:
        """Root of the server."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> int:
        """Embedding requests that arrived, whatever became of them."""
        return self.counters.requests

    @property
    def calls(self) -> int:
        """Requests answered with status 200."""
        return self.counters.calls

    @property
    def texts(self) -> int:
        """Texts embedded in answered calls."""
        return self.counters.texts

    def inject(self, *faults: Fault) -> None:
        """Answer as many coming requests badly, in this order."""
        with self._lock:
            self._faults.extend(faults)

    def forget_faults(self) -> None:
        """Answer all coming requests well."""
        with self._lock:
            self._faults.clear()

    def next_fault(self) -> Fault | None:
        """Use up the next fault."""
        with self._lock:
            return self._faults.popleft() if self._faults else None

    def times_embedded(self, text: str) -> int:
        """How often a text was part of an answered call."""
        with self._lock:
            return self._answered[text]

    def arrive(self, received: Received) -> None:
        """Count a request."""
        with self._lock:
            self.received.append(received)
            self.counters.requests += 1
            self.counters.in_flight += 1
            self.counters.max_in_flight = max(self.counters.max_in_flight, self.counters.in_flight)

    def leave(self) -> None:
        """Count the end of a request."""
        with self._lock:
            self.counters.in_flight -= 1

    def bill(self, texts: Sequence[str], tokens: int) -> None:
        """Count an answered call."""
        with self._lock:
            self.counters.calls += 1
            self.counters.texts += len(texts)
            self.counters.tokens += tokens
            for text in texts:
                self.counters.repeated_texts += text in self._answered
                self._answered[text] += 1

    def wait_seconds(self, tokens: int) -> float:
        """How long to wait until so many tokens are within the rate; 0, and they are counted, when they are now."""
        with self._lock:
            now_seconds = time.monotonic()
            while self._window and self._window[0][0] + self.window_seconds <= now_seconds:
                self._window.popleft()
            spent = sum(spent for _, spent in self._window)
            is_over = bool(self.window_requests and len(self._window) >= self.window_requests) or bool(
                self.window_tokens and self._window and spent + tokens > self.window_tokens
            )
            if is_over:
                self.counters.too_many += 1
                return self._window[0][0] + self.window_seconds - now_seconds
            self._window.append((now_seconds, tokens))
            return 0.0

    def count_too_large(self) -> None:
        """Count a request that was refused for its size."""
        with self._lock:
            self.counters.too_large += 1

    def count_connection(self) -> None:
        """Count a connection that a client opened."""
        with self._lock:
            self.counters.connections += 1

    def snapshot(self) -> dict[str, int]:
        """The counters at one moment."""
        with self._lock:
            return asdict(self.counters)

    def start(self) -> Self:
        """Serve from now on."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening, cut every connection, and raise what handlers failed with."""
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.cut_connections()
        self._http.server_close()
        if self._http.failures:
            raise ExceptionGroup("the embedding server itself failed", self._http.failures)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _HttpServer(ThreadingHTTPServer):
    """Joins its threads when it closes, after cutting the connections that they wait on."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: EmbeddingServer) -> None:
        self.owner = owner
        self.failures: list[Exception] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def enter_connection(self, connection: socket.socket) -> None:
        """Remember an open connection."""
        with self._lock:
            self._connections.add(connection)
        if self.owner.closing.is_set():
            self.cut_connections()

    def leave_connection(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.discard(connection)

    def cut_connections(self) -> None:
        """End every read and write that a handler waits in."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was first

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002  # typeshed's signature
        """Keep what a handler raised, but for clients that went away."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.failures.append(error)


class _Refusal(Exception):
    """An answer other than 200 that the request has deserved."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one segment: no wait for a delayed acknowledgement
    server: _HttpServer

    @property
    def owner(self) -> EmbeddingServer:
        return self.server.owner

    def setup(self) -> None:
        super().setup()
        self.owner.count_connection()
        self.server.enter_connection(self.connection)

    def finish(self) -> None:
        self.server.leave_connection(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401  # typeshed's signature
        """Keep quiet: counters tell more."""

    def do_GET(self) -> None:
        if self.path == "/counters":
            self._send_json(200, self.owner.snapshot())
        elif self.path == "/v1/models":
            self._send_json(200, {"object": "list", "data": [{"id": "test-embedding", "object": "model"}]})
        else:
            self._send_error(404, f"Invalid URL (GET {self.path})", "not_found")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True  # the client was killed while it sent: nobody waits for an answer
            return
        if self.path == "/v1/embeddings":
            self._embeddings(body)
        elif self.path == "/faults":
            faults = [Fault(**{**fault, "kind": FaultKind(fault["kind"])}) for fault in json.loads(body)]
            self.owner.inject(*faults)
            self._send_json(200, {"injected": len(faults)})
        else:
            self._send_error(404, f"Invalid URL (POST {self.path})", "not_found")

    def _embeddings(self, body: bytes) -> None:
        request = json.loads(body)
        texts = [request["input"]] if isinstance(request["input"], str) else list(request["input"])
        if len(texts) == 1 and texts[0].endswith(SAMPLE_TEXT):
            self._answer_sample(request, texts)
            return
        self.owner.arrive(
            Received(
                texts=tuple(texts),
                model=request["model"],
                dimensions=request.get("dimensions"),
                encoding_format=request.get("encoding_format"),
                headers={name.lower(): value for name, value in self.headers.items()},
            )
        )
        try:
            poison = (fault for word, fault in self.owner.poison.items() if any(word in text for text in texts))
            self._answer(request, texts, next(poison, None) or self.owner.next_fault())
        except _Refusal as refusal:
            self._send_error(refusal.status, str(refusal), refusal.code)
        finally:
            self.owner.leave()

    def _answer_sample(self, request: dict[str, Any], texts: list[str]) -> None:
        """Answer what asks whether the model is the same still: beside the counters, the limits and the faults."""
        self.owner.samples += 1
        try:
            dimensions = self._checked(request, texts)
            self.owner.sample_tokens += tokens_of(texts)
            self._send_json(200, self._moved(_answer_of(texts, request["model"], dimensions, None)))
        except _Refusal as refusal:
            self._send_error(refusal.status, str(refusal), refusal.code)

    def _moved(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer as another model gives it, if that has taken the place of the one before."""
        for row in answer["data"] if self.owner.is_another_model else ():
            row["embedding"] = row["embedding"][1:] + row["embedding"][:1]
        return answer

    def _answer(self, request: dict[str, Any], texts: list[str], fault: Fault | None) -> None:
        owner = self.owner
        with owner.places:
            owner.closing.wait(owner.latency_seconds + owner.latency_per_text_seconds * len(texts))
        while owner.held_dimensions and request.get("dimensions") == owner.held_dimensions:
            if owner.closing.wait(_HELD_SECONDS):
                break
        if fault is not None and self._misbehave(fault):
            return
        dimensions = self._checked(request, texts)
        if self._is_too_fast(texts):
            return
        answer = self._moved(_answer_of(texts, request["model"], dimensions, fault.kind if fault else None))
        for row, text in zip(answer["data"], texts, strict=False):
            if owner.spoil_marker and owner.spoil_marker in text:
                row["embedding"] = [float("nan")] * dimensions
        encoded = json.dumps(answer).encode()
        owner.bill(texts, tokens_of(texts))
        if fault is not None and fault.kind is FaultKind.MALFORMED:
            encoded = encoded[: len(encoded) // 2]
        if fault is not None and fault.kind in (FaultKind.CUT, FaultKind.DRIP):
            self._send_slowly(encoded, is_cut=fault.kind is FaultKind.CUT)
        else:
            self._send(200, encoded)

    def _checked(self, request: dict[str, Any], texts: list[str]) -> int:
        """The dimensions asked for, of a request within every limit."""
        owner = self.owner
        if owner.api_key and self.headers.get("Authorization") != f"Bearer {owner.api_key}":
            raise _Refusal(401, "Incorrect API key provided.", "invalid_api_key")
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise _Refusal(400, "'$.input' is invalid. Please check the API reference.", "invalid_value")
        if len(texts) > owner.max_inputs:
            message = (
                "<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, "
                f"it should not be larger than {owner.max_inputs}.: input.contents"
            )
            self._refuse_size(message, "InvalidParameter")
        tokens = tokens_of(texts)
        if tokens > owner.max_tokens:
            message = f"Requested {tokens} tokens, max {owner.max_tokens} tokens per request."
            self._refuse_size(message, "max_tokens_per_request")
        if owner.reject_marker and any(owner.reject_marker in text for text in texts):
            raise _Refusal(400, "Input text may contain inappropriate content.", "data_inspection_failed")
        dimensions = request.get("dimensions", owner.dimensions)
        if owner.allowed_dimensions and dimensions not in owner.allowed_dimensions:
            raise _Refusal(400, f"Invalid value for 'dimensions': {dimensions}.", "invalid_value")
        return int(dimensions)

    def _refuse_size(self, message: str, code: str) -> NoReturn:
        self.owner.count_too_large()
        raise _Refusal(400, message if self.owner.is_outspoken else "Bad request.", code)

    def _is_too_fast(self, texts: list[str]) -> bool:
        """Whether the request was refused because too much came in a short time."""
        owner = self.owner
        wait_seconds = owner.wait_seconds(tokens_of(texts))
        if not wait_seconds:
            return False
        headers = {"retry-after-ms": str(round(1000 * wait_seconds))} if owner.is_outspoken else {}
        self._send_error(429, "Rate limit reached.", "rate_limit_exceeded", headers)
        return True

    def _misbehave(self, fault: Fault) -> bool:
        """Do what needs no answer of ours; False when the fault is one inside the answer."""
        match fault.kind:
            case FaultKind.STATUS if not fault.body:
                self._send_error(fault.status, f"injected {fault.status}", f"injected_{fault.status}", fault.headers)
            case FaultKind.STATUS:
                self._send(fault.status, fault.body.encode(), fault.headers)
            case FaultKind.BODY:
                self._send(200, fault.body.encode(), fault.headers)
            case FaultKind.RESET:
                self.owner.closing.wait(fault.seconds)
                self._reset()
            case FaultKind.HANG:
                self.owner.closing.wait(fault.seconds or None)
                self.close_connection = True
            case _:
                return False
        return True

    def _reset(self) -> None:
        # Linger of zero seconds: closing sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.leave_connection(self.connection)
        self.connection.close()
        self.close_connection = True

    def _send_slowly(self, encoded: bytes, *, is_cut: bool) -> None:
        self._send_head(200, len(encoded), {})
        self.wfile.flush()
        if is_cut:
            self.wfile.write(encoded[: len(encoded) // 2])
            self.close_connection = True
            return
        for place in range(len(encoded)):
            if self.owner.closing.wait(_DRIP_SECONDS):
                self.close_connection = True
                return
            self.wfile.write(encoded[place : place + 1])
            self.wfile.flush()

    def _send_error(self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> None:
        error = {"message": message, "type": "invalid_request_error" if status < 500 else "server_error"}
        self._send_json(status, {"error": {**error, "param": None, "code": code}}, headers)

    def _send_json(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._send_head(status, len(body), headers or {})
        self.wfile.write(body)

    def _send_head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        names = {name.lower() for name in headers}
        if "content-type" not in names:
            self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _answer_of(texts: Sequence[str], model: str, dimensions: int, fault: FaultKind | None) -> dict[str, Any]:
    """The body of an answer, right but for the fault."""
    embeddings = _embeddings_of([vector_of(text, dimensions).tolist() for text in texts], fault)
    rows: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": embedding} for index, embedding in enumerate(embeddings)
    ]
    match fault:
        case FaultKind.SHUFFLED:
            rows = rows[1:] + rows[:1]
        case FaultKind.DUPLICATE_INDEX:
            rows[-1]["index"] = 0
        case FaultKind.NO_INDEX:
            del rows[-1]["index"]
        case _:
            pass
    tokens = tokens_of(texts)
    answer: dict[str, Any] = {"object": "list", "data": rows, "model": model}
    if fault is not FaultKind.NO_USAGE:
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answer


def _embeddings_of(vectors: list[list[float]], fault: FaultKind | None) -> Sequence[list[float] | str]:
    """The vectors as they are sent, right but for the fault."""
    *first, last = vectors
    wrong: Mapping[FaultKind | None, Callable[[], Sequence[list[float] | str]]] = {
        FaultKind.FEWER: lambda: first,
        FaultKind.MORE: lambda: [*vectors, last],
        FaultKind.NOT_A_NUMBER: lambda: [*first, [float("nan"), *last[1:]]],
        FaultKind.ZERO: lambda: [*first, [0.0] * len(last)],
        FaultKind.WRONG_DIMENSION: lambda: [[*vector, 0.5] for vector in vectors],
        FaultKind.RAGGED: lambda: [*first, [*last, 0.5]],
        FaultKind.BASE64: lambda: [base64.b64encode(np.asarray(v, dtype="<f4").tobytes()).decode() for v in vectors],
    }
    return wrong.get(fault, lambda: vectors)()


def main() -> None:
    """Serve in a process of its own until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible embedding endpoint for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dimensions", type=int, default=DEFAULT_DIMENSIONS)
    parser.add_argument("--max-inputs", type=int, default=2_048)
    parser.add_argument("--max-tokens", type=int, default=300_000)
    parser.add_argument("--api-key", default="")
    parser.add_argument("--latency-seconds", type=float, default=0.0)
    parser.add_argument("--latency-per-text-seconds", type=float, default=0.0)
    parser.add_argument("--reject-marker", default="")
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread starts, so that only `sigwait` gets them
    with EmbeddingServer(**vars(parser.parse_args())) as server:
        urls = {
            "base_url": server.base_url,
            "counters_url": f"{server.url}/counters",
            "faults_url": f"{server.url}/faults",
        }
        sys.stdout.write(json.dumps(urls) + "\n")
        sys.stdout.flush()
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
