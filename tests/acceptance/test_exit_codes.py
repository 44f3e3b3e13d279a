"""Every way to fail has its exit code, and one line that says what to do; nobody sees a traceback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.adapters.ledger import SqliteLedger
from ingestor.engine.reconcile import UNREADABLE_NOTE
from tests.checker import document_ids
from tests.daemon import KEY, Finished, Site, assert_equal, eventually, free_port, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

QUIET = {"INGESTOR_LOG__LEVEL": "error"}


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(server) | QUIET) as site:
        (site.folder / "good.txt").write_text("A good file.", encoding="utf-8")
        yield site


def assert_one_line(done: Finished, code: int, *words: str) -> None:
    assert done.code == code, (done.out, done.err)
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert "Traceback" not in done.err
    assert KEY not in done.err
    assert not done.out


@pytest.mark.parametrize("command", ["run", "sync", "status", "config"])
def test_an_unknown_setting_is_named_with_the_one_that_may_be_meant(site: Site, command: str) -> None:
    done = site.command(command, INGESTOR_WATCH__QIET_SECONDS="2")

    assert_one_line(done, 2, "INGESTOR_WATCH__QIET_SECONDS", "INGESTOR_WATCH__QUIET_SECONDS")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("INGESTOR_CHROMA__PORT", "no-port"),
        ("INGESTOR_CHUNK__MAX_TOKENS", "3"),
        ("INGESTOR_EMBEDDING__PROVIDER", "nobody"),
        ("INGESTOR_EMBEDDING__BASE_URL", "ftp://127.0.0.1"),
        ("INGESTOR_CHROMA__COLLECTION", "!"),
    ],
)
def test_a_wrong_value_is_named_and_not_repeated(site: Site, setting: str, value: str) -> None:
    assert_one_line(site.command("sync", **{setting: value}), 2, setting)


@pytest.mark.parametrize("command", ["run", "sync"])
def test_a_watched_folder_that_is_missing_is_no_empty_folder(site: Site, command: str) -> None:
    site.sync()
    before = site.at_rest()

    done = site.command(command, "nowhere")

    assert_one_line(done, 2, "nowhere")
    site.folder.rename(site.root / "unmounted")
    assert_one_line(site.command(command), 4, "see that its disk is mounted")
    assert site.at_rest() == before


def test_a_refused_key_and_a_missing_key(site: Site) -> None:
    assert_one_line(site.command("sync", INGESTOR_EMBEDDING__API_KEY="wrong"), 2, "INGESTOR_EMBEDDING__API_KEY")
    no_key = {"INGESTOR_EMBEDDING__API_KEY": "", "INGESTOR_EMBEDDING__BASE_URL": ""}
    assert_one_line(site.command("sync", **no_key), 2, "INGESTOR_EMBEDDING__API_KEY")


def test_another_model_for_a_collection_that_is_there(site: Site) -> None:
    site.sync()

    assert_one_line(site.command("sync", INGESTOR_EMBEDDING__MODEL="another"), 2, "another", "unheard-of-model")
    assert_equal(site.folder, site.at_rest(), dimensions=64)


def test_a_query_before_anything_was_indexed(site: Site) -> None:
    assert_one_line(site.command("query", "anything"), 2, "ingestor sync")


def test_a_binary_file_is_a_problem_until_it_is_mended(site: Site) -> None:
    binary = site.folder / "photo.txt"
    binary.write_bytes(bytes(range(256)) * 8)

    done = site.command("sync")

    assert done.code == 3
    assert "Traceback" not in done.err
    (said,) = [line for line in done.err.splitlines() if " files/s, " not in line]  # but for the progress of a slow run
    assert "ingestor problems" in said
    assert document_ids(site.at_rest()).keys() == {"good.txt"}
    listed = site.command("problems", "--json")
    assert listed.code == 3
    (problem,) = listed.json()
    assert problem["path"] == "photo.txt"
    assert problem["kind"] == "UndecodableDocument"
    assert problem["stage"] == "decode"
    assert problem["reason"]
    assert problem["attempts"] == 1
    assert site.command("sync").code == 3

    still = site.command("retry", "--json")
    assert still.code == 3
    assert still.json()["documents"]["problems"] == 1
    assert site.command("problems", "--json").json()[0]["attempts"] == 2

    binary.write_text("No photo, but text.", encoding="utf-8")
    mended = site.command("retry", "photo.txt", "--json")
    assert mended.code == 0, mended.err
    nothing = site.command("problems", "--json")
    assert (nothing.code, nothing.json()) == (0, [])
    rows = site.at_rest()
    assert document_ids(rows).keys() == {"good.txt", "photo.txt"}
    assert_equal(site.folder, rows, dimensions=64)


def test_a_retry_beside_a_running_daemon_is_done_by_the_daemon(site: Site, server: EmbeddingServer) -> None:
    server.reject_marker = "forbidden"
    (site.folder / "bad.txt").write_text("This is forbidden.", encoding="utf-8")
    daemon = site.start("run")
    eventually(
        lambda: site.command("problems", "--json").code == 3, lambda: f"no problem is listed:\n{daemon.log()[-2_000:]}"
    )
    (problem,) = site.command("problems", "--json").json()
    assert (problem["path"], problem["kind"]) == ("bad.txt", "RejectedByModel")
    server.reject_marker = ""

    queued = site.command("retry", "--json")

    assert queued.code == 0
    assert queued.json() == {"queued": ["bad.txt"]}
    with site.reading() as collection:
        collection.wait_equal()
    assert site.command("problems", "--json").code == 0
    assert daemon.terminate() == 0


def test_an_endpoint_out_of_reach_ends_a_sync_and_loses_nothing(site: Site) -> None:
    site.sync()
    names = {f"late-{number:02}.txt" for number in range(40)}
    for name in names:
        (site.folder / name).write_text(f"{name} comes while the endpoint is away.", encoding="utf-8")
    endpoint = f"http://127.0.0.1:{free_port()}/v1"

    done = site.command("sync", INGESTOR_EMBEDDING__BASE_URL=endpoint)

    assert done.code == 4, done.err
    *_, line = done.err.splitlines()
    assert line.startswith(f"error: not all is done: 40 documents wait for {endpoint} (since ")
    assert done.err.count("out of reach") <= 12, "the outage is told once, not once for each document"
    assert "0 problems" in done.out
    assert "Traceback" not in done.err
    assert document_ids(site.at_rest()).keys() == {"good.txt"}

    # Waiting is a state of the service, told once everywhere; a problem is a fault of a document.
    listed = site.command("problems")
    assert listed.code == 4
    (told,) = listed.out.splitlines()
    assert told.startswith(f"40 documents wait for {endpoint} (since ")
    assert ", next try at the next start): " in told
    assert site.command("problems", "--json").json() == []
    status = site.command("status", "--json").json()
    (wait,) = status["waits"]
    assert (wait["service"], wait["documents"], status["problems"], status["queued"]) == (endpoint, 40, 0, 40)
    assert f"40 documents wait for {endpoint}" in site.command("status").out
    waited = site.command("wait", str(site.folder), "--timeout-seconds", "0")
    assert waited.code == 4
    assert f"40 files wait for {endpoint}" in waited.err
    assert "late-01" not in waited.err

    (site.folder / "bad.txt").write_bytes(b"\0\0binary")
    done = site.command("sync", "--json", INGESTOR_EMBEDDING__BASE_URL=endpoint)
    assert done.code == 4
    assert (done.json()["documents"]["problems"], done.json()["waits"][0]["documents"]) == (1, 40)
    assert site.command("problems").code == 3
    (site.folder / "bad.txt").unlink()
    assert len(site.command("retry", "--json", INGESTOR_EMBEDDING__BASE_URL=endpoint).json()) > 0

    site.sync()

    assert_equal(site.folder, site.at_rest(), dimensions=64)


def test_a_folder_that_could_not_be_listed_is_a_problem_that_cannot_be_queued(site: Site) -> None:
    site.sync()
    ledger = SqliteLedger(site.data_dir / "ledger.sqlite3")
    ledger.set_note(UNREADABLE_NOTE, '{"closed": "Permission denied"}')
    ledger.close()

    listed = site.command("problems", "--json")

    assert listed.code == 3
    (problem,) = listed.json()
    assert (problem["path"], problem["kind"], problem["reason"]) == ("closed", "UnreadableFolder", "Permission denied")
    assert site.command("status", "--json").json()["problems"] == 1
    assert_one_line(site.command("retry", "closed"), 2, "no document at closed has a problem")
    assert site.sync()["documents"]["problems"] == 0
    assert site.command("problems").code == 0
