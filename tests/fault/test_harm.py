"""What others do to the collection, and what a crash may leave of it: `ingestor verify` finds it, `--repair` and the
daemon's own patrol mend it, and nothing is embedded again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from chromadb.api.models.Collection import Collection

import ingestor.embedding_function  # noqa: F401 - Chroma's client warns of a function that it does not know
from tests.checker import client_of
from tests.daemon import Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 32
FILES = 40
FOREIGN = {"document_id": "doc-7", "note": "written by another program"}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(server)) as site:
        for number in range(FILES):
            write(site, f"shelf-{number % 3}/book-{number:02}.md", f"# Book {number}\n\nA sentence of book {number}.\n")
        write(site, "empty.md", "")
        yield site


def write(site: Site, path: str, text: str) -> None:
    file = site.folder / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


@contextmanager
def somebody_else(site: Site) -> Iterator[Collection]:
    """The collection as any program on the machine has it while the daemon serves it."""
    with client_of(site.port) as client:
        yield client.get_collection("documents", embedding_function=None)


def held(collection: Collection) -> dict[str, dict[str, Any]]:
    """Everything that the collection holds, by id."""
    page = cast("Any", collection.get(include=["documents", "metadatas", "embeddings"]))
    rows = zip(page["documents"], page["metadatas"], page["embeddings"], strict=True)
    return {
        id_: {"text": text, "metadata": metadata, "vector": np.asarray(vector)}
        for id_, (text, metadata, vector) in zip(page["ids"], rows, strict=True)
    }


def harm(collection: Collection) -> None:
    """Every harm that another program may do: two records lost, and one of each other kind."""
    before = held(collection)
    ids = sorted(before, key=lambda id_: str(before[id_]["metadata"]["source"]))
    collection.delete(ids=ids[:2])
    collection.update(ids=[ids[2]], documents=["somebody else's text"], embeddings=[before[ids[2]]["vector"]])
    collection.update(ids=[ids[3]], embeddings=[before[ids[4]]["vector"]])
    collection.update(ids=[ids[5]], metadatas=[{"start_line": 77}])
    orphan, copy = before[ids[6]], before[ids[7]]
    collection.add(
        ids=["ghost:1", f"ghost:{ids[7].partition(':')[2]}", "theirs"],
        embeddings=[orphan["vector"], copy["vector"], orphan["vector"]],
        documents=[orphan["text"], copy["text"], "theirs"],
        metadatas=[
            orphan["metadata"] | {"document_id": "ghost", "source": "never/was.md"},
            copy["metadata"] | {"document_id": "ghost"},
            FOREIGN,
        ],
    )


FOUND = {"missing": 2, "altered": 2, "wrong metadata": 1, "orphaned": 1, "duplicate": 1}


def without_unreachable(found: dict[str, int]) -> dict[str, int]:
    """Chroma itself may lose a neighbour of a vector that is changed in place: rightly found, and not our doing."""
    return {kind: count for kind, count in found.items() if kind != "unreachable"}


def verified(site: Site, *options: str, code: int = 0) -> Any:  # noqa: ANN401 - what `ingestor verify --json` prints
    done = site.command("verify", "--json", *options)
    assert done.code == code, done.err + done.out[-2_000:]
    return done.json()


def test_harm_is_found_and_mended_beside_a_live_daemon_and_without_one(site: Site, server: EmbeddingServer) -> None:
    assert site.command("verify").code == 2, "nothing is indexed yet"
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.wait_equal()
    texts = server.texts
    with somebody_else(site) as collection:
        vectors = {id_: row["vector"] for id_, row in held(collection).items()}
    sound = verified(site)
    assert (sound["is_sound"], sound["found"], sound["documents"]) == (True, {}, FILES + 1)

    with somebody_else(site) as collection:
        harm(collection)
    seen = verified(site, code=3)
    assert (without_unreachable(seen["found"]), seen["left"], seen["foreign_records"]) == (FOUND, seen["found"], 1)
    assert {finding["path"] for finding in seen["findings"]} >= {"never/was.md", "shelf-0/book-00.md"}
    mended = verified(site, "--repair")
    assert (without_unreachable(mended["found"]), mended["left"], mended["foreign_records"]) == (FOUND, {}, 1)
    with somebody_else(site) as collection:
        after = held(collection)
        assert after.pop("theirs")["metadata"] == FOREIGN
        assert after.keys() == vectors.keys()
        assert all(np.array_equal(row["vector"], vectors[id_]) for id_, row in after.items())
        collection.delete(ids=["theirs"])
        harm(collection)
    assert daemon.terminate() == 0

    assert without_unreachable(verified(site, code=3)["found"]) == FOUND
    told = site.command("verify", "--repair")
    assert told.code == 0, told.err
    assert "folder, ledger and collection agree; 2 altered, 1 duplicate, 2 missing, 1 orphaned, " in told.out
    assert "1 records of others left alone" in told.out
    assert_equal(site.folder, [row for row in site.at_rest() if row.id != "theirs"], dimensions=DIMENSIONS)
    assert server.texts == texts, "a repair costs no embedding"


def test_files_that_differ_from_the_ledger_are_found_and_indexed(site: Site, server: EmbeddingServer) -> None:
    site.sync()
    texts = server.texts
    write(site, "new.md", "# New\n\nNobody has seen this yet.\n")
    (site.folder / "shelf-0/book-00.md").unlink()
    assert verified(site, code=3)["found"] == {"outdated": 1, "gone": 1}
    assert server.texts == texts
    mended = verified(site, "--repair")
    assert (mended["left"], server.texts) == ({}, texts + 1)
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)


def test_an_index_that_was_lost_is_built_again_from_the_vector_store(site: Site, server: EmbeddingServer) -> None:
    for number in range(14):
        chapters = [f"# Chapter {each}\n\n" + f"word{number}x{each} " * 150 for each in range(80)]
        write(site, f"long-{number}.md", "\n\n".join(chapters))
    site.sync()
    rows = site.at_rest()
    assert_equal(site.folder, rows, dimensions=DIMENSIONS)
    texts = server.texts
    (graph,) = (path for path in site.chroma_path.iterdir() if path.is_dir())
    shutil.rmtree(graph)

    lost = verified(site, code=3)["found"]
    assert lost.keys() == {"unreachable"}
    assert lost["unreachable"] >= 1_000

    assert verified(site, "--repair")["left"] == {}
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS)
    assert server.texts == texts


def test_the_daemon_mends_by_itself_what_others_do(site: Site, server: EmbeddingServer) -> None:
    site.settings["INGESTOR_WATCH__RESCAN_SECONDS"] = "2"
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.wait_equal()
        texts = server.texts
        with somebody_else(site) as theirs:
            rows = held(theirs)
            first, second, third, *_ = sorted(rows)
            theirs.delete(ids=[first])
            theirs.update(ids=[second], documents=["another text"], embeddings=[rows[second]["vector"]])
            theirs.update(ids=[third], metadatas=[{"source": "elsewhere.md", "content_hash": "0"}])
        collection.wait_equal()
    assert server.texts == texts
    audits = [audit["found"] for audit in daemon.events("collection.audited")]
    found = {kind for audit in audits for kind in audit}
    assert found == {"missing", "altered", "wrong metadata"}
    assert daemon.terminate() == 0


def test_a_restored_backup_with_as_many_records_is_brought_up_to_date(site: Site, server: EmbeddingServer) -> None:
    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.wait_equal()
    assert daemon.terminate() == 0
    backup = site.root / "backup"
    shutil.copytree(site.chroma_path, backup)
    for number in range(5):
        write(site, f"shelf-0/book-{number * 3:02}.md", f"# Book {number}\n\nAnother edition of book {number}.\n")
    site.sync()
    texts = server.texts
    count = len(site.at_rest())
    shutil.rmtree(site.chroma_path)
    backup.rename(site.chroma_path)
    assert len(site.at_rest()) == count, "the number of records tells nothing"

    daemon = site.start("run").wait_ready()
    with site.reading() as collection:
        collection.wait_equal()
    eventually(lambda: daemon.events("collection.audited"), daemon.log)
    assert server.texts == texts
    assert daemon.terminate() == 0
