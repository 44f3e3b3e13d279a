"""Each check of `ingestor doctor`, over real folders, files and servers, and what it says of each fault."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingestor.adapters import chroma_client, inotify
from ingestor.adapters.inotify import Limits, Usage, read_limits, usage_of_others
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.adapters.ledger import SqliteLedger
from ingestor.adapters.mounts import Mount
from ingestor.adapters.watcher import Watcher
from ingestor.app.doctor import (
    chroma,
    clock,
    configuration,
    converters,
    embedding,
    events,
    folders,
    http,
    instances,
    ledgers,
    names,
    space,
    watching,
)
from ingestor.app.doctor.examination import CHECKS, examine
from ingestor.app.doctor.premises import Premises
from ingestor.core.diagnosing import Finding, Level, exit_code_of, well
from ingestor.core.errors import ConfigError
from ingestor.core.model import Change, Priority, Problem, Stage
from ingestor.engine.reconcile import LAST_RECONCILE_NOTE
from ingestor.settings import load_settings, secret_names
from tests.daemon import free_port
from tests.embedding_server import EmbeddingServer, Fault, FaultKind

KEY = "key-of-a-test"
Check = Callable[[Premises], Sequence[Finding]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "DASHSCOPE_API_KEY", "CREDENTIALS_DIRECTORY", "INGESTOR_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "watched_dir").mkdir()
    return tmp_path


def premises_of(*, is_calling: bool = True, tries_folders: bool = False, **values: Any) -> Premises:  # noqa: ANN401 - of any setting
    values = {"chroma__port": free_port(), "http__enabled": False, **values}
    loaded = load_settings(None, {name.replace("__", "."): value for name, value in values.items()})
    return Premises(loaded, loaded.settings.each(), is_calling, tries_folders)


def surveyed(**values: Any) -> Premises:  # noqa: ANN401 - as above
    premises = premises_of(**values)
    folders.check(premises)
    return premises


def told(findings: Sequence[Finding], level: Level) -> list[str]:
    return [f"{each.sentence} - {each.remedy}" for each in findings if each.level is level]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_fresh_folder_with_a_file_is_well_and_nothing_is_made_by_looking(place: Path) -> None:
    (place / "watched_dir" / "a.txt").write_text("a")
    before = tree(place)
    values = {"chroma.port": free_port(), "http.port": free_port()}
    loaded = load_settings(None, values | {"embedding.provider": "openai", "embedding.api_key": KEY})
    found = asyncio.run(examine(loaded, is_calling=False, tries_folders=True))
    assert exit_code_of(found) == 0, [each for each in found if each.level in {Level.WARNING, Level.ERROR}]
    assert {each.check for each in found} == {name for name, _ in CHECKS}
    assert tree(place) == before


def test_a_check_that_crashes_and_one_that_hangs_are_findings_and_the_others_are_made() -> None:
    never = threading.Event()

    def crash(_: Premises) -> Sequence[Finding]:
        raise KeyError("bug")

    def hang(_: Premises) -> Sequence[Finding]:
        never.wait()
        return []

    checks = [("crash", crash), ("hang", hang), ("fine", lambda _: [well("fine", "fine")])]
    found = asyncio.run(examine(load_settings(), checks=checks, seconds=0.3))
    never.set()
    assert [(each.check, each.level) for each in found] == [
        ("crash", Level.ERROR),
        ("hang", Level.WARNING),
        ("fine", Level.OK),
    ]
    assert "KeyError: 'bug'" in found[0].sentence
    assert "in crash" in found[0].facts["traceback"]


async def test_an_examination_that_is_told_to_end_leaves_nothing_behind(place: Path) -> None:
    canary = place / "watched_dir" / events.CANARY_FOLDER
    has_begun, never = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Premises) -> Sequence[Finding]:
        canary.mkdir()
        (canary / events.CANARY_FILE).touch()
        loop.call_soon_threadsafe(has_begun.set)
        never.wait()
        return []

    task = asyncio.create_task(examine(load_settings(), tries_folders=True, checks=[("events", hang)]))
    await has_begun.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    never.set()
    assert not canary.exists()


# The settings


def test_a_secret_in_a_file_that_others_may_read_is_told(place: Path) -> None:
    file = place / "ingestor.toml"
    file.write_text(f'[embedding]\nprovider = "openai"\napi_key = "{KEY}"\n')
    file.chmod(0o644)
    (sentence,) = told(configuration.check(premises_of()), Level.WARNING)
    assert "embedding.api_key is in" in sentence
    assert KEY not in sentence
    file.chmod(0o600)
    assert not told(configuration.check(premises_of()), Level.WARNING)
    assert told(configuration.check(premises_of()), Level.HINT)
    file.unlink()
    (place / ".env").write_text(f"OPENAI_API_KEY={KEY}\nINGESTOR_EMBEDDING__PROVIDER=openai\n")
    (place / ".env").chmod(0o644)
    assert "chmod 600 .env" in told(configuration.check(premises_of()), Level.WARNING)[0]


def test_every_secret_is_looked_after() -> None:
    assert secret_names() == ["embedding.api_key", "chroma.token", "http.token"]


def test_a_token_of_the_page_that_others_may_read_is_told(place: Path) -> None:
    (place / ".env").write_text("INGESTOR_HTTP__TOKEN=a-token-of-tests\n")
    (place / ".env").chmod(0o644)
    (sentence,) = told(configuration.check(premises_of()), Level.WARNING)
    assert sentence.startswith("http.token is in .env, which others may read")


ENDPOINT = {"embedding__provider": "openai", "embedding__api_key": KEY}


@pytest.mark.parametrize(
    ("values", "level", "words"),
    [
        (ENDPOINT | {"embedding__base_url": "http://api.example.org/v1"}, "warning", "unencrypted"),
        (ENDPOINT | {"embedding__base_url": "http://127.0.0.1/v1"}, "ok", "read from"),
        ({"chroma__mode": "http", "chroma__host": "db.example.org", "chroma__token": KEY}, "warning", "unencrypted"),
        ({"chroma__mode": "memory"}, "hint", "ends with the process"),
        ({"embedding__base_url": "http://127.0.0.1:1/v1"}, "hint", "embedding.base_url mean nothing"),
        (
            ENDPOINT | {"embedding__model": "new", "embedding__max_cost_per_day": 1.0},
            "error",
            "price of new is not known",
        ),
    ],
    ids=["plain-endpoint", "own-endpoint", "plain-chroma", "memory", "ignored", "price"],
)
def test_settings_that_are_unsafe_or_at_odds_are_told(values: dict[str, Any], level: str, words: str) -> None:
    found = configuration.check(premises_of(**values))
    assert any(words in sentence for sentence in told(found, Level(level))), found


# Folders, names, times


def test_folders_that_are_missing_or_cannot_be_used_are_errors(place: Path) -> None:
    found = folders.check(premises_of(watch_dir=place / "gone"))
    assert exit_code_of(found) == 2
    assert "gone does not exist" in told(found, Level.ERROR)[0]
    (place / "file").write_text("x")
    found = folders.check(premises_of(data_dir=place / "file" / "data"))
    assert {each.exit_code for each in found if each.level is Level.ERROR} == {2}
    assert "the data folder" in told(found, Level.ERROR)[0]


def test_files_that_will_be_problems_are_counted_and_named(place: Path) -> None:
    folder = place / "watched_dir"
    os.mkfifo(folder / "pipe")
    for number in range(7):
        (folder / f"large-{number}.txt").write_text("x" * 200)
    (folder / "link.txt").symlink_to("large-0.txt")
    found = folders.check(premises_of(watch__max_file_bytes=100))
    large, odd = told(found, Level.WARNING)
    assert large.startswith("files larger than watch.max_file_bytes: 7 (large-0.txt, ")
    assert "and 2 more" in large
    assert "pipe" in odd
    assert "paths that do not count: 1 (link.txt)" in told(found, Level.HINT)[0]
    (fact,) = (each.facts for each in found if each.facts.get("count") == 7)
    assert fact["paths"] == [f"large-{number}.txt" for number in range(7)]


def test_an_empty_folder_is_a_hint() -> None:
    (sentence,) = told(folders.check(premises_of()), Level.HINT)
    assert "no file of" in sentence


def test_names_that_are_no_text_are_named(place: Path) -> None:
    (place / "watched_dir" / os.fsdecode(b"latin-\xe9.txt")).write_text("x")
    (sentence,) = told(names.check(surveyed()), Level.WARNING)
    assert "names that are no UTF-8" in sentence
    assert "convmv" in sentence


def test_files_and_notes_from_the_future_are_told(place: Path) -> None:
    assert told(clock.check(surveyed()), Level.OK)
    file = place / "watched_dir" / "late.txt"
    file.write_text("x")
    os.utime(file, (time.time() + 9_000, time.time() + 9_000))
    (place / ".ingestor").mkdir()
    with contextlib.closing(SqliteLedger(place / ".ingestor" / "ledger.sqlite3")) as ledger:
        ledger.set_note(LAST_RECONCILE_NOTE, f'{{"at_seconds": {time.time() + 7_200}}}')
    found = clock.check(surveyed())
    assert "late.txt" in told(found, Level.HINT)[0]
    assert "the clock was set back" in told(found, Level.WARNING)[0]


# Watching


@pytest.mark.parametrize(
    ("polling", "level", "words"),
    [("auto", "hint", "it is polled"), ("never", "warning", "set watch.polling to auto"), ("always", "hint", "polled")],
)
def test_a_mount_that_sends_no_events_is_told(place: Path, polling: str, level: str, words: str) -> None:
    premises = surveyed(watch__polling=polling)
    mounts = (Mount("/", "ext4"), Mount(os.path.realpath(place / "watched_dir"), "nfs4"))
    found = list(watching._mounts(premises.surveys[0], mounts))
    (sentence,) = told(found, Level(level))
    assert words in sentence
    assert "nfs4" in sentence


def test_a_data_folder_on_a_network_is_told(place: Path) -> None:
    mounts = (Mount("/", "ext4"), Mount(os.path.realpath(place), "cifs"))
    found = list(watching._own(premises_of(), mounts))
    assert [each.level for each in found] == [Level.WARNING, Level.WARNING]
    assert "set data_dir" in found[0].remedy


@pytest.mark.parametrize(
    ("limits", "others", "level", "words"),
    [
        (Limits(1000, 128, 16_384), Usage(10, 1), "ok", "watches needed: 50"),
        (Limits(55, 128, 16_384), Usage(0, 1), "hint", "the limit is near"),
        (Limits(55, 128, 16_384), Usage(10, 1), "warning", "fs.inotify.max_user_watches=1048576"),
        (Limits(1000, 4, 16_384), Usage(0, 4), "warning", "fs.inotify.max_user_instances=1024"),
        (Limits(1000, 128, 500), Usage(0, 1), "hint", "fs.inotify.max_queued_events=16384"),
    ],
    ids=["enough", "near", "watches", "instances", "queue"],
)
def test_limits_of_inotify_are_held_against_the_tree(limits: Limits, others: Usage, level: str, words: str) -> None:
    found = list(watching._limits(50, 1, limits, others))
    assert any(words in sentence for sentence in told(found, Level(level))), found


def test_what_others_watch_is_counted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\nfd = libc.inotify_init()\n"
        "[libc.inotify_add_watch(fd, folder.encode(), 0x100) for folder in sys.argv[1:]]\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    watched = [str(place), str(place / "watched_dir")]
    with subprocess.Popen(
        [sys.executable, "-c", script, *watched], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.pid in set(inotify._pids_of_user())
        # What else runs on this machine comes and goes.
        monkeypatch.setattr(inotify, "_pids_of_user", lambda: iter([process.pid]))
        assert usage_of_others() == Usage(watches=2, instances=1)
        assert usage_of_others(process.pid) == Usage(watches=0, instances=0)
        assert process.stdin is not None
        process.stdin.close()
    assert read_limits().max_user_watches
    assert read_limits(place) == Limits(None, None, None)


def test_events_are_tried_and_nothing_is_left_behind(place: Path) -> None:
    (skipped,) = told(events.check(surveyed()), Level.HINT)
    assert "--in-folder" in skipped
    (place / ".ingestor").mkdir()
    before = tree(place)
    assert "an event came after" in told(events.check(surveyed()), Level.OK)[0]
    found = events.check(surveyed(tries_folders=True))
    assert "watched_dir" in told(found, Level.OK)[0]
    assert tree(place) == before


def test_events_that_do_not_come_are_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".ingestor").mkdir()
    monkeypatch.setattr(events, "_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(Watcher, "start", lambda _watcher, _emit: None)
    (sentence,) = told(events.check(surveyed()), Level.WARNING)
    assert "no event came" in sentence
    assert "watch.polling" in sentence
    assert not (place / ".ingestor" / events.CANARY_FOLDER).exists()


def test_what_a_killed_check_has_left_is_taken_away_and_what_somebody_put_there_stays(place: Path) -> None:
    canary = place / "watched_dir" / events.CANARY_FOLDER
    canary.mkdir()
    (canary / events.CANARY_FILE).touch()
    assert told(events.check(surveyed(tries_folders=True)), Level.OK)
    assert not canary.exists()
    canary.mkdir()
    (canary / "mine.txt").write_text("mine")
    assert "were not tried" in told(events.check(surveyed(tries_folders=True)), Level.HINT)[0]
    assert (canary / "mine.txt").read_text() == "mine"


def test_a_folder_whose_rules_would_take_the_canary_in_is_left_alone(place: Path) -> None:
    (place / "watched_dir" / ".ingestorignore").write_text("!.*\n!*.tmp\n")
    (sentence,) = told(events.check(surveyed(tries_folders=True)), Level.HINT)
    assert "let hidden and temporary files in" in sentence


# Converters, space


def test_formats_that_nothing_converts_are_counted(place: Path) -> None:
    for name in ("a.pdf", "b.pdf", "c.docx"):
        (place / "watched_dir" / name).write_bytes(b"x")
    (sentence,) = told(converters.check(surveyed(convert__formats=["html"])), Level.WARNING)
    assert "2 pdf, 1 docx" in sentence
    assert told(converters.check(surveyed()), Level.OK)


def test_a_disk_that_is_too_small_for_the_folder_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "watched_dir" / "a.txt").write_text("x" * 9_000_000)
    premises = surveyed()
    needed_bytes = space.estimated_bytes(premises.surveys[0])
    assert 100_000_000 < needed_bytes < 300_000_000
    for free_bytes, level in ((10**12, Level.OK), (needed_bytes + 1, Level.HINT), (needed_bytes - 1, Level.WARNING)):
        usage = type("Usage", (), {"free": free_bytes})
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        (finding,) = space.check(premises)
        assert finding.level is level
        assert finding.facts["needed_bytes"] == needed_bytes


# Instances, ledger


def test_a_process_that_died_and_one_that_works_are_told(place: Path) -> None:
    data_dir = place / ".ingestor"
    instance = Instance(data_dir)
    instance.acquire()
    instance.announce(InstanceRecord(os.getpid(), "run", "x", 0.0))
    assert f"process id {os.getpid()} works on" in told(instances.check(premises_of()), Level.OK)[0]
    record = (data_dir / "instance.json").read_bytes()
    instance.release()
    assert "nobody works on" in told(instances.check(premises_of()), Level.OK)[0]
    (data_dir / "instance.json").write_bytes(record)
    assert "ended without a word" in told(instances.check(premises_of()), Level.HINT)[0]


def test_a_stranger_in_the_chroma_folder_is_an_error(place: Path) -> None:
    folder = place / ".ingestor" / "chroma"
    folder.mkdir(parents=True)
    database = folder / "chroma.sqlite3"
    script = "import sys; file = open(sys.argv[1], 'r+b'); print('ready', flush=True); sys.stdin.read()"
    database.touch()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = instances.check(premises_of())
        assert process.stdin is not None
        process.stdin.close()
    assert f"process {process.pid} has the Chroma folder" in told(found, Level.ERROR)[0]
    assert exit_code_of(found) == 5


def test_a_ledger_is_read_and_none_is_made(place: Path) -> None:
    assert told(ledgers.check(premises_of()), Level.OK) == ["nothing has been indexed yet - "]
    assert not (place / ".ingestor").exists()
    (place / ".ingestor").mkdir()
    file = place / ".ingestor" / "ledger.sqlite3"
    with contextlib.closing(SqliteLedger(file)) as ledger:
        problem = Problem(Stage.EMBED, "ServiceUnavailable", "away", "wait", 1, 0.0)
        ledger.enqueue(["a.txt", "b.txt"], Change("", Priority.LIVE, 0.0, 0.0))
        first, second = ledger.lease(2, 1.0)
        ledger.release([Change(first.path, Priority.LIVE, 0.0, 0.0, 1, problem, first.generation)])
        assert second.path == "b.txt"
        ledger.hold(f"{number}.txt" for number in range(7))
    found = ledgers.check(premises_of())
    assert "documents in work when a process ended: 1" in told(found, Level.HINT)[0]
    assert [sentence.partition(" - ")[0] for sentence in told(found, Level.WARNING)] == [
        "documents with a problem: 1",
        "deletions that are held back: 7",
    ]
    file.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    assert exit_code_of(ledgers.check(premises_of())) == 6


# Chroma


def test_a_port_that_somebody_has_is_told_with_who_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = chroma.check(premises_of(chroma__port=taken.getsockname()[1]))
    assert exit_code_of(found) == 2
    assert f"process {os.getpid()}" in told(found, Level.ERROR)[0]


def test_a_server_elsewhere_that_is_away_is_told() -> None:
    found = asyncio.run(
        examine(
            premises_of(chroma__mode="http").loaded,
            checks=[("chroma", chroma.check)],
        )
    )
    assert exit_code_of(found) == 4
    assert "out of reach" in told(found, Level.ERROR)[0]


def test_a_chroma_server_that_is_too_old_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def old(*_: object) -> None:
        raise ConfigError("the Chroma server at http://127.0.0.1:8000 is older than 1.0.6", remedy="update the server")

    monkeypatch.setattr(chroma_client, "_refuse_too_old", old)
    found = asyncio.run(examine(premises_of(chroma__mode="http").loaded, checks=[("chroma", chroma.check)]))
    assert exit_code_of(found) == 2
    assert "older than 1.0.6" in told(found, Level.ERROR)[0]


# HTTP


def test_the_port_of_the_page_is_tried_and_a_host_for_others_needs_a_token() -> None:
    assert told(http.check(premises_of()), Level.OK) == ["the daemon serves no HTTP, as http.enabled says - "]
    assert told(http.check(premises_of(http__enabled=True, http__port=0)), Level.OK)
    found = http.check(premises_of(http__enabled=True, http__port=free_port(), http__host="0.0.0.0"))  # noqa: S104 - to be refused
    assert exit_code_of(found) == 2
    assert "no token is set" in told(found, Level.ERROR)[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = http.check(premises_of(http__enabled=True, http__port=taken.getsockname()[1]))
    assert exit_code_of(found) == 2
    assert f"process {os.getpid()}" in told(found, Level.ERROR)[0]


def test_a_daemon_that_says_where_it_serves_and_does_not_answer_is_told(place: Path) -> None:
    instance = Instance(place / ".ingestor")
    instance.acquire()
    url = f"http://127.0.0.1:{free_port()}"
    instance.announce(InstanceRecord(os.getpid(), "run", "x", 0.0, http_url=url))
    found = http.check(premises_of(http__enabled=True))
    instance.release()
    assert exit_code_of(found) == 4
    assert "does not answer" in told(found, Level.ERROR)[0]


# The model


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as server:
        yield server


def remote(server: EmbeddingServer, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    return {
        "embedding__provider": "openai",
        "embedding__base_url": server.base_url,
        "embedding__api_key": KEY,
        "embedding__model": "text-embedding-3-small",
        "embedding__dimensions": server.dimensions,
        **values,
    }


def test_a_model_is_called_once_with_one_text_and_not_at_all_without_leave(server: EmbeddingServer) -> None:
    before = server.counters.texts
    found = embedding.check(premises_of(**remote(server)))
    (finding,) = found
    assert finding.level is Level.OK, finding
    assert finding.facts["dimensions"] == server.dimensions
    assert finding.facts["tokens"] > 0
    assert server.counters.texts == before + 1
    assert "was not called" in told(embedding.check(premises_of(**remote(server), is_calling=False)), Level.HINT)[0]
    assert server.counters.texts == before + 1


@pytest.mark.parametrize(
    ("values", "fault", "code", "words"),
    [
        ({"embedding__api_key": "another-key"}, None, 2, "refuses the key"),
        ({"embedding__api_key": None, "embedding__base_url": ""}, None, 2, "needs a key"),
        ({}, Fault(FaultKind.STATUS, status=500), 4, "HTTP 500"),
        ({}, Fault(FaultKind.STATUS, status=429), 4, "a higher limit"),
        ({"embedding__timeout_seconds": 0.3}, Fault(FaultKind.HANG, seconds=1.0), 4, "no complete answer within 0.3 s"),
        ({}, Fault(FaultKind.WRONG_DIMENSION), 4, "nonsense"),
    ],
    ids=["wrong-key", "no-key", "broken", "limited", "silent", "dimension"],
)
def test_a_model_that_cannot_be_had_is_told(
    server: EmbeddingServer, values: dict[str, Any], fault: Fault | None, code: int, words: str
) -> None:
    if fault is not None:
        server.inject(fault)
    found = embedding.check(premises_of(**remote(server, **values)))
    assert exit_code_of(found) == code
    (sentence,) = told(found, Level.ERROR)
    assert words in sentence
    assert KEY not in sentence


def test_the_built_in_model_is_called_whatever_was_said_because_it_costs_nothing() -> None:
    (finding,) = embedding.check(premises_of(is_calling=False))
    assert finding.level is Level.OK
    assert finding.facts["engine"] == "onnxruntime"
    assert finding.facts["dimensions"] == 384
