"""A daemon that is asked by HTTP, beside the commands that tell the same."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingestor.language import translated
from tests.daemon import HTTP, Daemon, Site, eventually, free_port, provider_settings
from tests.embedding_server import EmbeddingServer


@dataclass(frozen=True, slots=True)
class Served:
    site: Site
    daemon: Daemon
    client: httpx.Client

    def get(self, path: str, **parameters: Any) -> Any:  # noqa: ANN401 - whatever the API answers
        answer = self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **body: Any) -> httpx.Response:  # noqa: ANN401 - whatever the API takes
        return self.client.post(path, json=body)

    def found(self, text: str) -> list[str]:
        return [hit["source"] for hit in self.post("/api/search", text=text).json()["hits"]]

    def wait_idle(self) -> None:
        def is_idle() -> bool:
            status = self.get("/api/status")
            return not (status["queued"] or status["in_flight"] or status["is_behind"])

        eventually(is_idle, lambda: str(self.get("/api/status")))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("http")
    with EmbeddingServer(dimensions=64) as server, Site(root, provider_settings(server) | HTTP) as site:
        (site.folder / "notes").mkdir()
        (site.folder / "notes" / "Whale.md").write_text("# Whales\n\nThe blue whale sings.\n", encoding="utf-8")
        (site.folder / "notes" / "stone.txt").write_text("Granite is a stone.\n", encoding="utf-8")
        (site.folder / "notes2.txt").write_text("Not in the folder notes.\n", encoding="utf-8")
        (site.folder / "binary.txt").write_bytes(b"\x00\x01\x02" * 50)
        daemon = site.start("run")
        with httpx.Client(base_url=daemon.http_url(), timeout=30, trust_env=False) as client:
            found = Served(site, daemon, client)
            daemon.wait_ready()
            found.wait_idle()
            yield found


def test_the_status_is_that_of_the_command_which_tells_the_url(served: Served) -> None:
    told = served.get("/api/status")
    assert told == served.site.command("status", "--json").json()
    assert told["daemon"]["http_url"] == served.daemon.http_url()
    assert served.daemon.http_url() in served.site.command("status").out


def test_a_daemon_that_has_compared_its_folder_is_alive_and_ready(served: Served) -> None:
    assert served.get("/healthz") == {"status": "ok"}
    assert served.get("/readyz") == {"ready": True, "faults": []}


def test_documents_are_listed_by_folder_type_state_and_part_of_the_path(served: Served) -> None:
    def paths(**wanted: object) -> list[str]:
        found = served.get("/api/documents", **wanted)
        assert found["total"] == len(found["documents"])
        return [each["path"] for each in found["documents"]]

    assert paths() == ["binary.txt", "notes/Whale.md", "notes/stone.txt", "notes2.txt"]
    assert paths(folder="notes/") == ["notes/Whale.md", "notes/stone.txt"]
    assert paths(type="text/markdown") == paths(text="whale") == ["notes/Whale.md"]
    assert paths(state="problem") == ["binary.txt"]
    assert paths(state="indexed", type="text/plain") == ["notes/stone.txt", "notes2.txt"]
    assert paths(state="queued") == paths(text="%") == paths(folder="note") == []


def test_a_document_is_told_with_all_that_is_known_of_it(served: Served) -> None:
    (found,) = served.get("/api/documents", text="Whale")["documents"]
    file = served.site.folder / "notes" / "Whale.md"
    assert re.fullmatch(r"[0-9a-f]{8}\.[0-9a-f]{32}", found.pop("document_id"))
    assert found.pop("modified_seconds") == pytest.approx(file.stat().st_mtime)
    assert found == {
        "source": "",
        "path": "notes/Whale.md",
        "chunks": 1,
        "size_bytes": file.stat().st_size,
        "file_type": "text/markdown",
        "waits_for": "",
        "state": "indexed",
        "problem": None,
    }


def test_pages_are_told_with_the_number_of_all(served: Served) -> None:
    second = served.get("/api/documents", limit=2, offset=2)
    assert (second["total"], [each["path"] for each in second["documents"]]) == (4, ["notes/stone.txt", "notes2.txt"])


def test_problems_are_those_of_the_command_and_tried_again(served: Served) -> None:
    told = served.get("/api/problems")
    assert told == served.site.command("problems", "--json").json()
    assert [each["path"] for each in told] == ["binary.txt"]
    assert served.post("/api/retry", paths=["notes"]).status_code == 400
    before = len(served.daemon.events("document.problem"))
    assert served.post("/api/retry").json() == {"queued": ["binary.txt"]}
    eventually(lambda: len(served.daemon.events("document.problem")) > before, served.daemon.log)


def test_reasons_of_events_are_told_in_the_language_that_is_asked_for(served: Served) -> None:
    reasons: dict[str, str] = {}
    for language in ("en", "zh"):
        with served.client.stream("GET", "/api/events", params={"lang": language}) as stream:
            told = next(line for line in stream.iter_lines() if '"document.problem"' in line)
        reasons[language] = json.loads(told.removeprefix("data: "))["reason"]
    assert reasons["en"] == served.get("/api/problems")[0]["reason"]
    assert reasons["zh"] == translated(reasons["en"], "zh") != reasons["en"]
    assert served.client.get("/api/events", params={"lang": "fr"}).status_code == 400


def test_a_search_finds_what_the_command_finds(served: Served) -> None:
    answer = served.post("/api/search", text="The blue whale sings.", n=2)
    asked = served.site.command("query", "The blue whale sings.", "-n", "2", "--json")
    assert answer.json() == {"hits": asked.json()}
    hits = served.post("/api/search", text="whale", where={"file_name": "stone.txt"}).json()["hits"]
    assert [hit["source"] for hit in hits] == ["notes/stone.txt"]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"text": "x", "where": {"a": {"$near": 1}}}, id="a filter that Chroma refuses"),
        pytest.param({"text": "x", "where": {"$and": [[[[[[[[[[1]]]]]]]]]]}}, id="a filter that is too deep"),
        pytest.param({"text": "x", "n": 101}, id="too many hits"),
        pytest.param({"text": ""}, id="no text"),
        pytest.param({"text": "x" * 8_001}, id="a long text"),
        pytest.param({"text": "x", "collection": "nobody"}, id="a collection that there is not"),
        pytest.param({"text": "x", "limit": 3}, id="a name that nobody knows"),
    ],
)
def test_a_search_that_cannot_be_is_told_why(served: Served, wrong: dict[str, Any]) -> None:
    answer = served.post("/api/search", **wrong)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_bytes_that_are_no_json_or_no_text_are_told(served: Served) -> None:
    for body in (b"{", b'{"text": "\\ud800"}', b'{"text": "x", "where": {"a": "\\ud800"}}', b"[" * 30_000):
        answer = served.client.post("/api/search", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text
    assert served.post("/api/retry", paths=["a\0b"]).status_code == 400


def test_what_follows_an_edit_is_found_at_once_by_the_searcher_that_was_open(served: Served) -> None:
    file = served.site.folder / "later.txt"
    file.write_text("Quokkas smile.", encoding="utf-8")
    eventually(lambda: "later.txt" in served.found("Quokkas smile."), served.daemon.log)
    file.unlink()
    eventually(lambda: "later.txt" not in served.found("Quokkas smile."), served.daemon.log)


def test_a_daemon_is_alive_and_not_ready_while_chroma_is_away_and_ends_at_once(tmp_path: Path) -> None:
    elsewhere = {"INGESTOR_CHROMA__MODE": "http", "INGESTOR_CHROMA__PORT": str(free_port())}
    with EmbeddingServer(dimensions=8) as server, Site(tmp_path, provider_settings(server) | HTTP | elsewhere) as site:
        daemon = site.start("run")
        url = daemon.http_url()
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            assert client.get("/healthz").status_code == 200
            eventually(lambda: "Chroma" in client.get("/readyz").text, daemon.log)
            assert client.get("/readyz").status_code == 503
            assert client.post("/api/search", json={"text": "x"}).status_code == 503
            assert client.get("/api/documents").json() == {"total": 0, "documents": []}
            with client.stream("GET", "/api/events") as stream:
                lines = stream.iter_lines()
                assert any('"chroma.unreachable"' in line for line in lines)
                assert daemon.terminate() == 0
                assert not [line for line in lines if "error" in line and "chroma" not in line]


def test_a_port_that_is_taken_is_told_with_its_remedy(served: Served, tmp_path: Path) -> None:
    taken = {"INGESTOR_HTTP__PORT": served.daemon.http_url().rpartition(":")[2]}
    with Site(tmp_path, HTTP | taken) as site:
        done = site.command("run")
    assert done.code == 2
    assert "is taken by another program" in done.err
    assert "http.port" in done.err
    assert "http.enabled" in done.err


def test_a_host_that_others_can_reach_needs_a_token(tmp_path: Path) -> None:
    with Site(tmp_path, HTTP | {"INGESTOR_HTTP__HOST": "0.0.0.0"}) as site:  # noqa: S104 - to be refused
        done = site.command("run")
    assert done.code == 2
    assert "INGESTOR_HTTP__TOKEN" in done.err


def test_what_happens_is_told_whatever_is_printed_and_an_open_stream_keeps_no_daemon(tmp_path: Path) -> None:
    quiet = {"INGESTOR_LOG__LEVEL": "warning"}
    with EmbeddingServer(dimensions=8) as server, Site(tmp_path, provider_settings(server) | HTTP | quiet) as site:
        (site.folder / "a.txt").write_text("Told.", encoding="utf-8")
        daemon = site.start("run")
        told = site.data_dir / "instance.json"
        eventually(lambda: told.is_file() and "http://" in told.read_text(encoding="utf-8"), daemon.log)
        url = json.loads(told.read_text(encoding="utf-8"))["http_url"]
        with httpx.stream("GET", f"{url}/api/events", timeout=60, trust_env=False) as stream:
            lines = stream.iter_lines()
            assert any('"document.synced"' in line and '"a.txt"' in line for line in lines)
            daemon.process.terminate()
            assert any('"daemon.stopping"' in line for line in lines)
            assert daemon.terminate() == 0
        assert not daemon.events("document.synced")


def test_the_api_is_described_as_it_answers(served: Served) -> None:
    described = served.get("/openapi.json")
    assert set(described["paths"]["/api/search"]["post"]["responses"]) == {
        "200",
        "400",
        "401",
        "409",
        "413",
        "415",
        "429",
        "502",
        "503",
    }
    assert set(described["paths"]["/api/picture"]["get"]["responses"]) == {"200", "400", "401", "409", "503"}
    assert set(described["paths"]["/api/events"]["get"]["responses"]) == {"200", "400", "401", "429"}
    assert set(described["paths"]["/metrics"]["get"]["responses"]) == {"200", "401"}
    assert "DocumentRow" in described["components"]["schemas"]
    page = served.client.get("/docs")
    for path in described["paths"]:
        assert path in page.text
    for name in described["components"]["schemas"]:
        assert f'id="{name}"' in page.text
    assert "//" not in page.text.replace("<!doctype", ""), "nothing comes from elsewhere"
    assert "<script" not in page.text


def test_chroma_inside_the_daemon_is_asked_by_the_daemons_own_client(tmp_path: Path) -> None:
    inside = {"INGESTOR_CHROMA__MODE": "persistent"}
    with EmbeddingServer(dimensions=8) as server, Site(tmp_path, provider_settings(server) | HTTP | inside) as site:
        (site.folder / "a.txt").write_text("Told.", encoding="utf-8")
        daemon = site.start("run")
        with httpx.Client(base_url=daemon.http_url(), timeout=60, trust_env=False) as client:
            found = Served(site, daemon, client)
            daemon.wait_ready()
            eventually(lambda: found.found("Told.") == ["a.txt"], daemon.log)
            (site.folder / "b.txt").write_text("Told later.", encoding="utf-8")
            eventually(lambda: found.found("Told later.")[:1] == ["b.txt"], daemon.log)
        assert daemon.terminate() == 0
