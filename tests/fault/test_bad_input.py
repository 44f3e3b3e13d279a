"""Good files among all that a folder should not hold: one daemon goes on, says what is wrong, and indexes the rest.

The tests share a daemon and run in their order; the folder fills up from one to the next.
"""

import contextlib
import gzip
import json
import os
import re
import shutil
import stat as modes
import struct
import subprocess
import sys
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ingestor.core.chunking import Cutter
from tests.checker import Row, belongs
from tests.daemon import COMMAND, Daemon, Reading, Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer
from tests.terminal import OnTerminal

pytestmark = pytest.mark.timeout(300)

MAX_TOKENS = 8_000
"""So large that 5 MB are a few hundred chunks."""
CUTTER = Cutter(MAX_TOKENS)
MEGABYTE = 1 << 20
DIMENSIONS = 16
SHRED = "\x1b]0;taken over\x07\x1b[2J\x9b31m\u202egnp"
"""Sets the title of a terminal, clears it, colours it red and turns the direction of writing."""
FORGED = '{"event": "forged"}'
_STYLES = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;(?:id=[0-9]+;file://[!-~]+|;)\x1b\\")


@dataclass(frozen=True, slots=True)
class Bad:
    """Something that cannot be indexed, and what its user is told."""

    name: str
    make: Callable[[Path], object]
    kind: str
    said: str
    remedy: str


def _png() -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(b"".join(b"\0" + bytes(range(256)) for _ in range(64)))
    header = struct.pack(">IIBBBBB", 256, 64, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")


def _holding(raw: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(raw)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def _unreadable(path: Path) -> None:
    path.write_text("Nobody may read this.", encoding="utf-8")
    path.chmod(0)


_RUSSIAN = "Это обычный русский текст, записанный в старой кодировке."
_UNDECODABLE = "UndecodableDocument"
_UNREADABLE = "UnreadableDocument"
BAD = (
    Bad("logs.txt.gz", _holding(gzip.compress(b"text\n" * 999)), _UNDECODABLE, "gzip archive", "watch.exclude"),
    Bad(
        "program", _holding(Path(sys.executable).read_bytes()[:100_000]), _UNDECODABLE, "program (ELF)", "watch.exclude"
    ),
    Bad("picture.txt", _holding(_png()), _UNDECODABLE, "PNG image", "watch.exclude"),
    Bad("noise.md", _holding(bytes(range(256)) * 40), _UNDECODABLE, "binary", "watch.exclude"),
    Bad("nul.txt", _holding(b"one\0two three"), _UNDECODABLE, "NUL bytes", "watch.exclude"),
    Bad("russian.txt", _holding(_RUSSIAN.encode("cp1251")), _UNDECODABLE, "cannot be told for certain", "UTF-8"),
    Bad("half.txt", _holding("中文文本".encode()[:-1]), _UNDECODABLE, "breaks off", "copy the file again"),
    Bad(
        "half-16.txt",
        _holding("中文文本".encode("utf-16")[:-1]),
        _UNDECODABLE,
        "byte order mark",
        "copy the file again",
    ),
    Bad("pipe", os.mkfifo, _UNREADABLE, "FIFO", "watch.exclude"),
    Bad("socket", lambda path: os.mknod(path, modes.S_IFSOCK | 0o666), _UNREADABLE, "socket", "watch.exclude"),
    Bad("closed.txt", _unreadable, _UNREADABLE, "Permission denied", "chmod"),
    Bad(os.fsdecode(b"caf\xe9.txt"), _holding(b"A coffee."), _UNREADABLE, "not valid UTF-8", "rename the file"),
    Bad(f"{SHRED}\nerror: forged.bin", _holding(b"\0" * 99), _UNDECODABLE, "binary", "watch.exclude"),
)
GOOD_NAMES = (
    f"line\n{FORGED}\n.txt",
    "line\rreturn.txt",
    "tab\tulator.txt",
    'quote\'s "and" `backtick` $(date) \\ back.txt',
    f"{SHRED}.txt",
    "[bold]markup [red].txt",
    "separators\u2028and\x85more.txt",
    "x" * 251 + ".txt",
    unicodedata.normalize("NFC", "Café.txt"),
    unicodedata.normalize("NFD", "Café.txt"),
    "Case.txt",
    "case.txt",
    "-rf.txt",
    "a b  c .txt",
    "新闻😀.txt",
)
"""All of them are names of files, and Chroma takes them."""
EMPTY = {
    "empty.txt": b"",
    "blank.md": b" \n\t\r\n \n\n",
    "mark-only.txt": b"\xef\xbb\xbf",
    "separators.txt": b"\xe2\x80\xa8\n",
}


@dataclass(slots=True)
class Scene:
    """A daemon at work, and what has been put into its folder so far."""

    site: Site
    server: EmbeddingServer
    daemon: Daemon
    reading: Reading
    bad: dict[str, Bad] = field(default_factory=dict)
    embedded_in_vain: int = 0
    """Texts of files that are not there any more, at most."""

    def wants(self, path: str) -> bool:
        return belongs(path) and path not in self.bad and os.fsencode(path).decode("utf-8", "replace") == path

    def wait_equal(self) -> list[Row]:
        """Wait until the collection is the folder."""
        rows = self.reading.wait_equal(self.wants, cutter=CUTTER)
        assert self.daemon.process.poll() is None, self.daemon.log()[-3_000:]
        assert self.server.texts <= len(rows) + self.embedded_in_vain
        return rows

    def wait_idle(self) -> Any:  # noqa: ANN401 - what `ingestor status --json` prints
        """Wait until nothing is queued any more."""
        last: dict[str, Any] = {}

        def is_idle() -> bool:
            last.update(self.site.command("status", "--json").json())
            return bool(last["queued"] + last["in_flight"] == 0)

        eventually(is_idle, lambda: str(last))
        return last

    def problems(self) -> dict[str, Any]:
        """What `ingestor problems --json` lists, by path."""
        return {problem["path"]: problem for problem in self.site.command("problems", "--json").json()}

    def wait_problems(self) -> dict[str, Any]:
        """Wait until exactly the bad files are listed."""
        wanted = {spelled(path) for path in self.bad}
        found: dict[str, Any] = {}

        def are_listed() -> bool:
            found.clear()
            found.update(self.problems())
            return found.keys() == wanted

        eventually(are_listed, lambda: f"{found.keys() ^ wanted}")
        return found

    def peak_memory_bytes(self) -> int:
        told = Path(f"/proc/{self.daemon.pid}/status").read_text(encoding="utf-8")
        return int(told.partition("VmHWM:")[2].split()[0]) * 1024


def spelled(path: str) -> str:
    """A path as JSON output shows it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def put(folder: Path, bad: Bad) -> None:
    """Make it under another name, as a download or an editor would, and let it appear at once."""
    hidden = folder / f".{bad.kind}"
    bad.make(hidden)
    hidden.rename(folder / bad.name)


def text_of(name: str) -> str:
    return f"# About {name!a}\n\nThis is a good file.\n{SHRED}\n[/] [bold]no markup[/bold]\n"


def put_all(scene_folder: Path, below: str) -> dict[str, Bad]:
    """Every bad file, every odd name and every empty file in a folder of their own."""
    folder = scene_folder / below
    folder.mkdir()
    for bad in BAD:
        put(folder, bad)
    for name in GOOD_NAMES:
        (folder / name).write_text(text_of(below + name), encoding="utf-8")
    for name, raw in EMPTY.items():
        (folder / name).write_bytes(raw)
    os.link(folder / "Case.txt", folder / "hard-link.txt")
    return {f"{below}/{bad.name}": bad for bad in BAD}


def start(site: Site) -> Daemon:
    """A daemon that may not read what it may not read, even where the tests run as root."""
    words: list[str | Path] = [COMMAND, "run"]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("as root, who may read everything, this needs setpriv (Debian package util-linux)")
        words = [setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *words]
    log = site.root / "daemon.log"
    with log.open("wb") as told:
        process = subprocess.Popen(words, cwd=site.root, env=site.environment(), stdout=subprocess.DEVNULL, stderr=told)
    daemon = Daemon(process, log)
    site._running.append(daemon)
    return daemon


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("b")
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        settings = provider_settings(
            server, CHUNK__MAX_TOKENS=MAX_TOKENS, WATCH__RESCAN_SECONDS=2, WATCH__QUIET_SECONDS=0.2
        )
        with Site(root, settings) as site:
            bad = put_all(site.folder, "early")
            daemon = start(site).wait_ready()
            with site.reading() as reading:
                reading.dimensions = DIMENSIONS
                yield Scene(site, server, daemon, reading, bad)


def on_a_terminal(scene: Scene, *arguments: str) -> str:
    """What a command writes to a terminal, but for the styles that it may use, and links to files."""
    settings = {name: value for name, value in scene.site.environment().items() if name.startswith("INGESTOR_")}
    with OnTerminal([COMMAND, *arguments], scene.site.root, settings, columns=400) as terminal:
        _, told = terminal.finished()
    assert "\x1b[" in told.raw, "no terminal was noticed"
    return _STYLES.sub("", told.raw).replace("\r\n", "\n")


def assert_harmless(shown: str) -> None:
    """A terminal does nothing but show it, and no name has made a line of its own."""
    for character in shown:
        assert character == "\n" or unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}, ascii(shown)
        assert character not in "\u202e\u2066"
    assert not any(line.startswith(("error:", FORGED)) for line in shown.split("\n"))


def test_bad_files_of_before_the_start_and_of_after_it_are_problems_that_their_user_understands(
    scene: Scene, tell: Callable[[str], None]
) -> None:
    scene.bad |= put_all(scene.site.folder, "late")

    problems = scene.wait_problems()

    for path, bad in scene.bad.items():
        problem = problems[spelled(path)]
        assert (problem["kind"], path) == (bad.kind, path)
        assert bad.said in problem["reason"]
        assert bad.remedy in problem["remedy"]
        assert "\n" not in problem["reason"] + problem["remedy"]
    tell(f"{len(scene.bad)} bad files, {len(scene.wait_equal())} records of good ones beside them")
    listed = scene.site.command("problems").out
    for bad in scene.bad.values():
        assert bad.said in listed
        assert bad.remedy in listed


def test_odd_names_twins_and_hard_links_are_documents_of_their_own(scene: Scene) -> None:
    rows = scene.wait_equal()

    ids = {row.source: row.document_id for row in rows}
    for below in ("early", "late"):
        names = [f"{below}/{name}" for name in (*GOOD_NAMES, "hard-link.txt")]
        assert len({ids[name] for name in names}) == len(names)
    assert scene.server.counters.repeated_texts == 0


def test_empty_files_are_documents_without_chunks_and_no_problems(scene: Scene) -> None:
    files = 2 * (len(GOOD_NAMES) + 1 + len(EMPTY))
    rows = scene.wait_equal()

    status = scene.wait_idle()

    assert (status["documents"], status["chunks"]) == (files, len(rows))
    assert not any(row.source.endswith(tuple(EMPTY)) for row in rows)


def test_a_file_of_a_gigabyte_is_not_read(scene: Scene) -> None:
    scene.wait_problems()
    before_bytes = scene.peak_memory_bytes()

    for number in range(3):
        bad = Bad(f"large-{number}.txt", _sparse, "OversizeDocument", "1,073,741,824 bytes", "watch.max_file_bytes")
        put(scene.site.folder, bad)
        scene.bad[bad.name] = bad
    problems = scene.wait_problems()
    for path, bad in scene.bad.items():
        assert problems[spelled(path)]["kind"] == bad.kind
        assert bad.said in problems[spelled(path)]["reason"]
        assert bad.remedy in problems[spelled(path)]["remedy"]

    assert scene.peak_memory_bytes() - before_bytes < 8 * MEGABYTE


def test_a_line_of_five_megabytes_is_indexed(scene: Scene) -> None:
    words = " ".join(f"word{number}" for number in range(5 * MEGABYTE // 10))
    (scene.site.folder / "one-line.txt").write_text(f"{words[: 5 * MEGABYTE]}end", encoding="utf-8")

    rows = scene.wait_equal()

    (last,) = (row for row in rows if row.source == "one-line.txt" and row.text.endswith("end"))
    assert (last.metadata["start_line"], last.metadata["end_line"]) == (1, 1)
    (scene.site.folder / "one-line.txt").unlink()
    scene.embedded_in_vain += len(rows)
    scene.wait_equal()


def test_a_device_is_a_problem(scene: Scene) -> None:
    try:
        os.mknod(scene.site.folder / "null.txt", modes.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make device nodes, and not in every container")
    bad = Bad("null.txt", _sparse, _UNREADABLE, "a device", "watch.exclude")
    scene.bad[bad.name] = bad

    problem = scene.wait_problems()[bad.name]

    assert problem["kind"] == bad.kind
    assert bad.said in problem["reason"]


def test_symbolic_links_are_left_out_with_their_reason(scene: Scene, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("Not for the collection.", encoding="utf-8")
    links = scene.site.folder / "links"
    links.mkdir()
    for name, target in {
        "loop.txt": links / "loop.txt",
        "out.txt": outside / "secret.txt",
        "out-folder": outside,
        "up": scene.site.folder,
        "within.txt": scene.site.folder / "early" / "Case.txt",
        "nowhere.txt": links / "missing.txt",
    }.items():
        (links / name).symlink_to(target)
    wanted = {f"links/{path.name}" for path in links.iterdir()}

    eventually(lambda: wanted <= {told["path"] for told in scene.daemon.events("path.left_out")}, scene.daemon.log)

    for told in scene.daemon.events("path.left_out"):
        assert "symbolic link" in told["reason"]
        assert "watch.follow_symlinks" in told["reason"]
    assert len(scene.daemon.events("path.left_out")) == len(wanted), "each of them is told once"
    assert not wanted & scene.problems().keys()
    scene.wait_equal()


def test_an_indexed_file_that_may_not_be_read_any_more_keeps_its_records_and_comes_back(scene: Scene) -> None:
    file = scene.site.folder / "payroll.txt"
    file.write_text("It was indexed before it was closed.", encoding="utf-8")
    rows = scene.wait_equal()
    texts = scene.server.texts
    file.chmod(0)
    eventually(lambda: "payroll.txt" in scene.problems(), scene.daemon.log)
    assert "chmod" in scene.problems()["payroll.txt"]["remedy"]
    assert {row.id for row in scene.reading.rows()} == {row.id for row in rows}
    file.chmod(0o644)
    eventually(lambda: "payroll.txt" not in scene.problems(), scene.daemon.log)
    assert {row.id for row in scene.wait_equal()} == {row.id for row in rows}
    assert scene.server.texts == texts


def test_a_folder_that_may_not_be_listed_and_one_too_deep_stop_nobody(scene: Scene) -> None:
    folder = scene.site.folder
    closed = folder / "closed"
    closed.mkdir()
    (closed / "known.txt").write_text("It was indexed before the folder was closed.", encoding="utf-8")
    deep = folder
    while len(os.fsencode(deep)) < 3_800:
        deep /= "d" * 200
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text("At the bottom of it all.", encoding="utf-8")
    scene.wait_equal()
    closed.chmod(0)
    try:
        make_too_deep(deep)
        (folder / "beside.txt").write_text("Beside all this.", encoding="utf-8")
        eventually(lambda: len(unreadable(scene)) > 1, scene.daemon.log)
        told = unreadable(scene)
        assert "Permission denied" in told.pop("closed")
        assert all(path.startswith("d" * 200) and "File name too long" in reason for path, reason in told.items())
        held = scene.reading.rows()
        assert {row.source for row in held} >= {"closed/known.txt"}, "what cannot be looked at is not gone"
        listed = {path for path, problem in scene.problems().items() if problem["kind"] == "UnreadableFolder"}
        assert "closed" in listed
        assert listed & told.keys()
    finally:
        closed.chmod(0o755)
        shutil.rmtree(folder / ("d" * 200) / ("d" * 200))
    scene.wait_equal()
    scene.wait_problems()


def unreadable(scene: Scene) -> dict[str, str]:
    """Folders that the daemon could not list, with the reason."""
    return {str(told["path"]): str(told["reason"]) for told in scene.daemon.events("folder.unreadable")}


def make_too_deep(deep: Path) -> None:
    """Go on until no path from the root of the file system leads there."""
    at = os.open(deep, os.O_RDONLY)
    try:
        for _ in range(3):
            os.mkdir("e" * 200, dir_fd=at)
            inner = os.open("e" * 200, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = inner
        os.close(os.open("deepest.txt", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    finally:
        os.close(at)


def test_files_that_vanish_and_files_that_change_under_the_read(scene: Scene) -> None:
    folder = scene.site.folder / "restless"
    folder.mkdir()
    known = scene.problems().keys()
    growing = folder / "growing.txt"
    scene.embedded_in_vain += 60
    with growing.open("w", encoding="utf-8") as written:
        for number in range(60):
            passing = folder / f"passing-{number}.txt"
            passing.write_text(f"Number {number} is soon gone.", encoding="utf-8")
            written.write(f"Line {number} of a text that grows while it is read.\n")
            written.flush()
            time.sleep(0.02 + number % 7 * 0.01)
            if number % 2:
                passing.unlink()
            else:
                passing.rename(folder / "passing.txt")
        written.write("This is its last line.\n")

    scene.wait_idle()
    rows = scene.wait_equal()

    assert any(row.source == "restless/growing.txt" and "last line" in row.text for row in rows)
    assert scene.problems().keys() == known


def test_no_name_forges_a_line_of_the_log(scene: Scene) -> None:
    names: set[str] = set()
    for line in scene.daemon.log().splitlines():
        entry = json.loads(line)
        assert "timestamp" in entry
        assert entry["event"] != "forged"
        names.add(str(entry.get("path", "")))
    assert names >= {f"late/{name}" for name in GOOD_NAMES}


def test_no_name_and_no_text_takes_over_a_terminal(scene: Scene) -> None:
    shown = on_a_terminal(scene, "problems")
    assert_harmless(shown)
    assert r"\x1b[2J" in shown
    assert r"caf\xe9.txt" in shown
    assert_harmless(on_a_terminal(scene, "status"))
    asked = ("query", "good file", "-n", "60", "--where", '{"file_size": {"$lt": 1000}}')
    shown = on_a_terminal(scene, *asked)
    assert_harmless(shown)
    assert "[bold]markup [red].txt" in shown
    assert "[/] [bold]no markup[/bold]" in shown
    assert r"line\n{" in shown
    hits = scene.site.command(*asked, "--json")
    assert_harmless(hits.out)
    assert {f"late/{name}" for name in GOOD_NAMES} <= {hit["source"] for hit in hits.json()}
    assert_harmless(scene.site.command("problems", "--json").out)


def test_what_was_bad_is_indexed_once_it_is_mended_and_good_files_go_on_being_indexed(scene: Scene) -> None:
    folder = scene.site.folder
    for path in list(scene.bad):
        with contextlib.suppress(FileNotFoundError):
            (folder / path).unlink()
    scene.bad.clear()
    for name in ("russian.txt", "half.txt", "nul.txt", "pipe", "closed.txt"):
        (folder / "late" / name).write_text(f"{name} is mended.", encoding="utf-8")
    (folder / "afterwards.txt").write_text("A good file, after all.", encoding="utf-8")

    rows = scene.wait_equal()

    assert "afterwards.txt" in {row.source for row in rows}
    assert scene.wait_problems() == {}
    assert scene.daemon.terminate() == 0
    assert_equal(folder, scene.site.at_rest(), wanted=scene.wants, cutter=CUTTER, dimensions=DIMENSIONS)
