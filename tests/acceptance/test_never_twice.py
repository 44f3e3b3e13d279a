"""What costs nothing: everything that happens to a folder but a text that was never seen before.

One site for all: each step is synced by itself, and the provider counts.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.core.chunking import Cutter
from tests.daemon import Site, assert_equal, provider_settings
from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

DIMENSIONS = 64
FILES = 12
CUTTER = Cutter(64)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, max_inputs=10) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("twice"), provider_settings(server, CHUNK__MAX_TOKENS=64)) as made:
        for number in range(FILES):
            file = made.folder / f"书架-{number % 3}" / f"text-{number}.md"
            file.parent.mkdir(exist_ok=True)
            paragraphs = [
                f"段落 {number}.{part} 讲述它自己的故事。 Paragraph {number}.{part} too." for part in range(12)
            ]
            file.write_text(f"# Text {number}\n\n" + "\n\n".join(paragraphs) + "\n", encoding="utf-8")
        made.sync()
        yield made


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def touch(folder: Path) -> None:
    for file in files_of(folder):
        file.touch()


def rename_and_move_files(folder: Path) -> None:
    first, second, *_ = files_of(folder)
    first.rename(first.with_name("改名.md"))
    (folder / "deeper" / "still").mkdir(parents=True)
    second.rename(folder / "deeper" / "still" / second.name)


def rename_a_folder(folder: Path) -> None:
    (folder / "书架-1").rename(folder / "shelf")


def swap_two_files(folder: Path) -> None:
    first, *_, last = files_of(folder)
    first.rename(folder / "third")
    last.rename(first)
    (folder / "third").rename(last)


def copy_a_file_and_a_folder(folder: Path) -> None:
    shutil.copy(files_of(folder)[0], folder / "copy.md")
    shutil.copytree(folder / "shelf", folder / "shelf-copy")


def save_by_replacing(folder: Path) -> None:
    for file in files_of(folder)[:3]:
        other = file.with_suffix(".new")
        other.write_bytes(file.read_bytes())
        other.replace(file)


def share_a_chunk(folder: Path) -> None:
    known = files_of(folder)[0].read_bytes()
    for number in range(5):
        (folder / f"shared-{number}.md").write_bytes(known)


def forget_the_ledger(folder: Path) -> None:
    (folder.parent / ".ingestor" / "ledger.sqlite3").unlink()


def lose_the_collection(folder: Path) -> None:
    shutil.rmtree(folder.parent / ".ingestor" / "chroma")


STEPS: tuple[Callable[[Path], None], ...] = (
    touch,
    rename_and_move_files,
    rename_a_folder,
    swap_two_files,
    copy_a_file_and_a_folder,
    save_by_replacing,
    share_a_chunk,
    forget_the_ledger,
    lose_the_collection,
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_what_costs_nothing(site: Site, server: EmbeddingServer, step: Callable[[Path], None]) -> None:
    paid = (server.requests, server.texts)
    step(site.folder)
    report = site.sync()
    assert (server.requests, server.texts) == paid
    assert report["documents"]["problems"] == 0
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS, cutter=CUTTER)


def test_deleted_and_restored(site: Site, server: EmbeddingServer) -> None:
    shelf, away = site.folder / "shelf", site.root / "away"
    paid = server.texts
    shelf.rename(away)
    assert site.sync()["documents"]["deleted"] == len(files_of(away))
    away.rename(shelf)
    site.sync()
    assert server.texts == paid
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS, cutter=CUTTER)


def test_edited_and_reverted(site: Site, server: EmbeddingServer) -> None:
    file = site.folder / "shelf" / "text-4.md"
    before = file.read_text(encoding="utf-8")
    paid = server.texts
    file.write_text(before + "\nAn afterthought.\n", encoding="utf-8")
    site.sync()
    assert 1 <= server.texts - paid <= 2
    paid = server.texts
    file.write_text(before, encoding="utf-8")
    site.sync()
    assert server.texts == paid
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS, cutter=CUTTER)


def test_the_status_tells_how_often_the_store_has_helped(site: Site) -> None:
    told = site.command("status", "--json").json()
    assert told["embedding"]["lookups"] > told["embedding"]["hits"] > 0
    assert 0 < told["vectors"]["bytes"] < told["vectors"]["max_bytes"] == 1024**3
    hits, lookups = told["embedding"]["hits"], told["embedding"]["lookups"]
    assert f"{hits} of {lookups} texts found there" in site.command("status").out


def test_the_vector_store_may_be_deleted_at_any_time(site: Site, server: EmbeddingServer) -> None:
    paid = server.texts
    for file in site.data_dir.glob("vectors.sqlite3*"):
        file.unlink()
    touch(site.folder)
    site.sync()
    (site.folder / "new.md").write_text("# New\n\nNever seen before.\n", encoding="utf-8")
    site.sync()
    assert server.texts == paid + 1
    assert_equal(site.folder, site.at_rest(), dimensions=DIMENSIONS, cutter=CUTTER)
