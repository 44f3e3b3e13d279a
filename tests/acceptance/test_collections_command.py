"""`ingestor collections`: what there is, and the configured one renamed and deleted without a text paid for again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import KEY, Finished, Site, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 8
TOML = '# ours\nwatch_dir = "watched_dir"\n\n[chroma]\ncollection = "{}"   # the one\n'


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, api_key=KEY) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, provider: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(provider)) as site:
        (site.folder / "harbour.md").write_text("A harbour at dawn.\n")
        (site.root / "ingestor.toml").write_text(TOML.format("documents"))
        yield site


def done(site: Site, *arguments: str, code: int = 0, **settings: str) -> Finished:
    finished = site.command(*arguments, **settings)
    assert finished.code == code, finished.err
    return finished


def told(site: Site, *arguments: str) -> Any:  # noqa: ANN401 - whatever the command prints
    return done(site, *arguments, "--json").json()


def test_the_configured_collection_is_renamed_and_deleted_without_a_text_paid_for_again(
    site: Site, provider: EmbeddingServer
) -> None:
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        reading.wait_equal()
    for words in (("rename", "documents", "notes"), ("delete", "documents", "--yes")):
        busy = done(site, "collections", *words, code=5)
        assert f"(process id {daemon.pid})" in busy.err
        assert "stop it first" in busy.err
    # Whatever is not at work may be changed beside the daemon.
    done(site, "collections", "create", "extra", "--metadata", '{"topic": "law"}', "--space", "l2")
    done(site, "collections", "rename", "extra", "more")
    rows = told(site, "collections")
    assert [(row["name"], row["count"], row["is_configured"]) for row in rows] == [
        ("documents", 1, True),
        ("more", 0, False),
    ]
    assert (rows[1]["space"], rows[1]["model"], rows[1]["metadata"]["topic"]) == ("l2", "unheard-of-model", "law")
    assert daemon.terminate() == 0

    requests = provider.requests
    renamed = told(site, "collections", "rename", "documents", "notes")
    assert (renamed["changed_file"], renamed["to_change"]) == ("ingestor.toml", "")
    assert (site.root / "ingestor.toml").read_text() == TOML.format("notes")
    report = site.sync()
    # The ledger knows the collection by Chroma's id, which stays: nothing is written again.
    assert (report["documents"]["unchanged"], sum(report["chunks"].values())) == (1, 0)
    deleted = done(site, "collections", "delete", "notes", "--yes")
    assert "fills it from the folder for nothing" in deleted.out
    report = site.sync()
    assert (report["chunks"]["reused"], report["embedding"]["requests"]) == (1, 0)
    assert provider.requests == requests


def test_a_name_that_the_environment_sets_is_told_and_the_old_one_is_not_filled_again(
    site: Site, provider: EmbeddingServer
) -> None:
    site.settings["INGESTOR_CHROMA__COLLECTION"] = "documents"
    site.sync()
    requests = provider.requests
    renamed = told(site, "collections", "rename", "documents", "notes")
    assert renamed["to_change"] == "set INGESTOR_CHROMA__COLLECTION=notes in the environment"
    assert (site.root / "ingestor.toml").read_text() == TOML.format("documents")

    refused = done(site, "sync", code=2)
    assert "the settings name the collection 'documents'" in refused.err
    assert "set chroma.collection (INGESTOR_CHROMA__COLLECTION) to notes" in refused.err
    assert [row["name"] for row in told(site, "collections")] == ["notes"]

    site.settings["INGESTOR_CHROMA__COLLECTION"] = "notes"
    assert sum(site.sync()["chunks"].values()) == 0
    # That is forgotten now: somebody may want a new collection of the old name.
    site.settings["INGESTOR_CHROMA__COLLECTION"] = "documents"
    assert site.sync()["chunks"]["reused"] == 1
    assert provider.requests == requests


def test_databases_are_made_listed_and_deleted_and_options_come_after_their_command(site: Site) -> None:
    done(site, "databases", "create", "archive")
    assert done(site, "databases").out == "  archive\n* default_database\n"
    assert "this cannot be undone" in done(site, "databases", "delete", "archive", code=2).err
    done(site, "databases", "delete", "archive", "--yes")
    misplaced = done(site, "collections", "--json", "create", "extra", code=2)
    assert "for example: ingestor collections create --json" in misplaced.err
