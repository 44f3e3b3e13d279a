"""A ledger that an older version has left is upgraded, and one of a newer version is refused."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingestor.adapters import ledger_schema
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.adapters.ledger import SqliteLedger, note_in
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.adapters.ledger_schema import SCHEMA_VERSION, STEPS, copies, is_behind, upgrade
from ingestor.app.parts import ledger_of
from ingestor.app.upgrade import upgrade_ledgers
from ingestor.core.errors import ConfigError, LedgerCorrupt, ServiceUnavailable
from ingestor.core.model import Priority, Stage, Usage
from ingestor.settings import Settings

LEFT = Path(__file__).parents[1] / "ledger_schema_1.sql"
"""Written by the last version that had schema 1: documents, a Problem, a queue, notes and counters."""
UNDECODABLE_NAME = os.fsdecode(b"caf\xe9.txt")


def left(path: Path) -> Path:
    """A ledger of schema 1."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(LEFT.read_text(encoding="utf-8"))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return left(tmp_path / "ledger.sqlite3")


def schema(path: Path) -> str | None:
    return note_in(path, "schema_version")


def set_schema(path: Path, number: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE notes SET value = ? WHERE name = 'schema_version'", [number])


def tables(path: Path) -> dict[str, list[object]]:
    """Columns, keys and indexes of every table, however its statement was spelled."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: [
                connection.execute(f"PRAGMA table_info({name})").fetchall(),
                sorted(row[1:] for row in connection.execute(f"PRAGMA index_list({name})")),
            ]
            for name in names
        }


def rows(path: Path) -> dict[str, list[object]]:
    with closing(sqlite3.connect(path)) as connection:
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in ("documents", "queue")}  # noqa: S608 - names of tables


def test_a_ledger_of_the_version_before_keeps_documents_queue_notes_and_counters(path: Path) -> None:
    before = rows(path)
    upgrade(path)
    assert rows(path) == before
    with closing(SqliteLedger(path)) as ledger:
        entries = ledger.entries(["notes/a.md", UNDECODABLE_NAME])
        assert entries["notes/a.md"].tags == {"d1:1": "t1", "d1:2": "t2"}
        assert entries["notes/a.md"].stat.inode == 2**64 - 1
        assert entries[UNDECODABLE_NAME].doubtful == {"d2:1"}
        assert [(found, problem.stage) for found, problem in ledger.problems()] == [("裂.bin", Stage.DECODE)]
        assert ledger.waiting().keys() == {"notes/new.md", UNDECODABLE_NAME, "later.md"}
        assert [(each.path, each.priority) for each in ledger.lease(9, 4.0)] == [(UNDECODABLE_NAME, Priority.LIVE)]
        assert (ledger.totals().documents, ledger.totals().chunks, ledger.totals().in_flight) == (2, 3, 2)
        assert ledger.totals().usage == Usage(requests=4, texts=5, tokens=600)
        assert (ledger.tombstones(), ledger.tokens_on("2026-11-23")) == (3, 600)
        assert (ledger.note("collection_id"), ledger.note("watched_folder")) == ("c-1", "/srv/notes")


def test_an_upgraded_ledger_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.sqlite3"
    SqliteLedger(new).close()
    upgrade(path)
    assert tables(path) == tables(new)
    assert schema(path) == schema(new) == str(SCHEMA_VERSION)


def test_a_copy_of_the_ledger_as_it_was_is_kept_for_its_owner_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO notes VALUES ('late', 'only in the write-ahead log')")
    before = rows(path)
    upgrade(path)
    (copy,) = copies(path)
    assert copy.name == f"ledger.sqlite3.schema-1-before-{SCHEMA_VERSION}"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert (schema(copy), note_in(copy, "late")) == ("1", "only in the write-ahead log")
    assert rows(copy) == before


def test_each_step_has_a_copy_and_a_later_upgrade_keeps_its_own_alone(path: Path) -> None:
    def renamed(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE held RENAME TO held_paths")

    def dropped(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE held_paths")

    upgrade(path, [*STEPS, renamed])
    last = 1 + len(STEPS)
    assert [copy.name for copy in copies(path)] == [
        f"ledger.sqlite3.schema-{number}-before-{last + 1}" for number in range(1, last + 1)
    ]
    upgrade(path, [*STEPS, renamed, dropped])
    assert [copy.name for copy in copies(path)] == [f"ledger.sqlite3.schema-{last + 1}-before-{last + 2}"]
    upgrade(path, [*STEPS, renamed, dropped])
    assert len(copies(path)) == 1, "what is up to date is left alone"


@pytest.mark.parametrize("number", [str(SCHEMA_VERSION + 1), "99"])
def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(path: Path, number: str) -> None:
    set_schema(path, number)
    before = path.read_bytes()
    for look in (SqliteLedger, is_behind, upgrade):
        with pytest.raises(ConfigError, match=f"schema version {number}, this program knows {SCHEMA_VERSION} ") as told:
            look(path)
        assert told.value.remedy == "run the version of ingestor that wrote it, or a newer one"
    assert path.read_bytes() == before
    assert copies(path) == []


def test_whoever_goes_back_to_the_version_before_is_told_of_the_copy(path: Path) -> None:
    upgrade(path)
    with pytest.raises(ConfigError, match=f"schema version {SCHEMA_VERSION}, this program knows 1 ") as told:
        upgrade(path, [])
    assert f"put {copies(path)[0].name} in its place" in told.value.remedy
    copies(path)[0].replace(path)
    upgrade(path, [])
    assert schema(path) == "1"


@pytest.mark.parametrize("number", ["", "one", "0", "-1"])
def test_a_ledger_whose_schema_cannot_be_told_is_damaged(path: Path, number: str) -> None:
    set_schema(path, number)
    for look in (SqliteLedger, upgrade):
        with pytest.raises(LedgerCorrupt, match="is no schema version"):
            look(path)


def test_what_is_no_ledger_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"this is no database, whatever its name says" * 100)
    (tmp_path / "ledger-empty.sqlite3").touch()
    upgrade_ledgers(tmp_path)
    assert not is_behind(tmp_path / "missing.sqlite3")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ledger-empty.sqlite3", "ledger.sqlite3"]


def test_an_upgrade_does_not_begin_where_its_copy_has_no_space(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(path)

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(ledger_schema, "sync_file", full)
    with pytest.raises(ServiceUnavailable, match="No space left"):
        upgrade(path)
    assert (schema(path), rows(path), copies(path)) == ("1", before, [])
    monkeypatch.undo()
    upgrade(path)
    assert schema(path) == str(SCHEMA_VERSION)


def test_a_step_that_fails_changes_nothing(path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM documents")
        connection.execute("CREATE TABLE more (name TEXT)")
        raise sqlite3.OperationalError("database or disk is full")

    before = rows(path)
    with pytest.raises(ServiceUnavailable, match="cannot be used: database or disk is full") as told:
        upgrade(path, [half])
    assert "free disk space" in told.value.remedy
    assert (schema(path), rows(path)) == ("1", before)
    assert "more" not in tables(path)


DEATH = """
import os, sys
from pathlib import Path
from ingestor.adapters import ledger_schema

def die(*_):
    os._exit(9)

def dying_step(connection):
    ledger_schema.STEPS[0](connection)
    die()

steps = list(ledger_schema.STEPS)
match sys.argv[2]:
    case "before the copy is whole":
        ledger_schema.sync_file = die
    case "after the copy":
        ledger_schema.sync_folder = die
    case "in the step":
        steps[0] = dying_step
    case "after the first step":
        steps.append(die)
ledger_schema.upgrade(Path(sys.argv[1]), steps)
"""


@pytest.mark.parametrize(
    "moment", ["before the copy is whole", "after the copy", "in the step", "after the first step"]
)
def test_an_upgrade_that_was_killed_is_gone_on_with_by_the_next_start(path: Path, moment: str) -> None:
    before = rows(path)
    assert subprocess.run([sys.executable, "-c", DEATH, path, moment], check=False).returncode == 9
    assert schema(path) == ("2" if moment == "after the first step" else "1")
    assert rows(path) == before
    upgrade(path)
    assert (schema(path), rows(path)) == (str(SCHEMA_VERSION), before)
    assert not list(path.parent.glob("*.copying*"))


def test_processes_that_open_an_older_ledger_at_once_upgrade_it_once(path: Path) -> None:
    looks = [threading.Thread(target=upgrade, args=[path]) for _ in range(4)]
    for look in looks:
        look.start()
    for look in looks:
        look.join()
    assert schema(path) == str(SCHEMA_VERSION)
    assert [schema(copy) for copy in copies(path)] == ["1"]


def settings_of(folder: Path) -> Settings:
    return SimpleNamespace(data_dir=folder, ledger_file="ledger.sqlite3")  # type: ignore[return-value]  # all it needs


def test_who_only_looks_upgrades_what_nobody_works_with(path: Path) -> None:
    beside = left(path.with_name("ledger-notes.before.sqlite3"))
    with ledger_of(settings_of(path.parent)) as ledger:
        assert ledger is not None
        assert ledger.totals().documents == 2
    assert schema(beside) == str(SCHEMA_VERSION), "and all others of the data folder"
    assert not Instance(path.parent).running()


def test_who_may_change_nothing_is_told_that_the_ledger_is_older(path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="has schema version 1"),
        ledger_of(settings_of(path.parent), may_upgrade=False),
    ):
        pass
    assert schema(path) == "1"


def test_an_older_version_at_work_keeps_its_schema_and_who_looks_is_told_to_restart_it(path: Path) -> None:
    older = Instance(path.parent)
    older.acquire()
    older.announce(InstanceRecord(os.getpid(), "run", "/w", 1.0))
    settings, sentence = settings_of(path.parent), "schema version 1, and an older ingestor is at work"
    with pytest.raises(ConfigError, match=sentence) as told, ledger_of(settings):
        pass
    older.release()
    assert "restart that one with this version" in told.value.remedy
    assert schema(path) == "1"


def test_who_looks_waits_for_a_start_that_upgrades(path: Path) -> None:
    holder = Instance(path.parent)
    holder.acquire()

    def begin() -> None:
        upgrade_ledgers(path.parent)
        holder.announce(InstanceRecord(os.getpid(), "run", "/w", 1.0))

    upgrading = threading.Timer(1.5, begin)
    upgrading.start()
    with ledger_of(settings_of(path.parent)) as ledger:
        assert ledger is not None
    upgrading.join()
    holder.release()
    assert [schema(copy) for copy in copies(path)] == ["1"]


@pytest.mark.parametrize("drop", [lambda path: LedgerFiles(path.parent).drop(path.name), ledger_schema.drop_copies])
def test_copies_go_with_their_ledger(path: Path, drop: Callable[[Path], None]) -> None:
    upgrade(path)
    drop(path)
    assert copies(path) == []
