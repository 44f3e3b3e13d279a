"""How long things took, and since when somebody has waited for a document."""

from dataclasses import replace

import pytest

from ingestor.core.latency import MAX_NOTICE_SECONDS, Spread, waited_seconds
from ingestor.core.model import UNKNOWN_STAT, Change, Priority

QUEUED = Change("a.txt", Priority.LIVE, enqueued_seconds=1_000.0, not_before_seconds=0.0)


def waited_from(changed_seconds: float) -> float:
    return waited_seconds(QUEUED, replace(UNKNOWN_STAT, ctime_ns=round(changed_seconds * 1e9)), 1_002.0)


def test_a_value_counts_at_the_least_bound_that_it_does_not_exceed() -> None:
    spread = Spread([1.0, 2.0])
    for seconds in (0.0, 1.0, 1.5, 2.0, 2.5, 100.0):
        spread.add(seconds)
    assert spread.counts == [2, 2, 2]
    assert spread.sum_seconds == 107.0


@pytest.mark.parametrize(
    ("changed_seconds", "expected_seconds"),
    [
        pytest.param(999.5, 2.5, id="noticed soon"),
        pytest.param(1_001.5, 0.5, id="changed again since"),
        pytest.param(1_000.0 - MAX_NOTICE_SECONDS, 62.0, id="noticed late"),
        pytest.param(999.0 - MAX_NOTICE_SECONDS, 2.0, id="not plausible, too old"),
        pytest.param(1_003.0, 2.0, id="not plausible, in the future"),
    ],
)
def test_somebody_waits_from_the_last_change_of_the_file_if_that_is_plausible(
    changed_seconds: float, expected_seconds: float
) -> None:
    assert waited_from(changed_seconds) == pytest.approx(expected_seconds)


def test_for_a_file_that_is_gone_it_counts_since_it_was_queued_and_no_wait_is_negative() -> None:
    assert waited_seconds(QUEUED, None, 1_002.0) == 2.0
    assert waited_seconds(QUEUED, None, 900.0) == 0.0
