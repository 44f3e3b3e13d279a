"""The meter: what is told when ledgers and disks do not answer, and that nobody waits for them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.ledger_census import census_of
from ingestor.engine.daemon import Line
from ingestor.metrics import meter as meter_module
from ingestor.metrics.family import Followed
from ingestor.metrics.meter import Meter, Storage
from tests.doubles_watch import ScriptedWatch
from tests.world import World


async def told(meter: Meter) -> dict[str, float]:
    """The samples without labels, but for an empty source."""
    text, _ = await meter.exposition()
    return {
        sample.name.removeprefix("ingestor_"): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not any(sample.labels.values())
    }


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[list[Followed]]:
    """One source, whose ledger is at the path that it names."""
    pipeline = World().pipeline()
    watch = ScriptedWatch()
    line = Line(pipeline, pipeline.follower(watch, quiet_seconds=1.0, rules_file=".ingestorignore"), watch)
    ledger = tmp_path / "ledger.sqlite3"
    SqliteLedger(ledger).close()
    yield [Followed(line, ledger, "documents", "double", "hash", price_per_million_tokens=None, currency="")]
    await pipeline.close()


def meter_of(sources: Sequence[Followed], root: Path) -> Meter:
    storage = Storage({"data": root, "chroma": root / "missing"}, root / "vectors.sqlite3", max_vectors_bytes=7)
    return Meter(lambda: sources, lambda: False, storage)


async def test_before_there_is_a_source_the_daemon_is_told_not_to_be_ready(tmp_path: Path) -> None:
    found = await told(meter_of([], tmp_path))
    assert found["ready"] == 0
    assert found["vector_store_max_bytes"] == 7
    assert "vector_store_bytes" not in found
    assert "documents" not in found


async def test_what_a_price_and_a_limit_are_needed_for_is_absent_without_them(
    sources: list[Followed], tmp_path: Path
) -> None:
    found = await told(meter_of(sources, tmp_path))
    assert found["ledger_up"] == 1
    assert found["documents"] == found["embedding_tokens_total"] == 0
    assert not {"embedding_cost_total", "embedding_day_limit_tokens"} & found.keys()


async def test_a_ledger_that_is_away_takes_only_its_own_numbers_with_it(
    sources: list[Followed], tmp_path: Path
) -> None:
    sources[0].ledger.unlink()
    sources[0].line.pipeline.tally.drift = 3
    found = await told(meter_of(sources, tmp_path))
    assert found["ledger_up"] == 0
    assert found["drift_documents_total"] == 3
    assert not {"documents", "chunks", "tombstones"} & found.keys()
    assert not sources[0].ledger.exists()


async def test_nobody_waits_for_a_disk_that_hangs_and_it_is_asked_once(
    sources: list[Followed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, released = list[Path](), threading.Event()

    def hanging(path: Path, today: str) -> object:
        asked.append(path)
        released.wait(60)
        return census_of(path, today)

    monkeypatch.setattr(meter_module, "census_of", hanging)
    monkeypatch.setattr(meter_module, "PATIENCE_SECONDS", 0.05)
    meter = meter_of(sources, tmp_path)
    scrapes = await asyncio.gather(*(told(meter) for _ in range(3)))
    assert [scrape["ledger_up"] for scrape in scrapes] == [0, 0, 0]
    assert [scrape["last_count_timestamp_seconds"] for scrape in scrapes] == [0, 0, 0]
    assert len(asked) == 1
    released.set()
    async with asyncio.timeout(30):
        while not (await told(meter))["ledger_up"]:
            await asyncio.sleep(0.01)


async def test_a_count_that_takes_long_is_told_again_for_a_while(
    sources: list[Followed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "COUNTING_SHARE", 1e-9)
    meter = meter_of(sources, tmp_path)
    first = await told(meter)
    with closing(SqliteLedger(sources[0].ledger)) as ledger:
        ledger.set_tombstones(9)
    second = await told(meter)
    assert first["tombstones"] == second["tombstones"] == 0
    assert first["last_count_timestamp_seconds"] == second["last_count_timestamp_seconds"] > 0


async def test_the_form_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    meter = meter_of([], tmp_path)
    _, plain = await meter.exposition()
    text, open_metrics = await meter.exposition("application/openmetrics-text; version=1.0.0")
    assert plain.startswith("text/plain")
    assert open_metrics.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
