"""Two machines and one Chroma: each collection has one owner, and nobody adopts or deletes what another has written."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.core import owning
from tests.checker import COLLECTION, Row, differences, document_ids, served, shown
from tests.daemon import Site, eventually, free_port, provider_settings
from tests.embedding_server import EmbeddingServer

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

pytestmark = pytest.mark.slow

DIMENSIONS = 16
FILES = 130
OWNER_KEYS = {value for name, value in vars(owning).items() if name.endswith("_KEY")}


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    server = ChromaServer(tmp_path_factory.mktemp("chroma"), free_port())
    server.start()
    yield server
    server.stop()


@contextmanager
def connected(port: int) -> Iterator["ClientAPI"]:
    client = connect("http", port=port, timeout_seconds=20)
    yield client
    disconnect(client)


class Machine:
    """A machine with a folder, a data folder and settings of its own."""

    def __init__(self, site: Site, name: str, provider: EmbeddingServer) -> None:
        self.site = site
        self.name = name
        self.provider = provider

    def fill(self, count: int = FILES) -> "Machine":
        for number in range(count):
            text = f"# Text {number}\n\nThe text {number} of the machine {self.name}.\n"
            (self.site.folder / f"{self.name}-{number}.md").write_text(text, encoding="utf-8")
        return self

    def rows(self) -> list[Row]:
        with served(self.site.port) as read:
            return read()

    def assert_equal(self) -> None:
        """The collection is this machine's folder."""
        found = differences(self.site.folder, self.rows(), dimensions=DIMENSIONS)
        assert not found, shown(found)

    def assert_refused(self, *command: str, code: int = 2) -> str:
        done = self.site.command(*command)
        assert done.code == code, done.err
        line = done.err.splitlines()[-1]
        assert line.startswith("error: ")
        return line


@pytest.fixture
def machines(tmp_path: Path, chroma: ChromaServer, provider: EmbeddingServer) -> Iterator[tuple[Machine, Machine]]:
    with connected(chroma.port) as client:
        for collection in client.list_collections():
            client.delete_collection(collection.name)
    settings = provider_settings(provider, CHROMA__MODE="http", CHROMA__PORT=chroma.port)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with Site(tmp_path / "one", settings) as first, Site(tmp_path / "two", dict(settings)) as second:
        first.port = second.port = chroma.port
        yield Machine(first, "one", provider), Machine(second, "two", provider)


def test_a_second_machine_is_refused_and_the_records_of_the_first_stay(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.fill().site.sync()
    one.assert_equal()
    texts = one.provider.texts
    line = two.fill().assert_refused("sync")
    assert "--take-over" in line
    assert "chroma.collection" in line
    assert str(one.site.data_dir) in line
    one.assert_equal()
    assert one.provider.texts == texts, "nothing is embedded for a collection that is refused"
    for command in (["run"], ["rebuild", "--yes"], ["verify", "--repair"], ["prune"]):
        assert "--take-over" in two.assert_refused(*command), command
    one.assert_equal()
    assert one.site.sync()["documents"]["unchanged"] == FILES


def owner_file(machine: Machine) -> Path:
    return machine.site.data_dir / "owner.json"


def lose_ledger(machine: Machine) -> None:
    for file in machine.site.data_dir.glob("ledger*"):
        file.unlink()


def collection_metadata(machine: Machine) -> dict[str, Any]:
    with connected(machine.site.port) as client:
        return dict(client.get_collection(COLLECTION, embedding_function=None).metadata or {})


def set_collection_metadata(machine: Machine, metadata: dict[str, Any]) -> None:
    with connected(machine.site.port) as client:
        client.get_collection(COLLECTION, embedding_function=None).modify(metadata=metadata)


def forget_owners(machine: Machine) -> None:
    """Make everything as a version of before has left it, which knew no owners."""
    owner_file(machine).unlink()
    held = collection_metadata(machine)
    set_collection_metadata(machine, {key: value for key, value in held.items() if key not in OWNER_KEYS})
    with closing(sqlite3.connect(machine.site.data_dir / "ledger.sqlite3")) as ledger, ledger:
        assert ledger.execute("DELETE FROM notes WHERE name = 'owner_id'").rowcount == 1


def test_what_is_lost_is_recognised_by_what_is_left_and_nothing_is_embedded(
    machines: tuple[Machine, Machine],
) -> None:
    one, _ = machines
    one.fill(12).site.sync()
    texts, ids = one.provider.texts, document_ids(one.rows())
    owner = json.loads(owner_file(one).read_text())["id"]

    lose_ledger(one)
    one.site.sync()
    one.assert_equal()

    owner_file(one).unlink()
    one.site.sync()
    assert json.loads(owner_file(one).read_text())["id"] == owner

    owner_file(one).write_text("{", encoding="utf-8")
    one.site.sync()
    assert json.loads(owner_file(one).read_text())["id"] == owner

    lose_ledger(one)
    owner_file(one).unlink()
    line = one.assert_refused("sync")
    assert "lost its owner file and its ledger" in line
    assert "--take-over" in line
    one.assert_equal()
    one.site.command("sync", "--take-over")
    one.assert_equal()
    assert json.loads(owner_file(one).read_text())["id"] != owner
    assert one.site.sync()["documents"]["unchanged"] == 12

    shutil.rmtree(one.site.data_dir)
    assert "--take-over" in one.assert_refused("run")
    one.site.command("sync", "--take-over")
    one.assert_equal()
    (one.site.folder / "one-0.md").write_text("# Another\n\nA text that was never seen.\n", encoding="utf-8")
    (one.site.folder / "one-1.md").unlink()
    assert one.site.sync()["documents"] == {
        "added": 0, "changed": 1, "renamed": 0, "deleted": 1, "unchanged": 10, "problems": 0
    }  # fmt: skip
    one.assert_equal()
    assert one.provider.texts == texts + 1
    ids.pop("one-1.md")
    assert document_ids(one.rows()) == ids, "documents keep their ids whatever was lost"


def test_whoever_takes_a_collection_over_has_it_alone(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.fill(3).site.sync()
    two.fill(5).assert_refused("sync")
    assert two.site.command("status", "--json").json()["refused"]
    assert "trouble" in two.site.command("status").out
    done = two.site.command("sync", "--take-over", "--json")
    assert done.code == 0, done.err
    two.assert_equal()
    assert not two.site.command("status", "--json").json()["refused"]
    assert str(two.site.data_dir) in one.assert_refused("sync")
    two.assert_equal()


def test_a_collection_of_before_belongs_to_the_ledger_that_speaks_of_it(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.fill(6).site.sync()
    forget_owners(one)
    two.fill(6)
    assert "documents of an unknown data folder" in two.assert_refused("sync")
    texts = one.provider.texts
    assert one.site.sync()["documents"]["unchanged"] == 6
    assert str(one.site.data_dir) in two.assert_refused("sync")
    one.assert_equal()
    forget_owners(one)
    lose_ledger(one)
    assert "--take-over" in one.assert_refused("sync")
    assert one.site.command("sync", "--take-over").code == 0
    one.assert_equal()
    assert one.provider.texts == texts


def test_records_that_people_have_added_are_no_obstacle_to_the_first_sync(machines: tuple[Machine, Machine]) -> None:
    one, _ = machines
    done = one.fill(2).site.command("add", "--document", "A note.", "--id", "note")
    assert done.code == 0, done.err
    one.site.sync()
    assert one.site.command("count").out.split()[0] == "3"


def test_two_machines_with_a_collection_each_share_a_server(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    two.site.settings["INGESTOR_CHROMA__COLLECTION"] = "papers"
    one.fill(4).site.sync()
    two.fill(4).site.sync()
    one.assert_equal()
    assert [machine.site.sync()["documents"]["unchanged"] for machine in machines] == [4, 4]
    assert two.site.command("query", "text 1", INGESTOR_CHROMA__COLLECTION=COLLECTION).code == 0
    owners = {row["name"]: row["owner"] for row in one.site.command("collections", "--json").json()}
    assert str(one.site.data_dir) in owners[COLLECTION]
    assert str(two.site.data_dir) in owners["papers"]


def test_the_collection_of_another_machine_is_neither_renamed_nor_deleted_by_mistake(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    one.fill(2).site.sync()
    two.assert_refused("collections", "delete", COLLECTION, "--yes")
    two.assert_refused("collections", "rename", COLLECTION, "mine")
    one.assert_equal()
    found = two.site.command("doctor", "--json")
    told = [each for each in found.json() if str(one.site.data_dir) in each["sentence"]]
    assert [each["level"] for each in told] == ["error"], found.out
    assert str(one.site.data_dir) in one.site.command("doctor").out


def test_a_copied_data_folder_is_told_from_one_that_was_moved(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.fill(4).site.sync()
    shutil.copytree(one.site.data_dir, two.site.data_dir, dirs_exist_ok=True)
    two.fill(4)
    assert f"is a copy of {one.site.data_dir}" in two.assert_refused("sync")
    one.assert_equal()
    shutil.rmtree(two.site.data_dir)
    shutil.rmtree(two.site.folder)
    one.site.data_dir.rename(two.site.data_dir)
    one.site.folder.rename(two.site.folder)
    assert two.site.sync()["documents"]["unchanged"] == 4
    two.assert_equal()


def test_what_stands_in_a_collections_metadata_goes_with_it(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.fill(4).site.sync()
    before = collection_metadata(one)
    owner = {key: before[key] for key in ("ingestor_owner", "ingestor_data_dir", "ingestor_sources")}
    assert owner["ingestor_sources"] == str(one.site.folder)
    done = one.site.command("collections", "modify", COLLECTION, "--metadata", '{"topic": "law"}')
    assert done.code == 0, done.err
    assert one.site.command("prune").code == 0
    assert collection_metadata(one).items() >= {**owner, "topic": "law"}.items()
    done = one.site.command("rebuild", "--yes", INGESTOR_CHROMA__HNSW__SPACE="l2")
    assert done.code == 0, done.err
    assert collection_metadata(one).items() >= {**owner, "topic": "law"}.items()
    assert "--take-over" in two.fill(4).assert_refused("sync")
    assert one.site.command("rebuild", "--rollback", INGESTOR_CHROMA__HNSW__SPACE="l2").code == 0
    assert collection_metadata(one).items() >= owner.items()
    assert one.site.sync()["documents"]["unchanged"] == 4


def test_a_killed_daemon_is_followed_at_once_and_one_that_was_taken_over_ends(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    daemon = one.fill(3).site.start("run").wait_ready()
    eventually(lambda: len(one.rows()) == 3, daemon.log)
    assert collection_metadata(one)["ingestor_beat"] > 0
    daemon.kill()
    assert one.site.sync()["documents"]["unchanged"] == 3
    assert collection_metadata(one)["ingestor_beat"] == 0, "a sync that has ended keeps nobody waiting"
    again = one.site.start("run").wait_ready()
    assert "whose daemon is at work" in two.assert_refused("sync")
    assert two.fill(3).site.command("sync", "--take-over").code == 0
    eventually(lambda: again.process.poll() is not None, again.log)
    assert again.process.returncode == 2
    assert "belongs to the data folder" in again.log().splitlines()[-1]
    two.assert_equal()


def test_sources_of_one_data_folder_share_a_collection(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    for name in ("notes", "papers"):
        (one.site.root / name).mkdir()
        (one.site.root / name / "a.md").write_text(f"# {name}\n\nA text of {name}.\n", encoding="utf-8")
    sources = "".join(f'[[sources]]\nfolder = "{name}"\n' for name in ("notes", "papers"))
    (one.site.root / "ingestor.toml").write_text(sources, encoding="utf-8")
    one.site.sync()
    folders = ", ".join(str(one.site.root / name) for name in ("notes", "papers"))
    assert collection_metadata(one)["ingestor_sources"] == folders
    assert folders in two.fill(1).assert_refused("sync")
    (one.site.data_dir / "ledger-papers.sqlite3").unlink()
    assert one.site.sync()["documents"] | {"problems": 0} == {
        "added": 0, "changed": 0, "renamed": 0, "deleted": 0, "unchanged": 2, "problems": 0
    }  # fmt: skip
    assert one.site.command("prune").code == 0
    assert collection_metadata(one)["ingestor_sources"] == folders
