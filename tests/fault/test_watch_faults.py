"""The watch of a running daemon: real overflows, kernel limits, mounts, roots that go, storms.

Every fault ends in convergence, and costs no text that was paid for before.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.checker import document_ids
from tests.daemon import COMMAND, Daemon, Reading, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 16
MAX_QUEUE = 200_000
"""Beyond this it would take too long to make the kernel's queue overflow."""
LIMITS = Path("/proc/sys/fs/inotify")
MANY = int(os.environ.get("STORM_FILES", "5000"))
"""50,000 take minutes: `STORM_FILES=50000 pytest tests/fault/test_watch_faults.py -s` makes a long run of it."""
STORM = MANY // 5
TEXTS = 250
STORM_SECONDS = 120.0 + MANY / 50


class WrappedSite(Site):
    """Starts commands by way of another one: `unshare`, `setpriv`."""

    wrapper: Sequence[str] = ()

    def start(self, *arguments: str) -> Daemon:
        log = self.root / f"daemon-{len(self._running)}.log"
        words = [*self.wrapper, str(COMMAND), *arguments]
        with log.open("wb") as told:
            process = subprocess.Popen(
                words, cwd=self.root, env=self.environment(), stdout=subprocess.DEVNULL, stderr=told
            )
        daemon = Daemon(process, log)
        self._running.append(daemon)
        return daemon


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[WrappedSite]:
    # A fuse that blows with few documents, too.
    with WrappedSite(tmp_path, provider_settings(server, WATCH__MAX_DELETE_DOCUMENTS=1)) as made:
        yield made


def write(folder: Path, *names: str) -> None:
    """Files whose text is their name: the same everywhere, so that it is paid for once."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"The text of {name}.\n", encoding="utf-8")


def wait_told(daemon: Daemon, event: str, *words: str) -> None:
    """Wait for a log entry with these words in it."""
    eventually(
        lambda: any(all(word in str(entry) for word in words) for entry in daemon.events(event)),
        lambda: f"no {event} with {words}:\n{daemon.log()[-3_000:]}",
    )


def status(site: Site) -> dict[str, object]:
    found = site.command("status", "--json").json()
    assert isinstance(found, dict)
    return found


def wait_status(site: Site, holds: Callable[[dict[str, object]], object]) -> None:
    eventually(lambda: holds(status(site)), lambda: str(status(site)))


def probe(*words: str) -> str:
    """Why a command does not work here; "" when it does."""
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not installed"
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stderr.strip() or (f"{words[0]} fails" if done.returncode else "")


def inside(daemon: Daemon, *words: str) -> None:
    """Run a command in the namespaces of the daemon."""
    enter = ["nsenter", "--target", str(daemon.pid), "--user", "--mount", "--preserve-credentials"]
    subprocess.run([*enter, *words], check=True, capture_output=True, text=True)


def namespaces(script: str, *arguments: str | Path) -> list[str]:
    """Words that, put before a command, run a shell script in namespaces of its own, and then the command there."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    reason = probe(*unshare, "true") or probe("nsenter", "--version")
    if reason:
        pytest.skip(f"no namespaces can be had here: {reason}")
    count = len(arguments)
    return [*unshare, "sh", "-ec", f'{script}\nshift {count}\nexec "$@"', "sh", *map(str, arguments)]


def watched_folders(daemon: Daemon) -> int:
    """How many folders the kernel watches for a process."""
    count = 0
    for info in Path(f"/proc/{daemon.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += info.read_text(encoding="ascii").count("inotify wd:")
    return count


def test_lost_events_and_a_lost_map_of_folders_are_noticed_and_healed(
    site: WrappedSite, server: EmbeddingServer, tmp_path: Path
) -> None:
    limit = int((LIMITS / "max_queued_events").read_text(encoding="ascii"))
    if limit > MAX_QUEUE:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: it would take too long to overflow")
    folder = site.folder
    write(folder, "kept.txt", "edited.txt", "deleted.txt", "old/one.txt", "old/two.txt")
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        before = document_ids(reading.wait_equal())

        daemon.process.send_signal(signal.SIGSTOP)
        try:
            noise = folder / "noise.tmp"
            for _ in range(limit // 2 + 1):
                noise.touch()
                noise.rename(folder / "noise.part")
                (folder / "noise.part").rename(noise)
            # Of all this, the kernel tells nothing any more.
            noise.unlink()
            write(folder, "new.txt", "shelf/deep/new.txt")
            (folder / "edited.txt").write_text("Another text.\n", encoding="utf-8")
            (folder / "deleted.txt").unlink()
            (folder / "old").rename(folder / "renamed")
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        wait_told(daemon, "watch.restarting", "queue overflowed", "max_queued_events")
        after = document_ids(reading.wait_equal())
        assert after["renamed/one.txt"] == before["old/one.txt"]
        assert after["edited.txt"] == before["edited.txt"]

        # watchdog 7.1 forgets one of two folders of the same name, and dies of a KeyError when both have gone.
        folders = watched_folders(daemon)
        away = tmp_path / "away"
        (folder / "shelf" / "deep").rename(away)
        (folder / "shelf" / "deep").mkdir()
        eventually(lambda: watched_folders(daemon) == folders + 1, daemon.log)
        (folder / "shelf" / "deep").rmdir()
        shutil.rmtree(away)
        write(folder, "after.txt", "renamed/after.txt", "shelf/after.txt")
        reading.wait_equal()
        wait_told(daemon, "watch.restarting", "watchdog")
        write(folder, "still/alive.txt")
        reading.wait_equal()
    assert server.counters.repeated_texts == 0
    assert server.texts == 12
    assert daemon.terminate() == 0


def test_a_limit_of_watches_or_instances_is_told_with_its_remedy_and_polled_around(
    site: WrappedSite, server: EmbeddingServer
) -> None:
    site.wrapper = namespaces("echo 0 > /proc/sys/user/max_inotify_instances")
    write(site.folder, "one.txt", "sub/two.txt")
    daemon = site.start("run").wait_ready()
    wait_told(daemon, "watch.limited", "sysctl -w fs.inotify.max_user_instances=")
    assert "sysctl -w fs.inotify.max_user_instances=" in str(status(site)["watching"])
    with site.reading() as reading:
        reading.wait_equal()
        write(site.folder, "three.txt", "sub/deep/four.txt")
        (site.folder / "one.txt").unlink()
        reading.wait_equal()
    assert daemon.terminate() == 0

    # The root, two folders and the one that comes now.
    site.wrapper = namespaces("echo 4 > /proc/sys/user/max_inotify_watches")
    daemon = site.start("run").wait_ready()
    assert status(site)["watching"] == "inotify"
    with site.reading() as reading:
        write(site.folder, "room/for/one.txt")
        reading.wait_equal()
        wait_told(daemon, "watch.limited", "watching 4 of 5 folders", "sysctl -w fs.inotify.max_user_watches=")
        (site.folder / "room/for/one.txt").rename(site.folder / "room/for/another.txt")
        write(site.folder, "no/more/room.txt")
        reading.wait_equal()
    assert len(daemon.events("watch.limited")) == 1
    assert server.texts == 6
    assert server.counters.repeated_texts == 0
    assert daemon.terminate() == 0


def test_a_root_that_goes_or_becomes_another_deletes_nothing_and_heals(
    site: WrappedSite, server: EmbeddingServer, tmp_path: Path
) -> None:
    root, disk, other, copy = site.folder, tmp_path / "disk", tmp_path / "other", tmp_path / "copy"
    names = ["one.txt", "two.txt", "sub/three.txt", "sub/four.txt"]
    foreign = {"foreign.txt", "sub/foreign.txt"}
    write(disk, *names)
    write(other, *foreign)
    shutil.copytree(disk, copy)
    root.rmdir()
    root.symlink_to(disk)
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        whole = reading.wait_equal()

        root.unlink()
        wait_status(site, lambda found: "out of reach" in str(found["watching"]))
        assert reading.rows() == whole

        root.symlink_to(other)
        wait_status(site, lambda found: found["held_deletions"] == len(names))
        eventually(lambda: document_ids(reading.rows()).keys() == {*names, *foreign}, daemon.log)
        assert [row for row in reading.rows() if row.source in names] == whole

        root.unlink()
        disk.rename(root)
        assert reading.wait_equal() == whole
        wait_status(site, lambda found: not found["held_deletions"] and found["watching"] == "inotify")
        texts = server.texts
        assert texts == len(names) + len(foreign)

        root.rename(tmp_path / "away")
        root.symlink_to(copy)
        (copy / "one.txt").write_text("An edit through the link.\n", encoding="utf-8")
        assert document_ids(reading.wait_equal()) == document_ids(whole)
        assert server.texts == texts + 1

        # Deleted with all that is in it, and another folder at once in its place.
        restarts = len(daemon.events("watch.restarting"))
        shutil.rmtree(copy)
        root.unlink()
        other.rename(root)
        eventually(lambda: len(daemon.events("watch.restarting")) > restarts, daemon.log)
        wait_status(site, lambda found: found["held_deletions"] == len(names) and found["watching"] == "inotify")
        assert document_ids(reading.rows()).keys() == {*names, *foreign}
        assert site.command("approve").code == 0
        assert document_ids(reading.wait_equal()).keys() == foreign
        assert server.texts == texts + 1
    assert server.counters.repeated_texts == 0
    assert daemon.terminate() == 0


def test_a_disk_unmounted_or_mounted_over_deletes_nothing_and_heals(
    site: WrappedSite, server: EmbeddingServer, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    names = ["one.txt", "two.txt", "sub/three.txt"]
    write(disk, *names)
    site.wrapper = namespaces('mount --bind "$1" "$2"', disk, site.folder)
    daemon = site.start("run").wait_ready()
    with site.reading() as served:
        reading = Reading(disk, served.rows)
        whole = reading.wait_equal()

        inside(daemon, "umount", str(site.folder))
        wait_told(daemon, "watch.restarting", "replaced by another one")
        wait_status(site, lambda found: found["held_deletions"] == len(names))
        assert reading.rows() == whole

        inside(daemon, "mount", "--bind", str(disk), str(site.folder))
        wait_status(site, lambda found: not found["held_deletions"])
        assert reading.wait_equal() == whole
        write(disk, "seen.txt")
        whole = reading.wait_equal()

        inside(daemon, "mount", "-t", "tmpfs", "none", str(site.folder))
        wait_status(site, lambda found: found["held_deletions"] == len(names) + 1)
        cover = Path(f"/proc/{daemon.pid}/root{site.folder}")
        write(cover, "cover.txt")
        eventually(lambda: "cover.txt" in document_ids(reading.rows()), daemon.log)
        assert [row for row in reading.rows() if row.source != "cover.txt"] == whole
        # While it is covered, the disk goes on.
        (disk / "one.txt").rename(disk / "renamed.txt")

        inside(daemon, "umount", str(site.folder))
        reading.wait_equal()
        wait_status(site, lambda found: not found["held_deletions"])
        inside(daemon, "mount", "-t", "tmpfs", "none", f"{site.folder}/sub")
        wait_told(daemon, "watch.restarting", "mounted or unmounted", "/sub")
        cover = Path(f"/proc/{daemon.pid}/root{site.folder}")
        write(cover, "sub/covered.txt")
        Reading(cover, served.rows).wait_equal()
        inside(daemon, "umount", f"{site.folder}/sub")
        reading.wait_equal()
    assert server.counters.repeated_texts == 0
    assert server.texts == len(names) + 3
    assert daemon.terminate() == 0


def test_what_may_not_be_listed_keeps_its_records_until_it_may(site: WrappedSite, server: EmbeddingServer) -> None:
    if os.geteuid() == 0:
        without_capabilities = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        if reason := probe(*without_capabilities, "true"):
            pytest.skip(f"root cannot lose the right to read everything: {reason}")
        site.wrapper = without_capabilities
    closed = site.folder / "closed"
    write(site.folder, "open.txt", "closed/one.txt", "closed/sub/two.txt")
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        whole = reading.wait_equal()
        for folder in (closed, site.folder):
            folder.chmod(0)
            try:
                wait_told(daemon, "folder.unreadable", f"'path': '{folder.name if folder is closed else ''}'")
                if folder is closed:
                    write(site.folder, "meanwhile.txt")
                    eventually(lambda: "meanwhile.txt" in document_ids(reading.rows()), daemon.log)
                assert all(row in reading.rows() for row in whole)
            finally:
                folder.chmod(0o755)
            reading.wait_equal()
            write(folder, f"after-{folder.name}.txt")
            reading.wait_equal()
        site.folder.chmod(0)
        assert daemon.terminate() == 0
    try:
        daemon = site.start("run")
        eventually(lambda: daemon.process.poll() is not None, daemon.log)
        assert "may not be listed" in daemon.log()
    finally:
        site.folder.chmod(0o755)
    # Closed from the start: no watch is had there, until it is opened.
    closed.chmod(0)
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        closed.chmod(0o755)
        write(closed, "sub/opened.txt")
        reading.wait_equal()
        write(closed, "sub/three.txt")
        reading.wait_equal()
    assert server.counters.repeated_texts == 0
    assert server.texts == 8
    assert daemon.terminate() == 0


def blank(number: int) -> str:
    """A text of nothing but white space that is like no other."""
    return f"{number:b}".replace("0", " ").replace("1", "\n")


def peak_memory_mib(daemon: Daemon) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.timeout(1_800)
def test_thousands_of_files_at_once_and_a_storm_of_renames(
    site: WrappedSite, server: EmbeddingServer, tell: Callable[[str], None]
) -> None:
    folder = site.folder
    daemon = site.start("run").wait_ready()
    began_seconds = time.monotonic()
    for number in range(MANY):
        place = folder / ("storm" if number < STORM else f"shelf-{number % 97}")
        if number < STORM + 97:
            place.mkdir(exist_ok=True)
        # Most are blank: a document each, and no record.
        text = f"Text {number} of {MANY}.\n" if number % (MANY // TEXTS) == 0 else blank(number)
        (place / f"{number}.txt").write_text(text, encoding="utf-8")
    dropped_seconds = time.monotonic() - began_seconds
    with site.reading() as reading:
        eventually(lambda: status(site)["documents"] == MANY, lambda: str(status(site)), STORM_SECONDS)
        rows = reading.wait_equal()
        ingested_seconds = time.monotonic() - began_seconds
        texts = server.texts
        assert texts == len(rows) >= TEXTS
        before = document_ids(rows)

        began_seconds = time.monotonic()
        storm, other = folder / "storm", folder / "elsewhere"
        for _ in range(10):
            storm.rename(other)
            other.rename(storm)
        storm.rename(other)
        for number, file in enumerate(sorted(other.iterdir())):
            if number % 10 == 0:
                file.rename(file.with_name(f"renamed-{file.name}"))
        stormed_seconds = time.monotonic() - began_seconds
        rows = reading.wait_equal(seconds=STORM_SECONDS)
        eventually(lambda: status(site)["queued"] == 0, lambda: str(status(site)), STORM_SECONDS)
        assert status(site)["documents"] == MANY
        healed_seconds = time.monotonic() - began_seconds
        reading.wait_equal()
    assert server.texts == texts
    told = f"{MANY} files dropped in {dropped_seconds:.1f} s, known in {ingested_seconds:.1f} s; {STORM} renamed in "
    told += f"{stormed_seconds:.1f} s, known in {healed_seconds:.1f} s; peak memory {peak_memory_mib(daemon)} MiB, "
    told += f"{len(set(before.values()) - set(document_ids(rows).values()))} documents with another id"
    tell(told)
    assert daemon.terminate() == 0
