"""The table of faults names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    named = re.findall(r"`((?:unit|contract|property|integration|acceptance|fault)/\w+\.py)(?:::(\w+))?`", table())
    assert len(named) > 60
    missing = [f"{file}::{test}" for file, test in named if f"def {test}" not in (TESTS / file).read_text("utf-8")]
    assert missing == []


def test_every_test_of_a_fault_is_named() -> None:
    written = {
        f"fault/{file.name}::{test}"
        for file in (TESTS / "fault").glob("test_*.py")
        for test in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
    }
    assert written - {f"{file}::{test}" for file, test in re.findall(r"`(\S+?\.py)::(\w+)`", table())} == set()


def table() -> str:
    return (TESTS / "README.md").read_text("utf-8")
