"""Several sources in one daemon: a collection each, or one that they share."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from chromadb.errors import NotFoundError

from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.ledger_files import LedgerFiles
from ingestor.engine.pipeline import COLLECTION_NOTE
from tests.checker import Row, differences, served, shown
from tests.daemon import Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 64


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, provider: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(provider)) as made:
        made.folder.rmdir()
        for name in ("notes", "papers"):
            (tmp_path / name).mkdir()
        write(tmp_path / "notes/a.md", "# Notes\n\nAn apple a day.\n")
        write(tmp_path / "papers/a.md", "# Papers\n\nOn the motion of bodies.\n")
        write(tmp_path / "papers/b.txt", "Of colours.\n")
        yield made


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def configure(site: Site, *sources: str) -> None:
    write(site.root / "ingestor.toml", "".join(f"[[sources]]\n{source}\n" for source in sources))


NOTES, PAPERS = 'folder = "notes"', 'folder = "papers"\ncollection = "papers"'
SHARED = 'folder = "papers"'


def of_folder(rows: list[Row], folder: Path) -> list[str]:
    return differences(folder, rows, dimensions=DIMENSIONS)


def of_source(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row.id.startswith(f"{name}-")]


def wait_equal(site: Site, folder: Path, collection: str, *, name: str = "") -> list[Row]:
    found = ["nothing was read yet"]
    rows: list[Row] = []

    def is_equal() -> bool:
        with served(site.port, collection=collection) as read:
            rows[:] = of_source(read(), name) if name else read()
        found[:] = of_folder(rows, folder)
        return not found

    eventually(is_equal, lambda: shown(found))
    return rows


def test_each_source_is_followed_into_its_own_collection(site: Site) -> None:
    configure(site, NOTES, PAPERS)
    daemon = site.start("run").wait_ready()
    wait_equal(site, site.root / "notes", "documents")
    wait_equal(site, site.root / "papers", "papers")
    write(site.root / "notes/new.md", "Something new.\n")
    (site.root / "papers/b.txt").unlink()
    (site.root / "notes/a.md").rename(site.root / "notes/z.md")
    wait_equal(site, site.root / "notes", "documents")
    wait_equal(site, site.root / "papers", "papers")

    logged = {("notes", "a.md"), ("notes", "new.md"), ("notes", "z.md"), ("papers", "a.md"), ("papers", "b.txt")}
    eventually(
        lambda: {(event["source"], event["path"]) for event in daemon.events("document.synced")} == logged, daemon.log
    )
    assert {event["source"] for event in daemon.events("folder.reconciled")} == {"notes", "papers"}
    told = site.command("status", "--json").json()
    assert set(told["sources"]) == {"notes", "papers"}
    assert told["documents"] == 3
    assert told["sources"]["papers"]["collection"] == "papers"
    unnamed = site.command("query", "apple")
    assert (unnamed.code, "--collection" in unnamed.err) == (2, True)
    verified = site.command("verify", "--json")
    assert verified.code == 0, verified.out
    assert set(verified.json()["sources"]) == {"notes", "papers"}
    assert daemon.terminate() == 0


def test_two_sources_share_a_collection_and_each_keeps_what_is_its_own(site: Site, provider: EmbeddingServer) -> None:
    configure(site, NOTES, SHARED)
    report = site.sync()
    assert report["documents"]["added"] == 3
    assert {name: counts["added"] for name, counts in report["sources"].items()} == {"notes": 1, "papers": 2}
    paid = provider.texts
    daemon = site.start("run").wait_ready()
    write(site.root / "notes/b.txt", "Of colours.\n")  # a text that the other source has paid for
    (site.root / "papers/b.txt").unlink()
    wait_equal(site, site.root / "notes", "documents", name="notes")
    wait_equal(site, site.root / "papers", "documents", name="papers")
    daemon.kill()
    # Whoever has lost its ledger takes its own records back, and none of the other's.
    (site.data_dir / "ledger-papers.sqlite3").unlink()
    again = site.sync()
    assert again["documents"]["added"] == 0
    assert again["chunks"] == {"embedded": 0, "reused": 0, "retagged": 0, "dropped": 0}
    assert provider.texts == paid
    assert site.command("verify").code == 0
    rows = site.at_rest()
    assert not of_folder(of_source(rows, "notes"), site.root / "notes")
    assert not of_folder(of_source(rows, "papers"), site.root / "papers")
    assert len(rows) == len(of_source(rows, "notes")) + len(of_source(rows, "papers"))


def test_a_folder_that_becomes_one_of_several_keeps_its_documents(site: Site, provider: EmbeddingServer) -> None:
    site.sync(INGESTOR_WATCH_DIR=str(site.root / "notes"))
    before = {row.id for row in site.at_rest()}
    paid = provider.texts
    configure(site, SHARED, NOTES)
    assert site.sync()["documents"]["added"] == 2
    assert before <= {row.id for row in site.at_rest()}
    assert provider.texts == paid + 2
    assert site.command("verify").code == 0


def test_a_source_that_is_configured_no_more_leaves_the_shared_collection_once_that_is_approved(site: Site) -> None:
    for number in range(120):
        write(site.root / f"papers/p{number}.txt", f"Paper {number}.\n")
    configure(site, NOTES, SHARED)
    site.sync()
    configure(site, NOTES)
    # But for the one whose path the folder that is left has, too: that is a document which has changed.
    assert site.sync(code=3)["held_deletions"] == 121
    assert len(site.at_rest()) == 122
    assert site.command("approve").code == 0
    assert site.sync()["documents"]["deleted"] == 121
    assert not of_folder(site.at_rest(), site.root / "notes")


def test_a_source_whose_disk_is_away_keeps_no_other_waiting(site: Site) -> None:
    configure(site, NOTES, SHARED)
    site.sync()
    papers, away = site.root / "papers", site.root / "away"
    papers.rename(away)
    write(site.root / "notes/b.txt", "Written meanwhile.\n")
    report = site.sync(code=4)
    assert report["sources"]["notes"]["added"] == 1
    daemon = site.start("run").wait_ready()
    write(site.root / "notes/c.txt", "And this.\n")
    wait_equal(site, site.root / "notes", "documents", name="notes")
    assert len(of_source(wait_rows(site), "papers")) == 2
    away.rename(papers)
    write(papers / "back.txt", "Back again.\n")
    wait_equal(site, papers, "documents", name="papers")
    assert daemon.terminate() == 0


def wait_rows(site: Site) -> list[Row]:
    with served(site.port) as read:
        return read()


def test_a_source_may_have_rules_chunks_and_a_model_of_its_own(site: Site, provider: EmbeddingServer) -> None:
    own = 'include = ["*.md"]\nmetadata = { shelf = "science" }\nchunk = { max_tokens = 16 }\n'
    own += 'embedding = { model = "another", dimensions = 32 }'
    write(site.root / "papers/long.md", "\n\n".join(f"Sentence number {n} of a longer text." for n in range(20)))
    configure(site, NOTES, f"{PAPERS}\n{own}")
    report = site.sync()
    assert report["sources"]["papers"]["added"] == 2
    assert report["sources"]["papers"]["embedded"] > 5
    status = site.command("status", "--json").json()
    assert status["sources"]["papers"]["documents"] == 2
    found = site.command(
        "query", "--collection", "papers", "motion", "--where", '{"shelf": "science"}', "--json"
    ).json()
    assert {hit["source"] for hit in found} == {"a.md", "long.md"}
    assert {received.model for received in provider.received} == {"unheard-of-model", "another"}
    planned = site.command("plan", "--json").json()["sources"]
    assert planned["papers"]["model"] == "openai/another"
    assert planned["papers"]["documents"]["unchanged"] == 2


def test_the_collection_of_one_source_is_rebuilt_and_the_others_are_left_alone(site: Site) -> None:
    configure(site, NOTES, PAPERS)
    site.sync()
    configure(site, NOTES, f'{PAPERS}\nembedding = {{ model = "another" }}')
    refused = site.command("sync")
    assert (refused.code, "ingestor rebuild" in refused.err) == (2, True)
    assert "name one of them" in site.command("rebuild").err
    rebuilt = site.command("rebuild", "--collection", "papers", "--json")
    assert rebuilt.json()["is_switched"], rebuilt.err
    assert site.sync()["documents"]["unchanged"] == 3
    assert site.command("rebuild", "--collection", "papers", "--prune").code == 0


def test_a_shared_collection_is_rebuilt_and_taken_back_with_the_ledgers_of_both_sources(
    site: Site, provider: EmbeddingServer
) -> None:
    configure(site, NOTES, SHARED)
    site.sync()
    ids = {row.document_id for row in site.at_rest()}
    site.settings["INGESTOR_EMBEDDING__DIMENSIONS"] = str(DIMENSIONS // 2)
    rebuilt = site.command("rebuild", "--json").json()
    assert rebuilt["is_switched"]
    told = {name: rebuilt["comparison"][name] for name in ("documents", "serving_documents", "chunks", "sampled")}
    assert told == {"documents": 3, "serving_documents": 3, "chunks": 3, "sampled": 3}
    again = site.sync()
    assert (again["documents"]["unchanged"], sum(again["chunks"].values())) == (3, 0)
    assert_shared(site, DIMENSIONS // 2)
    assert {row.document_id for row in site.at_rest()} == ids

    (site.root / "papers/b.txt").rename(site.root / "papers/c.txt")
    status = site.command("rebuild", "--status", "--json").json()
    assert (status["unfinished"], status["kept"]["documents"], status["kept"]["chunks"]) == (None, 3, 3)
    assert site.command("rebuild", "--rollback", "--json").json()["chunks"] == 3
    site.settings["INGESTOR_EMBEDDING__DIMENSIONS"] = str(DIMENSIONS)
    assert site.sync()["documents"]["renamed"] == 1
    assert_shared(site, DIMENSIONS)
    assert site.command("rebuild", "--abandon", "--json").json()["documents"] == 3
    ledgers = {path.name for path in site.data_dir.glob("ledger*.sqlite3")}
    assert ledgers == {"ledger-notes.sqlite3", "ledger-papers.sqlite3"}
    assert provider.texts == 3 + 3


def assert_shared(site: Site, dimensions: int) -> None:
    """The collection is both folders, with vectors of that length."""
    rows = site.at_rest()
    for name in ("notes", "papers"):
        assert not differences(site.root / name, of_source(rows, name), dimensions=dimensions)
    assert len(rows) == sum(len(of_source(rows, name)) for name in ("notes", "papers"))


def test_a_daemon_rebuilds_a_shared_collection_and_another_while_it_follows_all_sources(
    site: Site, provider: EmbeddingServer
) -> None:
    write(site.root / "letters/a.md", "# Letters\n\nDear reader.\n")
    letters = 'folder = "letters"\ncollection = "letters"'
    configure(site, NOTES, SHARED, letters)
    site.sync()
    new = DIMENSIONS // 2
    site.settings["INGESTOR_EMBEDDING__DIMENSIONS"] = str(new)
    provider.held_dimensions = new
    daemon = site.start("run", "--rebuild").wait_ready()
    for name in ("notes", "papers", "letters"):
        write(site.root / name / "new.txt", f"Written into {name} meanwhile.\n")
    folders = {"notes": "documents", "papers": "documents", "letters": "letters"}

    def are_equal(dimensions: int) -> bool:
        for name, collection in folders.items():
            try:
                with served(site.port, collection=collection) as read:
                    rows = of_source(read(), name)
            except NotFoundError:  # just between the two renames of a switch
                return False
            is_of_recipe = all(len(row.embedding) == dimensions for row in rows)
            if not is_of_recipe or differences(site.root / name, rows, dimensions=dimensions):
                return False
        return True

    eventually(lambda: are_equal(DIMENSIONS), daemon.log)
    assert not daemon.events("collection.switched")
    provider.held_dimensions = 0
    eventually(lambda: are_equal(new), daemon.log)
    eventually(lambda: daemon.events("daemon.started"), daemon.log)
    assert [event["name"] for event in daemon.events("collection.switched")] == ["documents", "letters"]
    for name in folders:
        write(site.root / name / "late.txt", f"Written into {name} afterwards.\n")
    eventually(lambda: are_equal(new), daemon.log)
    assert site.command("rebuild", "--collection", "documents", "--prune").code == 0
    assert daemon.terminate() == 0
    assert provider.texts == 2 * (4 + 3) + 3


def test_a_shared_collection_is_pruned_and_a_document_of_one_source_forgotten_alone(
    site: Site, provider: EmbeddingServer
) -> None:
    write(site.root / "notes/a.md", "# Notes\n\nThe secret of the northern lighthouse keeper.\n")
    configure(site, NOTES, SHARED)
    site.sync()
    paid = provider.texts
    pruned = site.command("prune", "--json")
    assert pruned.json()["records"] == 3, pruned.err
    again = site.sync()
    assert (again["documents"]["unchanged"], sum(again["chunks"].values())) == (3, 0)
    # Both sources have an a.md.
    assert "by its full path" in site.command("forget", "a.md").err
    (site.root / "notes/a.md").unlink()
    forgotten = site.command("forget", "notes/a.md", "--json")
    assert forgotten.json()["is_proven"], forgotten.out
    assert not of_folder(of_source(site.at_rest(), "papers"), site.root / "papers")
    assert len(site.at_rest()) == 2
    assert site.sync()["documents"]["unchanged"] == 2
    assert provider.texts == paid
    assert site.command("verify").code == 0


def test_a_compaction_of_a_shared_collection_has_the_ledgers_of_both_sources_speak_of_the_copy(site: Site) -> None:
    site.settings |= {"INGESTOR_CHROMA__MODE": "http", "INGESTOR_CHROMA__HOST": "127.0.0.1"}
    server = ChromaServer(site.root / "elsewhere", site.port)
    server.start()
    try:
        configure(site, NOTES, SHARED)
        site.sync()
        names = ("ledger-notes.sqlite3", "ledger-papers.sqlite3")
        # Files of a server elsewhere are not looked into: what was counted is believed.
        with closing(sqlite3.connect(site.data_dir / names[0])) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO counters VALUES ('tombstones', 5000)")
        before = {LedgerFiles(site.data_dir).note(name, COLLECTION_NOTE) for name in names}
        daemon = site.start("run")
        eventually(lambda: daemon.events("compaction.ended"), daemon.log)
        daemon.kill()
        after = {LedgerFiles(site.data_dir).note(name, COLLECTION_NOTE) for name in names}
        assert (len(before), len(after), len(before | after)) == (1, 1, 2)
    finally:
        server.stop()


def test_a_problem_is_told_with_its_source_and_retried_there(site: Site) -> None:
    (site.root / "papers/bad.txt").write_bytes(b"\x00\xff\xfe\x00binary" * 40)
    configure(site, NOTES, SHARED)
    site.sync(code=3)
    (problem,) = json.loads(site.command("problems", "--json").out)
    assert (problem["source"], problem["path"]) == ("papers", "bad.txt")
    write(site.root / "papers/bad.txt", "A text at last.\n")
    assert site.command("retry", str(site.root / "papers/bad.txt")).code == 0
    elsewhere = site.command("retry", str(site.root / "notes"))
    assert elsewhere.code == 2
    assert site.command("problems").code == 0


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ((NOTES, NOTES), "two sources are called 'notes'"),
        ((NOTES, 'folder = "notes"\nname = "other"'), "one lies in the other"),
        ((NOTES, 'folder = "papers"\nembedding = { model = "another" }'), "different embedding settings"),
        (('folder = "papers"\nfoldr = "x"',), "foldr"),
        (('folder = "papers"\nchunk = { max_tokens = 1 }',), "max_tokens"),
        (('folder = "papers"\nembedding = { api_key = "sk-1" }',), "api_key does not belong here"),
        (('name = "papers"',), "folder"),
        (('folder = "nowhere"',), "nowhere does not exist"),
    ],
    ids=["named alike", "nested", "another model", "unknown key", "chunk", "key", "no folder", "missing folder"],
)
def test_sources_that_cannot_be_are_refused_with_what_is_wrong(site: Site, sources: tuple[str, ...], told: str) -> None:
    configure(site, *sources)
    refused = site.command("sync")
    assert refused.code == 2, refused.err
    assert told in refused.err
    assert "sk-1" not in refused.err
    assert not (site.data_dir / "chroma").exists()


def test_a_folder_on_the_command_line_does_not_go_with_sources_but_to_be_evaluated(site: Site) -> None:
    configure(site, NOTES, PAPERS)
    assert "leave out the folder" in site.command("run", "notes").err
    shutil.copytree(site.root / "papers", site.root / "others")
    assert "2 documents" in site.command("evaluate", "others").out
    assert "name the folder" in site.command("evaluate").err
