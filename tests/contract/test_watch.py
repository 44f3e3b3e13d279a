"""The Watch port, held against watchdog with real kernel events.

Each trace ends with a file of its own, the end mark: the kernel keeps the order, so whatever an operation hints at has
arrived when the end mark has.
"""

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

import pytest
from watchdog.events import FileCreatedEvent, FileSystemEvent
from watchdog.observers import inotify_c
from watchdog.observers.inotify import InotifyObserver

from ingestor.adapters import watch_audit, watcher
from ingestor.adapters.mounts import Mount
from ingestor.adapters.watcher import Polling, Watcher
from ingestor.core.errors import ServiceUnavailable, WatcherDied
from ingestor.core.model import Hint

if TYPE_CHECKING:
    from ingestor.ports import Watch

PATIENCE_SECONDS = 20.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline_seconds = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline_seconds, f"waited in vain: {what}"
        time.sleep(0.01)


@dataclass
class Journal:
    root: Path
    hints: list[Hint] = field(default_factory=list)
    marks: int = 0

    def emit(self, hint: Hint) -> None:
        self.hints.append(hint)

    def heard(self) -> list[Hint]:
        self.marks += 1
        mark = f"end-mark-{self.marks}"
        (self.root / mark).write_text("x")
        wait_until(lambda: any(hint.path == mark for hint in self.hints), f"no hint for {mark}; {self.hints}")
        return [hint for hint in self.hints if not hint.path.startswith("end-mark")]

    def paths(self) -> set[str]:
        return {hint.path for hint in self.heard()}


class Options(TypedDict, total=False):
    polling: Polling
    follow_symlinks: bool
    poll_seconds: float
    ignore: Callable[[str], bool]


class Watching(Protocol):
    def __call__(self, root: Path, **options: Unpack[Options]) -> tuple[Watcher, Journal]: ...


@pytest.fixture
def watching() -> Iterator[Watching]:
    watchers = []

    def start(root: Path, **options: Unpack[Options]) -> tuple[Watcher, Journal]:
        started, journal = Watcher(root, **options), Journal(root)
        watchers.append(started)
        started.start(journal.emit)
        return started, journal

    yield start
    for started in watchers:
        started.stop()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "t" / "x").mkdir(parents=True)
    for name in ("a.txt", "t/f1", "t/x/f2"):
        (folder / name).write_text("content of " + name)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "s" / "y").mkdir(parents=True)
    for name in ("b.txt", "s/g1", "s/y/g2"):
        (folder / name).write_text("content of " + name)
    with tarfile.open(folder / "s.tar", "w") as archive:
        archive.add(folder / "s", "s")
    return folder


@dataclass(frozen=True)
class Trace:
    """What an operation has to hint at: exactly these files and folders; of the files, these as complete."""

    act: Callable[[Path, Path], object]
    files: set[str]
    folders: set[str] = field(default_factory=set)
    complete: set[str] = field(default_factory=set)
    incomplete: set[str] = field(default_factory=set)


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def save_by_rename(root: Path, _: Path) -> None:
    (root / ".a.txt.tmp").write_text("new")
    (root / ".a.txt.tmp").replace(root / "a.txt")


def save_with_backup(root: Path, _: Path) -> None:
    (root / "a.txt").rename(root / "a.txt~")
    (root / "a.txt").write_text("new")


def write_mapped(root: Path, _: Path) -> None:
    with (root / "a.txt").open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[:3] = b"new"


def link_hard(root: Path, outside: Path) -> None:
    (root / "b.txt").hardlink_to(outside / "b.txt")


def swap(root: Path, _: Path) -> None:
    (root / "t").rename(root / "u")
    append(root / "u" / "x" / "f2", "more")


def unpack(root: Path, outside: Path) -> None:
    with tarfile.open(outside / "s.tar") as archive:
        archive.extractall(root, filter="data")


def make_deep(root: Path, _: Path) -> None:
    (root / "n" / "m" / "o").mkdir(parents=True)
    for name in ("n/f", "n/m/f", "n/m/o/f"):
        (root / name).write_text("x")


TRACES = {
    "a new file": Trace(lambda root, _: (root / "n").write_text("x"), {"n"}, complete={"n"}),
    "an append": Trace(lambda root, _: append(root / "a.txt", "more"), {"a.txt"}, complete={"a.txt"}),
    "an overwrite": Trace(lambda root, _: (root / "a.txt").write_text("x"), {"a.txt"}, complete={"a.txt"}),
    "a read": Trace(lambda root, _: (root / "a.txt").read_text(), set()),
    "a save by rename": Trace(save_by_rename, {".a.txt.tmp", "a.txt"}, complete={"a.txt"}),
    "a save with backup": Trace(save_with_backup, {"a.txt", "a.txt~"}, complete={"a.txt", "a.txt~"}),
    "a replace from outside": Trace(
        lambda root, outside: (outside / "b.txt").replace(root / "a.txt"), {"a.txt"}, incomplete={"a.txt"}
    ),
    "a rename": Trace(lambda root, _: (root / "a.txt").rename(root / "z"), {"a.txt", "z"}, complete={"a.txt", "z"}),
    "a rename over another": Trace(
        lambda root, _: (root / "a.txt").replace(root / "t" / "f1"), {"a.txt", "t/f1"}, complete={"a.txt", "t/f1"}
    ),
    "a file moved in": Trace(lambda root, outside: (outside / "b.txt").rename(root / "b.txt"), {"b.txt"}),
    "a file moved out": Trace(
        lambda root, outside: (root / "a.txt").rename(outside / "a.txt"), {"a.txt"}, complete={"a.txt"}
    ),
    "a deletion": Trace(lambda root, _: (root / "a.txt").unlink(), {"a.txt"}, complete={"a.txt"}),
    "a truncation": Trace(lambda root, _: os.truncate(root / "a.txt", 3), {"a.txt"}, incomplete={"a.txt"}),
    "a change of rights": Trace(lambda root, _: (root / "a.txt").chmod(0o600), {"a.txt"}, incomplete={"a.txt"}),
    "a touch": Trace(lambda root, _: os.utime(root / "a.txt", (1, 1)), {"a.txt"}, incomplete={"a.txt"}),
    "a write through a memory map": Trace(write_mapped, {"a.txt"}, complete={"a.txt"}),
    "a hard link": Trace(link_hard, {"b.txt"}),
    "a symbolic link": Trace(lambda root, outside: (root / "l").symlink_to(outside / "b.txt"), {"l"}),
    "a new folder": Trace(lambda root, _: (root / "n").mkdir(), set(), {"n"}),
    "a folder moved in": Trace(
        lambda root, outside: (outside / "s").rename(root / "s"), {"s/g1", "s/y/g2"}, {"s", "s/y"}
    ),
    "a folder moved out": Trace(lambda root, outside: (root / "t").rename(outside / "t"), set(), {"t"}),
    "a folder renamed, then written in": Trace(
        swap,
        {"u/x/f2"},
        {"t", "u"},
        complete={"t", "u", "u/x/f2"},
    ),
    "cp -r": Trace(lambda root, outside: shutil.copytree(outside / "s", root / "s"), {"s/g1", "s/y/g2"}, {"s", "s/y"}),
    "rm -r": Trace(
        lambda root, _: shutil.rmtree(root / "t"), {"t/f1", "t/x/f2"}, {"t", "t/x"}, complete={"t/f1", "t/x/f2"}
    ),
    "tar x": Trace(unpack, {"s/g1", "s/y/g2"}, {"s", "s/y"}),
    "mkdir -p, then files": Trace(make_deep, {"n/f", "n/m/f", "n/m/o/f"}, {"n", "n/m", "n/m/o"}),
}


@pytest.mark.parametrize("name", TRACES)
def test_an_operation_hints_at_exactly_what_it_touched(
    root: Path, outside: Path, watching: Watching, name: str
) -> None:
    trace = TRACES[name]
    watched, journal = watching(root)
    assert watched.mode == "inotify"
    trace.act(root, outside)
    hints = journal.heard()
    assert {hint.path for hint in hints if not hint.is_folder} == trace.files
    assert {hint.path for hint in hints if hint.is_folder} == trace.folders
    complete = {hint.path for hint in hints if hint.is_closed}
    assert complete >= trace.complete
    assert not complete & (trace.incomplete | (trace.folders - trace.complete))


POLLED = [
    "a new file",
    "an append",
    "a save with backup",
    "a rename",
    "a file moved out",
    "a deletion",
    "a truncation",
    "a folder moved in",
    "a folder renamed, then written in",
    "cp -r",
    "rm -r",
]


@pytest.mark.parametrize("name", POLLED)
def test_polling_hints_at_everything_touched(root: Path, outside: Path, watching: Watching, name: str) -> None:
    trace = TRACES[name]
    watched, journal = watching(root, polling="always", poll_seconds=0.05)
    assert watched.mode == "polling"
    assert watched.doubt() is None
    trace.act(root, outside)
    journal.heard()
    paths = journal.paths()  # one comparison has no order in it, two have
    assert trace.files | trace.folders <= paths
    # A comparison tells of everything below a folder that was renamed; the kernel tells of the folder.
    allowed = trace.files | trace.folders | {""}
    assert all(path in allowed or path.partition("/")[0] in trace.folders for path in paths)


def test_polling_takes_no_renamed_file_for_complete(root: Path, watching: Watching) -> None:
    _, journal = watching(root, polling="always", poll_seconds=0.05)
    (root / "a.txt").rename(root / "z")
    journal.heard()
    assert [hint.is_closed for hint in journal.heard() if hint.path == "z"] == [False]


def test_polling_does_not_follow_symbolic_links(root: Path, outside: Path, watching: Watching) -> None:
    (root / "l").symlink_to(outside)
    (root / "loop").symlink_to(root)
    _, journal = watching(root, polling="always", poll_seconds=0.05)
    append(outside / "b.txt", "more")
    append(root / "a.txt", "more")
    journal.heard()
    assert journal.paths() - {""} == {"a.txt"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_git_checkout_hints_at_every_file_it_changed(root: Path, watching: Watching) -> None:
    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *settings, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "-q", "-b", "one")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("checkout", "-q", "-b", "two")
    (root / "a.txt").write_text("two")
    (root / "t" / "f1").unlink()
    (root / "new").mkdir()
    (root / "new" / "file").write_text("two")
    git("add", "-A")
    git("commit", "-q", "-m", "two")
    _, journal = watching(root, ignore=lambda path: path == ".git" or path.startswith(".git/"))
    git("checkout", "-q", "one")
    assert journal.paths() >= {"a.txt", "t/f1", "new/file"}
    journal.hints.clear()
    git("checkout", "-q", "two")
    assert journal.paths() == {"a.txt", "t/f1", "new", "new/file"}


def test_names_that_are_no_text_keep_their_bytes(root: Path, watching: Watching) -> None:
    _, journal = watching(root)
    name = os.fsdecode(b"caf\xe9 \xff")
    (root / "t" / name).write_text("x")
    assert journal.paths() == {"t/" + name}
    assert os.fsencode(journal.hints[0].path) == b"t/caf\xe9 \xff"


def test_a_root_that_is_a_symbolic_link_is_watched_at_all_levels(
    root: Path, tmp_path: Path, watching: Watching
) -> None:
    (tmp_path / "link").symlink_to(root)
    _, journal = watching(tmp_path / "link")
    append(root / "a.txt", "more")
    append(root / "t" / "x" / "f2", "more")
    assert journal.paths() == {"a.txt", "t/x/f2"}


def test_ignored_paths_are_dropped_at_either_end_of_a_move(root: Path, outside: Path, watching: Watching) -> None:
    asked = []

    def ignore(path: str) -> bool:
        asked.append(path)
        return path == "t" or path.startswith("t/")

    _, journal = watching(root, ignore=ignore)
    append(root / "t" / "f1", "more")
    (root / "a.txt").rename(root / "t" / "a.txt")
    shutil.copytree(outside / "s", root / "t" / "s")
    assert journal.paths() == {"a.txt"}
    assert "t/s/y/g2" in asked


def test_following_symbolic_links_hints_below_them(root: Path, outside: Path, watching: Watching) -> None:
    (root / "l").symlink_to(outside)
    watched, journal = watching(root, follow_symlinks=True)
    append(outside / "s" / "g1", "more")
    assert journal.paths() == {"l/s/g1"}
    assert watched.doubt() is None


def test_a_link_to_a_folder_that_appears_later_is_a_doubt_when_links_are_followed(
    root: Path, outside: Path, watching: Watching
) -> None:
    watched, journal = watching(root, follow_symlinks=True)
    (root / "l").symlink_to(outside)
    journal.heard()
    assert "symbolic link" in str(watched.doubt())
    watched.start(journal.emit)
    append(outside / "b.txt", "more")
    assert "l/b.txt" in journal.paths()


@pytest.mark.parametrize("polling", ["never", "always"])
def test_links_that_lead_back_are_not_followed(root: Path, watching: Watching, polling: Polling) -> None:
    (root / "t" / "l1").symlink_to(root)
    (root / "t" / "l2").symlink_to(root)
    watched, journal = watching(root, follow_symlinks=True, polling=polling, poll_seconds=0.05)
    assert "not followed" in watched.mode_reason
    append(root / "a.txt", "more")
    journal.heard()
    assert journal.paths() - {""} == {"a.txt"}


# Start and stop


def test_the_watcher_is_a_watch(root: Path) -> None:
    watch: Watch = Watcher(root)
    assert watch.mode == "inotify"
    assert watch.doubt() is not None


@pytest.mark.parametrize("polling", ["auto", "always", "never"])
def test_a_missing_root_is_unavailable(tmp_path: Path, polling: Polling) -> None:
    with pytest.raises(ServiceUnavailable, match="missing"):
        Watcher(tmp_path / "missing", polling=polling).start(lambda _: None)


def test_a_file_as_root_is_unavailable(root: Path) -> None:
    with pytest.raises(ServiceUnavailable):
        Watcher(root / "a.txt").start(lambda _: None)


@pytest.mark.parametrize("polling", ["never", "always"])
def test_stop_ends_every_thread_and_may_be_called_twice(root: Path, polling: Polling) -> None:
    before = set(threading.enumerate())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    hook = threading.excepthook
    watched = Watcher(root, polling=polling, poll_seconds=0.05)
    watched.stop()
    for _ in range(3):
        watched.start(lambda _: None)
        assert set(threading.enumerate()) > before
        watched.stop()
        watched.stop()
    assert set(threading.enumerate()) == before
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert threading.excepthook is hook


def test_starting_again_ends_the_watch_before(root: Path, watching: Watching) -> None:
    watched, old = watching(root)
    threads = threading.active_count()
    new = Journal(root)
    watched.start(new.emit)
    assert threading.active_count() == threads
    append(root / "a.txt", "more")
    assert new.paths() == {"a.txt"}
    assert old.hints == []


def test_events_of_an_older_generation_are_dropped(root: Path, watching: Watching) -> None:
    watched, journal = watching(root)
    translation = watched._watch._translations[0]  # type: ignore[union-attr]
    watched.stop()
    translation.dispatch(FileCreatedEvent(str(root / "late")))
    watched.start(journal.emit)
    translation.dispatch(FileCreatedEvent(str(root / "later")))
    assert journal.heard() == []
    assert watched.doubt() is None


def test_no_hint_comes_after_stop(root: Path) -> None:
    hints: list[Hint] = []
    watched = Watcher(root)
    for round_number in range(5):
        watched.start(hints.append)
        for number in range(50):
            (root / f"{round_number}-{number}").write_text("x")
        watched.stop()
        after_stop = len(hints)
        time.sleep(0.02)
        assert len(hints) == after_stop


def test_stop_survives_a_map_that_contradicts_itself(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    watched = Watcher(root)
    watched.start(lambda _: None)
    kernel = watched._watch.kernel  # type: ignore[union-attr]
    assert kernel is not None
    emitter: Any = next(iter(kernel.emitters))
    group: Any = emitter._inotify
    group._active_callbacks_by_path.clear()  # the KeyError of watchdog's own stop
    watched.stop()
    assert set(threading.enumerate()) == before
    assert caplog.text == ""


def test_stop_in_the_middle_of_a_move_out_logs_nothing(
    root: Path, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(threading.enumerate())
    watched = Watcher(root)
    watched.start(lambda _: None)
    (root / "a.txt").rename(outside / "a.txt")
    time.sleep(0.1)  # watchdog holds the event now, for half a second
    watched.stop()
    assert set(threading.enumerate()) == before
    assert caplog.text == ""


def test_stop_ends_every_thread_though_one_of_them_raises(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError(5)

    before = set(threading.enumerate())
    watched = Watcher(root)
    watched.start(lambda _: None)
    kernel = watched._watch.kernel  # type: ignore[union-attr]
    assert kernel is not None
    monkeypatch.setattr(next(iter(kernel.emitters)), "on_thread_stop", fail)
    watched.stop()
    assert set(threading.enumerate()) == before
    assert "KeyError(5)" in caplog.text


# Doubt


def test_an_exception_of_emit_is_told_and_ends_nothing(root: Path, watching: Watching) -> None:
    watched, journal = watching(root)

    def raise_once(hint: Hint) -> None:
        if hint.path == "poison":
            raise SystemExit("no room")
        journal.emit(hint)

    watched.start(raise_once)
    (root / "poison").write_text("x")
    assert "poison" not in journal.paths()
    assert "no room" in str(watched.doubt())
    watched.start(journal.emit)
    assert watched.doubt() is None


def test_an_exception_of_ignore_is_told(root: Path, watching: Watching) -> None:
    def ignore(path: str) -> bool:
        if path == "poison":
            raise ValueError("bad pattern")
        return False

    watched, journal = watching(root, ignore=ignore)
    (root / "poison").write_text("x")
    journal.heard()
    assert "bad pattern" in str(watched.doubt())


@pytest.mark.parametrize("polling", ["never", "always"])
def test_a_deleted_root_is_a_doubt_and_its_successor_can_be_watched(
    root: Path, watching: Watching, polling: Polling
) -> None:
    watched, journal = watching(root, polling=polling, poll_seconds=0.05)
    shutil.rmtree(root)
    wait_until(watched.doubt, "the root is gone")
    with pytest.raises(ServiceUnavailable):
        watched.start(journal.emit)
    assert watched.doubt() is not None
    root.mkdir()
    watched.start(journal.emit)
    assert watched.doubt() is None
    (root / "new").write_text("x")
    assert "new" in journal.paths()


def test_a_root_moved_away_and_made_anew_is_a_doubt(root: Path, outside: Path, watching: Watching) -> None:
    watched, journal = watching(root)
    root.rename(outside / "old")
    root.mkdir()
    assert "replaced" in str(watched.doubt())
    watched.start(journal.emit)
    (outside / "old" / "ghost").write_text("x")
    (root / "new").write_text("x")
    assert journal.paths() == {"new"}


def test_a_root_link_turned_elsewhere_is_a_doubt(root: Path, outside: Path, tmp_path: Path, watching: Watching) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    watched, journal = watching(link)
    (tmp_path / "link2").symlink_to(outside)
    (tmp_path / "link2").replace(link)
    assert "replaced" in str(watched.doubt())
    watched.start(journal.emit)
    append(outside / "b.txt", "more")
    assert journal.paths() == {"b.txt"}


def test_a_dead_thread_is_a_doubt(root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, journal = watching(root)
    kernel = watched._watch.kernel  # type: ignore[union-attr]
    assert kernel is not None

    def die(_: FileSystemEvent) -> None:
        raise MemoryError("in the dispatching thread")

    monkeypatch.setattr(watched._watch._translations[0], "dispatch", die)  # type: ignore[union-attr]
    (root / "n").write_text("x")
    kernel.join(PATIENCE_SECONDS)
    assert "in the dispatching thread" in str(watched.doubt())
    watched.start(journal.emit)
    assert watched.doubt() is None


def test_exceptions_of_other_threads_reach_the_hook_that_was_there(
    root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    watched, _ = watching(root)
    nothing: dict[str, str] = {}
    other = threading.Thread(target=lambda: nothing["missing"])
    other.start()
    other.join()
    assert isinstance(seen[0], KeyError)
    assert watched.doubt() is None
    watched.stop()


def test_a_backlog_without_end_is_a_doubt(root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_MAX_WAITING_EVENTS", 10)
    gate = threading.Event()

    def wait_for_gate(_: Hint) -> None:
        gate.wait(PATIENCE_SECONDS)

    watched, _ = watching(root)
    watched.start(wait_for_gate)
    for number in range(20):
        (root / str(number)).write_text("x")
    wait_until(watched.doubt, "events wait")
    assert "events wait" in str(watched.doubt())
    gate.set()


def test_a_mount_that_comes_or_goes_is_a_doubt(root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, _ = watching(root)
    assert watched.doubt() is None
    monkeypatch.setattr(watcher, "read_mounts", lambda: (Mount("/", "ext4"), Mount(str(root / "t"), "tmpfs")))
    assert str(root / "t") in str(watched.doubt())


def test_a_folder_that_becomes_readable_is_watched_after_one_doubt(root: Path, watching: Watching) -> None:
    # root reads everything: the refusal is what watchdog makes of EACCES, a watch without a number
    refused, real = {os.fsencode(root / "t" / "x")}, inotify_c.inotify_add_watch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            inotify_c,
            "inotify_add_watch",
            lambda fd, path, mask: _fail(errno.EACCES) if path in refused else real(fd, path, mask),
        )
        watched, journal = watching(root)
        assert watched.coverage == (2, 3)
        wait_until(watched.doubt, "a folder is not watched")
        watched.start(journal.emit)
        for _ in range(20):
            assert watched.doubt() is None
            time.sleep(0.05)
    watched.start(journal.emit)
    assert watched.coverage == (3, 3)
    append(root / "t" / "x" / "f2", "more")
    assert journal.paths() == {"t/x/f2"}


def _fail(number: int) -> int:
    ctypes.set_errno(number)
    return -1


# Too little room in the kernel


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many folders one inotify instance may watch, in the first and only place of the list."""
    left, real = [1_000_000], inotify_c.inotify_add_watch
    used: dict[int, set[bytes]] = {}

    def add_watch(descriptor: int, path: bytes, mask: inotify_c.Mask) -> int:
        taken = used.setdefault(descriptor, set())
        if path not in taken and len(taken) >= left[0]:
            return _fail(errno.ENOSPC)
        taken.add(path)
        return real(descriptor, path, mask)

    def new_instance() -> int:
        descriptor = real_init()
        used.pop(descriptor, None)
        return descriptor

    real_init = inotify_c.inotify_init
    monkeypatch.setattr(inotify_c, "inotify_add_watch", add_watch)
    monkeypatch.setattr(inotify_c, "inotify_init", new_instance)
    return left


@pytest.mark.parametrize(("watches", "counts"), [(2, "watching 2 of 3 folders"), (0, "watching 0 of 3 folders")])
def test_too_few_watches_at_the_start_are_polled_instead(
    root: Path, watching: Watching, room: list[int], watches: int, counts: str
) -> None:
    room[0] = watches
    before = threading.active_count()
    watched, journal = watching(root, poll_seconds=0.05)
    assert watched.mode == "polling"
    assert counts in watched.mode_reason
    assert "raise fs.inotify.max_user_watches" in watched.mode_reason
    assert "sysctl -w fs.inotify.max_user_watches=" in watched.mode_reason
    assert watched.coverage == (watches, 3)
    assert threading.active_count() == before + 2
    assert watched.doubt() is None
    append(root / "t" / "x" / "f2", "more")
    journal.heard()
    assert "t/x/f2" in journal.paths()


def test_watches_that_run_out_later_are_told_once_and_the_next_start_polls(
    root: Path, watching: Watching, room: list[int]
) -> None:
    room[0] = 3
    watched, journal = watching(root, poll_seconds=0.05)
    assert watched.mode == "inotify"
    assert watched.coverage == (3, 3)
    (root / "one-too-many").mkdir()
    journal.heard()
    assert "watching 3 of 4 folders; raise fs.inotify.max_user_watches" in str(watched.doubt())
    assert watched.doubt() is None
    for _ in range(3):
        watched.start(journal.emit)
        assert watched.mode == "polling"
        assert watched.doubt() is None
    room[0] = 4
    watched.start(journal.emit)
    assert watched.mode == "inotify"
    assert watched.coverage == (4, 4)
    (root / "two-too-many").mkdir()
    journal.heard()
    assert "watching 4 of 5 folders" in str(watched.doubt())


def test_without_polling_too_few_watches_are_told_once_over_all_starts(
    root: Path, watching: Watching, room: list[int]
) -> None:
    room[0] = 2
    watched, journal = watching(root, polling="never")
    assert watched.mode == "inotify"
    assert "watching 2 of 3 folders" in watched.mode_reason
    assert "watching 2 of 3 folders" in str(watched.doubt())
    watched.start(journal.emit)
    assert watched.doubt() is None
    append(root / "t" / "f1", "more")
    assert journal.paths() == {"t/f1"}


def test_without_polling_a_root_that_cannot_be_watched_is_fatal(root: Path, room: list[int]) -> None:
    room[0] = 0
    before = threading.active_count()
    with pytest.raises(WatcherDied) as failure:
        Watcher(root, polling="never").start(lambda _: None)
    assert "fs.inotify.max_user_watches" in failure.value.sentence
    assert threading.active_count() == before


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_few_instances_are_polled_instead(
    root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(inotify_c, "inotify_init", lambda: _fail(number))
    watched, journal = watching(root, poll_seconds=0.05)
    assert watched.mode == "polling"
    assert "sysctl -w fs.inotify.max_user_instances=" in watched.mode_reason
    assert watched.doubt() is None
    append(root / "a.txt", "more")
    assert "a.txt" in journal.paths()


def test_without_polling_too_few_instances_are_fatal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inotify_c, "inotify_init", lambda: _fail(errno.EMFILE))
    with pytest.raises(WatcherDied, match=r"fs\.inotify\.max_user_instances"):
        Watcher(root, polling="never").start(lambda _: None)


def test_a_root_that_may_not_be_watched_is_fatal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inotify_c, "inotify_add_watch", lambda *_: _fail(errno.EACCES))
    with pytest.raises(WatcherDied, match="may not be listed"):
        Watcher(root).start(lambda _: None)


# File systems that send no events


def test_a_root_on_a_network_share_is_polled(root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "read_mounts", lambda: (Mount("/", "ext4"), Mount(str(root.parent), "nfs4")))
    watched, _ = watching(root, poll_seconds=0.05)
    assert watched.mode == "polling"
    assert "nfs4" in watched.mode_reason
    assert watched.doubt() is None
    native, _ = watching(root, polling="never")
    assert native.mode == "inotify"


def test_a_network_share_below_the_root_is_polled_beside_it(
    root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a share that inotify says nothing about: its watches are put on another folder
    share, elsewhere, real = os.fsencode(root / "t"), os.fsencode(root.parent), inotify_c.inotify_add_watch
    monkeypatch.setattr(
        inotify_c,
        "inotify_add_watch",
        lambda fd, path, mask: real(fd, elsewhere + b"/mute" if path.startswith(share) else path, mask),
    )
    (root.parent / "mute").mkdir()
    monkeypatch.setattr(watcher, "read_mounts", lambda: (Mount("/", "ext4"), Mount(str(root / "t"), "cifs")))
    watched, journal = watching(root, poll_seconds=0.05)
    assert watched.mode == "inotify"
    assert f"{root / 't'} (cifs)" in watched.mode_reason
    append(root / "t" / "x" / "f2", "more")
    append(root / "a.txt", "more")
    wait_until(lambda: {hint.path for hint in journal.hints} >= {"a.txt", "t/x/f2"}, "both are hinted at")
    assert watched.doubt() is None


def test_without_polling_a_share_below_the_root_is_reported(
    root: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "read_mounts", lambda: (Mount("/", "ext4"), Mount(str(root / "t"), "cifs")))
    watched, _ = watching(root, polling="never")
    assert f"{root / 't'} (cifs)" in watched.mode_reason
    assert watched.mode == "inotify"


# watchdog's private parts


def test_the_private_parts_that_are_supervised_exist_in_this_version(root: Path, watching: Watching) -> None:
    watched, _ = watching(root)
    kernel = watched._watch.kernel  # type: ignore[union-attr]
    assert kernel is not None
    queue: Any = kernel.queue
    assert isinstance(queue._inotify_fd, int)
    emitter: Any = next(iter(kernel.emitters))
    group: Any = emitter._inotify
    wanted = {os.fsencode(folder) for folder in (root, root / "t", root / "t" / "x")}
    assert set(group._active_callbacks_by_path) == wanted
    assert set(group._active_callbacks_by_watch.values()) == wanted
    with group._lock:
        pass
    assert callable(group._move_event_grouper.close)
    guarded = {
        type(callback).__name__ for watch in queue._watch_for_wd.values() for callback in watch.callbacks.values()
    }
    assert guarded == {"_GuardedGroup"}
    original: Any = InotifyObserver()  # ours stands in for it
    assert isinstance(original._inotify_fd, inotify_c.InotifyFD)
    original._inotify_fd.stop()
    original._inotify_fd.join()


def test_what_cannot_be_verified_is_no_doubt(
    root: Path, outside: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_audit, "_maps", lambda _: None)
    watched, journal = watching(root)
    assert watched.coverage is None
    (root / "t").rename(outside / "t")
    journal.heard()
    for _ in range(20):
        assert watched.doubt() is None
        time.sleep(0.05)
