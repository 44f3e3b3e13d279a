import errno
import os
import shutil
import socket
import stat as modes
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.adapters import folder as folder_module
from ingestor.adapters.folder import Folder
from ingestor.adapters.mounts import Mount
from ingestor.adapters.reading import RETRY_SECONDS
from ingestor.adapters.rules import RULES_FILE, Rules
from ingestor.core.attaching import SETTINGS_FILE, UNTELLABLE
from ingestor.core.errors import (
    OversizeDocument,
    ServiceUnavailable,
    UnreadableDocument,
    UnstableDocument,
    UnusableMetadata,
)
from ingestor.core.formats import Format
from ingestor.core.model import ChunkSize, Stat
from ingestor.ports import Source
from tests.doubles_folder import MemoryFolder

MAX_FILE_BYTES = 1000
NOBODY = 65534
LONG_AGO_NS = 1_700_000_000_000_000_000


class Bench(Protocol):
    """A source, and the means to change what lies in it."""

    @property
    def source(self) -> Source: ...

    def convert_with(self, converters: Mapping[Format, str]) -> None: ...
    def write(self, path: str, raw: bytes = b"") -> None: ...
    def write_unsettled(self, path: str) -> None: ...
    def make_special(self, path: str) -> None: ...
    def delete(self, path: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def remove_root(self) -> None: ...


class Disk:
    def __init__(self, root: Path, rules: Rules, *, follow_symlinks: bool = False) -> None:
        self.root = root
        self.now_ns: int | None = None
        self.writers = ExitStack()
        self.writer: BinaryIO | None = None
        self._folder = partial(
            Folder,
            root,
            rules,
            follow_symlinks=follow_symlinks,
            max_file_bytes=MAX_FILE_BYTES,
            now_ns=lambda: self.now_ns or time.time_ns(),
            sleep=self.sleep,
        )
        self.source = self._folder()

    def convert_with(self, converters: Mapping[Format, str]) -> None:
        self.source = self._folder(converters=converters)

    def write(self, path: str, raw: bytes = b"") -> None:
        absolute = self.root / path
        absolute.parent.mkdir(parents=True, exist_ok=True)
        absolute.write_bytes(raw)
        age(absolute)

    def write_unsettled(self, path: str) -> None:
        self.write(path, b"half")
        self.now_ns = LONG_AGO_NS + 50_000_000
        self.writer = self.writers.enter_context((self.root / path).open("ab", buffering=0))

    def sleep(self, seconds: float) -> None:
        """Let the writer go on."""
        if self.writer:
            self.writer.write(b" and half")
        time.sleep(seconds)

    def make_special(self, path: str) -> None:
        os.mkfifo(self.root / path)

    def delete(self, path: str) -> None:
        (self.root / path).unlink()

    def rename(self, old: str, new: str) -> None:
        (self.root / old).rename(self.root / new)

    def remove_root(self) -> None:
        shutil.rmtree(self.root)


class Memory:
    def __init__(self, rules: Rules) -> None:
        self.source = MemoryFolder(rules, max_file_bytes=MAX_FILE_BYTES)
        self.write = self.source.write
        self.delete = self.source.delete
        self.rename = self.source.rename

    def convert_with(self, converters: Mapping[Format, str]) -> None:
        self.source.converters = converters

    def write_unsettled(self, path: str) -> None:
        self.source.write(path, b"half")
        self.source.unsettled.add(path)

    def make_special(self, path: str) -> None:
        self.source.write(path, b"", is_regular=False)

    def remove_root(self) -> None:
        self.source.is_missing = True


def age(path: Path) -> None:
    """Date a file back, so that it counts as written long ago."""
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


@pytest.fixture(params=["disk", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Rules], Bench]]:
    with ExitStack() as writers:

        def build(rules: Rules) -> Bench:
            if request.param == "memory":
                return Memory(rules)
            root = tmp_path / "root"
            root.mkdir()
            disk = Disk(root, rules)
            writers.enter_context(disk.writers)
            return disk

        yield build


@pytest.fixture
def bench(make: Callable[[Rules], Bench]) -> Bench:
    return make(Rules([], []))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    root = tmp_path / "root"
    root.mkdir()
    return Disk(root, Rules([], []))


# What both do


def test_a_scan_finds_every_file_and_no_folder(bench: Bench) -> None:
    for path in ("a.md", "x/b.md", "x/y/c.md", "文/d.md", "a b/é.md"):
        bench.write(path)
    snapshot = bench.source.scan()
    assert sorted(snapshot.files) == sorted(["a.md", "x/b.md", "x/y/c.md", "文/d.md", "a b/é.md"])
    assert not snapshot.unreadable
    assert not snapshot.skipped


def test_a_scan_of_an_empty_folder_is_empty(bench: Bench) -> None:
    assert bench.source.scan().files == {}


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("x", ["x/b.md", "x/y/c.md"]),
        ("x/y", ["x/y/c.md"]),
        ("x/b.md", ["x/b.md"]),
        ("xx", ["xx/d.md"]),
        ("nothing", []),
        ("x/nothing", []),
        ("x/b.md/under", []),
        (".git", []),
        (".git/HEAD", []),
    ],
)
def test_a_scan_of_a_part(bench: Bench, below: str, expected: list[str]) -> None:
    for path in ("a.md", "x/b.md", "x/y/c.md", "xx/d.md", ".git/HEAD"):
        bench.write(path)
    assert sorted(bench.source.scan(below).files) == expected


def test_a_look_sees_what_a_scan_sees(bench: Bench) -> None:
    bench.write("x/a.md", b"12345")
    stat = bench.source.look("x/a.md")
    assert stat is not None
    assert stat.version == bench.source.scan().files["x/a.md"]
    assert stat.size_bytes == 5
    assert stat.is_regular


@pytest.mark.parametrize("path", ["x", "nothing", "x/nothing", "x/a.md/under", ".hidden/a.md", "x/a.md~"])
def test_a_look_at_no_file_of_the_source_sees_nothing(bench: Bench, path: str) -> None:
    for each in ("x/a.md", ".hidden/a.md", "x/a.md~"):
        bench.write(each)
    assert bench.source.look(path) is None


def test_a_changed_file_has_another_stat(bench: Bench) -> None:
    bench.write("a.md", b"one")
    before = bench.source.look("a.md")
    bench.write("a.md", b"three")
    after = bench.source.look("a.md")
    assert before is not None
    assert after is not None
    assert not after.same_content_as(before)
    assert after.inode == before.inode


def test_a_renamed_file_keeps_inode_and_time_of_modification(bench: Bench) -> None:
    bench.write("a.md", b"one")
    before = bench.source.look("a.md")
    bench.rename("a.md", "b.md")
    after = bench.source.look("b.md")
    assert bench.source.look("a.md") is None
    assert before is not None
    assert after is not None
    assert (after.inode, after.mtime_ns, after.size_bytes) == (before.inode, before.mtime_ns, before.size_bytes)


def test_a_read_gives_bytes_stat_and_hash(bench: Bench) -> None:
    bench.write("x/a.md", b"text")
    content = bench.source.read("x/a.md")
    assert content.raw == b"text"
    assert content.content_hash == sha256(b"text").hexdigest()
    assert content.stat == bench.source.look("x/a.md")


@pytest.mark.parametrize("size_bytes", [0, 1, MAX_FILE_BYTES])
def test_a_file_of_an_allowed_size_is_read_whole(bench: Bench, size_bytes: int) -> None:
    bench.write("a.md", b"x" * size_bytes)
    assert len(bench.source.read("a.md").raw) == size_bytes


def test_a_file_too_large_is_seen_and_not_read(bench: Bench) -> None:
    bench.write("a.md", b"x" * (MAX_FILE_BYTES + 1))
    assert bench.source.look("a.md") is not None
    with pytest.raises(OversizeDocument):
        bench.source.read("a.md")


def test_a_look_at_many_is_a_look_at_each(bench: Bench) -> None:
    for path in ("a.md", "x/b.md", "x/c.md", "x/y/d.md", "x/y/z/e.md", "hidden/f.md", "broken/g.md"):
        bench.write(path, b"text")
    bench.write("x/b.md.meta.json", b"{}")
    bench.write("x/y/.ingestor.toml", b"metadata.team = 'red'")
    bench.write("x/.ingestorignore", b"c.md\nz/\n")
    bench.write("broken/.ingestor.toml", b"ignore = 3")
    paths = [*bench.source.scan().files, "x/c.md", "x/y/z/e.md", "x", "x/y", "nowhere/a.md", "a.md/b", "broken/g.md"]
    found = bench.source.looks(paths)
    for path, look in zip(paths, found, strict=True):
        if path == "broken/g.md":
            assert isinstance(look, UnreadableDocument)
            continue
        alone = bench.source.look(path)
        assert look == alone, path
        assert not isinstance(look, Stat) or (alone and look.attached == alone.attached)
    assert [path for path, look in zip(paths, found, strict=True) if look] == [
        path for path in paths if path in bench.source.scan().files or path == "broken/g.md"
    ]


def test_the_place_is_the_same_until_another_folder_is_there(bench: Bench) -> None:
    bench.write("a.md")
    place = bench.source.place()
    bench.write("sub/b.md")
    bench.delete("a.md")
    assert bench.source.place() == place
    bench.remove_root()
    with pytest.raises(ServiceUnavailable):
        bench.source.place()


def test_another_folder_or_a_disk_mounted_below_it_is_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    source = Disk(root, Rules([], [])).source
    places = {source.place()}
    root.rename(tmp_path / "former")
    root.mkdir()
    places.add(source.place())
    mounts = (Mount("/", "ext4"), Mount(f"{root}/sub", "nfs4"), Mount(f"{root}-beside", "nfs4"))
    monkeypatch.setattr(folder_module, "read_mounts", lambda: mounts)
    places.add(source.place())
    assert len(places) == 3
    monkeypatch.setattr(folder_module, "read_mounts", lambda: mounts[:2])
    assert source.place() in places, "what is mounted elsewhere counts for nothing"


def test_a_look_at_many_of_a_root_that_is_missing_tells_nothing_of_any(tmp_path: Path) -> None:
    found = Disk(tmp_path / "nowhere", Rules([], [])).source.looks(["a.md", "b.md"])
    assert [type(each) for each in found] == [ServiceUnavailable] * 2


@pytest.mark.parametrize("path", ["gone.md", "gone/a.md"])
def test_a_file_that_vanished_is_to_be_looked_at_again(bench: Bench, path: str) -> None:
    with pytest.raises(UnstableDocument) as caught:
        bench.source.read(path)
    assert caught.value.retry_after_seconds is not None


def test_a_file_that_is_being_written_is_to_be_read_later(bench: Bench) -> None:
    bench.write_unsettled("a.md")
    with pytest.raises(UnstableDocument) as caught:
        bench.source.read("a.md")
    assert caught.value.retry_after_seconds is not None
    assert 0 < caught.value.retry_after_seconds <= RETRY_SECONDS


def test_what_is_no_regular_file_is_seen_and_not_read(bench: Bench) -> None:
    bench.make_special("pipe")
    stat = bench.source.look("pipe")
    assert stat is not None
    assert not stat.is_regular
    assert bench.source.scan().files == {"pipe": stat.version}
    with pytest.raises(UnreadableDocument, match="FIFO"):
        bench.source.read("pipe")


def test_a_name_that_is_no_utf8_is_seen_and_not_read(bench: Bench) -> None:
    path = os.fsdecode(b"\xc4\xe3.md")
    bench.write(path, b"text")
    assert list(bench.source.scan().files) == [path]
    assert bench.source.look(path) is not None
    with pytest.raises(UnreadableDocument, match="not valid UTF-8"):
        bench.source.read(path)


def test_a_missing_root_is_not_an_empty_folder(bench: Bench) -> None:
    bench.write("a.md")
    bench.remove_root()
    for act in (bench.source.scan, lambda: bench.source.look("a.md"), lambda: bench.source.read("a.md")):
        with pytest.raises(ServiceUnavailable):
            act()
    with pytest.raises(ServiceUnavailable):
        bench.source.scan("x")


def test_include_exclude_and_ignore_files_count_together(make: Callable[[Rules], Bench]) -> None:
    bench = make(Rules(["*.md", RULES_FILE], ["drafts/", "!.*"]))
    bench.write(RULES_FILE, b"*.log.md\n/top/*\n!/top/keep.md\n")
    bench.write("x/" + RULES_FILE, b"!special.log.md\ny/\n")
    for path in ("a.md", "a.txt", "b.log.md", "drafts/c.md", "x/special.log.md", "x/y/d.md", "top/e.md", "top/keep.md"):
        bench.write(path)
    bench.write(".f.md")
    expected = sorted([RULES_FILE, f"x/{RULES_FILE}", "a.md", "x/special.log.md", "top/keep.md", ".f.md"])
    assert sorted(bench.source.scan().files) == expected


def test_nothing_below_a_folder_left_out_comes_back(make: Callable[[Rules], Bench]) -> None:
    bench = make(Rules([], ["drafts/", "!drafts/a.md"]))
    bench.write("drafts/" + RULES_FILE, b"!*\n")
    bench.write("drafts/a.md")
    assert bench.source.scan().files == {}
    assert bench.source.look("drafts/a.md") is None


def test_lines_that_are_no_patterns_are_listed(bench: Bench) -> None:
    bench.write("x/" + RULES_FILE, b"[z-a]\n*.log\n")
    bench.write("x/a.log")
    bench.write("x/a.md")
    snapshot = bench.source.scan()
    assert list(snapshot.files) == ["x/a.md"]
    assert list(snapshot.skipped) == ["x/" + RULES_FILE]
    assert "line 1" in snapshot.skipped["x/" + RULES_FILE]


def test_what_is_attached_is_named_alike_by_scan_look_and_read(bench: Bench) -> None:
    bench.write("x/a.md", b"text")
    bench.write("x/b.md", b"text")
    bench.write("x/y/c.md", b"text")
    bench.write("d.md", b"text")
    assert bench.source.scan().attached == {}
    bench.write("x/a.md.meta.json", b'{"k": 1}')
    bench.write("x/y/" + SETTINGS_FILE, b"[metadata]\nk = 2\n[chunk]\nmax_tokens = 50")
    snapshot = bench.source.scan()
    assert sorted(snapshot.files) == ["d.md", "x/a.md", "x/b.md", "x/y/c.md"]
    assert sorted(snapshot.attached) == ["x/a.md", "x/y/c.md"]
    for path in snapshot.files:
        stat = bench.source.look(path)
        content = bench.source.read(path)
        assert stat is not None
        assert stat.attached == content.stat.attached == snapshot.attached.get(path, "")
        assert bench.source.scan(path).attached.get(path, "") == stat.attached
    assert bench.source.read("x/a.md").sidecar == b'{"k": 1}'
    inner = bench.source.read("x/y/c.md").attached
    assert (inner.layer, inner.size) == ({"k": 2}, ChunkSize(50, 0))


def test_what_converts_a_file_is_attached_to_it_and_to_no_other(bench: Bench) -> None:
    for path in ("a.md", "x/b.HTML", "c.pdf", "d.docx", "pdf"):
        bench.write(path, b"text")
    bench.convert_with({Format.HTML: "one", Format.PDF: "one"})
    found = bench.source.scan().attached
    assert sorted(found) == ["c.pdf", "x/b.HTML"]
    bench.write("c.pdf.meta.json", b"{}")
    snapshot = bench.source.scan()
    for path in snapshot.files:
        stat = bench.source.look(path)
        assert stat is not None
        assert stat.attached == bench.source.read(path).stat.attached == snapshot.attached.get(path, "")
        assert bench.source.scan(path).attached.get(path, "") == stat.attached
    names = [found["c.pdf"], snapshot.attached["c.pdf"]]
    bench.convert_with({Format.PDF: "two"})
    snapshot = bench.source.scan()
    assert list(snapshot.attached) == ["c.pdf"]
    names.append(snapshot.attached["c.pdf"])
    bench.convert_with({})
    names.append(bench.source.scan().attached["c.pdf"])
    assert len(set(names)) == len(names)
    bench.write(SETTINGS_FILE, b"[metadata")
    before = bench.source.scan().attached
    bench.convert_with({Format.PDF: "one"})
    assert bench.source.scan().attached == before, "it keeps what it has until that can be told"


def test_every_change_of_what_is_attached_changes_its_name_and_taking_it_away_too(bench: Bench) -> None:
    bench.write("x/a.md", b"text")
    names = [bench.source.scan().attached.get("x/a.md")]
    for path, raw in (
        ("x/a.md.meta.json", b"{}"),
        ("x/a.md.meta.json", b"{ }"),
        (SETTINGS_FILE, b"[metadata]\nk = 1"),
        ("x/" + SETTINGS_FILE, b"[metadata]\nk = 2"),
        ("x/" + SETTINGS_FILE, b"[metadata"),
    ):
        bench.write(path, raw)
        names.append(bench.source.scan().attached.get("x/a.md"))
    assert len(set(names)) == len(names)
    assert names[-1] == UNTELLABLE
    for path in ("x/a.md.meta.json", SETTINGS_FILE, "x/" + SETTINGS_FILE):
        bench.delete(path)
    assert bench.source.scan().attached == {}


def test_what_is_attached_is_no_document_whatever_the_rules_say(make: Callable[[Rules], Bench]) -> None:
    bench = make(Rules(["*.md", "*.json", "*.toml"], ["!.*"]))
    for path in ("a.md", "a.md.meta.json", "b.json", "x/" + SETTINGS_FILE):
        bench.write(path)
        bench.source.scan(path)
    bench.write("x/c.md")
    assert sorted(bench.source.scan().files) == ["a.md", "b.json", "x/c.md"]
    for path in ("a.md.meta.json", "x/" + SETTINGS_FILE):
        assert bench.source.look(path) is None
        assert bench.source.scan(path).files == {}


def test_a_sidecar_counts_unless_it_is_left_out_itself(make: Callable[[Rules], Bench]) -> None:
    bench = make(Rules(["*.md"], []))
    bench.write("a.md")
    bench.write("a.md.meta.json", b"{}")
    assert list(bench.source.scan().attached) == ["a.md"]
    bench.write(RULES_FILE, b"*.meta.json")
    assert bench.source.scan().attached == {}
    assert bench.source.read("a.md").sidecar is None


def test_a_sidecar_without_its_file_is_told(bench: Bench) -> None:
    bench.write("x/gone.md.meta.json", b"{}")
    snapshot = bench.source.scan()
    assert snapshot.files == {}
    assert "sidecar" in snapshot.skipped["x/gone.md.meta.json"]


def test_a_settings_file_ignores_as_a_rules_file_of_its_folder_does(bench: Bench) -> None:
    bench.write("x/" + SETTINGS_FILE, b'ignore = ["*.log", "/y/", "[z-a]"]')
    bench.write("x/" + RULES_FILE, b"!keep.log\n")
    for path in ("x/a.log", "x/keep.log", "x/y/b.md", "x/z/y/c.md", "y/d.md"):
        bench.write(path)
    snapshot = bench.source.scan()
    assert sorted(snapshot.files) == ["x/keep.log", "x/z/y/c.md", "y/d.md"]
    assert "line 3" in snapshot.skipped["x/" + SETTINGS_FILE]
    assert bench.source.look("x/a.log") is None


def test_a_settings_file_with_a_fault_is_told_by_its_path_and_hides_nothing(bench: Bench) -> None:
    bench.write("x/a.md", b"text")
    bench.write("x/y/b.md", b"text")
    bench.write("x/" + SETTINGS_FILE, b'ignore = ["*.log"]\n[metadata]\nsource = 1\n')
    bench.write("x/c.log")
    snapshot = bench.source.scan()
    assert sorted(snapshot.files) == ["x/a.md", "x/y/b.md"]
    assert list(snapshot.unreadable) == ["x/" + SETTINGS_FILE]
    assert "the key source" in snapshot.unreadable["x/" + SETTINGS_FILE]
    assert set(snapshot.attached.values()) == {UNTELLABLE}
    assert bench.source.read("x/a.md").stat.attached == UNTELLABLE


def test_a_settings_file_whose_ignore_cannot_be_told_makes_its_folder_unknown(bench: Bench) -> None:
    bench.write("x/a.md", b"text")
    bench.write("b.md", b"text")
    bench.write("x/" + SETTINGS_FILE, b'ignore = ["secret/')
    snapshot = bench.source.scan()
    assert list(snapshot.files) == ["b.md"]
    assert SETTINGS_FILE in snapshot.unreadable["x"]
    with pytest.raises(UnreadableDocument):
        bench.source.look("x/a.md")


NAMES = st.sampled_from(["a", "b", "c", "d.md", "e.tmp", ".f", "g h", "文"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LINES = st.sampled_from(
    ["a", "/a", "b/", "!a", "!b/", "*", "!*/", "!*.md", "a/**", "!a/b", "**/c", "*.tmp", "!*.tmp", "!.*", "文", "[z-a]"]
)


@pytest.mark.parametrize("kind", [Disk, Memory])
@settings(max_examples=80, deadline=None)
@given(
    paths=st.sets(PATHS, max_size=12),
    include=st.lists(LINES.filter(lambda line: line != "[z-a]"), max_size=2),
    exclude=st.lists(LINES.filter(lambda line: line != "[z-a]"), max_size=3),
    rules_files=st.dictionaries(st.sampled_from(["", "a/", "a/b/", "b/"]), st.lists(LINES, max_size=4), max_size=3),
)
def test_a_scan_and_single_looks_always_agree(
    kind: type[Disk] | type[Memory],
    paths: set[str],
    include: list[str],
    exclude: list[str],
    rules_files: dict[str, list[str]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        rules = Rules(include, exclude)
        bench: Bench = Disk(Path(name), rules) if kind is Disk else Memory(rules)
        written = {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}
        for path in written:
            bench.write(path)
        for folder, lines in rules_files.items():
            if any(path.startswith(folder) for path in written):
                bench.write(folder + RULES_FILE, "\n".join(lines).encode())
        folders = {path.rpartition("/")[0] for path in written}
        everything = written | folders | {folder + RULES_FILE for folder in rules_files}
        scanned = bench.source.scan().files
        assert scanned == {path: stat.version for path in everything if path and (stat := bench.source.look(path))}
        for folder in folders:
            below = {path: version for path, version in scanned.items() if not folder or path.startswith(f"{folder}/")}
            assert bench.source.scan(folder).files == below


# What only a real file system can do


@contextmanager
def unprivileged() -> Iterator[None]:
    """Lose root's right to read everything; a user that is not root never had it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_disk() -> Iterator[Disk]:
    """A root that another user can reach, which pytest's own folders are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Disk(Path(name), Rules([], []))
        for folder, _, _ in os.walk(name):
            Path(folder).chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_there(public_disk: Disk) -> None:
    public_disk.write("a.md")
    public_disk.write("closed/b.md")
    (public_disk.root / "closed").chmod(0)
    with unprivileged():
        snapshot = public_disk.source.scan()
        part = public_disk.source.scan("closed/b.md")
        with pytest.raises(UnreadableDocument) as caught:
            public_disk.source.look("closed/b.md")
    (public_disk.root / "closed").chmod(0o755)
    assert list(snapshot.files) == ["a.md"]
    assert list(snapshot.unreadable) == list(part.unreadable) == ["closed"]
    assert "Permission denied" in snapshot.unreadable["closed"]
    assert "closed" in str(caught.value)
    assert caught.value.remedy


def test_what_a_file_system_keeps_for_itself_is_no_folder_that_cannot_be_listed(public_disk: Disk) -> None:
    public_disk.write("a.md")
    for name in ("lost+found", "sub/#Snapshot", "System Volume Information"):
        public_disk.write(f"{name}/b.md")
        (public_disk.root / name).chmod(0)
    with unprivileged():
        snapshot = public_disk.source.scan()
        assert public_disk.source.look("lost+found/b.md") is None
    assert list(snapshot.files) == ["a.md"]
    assert not snapshot.unreadable


def test_a_folder_that_may_be_listed_and_not_entered_is_named(public_disk: Disk) -> None:
    public_disk.write("closed/b.md")
    (public_disk.root / "closed").chmod(0o444)
    with unprivileged():
        snapshot = public_disk.source.scan()
    (public_disk.root / "closed").chmod(0o755)
    assert snapshot.files == {}
    assert list(snapshot.unreadable) == ["closed"]


def test_a_folder_that_may_be_entered_and_not_listed_is_named(public_disk: Disk) -> None:
    public_disk.write("closed/b.md")
    (public_disk.root / "closed").chmod(0o311)
    with unprivileged():
        snapshot = public_disk.source.scan()
    (public_disk.root / "closed").chmod(0o755)
    assert "cannot be listed" in snapshot.unreadable["closed"]


def test_a_root_that_cannot_be_listed_is_unknown_altogether(public_disk: Disk) -> None:
    public_disk.write("a.md")
    public_disk.root.chmod(0o311)
    with unprivileged():
        snapshot = public_disk.source.scan()
    public_disk.root.chmod(0o755)
    assert list(snapshot.unreadable) == [""]


def test_a_rules_file_that_cannot_be_read_makes_its_folder_unknown(public_disk: Disk) -> None:
    public_disk.write("x/a.md")
    public_disk.write("x/" + RULES_FILE, b"a.md")
    (public_disk.root / "x" / RULES_FILE).chmod(0)
    with unprivileged():
        snapshot = public_disk.source.scan()
        with pytest.raises(UnreadableDocument, match=RULES_FILE):
            public_disk.source.look("x/a.md")
    assert snapshot.files == {}
    assert RULES_FILE in snapshot.unreadable["x"]


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_a_settings_file_or_a_sidecar_that_is_a_symbolic_link_is_not_followed(
    tmp_path: Path, *, follow_symlinks: bool
) -> None:
    disk = Disk(tmp_path / "root", Rules([], []), follow_symlinks=follow_symlinks)
    disk.write("a.md", b"text")
    disk.write("x/b.md", b"text")
    disk.write("inside.json", b'{"k": 1}')
    (tmp_path / "outside.toml").write_text("[metadata]\nk = 1\n", "utf-8")
    (disk.root / "a.md.meta.json").symlink_to("inside.json")
    (disk.root / "x" / SETTINGS_FILE).symlink_to(tmp_path / "outside.toml")
    snapshot = disk.source.scan()
    assert sorted(snapshot.files) == ["a.md", "inside.json"]
    assert not snapshot.attached
    assert "symbolic link" in snapshot.skipped["a.md.meta.json"]
    assert "symbolic link" in snapshot.unreadable["x"]
    assert disk.source.read("a.md").sidecar is None


def test_a_sidecar_that_is_no_file_is_a_fault_of_its_document(disk: Disk) -> None:
    disk.write("a.md", b"text")
    os.mkfifo(disk.root / "a.md.meta.json")
    assert list(disk.source.scan().attached) == ["a.md"]
    with pytest.raises(UnusableMetadata, match=r"a\.md\.meta\.json"):
        disk.source.read("a.md")
    (disk.root / "a.md.meta.json").unlink()
    (disk.root / "a.md.meta.json").mkdir()
    assert disk.source.scan().attached == {}
    assert disk.source.read("a.md").sidecar is None


def test_a_rules_file_that_is_something_else_makes_its_folder_unknown(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("folder", "link", "pipe", "huge"):
        disk.write(f"{name}/a.md")
    (disk.root / "folder" / RULES_FILE).mkdir()
    (disk.root / "link" / RULES_FILE).symlink_to("a.md")
    os.mkfifo(disk.root / "pipe" / RULES_FILE)
    monkeypatch.setattr(folder_module, "MAX_RULES_FILE_BYTES", 3)
    disk.write("huge/" + RULES_FILE, b"1234")
    snapshot = disk.source.scan()
    assert snapshot.files == {}
    assert sorted(snapshot.unreadable) == ["folder", "huge", "link", "pipe"]


def test_a_file_without_permission_is_seen_and_its_error_says_what_to_do(public_disk: Disk) -> None:
    public_disk.write("a.md", b"text")
    (public_disk.root / "a.md").chmod(0)
    with unprivileged():
        assert public_disk.source.look("a.md") is not None
        with pytest.raises(UnreadableDocument, match="Permission denied") as caught:
            public_disk.source.read("a.md")
    assert "chmod" in caught.value.remedy
    assert caught.value.is_unknown, "it may hold what it held"


def test_a_sidecar_without_permission_says_nothing_of_its_file(public_disk: Disk) -> None:
    public_disk.write("a.md", b"text")
    public_disk.write("a.md.meta.json", b"{}")
    (public_disk.root / "a.md.meta.json").chmod(0)
    with unprivileged(), pytest.raises(UnusableMetadata, match="Permission denied") as caught:
        public_disk.source.read("a.md")
    assert caught.value.is_unknown


def test_a_root_that_is_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(ServiceUnavailable, match="no folder"):
        Disk(tmp_path / "root", Rules([], [])).source.scan()


def test_a_root_that_goes_away_during_a_scan_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    disk = Disk(root, UnmountingRules(root))
    disk.write("a.md")
    disk.write("x/b.md")
    with pytest.raises(ServiceUnavailable, match="replaced"):
        disk.source.scan()


class UnmountingRules(Rules):
    """Puts another folder in the place of the root when the first file is judged."""

    def __init__(self, root: Path) -> None:
        super().__init__([], [])
        self.root = root

    def wants(self, path: str) -> bool:
        elsewhere = self.root.with_name("elsewhere")
        if not elsewhere.exists():
            self.root.rename(elsewhere)
            self.root.mkdir()
        return super().wants(path)


def test_sockets_and_devices_are_named(disk: Disk) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(disk.root / "socket"))
        with pytest.raises(UnreadableDocument, match="socket"):
            disk.source.read("socket")
    if os.geteuid() == 0:
        try:
            os.mknod(disk.root / "device", 0o600 | modes.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            return  # A container without the right to make devices: the rest is tested.
        with pytest.raises(UnreadableDocument, match="device"):
            disk.source.read("device")


def test_a_folder_is_not_read(disk: Disk) -> None:
    disk.write("x/a.md")
    with pytest.raises(UnreadableDocument, match="folder"):
        disk.source.read("x")


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../secret", "x/../../secret", "/etc/passwd", "x//a.md", "x\0", "\ud800"]
)
def test_a_path_out_of_the_root_leads_nowhere(disk: Disk, path: str) -> None:
    disk.write("x/a.md")
    disk.root.with_name("secret").write_bytes(b"")
    assert disk.source.look(path) is None
    assert not path or disk.source.scan(path).files == {}
    with pytest.raises(UnreadableDocument):
        disk.source.read(path)


def test_folders_left_out_are_left_out_by_every_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in ("own/ledger", "x/own/ledger", "a.md"):
        Disk(root, Rules([], [])).write(path)
    (root / "link").symlink_to("own")
    (root / "above").symlink_to("x")
    (root / "file").symlink_to("own/ledger")
    source = Folder(
        root,
        Rules([], []),
        follow_symlinks=True,
        max_file_bytes=1,
        left_out=[root / "own", root / "x" / "own", tmp_path / "elsewhere"],
    )
    assert list(source.scan().files) == ["a.md"]
    for path in ("own/ledger", "link/ledger", "above/own/ledger", "file"):
        assert source.look(path) is None
        assert source.scan(path).files == {}


# Symbolic links


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A root with links of every kind."""
    root = tmp_path / "root"
    disk = Disk(root, Rules([], []))
    for path in ("a.md", "docs/b.md", "docs/deep/c.md", ".store/d.md"):
        disk.write(path, b"text")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_bytes(b"secret")
    age(tmp_path / "outside" / "secret.md")
    for name, target in {
        "file.md": "a.md",
        "folder": "docs",
        "hidden.md": ".store/d.md",
        "nothing": "gone",
        "circle": "circle",
        "docs/up": "..",
        "docs/deep/again": "../../docs",
        "docs/other": "../.store",
        "out.md": "../outside/secret.md",
        "out": str(tmp_path / "outside"),
        "ignored.tmp": "a.md",
    }.items():
        (root / name).symlink_to(target)
    return root


def test_links_are_listed_and_left_out_when_they_are_not_followed(linked: Path) -> None:
    source = Disk(linked, Rules([], [])).source
    snapshot = source.scan()
    assert sorted(snapshot.files) == ["a.md", "docs/b.md", "docs/deep/c.md"]
    assert sorted(snapshot.skipped) == sorted(
        [
            "file.md",
            "folder",
            "hidden.md",
            "nothing",
            "circle",
            "docs/up",
            "docs/deep/again",
            "docs/other",
            "out.md",
            "out",
        ]
    )
    assert source.look("file.md") is None
    assert source.look("folder/b.md") is None
    assert source.scan("folder").skipped.keys() == {"folder"}


def test_a_scan_leaves_no_folder_open(disk: Disk) -> None:
    for path in ("a.md", "x/b.md", "x/y/c.md", f"x/refused/{RULES_FILE}/d.md"):
        disk.write(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert disk.source.scan().unreadable.keys() == {"x/refused"}
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("path", ["file.md", "folder/b.md", "out.md", "out/secret.md", "folder/deep/c.md"])
def test_no_link_is_read_when_they_are_not_followed(linked: Path, path: str) -> None:
    with pytest.raises(UnreadableDocument, match="symbolic link"):
        Disk(linked, Rules([], [])).source.read(path)


def test_links_inside_the_root_are_followed_once_and_circles_end(linked: Path) -> None:
    source = Disk(linked, Rules([], []), follow_symlinks=True).source
    snapshot = source.scan()
    looks = {path: source.look(path) for path in snapshot.files}
    regular = {path for path, stat in looks.items() if stat and stat.is_regular}
    assert regular == {
        *("a.md", "docs/b.md", "docs/deep/c.md"),
        *("file.md", "hidden.md", "folder/b.md", "folder/deep/c.md", "docs/other/d.md"),
    }
    assert set(snapshot.files) - regular == {"out.md", "out"}
    assert snapshot.skipped.keys() == {
        *("nothing", "circle", "docs/up", "docs/deep/again"),
        *("folder/up", "folder/deep/again", "folder/other"),
    }
    assert {path: stat and stat.version for path, stat in looks.items()} == snapshot.files
    for path in snapshot.skipped:
        assert source.look(path) is None
    assert source.scan("folder/deep").files.keys() == {"folder/deep/c.md"}
    assert source.look("folder/other/d.md") is None


@pytest.mark.parametrize("path", ["file.md", "hidden.md", "folder/b.md", "folder/deep/c.md"])
def test_a_followed_link_is_read(linked: Path, path: str) -> None:
    source = Disk(linked, Rules([], []), follow_symlinks=True).source
    content = source.read(path)
    assert content.raw == b"text"
    assert content.stat == source.look(path)


@pytest.mark.parametrize("path", ["out.md", "out/secret.md", "out"])
def test_a_link_out_of_the_root_is_never_read(linked: Path, path: str) -> None:
    with pytest.raises(UnreadableDocument, match="leads out"):
        Disk(linked, Rules([], []), follow_symlinks=True).source.read(path)


# Reading while somebody writes


def reader_with(disk: Disk, during: Callable[[], None]) -> Folder:
    """A folder that acts between the first look at an open file and the read: it is then that the clock is asked."""

    def now_ns() -> int:
        during()
        return time.time_ns()

    return Folder(disk.root, Rules([], []), follow_symlinks=False, max_file_bytes=MAX_FILE_BYTES, now_ns=now_ns)


@pytest.mark.parametrize("raw", [b"", b"shorter", b"same-size", b"much longer than before"])
def test_a_file_overwritten_under_the_read_is_unstable(disk: Disk, raw: bytes) -> None:
    disk.write("a.md", b"12345-789")
    with pytest.raises(UnstableDocument, match="changed"):
        reader_with(disk, lambda: disk.write("a.md", raw)).read("a.md")


def test_a_file_renamed_away_under_the_read_is_unstable(disk: Disk) -> None:
    disk.write("a.md", b"old")
    with pytest.raises(UnstableDocument, match="changed"):
        reader_with(disk, lambda: disk.rename("a.md", "b.md")).read("a.md")


def test_a_folder_swapped_for_a_link_under_the_read_is_unstable(disk: Disk) -> None:
    disk.write("x/a.md", b"mine")
    outside = disk.root.with_name("outside")
    Disk(outside, Rules([], [])).write("a.md", b"secret")

    def swap() -> None:
        (disk.root / "x").rename(disk.root / "y")
        (disk.root / "x").symlink_to(outside)

    with pytest.raises(UnstableDocument, match="replaced"):
        reader_with(disk, swap).read("x/a.md")


def test_a_file_deleted_under_the_read_is_unstable(disk: Disk) -> None:
    disk.write("a.md", b"old")
    with pytest.raises(UnstableDocument):
        reader_with(disk, lambda: disk.delete("a.md")).read("a.md")


def test_a_file_dated_in_the_future_is_watched_before_it_is_read(disk: Disk) -> None:
    disk.write("a.md", b"old")
    os.utime(disk.root / "a.md", (4e9, 4e9))
    naps: list[float] = []

    def write_on(seconds: float) -> None:
        naps.append(seconds)
        (disk.root / "a.md").write_bytes(b"half")

    def folder(sleep: Callable[[float], None]) -> Folder:
        return Folder(disk.root, Rules([], []), follow_symlinks=False, max_file_bytes=9, sleep=sleep)

    assert folder(naps.append).read("a.md").raw == b"old"
    with pytest.raises(UnstableDocument, match="being written"):
        folder(write_on).read("a.md")
    assert naps == [0.1, 0.1]


def test_no_torn_read_is_ever_handed_out(disk: Disk) -> None:
    """A writer fills the file with one letter after the other; it rests now and then."""
    disk.write("a.md", b"a" * 900)
    is_done = threading.Event()

    def write() -> None:
        for round_number in range(6):
            for letter in (b"b", b"c", b"d"):
                with (disk.root / "a.md").open("r+b", buffering=0) as file:
                    for _ in range(300):
                        file.write(letter * 3)
            is_done.wait(0.15 if round_number % 2 else 0.0)
        is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    whole = 0
    while not is_done.is_set():
        try:
            raw = disk.source.read("a.md").raw
        except UnstableDocument:
            continue
        assert len(set(raw)) == 1
        whole += 1
    writer.join()
    assert whole


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_an_error_of_the_system_is_a_fault_of_the_file_or_passes(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    disk.write("a.md", b"text")

    def fail(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("ingestor.adapters.reading.os.open", fail)
    expected = UnstableDocument if code == errno.EMFILE else UnreadableDocument
    with pytest.raises(expected, match=os.strerror(code)):
        disk.source.read("a.md")


def test_threads_may_share_a_folder_and_no_descriptor_is_left_open(linked: Path) -> None:
    source = Disk(linked, Rules([], []), follow_symlinks=True).source
    (linked / "unknown" / RULES_FILE).mkdir(parents=True)
    paths = ["a.md", "docs/b.md", "out.md", "gone", "docs", "folder/b.md", "a.md/under", "docs/up", "circle"]

    def work(path: str) -> bytes | None:
        source.scan()
        try:
            return source.read(path).raw
        except (UnreadableDocument, UnstableDocument):
            return None

    before = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, paths * 10))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert results == [b"text", b"text", None, None, None, b"text", None, None, None] * 10
