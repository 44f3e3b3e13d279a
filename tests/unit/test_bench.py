"""The benchmark harness: what it makes of figures, and that it loses none."""

import hashlib
import json
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.__main__ import BENCHES, bench_of, run
from tests.bench.corpus import TOP_FOLDERS, write_corpus
from tests.bench.figure import Figure
from tests.bench.report import draw, print_figures, spent, write_json

GOOD = Figure("a good time", 1.1, 1.0, "s", 1.15, note="of [1.0, 1.2] s")
BAD = Figure("a bad time", 3.0, 1.0, "s", 1.15)
RATE = Figure("a good rate", 80.0, 100.0, "texts/s", 0.5, is_least=True)
SLOW = Figure("a bad rate", 40.0, 100.0, "texts/s", 0.5, is_least=True)
NONE = Figure("nothing opened", 0, 1, "files", 0)
SOME = Figure("something opened", 2, 1, "files", 0)
STALLED = Figure("no rate at all", 0.0, 100.0, "texts/s", 0.5, is_least=True)

STEADY = """
from tests.bench.figure import Figure

def measure(scale):
    yield Figure("steady", 1.0, 1.0, "s", scale)
"""
FAILING = """
from tests.bench.figure import Figure

def measure():
    yield Figure("first", 1.0, 1.0, "s", 1.0)
    raise RuntimeError("the second went wrong")
"""
ASTRAY = "import no_such_module_at_all"


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with benches of every fate; its name."""
    package = tmp_path / "made_up_benches"
    package.mkdir()
    for name, source in {"steady": STEADY, "failing": FAILING, "astray": ASTRAY}.items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return package.name


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_that_is_named_is_there(name: str) -> None:
    assert bench_of(name) is not None


def test_no_file_of_a_bench_is_collected_as_a_test() -> None:
    folder = Path(__file__).parents[1] / "bench"
    assert [
        file.name for file in folder.glob("*.py") if file.name.startswith("test_") or file.stem.endswith("_test")
    ] == []


def test_a_bench_that_is_missing_is_told_and_the_others_are_measured(benches: str, tmp_path: Path) -> None:
    told = StringIO()
    figures, missing = run(
        ["absent", "steady"], 0.5, tmp_path / "results.json", Console(file=told, width=100), package=benches
    )
    assert [figure.bound for figure in figures] == [0.5]
    assert missing == ["absent"]
    assert "there is no bench 'absent'" in told.getvalue()
    assert json.loads((tmp_path / "results.json").read_text("utf-8"))["missing"] == ["absent"]


def test_what_was_measured_before_a_bench_failed_is_kept(benches: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with pytest.raises(RuntimeError, match="the second went wrong"):
        run(["steady", "failing"], 1.0, file, Console(file=StringIO()), package=benches)
    assert [figure["name"] for figure in json.loads(file.read_text("utf-8"))["figures"]] == ["steady", "first"]


def test_a_bench_that_lacks_a_module_is_not_taken_for_a_missing_one(benches: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        bench_of("astray", benches)


@pytest.mark.parametrize("figure", [GOOD, BAD, RATE, SLOW, NONE, SOME, STALLED], ids=lambda figure: figure.name)
def test_a_figure_has_spent_more_than_its_bound_exactly_when_it_misses(figure: Figure) -> None:
    assert (spent(figure) <= 1) == figure.is_within


def test_what_misses_is_marked_in_the_table_and_in_the_file(tmp_path: Path) -> None:
    told = StringIO()
    print_figures(Console(file=told, width=120), [GOOD, BAD, RATE, SOME])
    marks = {line.split("│")[0].strip(): line.split("│")[-1].strip() for line in told.getvalue().splitlines()[2:6]}
    assert marks == {GOOD.name: "ok", BAD.name: "MISSED", RATE.name: "ok", SOME.name: "MISSED"}
    assert GOOD.note in told.getvalue()
    write_json(tmp_path / "results.json", [GOOD, BAD], scale=1.0, missing=[])
    kept = json.loads((tmp_path / "results.json").read_text("utf-8"))["figures"]
    assert [figure["is_within"] for figure in kept] == [True, False]


def test_the_plot_shows_every_figure_with_its_ratio_and_its_bound(tmp_path: Path) -> None:
    draw(tmp_path / "plot.svg", [GOOD, BAD, SLOW, SOME, STALLED])
    drawn = (tmp_path / "plot.svg").read_text("utf-8")
    assert all(figure.name in drawn for figure in (GOOD, BAD, SLOW, SOME, STALLED))
    assert "1.10 (at most 1.15)" in drawn
    assert "0.40 (at least 0.5)" in drawn


def test_a_corpus_is_alike_in_every_run_and_has_a_tenth_of_its_files_in_each_top_folder(tmp_path: Path) -> None:
    write_corpus(tmp_path / "one", 300)
    write_corpus(tmp_path / "two", 300)
    found = digests(tmp_path / "one")
    assert found == digests(tmp_path / "two")
    assert Counter(path.split("/")[0] for path in found) == dict.fromkeys(TOP_FOLDERS, 30)


def test_a_corpus_is_of_both_languages_of_every_kind_and_of_few_copies(tmp_path: Path) -> None:
    write_corpus(tmp_path, 300)
    texts = [file.read_text("utf-8") for file in tmp_path.rglob("*.*")]
    chinese = sum(any("一" <= character <= "龥" for character in text) for text in texts)
    assert 60 < chinese < 180
    assert {file.suffix for file in tmp_path.rglob("*.*")} == {".md", ".txt", ".py", ".log"}
    assert 0.94 < len(set(texts)) / len(texts) < 1
    sizes = sorted(len(text.encode()) for text in texts)
    assert 1_500 < sizes[150] < 3_500
    assert sizes[-1] > 4 * sizes[150]
