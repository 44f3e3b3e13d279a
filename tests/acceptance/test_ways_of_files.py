"""The ways in which files come and go, each against a running daemon, with the whole folder compared after every step.

One daemon serves all tests of this file: each works in a folder of its own, and none tidies up, so that each also
proves that the collection of a folder with a history stays equal.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checker import belongs, document_ids
from tests.daemon import Reading, Site, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 64


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("ways"), provider_settings(server)) as site:
        yield site


@pytest.fixture(scope="module")
def collection(site: Site) -> Iterator[Reading]:
    daemon = site.start("run").wait_ready()
    with site.reading() as reading:
        reading.dimensions = DIMENSIONS
        yield reading
    assert daemon.terminate() == 0, daemon.log()
    assert "Traceback" not in daemon.log()


@pytest.fixture
def here(site: Site, request: pytest.FixtureRequest) -> Path:
    folder = site.folder / str(request.node.name)
    folder.mkdir()
    return folder


@pytest.fixture
def beacon(site: Site, collection: Reading) -> "Beacon":
    return Beacon(site.folder, collection)


class Beacon:
    """Shows that the daemon has looked at what came before: a file that must appear, written last."""

    def __init__(self, folder: Path, collection: Reading) -> None:
        self._folder = folder
        self._collection = collection
        self._count = 0

    def wait_seen(self, where: Path) -> None:
        self._count += 1
        (where / f"beacon-{self._count}.txt").write_text(f"beacon {self._count} of {where.name}", encoding="utf-8")
        self._collection.wait_equal()


def essay(name: str, sections: int = 12) -> str:
    """Some text of several chunks that no other name gives."""
    parts = [f"# {name}\n"]
    for section in range(sections):
        sentences = [
            f"Section {section} of {name} tells in sentence {number} of a {animal}."
            for number, animal in enumerate(("heron", "otter", "lynx", "newt") * 3)
        ]
        parts.append(f"## Part {section}\n\n" + " ".join(sentences) + "\n")
    return "\n".join(parts)


def make_tree(top: Path, files: int = 12) -> None:
    for number in range(files):
        file = top / f"branch-{number % 3}" / f"leaf-{number}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(essay(f"{top.name}-{number}", sections=2), encoding="utf-8")


def below(ids: dict[str, str], folder: str) -> dict[str, str]:
    return {path.removeprefix(f"{folder}/"): id_ for path, id_ in ids.items() if path.startswith(f"{folder}/")}


def test_a_written_file_is_there_and_appending_embeds_only_what_is_new(
    here: Path, collection: Reading, server: EmbeddingServer
) -> None:
    log = here / "log.md"
    log.write_text(essay("log", 40), encoding="utf-8")
    rows = collection.wait_equal()
    of_log = [row for row in rows if row.source.endswith("/log.md")]
    texts_before = server.texts

    with log.open("a", encoding="utf-8") as file:
        file.write("\nOne more line at the end.\n")

    collection.wait_equal()
    assert len(of_log) > 10
    assert 0 < server.texts - texts_before <= 3


def test_a_file_that_is_written_bit_by_bit_ends_up_whole(here: Path, collection: Reading) -> None:
    with (here / "slow.md").open("w", encoding="utf-8") as file:
        for number in range(40):
            file.write(f"Line {number} of a file that is written while it is watched.\n")
            file.flush()
            os.fsync(file.fileno())

    collection.wait_equal()


def test_a_file_saved_by_rename_stays_the_same_document(here: Path, collection: Reading) -> None:
    draft = here / "draft.md"
    draft.write_text(essay("draft"), encoding="utf-8")
    before = document_ids(collection.wait_equal())

    for number in range(3):
        temporary = here / f".draft.md.{number}.swp"
        temporary.write_text(essay("draft") + f"\nSaved {number} times.\n", encoding="utf-8")
        temporary.replace(draft)
        after = document_ids(collection.wait_equal())

    assert after == before


def test_a_file_renamed_in_place_and_into_another_folder_costs_nothing(
    here: Path, collection: Reading, server: EmbeddingServer
) -> None:
    (here / "a.md").write_text(essay("travels"), encoding="utf-8")
    before = collection.wait_equal()
    texts_before = server.texts

    (here / "a.md").rename(here / "b.md")
    collection.wait_equal()
    (here / "deep" / "er").mkdir(parents=True)
    (here / "b.md").rename(here / "deep" / "er" / "c.md")

    after = collection.wait_equal()
    assert {row.id for row in after} == {row.id for row in before}
    assert server.texts == texts_before


def test_a_file_replaced_by_another_one_and_two_files_that_swap_names(here: Path, collection: Reading) -> None:
    one, two = here / "one.md", here / "two.md"
    one.write_text(essay("one"), encoding="utf-8")
    two.write_text(essay("two"), encoding="utf-8")
    collection.wait_equal()

    one.rename(here / "three.md")
    two.rename(one)
    (here / "three.md").rename(two)
    collection.wait_equal()

    two.replace(one)
    collection.wait_equal()


def test_a_folder_moved_out_is_gone_and_moved_in_again_costs_nothing(
    here: Path, site: Site, collection: Reading, server: EmbeddingServer
) -> None:
    make_tree(here / "library")
    collection.wait_equal()
    texts_before = server.texts

    (here / "library").rename(site.root / "library-outside")
    rows = collection.wait_equal()
    assert not any("library" in row.source for row in rows)

    (site.root / "library-outside").rename(here / "library-back")
    collection.wait_equal()
    assert server.texts == texts_before


def test_a_renamed_folder_keeps_its_documents(here: Path, collection: Reading, server: EmbeddingServer) -> None:
    make_tree(here / "old")
    before = below(document_ids(collection.wait_equal()), f"{here.name}/old")
    texts_before = server.texts

    (here / "old").rename(here / "new")

    after = below(document_ids(collection.wait_equal()), f"{here.name}/new")
    assert after == before
    assert len(after) == 12
    assert server.texts == texts_before


def test_a_copied_tree_is_there_twice_and_paid_for_once(
    here: Path, collection: Reading, server: EmbeddingServer
) -> None:
    make_tree(here / "original")
    collection.wait_equal()
    texts_before = server.texts

    subprocess.run(["cp", "-r", here / "original", here / "copy"], check=True)

    ids = document_ids(collection.wait_equal())
    assert below(ids, f"{here.name}/copy").keys() == below(ids, f"{here.name}/original").keys()
    assert server.texts == texts_before


def test_a_removed_tree_leaves_nothing(here: Path, collection: Reading) -> None:
    make_tree(here / "doomed", files=30)
    collection.wait_equal()

    subprocess.run(["rm", "-r", here / "doomed"], check=True)

    assert not below(document_ids(collection.wait_equal()), here.name)


@pytest.mark.skipif(not (shutil.which("zip") and shutil.which("unzip")), reason="zip and unzip are not installed")
def test_an_archive_unpacked_with_old_times(here: Path, site: Site, collection: Reading) -> None:
    make_tree(site.root / "packed")
    for file in (site.root / "packed").rglob("*.md"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    archive = site.root / "packed.zip"
    subprocess.run(["zip", "-qr", archive, "packed"], cwd=site.root, check=True)

    subprocess.run(["unzip", "-q", archive, "-d", here], check=True)

    assert len(below(document_ids(collection.wait_equal()), here.name)) == 12


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
def test_a_tree_brought_in_by_rsync_and_brought_up_to_date(here: Path, site: Site, collection: Reading) -> None:
    away = site.root / "synced"
    make_tree(away)
    subprocess.run(["rsync", "-a", f"{away}/", here], check=True)
    collection.wait_equal()

    (away / "branch-0" / "leaf-0.md").write_text(essay("changed"), encoding="utf-8")
    (away / "branch-1" / "leaf-1.md").unlink()
    subprocess.run(["rsync", "-a", "--delete", f"{away}/", here], check=True)

    assert len(below(document_ids(collection.wait_equal()), here.name)) == 11


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_repository_whose_branches_are_checked_out(
    here: Path, site: Site, collection: Reading, server: EmbeddingServer
) -> None:
    alone = {"HOME": str(site.root), "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=here, env=alone, check=True, capture_output=True)

    make_tree(here)
    git("init", "--initial-branch", "main")
    git("add", ".")
    git("commit", "--message", "first")
    first = collection.wait_equal()
    git("checkout", "-b", "other")
    (here / "branch-0" / "leaf-0.md").write_text(essay("leaf of another branch"), encoding="utf-8")
    (here / "branch-2").rename(here / "branch-9")
    (here / "added.md").write_text(essay("added"), encoding="utf-8")
    (here / "branch-1" / "leaf-1.md").unlink()
    git("add", "--all")
    git("commit", "--message", "second")
    collection.wait_equal()
    texts_before = server.texts

    git("checkout", "main")

    back = collection.wait_equal()
    assert {(row.source, row.text) for row in back} == {(row.source, row.text) for row in first}
    assert not any(".git" in row.source for row in back)
    git("checkout", "other")
    collection.wait_equal()
    assert server.texts == texts_before


def test_links_hidden_and_temporary_files_are_ignored(
    here: Path, site: Site, collection: Reading, beacon: Beacon
) -> None:
    outside = site.root / "outside.txt"
    outside.write_text("Outside of the folder.", encoding="utf-8")
    (here / "link.txt").symlink_to(outside)
    (here / "folder-link").symlink_to(site.root)
    (here / "circle").symlink_to(here)
    for name in (".hidden.md", "notes.txt~", ".notes.txt.swp", "movie.part", "page.crdownload", "scratch.tmp"):
        (here / name).write_text(f"Nobody wants {name}.", encoding="utf-8")
    (here / ".config").mkdir()
    (here / ".config" / "secret.txt").write_text("Nobody wants this either.", encoding="utf-8")

    beacon.wait_seen(here)

    # A name that belongs makes it a document, and the other way round.
    (here / "scratch.tmp").rename(here / "kept.txt")
    rows = collection.wait_equal()
    assert f"{here.name}/kept.txt" in document_ids(rows)
    (here / "kept.txt").rename(here / "kept.tmp")
    assert f"{here.name}/kept.txt" not in document_ids(collection.wait_equal())


def test_a_document_that_goes_to_the_recycle_bin_of_a_share_is_found_no_more(
    here: Path, collection: Reading, server: EmbeddingServer
) -> None:
    (here / "contract.txt").write_text("The contract that somebody deletes.", encoding="utf-8")
    (here / "id_rsa").write_text("A key that nobody is to have.", encoding="utf-8")
    assert f"{here.name}/contract.txt" in document_ids(collection.wait_equal())
    texts_before = server.texts
    (here / "#recycle").mkdir()
    (here / "contract.txt").rename(here / "#recycle" / "contract.txt")
    assert f"{here.name}/contract.txt" not in document_ids(collection.wait_equal())
    snapshot = here / "#snapshot" / "GMT+08-2026.11.30-12.00.00"
    snapshot.mkdir(parents=True)
    (snapshot / "contract.txt").write_text("The contract that somebody deletes.", encoding="utf-8")
    (here / "#recycle" / "contract.txt").rename(here / "contract.txt")
    assert f"{here.name}/contract.txt" in document_ids(collection.wait_equal())
    assert server.texts == texts_before


def test_an_ignore_file_takes_effect_when_it_is_written_changed_and_removed(
    here: Path, collection: Reading, server: EmbeddingServer
) -> None:
    make_tree(here)
    (here / "data.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    collection.wait_equal()
    texts_before = server.texts
    rules = here / ".ingestorignore"

    rules.write_text("*.csv\nbranch-1/\n", encoding="utf-8")
    collection.wait_equal(
        lambda path: belongs(path) and not path.startswith((f"{here.name}/branch-1/", f"{here.name}/data.csv"))
    )
    rules.write_text("branch-*/*\n!leaf-3.md\n", encoding="utf-8")
    collection.wait_equal(
        lambda path: belongs(path) and (not path.startswith(f"{here.name}/branch-") or path.endswith("/leaf-3.md"))
    )
    rules.unlink()

    collection.wait_equal()
    assert server.texts == texts_before


def test_names_of_every_kind(here: Path, collection: Reading) -> None:
    names = (
        "with space.txt",
        "引号“名”.md",
        "#hash.md",
        "q?*[x].txt",
        "ümläut.rst",
        "no_ending",
        "UPPER.TXT",
        "a'b\"c.txt",
    )
    for name in names:
        (here / name).write_text(f"The text of a file with the name {name}.", encoding="utf-8")
    (here / "empty.txt").touch()
    (here / "blank.txt").write_text(" \n\t\n", encoding="utf-8")

    rows = collection.wait_equal()

    assert set(below(document_ids(rows), here.name)) == set(names)


def test_line_ends_and_byte_order_marks_and_equal_chunks(here: Path, collection: Reading) -> None:
    (here / "dos.txt").write_bytes(b"first line\r\nsecond line\r\n\r\nlast line")
    (here / "marked.txt").write_bytes(b"\xef\xbb\xbf" + b"eine Zeile")
    (here / "repeated.md").write_text(("# Same\n\n" + "The same sentence again. " * 60 + "\n\n") * 12, encoding="utf-8")

    rows = collection.wait_equal()

    repeated = [row.text for row in rows if row.source == f"{here.name}/repeated.md"]
    assert len(repeated) > len(set(repeated))


def test_the_whole_folder_is_emptied_and_filled_again(site: Site, collection: Reading, server: EmbeddingServer) -> None:
    """The last one, because it ends what the others have left."""
    before = len(collection.wait_equal())
    texts_before = server.texts
    away = site.root / "away"
    away.mkdir()
    for entry in list(site.folder.iterdir()):
        entry.rename(away / entry.name)
    assert not collection.wait_equal()

    for entry in list(away.iterdir()):
        entry.rename(site.folder / entry.name)

    assert len(collection.wait_equal()) == before > 0
    assert server.texts == texts_before
