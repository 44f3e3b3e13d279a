"""What a failure may be about, and what is done about it."""

import pytest

from ingestor.core.errors import (
    AuthenticationFailed,
    CallTooLarge,
    ConfigError,
    IngestorError,
    RateLimited,
    RejectedByModel,
    ServiceUnavailable,
    TransientError,
    UnusableVectors,
)
from ingestor.core.suspicion import (
    MAX_MORE_PROOFS,
    PROOFS,
    Kind,
    Outlook,
    Step,
    Suspects,
    Witnesses,
    kind_of,
    step_after,
    step_when_others_are_answered,
)

LATER_SECONDS = 61.0


@pytest.mark.parametrize(
    ("error", "size", "kind"),
    [
        (RateLimited("slow down"), 10, Kind.BUSY),
        (RejectedByModel("refused"), 10, Kind.REFUSAL),
        (CallTooLarge("too large"), 10, Kind.REFUSAL),
        (UnusableVectors("NaN", positions=frozenset({3})), 10, Kind.SOME),
        (UnusableVectors("NaN", positions=frozenset(range(10)), billed_tokens=0), 10, Kind.NONSENSE),
        (UnusableVectors("NaN", positions=frozenset({0}), billed_tokens=0), 1, Kind.UNCLEAR),
        (ServiceUnavailable("another dimension", billed_tokens=7), 10, Kind.NONSENSE),
        (ServiceUnavailable("another dimension", billed_tokens=7), 1, Kind.NONSENSE),
        (ServiceUnavailable("out of reach"), 10, Kind.DOWN),
        (ServiceUnavailable("HTTP 500", may_be_a_text=True), 10, Kind.UNCLEAR),
        (ServiceUnavailable("no answer", may_be_a_text=True, billed_tokens=0), 1, Kind.UNCLEAR),
        (AuthenticationFailed("HTTP 403"), 10, Kind.UNCLEAR),
        (ConfigError("HTTP 404"), 10, Kind.UNCLEAR),
        (TransientError("whatever"), 10, Kind.DOWN),
    ],
    ids=str,
)
def test_what_a_failure_may_be_about(error: IngestorError, size: int, kind: Kind) -> None:
    assert kind_of(error, size) is kind


@pytest.mark.parametrize(
    ("kind", "size", "failures", "outlook", "step"),
    [
        (Kind.UNCLEAR, 10, 1, Outlook.WORKING, Step.PART),
        (Kind.UNCLEAR, 10, 1, Outlook.SILENT, Step.PAUSE),
        (Kind.UNCLEAR, 10, 2, Outlook.SILENT, Step.ASK),
        (Kind.UNCLEAR, 10, 1, Outlook.DOUBTFUL, Step.ASK),
        (Kind.UNCLEAR, 1, 1, Outlook.WORKING, Step.REST),
        (Kind.UNCLEAR, 1, 1, Outlook.SILENT, Step.PAUSE),
        (Kind.UNCLEAR, 1, 1, Outlook.DOUBTFUL, Step.ASK),
        (Kind.UNCLEAR, 1, 2, Outlook.WORKING, Step.ASK),
        (Kind.NONSENSE, 10, 1, Outlook.WORKING, Step.ASK),
        (Kind.NONSENSE, 1, 1, Outlook.SILENT, Step.ASK),
        (Kind.REFUSAL, 10, 1, Outlook.SILENT, Step.PART),
        (Kind.REFUSAL, 10, 1, Outlook.DOUBTFUL, Step.PART),
        (Kind.REFUSAL, 1, 1, Outlook.WORKING, Step.SET_ASIDE),
        (Kind.REFUSAL, 1, 1, Outlook.DOUBTFUL, Step.ASK),
        (Kind.REFUSAL, 1, 1, Outlook.SILENT, Step.ASK),
    ],
)
def test_what_is_done_about_it(kind: Kind, size: int, failures: int, outlook: Outlook, step: Step) -> None:
    assert step_after(kind, size, failures, outlook) is step


@pytest.mark.parametrize(
    ("kind", "size", "proofs", "step"),
    [
        (Kind.UNCLEAR, 10, 0, Step.PART),
        (Kind.NONSENSE, 10, 0, Step.PART),
        (Kind.UNCLEAR, 1, 1, Step.REST),
        (Kind.UNCLEAR, 1, PROOFS, Step.SET_ASIDE),
        (Kind.REFUSAL, 1, 1, Step.SET_ASIDE),
    ],
)
def test_what_is_done_about_it_once_others_are_answered(kind: Kind, size: int, proofs: int, step: Step) -> None:
    assert step_when_others_are_answered(kind, size, proofs, PROOFS) is step


def test_an_answer_is_believed_for_a_minute_and_three_failures_in_a_row_make_it_doubtful() -> None:
    witnesses = Witnesses()
    assert (witnesses.outlook(0.0), witnesses.has_ever_answered) == (Outlook.SILENT, False)
    witnesses.answered(1.0)
    assert (witnesses.outlook(2.0), witnesses.outlook(1.0 + LATER_SECONDS)) == (Outlook.WORKING, Outlook.SILENT)
    assert (witnesses.has_answered_since(1.0), witnesses.has_answered_since(1.5)) == (True, False)
    for _ in range(3):
        witnesses.failed()
    assert witnesses.outlook(2.0) is Outlook.DOUBTFUL
    witnesses.answered(3.0)
    assert witnesses.outlook(3.0) is Outlook.WORKING
    assert witnesses.has_ever_answered


def test_more_proofs_are_needed_where_calls_fail_that_have_nothing_wrong_with_them() -> None:
    witnesses = Witnesses()
    assert witnesses.proofs_needed(0.0) == PROOFS
    for _ in range(20):
        witnesses.was_mistaken(0.0)
    assert witnesses.proofs_needed(1.0) == PROOFS + MAX_MORE_PROOFS
    assert witnesses.proofs_needed(LATER_SECONDS) == PROOFS


def test_a_text_at_fault_makes_another_one_likely_for_a_while() -> None:
    witnesses = Witnesses()
    assert not witnesses.expects_faults(0.0)
    witnesses.found_at_fault(0.0)
    assert witnesses.expects_faults(500.0)
    assert not witnesses.expects_faults(700.0)


def test_texts_that_have_failed_let_the_others_go_first_but_for_their_turn_and_for_live_ones() -> None:
    suspects = Suspects[str, str](share=3)
    suspects.put("a", "backfill", is_live=False)
    assert suspects.take(others_wait=True) is None
    suspects.put("b", "live", is_live=True)
    assert suspects.take(others_wait=True) == "live"
    suspects.pass_over()
    assert suspects.take(others_wait=True) is None
    suspects.pass_over()
    assert suspects.take(others_wait=True) == "backfill"
    suspects.put("c", "alone", is_live=False)
    assert list(suspects) == ["alone"]
    assert suspects.take(others_wait=False) == "alone"
    assert suspects.take(others_wait=False) is None
