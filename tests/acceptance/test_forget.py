"""`ingestor forget`: nothing of a document is left in any file, and everything else is as it was."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_copy import ChromaCopy
from ingestor.adapters.ledger import note_in
from tests.daemon import Site, assert_equal, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 64
SHARED = "This paragraph stands in two documents, word for word, and stays where it was not forgotten."
WORDS = "The combination of the vault in the cellar is nineteen, forty-two, seven and three."


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("forget"), provider_settings(server)) as site:
        for number in range(3):
            (site.folder / f"text-{number}.md").write_text(f"# Text {number}\n\nIt tells of number {number} only.\n")
        (site.folder / "shared.md").write_text(SHARED)
        (site.folder / "copied.md").write_text(SHARED)
        (site.folder / "geheim").mkdir()
        (site.folder / "geheim" / "tresor.md").write_text(f"# Der Tresor im Keller\n\n{WORDS}\n")
        site.sync()
        yield site


def holders(site: Site, words: str) -> list[str]:
    """Our files that hold these words."""
    return sorted(
        file.name for file in site.data_dir.rglob("*") if file.is_file() and words.encode() in file.read_bytes()
    )


def test_a_document_is_forgotten_and_everything_else_is_as_it_was(site: Site, server: EmbeddingServer) -> None:
    texts = server.texts
    assert holders(site, WORDS[:40]), "the search of the test finds what is there"
    refused = site.command("forget", "geheim/tresor.md")
    assert (refused.code, "--delete-file" in refused.err) == (2, True)
    backup = site.data_dir / "backup.sqlite3"
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("CREATE TABLE kept (text)")
        connection.execute("INSERT INTO kept VALUES (?)", (WORDS,))

    # What somebody has put into the data folder is found and named, and until it is gone nobody forgets it.
    done = site.command("forget", "geheim/tresor.md", "--delete-file", "--json")
    assert done.code == 3
    told = done.json()
    assert told["found"] == [{"file": str(backup), "kind": "text"}]
    assert (told["records"], told["texts"], told["vectors"]) == (1, 1, 1)
    assert "forget.unfinished" in site.command("sync").err
    other = site.command("forget", "shared.md", "--delete-file")
    assert (other.code, "not forgotten yet" in other.err) == (2, True)

    backup.unlink()
    done = site.command("forget", str(site.folder / "geheim" / "tresor.md"), "--json")
    assert done.code == 0, done.out + done.err
    assert not holders(site, WORDS[:40])
    assert not holders(site, "tresor.md")
    assert not list(site.data_dir.glob("forget.*"))
    assert site.command("verify").code == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    assert server.texts == texts


def test_what_another_document_holds_stays_and_one_that_is_long_gone_is_forgotten(
    site: Site, server: EmbeddingServer
) -> None:
    texts = server.texts
    done = site.command("forget", "copied.md", "--delete-file", "--json")
    assert done.code == 0, done.out + done.err
    assert (done.json()["shared_texts"], done.json()["texts"], done.json()["vectors"]) == (1, 0, 0)
    assert not holders(site, "copied.md")
    assert holders(site, SHARED)

    (site.folder / "shared.md").unlink()
    assert site.sync()["documents"]["deleted"] == 1
    assert holders(site, SHARED[:40]), "Chroma keeps what it deletes"
    done = site.command("forget", "shared.md", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json()["records"] == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    assert server.texts == texts


def test_beside_a_daemon_nothing_is_forgotten_or_pruned(site: Site) -> None:
    daemon = site.start("run").wait_ready()
    for command in (["forget", "text-0.md", "--delete-file"], ["prune"]):
        refused = site.command(*command)
        assert (refused.code, "stop it first" in refused.err) == (5, True)
    assert (site.folder / "text-0.md").exists()
    daemon.terminate()


def test_a_collection_and_a_ledger_that_were_kept_hold_nothing_of_it_either(
    site: Site, server: EmbeddingServer
) -> None:
    ledger, kept = site.data_dir / "ledger.sqlite3", site.data_dir / "ledger.before.sqlite3"
    kept.write_bytes(ledger.read_bytes())
    client = connect("persistent", path=site.chroma_path)
    copy = ChromaCopy(client, "documents", "documents-before-1", lambda _: {})
    copy.take(copy.begin())
    with closing(sqlite3.connect(kept)) as connection, connection:
        connection.execute("UPDATE notes SET value = ? WHERE name = 'collection_id'", (copy.copy_id,))
    disconnect(client)

    texts = server.texts
    done = site.command("forget", "text-1.md", "--delete-file", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json()["records"] == 2
    assert not holders(site, "text-1.md")
    assert not holders(site, "It tells of number 1 only.")
    with closing(sqlite3.connect(site.chroma_path / "chroma.sqlite3")) as connection:
        ids = dict(connection.execute("SELECT name, id FROM collections"))
    assert ids.keys() == {"documents", "documents-before-1"}
    assert note_in(kept, "collection_id") == ids["documents-before-1"] != copy.copy_id
    assert note_in(ledger, "collection_id") == ids["documents"]
    assert server.texts == texts
