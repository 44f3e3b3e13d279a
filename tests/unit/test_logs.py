"""One form for all log lines, whoever writes them."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from ingestor.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == "", "standard output belongs to results"
    return [json.loads(line) for line in captured.err.splitlines()]


def test_json_lines_begin_with_time_level_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("ingestor.x").info("document.synced", path="新闻.md", embedded=1)
    (line,) = lines(capsys)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["event"], line["path"], line["embedded"]) == ("document.synced", "新闻.md", 1)


def test_other_libraries_speak_in_the_same_form_from_warnings_upwards(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug", "json")
    logging.getLogger("watchdog").info("not told")
    logging.getLogger("watchdog").warning("told")
    (line,) = lines(capsys)
    assert (line["level"], line["event"]) == ("warning", "told")


def test_the_level_is_that_of_our_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning", "json")
    log = structlog.get_logger("ingestor.x")
    log.info("not told")
    log.warning("told")
    assert [line["event"] for line in lines(capsys)] == ["told"]


def test_an_exception_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    try:
        raise ValueError("why")  # noqa: TRY301 - an exception to log is what this is about
    except ValueError:
        structlog.get_logger("ingestor.x").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: why" in str(line["exception"])


def test_people_get_lines_without_braces(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.get_logger("ingestor.x").info("document.synced", path="a.md")
    captured = capsys.readouterr().err
    assert "document.synced" in captured
    assert "path=a.md" in captured
    assert "{" not in captured


def test_a_path_that_is_no_utf_8_does_not_break_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("ingestor.x").info("document.problem", path="caf\udce9.txt")
    (line,) = lines(capsys)
    assert line["event"] == "document.problem"


FORGED = 'a\n{"event": "forged"}\r\x1b[2J\x9b31m\u2028\x85.txt'


def test_no_name_makes_a_json_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("ingestor.x").info("document.problem", path=FORGED)
    (line,) = lines(capsys)
    assert (line["event"], line["path"]) == ("document.problem", FORGED)


def test_no_name_acts_upon_the_terminal_of_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.get_logger("ingestor.x").info("document.problem", path=FORGED)
    captured = capsys.readouterr().err
    (line,) = captured.splitlines()
    assert r"\x1b[2J" in line
    assert not {"\x1b", "\x9b", "\r"} & set(line)
