"""Clients of Chroma, in the five ways that there are to reach one.

Invariant: no call of an HTTP client waits for ever. Chroma's own client sets no timeout at all, and its constructor
already performs requests; so ours are in place before the constructor runs.
"""

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx

from ingestor.adapters import chroma_release, tls
from ingestor.core.errors import AuthenticationFailed, ConfigError, IngestorError, ServiceUnavailable
from ingestor.core.network import CHROMA_CLOUD_URL, STRAIGHT, Route, server_url

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.config import Settings

MODES = ("managed", "http", "cloud", "persistent", "memory")
_CONNECT_TIMEOUT_SECONDS = 5.0
_CLOSING_SECONDS = 5.0
"""How long a database that was let go of is waited for; seen were 3 ms."""
_CLOSING_POLL_SECONDS = 0.001
_patching = threading.Lock()


def connect(  # noqa: PLR0913 - the settings of one connection, all named
    mode: str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    ssl: bool = False,
    route: Route = STRAIGHT,
    token: str | None = None,
    tenant: str | None = None,
    database: str | None = None,
    path: Path | None = None,
    timeout_seconds: float = 60.0,
) -> "ClientAPI":
    """Make a client and see that Chroma answers. What is returned is closed by `disconnect`.

    - "managed", "http": a server at `host`, as `server_url` reads it. `token` goes into both headers that servers are
      known to look at.
    - "cloud": Chroma Cloud, where `token` is the API key; tenant and database follow from it unless they are given.
    - "persistent": the folder `path`, in this process; the caller holds its FolderLock.
    - "memory": nothing outlives the process; all clients of this mode in a process share what they hold.

    `route` is how a server on another machine is reached. `timeout_seconds` bounds each wait for the server to send or
    take anything. It has no effect on calls within the process, which cannot be interrupted. Raises
    `ServiceUnavailable`, `AuthenticationFailed`, `ConfigError`.
    """
    import chromadb  # noqa: PLC0415 - 0.7 s and 77 MB, which only those pay who talk to Chroma
    from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings  # noqa: PLC0415 - as above

    settings = Settings(anonymized_telemetry=False)
    tenant_name, database_name = tenant or DEFAULT_TENANT, database or DEFAULT_DATABASE
    match mode:
        case "managed" | "http":
            headers = {"Authorization": f"Bearer {token}", "X-Chroma-Token": token} if token else None
            url = server_url(host, port, is_encrypted=ssl)
            with _bounded(url, timeout_seconds, route):
                if mode == "http":
                    _refuse_too_old(url, headers, timeout_seconds, route)
                # As a whole URL: of an address with colons, and of a path, Chroma would make another one.
                client = chromadb.HttpClient(
                    url, 0, url.startswith("https"), headers, settings, tenant_name, database_name
                )
                _set_timeout(client, timeout_seconds)
            return client
        case "cloud":
            with _bounded(CHROMA_CLOUD_URL, timeout_seconds, route):
                # The names that every server has are none of the cloud's: taken as not given.
                own_tenant = tenant if tenant != DEFAULT_TENANT else None
                own_database = database if database != DEFAULT_DATABASE else None
                client = chromadb.CloudClient(own_tenant, own_database, token, settings)
                _set_timeout(client, timeout_seconds)
            return client
        case "persistent":
            if path is None:
                raise ConfigError("no folder is set for Chroma", remedy="set INGESTOR_CHROMA__PATH")
            return _open_folder(path, settings, tenant_name, database_name)
        case "memory":
            return chromadb.EphemeralClient(settings, tenant_name, database_name)
        case _:
            raise ConfigError(
                f"there is no way {mode!r} to reach Chroma",
                remedy=f"set INGESTOR_CHROMA__MODE to one of {', '.join(MODES)}",
            )


def load() -> None:
    """Import what `connect` needs, which takes 0.7 s that may pass while something else is waited for."""
    importlib.import_module("chromadb")


def disconnect(client: "ClientAPI") -> None:
    """Let go of connections and files; idempotent. A folder may be opened by anybody else after this returns."""
    folder = str(getattr(client, "_identifier", ""))  # of a client in this process; others have made-up ones
    sessions = [
        session
        for owner in (client, getattr(client, "_admin_client", None))
        if isinstance(session := getattr(getattr(owner, "_server", None), "_session", None), httpx.Client)
    ]
    client.close()  # type: ignore[attr-defined]  # every client that Chroma makes has it, the interface does not tell
    for session in sessions:
        session.close()
    if not sessions and not _is_shared(folder):
        _wait_closed(folder)


def _is_shared(folder: str) -> bool:
    """Whether another client of this process has the folder open."""
    from chromadb.api.shared_system_client import SharedSystemClient  # noqa: PLC0415 - as in connect

    return folder in SharedSystemClient._identifier_to_system  # noqa: SLF001 - nothing public tells


def _wait_closed(folder: str) -> None:
    """Wait until Chroma's threads have closed the database, which they do some milliseconds after they were told to.

    Locks of files hold between processes alone: another SQLite of this one, as Python's, would read what is half
    written, and call the database malformed.
    """
    database = os.path.realpath(Path(folder) / "chroma.sqlite3")
    deadline_seconds = time.monotonic() + _CLOSING_SECONDS
    while _is_open_here(database) and time.monotonic() < deadline_seconds:
        time.sleep(_CLOSING_POLL_SECONDS)


def _is_open_here(file: str) -> bool:
    """Whether this process has a file open, or what belongs to it and is named after it."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(descriptor.readlink()).startswith(file):
                return True
    return False


def _open_folder(path: Path, settings: "Settings", tenant: str, database: str) -> "ClientAPI":
    import chromadb  # noqa: PLC0415 - as in connect
    from chromadb.errors import ChromaError  # noqa: PLC0415 - as in connect

    try:
        return chromadb.PersistentClient(path, settings, tenant, database)
    except (ChromaError, OSError, ValueError) as error:
        raise ServiceUnavailable(
            f"the Chroma folder {path} cannot be opened: {_words(error)}",
            remedy="see whether the disk is full and the folder may be written",
        ) from error


def _refuse_too_old(url: str, headers: Mapping[str, str] | None, timeout_seconds: float, route: Route) -> None:
    """Raise `ConfigError` for a server that the client does not get on with, before it tries to."""
    with httpx.Client(
        headers=headers, timeout=_timeout(timeout_seconds), **tls.client_options(httpx, url, route)
    ) as client:
        chroma_release.refuse_too_old(client, url, route.described(url))


@contextmanager
def _bounded(url: str, timeout_seconds: float, route: Route) -> Iterator[None]:
    """Give every HTTP session that Chroma makes in here our timeout, and translate what its constructor raises.

    Chroma has no setting for it. A client makes two sessions, of which the second, made and used by the constructor
    itself, is out of reach of its caller.
    """
    from chromadb.api import fastapi  # noqa: PLC0415 - as in connect

    ours: dict[str, Any] = {"timeout": _timeout(timeout_seconds), **tls.client_options(httpx, url, route)}
    sessions: list[httpx.Client] = []

    class BoundedClient(httpx.Client):
        def __init__(self, **options: Any) -> None:  # noqa: ANN401 - passed through as they come
            super().__init__(**(options | ours))
            sessions.append(self)

        def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - as above
            try:
                response = super().send(request, **options)
            except httpx.TransportError as error:
                if route.proxy is None:
                    raise
                raise type(error)(f"{error}, through the proxy {route.proxy.shown}", request=request) from error
            # A response and its stream name each other: what was sent, megabytes a call, would stay until Python
            # searches for garbage. Chroma's client streams nothing, so the answer has been read.
            response.stream = httpx.ByteStream(response.content)
            return response

    with _patching:
        names = vars(fastapi)
        original = names["httpx"]
        names["httpx"] = SimpleNamespace(**{**vars(httpx), "Client": BoundedClient})
        try:
            yield
        except Exception as error:
            for session in sessions:
                session.close()
            if fault := tls.certificate_fault(error):
                raise tls.distrust(url, route, fault, "chroma.ca_file") from error
            raise _translated(error, route.described(url), timeout_seconds) from error
        finally:
            names["httpx"] = original


def _set_timeout(client: "ClientAPI", timeout_seconds: float) -> None:
    """Set the timeout once more where it is used from now on, and see that there is such a place."""
    session = getattr(getattr(client, "_server", None), "_session", None)
    if not isinstance(session, httpx.Client):
        raise ConfigError(
            "this version of chromadb keeps its HTTP session elsewhere, so that no timeout can be set",
            remedy="install the version of chromadb that this release was tested with",
        )
    session.timeout = _timeout(timeout_seconds)


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_TIMEOUT_SECONDS))


def _translated(error: Exception, place: str, timeout_seconds: float) -> IngestorError:
    """What kept a client from being made. Chroma wraps what happened into a ValueError, so its causes count too."""
    from chromadb.errors import AuthorizationError, ChromaAuthError, NotFoundError  # noqa: PLC0415 - as in connect

    causes = list(_causes(error))
    statuses = {cause.response.status_code for cause in causes if isinstance(cause, httpx.HTTPStatusError)}

    def was_caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    translation: IngestorError
    if isinstance(error, IngestorError):
        translation = error
    elif was_caused_by(AuthorizationError, ChromaAuthError) or statuses & {401, 403}:
        translation = AuthenticationFailed(f"Chroma at {place} refuses the token", remedy="set INGESTOR_CHROMA__TOKEN")
    elif was_caused_by(httpx.TimeoutException):
        translation = ServiceUnavailable(
            f"Chroma at {place} does not answer within {timeout_seconds:g} s", remedy="see whether the server is well"
        )
    elif was_caused_by(httpx.TransportError):
        translation = ServiceUnavailable(
            f"Chroma at {place} is out of reach",
            remedy="start the server, or set INGESTOR_CHROMA__HOST and INGESTOR_CHROMA__PORT",
        )
    elif was_caused_by(NotFoundError):
        translation = ConfigError(
            f"Chroma at {place} has no such tenant or database: {_words(error)}",
            remedy="set INGESTOR_CHROMA__TENANT and INGESTOR_CHROMA__DATABASE",
        )
    elif "api_key" in str(error):
        translation = ConfigError("Chroma Cloud wants an API key", remedy="set INGESTOR_CHROMA__TOKEN")
    else:
        translation = ServiceUnavailable(
            f"what answers at {place} fails, or is no Chroma: {_words(error)}",
            remedy="see INGESTOR_CHROMA__HOST, INGESTOR_CHROMA__PORT and INGESTOR_CHROMA__SSL",
        )
    return translation


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _words(error: Exception) -> str:
    """The first line of an error, short enough for a log."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
