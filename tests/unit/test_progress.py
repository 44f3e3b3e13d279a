"""How far work is, in one line."""

from dataclasses import replace

import pytest

from ingestor.app.sync import SyncProgress
from ingestor.cli.progress import Course

BEGUN = SyncProgress(0, 0, 0, 0, size_bytes=0, tokens=0, cost="", waits_for="")
HALF = SyncProgress(50, 100, 200, 150, size_bytes=2_048, tokens=9_000, cost="0.0012 CNY", waits_for="")


def test_before_anything_is_done_nothing_is_promised() -> None:
    course = Course()
    course.note(BEGUN, 100.0)
    assert course.line() == "0 of 0 files, 0 files/s, 0 chunks/s, 0 B, 0 texts embedded"


def test_half_way_rates_cost_and_the_time_left_are_told() -> None:
    course = Course()
    course.note(BEGUN, 100.0)
    course.note(HALF, 110.0)
    assert course.line() == (
        "50 of 100 files, 5.0 files/s, 20 chunks/s, 2.0 KiB, 150 texts embedded, 9000 tokens, 0.0012 CNY, "
        "about 10 s left"
    )


def test_what_is_waited_for_is_named() -> None:
    course = Course()
    course.note(replace(BEGUN, waits_for="the provider's limits: the next call goes out in 3 s"), 100.0)
    assert course.line().endswith("; waiting for the provider's limits: the next call goes out in 3 s")


@pytest.mark.parametrize("documents", [100, 101])
def test_at_the_end_no_time_is_left(documents: int) -> None:
    course = Course()
    course.note(BEGUN, 100.0)
    course.note(replace(HALF, documents=documents), 110.0)
    assert not course.left()
