"""What embedding may cost in a day: when it is spent, the daemon waits, says so, and loses nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checker import Row
from tests.daemon import Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 64
FILES = 60
TOKENS_PER_DAY = 2_000
LIMIT = "INGESTOR_EMBEDDING__MAX_TOKENS_PER_DAY"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    settings = provider_settings(server, EMBEDDING__MAX_BATCH_INPUTS=4)
    with Site(tmp_path, settings | {LIMIT: str(TOKENS_PER_DAY)}) as made:
        for number in range(FILES):
            file = made.folder / f"text-{number}.txt"
            file.write_text(f"File number {number} tells of itself. " + "It has words. " * 20, encoding="utf-8")
        yield made


def billed_tokens(server: EmbeddingServer) -> int:
    """With those of the text by which a changed model is noticed."""
    return server.counters.tokens + server.sample_tokens


def test_the_daemon_waits_for_the_next_day_says_so_and_loses_nothing(site: Site, server: EmbeddingServer) -> None:
    daemon = site.start("run").wait_ready()

    def told() -> dict[str, Any]:
        status: dict[str, Any] = site.command("status", "--json").json()
        return status

    eventually(lambda: "in a day is spent" in str(told()["outage"]) and not told()["in_flight"], daemon.log)
    status = told()
    assert 0 < server.texts < FILES
    assert billed_tokens(server) <= TOKENS_PER_DAY
    assert status["cost"] == {
        "amount": None,
        "currency": "",
        "tokens_today": billed_tokens(server),
        "tokens_per_day": TOKENS_PER_DAY,
    }
    assert status["documents"] == server.texts
    assert status["queued"] == FILES - server.texts
    assert status["problems"] == 0
    (wait,) = status["waits"]
    assert (wait["service"], wait["documents"]) == ("the next day's budget", FILES - server.texts)
    assert site.command("problems").code == 4
    shown = site.command("status").out
    assert f"{billed_tokens(server)} of {TOKENS_PER_DAY} tokens" in shown
    assert "embedding.max_tokens_per_day" in shown

    # What needs no model goes on: a deletion, a rename and a copy of what is known.
    known = {row.source for row in wait_for(site, server.texts)}
    first, second, third, *_ = sorted(known)
    (site.folder / first).unlink()
    (site.folder / second).rename(site.folder / "renamed.txt")
    (site.folder / "copy.txt").write_bytes((site.folder / third).read_bytes())
    wanted = known - {first, second} | {"renamed.txt", "copy.txt"}
    with site.reading() as reading:
        eventually(lambda: {row.source for row in reading.rows()} == wanted, daemon.log)
    assert billed_tokens(server) <= TOKENS_PER_DAY

    # The next process knows what this day has cost, and spends at most the little that is left.
    paid = server.requests
    daemon.kill()
    daemon = site.start("run").wait_ready()
    eventually(lambda: "in a day is spent" in str(told()["outage"]), daemon.log)
    assert daemon.terminate() == 0
    assert site.command("sync").code == 4
    assert server.requests <= paid + 1
    assert billed_tokens(server) <= TOKENS_PER_DAY

    site.settings.pop(LIMIT)
    assert site.sync()["documents"]["problems"] == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    assert server.counters.repeated_texts == 0
    assert server.texts == FILES


def wait_for(site: Site, count: int) -> list[Row]:
    with site.reading() as reading:
        eventually(lambda: len(reading.rows()) == count, lambda: "records are missing")
        return reading.rows()


def test_a_limit_in_money_is_one_of_tokens_at_the_price(site: Site, server: EmbeddingServer) -> None:
    del site.settings[LIMIT]
    money = {
        "INGESTOR_EMBEDDING__MAX_COST_PER_DAY": "0.002",
        "INGESTOR_EMBEDDING__PRICE_PER_MILLION_TOKENS": "2",
    }
    assert site.command("sync", **money).code == 4
    assert 0 < billed_tokens(server) <= 1_000
    cost = site.command("status", "--json", **money).json()["cost"]
    assert cost["tokens_per_day"] == 1_000
    assert cost["amount"] == pytest.approx(billed_tokens(server) * 2 / 1_000_000)


def test_a_limit_in_money_needs_a_price(site: Site) -> None:
    done = site.command("sync", INGESTOR_EMBEDDING__MAX_COST_PER_DAY="1")
    assert done.code == 2
    assert "embedding.price_per_million_tokens" in done.err
