"""Answers of the HTTP API where there is something wrong, and of several sources."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ingestor.adapters.ledger import SqliteLedger
from ingestor.app.live import Live
from ingestor.app.searching import Searchers
from ingestor.core.errors import (
    AuthenticationFailed,
    CollectionLost,
    ConfigError,
    RecipeMismatch,
    RejectedByModel,
    ServiceUnavailable,
)
from ingestor.core.model import Entry, Hit, Problem, Stage, Stat
from ingestor.settings import Settings, load_settings
from ingestor.web import api, bounds
from ingestor.web.application import application_of
from ingestor.web.bounds import Bound
from ingestor.web.events import Streams

FOLDERS = ("first", "second")


class Answering(Searchers):
    """Searchers that answer as a test says."""

    def __init__(self, answer: Callable[[], object]) -> None:
        self._answer = answer

    async def of(self, collection: str = "") -> Any:  # noqa: ANN401, ARG002 - as it is called
        return self

    async def search(self, *_: object, **__: object) -> list[Hit]:
        answer = self._answer()
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        return []


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path))
    sources = [{"folder": name, "collection": f"of-{name}"} for name in FOLDERS]
    return load_settings(None, {"sources": sources}).settings


@pytest.fixture
def live(settings: Settings) -> Live:
    return Live(settings, asyncio.Event())


@pytest.fixture
def client(live: Live) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application_of(live, Streams()))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765")


@pytest.fixture
def ledgers(settings: Settings) -> None:
    """Three documents of each source, one of which has a problem."""
    for each in settings.each():
        each.data_dir.mkdir(exist_ok=True)
        with closing(SqliteLedger(each.data_dir / each.ledger_file)) as ledger:
            ledger.mark([_entry(f"{each.source_name}-{name}.txt", is_bad=name == "b") for name in "abc"])


def _entry(path: str, *, is_bad: bool) -> Entry:
    fault = Problem(Stage.DECODE, "UndecodableDocument", "it is binary", "", 1, 1.0) if is_bad else None
    return Entry(path, path, Stat(1, 1, 1, 1, 1), "hash", "cutting", {}, problem=fault)


def raising(error: Exception) -> Callable[[], object]:
    def answer() -> object:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("a filter", remedy="another"), 400),
        (RejectedByModel("too long"), 400),
        (RecipeMismatch("another model"), 409),
        (AuthenticationFailed("the key"), 502),
        (CollectionLost("deleted"), 503),
        (ServiceUnavailable("away"), 503),
        (RuntimeError("a secret that nobody is told"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_is_told_with_its_remedy_and_a_fitting_status(live: Live, error: Exception, status: int) -> None:
    live.come_up([], Answering(raising(error)))
    transport = httpx.ASGITransport(application_of(live, Streams()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answered = await client.post("/api/search", json={"text": "x"})
    assert answered.status_code == status
    assert answered.json()["error"]
    assert "secret" not in answered.text


async def test_who_asks_is_told_when_to_come_back(live: Live, client: httpx.AsyncClient) -> None:
    error = ServiceUnavailable("away", remedy="wait", retry_after_seconds=12.4)
    live.come_up([], Answering(raising(error)))
    answered = await client.post("/api/search", json={"text": "x"})
    assert (answered.headers["retry-after"], answered.json()) == ("12", {"error": "away", "remedy": "wait"})


async def test_nothing_can_be_asked_before_chroma_is_reached_while_it_is_rebuilt_and_at_the_end(
    live: Live, client: httpx.AsyncClient
) -> None:
    async def asked() -> int:
        return (await client.post("/api/search", json={"text": "x"})).status_code

    assert await asked() == 503
    live.is_rebuilding = True
    assert await asked() == 409
    live.is_rebuilding = False
    live.come_up([], Answering(list))
    assert await asked() == 200
    live.stop.set()
    assert await asked() == 503
    assert (await client.get("/readyz")).json() == {"ready": False, "faults": ["it is ending"]}


@pytest.mark.usefixtures("ledgers")
async def test_what_is_tried_again_is_named_as_it_is_told_whatever_lies_in_the_file_system(
    client: httpx.AsyncClient, settings: Settings, tmp_path: Path
) -> None:
    first = settings.each()[0]
    (tmp_path / "first-b.txt").write_bytes(b"")  # where the daemon runs, and no document
    with closing(SqliteLedger(first.data_dir / first.ledger_file)) as ledger:
        odd = {"id-1": "bad\udcff/b.txt", "id-2": "é\udcff.txt"}
        ledger.mark([replace(_entry(id_, is_bad=True), path=path) for id_, path in odd.items()])
    told = [each["path"] for each in (await client.get("/api/problems")).json()]
    assert "bad\\xff/b.txt" in told
    for path in (*told, "bad\\xff", "bad\\xff/"):
        assert len((await client.post("/api/retry", json={"paths": [path]})).json()["queued"]) == 1, path
    for path in ("x" * 5_000, ".", "..", str(first.watch_dir.resolve() / "first-b.txt")):
        refused = await client.post("/api/retry", json={"paths": [path]})
        assert (refused.status_code, refused.json()["remedy"]) == (400, "`ingestor problems` lists them"), path


async def test_a_ledger_that_is_locked_holds_up_a_few_retries_and_nobody_else(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()

    def wait(*_: object) -> list[str]:
        is_over.wait()
        return []

    monkeypatch.setattr(api, "queue_again", wait)
    asked = [asyncio.create_task(client.post("/api/retry", json={})) for _ in range(100)]
    try:
        async with asyncio.timeout(10):
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/api/problems")).status_code == 200
            while sum(each.done() for each in asked) < len(asked) - bounds.MAX_RETRIES:
                await asyncio.sleep(0.01)
    finally:
        is_over.set()
    answers = [await each for each in asked]
    assert [each.status_code for each in answers].count(200) == bounds.MAX_RETRIES
    assert {each.status_code for each in answers} == {200, 429}


async def test_searches_at_once_are_bounded_and_places_are_given_back(
    live: Live, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "searches", Bound(1, "searches"))
    answers, begun = asyncio.Event(), asyncio.Event()

    def begin() -> object:
        begun.set()
        return answers

    live.come_up([], Answering(begin))
    first = asyncio.create_task(client.post("/api/search", json={"text": "x"}))
    await begun.wait()
    refused = await client.post("/api/search", json={"text": "x"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    answers.set()
    assert (await first).status_code == 200
    assert (await client.post("/api/search", json={"text": "x"})).status_code == 200


@pytest.mark.usefixtures("ledgers")
async def test_documents_of_several_sources_are_one_list_in_pages(client: httpx.AsyncClient) -> None:
    async def page(**wanted: object) -> tuple[int, list[str]]:
        found = (await client.get("/api/documents", params={key: str(value) for key, value in wanted.items()})).json()
        assert all(each["path"].startswith(each["source"]) for each in found["documents"])
        return found["total"], [each["path"] for each in found["documents"]]

    assert await page(limit=2, offset=2) == (6, ["first-c.txt", "second-a.txt"])
    assert await page(limit=9, offset=5) == (6, ["second-c.txt"])
    assert await page(offset=6) == (6, [])
    assert await page(source="second", state="problem") == (1, ["second-b.txt"])
    assert (await client.get("/api/documents", params={"source": "third"})).status_code == 400


@pytest.mark.usefixtures("ledgers")
async def test_a_ledger_that_is_damaged_is_told_and_the_daemon_is_not_ready(
    live: Live, settings: Settings, client: httpx.AsyncClient
) -> None:
    live.come_up([], Answering(list))
    assert (await client.get("/readyz")).status_code == 200
    (settings.data_dir / settings.each()[1].ledger_file).write_bytes(b"no ledger" * 1_000)
    told = await client.get("/readyz")
    assert told.status_code == 503
    assert "damaged" in told.json()["faults"][0]
    assert (await client.get("/api/documents")).status_code == 500
    assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
async def test_who_watches_from_outside_may_ask_for_the_head_alone(path: str, client: httpx.AsyncClient) -> None:
    head, whole = await client.head(path), await client.get(path)
    assert (head.status_code, head.headers["content-type"]) == (whole.status_code, whole.headers["content-type"])
    assert "head" not in (await client.get("/openapi.json")).json()["paths"].get(path, {})


async def test_where_there_are_several_collections_a_search_names_one(settings: Settings) -> None:
    sources: Any = [SimpleNamespace(settings=each) for each in settings.each()]
    searchers = Searchers(sources, sources, None)
    assert searchers.collections == ["of-first", "of-second"]
    for wrong in ("", "nobody"):
        with pytest.raises(ConfigError, match=r"several|'nobody'") as refused:
            await searchers.of(wrong)
        assert "of-first, of-second" in refused.value.sentence
