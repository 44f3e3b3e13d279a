"""Real input: thousands of text files that people wrote, as this machine has them, through the HTTP path."""

import random
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.core.chunking import Cutter
from tests.checker import Row, fingerprint
from tests.daemon import Site, assert_equal, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

FILES = 2_200
MAX_BYTES = 20_000
MAX_TOKENS = 1_000
MAX_INPUTS = 10
"""DashScope's limit."""
MAX_EXCESS = 1.15
"""Requests of a cold sync against the arithmetic minimum."""
ENDINGS = {".py", ".md", ".rst", ".txt", ".pyi", ".toml", ".cfg", ".json"}


def real_files() -> Iterator[Path]:
    """The standard library's sources, then installed packages' sources and documents; UTF-8 ones of a common size."""
    paths = sysconfig.get_paths()
    for root in (paths["stdlib"], paths["purelib"]):
        for file in sorted(Path(root).rglob("*")):
            if file.suffix not in ENDINGS or "__pycache__" in file.parts or not file.is_file():
                continue
            raw = file.read_bytes() if 0 < file.stat().st_size <= MAX_BYTES else b""
            if raw and b"\0" not in raw and _is_plain(raw):
                yield file


def _is_plain(raw: bytes) -> bool:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return False
    return text.isprintable() or not any(ord(mark) < ord(" ") and mark not in "\t\n\r\f" for mark in text)


def copy_tree(folder: Path) -> None:
    roots = [Path(sysconfig.get_paths()[name]) for name in ("purelib", "stdlib")]
    copied = 0
    for file in real_files():
        root = next(root for root in roots if file.is_relative_to(root))
        parts = [part.lstrip(".") or "_" for part in file.relative_to(root).parts]
        target = folder.joinpath(root.name, *parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        copied += 1
        if copied == FILES:
            return
    pytest.fail(f"only {copied} files were found")


def edit_as_people_do(folder: Path, chance: random.Random) -> None:
    """A twentieth is edited, a twentieth renamed, some are new: what a merge of a large branch leaves behind."""
    files = files_of(folder)
    chosen = chance.sample(files, FILES // 10)
    for file in chosen[: len(chosen) // 2]:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        lines.insert(chance.randrange(len(lines) + 1), f"# A line inserted into {file.name}.\n\n")
        file.write_text("".join(lines), encoding="utf-8")
    for file in chosen[len(chosen) // 2 :]:
        file.rename(file.with_name(f"renamed_{file.name}"))
    for number in range(50):
        (folder / f"new_{number}.md").write_text(f"# New\n\nFile {number}, 新文件。\n", encoding="utf-8")


def git(folder: Path, *arguments: str) -> None:
    names = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *names, *arguments], check=True, stdout=subprocess.DEVNULL)


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and ".git" not in file.parts)


def folder_of_a_tenth(folder: Path) -> Path:
    """The folder whose share of the files is nearest to a tenth."""
    folders = [path for path in folder.rglob("*") if path.is_dir() and ".git" not in path.parts]
    return min(folders, key=lambda path: abs(len(files_of(path)) - FILES // 10))


class Tree:
    """A site whose syncs are measured against what the provider was sent."""

    def __init__(self, site: Site, server: EmbeddingServer, tell: Callable[[str], None]) -> None:
        self.site = site
        self._server = server
        self._tell = tell
        self._cutter = Cutter(MAX_TOKENS, 0)

    def step(self, name: str) -> tuple[dict[str, dict[str, int]], int, int]:
        """Sync; returns the report, requests and texts."""
        before = (self._server.requests, self._server.texts, time.monotonic())
        report: dict[str, dict[str, int]] = self.site.sync()
        requests, texts = self._server.requests - before[0], self._server.texts - before[1]
        self._tell(f"{name}: {requests} requests, {texts} texts, {time.monotonic() - before[2]:.1f} s, {report}")
        return report, requests, texts

    def free_step(self, name: str) -> dict[str, dict[str, int]]:
        """Sync at no cost."""
        report, requests, texts = self.step(name)
        assert (requests, texts) == (0, 0), name
        return report

    def rows(self) -> list[Row]:
        """What is in the collection, which equals the folder."""
        rows = self.site.at_rest()
        assert_equal(self.site.folder, rows, cutter=self._cutter, dimensions=64)
        return rows


def rename_a_folder_and_back(tree: Tree) -> None:
    folder = folder_of_a_tenth(tree.site.folder)
    other, count = folder.with_name(f"{folder.name}-renamed"), len(files_of(folder))
    folder.rename(other)
    renamed = tree.free_step(f"a folder of {count} files renamed")
    assert renamed["documents"]["renamed"] == count
    assert renamed["chunks"]["dropped"] == 0, "the records kept their ids"
    other.rename(folder)
    assert tree.free_step("and back")["documents"]["renamed"] == count


@pytest.mark.timeout(1_500)
def test_a_real_tree_and_what_people_do_to_it(tmp_path: Path, tell: Callable[[str], None]) -> None:
    chance = random.Random(20)
    with EmbeddingServer(dimensions=1_024, allowed_dimensions=[64], max_inputs=MAX_INPUTS) as server:
        settings = provider_settings(
            server, EMBEDDING__PROVIDER="dashscope", EMBEDDING__MODEL="", CHUNK__MAX_TOKENS=MAX_TOKENS
        ) | {"INGESTOR_EMBEDDING__DIMENSIONS": "64"}
        with Site(tmp_path, settings) as site:
            tree = Tree(site, server, tell)
            copy_tree(site.folder)
            git(site.folder, "init", "--quiet", "--initial-branch=main")
            git(site.folder, "add", "--all")
            git(site.folder, "commit", "--quiet", "--message=all")

            cold, requests, texts = tree.step("cold sync")
            rows = tree.rows()
            unique = len({row.text for row in rows})
            least = -(-unique // MAX_INPUTS)
            tell(f"{FILES} files, {len(rows)} chunks, {unique} unique texts: at least {least} requests")
            assert cold["documents"]["added"] == FILES
            assert texts == unique, "every distinct text was paid for once"
            assert requests <= least * MAX_EXCESS

            held = fingerprint(rows)
            same = tree.free_step("nothing changed")
            assert same["documents"]["unchanged"] == FILES
            assert fingerprint(site.at_rest()) == held, "not even a time of ingestion was written"

            for file in files_of(site.folder):
                file.touch()
            assert tree.free_step("everything touched")["documents"]["renamed"] == 0

            rename_a_folder_and_back(tree)
            git(site.folder, "checkout", "--quiet", "-b", "other")
            edit_as_people_do(site.folder, chance)
            git(site.folder, "add", "--all")
            git(site.folder, "commit", "--quiet", "--message=other")
            edited, _, texts = tree.step("another branch")
            tree.rows()
            assert edited["documents"]["renamed"] == FILES // 20
            assert edited["documents"]["changed"] == FILES // 20
            assert texts <= 2 * edited["documents"]["changed"] + edited["documents"]["added"]
            git(site.folder, "checkout", "--quiet", "main")
            tree.free_step("back to the first branch")

            files = files_of(site.folder)
            for file in files:
                target = site.folder / "copy" / file.relative_to(site.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
            copied = tree.free_step("the whole tree copied")
            assert copied["documents"]["added"] == FILES

            for file in chance.sample(files, FILES // 10):
                file.unlink()
            assert tree.free_step("a tenth deleted")["documents"]["deleted"] == FILES // 10
            tree.rows()
