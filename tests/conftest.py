"""Options of the test run, and the figures that tests tell at its end."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings

os.environ["LC_ALL"] = "C.UTF-8"  # whatever the language of those who run them, most tests read English
settings.register_profile("thorough", max_examples=2_000, deadline=None)


Tell = Callable[[str], None]
_FIGURE = "figure"


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Tell a sentence with figures at the end of the run: a measurement that nothing may depend on, or a count."""
    return lambda sentence: record_property(_FIGURE, sentence)


@pytest.fixture(scope="session", autouse=True)
def heard_hangups() -> Iterator[None]:
    """Commands under test hear SIGHUP, also where `nohup` began the tests: what is ignored is inherited."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    told = [
        f"{report.nodeid}: {sentence}"
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, sentence in report.user_properties
        if name == _FIGURE
    ]
    if told:
        terminalreporter.section("figures")
        for line in sorted(told):
            terminalreporter.line(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", default="30", help="how many processes tests/fault kills (default: 30)")
    parser.addoption("--seed", default="20", help="seed of the random operations in tests/fault (default: 20)")
