"""Options of the test run."""

import pytest
from hypothesis import settings

settings.register_profile("thorough", max_examples=2_000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", default="30", help="how many processes tests/fault kills (default: 30)")
    parser.addoption("--seed", default="20", help="seed of the random operations in tests/fault (default: 20)")
