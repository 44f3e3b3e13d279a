"""Deaths of the commands that come before all work: what they were about to write is there whole, or not at all."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Site
from tests.dying import Dying, Ended, Order

OLD = "# mine\n[chroma]\ncollection = 'mine'\n"


@pytest.fixture(scope="module")
def dying() -> Iterator[Dying]:
    with Dying() as dying:
        yield dying


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, {}) as site:
        yield site


def deaths(dying: Dying, site: Site, *arguments: str) -> Iterator[Ended]:
    """Run a command again and again, and let it die one change later each time, until it ends."""
    for dies_at in range(1, 50):
        done = dying.run(Order(arguments, str(site.root), site.environment(), dies_at))
        yield done
        if not done.has_died:
            assert done.code == 0, done.err
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize("before", [OLD, None], ids=["forced", "new"])
def test_an_init_that_is_killed_leaves_the_file_as_it_was_or_as_it_becomes(
    dying: Dying, site: Site, before: str | None
) -> None:
    file = site.root / "ingestor.toml"
    was_changed = set[bool]()
    if before is not None:
        file.write_text(before)
    for done in deaths(dying, site, "init", "--yes", *(["--force"] if before else [])):
        after = file.read_text() if file.exists() else None
        was_changed.add(after != before)
        if after is not None and after != before:
            assert tomllib.loads(after)["chroma"]["collection"] == "documents"
            file.unlink()
        else:
            assert done.has_died
        if before is not None:
            file.write_text(before)
    assert was_changed == {True, False}


def test_what_a_doctor_that_is_killed_has_tried_events_with_is_taken_away_by_the_next(dying: Dying, site: Site) -> None:
    (site.folder / "a.txt").write_text("a")
    arguments = ("doctor", "--no-call", "--in-folder")
    left = 0
    for done in deaths(dying, site, *arguments):
        left += done.has_died and (site.folder / ".ingestor-canary.tmp").exists()
    assert left
    assert [path.name for path in site.folder.iterdir()] == ["a.txt"]
    assert not site.data_dir.exists()
