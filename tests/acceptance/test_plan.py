"""`ingestor plan` says what a sync then does, and leaves no trace of having looked."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 64
BINARY = bytes(range(256)) * 4
OUTCOMES = ("added", "changed", "renamed", "deleted", "unchanged", "problems")


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(server)) as site:
        yield site


def essay(name: str, sections: int) -> str:
    """Markdown of a chunk a section, and no text of it in another essay."""
    return "".join(
        f"# {name} {section}\n\n" + f"In part {section} of {name} the otter meets a heron. " * 24 + "\n\n"
        for section in range(sections)
    )


def fill(folder: Path) -> None:
    """A file of every kind, some of them in Chinese, and some of one text."""
    (folder / "笔记").mkdir()
    (folder / "otters.md").write_text(essay("otters", 5), encoding="utf-8")
    (folder / "笔记" / "量子 计算.md").write_text("# 量子\n\n量子比特可以处于叠加态。\n", encoding="utf-8")
    (folder / "笔记" / "说明.txt").write_bytes("国际贸易争端由专家组裁决。\n".encode("gb18030"))
    (folder / "plain.txt").write_text("A heron stands in the reeds.\n", encoding="utf-8")
    (folder / "same.txt").write_text("A heron stands in the reeds.\n", encoding="utf-8")
    (folder / "code.py").write_text("def double(number: int) -> int:\n    return 2 * number\n", encoding="utf-8")
    (folder / "rows.csv").write_text("name,count\nheron,3\notter,5\n", encoding="utf-8")
    (folder / "empty.txt").touch()
    (folder / "picture.png").write_bytes(BINARY)


def plan(site: Site, *arguments: str, **settings: str) -> Any:  # noqa: ANN401 - what `ingestor plan --json` prints
    done = site.command("plan", "--json", *arguments, **settings)
    assert done.code == 0, done.err
    assert done.err == ""
    return done.json()


def tree(root: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a folder: mode, time of the last change, content."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns if path.is_file() else 0,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in root.rglob("*")
    }


def synced_as_told(site: Site, server: EmbeddingServer, **settings: str) -> tuple[Any, Any]:
    """Plan, then sync; nothing but the sync leaves a trace, and it does what was told."""
    before = tree(site.root)
    told = plan(site, **settings)
    assert tree(site.root) == before
    texts, requests = server.texts, server.requests
    done = site.sync(code=3 if told["documents"]["problems"] else 0, **settings)
    assert {name: told["documents"][name] for name in OUTCOMES} == done["documents"]
    assert told["chunks"]["added"] == done["chunks"]["embedded"] + done["chunks"]["reused"]
    assert (told["chunks"]["retagged"], told["chunks"]["dropped"]) == (
        done["chunks"]["retagged"],
        done["chunks"]["dropped"],
    )
    assert told["embedding"]["texts"] == done["chunks"]["embedded"] == server.texts - texts
    assert told["embedding"]["requests"] == server.requests - requests
    return told, done


def assert_nothing_to_do(site: Site, total: int) -> None:
    told = plan(site)
    assert told["documents"]["read"] == 0
    assert [told["documents"][name] for name in ("added", "changed", "renamed", "deleted")] == [0] * 4
    assert told["chunks"] == {"total": total, "added": 0, "kept": total, "retagged": 0, "dropped": 0}
    assert told["embedding"] == {"known_texts": 0, "texts": 0, "requests": 0, "tokens": 0}
    assert told["kinds"] == {}
    assert told["problems"] == []


def test_a_sync_sends_and_writes_what_was_told(site: Site, server: EmbeddingServer) -> None:
    # Calls of one text: how full a larger one is depends on when its texts come.
    site.settings["INGESTOR_EMBEDDING__MAX_BATCH_INPUTS"] = "1"
    folder = site.folder
    fill(folder)
    told, _ = synced_as_told(site, server)
    assert {kind: (counts["files"], counts["texts"]) for kind, counts in told["kinds"].items()} == {
        "markdown": (2, 6),
        "prose": (4, 2),
        "code": (1, 1),
        "lines": (1, 1),
    }
    assert [(each["kind"], each["examples"]) for each in told["problems"]] == [("UndecodableDocument", ["picture.png"])]
    assert_nothing_to_do(site, told["chunks"]["total"])

    os.utime(folder / "rows.csv", (1_600_000_000, 1_600_000_000))
    otters = (folder / "otters.md").read_text(encoding="utf-8")
    (folder / "otters.md").write_text(otters.replace("part 3", "section 3"), encoding="utf-8")
    (folder / "笔记" / "量子 计算.md").rename(folder / "量子.md")
    shutil.copy(folder / "otters.md", folder / "笔记" / "水獭.md")
    (folder / "same.txt").unlink()
    (folder / "new.txt").write_text("Nobody has written this before.\n", encoding="utf-8")
    (folder / "sound.wav").write_bytes(BINARY)
    (folder / "plain.txt").write_bytes(BINARY)
    told, _ = synced_as_told(site, server)
    assert {name: told["documents"][name] for name in OUTCOMES} == {
        "added": 2,
        "changed": 1,
        "renamed": 1,
        "deleted": 1,
        "unchanged": 4,
        "problems": 3,
    }
    assert told["embedding"]["texts"] == 2  # an edited section, and the new file
    assert told["embedding"]["known_texts"] == 4  # the other sections, in the copy
    assert_nothing_to_do(site, told["chunks"]["total"])

    shutil.rmtree(site.chroma_path)
    total = told["chunks"]["total"]
    told, _ = synced_as_told(site, server)
    assert (told["chunks"]["added"], told["embedding"]["texts"]) == (total, 0)


def test_the_calls_are_packed_up_to_the_limits_of_the_model(site: Site, server: EmbeddingServer) -> None:
    site.settings["INGESTOR_CHUNK__MAX_TOKENS"] = "1000"
    (site.folder / "long.md").write_text(
        "".join(f"# Chapter {number}\n\n" + f"Word {number} is told. " * 190 + "\n\n" for number in range(23)),
        encoding="utf-8",
    )
    told, _ = synced_as_told(site, server)
    # Neither ten texts a call nor one: what a call holds is limited by tokens.
    assert told["embedding"]["texts"] / 10 < told["embedding"]["requests"] < told["embedding"]["texts"]
    (site.folder / "long.md").write_text("One more thing.\n", encoding="utf-8")
    assert (told["time"]["measured_calls"], plan(site)["time"]["measured_calls"]) == (
        0,
        told["embedding"]["requests"] + server.samples,
    )


def test_before_anything_was_indexed_nothing_is_made_and_no_key_is_needed(site: Site) -> None:
    fill(site.folder)
    site.settings = {"INGESTOR_EMBEDDING__PROVIDER": "dashscope", "INGESTOR_EMBEDDING__MAX_TOKENS_PER_DAY": "500"}
    before = tree(site.root)
    told = plan(site)
    price, tokens = told["price"], told["embedding"]["tokens"]
    assert price["currency"] == "CNY"
    assert price["cost"] == pytest.approx(tokens * price["per_million_tokens"] / 1e6)
    assert (told["time"]["days"], told["time"]["limited_by"]) == (-(-tokens // 500), "embedding.max_tokens_per_day")
    shown = site.command("plan", INGESTOR_EMBEDDING__MAX_TOKENS_PER_DAY="1000000")
    assert shown.code == 0, shown.err
    assert "CNY" in shown.out
    assert "nothing measured yet" in shown.out
    assert "picture.png: the file is binary" in shown.out
    assert not site.data_dir.exists()
    assert tree(site.root) == before


def test_beside_a_running_daemon_it_tells_what_the_daemon_has_left_to_do(site: Site, server: EmbeddingServer) -> None:
    fill(site.folder)
    (site.folder / "笔记" / "说明.txt").unlink()  # in an encoding that the checker does not know
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        reading.wait_equal(lambda path: path != "picture.png")
        eventually(lambda: plan(site)["documents"]["read"] == 0, daemon.log)
        texts = server.texts
        assert plan(site)["documents"]["unchanged"] == 7
        # What the daemon will not see for now: a folder of another name, compared with the same ledger.
        other = site.root / "other"
        other.mkdir()
        (other / "新.txt").write_text("Only the plan has seen this.\n", encoding="utf-8")
        told = plan(site, str(other))
        assert (told["documents"]["added"], told["held_deletions"], told["documents"]["deleted"]) == (1, 0, 8)
        assert server.texts == texts
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log()


def test_deletions_that_would_be_held_back_are_told_and_a_ledger_that_is_lost(site: Site) -> None:
    for number in range(3):
        (site.folder / f"{number}.txt").write_text(f"This is number {number}.\n", encoding="utf-8")
    site.sync()
    shutil.rmtree(site.folder)
    site.folder.mkdir()
    told = plan(site)
    assert (told["held_deletions"], told["documents"]["deleted"], told["documents"]["unchanged"]) == (3, 0, 3)
    (site.data_dir / "ledger.sqlite3").unlink()
    told = plan(site)
    assert "the ledger is missing" in told["caveat"]
    assert told["held_deletions"] == 0
    assert not (site.data_dir / "ledger.sqlite3").exists()


def test_a_price_that_nobody_knows_is_asked_for(site: Site) -> None:
    (site.folder / "a.txt").write_text("A heron stands in the reeds.\n", encoding="utf-8")
    assert "unknown: set embedding.price_per_million_tokens" in site.command("plan").out
    assert not site.data_dir.exists()
