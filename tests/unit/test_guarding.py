"""Which deletions wait for approval, and how long."""

from collections.abc import Iterable

import pytest

from ingestor.core.guarding import DeletionLimit, Holding, judged
from ingestor.core.model import Glance, Snapshot, Stat

LIMIT = DeletionLimit(max_ratio=0.5, min_documents=4)
NOTHING_HELD = Holding({}, 0)


def glance(inode: int, mtime_ns: int = 1) -> Glance:
    return Stat(size_bytes=10, mtime_ns=mtime_ns, ctime_ns=1, device=1, inode=inode).version, "c1", False


def known(*paths: str) -> dict[str, Glance]:
    return {path: glance(number) for number, path in enumerate(paths)}


def found(*paths: str) -> Snapshot:
    return Snapshot({path: glance(1_000 + number)[0] for number, path in enumerate(paths)})


def held(*paths: str, approved: Iterable[str] = (), known: int = 0) -> Holding:
    return Holding(dict.fromkeys(paths, False) | dict.fromkeys(approved, True), known)


@pytest.mark.parametrize(
    ("gone", "documents", "files", "is_held"),
    [
        (0, 10, 10, False),
        (5, 10, 5, False),
        (6, 10, 4, True),
        (2, 3, 1, False),
        (3, 3, 1, False),
        (3, 3, 0, True),
        (1, 1, 0, True),
    ],
)
def test_too_much_is_a_share_of_the_known_or_all_of_it(gone: int, documents: int, files: int, is_held: bool) -> None:  # noqa: FBT001 - a case of the table
    assert LIMIT.holds_back(gone=gone, known=documents, found=files) is is_held


def test_up_to_the_limit_all_goes_and_above_it_nothing() -> None:
    glances = known("a", "b", "c", "d")
    few = judged(["a", "b"], glances, found("c", "d"), NOTHING_HELD, LIMIT)
    assert (few.free, few.joins, few.held) == (("a", "b"), (), ())
    many = judged(["a", "b", "c"], glances, found("d"), NOTHING_HELD, LIMIT)
    assert (many.free, many.joins, many.held, many.known) == ((), ("a", "b", "c"), ("a", "b", "c"), 4)


def test_what_was_added_since_counts_for_nothing() -> None:
    glances = known("a", "b", "c", *"uvwxyz")
    verdict = judged(["a", "b", "c"], glances, found(*"uvwxyz"), held("a", "b", "c", known=4), LIMIT)
    assert (verdict.free, verdict.held) == ((), ("a", "b", "c"))


def test_small_losses_are_held_with_what_is_held() -> None:
    glances = known("a", "b", "c", "d", *"uvwxyz")
    verdict = judged(["a", "b", "c", "d"], glances, found(*"uvwxyz"), held("a", "b", "c", known=4), LIMIT)
    assert (verdict.free, verdict.joins, verdict.held) == ((), ("d",), ("a", "b", "c", "d"))


def test_the_last_one_of_what_was_held_stays_and_others_go_by_their_share() -> None:
    glances = known("a", *"rstuvwxyz")
    verdict = judged(["a", "r"], glances, found(*"stuvwxyz"), held("a", known=10), LIMIT)
    assert (verdict.free, verdict.held) == (("r",), ("a",))


def test_what_is_there_again_is_held_no_more() -> None:
    glances = known("a", "b", "c", "d")
    converted = Snapshot(found("b", "d").files, unconverted=frozenset({"c"}))
    verdict = judged(["a"], glances, converted, held("a", "b", "c", known=4), LIMIT)
    assert (set(verdict.back), verdict.held) == ({"b", "c"}, ("a",))


def test_what_the_ledger_knows_no_more_is_held_no_more_but_a_part_does_not_tell() -> None:
    holding = held("a", "elsewhere/b", known=4)
    assert judged(["a"], known("a"), found("z"), holding, LIMIT).back == ("elsewhere/b",)
    assert judged(["a"], known("a"), found("z"), holding, LIMIT, documents=9).back == ()


def test_what_is_approved_goes_and_what_is_missed_besides_is_judged_anew() -> None:
    glances = known(*"abcdefgh")
    holding = held(approved="abc")
    few = judged(list("abcd"), glances, found(*"efgh"), holding, LIMIT)
    assert (few.free, few.held) == (tuple("abcd"), ())
    many = judged(list("abcdef"), glances, found(*"gh"), holding, LIMIT)
    assert (many.free, many.joins) == (tuple("abc"), tuple("def"))


def test_approved_files_that_are_back_are_not_deleted_when_they_go_missing_later() -> None:
    assert judged([], known("a"), found("a"), held(approved="a"), LIMIT).back == ("a",)


def test_a_renamed_file_is_not_missing_but_an_inode_that_is_used_again_is_another_file() -> None:
    glances = known("a", "b", "c", "d")
    moved = Snapshot({f"new/{path}": glances[path][0] for path in "abc"})
    assert judged(["a", "b", "c"], glances, moved, NOTHING_HELD, LIMIT).free == ("a", "b", "c")
    reused = Snapshot({f"new/{number}": glance(number, mtime_ns=2)[0] for number in range(3)})
    assert judged(["a", "b", "c"], glances, reused, NOTHING_HELD, LIMIT).joins == ("a", "b", "c")


def test_a_renamed_file_is_free_whatever_is_held() -> None:
    glances = known("a", "b", "c", "d")
    moved = Snapshot({"new": glances["d"][0]})
    verdict = judged(["a", "b", "c", "d"], glances, moved, held("a", "b", "c", known=4), LIMIT)
    assert (verdict.free, verdict.held) == (("d",), ("a", "b", "c"))


def test_a_part_is_judged_by_itself() -> None:
    holding = held(*(f"old/{number}" for number in range(6)), known=10)
    glances = {"sub/a": glance(1), "sub/b": glance(2)}
    assert judged(["sub/a"], glances, found("sub/b"), holding, LIMIT, documents=10).free == ("sub/a",)
    assert judged(["sub/a", "sub/b"], glances, Snapshot({}), holding, LIMIT, documents=4).joins == ()
    glances |= {"sub/c": glance(3)}
    assert judged(list(glances), glances, Snapshot({}), holding, LIMIT, documents=4).joins == tuple(glances)
    assert judged(list(glances), glances, Snapshot({}), holding, LIMIT, documents=6).joins == ()


def test_what_lies_in_a_folder_that_cannot_be_listed_stays_held() -> None:
    glances = known("locked/a", "b", "c", "d")
    verdict = judged(["b"], glances, Snapshot({}, unreadable={"locked": "no"}), held("locked/a", known=4), LIMIT)
    assert verdict.held == ("locked/a",)
    assert verdict.free == ("b",)
