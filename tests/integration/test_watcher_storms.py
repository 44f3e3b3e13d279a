"""The watch where watchdog alone fails: overflow, silent death, wrong maps, storms.

The check is independent of the events' kinds: a mirror of the folder is kept by looking at every hinted path and by
scanning all of it on every doubt, and has to end up equal to the folder. Whatever the watch neither hinted at nor
doubted shows as a difference that stays.
"""

import itertools
import os
import queue
import random
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ingestor.adapters import watcher
from ingestor.adapters.watch_observers import OVERFLOW, KernelObserver
from ingestor.adapters.watcher import Watcher

if TYPE_CHECKING:
    from ingestor.core.model import Hint

PATIENCE_SECONDS = 30.0
FILES = 7_000
"""Three events each: more than the 16,384 that the kernel keeps, and the 2,048 that watchdog reads at once."""


class Mirror:
    """What is known of a folder from hints, and from scans asked for by doubts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.watched = Watcher(root)
        self.known: dict[str, tuple[int, ...]] = {}
        self.doubts: list[str] = []
        self._hints: queue.SimpleQueue[Hint] = queue.SimpleQueue()

    def start(self) -> None:
        self.watched.start(self._hints.put)
        self.known = self._scan("")

    def step(self) -> None:
        while not self._hints.empty():
            hint = self._hints.get()
            self.known.pop(hint.path, None)
            if hint.is_folder:
                for path in [path for path in self.known if hint.path == "" or path.startswith(hint.path + "/")]:
                    del self.known[path]
                self.known |= self._scan(hint.path)
            else:
                self.known |= self._look(hint.path)
        if reason := self.watched.doubt():
            self.doubts.append(str(reason))
            self.watched.stop()
            self.start()

    def settle(self) -> None:
        """Step until the mirror equals the folder and every suspicion has been dealt with."""
        deadline_seconds = time.monotonic() + PATIENCE_SECONDS
        while (actual := self._scan("")) != self.known:
            differing = sorted(path for path in actual | self.known if actual.get(path) != self.known.get(path))
            assert time.monotonic() < deadline_seconds, f"never seen: {differing[:10]}; doubts: {self.doubts}"
            self.step()
            time.sleep(0.02)

    def await_doubt(self) -> str:
        count = len(self.doubts)
        deadline_seconds = time.monotonic() + PATIENCE_SECONDS
        while len(self.doubts) == count:
            assert time.monotonic() < deadline_seconds, "no doubt"
            self.step()
            time.sleep(0.02)
        return self.doubts[-1]

    def _look(self, path: str) -> dict[str, tuple[int, ...]]:
        try:
            stat = os.lstat(f"{self.root}/{path}")
        except OSError:
            return {}
        is_file = (stat.st_mode & 0o170000) == 0o100000
        return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)} if is_file else {}

    def _scan(self, below: str) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        above = len(str(self.root)) + 1
        for folder, _, names in os.walk(self.root / below):
            for name in names:
                found |= self._look(f"{folder}/{name}"[above:])
        return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    return folder


@pytest.fixture
def mirror(root: Path) -> Iterator[Mirror]:
    kept = Mirror(root)
    yield kept
    kept.watched.stop()


def group_of(watched: Watcher) -> Any:  # noqa: ANN401 - a private part of watchdog
    running = watched._watch
    assert running is not None
    assert running.kernel is not None
    emitter: Any = next(iter(running.kernel.emitters))
    return emitter._inotify


def await_mapped(watched: Watcher, folder: Path, *, is_there: bool = True) -> None:
    """Wait until watchdog has seen that a folder has come, or gone from its path."""
    group, deadline_seconds = group_of(watched), time.monotonic() + PATIENCE_SECONDS
    while (os.fsencode(folder) in group._active_callbacks_by_path) is not is_there:
        assert time.monotonic() < deadline_seconds, folder
        time.sleep(0.005)


def test_an_overflow_is_told_and_healed_without_watchdog_rebuilding_its_watches(root: Path, mirror: Mirror) -> None:
    for name in ("one", "two"):
        (root / name).mkdir()
    mirror.start()
    group = group_of(mirror.watched)
    watches = dict(group._active_callbacks_by_watch)
    with group._lock:  # the reading thread waits here, and the kernel's queue runs over
        for number in range(FILES):
            (root / ("one", "two")[number % 2] / str(number)).write_text("x")
    deadline_seconds = time.monotonic() + PATIENCE_SECONDS
    while mirror.watched.doubt() is None:
        assert time.monotonic() < deadline_seconds
        time.sleep(0.01)
    assert str(mirror.watched.doubt()) == OVERFLOW
    assert dict(group._active_callbacks_by_watch) == watches
    mirror.settle()
    assert len(mirror.known) == FILES
    assert mirror.doubts == [OVERFLOW]
    (root / "one" / "after").write_text("x")
    mirror.settle()


def test_an_overflow_while_the_watches_are_being_set_is_told(
    root: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (root / str(number)).mkdir()
    started, go_on = threading.Event(), threading.Event()
    real = KernelObserver.on_thread_start

    def start_slowly(observer: KernelObserver) -> None:
        real_add = observer.queue.add_callback

        def add(path: bytes, *rest: Any) -> Any:  # noqa: ANN401 - handed on as it is
            wd = real_add(path, *rest)
            started.set()
            assert go_on.wait(PATIENCE_SECONDS)
            return wd

        monkeypatch.setattr(observer.queue, "add_callback", add)
        real(observer)

    monkeypatch.setattr(KernelObserver, "on_thread_start", start_slowly)

    def write() -> None:
        started.wait(PATIENCE_SECONDS)
        for number in range(FILES):
            (root / f"file-{number}").write_text("x")
        go_on.set()

    thread = threading.Thread(target=write)
    thread.start()
    mirror.watched.start(lambda _: None)
    thread.join()
    deadline_seconds = time.monotonic() + PATIENCE_SECONDS
    while mirror.watched.doubt() is None:
        assert time.monotonic() < deadline_seconds
        time.sleep(0.01)
    assert str(mirror.watched.doubt()) == OVERFLOW


def provoke_death(mirror: Mirror, root: Path, name: str) -> None:
    """Move a folder out, make one of its name, and remove both: with some luck of timing watchdog's thread dies."""
    outside = root.parent / "outside"
    (root / name).mkdir()
    group = group_of(mirror.watched)
    await_callbacks(group, 2)
    (root / name).rename(outside / name)
    (root / name).mkdir()
    await_callbacks(group, 3)  # the second folder of the name is watched as well as the first
    (root / name).rmdir()
    (outside / name).rmdir()


def await_callbacks(group: Any, count: int) -> None:  # noqa: ANN401 - a private part of watchdog
    deadline_seconds = time.monotonic() + 2
    while len(group._active_callbacks_by_watch) < count and time.monotonic() < deadline_seconds:
        time.sleep(0.01)


def test_the_silent_death_of_watchdog_is_told(root: Path, mirror: Mirror) -> None:
    mirror.start()
    deaths: list[str] = []
    for number in range(40):
        provoke_death(mirror, root, f"folder-{number}")
        until_seconds = time.monotonic() + 0.5
        while time.monotonic() < until_seconds and not deaths:
            mirror.step()
            deaths = [doubt for doubt in mirror.doubts if "lost track of a folder: KeyError" in doubt]
            time.sleep(0.02)
        if deaths:
            break
    assert deaths, mirror.doubts
    (root / "after").write_text("x")
    mirror.settle()


def test_a_folder_moved_out_haunts_nobody(root: Path, mirror: Mirror) -> None:
    outside = root.parent / "outside"
    (root / "folder" / "deep").mkdir(parents=True)
    mirror.start()
    (root / "folder").rename(outside / "folder")
    assert "'" + str(root / "folder") in mirror.await_doubt()
    mirror.settle()
    assert mirror.watched.coverage == (1, 1)
    (outside / "folder" / "deep" / "ghost").write_text("x")
    (root / "after").write_text("x")
    mirror.settle()
    assert len(mirror.doubts) == 1


def test_a_folder_moved_out_and_back_under_another_name_is_seen_by_that_name(root: Path, mirror: Mirror) -> None:
    outside = root.parent / "outside"
    (root / "old" / "deep").mkdir(parents=True)
    (root / "old" / "deep" / "file").write_text("x")
    mirror.start()
    (root / "old").rename(outside / "away")
    time.sleep(0.1)
    (outside / "away").rename(root / "new")
    mirror.await_doubt()
    mirror.settle()
    (root / "new" / "deep" / "file").write_text("more")
    mirror.settle()
    assert set(mirror.known) == {"new/deep/file"}
    assert len(mirror.doubts) == 1


def test_a_wrong_map_is_found_though_folders_never_rest(
    root: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "_PATIENCE_SECONDS", 1.0)
    (root / "folder").mkdir()
    mirror.start()
    (root / "folder").rename(root.parent / "outside" / "folder")
    deadline_seconds = time.monotonic() + PATIENCE_SECONDS
    for number in itertools.count():
        (root / f"busy-{number}").mkdir()
        (root / f"busy-{number}").rmdir()
        time.sleep(0.02)
        mirror.step()
        if mirror.doubts:
            break
        assert time.monotonic() < deadline_seconds
    assert str(root / "folder") in mirror.doubts[0]


def test_folders_that_come_go_and_move_inside_are_no_doubt(root: Path, mirror: Mirror) -> None:
    mirror.start()
    for number in range(40):
        (root / "busy" / str(number)).mkdir(parents=True, exist_ok=True)
        (root / "busy" / str(number) / "file").write_text("x")
        # A folder renamed before watchdog has seen it is rightly a doubt, see below.
        await_mapped(mirror.watched, root / "busy" / str(number))
        (root / "busy").rename(root / f"was-busy-{number}")
        if number % 2:
            shutil.rmtree(root / f"was-busy-{number}")
        await_mapped(mirror.watched, root / "busy", is_there=False)
        mirror.step()
    mirror.settle()
    deadline_seconds = time.monotonic() + 2.5
    while time.monotonic() < deadline_seconds:
        mirror.step()
        time.sleep(0.05)
    assert mirror.doubts == []
    assert mirror.watched.coverage == (41, 41)


def test_a_folder_that_watchdog_misses_is_told_and_watched(root: Path, mirror: Mirror) -> None:
    (root / "busy").mkdir()
    mirror.start()
    with group_of(mirror.watched)._lock:  # watchdog reads of the new folder when its path is no longer true
        (root / "busy" / "missed").mkdir()
        (root / "busy").rename(root / "renamed")
    assert "watching 2 of 3 folders" in mirror.await_doubt()
    assert mirror.watched.coverage == (3, 3)
    (root / "renamed" / "missed" / "file").write_text("x")
    mirror.settle()
    assert set(mirror.known) == {"renamed/missed/file"}
    assert len(mirror.doubts) == 1


def test_folders_renamed_at_their_birth_are_watched_in_the_end(root: Path, mirror: Mirror) -> None:
    mirror.start()
    for number in range(40):
        (root / "busy" / str(number)).mkdir(parents=True)
        (root / "busy").rename(root / f"was-busy-{number}")
    mirror.settle()
    deadline_seconds = time.monotonic() + PATIENCE_SECONDS
    while mirror.watched.coverage != (81, 81):
        assert time.monotonic() < deadline_seconds, mirror.watched.coverage
        mirror.step()
        time.sleep(0.02)
    for number in range(40):
        (root / f"was-busy-{number}" / str(number) / "file").write_text("x")
    mirror.settle()
    assert len(mirror.known) == 40


def test_a_folder_that_is_watched_again_does_not_warn_by_the_megabyte(root: Path, mirror: Mirror) -> None:
    source = root.parent / "outside" / "source"
    for number in range(60):
        (source / str(number) / "deep").mkdir(parents=True)
        (source / str(number) / "deep" / "file").write_text("x")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mirror.start()
        group = group_of(mirror.watched)
        group._inotify_fd.add_callback(os.fsencode(root), group.event_mask, group, group._id)
        warnings.warn("RuntimeWarnings of others still come", RuntimeWarning, stacklevel=1)
        shutil.copytree(source, root / "copy")
        mirror.settle()
    assert [str(warning.message)[:80] for warning in caught] == ["RuntimeWarnings of others still come"]
    assert len(mirror.known) == 60


def test_a_storm_of_renames_is_mirrored(root: Path, mirror: Mirror) -> None:
    for number in range(4_000):
        (root / f"{number:05}").write_text("x")
    mirror.start()
    for number in range(4_000):
        (root / f"{number:05}").rename(root / f"renamed-{number:05}")
    mirror.settle()
    assert len(mirror.known) == 4_000


class Storm:
    """Random operations on a folder and a neighbour that is not watched."""

    def __init__(self, root: Path, outside: Path, seed: int) -> None:
        self._root = root
        self._outside = outside
        self._random = random.Random(seed)
        self._names = itertools.count()
        self._operations: list[Callable[[], object]] = [
            self._write,
            self._write,
            self._append,
            self._truncate,
            self._save_by_rename,
            self._replace_from_outside,
            self._delete,
            self._rename_file,
            self._make_folders,
            self._rename_folder,
            self._rename_folder,
            self._move_out,
            self._move_in,
            self._move_in,
            self._copy_folder,
            self._remove_folder,
            self._remove_outside,
            self._replace_folder,
        ]

    def blow(self, seconds: float, meanwhile: Callable[[], None]) -> int:
        deadline_seconds, count = time.monotonic() + seconds, 0
        while time.monotonic() < deadline_seconds:
            try:
                self._random.choice(self._operations)()
            except OSError:
                continue  # the name is taken, or a folder was to be moved into itself
            count += 1
            if count % 5 == 0:
                meanwhile()
            if count % 40 == 0:
                time.sleep(self._random.choice((0, 0.01, 0.3, 0.8)))
        return count

    def _folders(self, root: Path) -> list[Path]:
        return sorted(path for path in root.rglob("*") if path.is_dir())

    def _folder(self) -> Path:
        return self._random.choice([self._root, *self._folders(self._root)])

    def _file(self) -> Path:
        files = sorted(path for path in self._root.rglob("*") if path.is_file())
        return self._random.choice(files) if files else self._root / "none"

    def _name(self) -> str:
        # few names: that the same one comes again is what watchdog's map does not stand
        return self._random.choice("abcd") if self._random.random() < 0.7 else f"n{next(self._names)}"

    def _write(self) -> None:
        (self._folder() / ("f" + self._name())).write_text("x" * self._random.randrange(1, 50))

    def _append(self) -> None:
        with self._file().open("a") as stream:
            stream.write("more")

    def _truncate(self) -> None:
        os.truncate(self._file(), self._random.randrange(3))

    def _save_by_rename(self) -> None:
        target = self._file()
        target.with_name("tmp").write_text("saved")
        target.with_name("tmp").replace(target)

    def _replace_from_outside(self) -> None:
        (self._outside / "file").write_text("from outside")
        (self._outside / "file").replace(self._folder() / ("f" + self._name()))

    def _delete(self) -> None:
        self._file().unlink()

    def _rename_file(self) -> None:
        self._file().replace(self._folder() / ("f" + self._name()))

    def _make_folders(self) -> None:
        folder = self._folder() / self._name() / self._name()
        folder.mkdir(parents=True)
        (folder / "fresh").write_text("x")

    def _rename_folder(self) -> None:
        self._random.choice(self._folders(self._root) or [self._root / "none"]).rename(self._folder() / self._name())

    def _move_out(self) -> None:
        folder = self._random.choice(self._folders(self._root) or [self._root / "none"])
        folder.rename(self._outside / self._name())

    def _move_in(self) -> None:
        folder = self._random.choice(self._folders(self._outside) or [self._outside / "none"])
        folder.rename(self._folder() / self._name())

    def _copy_folder(self) -> None:
        shutil.copytree(self._random.choice(self._folders(self._outside) or [self._outside]), self._folder() / "copy")

    def _remove_folder(self) -> None:
        shutil.rmtree(self._random.choice(self._folders(self._root) or [self._root / "none"]))

    def _remove_outside(self) -> None:
        shutil.rmtree(self._random.choice(self._folders(self._outside) or [self._outside / "none"]))

    def _replace_folder(self) -> None:
        folder = self._random.choice(self._folders(self._root) or [self._root / "none"])
        folder.rename(self._outside / self._name())
        folder.mkdir()
        (folder / "replaced").write_text("x")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_a_storm_the_mirror_equals_the_folder(root: Path, mirror: Mirror, seed: int) -> None:
    threads = threading.active_count()
    mirror.start()
    storm = Storm(root, root.parent / "outside", seed)
    count = storm.blow(2.0, mirror.step)
    assert count > 100
    mirror.settle()
    # A map that is still wrong would show in the writes that follow.
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        (folder / "after the storm").write_text("x")
    mirror.settle()
    mirror.watched.stop()
    assert threading.active_count() == threads
