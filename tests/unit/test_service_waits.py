"""How people are told of documents that wait for a service."""

import re
import time

import pytest

from ingestor.app.waits import merged, told_wait
from ingestor.core.errors import CHROMA, MACHINE, NEXT_DAY
from ingestor.core.model import ServiceWait
from ingestor.language import translated

NOW = time.time()
AWAY = ServiceWait("http://localhost:1/v1", 499, "it is out of reach", "look at the network", NOW - 0.1, NOW + 3600.0)


def test_a_wait_is_told_in_one_sentence_with_its_times() -> None:
    told = told_wait(AWAY, is_attended=True)
    moment = r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d"
    form = rf"499 documents wait for http://localhost:1/v1 \(since {moment}, next try {moment}\)"
    assert re.fullmatch(form, told)
    assert told_wait(AWAY, is_attended=False).endswith("next try at the next start)")
    past = ServiceWait(CHROMA, 1, "away", "", NOW - 86_400.0 * 2, NOW - 1.0)
    assert re.fullmatch(
        r"1 document waits for Chroma \(since \d{4}-\d\d-\d\d \d\d:\d\d, next try now\): away",
        told_wait(past, is_attended=True, has_reason=True),
    )


@pytest.mark.parametrize(
    ("service", "said"), [(AWAY.service, AWAY.service), (CHROMA, CHROMA), (MACHINE, "本机"), (NEXT_DAY, "次日的预算")]
)
def test_a_wait_is_told_in_chinese(service: str, said: str) -> None:
    wait = ServiceWait(service, 499, "the ledger is locked", "", NOW, NOW)
    for has_reason in (False, True):
        told = translated(told_wait(wait, is_attended=False, has_reason=has_reason), "zh")
        assert told.startswith("499 个文档正在等待")
        assert said in told
        assert "下次启动时" in told


def test_waits_of_several_sources_are_told_as_one() -> None:
    other = ServiceWait(AWAY.service, 1, "later words", "", NOW - 50.0, AWAY.next_try_seconds + 1.0)
    chroma = ServiceWait(CHROMA, 2, "away", "", NOW, NOW)
    assert merged([AWAY, chroma, other]) == [
        chroma,
        ServiceWait(AWAY.service, 500, "later words", "", NOW - 50.0, AWAY.next_try_seconds),
    ]
