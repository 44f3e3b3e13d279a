"""What a terminal can show, by its environment."""

import pytest

from ingestor.core.terminals import has_colours


@pytest.mark.parametrize(
    ("environment", "is_terminal", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
    ],
    ids=["terminal", "pipe", "dumb", "forbidden", "empty", "forced"],
)
def test_colours_are_where_they_are_wanted(environment: dict[str, str], *, is_terminal: bool, expected: bool) -> None:
    assert has_colours(environment, is_terminal=is_terminal) is expected
