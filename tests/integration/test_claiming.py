"""Claims of collections on a real server, of data folders that lie on made-up machines."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ingestor.adapters import chroma_sink
from ingestor.adapters.chroma_catalog import ChromaCatalog
from ingestor.adapters.chroma_client import connect, disconnect
from ingestor.adapters.chroma_server import ChromaServer
from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.owner_file import OwnerFile
from ingestor.app import owning
from ingestor.app.collection import claimed_sink
from ingestor.core.errors import ForeignCollection, ServiceUnavailable
from ingestor.core.fingerprint import document_id_of
from ingestor.core.model import Record
from ingestor.core.owning import BEAT_KEY, OWNER_KEY, PROCESS_KEY, STALE_SECONDS
from ingestor.settings import Settings
from tests.daemon import free_port

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

pytestmark = pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning:chromadb")

COLLECTION = "documents"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server = ChromaServer(tmp_path_factory.mktemp("chroma"), free_port())
    server.start()
    yield server.port
    server.stop()


@pytest.fixture
def client(port: int) -> Iterator["ClientAPI"]:
    client = connect("http", port=port, timeout_seconds=20)
    for collection in client.list_collections():
        client.delete_collection(collection.name)
    yield client
    disconnect(client)


class Machine:
    """A data folder on a machine of its own, whose processes claim the collection one after the other."""

    def __init__(self, client: "ClientAPI", root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.name = name
        self.data_dir = root / name / "data"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.monkeypatch = monkeypatch
        self.stack = ExitStack()

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(
            {
                "watch_dir": self.data_dir.parent / "watched",
                "data_dir": self.data_dir,
                "chroma": {"mode": "http", "port": 1},
                "embedding": {"provider": "openai", "model": "m", "dimensions": 2, "api_key": "k"},
            }
        )

    def start(self, *, takes_over: bool = False) -> ChromaSink:
        """A process that has claimed the collection. One that was started before is as good as killed."""
        self.stack = ExitStack()
        self.monkeypatch.setattr(owning, "place_of", lambda data_dir: f"{self.name}:{data_dir}")
        return claimed_sink([self.settings], self.client, self.stack, takes_over=takes_over)

    def end(self) -> None:
        self.stack.close()

    def copy_from(self, other: "Machine") -> None:
        """Have a copy of another machine's data folder, at a path that this machine does not have."""
        fields = json.loads((other.data_dir / "owner.json").read_text(encoding="utf-8"))
        (self.data_dir / "owner.json").write_text(json.dumps(fields | {"path": "/nowhere"}), encoding="utf-8")


@pytest.fixture
def one(client: "ClientAPI", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(client, tmp_path, "one", monkeypatch)


@pytest.fixture
def two(client: "ClientAPI", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(client, tmp_path, "two", monkeypatch)


def metadata_of(client: "ClientAPI") -> dict[str, Any]:
    return dict(client.get_collection(COLLECTION, embedding_function=None).metadata or {})


def change_metadata(client: "ClientAPI", **changes: object) -> None:
    held = {key: value for key, value in {**metadata_of(client), **changes}.items() if value is not None}
    client.get_collection(COLLECTION, embedding_function=None).modify(metadata=held)


def age(client: "ClientAPI", seconds: float) -> None:
    """Let the last sign of life be older."""
    change_metadata(client, **{BEAT_KEY: metadata_of(client)[BEAT_KEY] - round(seconds)})


def test_a_killed_process_is_followed_at_once_by_the_next_one_at_its_place(client: "ClientAPI", one: Machine) -> None:
    one.start()
    first = metadata_of(client)
    assert first[BEAT_KEY] > 0
    one.start()
    assert metadata_of(client)[PROCESS_KEY] != first[PROCESS_KEY]
    assert metadata_of(client)[OWNER_KEY] == first[OWNER_KEY]


def test_a_copy_waits_until_the_other_one_is_gone_or_is_refused_when_it_lives(
    client: "ClientAPI", one: Machine, two: Machine
) -> None:
    sink = one.start()
    two.copy_from(one)
    age(client, 10)
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match="may be at work") as waits:
            two.start()
    assert "try again in 1" in waits.value.remedy
    sink.keep()
    with pytest.raises(ForeignCollection, match="copy of this data folder is at work on the collection 'documents'"):
        two.start()
    sink.confirm()
    age(client, STALE_SECONDS)
    two.start()
    with pytest.raises(ForeignCollection, match="with a copy of this data folder is at work"):
        sink.keep()


def test_a_process_that_has_ended_in_order_is_waited_for_by_nobody(
    client: "ClientAPI", one: Machine, two: Machine
) -> None:
    one.start()
    one.end()
    assert metadata_of(client)[BEAT_KEY] == 0
    two.copy_from(one)
    two.start()
    two.end()
    # It stayed where it was, and somebody else with its id has worked meanwhile.
    with pytest.raises(ForeignCollection, match="was filled meanwhile by a copy of this data folder"):
        one.start()
    one.start(takes_over=True)
    one.end()
    with pytest.raises(ForeignCollection, match="was filled meanwhile"):
        two.start()


def test_images_of_one_disk_are_told_apart_by_their_processes(client: "ClientAPI", one: Machine) -> None:
    first = one.start()
    second = one.start()
    age(client, 10)
    with pytest.raises(ForeignCollection, match="is at work"):
        first.keep()
    with pytest.raises(ServiceUnavailable, match="may be at work"):
        one.start()
    second.keep()
    with pytest.raises(ForeignCollection, match="is at work"):
        one.start()
    age(client, STALE_SECONDS)
    one.start()


def test_a_sign_of_life_changes_nothing_else(client: "ClientAPI", one: Machine) -> None:
    sink = one.start()
    change_metadata(client, topic="law", embedding_dimensions=7)
    age(client, 50)
    sink.keep()
    found = metadata_of(client)
    assert (found["topic"], found["embedding_dimensions"]) == ("law", 7)
    assert found[BEAT_KEY] > 0
    held = dict(found)
    sink.confirm()
    assert metadata_of(client) == held, "to look is not to write"


def test_owner_keys_that_another_program_has_put_back_or_taken_away_are_written_again(
    client: "ClientAPI", one: Machine
) -> None:
    one.start()
    before = metadata_of(client)
    sink = one.start()
    change_metadata(client, **{PROCESS_KEY: before[PROCESS_KEY]})
    sink.keep()
    assert metadata_of(client)[PROCESS_KEY] != before[PROCESS_KEY]
    change_metadata(client, **{OWNER_KEY: None, PROCESS_KEY: None})
    sink.keep()
    assert metadata_of(client)[OWNER_KEY] == before[OWNER_KEY]


def test_of_two_newcomers_at_one_moment_one_has_the_collection(
    client: "ClientAPI", one: Machine, two: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.start()
    change_metadata(client, **{OWNER_KEY: None, PROCESS_KEY: None})
    both_have_looked = threading.Barrier(2)
    opened = chroma_sink.open_sink

    def open_when_both_have_looked(*arguments: Any, **named: Any) -> ChromaSink:  # noqa: ANN401 - whatever it takes
        both_have_looked.wait(20)
        return opened(*arguments, **named)

    monkeypatch.setattr("ingestor.app.collection.open_sink", open_when_both_have_looked)
    (one.data_dir / "owner.json").unlink()
    ends: dict[str, str] = {}

    def begin(machine: Machine) -> None:
        try:
            claimed_sink([machine.settings], machine.client, machine.stack)
            ends[machine.name] = "has it"
        except ForeignCollection:
            ends[machine.name] = "is refused"

    threads = [threading.Thread(target=begin, args=[machine]) for machine in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ends.values()) == ["has it", "is refused"]
    (winner,) = (machine for machine in (one, two) if ends[machine.name] == "has it")
    assert metadata_of(client)[OWNER_KEY] == OwnerFile(winner.data_dir).id


def test_a_collection_that_was_taken_over_is_left_alone_by_whoever_had_it(
    client: "ClientAPI", one: Machine, two: Machine
) -> None:
    sink = one.start()
    other = two.start(takes_over=True)
    for look in (sink.confirm, sink.keep):
        with pytest.raises(ForeignCollection, match="belongs to the data folder"):
            look()
    assert other.ours.former == {OwnerFile(one.data_dir).id[:8]}
    record = document_id_of("", "f" * 32, sink.ours.tag)
    assert other.ours.has(f"{record}:1", {"document_id": record})
    assert not sink.ours.has("x.f:1", {"document_id": "x.f"})
    two.end()
    one.end()
    assert metadata_of(client)[OWNER_KEY] == OwnerFile(two.data_dir).id


def test_the_first_vectors_note_their_length_beside_what_is_there_by_then(client: "ClientAPI", one: Machine) -> None:
    sink = one.start()
    change_metadata(client, embedding_dimensions=0)
    sink.reopen()
    change_metadata(client, topic="law")
    sink.add([Record("a:1", "text", {"document_id": "a"}, "")], np.ones((1, 2), dtype=np.float32))
    assert metadata_of(client)["topic"] == "law"
    assert metadata_of(client)["embedding_dimensions"] == 2


def test_a_key_that_is_changed_beside_a_sign_of_life_stays_changed(
    client: "ClientAPI", one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.start()
    row = ChromaCatalog(client).find(COLLECTION)
    assert row is not None
    found_before = [dict(row.metadata)]

    def write_what_was_found_before(_seconds: float) -> None:
        if found_before:
            client.get_collection(COLLECTION, embedding_function=None).modify(metadata=found_before.pop())

    monkeypatch.setattr("ingestor.adapters.chroma_catalog.time.sleep", write_what_was_found_before)
    ChromaCatalog(client).modify(row, {"topic": "law"}, {})
    assert not found_before
    assert metadata_of(client)["topic"] == "law"
