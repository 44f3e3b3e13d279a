"""Deaths while a document is forgotten: run again, it ends as if nothing had happened."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.chroma_cleaning import cleaned
from ingestor.adapters.chroma_traces import ChromaTraces
from ingestor.adapters.journal import Journal
from ingestor.adapters.ledger import SqliteLedger, note_in
from ingestor.adapters.vectors import SqliteVectors
from ingestor.app import forget as forget_module
from ingestor.app import prune as prune_module
from ingestor.engine.pipeline import COLLECTION_NOTE
from ingestor.settings import Settings, load_settings
from tests.checker import at_rest
from tests.daemon import KEY, Site, assert_equal, provider_settings
from tests.embedding_server import EmbeddingServer
from tests.mortal import Crash, Fate

pytestmark = pytest.mark.slow

DIMENSIONS = 64
WORDS = "Die Kombination des Tresors im Keller ist neunzehn, zweiundvierzig, sieben und drei."
PATH = "geheim/tresor.md"
STEPS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (ChromaCatalog, ("rename", "delete")),
    (ChromaTraces, ("delete",)),
    (Journal, ("write",)),
    (SqliteLedger, ("rewrite_file",)),
    (SqliteVectors, ("forget",)),
)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("deaths"), provider_settings(server)) as site:
        (site.folder / "geheim").mkdir()
        (site.folder / PATH).write_text(f"# Der Tresor\n\n{WORDS}\n")
        for edition in range(2):
            for number in range(30):
                (site.folder / f"text-{number}.md").write_text(f"# Text {number}\n\nIts edition is {edition}.\n")
            site.sync()
        yield site


def copied(site: Site, root: Path, server: EmbeddingServer) -> Settings:
    """Settings of a site that is as that one."""
    for name in (site.folder.name, site.data_dir.name):
        shutil.copytree(site.root / name, root / name)
    embedding = {
        "provider": "openai",
        "base_url": server.base_url,
        "api_key": KEY,
        "model": "unheard-of-model",
        "dimensions": DIMENSIONS,
    }
    places = {"watch_dir": root / site.folder.name, "data_dir": root / site.data_dir.name}
    return load_settings(None, places | {f"embedding.{name}": value for name, value in embedding.items()}).settings


def assert_sound(settings: Settings) -> None:
    """One collection, equal to the folder, of which the ledger speaks, and no other graph."""
    with closing(sqlite3.connect(settings.chroma_path / "chroma.sqlite3")) as connection:
        rows = connection.execute("SELECT id, name FROM collections").fetchall()
    assert [name for _, name in rows] == ["documents"]
    assert note_in(settings.data_dir / "ledger.sqlite3", COLLECTION_NOTE) == rows[0][0]
    assert len(list(settings.chroma_path.glob("*/header.bin"))) == 1
    assert_equal(settings.watch_dir, at_rest(settings.chroma_path), dimensions=DIMENSIONS)


def mortal(monkeypatch: pytest.MonkeyPatch, fate: Fate) -> None:
    """Let the process die at a call to the outside, as fate has it."""

    def dying(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the step takes
            with fate.call(name):
                return original(*arguments, **named)

        return call

    for kind, names in STEPS:
        for name in names:
            monkeypatch.setattr(kind, name, dying(name, getattr(kind, name)))
    monkeypatch.setattr(prune_module, "cleaned", dying("cleaned", cleaned))


@pytest.mark.parametrize(
    ("step", "turn"),
    [
        pytest.param("write", 1, id="the journal of what is forgotten"),
        pytest.param("delete", 1, id="the records deleted"),
        pytest.param("write", 2, id="the journal of the switch"),
        pytest.param("rename", 1, id="the old collection out of the way"),
        pytest.param("rename", 2, id="the new one in its place"),
        pytest.param("delete", 2, id="the old collection deleted"),
        pytest.param("cleaned", 1, id="the files of Chroma cleaned"),
        pytest.param("rewrite_file", 1, id="the ledger rewritten"),
        pytest.param("forget", 1, id="the vectors deleted"),
    ],
)
def test_a_forget_that_dies_after_any_step_is_completed_by_the_next(  # noqa: PLR0913, PLR0917 - fixtures
    site: Site, server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, turn: int
) -> None:
    texts = server.texts
    settings = copied(site, tmp_path, server)
    (settings.watch_dir / PATH).unlink()
    with monkeypatch.context() as patched:
        mortal(patched, Fate(turn, is_after=True, of=step))
        with pytest.raises(Crash):
            asyncio.run(forget_module.forget(settings, PATH))
    found = asyncio.run(forget_module.forget(settings, PATH))
    assert found.is_proven, found
    held = [file.read_bytes() for file in settings.data_dir.rglob("*") if file.is_file()]
    assert not [raw for raw in held if WORDS.encode() in raw or PATH.encode() in raw]
    assert_sound(settings)
    assert server.texts == texts
