"""SIGKILL after every change that `ingestor prune`, and the compaction beside a daemon, leave behind."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.ledger import note_in
from ingestor.engine.pipeline import COLLECTION_NOTE
from tests.checker import Row, client_of, served
from tests.daemon import Site, eventually, provider_settings
from tests.dying import Dying, Ended, Order
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 64
FILES = 6
LEDGERS = ("ledger-notes.sqlite3", "ledger-papers.sqlite3")
COPYING = "ingestor.engine.compaction:replaced"
RETIRING = "ingestor.app.compaction:retire"
QUIET = ("collection.replaced", "ledger.rebuilt", "document.synced", "compaction.put_off")
"""Events of a start that had something to mend."""


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture(scope="module")
def dying() -> Iterator[Dying]:
    with Dying() as dying:
        yield dying


@pytest.fixture(scope="module")
def settings(provider: EmbeddingServer) -> dict[str, str]:
    return provider_settings(provider, CHROMA__MODE="persistent")


def order(site: Site, *arguments: str, dies_at: int = 0, begins: str = "") -> Order:
    told = Order(arguments, str(site.root), site.environment(), begins=begins)
    return Order(arguments, told.folder, told.environment, dies_at, begins) if dies_at else told


def fill(site: Site, dying: Dying) -> None:
    """Make two sources that share a collection, from whose index something was deleted."""
    (site.root / "ingestor.toml").write_text('[[sources]]\nfolder = "notes"\n[[sources]]\nfolder = "papers"\n')
    for edition in range(2):
        for name in ("notes", "papers"):
            (site.root / name).mkdir(exist_ok=True)
            for number in range(FILES):
                file = site.root / name / f"text-{number}.md"
                file.write_text(f"# Text {number} of {name}\n\nIts edition is {edition}.\n", encoding="utf-8")
        done = dying.run(order(site, "sync"))
        assert done.code == 0, done.err
    # Whoever has no vectors left would have to pay for each text again.
    (site.data_dir / "vectors.sqlite3").unlink()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, dying: Dying, settings: dict[str, str]) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("compaction"), settings) as site:
        fill(site, dying)
        yield site


def assert_same(rows: list[Row], before: list[Row]) -> None:
    """The same records with the same vectors."""
    found, wanted = ({row.id: row for row in each} for each in (rows, before))
    assert len(found) == len(rows)
    assert {id_: (row.text, row.metadata) for id_, row in found.items()} == {
        id_: (row.text, row.metadata) for id_, row in wanted.items()
    }
    for id_, row in wanted.items():
        assert np.allclose(found[id_].embedding, row.embedding, atol=1e-6)


def assert_nothing_left_over(site: Site) -> None:
    """One collection, of which each ledger speaks, the folder of its graph, and no switch that is under way."""
    with closing(sqlite3.connect(site.chroma_path / "chroma.sqlite3")) as connection:
        ((id_, name),) = connection.execute("SELECT id, name FROM collections").fetchall()
        segments = {segment for (segment,) in connection.execute("SELECT id FROM segments")}
    assert name == "documents"
    assert [note_in(site.data_dir / ledger, COLLECTION_NOTE) for ledger in LEDGERS] == [id_, id_]
    assert {place.name for place in graphs(site)} <= segments
    assert not list(site.data_dir.glob("*.switch.json*"))


def graphs(site: Site) -> list[Path]:
    """The folders of graphs that there are."""
    return [place for place in site.chroma_path.iterdir() if place.is_dir()]


def assert_idle(done: Ended) -> None:
    """A sync that had nothing to do."""
    assert done.code == 0, done.err
    told = done.json()
    changed = {name: number for name, number in told["documents"].items() if number and name != "unchanged"}
    assert (changed, told["documents"]["unchanged"]) == ({}, 2 * FILES)
    assert not any(told["chunks"].values()), told


def test_a_prune_that_is_killed_at_any_change_is_healed_by_a_sync_and_completed_by_the_next(
    site: Site, dying: Dying, provider: EmbeddingServer, tmp_path: Path
) -> None:
    texts = provider.texts
    before = dying.rows(site.chroma_path)
    assert len(before) == 2 * FILES
    for dies_at in count(1):
        place = Site(tmp_path / str(dies_at), site.settings)
        shutil.copytree(site.root, place.root)
        died = dying.run(order(place, "prune", dies_at=dies_at))
        if not died.has_died:
            break
        if "VACUUM" not in died.changes:  # from there on files are cleaned that no sync looks at
            assert_idle(dying.run(order(place, "sync", "--json")))
        done = dying.run(order(place, "prune", "--json"))
        assert (done.code, done.json()["records"]) == (0, 2 * FILES), (died.changes, done.err)
        assert_nothing_left_over(place)
        assert_same(dying.rows(place.chroma_path), before)
        assert provider.texts == texts, died.changes
        shutil.rmtree(place.root)
    assert died.code == 0, died.err
    assert {"create_collection", "add", "modify", "delete_collection"} <= set(died.changes)
    assert {"write", "os.rename", "os.remove", "os.rmdir", "COMMIT", "VACUUM", "PRAGMA wal_checkpoint"} <= set(
        died.changes
    )


def test_a_daemon_that_is_killed_at_any_change_of_its_compaction_goes_on_and_pays_for_nothing(
    dying: Dying, provider: EmbeddingServer, tmp_path: Path
) -> None:
    chroma = ChromaServer(tmp_path / "elsewhere", 0)
    chroma.start()
    settings = provider_settings(provider, CHROMA__MODE="http", CHROMA__PORT=chroma.port)
    try:
        with Site(tmp_path, settings) as site:
            fill(site, dying)
            texts = provider.texts
            with served(chroma.port) as read:
                before = read()
            for dies_at in count(1):
                # Files of a server elsewhere are not looked into: what was counted is believed.
                with closing(sqlite3.connect(site.data_dir / LEDGERS[0])) as ledger, ledger:
                    ledger.execute("INSERT OR REPLACE INTO counters VALUES ('tombstones', 5000)")
                died = dying.run(order(site, "run", dies_at=dies_at, begins=COPYING))
                assert not [event for event in QUIET if f'"{event}"' in died.err], died.err
                assert provider.texts == texts, died.changes
                if not died.has_died:
                    break
            assert died.code == 0, died.err
            assert set(died.changes) == {
                *("create_collection", "add", "modify", "write", "os.rename", "COMMIT", "os.remove", "set_tombstones"),
            }
            with served(chroma.port) as read:
                assert_same(read(), before)
            told = dying.run(order(site, "prune", "--json")).json()
            assert (told["records"], told["before"]["bytes"], told["cleaned"]) == (2 * FILES, None, None)
            with client_of(chroma.port) as client:
                (row,) = client.list_collections()
            assert row.name == "documents"
            assert [note_in(site.data_dir / ledger, COLLECTION_NOTE) for ledger in LEDGERS] == [str(row.id)] * 2
            assert_idle(dying.run(order(site, "sync", "--json")))
            (site.root / "notes/text-0.md").unlink()
            unproven = dying.run(order(site, "forget", str(site.root / "notes/text-0.md"), "--json"))
            assert (unproven.code, unproven.json()["is_proven"], unproven.json()["found"]) == (3, False, [])
            with served(chroma.port) as read:
                assert_same(read(), [row for row in before if row.metadata["title"] != "Text 0 of notes"])
            assert provider.texts == texts
    finally:
        chroma.stop()


def test_a_daemon_that_is_killed_while_it_deletes_what_was_replaced_leaves_no_folder(
    site: Site, dying: Dying, provider: EmbeddingServer, tmp_path: Path
) -> None:
    texts = provider.texts
    shutil.copytree(site.root, tmp_path / "copied")
    with Site(tmp_path / "copied", site.settings | {"INGESTOR_CHROMA__MODE": "managed"}) as copied:
        copied.sync()  # a copied data folder notes where it lies, which is a change of a file
        complete = dying.run(order(site, "prune")).changes
        died = dying.run(order(copied, "prune", dies_at=complete.index("delete_collection")))
        assert died.changes[-1] == "os.remove", "the switch was ended"
        for changes in (["delete_collection"], ["os.remove", "os.remove"]):
            died = dying.run(order(copied, "run", dies_at=len(changes), begins=RETIRING))
            assert (died.has_died, list(died.changes)) == (True, changes), died.err
            assert len(graphs(copied)) == 2
        daemon = copied.start("run").wait_ready()
        eventually(lambda: len(graphs(copied)) == 1, daemon.log)
        assert daemon.terminate() == 0
        assert_nothing_left_over(copied)
        assert provider.texts == texts
