"""Commands on collections and records that are killed just before or just after a call to the outside."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import COMMAND_SECONDS, KEY, Site, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 8
TOML = '[chroma]\ncollection = "{}" # ours\n'
MORTAL = """
import os, sys
from importlib import import_module
module, owner, name, is_after = sys.argv[1:5]
place = getattr(import_module(module), owner) if owner else import_module(module)
call = getattr(place, name)
def dies(*given, **named):
    if is_after == "after":
        call(*given, **named)
    os._exit(9)
setattr(place, name, dies)
sys.argv[1:5] = []
from ingestor.cli import main
main()
"""
"""A command that dies before or after its first call of something: as by SIGKILL, nothing is cleaned up."""


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory, provider: EmbeddingServer) -> Path:
    """A folder that is indexed, to be copied."""
    with Site(tmp_path_factory.mktemp("synced"), provider_settings(provider)) as site:
        (site.folder / "harbour.md").write_text("A harbour at dawn.\n")
        (site.root / "ingestor.toml").write_text(TOML.format("documents"))
        site.sync()
        return site.root


@pytest.fixture
def site(tmp_path: Path, synced: Path, provider: EmbeddingServer) -> Iterator[Site]:
    shutil.copytree(synced, tmp_path, dirs_exist_ok=True)
    with Site(tmp_path, provider_settings(provider)) as site:
        yield site


def die(site: Site, place: tuple[str, str, str], when: str, *arguments: str) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", MORTAL, *place, when, *arguments],
        cwd=site.root,
        env=site.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )
    assert killed.returncode == 9, killed.stderr


def names(site: Site) -> list[str]:
    rows: list[dict[str, Any]] = site.command("collections", "--json").json()
    return [row["name"] for row in rows]


CATALOG = ("ingestor.adapters.chroma_catalog", "ChromaCatalog", "rename")
SETTINGS = ("ingestor.app.collections", "", "replace_settings")


@pytest.mark.parametrize(
    ("place", "when"), [(CATALOG, "before"), (CATALOG, "after"), (SETTINGS, "after")], ids=["first", "between", "last"]
)
def test_a_rename_that_is_killed_never_fills_a_new_collection_unasked(
    site: Site, provider: EmbeddingServer, place: tuple[str, str, str], when: str
) -> None:
    requests = provider.requests
    die(site, place, when, "collections", "rename", "documents", "notes")
    is_renamed, is_set = (place, when) != (CATALOG, "before"), place == SETTINGS
    assert (site.root / "ingestor.toml").read_text() == TOML.format("notes" if is_set else "documents")

    if is_renamed and not is_set:
        refused = site.command("sync")
        assert refused.code == 2
        assert "the settings name the collection 'documents'" in refused.err
        assert "`ingestor collections rename` has left it as 'notes'" in refused.err
        assert names(site) == ["notes"]
        # The same command again ends what was begun.
        again = site.command("collections", "rename", "documents", "notes", "--json")
        assert again.code == 0, again.err
        assert again.json()["changed_file"] == "ingestor.toml"
        assert (site.root / "ingestor.toml").read_text() == TOML.format("notes")

    report = site.sync()
    assert (report["documents"]["unchanged"], sum(report["chunks"].values())) == (1, 0)
    assert names(site) == ["notes" if is_renamed else "documents"]
    assert not (site.data_dir / "renamed.json").exists()
    assert provider.requests == requests


RECORDS = ("ingestor.adapters.chroma_records", "ChromaRecords", "put")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_add_that_is_killed_costs_no_text_twice_and_disturbs_no_file(
    site: Site, provider: EmbeddingServer, when: str
) -> None:
    die(site, RECORDS, when, "add", "--document", f"A pier, {when}.", "--id", "pier")
    paid = provider.texts
    found = site.command("verify", "--json").json()
    assert (found["is_sound"], found["foreign_records"]) == (True, int(when == "after"))
    again = site.command("add", "--document", f"A pier, {when}.", "--id", "pier", "--upsert", "--json")
    assert again.code == 0, again.err
    assert provider.texts == paid
