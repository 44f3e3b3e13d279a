"""When a path that was hinted at may be read."""

from dataclasses import replace

import pytest

from ingestor.core.model import Hint, Stat
from ingestor.core.settling import MAX_WAIT_SECONDS, PAUSE_SECONDS, Heard, Settling, unrest_seconds

STAT = Stat(size_bytes=1, mtime_ns=100 * 10**9, ctime_ns=1, device=1, inode=1)
HEARD = Heard(Hint("a"), first_seconds=0.0, ready_seconds=0.1)


def wait(heard: Heard, stat: Stat | None, *, now: float, monotonic: float = 0.1) -> float:
    return unrest_seconds(heard, stat, quiet_seconds=1.0, now_seconds=now, monotonic_seconds=monotonic)


def test_hints_of_one_path_are_handed_out_once_after_a_pause() -> None:
    settling = Settling(capacity=10)
    settling.hear(Hint("a"), 0.0)
    settling.hear(Hint("a", is_closed=True), 0.05)
    assert settling.take_ready(0.1) == []
    (heard,) = settling.take_ready(0.05 + PAUSE_SECONDS)
    assert heard.hint == Hint("a", is_closed=True)
    assert len(settling) == 0


def test_a_path_that_never_rests_is_handed_out_in_the_end() -> None:
    settling = Settling(capacity=10)
    now_seconds = 0.0
    while now_seconds < MAX_WAIT_SECONDS:
        settling.hear(Hint("a"), now_seconds)
        now_seconds += PAUSE_SECONDS / 2
    assert [heard.hint.path for heard in settling.take_ready(MAX_WAIT_SECONDS)] == ["a"]


def test_a_folder_and_a_file_of_the_same_path_are_two() -> None:
    settling = Settling(capacity=10)
    settling.hear(Hint("a"), 0.0)
    settling.hear(Hint("a", is_folder=True), 0.0)
    assert len(settling.take_ready(1.0)) == 2


def test_there_is_no_room_beyond_the_capacity_but_for_known_paths() -> None:
    settling = Settling(capacity=1)
    assert settling.hear(Hint("a"), 0.0)
    assert not settling.hear(Hint("b"), 0.0)
    assert settling.hear(Hint("a"), 0.1)


def test_what_is_postponed_keeps_the_time_it_was_first_heard_of() -> None:
    settling = Settling(capacity=10)
    settling.hear(Hint("a"), 0.0)
    (heard,) = settling.take_ready(1.0)
    settling.postpone(heard, 1.0, 1000.0)
    assert settling.next_ready_seconds() == MAX_WAIT_SECONDS


def test_a_hint_that_came_meanwhile_is_not_overwritten_by_what_is_postponed() -> None:
    settling = Settling(capacity=10)
    settling.hear(Hint("a"), 0.0)
    (heard,) = settling.take_ready(1.0)
    settling.hear(Hint("a", is_closed=True), 1.0)
    settling.postpone(heard, 1.0, 5.0)
    (again,) = settling.take_ready(1.0 + PAUSE_SECONDS)
    assert again.hint.is_closed


def test_a_closed_or_missing_file_rests_at_once() -> None:
    assert wait(replace(HEARD, hint=Hint("a", is_closed=True)), STAT, now=100.0) == 0.0
    assert wait(HEARD, None, now=100.0) == 0.0


def test_an_open_file_rests_when_its_modification_is_old_enough() -> None:
    assert wait(HEARD, STAT, now=100.25) == pytest.approx(0.75)
    assert wait(HEARD, STAT, now=101.0) == 0.0


def test_a_file_moved_in_with_an_old_time_need_not_wait() -> None:
    assert wait(HEARD, STAT, now=5_000.0) == 0.0


def test_a_time_in_the_future_is_waited_for_once() -> None:
    assert wait(HEARD, STAT, now=50.0, monotonic=0.2) == pytest.approx(0.8)
    assert wait(HEARD, STAT, now=50.0, monotonic=1.0) == 0.0


def test_nothing_waits_longer_than_the_bound() -> None:
    assert wait(HEARD, STAT, now=100.0, monotonic=MAX_WAIT_SECONDS) == 0.0
