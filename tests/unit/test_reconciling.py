"""The difference between the folder and the ledger."""

from dataclasses import replace

import pytest

from ingestor.core.attaching import UNTELLABLE
from ingestor.core.model import Snapshot, Stat
from ingestor.core.reconciling import difference, differs

STAT = Stat(size_bytes=10, mtime_ns=1, ctime_ns=1, device=1, inode=7)
KNOWN = (STAT.version, "c1", False)


def test_a_known_path_with_the_same_stat_does_not_differ() -> None:
    assert not differs(STAT, KNOWN, "c1")


@pytest.mark.parametrize(
    "stat",
    [
        replace(STAT, size_bytes=11),
        replace(STAT, mtime_ns=2),
        replace(STAT, ctime_ns=2),
        replace(STAT, inode=8),
        replace(STAT, is_regular=False),
    ],
)
def test_every_part_of_the_stat_but_the_device_counts(stat: Stat) -> None:
    assert differs(stat, KNOWN, "c1")
    assert not differs(replace(STAT, device=99), KNOWN, "c1")


def test_an_unfinished_write_differs_whatever_the_stat_says() -> None:
    assert differs(STAT, (STAT.version, "c1", True), "c1")


def test_another_cutting_recipe_differs_but_for_a_problem_which_has_none() -> None:
    assert differs(STAT, KNOWN, "c2")
    assert not differs(STAT, (STAT.version, "", False), "c2")


def test_new_and_gone_paths_differ_and_unknown_ones_that_are_missing_do_not() -> None:
    assert differs(STAT, None, "c1")
    assert differs(None, KNOWN, "c1")
    assert not differs(None, None, "c1")


def test_difference_sorts_paths_into_present_gone_and_same() -> None:
    snapshot = Snapshot({"same": STAT.version, "new": STAT.version, "edited": replace(STAT, size_bytes=1).version})
    found = difference(snapshot, {"same": KNOWN, "edited": KNOWN, "gone": KNOWN}, "c1")
    assert set(found.present) == {"new", "edited"}
    assert found.gone == ("gone",)
    assert found.same == 1


def test_what_lies_below_an_unreadable_folder_is_not_taken_for_gone() -> None:
    snapshot = Snapshot({}, unreadable={"locked": "Permission denied"})
    found = difference(snapshot, {"locked/a": KNOWN, "locked/b/c": KNOWN, "lockedness": KNOWN}, "c1")
    assert found.gone == ("lockedness",)


def test_an_unreadable_root_deletes_nothing() -> None:
    assert difference(Snapshot({}, unreadable={"": "Permission denied"}), {"a": KNOWN}, "c1").gone == ()


@pytest.mark.parametrize(
    ("its_cutting", "attached", "expected"),
    [
        ("c1", "+one", True),
        ("c1+one", "+one", False),
        ("c1+one", "+two", True),
        ("c1+one", "", True),
        ("c2+one", "+one", True),
        ("+one", "+one", False),
        ("+one", "", True),
        ("", "+one", True),
        ("c1", UNTELLABLE, False),
        ("c1+one", UNTELLABLE, False),
        ("c2+one", UNTELLABLE, True),
        ("untried", UNTELLABLE, True),
        ("+one", UNTELLABLE, False),
        ("c1" + UNTELLABLE, "", True),
        ("c1" + UNTELLABLE, "+one", True),
    ],
)
def test_what_is_attached_counts_unless_it_cannot_be_told(its_cutting: str, attached: str, *, expected: bool) -> None:
    glance = (STAT.version, its_cutting, False)
    assert differs(replace(STAT, attached=attached), glance, "c1") is expected
    snapshot = Snapshot({"a": STAT.version}, attached={"a": attached} if attached else {})
    assert bool(difference(snapshot, {"a": glance}, "c1").present) is expected
