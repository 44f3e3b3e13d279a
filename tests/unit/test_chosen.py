"""Options that choose records, and what is asked before any go."""

import io

import pytest
import typer

from ingestor.cli.chosen import confirm, parsed, parsed_object
from ingestor.core.errors import ConfigError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "is_done"), [("y\n", True), ("n\n", False), ("\n", False)], ids=["y", "n", "enter"])
def test_on_a_terminal_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, answer: str, *, is_done: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if is_done:
        confirm("delete all?", is_agreed=False)
    else:
        with pytest.raises(typer.Abort):
            confirm("delete all?", is_agreed=False)


def test_where_nobody_can_be_asked_it_takes_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(ConfigError, match="cannot be undone: delete all"):
        confirm("delete all?", is_agreed=False)
    confirm("delete all?", is_agreed=True)


@pytest.mark.parametrize("text", ["", "{", "nothing", "[" * 100_000], ids=["empty", "open", "word", "deep"])
def test_what_is_no_json_is_named_by_its_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--where is no JSON") as refused:
        parsed("--where", text, '{"a": 1}')
    assert 'for example: {"a": 1}' in refused.value.sentence
    assert len(refused.value.sentence) < 200


def test_an_object_is_asked_for_and_none_stays_none() -> None:
    assert parsed_object("--where", None) is None
    assert parsed_object("--where", '{"a": 1}') == {"a": 1}
    with pytest.raises(ConfigError, match="--where must be a JSON object"):
        parsed_object("--where", "[1]")
