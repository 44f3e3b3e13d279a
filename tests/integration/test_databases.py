"""Databases and tenants of a real server and of a folder in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.adapters.chroma_server import ChromaServer
from ingestor.app import collections, databases
from ingestor.core.errors import ConfigError
from ingestor.settings import ChromaSettings, Settings
from tests.daemon import free_port


@pytest.fixture(scope="module", params=["http", "persistent"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("databases")
    server = ChromaServer(folder / "served", free_port())
    if request.param == "http":
        server.start()
    yield Settings(data_dir=folder, chroma=ChromaSettings(mode=request.param, port=server.port or 1))
    server.stop()


def elsewhere(settings: Settings, **values: str) -> Settings:
    return settings.model_copy(update={"chroma": settings.chroma.model_copy(update=values)})


def names(settings: Settings, tenant: str | None = None) -> list[tuple[str, bool]]:
    return [(database.name, database.is_configured) for database in databases.listed(settings, tenant)]


def test_databases_are_made_filled_refused_while_they_hold_something_and_deleted(settings: Settings) -> None:
    databases.create(settings, "archive", None, makes_tenant=False)
    assert names(settings) == [("archive", False), ("default_database", True)]
    archive = elsewhere(settings, database="archive")
    collections.create(archive, "letters", {}, {}, is_foreign=False)
    assert [row.name for row in collections.listed(archive)] == ["letters"]
    with pytest.raises(ConfigError, match="'archive' holds 1 collections"):
        databases.delete(settings, "archive", None)
    collections.delete(archive, "letters")
    databases.delete(settings, "archive", None)
    assert names(settings) == [("default_database", True)]


def test_a_tenant_is_made_with_its_first_database(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="there is no tenant 'press'"):
        databases.create(settings, "archive", "press", makes_tenant=False)
    databases.create(settings, "archive", "press", makes_tenant=True)
    databases.create(settings, "drafts", "press", makes_tenant=True)
    assert names(settings, "press") == [("archive", False), ("drafts", False)]
    assert names(settings) == [("default_database", True)]
    collections.create(elsewhere(settings, tenant="press", database="archive"), "letters", {}, {}, is_foreign=True)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda s: databases.create(s, "default_database", None, makes_tenant=False), "already"),
        (lambda s: databases.create(s, "ab", None, makes_tenant=False), "no database can be called 'ab'"),
        (lambda s: databases.create(s, "fine", "ab", makes_tenant=True), "no tenant can be called 'ab'"),
        (lambda s: databases.delete(s, "default_database", None), "is the configured database"),
        (lambda s: databases.delete(s, "nothing", None), "there is no database 'nothing'"),
        (lambda s: databases.listed(s, "nobody"), "there is no tenant 'nobody'"),
    ],
    ids=range(6),
)
def test_what_cannot_be_done_to_a_database_is_told(
    settings: Settings, attempt: Callable[[Settings], object], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        attempt(settings)
    assert words in refused.value.sentence
    assert refused.value.remedy


def test_nothing_of_it_is_done_in_memory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in memory"):
        databases.listed(Settings(data_dir=tmp_path, chroma=ChromaSettings(mode="memory")), None)
