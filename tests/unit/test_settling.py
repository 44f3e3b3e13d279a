"""When a path that was hinted at may be read."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.core.model import Hint, Stat
from ingestor.core.settling import (
    CALM_SECONDS,
    CLOSED_SECONDS,
    LATELY_SECONDS,
    MAX_PAUSE_SECONDS,
    MAX_REST_SECONDS,
    MAX_WAIT_SECONDS,
    PAUSE_SECONDS,
    Heard,
    Settling,
    unrest_seconds,
)

STAT = Stat(size_bytes=1, mtime_ns=100 * 10**9, ctime_ns=1, device=1, inode=1)
HEARD = Heard(Hint("a"), first_seconds=0.0, ready_seconds=0.1)


def wait(heard: Heard, stat: Stat | None, *, now: float, monotonic: float = 0.1) -> float:
    return unrest_seconds(heard, stat, quiet_seconds=1.0, now_seconds=now, monotonic_seconds=monotonic)


def test_hints_of_one_path_are_handed_out_once_after_a_pause() -> None:
    settling = Settling(capacity=10)
    settling.hear(Hint("a", is_closed=True), 0.0)
    settling.hear(Hint("a"), 0.01)
    assert settling.take_ready(PAUSE_SECONDS) == []
    (heard,) = settling.take_ready(0.01 + PAUSE_SECONDS)
    assert heard.hint == Hint("a")
    assert len(settling) == 0


def handed_out(seconds: list[float], *, path: str = "a") -> list[float]:
    """When a file is handed out that is closed at these times, to somebody who asks whenever something is ready."""
    settling = Settling(capacity=10)
    found = []
    for now_seconds in [*sorted(seconds), float("inf")]:
        while (ready_seconds := settling.next_ready_seconds()) is not None and ready_seconds <= now_seconds:
            found += [ready_seconds for _ in settling.take_ready(ready_seconds)]
        settling.hear(Hint(path, is_closed=True), now_seconds)
    return found


def test_a_closed_file_is_handed_out_at_once_and_later_when_it_was_handed_out_lately() -> None:
    pauses = (CLOSED_SECONDS, PAUSE_SECONDS, 2 * PAUSE_SECONDS, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
    closed = [number * 0.5 for number in range(len(pauses))]
    assert handed_out(closed) == pytest.approx([at + pause for at, pause in zip(closed, pauses, strict=True)])
    later = closed[-1] + MAX_PAUSE_SECONDS + LATELY_SECONDS
    assert handed_out([*closed, later])[-1] == pytest.approx(later + CLOSED_SECONDS)


def test_a_file_that_is_closed_a_hundred_times_a_second_is_handed_out_twice_in_half_a_minute() -> None:
    assert len(handed_out([number * 0.01 for number in range(3000)])) <= 2


MILLISECONDS = st.integers(min_value=1, max_value=1500)


@given(st.lists(MILLISECONDS, min_size=1, max_size=80))
def test_hand_outs_of_a_file_are_bounded_by_the_time_they_take_place_in(pauses: list[int]) -> None:
    closed = [sum(pauses[: number + 1]) / 1000 for number in range(len(pauses))]
    found = handed_out(closed)
    assert 1 <= len(found) <= len(closed)
    for first, began_seconds in enumerate(found):
        for last in range(first, len(found)):
            assert last - first + 1 <= 3 + (found[last] - began_seconds) / MAX_PAUSE_SECONDS + 1e-9


@given(st.lists(MILLISECONDS, min_size=1, max_size=80))
def test_a_closed_file_that_rests_is_handed_out_within_the_longest_pause(pauses: list[int]) -> None:
    closed = [sum(pauses[: number + 1]) / 1000 for number in range(len(pauses))]
    found = handed_out(closed)
    ends = [each for each, following in zip(closed, [*closed[1:], 1e9], strict=True) if following - each > 0.4]
    for end in ends:
        assert any(end < at <= end + MAX_PAUSE_SECONDS + 1e-9 for at in found)


def test_no_more_is_remembered_of_what_was_handed_out_than_there_is_room_for() -> None:
    settling = Settling(capacity=2)
    for number in range(5):
        settling.hear(Hint(f"f{number}", is_closed=True), number * 0.02)
        assert settling.take_ready(number * 0.02 + CLOSED_SECONDS)
    assert list(settling._handed_out) == ["f3", "f4"]
    settling.hear(Hint("other"), 2.0)
    assert settling.take_ready(2.0 + PAUSE_SECONDS)
    assert not settling._handed_out


@pytest.mark.parametrize("folder", ["", "x", "x/y"])
def test_what_lies_below_a_folder_that_is_looked_at_later_is_not_handed_out(folder: str) -> None:
    settling = Settling(capacity=10)
    inside = [Hint("x/y/a", is_closed=True), Hint("x/y/z", is_folder=True), Hint("x/y/z/b", is_closed=True)]
    outside = [Hint("xx", is_closed=True), Hint("w/x/y", is_closed=True)] if folder else []
    for hint in [*inside, *outside]:
        settling.hear(hint, 0.0)
    settling.hear(Hint(folder, is_folder=True), 0.05)
    assert {heard.hint for heard in settling.take_ready(PAUSE_SECONDS)} == set(outside)
    settling.hear(inside[0], 0.11)
    (heard,) = settling.take_ready(1.0)
    assert heard.hint == Hint(folder, is_folder=True)
    assert len(settling) == 0


def test_what_changes_below_a_folder_after_it_was_handed_out_is_handed_out_itself() -> None:
    settling = Settling(capacity=10)
    settling.hear(Hint("x", is_folder=True), 0.0)
    assert settling.take_ready(PAUSE_SECONDS)
    settling.hear(Hint("x/a", is_closed=True), 0.2)
    assert [heard.hint.path for heard in settling.take_ready(0.3)] == ["x/a"]


def test_a_path_that_never_rests_is_handed_out_in_the_end() -> None:
    settling = Settling(capacity=10)
    now_seconds = 0.0
    while now_seconds < MAX_WAIT_SECONDS:
        settling.hear(Hint("a"), now_seconds)
        now_seconds += PAUSE_SECONDS / 2
    assert [heard.hint.path for heard in settling.take_ready(MAX_WAIT_SECONDS)] == ["a"]


def test_a_look_at_a_folder_is_one_at_the_file_that_took_its_place() -> None:
    settling = Settling(capacity=10)
    settling.hear(Hint("a", is_folder=True), 0.0)
    settling.hear(Hint("a"), 0.0)
    assert [heard.hint.is_folder for heard in settling.take_ready(1.0)] == [True]


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


def queued_at(changed_seconds: list[float], *, is_closed: bool = True, path: str = "log") -> list[float]:
    """When a file that changes at these times is queued, by a follower with a virtual clock who is never late."""
    settling, found, last_seconds = Settling(capacity=10), list[float](), float("-inf")

    def follow_until(seconds: float) -> None:
        while (now_seconds := settling.next_ready_seconds()) is not None and now_seconds <= seconds:
            for heard in settling.take_ready(now_seconds):
                stat = replace(STAT, mtime_ns=int(last_seconds * 10**9))
                unrest = unrest_seconds(
                    heard, stat, quiet_seconds=1.0, now_seconds=now_seconds, monotonic_seconds=now_seconds
                )
                if wait_seconds := max(unrest, settling.rest_seconds(heard, stat, now_seconds)):
                    settling.postpone(heard, now_seconds, wait_seconds)
                else:
                    settling.queued(path, stat, now_seconds)
                    found.append(now_seconds)

    for now_seconds in changed_seconds:
        follow_until(now_seconds)
        last_seconds = now_seconds
        settling.hear(Hint(path, is_closed=is_closed), now_seconds)
    follow_until(float("inf"))
    return found


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("every_seconds", [0.05, 1.0, 7.0])
def test_a_file_that_grows_for_an_hour_is_looked_at_about_once_a_minute(
    every_seconds: float, *, is_closed: bool
) -> None:
    changed = [number * every_seconds for number in range(int(3600 / every_seconds))]
    found = queued_at(changed, is_closed=is_closed)
    assert 55 <= len(found) <= 85
    late = pairwise(at for at in found[:-1] if at > 600)
    assert min(after - before for before, after in late) > 0.9 * MAX_REST_SECONDS
    assert changed[-1] <= found[-1] <= changed[-1] + MAX_REST_SECONDS + MAX_PAUSE_SECONDS + 1e-6
    first_seconds = CLOSED_SECONDS + every_seconds if is_closed else MAX_WAIT_SECONDS
    assert found[0] <= first_seconds, "the first change is looked at at once"


def test_a_calm_file_is_looked_at_at_once_however_often_it_is_saved() -> None:
    saved = [number * CALM_SECONDS * 1.1 for number in range(100)]
    assert queued_at(saved) == pytest.approx([at + CLOSED_SECONDS for at in saved])


def test_a_file_that_has_come_to_rest_is_looked_at_at_once_again() -> None:
    busy = [float(number) for number in range(600)]
    later = busy[-1] + MAX_REST_SECONDS + 300.0
    assert queued_at([*busy, later])[-1] == pytest.approx(later + CLOSED_SECONDS)


@given(st.lists(st.integers(min_value=1, max_value=200_000), min_size=1, max_size=120), st.booleans())
def test_the_last_state_is_reached_within_the_rest_whenever_a_file_changes(pauses: list[int], is_closed: bool) -> None:  # noqa: FBT001 - drawn
    changed = [sum(pauses[: number + 1]) / 1000 for number in range(len(pauses))]
    found = queued_at(changed, is_closed=is_closed)
    bound_seconds = MAX_WAIT_SECONDS + MAX_REST_SECONDS
    for each in changed:
        assert any(each <= at <= each + bound_seconds for at in found)
    assert found[-1] <= changed[-1] + MAX_REST_SECONDS + 1.0
    in_a_row = [(first, last) for first in range(len(found)) for last in range(first, len(found))]
    for first, last in in_a_row:
        # It takes twelve looks to grow the longest rest, and a calm to lose half of it.
        assert last - first <= 12 + 3 * (found[last] - found[first]) / CALM_SECONDS


def heard_at(seconds: float, path: str = "a") -> Heard:
    return Heard(Hint(path, is_closed=True), first_seconds=seconds, ready_seconds=seconds)


def test_what_was_not_changed_since_it_was_queued_does_not_count_as_a_change() -> None:
    settling = Settling(capacity=10)
    for now_seconds in range(100):
        assert settling.rest_seconds(heard_at(float(now_seconds)), STAT, float(now_seconds)) == 0.0
        settling.queued("a", STAT, float(now_seconds))
    other = replace(STAT, mtime_ns=101 * 10**9)
    assert settling.rest_seconds(heard_at(100.0), other, 100.0) == 0.0
    assert settling.restless(100.0) == []


def test_files_that_change_all_the_time_are_named_until_they_are_calm_and_their_number_is_bounded() -> None:
    settling = Settling(capacity=2)
    for number in range(30):
        now_seconds = number * 20.0
        stat = replace(STAT, mtime_ns=number)
        if settling.rest_seconds(heard_at(now_seconds, "log"), stat, now_seconds) == 0.0:
            settling.queued("log", stat, now_seconds)
    assert settling.restless(600.0) == ["log"]
    assert settling.restless(600.0 + MAX_REST_SECONDS + CALM_SECONDS) == []
    for name in ("b", "c", "d"):
        settling.queued(name, STAT, 601.0)
    assert list(settling._queued) == ["c", "d"]
    settling.restless(1000.0)
    assert not settling._queued
