"""What people see on a terminal: queries, status and progress, at any width, with and without colour."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.daemon import COMMAND, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer, Fault, FaultKind
from tests.terminal import INTERRUPT, OnTerminal, Seen

PROJECT = Path(__file__).parents[2]
SCORE = re.compile(r"-?\d\.\d{3}  ")
QUESTION = "两国的国际争端 international dispute"


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=64) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, provider: EmbeddingServer) -> Iterator[Site]:
    """The samples, indexed."""
    with Site(tmp_path_factory.mktemp("terminal"), provider_settings(provider)) as made:
        shutil.copytree(PROJECT / "watched_dir", made.folder, dirs_exist_ok=True)
        made.sync()
        yield made


def on_terminal(
    site: Site, *arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None
) -> OnTerminal:
    settings = {name: value for name, value in site.environment().items() if name.startswith("INGESTOR_")}
    return OnTerminal([COMMAND, *arguments], site.root, settings | dict(environment or {}), columns=columns)


def seen(site: Site, *arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None) -> Seen:
    with on_terminal(site, *arguments, columns=columns, environment=environment) as terminal:
        code, told = terminal.finished()
    assert code == 0, told.text
    return told


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_status_fits_any_width_and_tells_its_state_in_a_word(site: Site, columns: int) -> None:
    told = seen(site, "status", columns=columns)
    assert told.widest <= columns
    assert told.has_colour
    top, *middle, bottom = filter(None, told.lines)
    assert re.match(r"╭─ documents stopped ─+╮", top)
    assert all(re.fullmatch(r"│.*│", line) for line in middle)
    assert re.fullmatch(r"╰─+╯", bottom)
    inner = " ".join(" ".join(line.strip("│") for line in middle).split())
    assert "stopped: nothing follows the folder: start `ingestor run`" in inner


def test_hits_show_the_passage_with_its_words_marked_and_a_path_to_click_on(site: Site) -> None:
    told = seen(site, "query", QUESTION, "-n", "8", columns=40)
    of_paths = [line for line in told.lines if SCORE.match(line)]
    places = [line.split()[1] for line in of_paths]
    assert len(places) == 8
    assert all(re.fullmatch(r"\S+:\d+-\d+", place) for place in places)
    assert [text for _, text in told.links] == places, "every path is in one piece, and its link covers it"
    for address, text in told.links:
        assert unquote(address) == f"file://{os.uname().nodename}{site.folder / text.rpartition(':')[0]}"
    assert {"国际争端", "international", "dispute"} <= set(re.findall(r"\x1b\[1;35m(\w+)\x1b\[0m", told.raw))
    assert Seen("\n".join(line for line in told.lines if line not in of_paths)).widest <= 40


def test_a_pipe_gets_the_same_hits_without_colours_and_two_lines_each(site: Site) -> None:
    piped = site.command("query", QUESTION, "-n", "3").out
    assert "\x1b" not in piped
    assert len(piped.splitlines()) == 9
    forced = site.command("query", QUESTION, "-n", "3", FORCE_COLOR="1").out
    assert Seen(forced).has_colour
    assert Seen(forced).text == piped


@pytest.mark.parametrize(
    ("environment", "has_colour", "has_sequences"),
    [({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
    ids=["NO_COLOR", "dumb"],
)
def test_colours_go_where_they_are_not_wanted(
    site: Site, environment: dict[str, str], *, has_colour: bool, has_sequences: bool
) -> None:
    told = seen(site, "status", environment=environment)
    assert (told.has_colour, told.has_sequences) == (has_colour, has_sequences)
    assert "stopped: nothing follows the folder" in told.text
    assert ("╭" in told.text) == has_sequences, "a dumb terminal gets what a pipe does"


@pytest.mark.parametrize("command", ["status", "plan", "models", "config"])
def test_a_pipe_gets_no_blanks_at_the_ends_of_lines(command: str, site: Site) -> None:
    told = site.command(command).out
    assert told.count("\n") > 1
    assert [line for line in told.splitlines() if line != line.rstrip()] == []


def test_status_is_drawn_anew_until_ctrl_c_and_tells_what_has_changed(site: Site) -> None:
    with on_terminal(site, "status", "--watch") as terminal:
        terminal.wait_for("stopped: nothing follows the folder")
        daemon = site.start("run").wait_ready()
        terminal.wait_for("in step: the collection equals the folder")
        assert daemon.terminate() == 0
        terminal.press(INTERRUPT)
        code, told = terminal.finished()
    assert code == 0, told.text
    assert told.raw.rindex("\x1b[?25h") > told.raw.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "Traceback" not in told.text
    assert told.widest <= 80, "there is room for what a terminal writes when Ctrl-C is pressed"


def test_a_pipe_that_watches_gets_a_line_for_each_change(site: Site) -> None:
    told = site.root / "watched.txt"
    with told.open("wb") as stream:
        watching = subprocess.Popen(
            [COMMAND, "status", "--watch"], cwd=site.root, env=site.environment(), stdout=stream
        )
    try:
        eventually(lambda: "stopped" in told.read_text(encoding="utf-8"), lambda: "nothing was told")
        daemon = site.start("run").wait_ready()
        eventually(lambda: "; in step: " in told.read_text(encoding="utf-8"), lambda: told.read_text(encoding="utf-8"))
        assert daemon.terminate() == 0
    finally:
        watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 0
    lines = told.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d+ documents, \d+ chunks; ", line) for line in lines)
    states = [line.partition(" ")[2].partition(" ")[2] for line in lines]
    assert all(earlier != later for earlier, later in pairwise(states))


def test_watching_is_not_for_programs(site: Site) -> None:
    done = site.command("status", "--watch", "--json")
    assert done.code == 2
    assert "--watch is for people" in done.err


def test_a_sync_draws_how_far_it_is_and_what_it_waits_for(tmp_path: Path) -> None:
    with EmbeddingServer(dimensions=64, max_inputs=2) as server, Site(tmp_path, provider_settings(server)) as site:
        site.settings["INGESTOR_EMBEDDING__PRICE_PER_MILLION_TOKENS"] = "1000000"
        site.settings["INGESTOR_EMBEDDING__CONFIRM_ABOVE_COST"] = "1000"
        for number in range(20):
            (site.folder / f"{number}.txt").write_text(f"text number {number}", encoding="utf-8")
        server.inject(Fault(FaultKind.STATUS, status=429, headers={"retry-after": "3"}))
        with on_terminal(site, "sync", columns=40) as terminal:
            waiting = terminal.wait_for("waiting for the provider's limits")
            code, told = terminal.finished()
    assert code == 0, told.text
    assert re.search(r"\d+ of 20 files", waiting.text)
    assert "20 added" in told.text
    drawn = Seen(told.raw.partition("documents: ")[0])
    assert drawn.widest <= 40
    assert any(re.match(r"\d\d:\d\d:\d\d \[warning", line) for line in drawn.lines), "a log line begins a line"
    assert re.search(r"\d files/s, \d\S* chunks/s;", " ".join(drawn.text.split()))
