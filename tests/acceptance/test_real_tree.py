"""Real input: thousands of text files that people wrote, as this machine has them, through the HTTP path."""

import random
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.core.chunking import Cutter
from tests.checker import fingerprint
from tests.daemon import Site, assert_equal, provider_settings
from tests.embedding_server import EmbeddingServer

FILES = 2_200
MAX_BYTES = 20_000
MAX_TOKENS = 1_000
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
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    chosen = chance.sample(files, FILES // 10)
    for file in chosen[: len(chosen) // 2]:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        lines.insert(chance.randrange(len(lines) + 1), f"# A line inserted into {file.name}.\n\n")
        file.write_text("".join(lines), encoding="utf-8")
    for file in chosen[len(chosen) // 2 :]:
        file.rename(file.with_name(f"renamed_{file.name}"))
    for number in range(50):
        (folder / f"new_{number}.md").write_text(f"# New\n\nFile {number}, 新文件。\n", encoding="utf-8")


@pytest.mark.timeout(1_500)
def test_a_real_tree_and_what_people_do_to_it(tmp_path: Path, tell: Callable[[str], None]) -> None:
    chance = random.Random(20)
    cutter = Cutter(MAX_TOKENS, 0)
    with EmbeddingServer(dimensions=64, max_inputs=128) as server:
        settings = provider_settings(server, CHUNK__MAX_TOKENS=MAX_TOKENS)
        with Site(tmp_path, settings) as site:
            copy_tree(site.folder)

            def step(name: str) -> dict[str, dict[str, int]]:
                before = (server.requests, server.texts, time.monotonic())
                report: dict[str, dict[str, int]] = site.sync()
                spent = (server.requests - before[0], server.texts - before[1], time.monotonic() - before[2])
                tell(f"{name}: {spent[0]} requests, {spent[1]} texts, {spent[2]:.1f} s, {report}")
                return report

            cold = step("cold sync")
            rows = site.at_rest()
            assert_equal(site.folder, rows, cutter=cutter, dimensions=64)
            assert cold["documents"]["added"] == FILES
            assert server.texts == len({row.text for row in rows}), "every distinct text was paid for once"
            tell(f"{FILES} files, {len(rows)} chunks")

            paid, held = (server.requests, server.texts), fingerprint(rows)
            same = step("nothing changed")
            assert (server.requests, server.texts) == paid
            assert same["documents"]["unchanged"] == FILES
            assert fingerprint(site.at_rest()) == held, "not even a time of ingestion was written"

            edit_as_people_do(site.folder, chance)
            edited = step("edits")
            assert_equal(site.folder, site.at_rest(), cutter=cutter, dimensions=64)
            assert edited["documents"]["renamed"] == FILES // 20
            assert edited["documents"]["changed"] == FILES // 20

            files = sorted(file for file in site.folder.rglob("*") if file.is_file())
            for file in chance.sample(files, len(files) // 10):
                file.unlink()
            paid = (server.requests, server.texts)
            deleted = step("a tenth deleted")
            assert (server.requests, server.texts) == paid
            assert deleted["documents"]["deleted"] == len(files) // 10
            assert_equal(site.folder, site.at_rest(), cutter=cutter, dimensions=64)
