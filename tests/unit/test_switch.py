"""A switch of collections, killed just before and just after each of its calls to the outside."""

import resource
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.journal import Journal
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.app.switch import ASIDE_NOTE, Exchange, fields_of, pending, switch_of
from ingestor.core.auditing import forgotten
from ingestor.core.errors import ConfigError, LedgerCorrupt, ServiceUnavailable
from ingestor.core.model import UNKNOWN_STAT, Entry, Outcome, Plan, Usage
from ingestor.core.switching import Swap, Switch
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.settings import Settings
from tests.doubles_catalog import MemoryCatalog
from tests.mortal import Crash, Fate, Mortal

DAY = "2026-11-24"
ONE, TWO = ("ledger",), ("ledger-notes", "ledger-papers")
"""Ledgers of a collection: of the only source, and of two that share it."""


def rebuild_of(stems: Sequence[str]) -> Switch:
    return Switch(
        name="documents",
        serving_id="id-of-documents",
        aside_name="documents-before",
        next_id="id-of-documents-next",
        swaps=tuple(Swap(f"{stem}.sqlite3", f"{stem}.next.sqlite3", f"{stem}.before.sqlite3") for stem in stems),
    )


def compaction_of(stems: Sequence[str]) -> Switch:
    return replace(rebuild_of(stems), swaps=tuple(Swap(f"{stem}.sqlite3") for stem in stems))


def rollback_of(stems: Sequence[str]) -> Switch:
    return Switch(
        name="documents",
        serving_id=REBUILD.next_id,
        aside_name="documents-next",
        next_id=REBUILD.serving_id,
        swaps=tuple(Swap(f"{stem}.sqlite3", f"{stem}.before.sqlite3", f"{stem}.next.sqlite3") for stem in stems),
    )


REBUILD, COMPACTION = rebuild_of(ONE), compaction_of(ONE)
of_one_and_of_two_sources = pytest.mark.parametrize("stems", [ONE, TWO], ids=["one source", "two sources"])


class MortalWriter(Mortal):
    """Dies at what changes something alone: a death at a look is one after what was changed before."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the part has
        return getattr(self._inner, name) if name in {"rows", "note", "read"} else super().__getattr__(name)


class Place:
    """A data folder and a database with a serving collection and one that is to take its place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = MemoryCatalog("documents", "documents-next", "of-somebody-else")
        self.ledgers = LedgerFiles(folder)
        self.journal = Journal(folder / "ledger.switch.json")

    def make_ledger(self, name: str, collection_id: str, path: str) -> None:
        with closing(SqliteLedger(self.folder / name)) as ledger:
            entry = Entry(path, "document", UNKNOWN_STAT, "hash", "cut", {"document:1": "tag"})
            ledger.commit([Plan(path, Outcome.ADDED, None, entry)], [])
            ledger.add_usage(Usage(texts=1, tokens=10), DAY)
            ledger.set_note(COLLECTION_NOTE, collection_id)

    def make_ledgers(self, stems: Sequence[str]) -> None:
        for stem in stems:
            self.make_ledger(f"{stem}.sqlite3", REBUILD.serving_id, f"old of {stem}")
            self.make_ledger(f"{stem}.next.sqlite3", REBUILD.next_id, f"new of {stem}")

    def exchange(self, switch: Switch, fate: Fate | None = None) -> Exchange:
        parts: list[Any] = [self.catalog, self.ledgers, self.journal]
        if fate is not None:
            parts = [MortalWriter(part, fate) for part in parts]
        catalog, ledgers, journal = parts
        return Exchange(switch, cast("ChromaCatalog", catalog), cast("LedgerFiles", ledgers), cast("Journal", journal))

    def carry_out(self, switch: Switch, fate: Fate | None = None) -> None:
        self.journal.write(fields_of(switch))
        self.exchange(switch, fate).carry_out()

    def resume(self) -> None:
        fields = self.journal.read()
        if fields is not None:
            self.exchange(switch_of(fields)).carry_out()

    def paths(self, name: str) -> list[str]:
        with closing(SqliteLedger(self.folder / name)) as ledger:
            return list(ledger.glances())

    def assert_speaks(self, name: str, collection_id: str, path: str) -> None:
        assert (self.told(name), self.paths(name)) == (collection_id, [path])

    def told(self, name: str) -> str | None:
        return self.ledgers.note(name, COLLECTION_NOTE)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.make_ledgers(ONE)
    return made


def assert_rebuilt(place: Place, stems: Sequence[str] = ONE) -> None:
    assert place.catalog.names() == {
        "id-of-documents": "documents-before",
        "id-of-documents-next": "documents",
        "id-of-of-somebody-else": "of-somebody-else",
    }
    for stem in stems:
        place.assert_speaks(f"{stem}.sqlite3", REBUILD.next_id, f"new of {stem}")
        place.assert_speaks(f"{stem}.before.sqlite3", REBUILD.serving_id, f"old of {stem}")
        assert place.ledgers.note(f"{stem}.before.sqlite3", ASIDE_NOTE) == "documents-before"
    left = {path.name for path in place.folder.iterdir()}
    assert left == {f"{stem}{end}" for stem in stems for end in (".sqlite3", ".before.sqlite3")}


@of_one_and_of_two_sources
def test_the_next_collection_and_its_ledgers_take_the_place_of_the_serving_ones(
    tmp_path: Path, stems: Sequence[str]
) -> None:
    place = Place(tmp_path)
    place.make_ledgers(stems)
    place.carry_out(rebuild_of(stems))
    assert_rebuilt(place, stems)


def deaths(folder: Path, stems: Sequence[str], switch: Switch, before: Switch | None = None) -> Iterator[Place]:
    """Places in which a process has died at each of its calls, half of the time before it and half after."""
    template = Place(folder / "template")
    template.folder.mkdir()
    template.make_ledgers(stems)
    if before is not None:
        template.carry_out(before)
    names, dies_at = template.catalog.names(), 0
    while True:
        dies_at += 1
        fate = Fate((dies_at + 1) // 2, is_after=dies_at % 2 == 0)
        place = Place(folder / str(dies_at))
        shutil.copytree(template.folder, place.folder)
        for row in place.catalog.rows():
            place.catalog.force_name(row.id, names[row.id])
        with suppress(Crash):
            place.carry_out(switch, fate)
        if not fate.is_dead:
            assert dies_at > 2 * (2 + len(stems))  # two renames, and each ledger at least
            return
        is_served = "documents" in place.catalog.names().values()
        assert is_served or place.catalog.names()[switch.serving_id] == switch.aside_name
        place.resume()
        yield place


@of_one_and_of_two_sources
def test_a_rebuild_is_completed_whatever_call_its_process_died_at(tmp_path: Path, stems: Sequence[str]) -> None:
    for place in deaths(tmp_path, stems, rebuild_of(stems)):
        assert_rebuilt(place, stems)


@of_one_and_of_two_sources
def test_a_rollback_undoes_a_rebuild_whatever_call_its_process_died_at(tmp_path: Path, stems: Sequence[str]) -> None:
    for place in deaths(tmp_path, stems, rollback_of(stems), before=rebuild_of(stems)):
        assert place.catalog.names()[REBUILD.serving_id] == "documents"
        assert place.catalog.names()[REBUILD.next_id] == "documents-next"
        for stem in stems:
            place.assert_speaks(f"{stem}.sqlite3", REBUILD.serving_id, f"old of {stem}")
            place.assert_speaks(f"{stem}.next.sqlite3", REBUILD.next_id, f"new of {stem}")
            assert not (place.folder / f"{stem}.before.sqlite3").exists()


@of_one_and_of_two_sources
def test_the_same_ledgers_go_on_with_the_next_collection_whatever_call_the_process_died_at(
    tmp_path: Path, stems: Sequence[str]
) -> None:
    for place in deaths(tmp_path, stems, compaction_of(stems)):
        assert place.catalog.names()[COMPACTION.next_id] == "documents"
        assert place.catalog.names()[COMPACTION.serving_id] == "documents-before"
        for stem in stems:
            place.assert_speaks(f"{stem}.sqlite3", COMPACTION.next_id, f"old of {stem}")


def test_a_source_that_is_new_since_a_rebuild_keeps_its_ledger_beside_when_that_is_undone(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.make_ledgers(ONE)
    place.carry_out(REBUILD)
    place.make_ledger("ledger-new.sqlite3", REBUILD.next_id, "new.txt")
    place.carry_out(rollback_of([*ONE, "ledger-new"]))
    # It speaks of the collection that holds its records; its next start finds that another one is served.
    place.assert_speaks("ledger-new.sqlite3", REBUILD.next_id, "new.txt")
    place.assert_speaks("ledger-new.next.sqlite3", REBUILD.next_id, "new.txt")
    place.assert_speaks("ledger.sqlite3", REBUILD.serving_id, "old of ledger")


def test_a_ledger_that_speaks_of_another_collection_is_not_told_that_its_records_are_there(place: Place) -> None:
    place.make_ledger("ledger-other.sqlite3", "id-of-one-that-is-gone", "other.txt")
    place.carry_out(compaction_of([*ONE, "ledger-other"]))
    place.assert_speaks("ledger-other.sqlite3", "id-of-one-that-is-gone", "other.txt")
    place.assert_speaks("ledger.sqlite3", REBUILD.next_id, "old of ledger")


def test_a_journal_that_names_one_ledger_as_of_old_is_read_and_one_that_names_none_is_not() -> None:
    fields = dict(fields_of(REBUILD))
    swap = asdict(REBUILD.swaps[0])
    del fields["swaps"]
    assert switch_of(fields | swap) == REBUILD
    assert switch_of(fields_of(rebuild_of(TWO))) == rebuild_of(TWO)
    for strange in (fields, fields | swap | {"more": ""}, swap, fields | {"swaps": "{"}):
        with pytest.raises(ConfigError, match="another version"):
            switch_of(strange)


def test_the_switch_of_a_collection_is_found_by_each_of_its_sources_and_by_no_other(tmp_path: Path) -> None:
    Journal(tmp_path / "ledger-notes.switch.json").write(fields_of(rebuild_of(TWO)))
    settings = Settings.model_validate({"data_dir": tmp_path})
    for stem in TWO:
        found = pending(settings.varied(ledger_file=f"{stem}.sqlite3", collection="documents"))
        assert found == rebuild_of(TWO)
    assert pending(settings.varied(ledger_file="ledger-notes.sqlite3", collection="papers")) is None


def test_what_was_spent_is_never_forgotten_by_a_switch(place: Place) -> None:
    with closing(SqliteLedger(place.folder / "ledger.sqlite3")) as ledger:
        ledger.add_usage(Usage(texts=4, tokens=40), DAY)
    place.carry_out(REBUILD)
    with closing(SqliteLedger(place.folder / "ledger.sqlite3")) as ledger:
        assert ledger.tokens_on(DAY) == 50
        assert ledger.totals().usage.texts == 5


def test_a_switch_whose_next_collection_is_gone_leaves_the_serving_one(place: Place) -> None:
    (row,) = (row for row in place.catalog.rows() if row.id == REBUILD.next_id)
    place.catalog.delete(row)
    place.carry_out(REBUILD)
    assert place.catalog.names()[REBUILD.serving_id] == "documents"
    assert place.paths("ledger.sqlite3") == ["old of ledger"]
    assert place.journal.read() is None


def test_a_collection_that_has_stepped_aside_for_one_that_is_gone_steps_back(place: Place) -> None:
    serving, following, _ = place.catalog.rows()
    place.catalog.rename(serving, REBUILD.aside_name)
    place.catalog.delete(following)
    place.carry_out(REBUILD)
    assert place.catalog.names()[REBUILD.serving_id] == "documents"
    assert place.journal.read() is None


@pytest.mark.parametrize("records", [0, 3])
def test_a_collection_made_under_the_name_in_between_goes_only_if_it_is_empty(place: Place, records: int) -> None:
    place.catalog.rename(place.catalog.rows()[0], REBUILD.aside_name)
    intruder = place.catalog.put("documents", records)
    if not records:
        place.carry_out(REBUILD)
        assert_rebuilt(place)
        return
    with pytest.raises(ConfigError, match="somebody has put records"):
        place.carry_out(REBUILD)
    assert place.catalog.names()[intruder] == "documents"
    assert place.journal.read() is not None


def test_somebody_who_undoes_every_step_does_not_keep_us_for_ever(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.catalog, "rename", lambda *_: None)
    with pytest.raises(ConfigError, match="undoes its steps"):
        place.carry_out(REBUILD)


def test_a_ledger_that_is_missing_is_left_to_be_rebuilt(place: Place) -> None:
    (place.folder / "ledger.sqlite3").unlink()
    place.carry_out(REBUILD)
    assert place.paths("ledger.sqlite3") == ["new of ledger"]
    place.carry_out(replace(COMPACTION, serving_id=REBUILD.next_id, next_id=REBUILD.serving_id, aside_name="x-y-z"))
    assert place.told("ledger.sqlite3") == REBUILD.serving_id


def test_a_reader_that_has_the_ledger_open_sees_the_new_content_and_harms_nothing(place: Place) -> None:
    with closing(SqliteLedger(place.folder / "ledger.sqlite3")) as reader:
        assert list(reader.glances()) == ["old of ledger"]
        place.carry_out(REBUILD)
        assert list(reader.glances()) == ["new of ledger"]
        reader.set_note("written by another process", "yes")
    assert place.ledgers.note("ledger.sqlite3", "written by another process") == "yes"
    assert place.told("ledger.sqlite3") == REBUILD.next_id


def test_a_ledger_that_is_locked_for_long_is_named_and_the_switch_goes_on_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestor.adapters.ledger_files.BUSY_SECONDS", 0.0)
    with closing(SqliteLedger(place.folder / "ledger.sqlite3")) as rival, rival._writing():
        with pytest.raises(ServiceUnavailable, match=r"ledger\.next\.sqlite3 cannot be copied"):
            place.carry_out(REBUILD)
        assert place.catalog.names()[REBUILD.next_id] == "documents"
    place.exchange(REBUILD).carry_out()
    assert_rebuilt(place)


def test_a_damaged_ledger_stops_a_switch_before_anything_has_changed(place: Place) -> None:
    path = place.folder / "ledger.next.sqlite3"
    path.write_bytes(b"no ledger" * 1_000)
    with pytest.raises(LedgerCorrupt):
        place.carry_out(REBUILD)
    assert place.catalog.names()[REBUILD.serving_id] == "documents"


def test_a_full_disk_under_the_copy_of_a_ledger_leaves_everything_as_it_was(place: Place) -> None:
    with closing(SqliteLedger(place.folder / "ledger.sqlite3")) as ledger:
        ledger.set_note("large", "x" * 300_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(ServiceUnavailable, match="cannot be used"):
            place.carry_out(REBUILD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert place.catalog.names()[REBUILD.serving_id] == "documents"
    assert not list(place.folder.glob("ledger.before*"))
    place.exchange(REBUILD).carry_out()
    assert_rebuilt(place)


def test_a_copy_is_changed_before_it_has_its_name(place: Place) -> None:
    def dies(_: SqliteLedger) -> None:
        raise Crash

    with pytest.raises(Crash):
        place.ledgers.copy("ledger.sqlite3", "ledger.other.sqlite3", {}, dies)
    assert not (place.folder / "ledger.other.sqlite3").exists()
    place.ledgers.copy("ledger.sqlite3", "ledger.other.sqlite3", {"n": "v"}, lambda ledger: ledger.rewrite(forgotten))
    with closing(SqliteLedger(place.folder / "ledger.other.sqlite3")) as other:
        (entry,) = other.entries(["old of ledger"]).values()
        assert entry.document_id == "document"
        assert entry.doubtful == {"document:1"}
        assert other.note("n") == "v"


def test_a_journal_is_read_as_it_was_written_and_nonsense_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.switch.json")
    assert journal.read() is None
    journal.write({"name": "文档"})
    assert journal.read() == {"name": "文档"}
    for nonsense in ("{", "[]", '{"name": 1}'):
        (tmp_path / "ledger.switch.json").write_text(nonsense, encoding="utf-8")
        with pytest.raises(ConfigError, match="is no journal"):
            journal.read()
    journal.remove()
    journal.remove()
    assert journal.read() is None
