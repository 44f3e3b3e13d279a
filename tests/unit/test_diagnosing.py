"""What a command that checks ends with."""

import pytest

from ingestor.core.diagnosing import Finding, exit_code_of, failure, hint, warning, well
from ingestor.core.errors import AlreadyRunning, ConfigError, LedgerCorrupt, ServiceUnavailable

AWAY = failure("chroma", ServiceUnavailable("away"))
WRONG = failure("settings", ConfigError("wrong", remedy="right"))
DAMAGED = failure("ledger", LedgerCorrupt("damaged"))
TAKEN = failure("instances", AlreadyRunning("taken"))
POOR = warning("space", "little", "more")


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([well("a", "fine"), hint("b", "could be better", "so")], 0),
        ([well("a", "fine"), POOR], 3),
        ([POOR, AWAY], 4),
        ([AWAY, TAKEN, POOR], 5),
        ([AWAY, TAKEN, DAMAGED], 6),
        ([DAMAGED, AWAY, WRONG], 2),
    ],
    ids=["nothing", "well", "warning", "service", "instance", "ledger", "settings"],
)
def test_the_worst_finding_decides_the_exit_code(findings: list[Finding], code: int) -> None:
    assert exit_code_of(findings) == code
    assert exit_code_of(reversed(findings)) == code


def test_an_error_keeps_its_sentence_and_its_remedy() -> None:
    assert (WRONG.sentence, WRONG.remedy, WRONG.exit_code) == ("wrong", "right", 2)
