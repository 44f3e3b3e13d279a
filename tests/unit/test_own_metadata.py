"""Metadata of one's own through the engine: a change of it embeds nothing and is found by a comparison alone."""

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest

from ingestor.core.attaching import Ground
from ingestor.core.model import ChunkSize, Metadata, Outcome
from ingestor.engine.reading import Reader
from ingestor.engine.verify import Audit
from tests.doubles_folder import MemoryFolder
from tests.mortal import Crash, Fate, mortal
from tests.unit.test_forecast import assert_done, forecast
from tests.unit.test_verify import audited
from tests.world import LineCutter, World, decode

TEXT = b"one\ntwo\nthree"
FRONT = b"---\ntitle: Numbers\ntags: [small, whole]\n---\n"


@pytest.fixture
def world() -> World:
    made = World()
    made.folder.write("sub/a.md", FRONT + TEXT)
    made.folder.write("sub/b.txt", b"four\nfive")
    made.folder.write("c.md", b"six")
    return made


def own(world: World, path: str) -> Metadata:
    """The user's keys of a document's records, which all have the same ones."""
    theirs = [dict(held.metadata or {}) for held in world.sink.held.values() if (held.metadata or {})["source"] == path]
    ours = {
        "source", "file_name", "file_type", "file_size", "last_modified", "content_hash", "document_id", "chunk",
        "start_line", "end_line", "heading", "embedding_model", "ingested_at",
    }  # fmt: skip
    told = [{key: value for key, value in each.items() if key not in ours} for each in theirs]
    assert told
    assert all(each == told[0] for each in told)
    return told[0]


def edit_front_matter(world: World) -> None:
    world.folder.write("sub/a.md", b"---\ntitle: Other\nlevel: 2\nlines: more\n---\n" + TEXT)


def take_front_matter_out(world: World) -> None:
    world.folder.write("sub/a.md", TEXT)


def write_sidecar(world: World) -> None:
    world.folder.write("sub/a.md.meta.json", b'{"tags": ["large"], "title": null, "k": 1.5}')


def write_settings(world: World) -> None:
    world.folder.write("sub/.ingestor.toml", b'[metadata]\nteam = "legal"\ntags = ["none"]\n')


def write_settings_at_the_root(world: World) -> None:
    world.folder.write(".ingestor.toml", b"metadata.year = 2026")


CHANGES: dict[Callable[[World], None], dict[str, object]] = {
    edit_front_matter: {"title": "Other", "level": 2, "lines": "more"},
    take_front_matter_out: {"title": "a"},
    write_sidecar: {"title": "a", "tags": "large", "tags.large": True, "k": 1.5},
    write_settings: {
        "title": "Numbers",
        "tags": "small, whole",
        "tags.small": True,
        "tags.whole": True,
        "team": "legal",
    },
    write_settings_at_the_root: {
        "title": "Numbers",
        "tags": "small, whole",
        "tags.small": True,
        "tags.whole": True,
        "year": 2026,
    },
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_change_of_own_metadata_retags_and_no_more(world: World, change: Callable[[World], None]) -> None:
    await world.sync()
    before, ids = own(world, "sub/a.md"), set(world.sink.held)
    assert before == {"title": "Numbers", "tags": "small, whole", "tags.small": True, "tags.whole": True}
    calls = len(world.embedder.calls)
    change(world)
    told = forecast(world)
    pipeline = await world.sync()
    assert own(world, "sub/a.md") == CHANGES[change]
    assert set(world.sink.held) == ids
    assert len(world.embedder.calls) == calls
    assert pipeline.tally.retagged >= 3
    assert_done(told, pipeline, world, 0)
    assert (await audited(world)).is_sound
    world.sink.calls.clear()
    await world.sync()
    assert world.sink.writes == []


async def test_what_is_taken_away_goes_from_the_records(world: World) -> None:
    write_sidecar(world)
    write_settings(world)
    await world.sync()
    assert own(world, "sub/a.md") == {"title": "a", "tags": "large", "tags.large": True, "k": 1.5, "team": "legal"}
    assert own(world, "sub/b.txt") == {"title": "b", "tags": "none", "tags.none": True, "team": "legal"}
    world.folder.delete("sub/a.md.meta.json")
    world.folder.delete("sub/.ingestor.toml")
    await world.sync()
    assert own(world, "sub/b.txt") == {"title": "b"}
    assert own(world, "sub/a.md")["title"] == "Numbers"
    assert (await audited(world)).is_sound


async def test_lines_are_those_of_the_file_and_front_matter_is_no_text(world: World) -> None:
    await world.sync()
    assert [row for row in world.records() if row[0] == "sub/a.md"] == [
        ("sub/a.md", "one", 5), ("sub/a.md", "three", 7), ("sub/a.md", "two", 6),
    ]  # fmt: skip
    assert not any("Numbers" in text for text in world.embedded_texts())


async def test_a_sidecar_moves_with_its_file_only_when_it_is_moved_too(world: World) -> None:
    write_sidecar(world)
    await world.sync()
    ids, calls = set(world.sink.held), len(world.embedder.calls)
    world.folder.rename("sub", "moved")
    await world.sync()
    assert own(world, "moved/a.md")["k"] == 1.5
    world.folder.rename("moved/a.md", "moved/z.md")
    pipeline = await world.sync()
    assert "k" not in own(world, "moved/z.md")
    assert "moved/a.md.meta.json" in world.folder.scan().skipped
    assert pipeline.tally.documents[Outcome.PROBLEM] == 0
    world.folder.rename("moved/a.md.meta.json", "moved/z.md.meta.json")
    await world.sync()
    assert own(world, "moved/z.md")["k"] == 1.5
    assert (set(world.sink.held), len(world.embedder.calls)) == (ids, calls)


@pytest.mark.parametrize("place", ["sidecar", "front matter"])
async def test_a_document_with_bad_metadata_is_set_aside_and_comes_back_for_nothing(world: World, place: str) -> None:
    await world.sync()
    calls, records = len(world.embedder.calls), world.records()
    if place == "sidecar":
        world.folder.write("sub/a.md.meta.json", b'{"source": 1}')
    else:
        world.folder.write("sub/a.md", FRONT.replace(b"title", b"page") + TEXT)
    await world.sync()
    ((path, problem),) = world.ledger.problems()
    assert (path, problem.kind) == ("sub/a.md", "UnusableMetadata")
    assert "the key" in problem.reason
    assert problem.remedy
    assert not [row for row in world.records() if row[0] == "sub/a.md"]
    reads = len(world.folder.reads)
    await world.sync()
    assert len(world.folder.reads) == reads, "nothing has changed: it is not tried again"
    if place == "sidecar":
        world.folder.write("sub/a.md.meta.json", b'{"k": 1}')
        mended = await audited(world)
        assert [finding.path for finding in mended.findings] == ["sub/a.md"]
    else:
        world.folder.write("sub/a.md", FRONT + TEXT)
    await world.sync()
    assert world.records() == records
    assert len(world.embedder.calls) == calls
    assert world.ledger.problems() == []


async def test_a_settings_file_with_a_fault_takes_nothing_away_and_its_files_are_followed(world: World) -> None:
    write_settings(world)
    await world.sync()
    known, calls = own(world, "sub/b.txt"), len(world.embedder.calls)
    world.folder.write("sub/.ingestor.toml", b"[metadata]\nteam = nan\n")
    world.sink.calls.clear()
    await world.sync()
    assert world.sink.writes == []
    assert own(world, "sub/b.txt") == known
    assert "the key team" in world.folder.scan().unreadable["sub/.ingestor.toml"]
    assert (await audited(world)).is_sound
    world.folder.write("sub/a.md", FRONT + TEXT + b"\nfour")
    await world.sync()
    assert ("sub/a.md", "four", 8) in world.records()
    assert "team" not in own(world, "sub/a.md")
    assert own(world, "sub/b.txt") == known
    world.folder.write("sub/.ingestor.toml", b'[metadata]\nteam = "ours"\n')
    await world.sync()
    assert own(world, "sub/a.md")["team"] == own(world, "sub/b.txt")["team"] == "ours"
    # The one word that was new was known from another file.
    assert len(world.embedder.calls) == calls
    assert (await audited(world)).is_sound


async def test_a_settings_file_whose_ignore_cannot_be_told_lets_nobody_see_what_it_kept_back(world: World) -> None:
    world.folder.write("sub/.ingestor.toml", b'ignore = ["secret.txt"]')
    world.folder.write("sub/secret.txt", b"hush")
    await world.sync()
    records = world.records()
    world.folder.write("sub/.ingestor.toml", b'ignore = ["secret.txt"')
    await world.sync()
    await world.work(["sub/secret.txt", "sub/b.txt"])
    assert world.records() == records
    assert "hush" not in world.embedded_texts()


async def test_metadata_of_the_setting_is_that_of_every_document(world: World) -> None:
    await world.sync()
    calls = len(world.embedder.calls)
    world.folder.ground = Ground({"team": "all", "title": "No title"})
    await world.sync()
    assert own(world, "c.md") == {"team": "all", "title": "No title"}
    assert own(world, "sub/a.md")["title"] == "Numbers"
    world.folder.ground = Ground()
    await world.sync()
    assert own(world, "c.md") == {"title": "c"}
    assert len(world.embedder.calls) == calls


async def test_nobody_without_own_metadata_is_planned_again(world: World) -> None:
    await world.sync()
    cuttings = {entry.path: entry.cutting for entry in world.ledger.documents.values()}
    assert set(cuttings.values()) == {"lines"}


async def test_a_rebuilt_ledger_knows_the_metadata_that_the_records_have(world: World) -> None:
    write_sidecar(world)
    write_settings(world)
    await world.sync()
    calls = len(world.embedder.calls)
    world.ledger.documents.clear()
    world.ledger.notes.clear()
    world.sink.calls.clear()
    await world.sync()
    assert world.sink.writes == []
    assert len(world.embedder.calls) == calls
    assert (await audited(world)).is_sound


async def test_wrong_own_metadata_of_a_record_is_found_and_mended(world: World) -> None:
    write_sidecar(world)
    await world.sync()
    id_ = next(iter(world.sink.held))
    held = world.sink.held[id_]
    cast("dict[str, object]", held.metadata)["stray"] = 1
    found: Audit = await audited(world)
    assert [finding.record_id for finding in found.findings] == [id_]


async def test_a_crash_while_own_metadata_is_changed_heals() -> None:
    survived = 0
    for dies_at in range(1, 60):
        world = World()
        world.folder.write("sub/a.md", FRONT + TEXT)
        world.folder.write("sub/b.txt", b"four")
        await world.sync()
        edit_front_matter(world)
        write_sidecar(world)
        write_settings(world)
        fate = Fate(dies_at, is_after=bool(dies_at % 2))
        with mortal(world, fate), suppress(BaseExceptionGroup, Crash):
            await world.sync()
        survived += fate.is_dead
        calls = len(world.embedder.calls)
        await world.sync()
        assert len(world.embedder.calls) == calls
        assert own(world, "sub/a.md") == {
            "title": "a", "level": 2, "lines": "more", "tags": "large", "tags.large": True, "k": 1.5, "team": "legal",
        }  # fmt: skip
        if not fate.is_dead:
            break
    assert survived > 10


async def test_what_changes_between_the_read_and_the_write_is_found_by_the_next_comparison(world: World) -> None:
    write_sidecar(world)
    begun = world.embedder.embed

    async def edited_meanwhile(texts: list[str]) -> object:
        world.folder.write("sub/a.md.meta.json", b'{"k": 2}')
        return await begun(texts)

    world.embedder.embed = edited_meanwhile  # type: ignore[method-assign,assignment]  # only to be in between
    await world.sync()
    await world.sync()
    assert own(world, "sub/a.md")["k"] == 2


def test_sizes_of_a_folder_cut_its_files_alone() -> None:
    folder = MemoryFolder()
    folder.write("sub/a.md", TEXT)
    folder.write("b.md", TEXT)
    folder.write("sub/.ingestor.toml", b"chunk.max_tokens = 50")
    asked: list[ChunkSize] = []

    def sized(size: ChunkSize) -> LineCutter:
        asked.append(size)
        return LineCutter()

    reader = Reader(folder, decode, LineCutter(), sized)
    assert [len(reader.read(path).chunks) for path in ("sub/a.md", "b.md")] == [3, 3]
    assert asked == [ChunkSize(50, 0)]
