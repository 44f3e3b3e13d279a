"""What a daemon tells Prometheus: after known events the counters say exactly what has happened."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from ingestor.metrics.meter import FAMILIES, SHARED
from tests.daemon import HTTP, KEY, Daemon, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer, Fault, FaultKind
from tests.scrape import Scraped, scrape

PROCESSED = "documents_processed_total"
WORDS = "words that are enough for a chunk of their own. "


class Watched:
    """A daemon that is scraped again and again."""

    def __init__(self, site: Site, daemon: Daemon, server: EmbeddingServer, token: str = "") -> None:
        self.site = site
        self.folder = site.folder
        self.daemon = daemon
        self.server = server
        self.url = daemon.http_url()
        self._token = token

    def scrape(self) -> Scraped:
        return scrape(self.url, self._token)

    def until(self, holds: Callable[[Scraped], object]) -> Scraped:
        """Scrape until something holds, nothing is queued, and the ledger was counted since; returns what is told."""
        told, since_seconds = self.scrape(), float("inf")

        def is_so() -> bool:
            nonlocal told, since_seconds
            told = self.scrape()
            if not holds(told):
                return False
            since_seconds = min(since_seconds, time.time())
            queued = [value for (name, _), value in told.samples.items() if name == "ingestor_queue_changes"]
            return (told.value("last_count_timestamp_seconds") or 0) > since_seconds and not any(queued)

        eventually(is_so, lambda: f"{told.text}\n{self.daemon.log()[-2_000:]}")
        return told

    def after(self, before: Scraped, outcome: str, count: int = 1) -> Scraped:
        """Scrape until so many more documents had an outcome."""
        wanted = (before.value(PROCESSED, outcome=outcome) or 0) + count
        return self.until(lambda told: told.value(PROCESSED, outcome=outcome) == wanted)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    root = tmp_path_factory.mktemp("metrics")
    settings = {"INGESTOR_WATCH__MAX_DELETE_DOCUMENTS": "3", "INGESTOR_EMBEDDING__PRICE_PER_MILLION_TOKENS": "2.5"}
    with EmbeddingServer(dimensions=64) as server, Site(root, provider_settings(server) | HTTP | settings) as site:
        for name in ("one.txt", "two.txt"):
            (site.folder / name).write_text(f"{name} {WORDS}", encoding="utf-8")
        watched = Watched(site, site.start("run").wait_ready(), server)
        watched.until(lambda told: told.value(PROCESSED, outcome="added") == 2)
        yield watched


def test_what_was_there_at_the_start_is_backfill_and_costs_what_the_provider_has_counted(watched: Watched) -> None:
    told = watched.scrape()
    assert told.value("ready") == told.value("watch_up") == told.value("ledger_up") == 1
    assert told.value("watch_mode", mode="inotify") == 1
    assert (told.value("documents"), told.value("chunks")) == (2, 2)
    assert told.value("file_to_searchable_seconds_count", priority="backfill") == 2
    assert told.value("file_to_searchable_seconds_count", priority="live") == 0
    assert told.value("last_reconcile_paths", kind="present") == 2
    assert told.value("reconcile_seconds_count") == 1
    server = watched.server
    tokens = server.counters.tokens + server.sample_tokens
    assert server.samples == 1
    assert told.value("embedding_requests_total") == server.requests + 1
    assert told.value("embedding_texts_total") == server.texts + 1 == 2 + 1
    assert told.value("embedding_tokens_total") == told.value("embedding_today_tokens") == tokens
    assert told.value("embedding_cost_total") == pytest.approx(tokens * 2.5 / 1_000_000)
    assert told.value("vector_store_lookups_total") == 2
    assert told.value("source_info", collection="documents", provider="openai", model="unheard-of-model") == 1


def test_a_file_that_comes_is_edited_copied_renamed_and_goes_is_told_step_by_step(watched: Watched) -> None:
    file = watched.folder / "live.txt"
    counted = ("chunks_processed_total", "file_to_searchable_seconds_count", "vector_store_hits_total")
    names = (PROCESSED, "documents", "chunks", "tombstones", *counted)
    before = watched.scrape()
    file.write_text(f"first {WORDS}", encoding="utf-8")
    added = watched.after(before, "added")
    assert added.since(before, *names) == {
        f"{PROCESSED} added": 1,
        "chunks_processed_total embedded": 1,
        "documents": 1,
        "chunks": 1,
        "file_to_searchable_seconds_count live": 1,
    }
    assert added.since(before, "hints_total").get("hints_total closed", 0) >= 1
    file.write_text(f"second {WORDS}", encoding="utf-8")
    changed = watched.after(added, "changed")
    assert changed.since(added, *names) == {
        f"{PROCESSED} changed": 1,
        "chunks_processed_total embedded": 1,
        "chunks_processed_total dropped": 1,
        "file_to_searchable_seconds_count live": 1,
        "tombstones": 1,
    }
    shutil.copyfile(file, watched.folder / "copy.txt")
    copied = watched.after(changed, "added")
    assert copied.since(changed, *names) == {
        f"{PROCESSED} added": 1,
        "chunks_processed_total reused": 1,
        "documents": 1,
        "chunks": 1,
        "file_to_searchable_seconds_count live": 1,
        "vector_store_hits_total": 1,
    }
    file.rename(watched.folder / "renamed.txt")
    renamed = watched.after(copied, "renamed")
    assert renamed.since(copied, *names) == {
        f"{PROCESSED} renamed": 1,
        "chunks_processed_total retagged": 1,
        "file_to_searchable_seconds_count live": 1,
    }
    (watched.folder / "copy.txt").unlink()
    (watched.folder / "renamed.txt").unlink()
    deleted = watched.after(renamed, "deleted", 2)
    assert deleted.since(renamed, *names) == {
        f"{PROCESSED} deleted": 2,
        "chunks_processed_total dropped": 2,
        "documents": -2,
        "chunks": -2,
        "file_to_searchable_seconds_count gone": 2,
        "tombstones": 2,
    }


def test_a_file_that_cannot_be_indexed_is_a_problem_by_its_kind_until_it_goes(watched: Watched) -> None:
    before = watched.scrape()
    file = watched.folder / "binary.txt"
    file.write_bytes(b"\x00\x01\x02" * 50)
    told = watched.after(before, "problem")
    assert told.since(before, "problems", "documents") == {"problems UndecodableDocument": 1}
    file.unlink()
    watched.until(lambda told: told.value("problems", kind="UndecodableDocument") == 0)


def test_a_request_that_fails_is_told_by_its_reason_and_made_again(watched: Watched) -> None:
    before = watched.scrape()
    watched.server.inject(
        Fault(FaultKind.STATUS, status=500), Fault(FaultKind.STATUS, status=429, headers={"retry-after": "0"})
    )
    (watched.folder / "unlucky.txt").write_text(f"unlucky {WORDS}", encoding="utf-8")
    told = watched.after(before, "added")
    assert told.since(
        before, "embedding_failures_total", "embedding_requests_total", "embedding_call_seconds_count"
    ) == {
        "embedding_failures_total ServiceUnavailable": 1,
        "embedding_failures_total RateLimited": 1,
        "embedding_requests_total": 1,
        "embedding_call_seconds_count": 3,
    }
    assert told.value("embedding_circuit_open") == 0


def test_a_chroma_that_dies_is_told_by_its_errors_and_documents_that_wait_for_it(watched: Watched) -> None:
    before = watched.scrape()
    for pid in watched.site.servers():
        os.kill(pid, signal.SIGKILL)
    (watched.folder / "while-away.txt").write_text(f"while away {WORDS}", encoding="utf-8")
    # Its first write has left an entry that says itself that it is unfinished.
    told = watched.after(before, "changed")
    changed = told.since(before, "chroma_errors_total", "document_retries_total", "chroma_call_seconds_count")
    assert changed["chroma_errors_total ChromaUnavailable"] >= 1
    assert changed["document_retries_total ChromaUnavailable"] >= 1
    assert changed["chroma_call_seconds_count add"] >= 2
    assert told.value("chroma_failing_seconds") == 0


def test_deletions_that_are_held_back_are_told_until_they_are_approved(watched: Watched) -> None:
    many = watched.folder / "many"
    before = watched.scrape()
    many.mkdir()
    for number in range(8):
        (many / f"{number}.txt").write_text(f"number {number} {WORDS}", encoding="utf-8")
    before = watched.after(before, "added", 8)
    many.rename(watched.site.root / "elsewhere")
    held = watched.until(lambda told: told.value("held_deletions") == 8)
    assert held.since(before, PROCESSED, "documents") == {}
    assert watched.site.command("approve").code == 0
    told = watched.after(before, "deleted", 8)
    assert told.value("held_deletions") == 0
    # Whichever comes first: the approval, or the watch, whose idea of the folders a folder that moves out has upset.
    compared = told.since(before, "rescans_total", "watch_restarts_total")
    assert compared
    assert compared.keys() <= {"rescans_total approved", "watch_restarts_total folders"}


def test_a_search_is_measured(watched: Watched) -> None:
    before = watched.scrape()
    answer = httpx.post(f"{watched.url}/api/search", json={"text": "one.txt"}, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert watched.scrape().value("chroma_call_seconds_count", operation="search") == 1
    assert before.value("chroma_call_seconds_count", operation="search") == 0


def test_every_metric_is_there_and_promtool_has_nothing_against_them(watched: Watched) -> None:
    told = watched.scrape()
    typed = {line.split()[2] for line in told.text.splitlines() if line.startswith("# TYPE ingestor_")}
    assert typed == {*SHARED, *(family.name for family in FAMILIES)}
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=told.text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_no_label_has_a_path(watched: Watched) -> None:
    values = {value for _, labels in watched.scrape().samples for _, value in labels}
    assert not [value for value in values if ".txt" in value or value.startswith("/")]


SEVERAL = """
[[sources]]
folder = "notes"

[[sources]]
folder = "papers"
collection = "papers"
"""
OF_SEVERAL = {
    "INGESTOR_HTTP__TOKEN": KEY,
    "INGESTOR_EMBEDDING__PRICE_PER_MILLION_TOKENS": "3",
    "INGESTOR_EMBEDDING__MAX_TOKENS_PER_DAY": "120",
    "INGESTOR_WATCH__RESCAN_SECONDS": "2",
}


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Watched]:
    """A daemon of two sources with one model; a file of the second has another name, where nobody watches."""
    (tmp_path / "ingestor.toml").write_text(SEVERAL, encoding="utf-8")
    for folder, count in (("notes", 1), ("papers", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number}.txt").write_text(f"{folder} {number}", encoding="utf-8")
    (tmp_path / "outside.txt").write_text("first", encoding="utf-8")
    os.link(tmp_path / "outside.txt", tmp_path / "papers" / "linked.txt")
    with EmbeddingServer(dimensions=64) as server:
        settings = provider_settings(server) | HTTP | OF_SEVERAL
        with Site(tmp_path, settings) as site:
            yield Watched(site, site.start("run").wait_ready(), server, KEY)


def test_sources_are_told_apart_and_what_they_share_is_told_by_the_first_of_them(several: Watched) -> None:
    root, first, second = several.site.root, "notes", "papers"
    assert httpx.get(f"{several.url}/metrics", timeout=30, trust_env=False).status_code == 401

    def documents(told: Scraped) -> list[float | None]:
        return [told.value("documents", source=source) for source in (first, second)]

    told = several.until(lambda told: documents(told) == [1, 3])
    assert told.value("source_info", source=second, collection=second, provider="openai", model="unheard-of-model")
    assert told.value("embedding_texts_total", source=first) == 4 + several.server.samples
    assert told.value("embedding_texts_total", source=second) is None
    assert told.value("embedding_cost_total", source=first) == pytest.approx(
        (several.server.counters.tokens + several.server.sample_tokens) * 3e-6
    )
    assert told.value("embedding_day_limit_tokens", source=first) == 120
    assert told.value("embedding_day_spent", source=first) == 0
    assert told.value("drift_documents_total", source=second) == 0

    # Written by its other name: no event comes, and only a comparison that is due finds it.
    (root / "outside.txt").write_text("second, and longer", encoding="utf-8")
    told = several.until(lambda told: told.value("drift_documents_total", source=second) == 1)
    assert told.value("drift_documents_total", source=first) == 0

    (root / first / "dear.txt").write_text("words " * 400, encoding="utf-8")
    postponed = {"source": first, "reason": "BudgetSpent"}
    eventually(lambda: several.scrape().value("document_retries_total", **postponed) == 1, several.daemon.log)
    told = several.scrape()
    assert told.value("embedding_day_spent", source=first) == 1
