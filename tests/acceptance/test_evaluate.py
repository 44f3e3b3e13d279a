"""`ingestor evaluate`: models side by side, on figures that can be checked without the product."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.daemon import KEY, Finished, Site, provider_settings
from tests.embedding_server import EmbeddingServer, vector_of

FOLDER = {
    "sea.md": "# Tides\n\nTwice a day the water rises and falls, as the moon pulls at the sea.\n",
    "wind.md": "---\ntitle: Trade winds\n---\nSailors of old relied upon them to cross the ocean.\n",
    "kitchen/bread.md": "# Sourdough bread\n\nFlour, water and patience.\n\n## Baking\n\nAn hour in a hot oven.\n",
    "海洋/划界.md": "# 海洋划界争端\n\n两个沿海国家就专属经济区的界线争执了二十年。\n",
    "停火谈判.txt": "停火谈判\n\n双方代表在第三国会晤，讨论停火的条件。\n",
    "notes.txt": "Call the dentist about the water pipe.\n",
}
TEXTS = (
    "Flour, water and patience.\n\n\nAn hour in a hot oven.",
    "Call the dentist about the water pipe.",
    "Twice a day the water rises and falls, as the moon pulls at the sea.",
    "Sailors of old relied upon them to cross the ocean.",
    "双方代表在第三国会晤，讨论停火的条件。",
    "两个沿海国家就专属经济区的界线争执了二十年。",
)
"""In the order of their paths, without their titles."""
ANSWERS = {"Sourdough bread": 0, "Baking": 0, "Tides": 2, "Trade winds": 3, "停火谈判": 4, "海洋划界争端": 5}
SPEED = ("texts_embedded", "tokens", "texts_per_second")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("evaluate"), provider_settings(server)) as site:
        for path, text in FOLDER.items():
            (site.folder / path).parent.mkdir(exist_ok=True)
            (site.folder / path).write_text(text, encoding="utf-8")
        (site.folder / "photo.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
        yield site


def evaluated(site: Site, *arguments: str, **settings: str) -> Any:  # noqa: ANN401 - what the command prints
    done = site.command("evaluate", "--json", *arguments, **settings)
    assert done.code == 0, done.err
    return done.json()


def ranks(dimensions: int) -> list[int]:
    """The rank of each question's answer, by plain Python."""
    vectors = [vector_of(text, dimensions).tolist() for text in TEXTS]
    found = []
    for question, answer in ANSWERS.items():
        asked = vector_of(question, dimensions).tolist()
        scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
        found.append(1 + sum(score > scores[answer] for score in scores))
    return found


def quality(found: Sequence[int]) -> dict[str, float]:
    return {
        "recall_at_1": round(sum(rank == 1 for rank in found) / len(found), 6),
        "recall_at_10": 1.0,
        "mrr": round(sum(1 / rank for rank in found) / len(found), 6),
    }


def test_the_figures_are_those_of_the_vectors_and_a_second_run_costs_nothing(
    site: Site, server: EmbeddingServer
) -> None:
    names = ("openai/model-a@64", "model-b@8")
    models = [argument for name in names for argument in ("--model", name)]
    plots = site.root / "first.svg", site.root / "second.svg"

    first = evaluated(site, *models, "--plot", str(plots[0]))

    sent = [
        {text for each in server.received if each.model == m for text in each.texts} for m in ("model-a", "model-b")
    ]
    assert sent == [{*TEXTS, *ANSWERS}] * 2
    assert server.texts == 2 * (len(TEXTS) + len(ANSWERS))
    assert (first["documents"], first["questions"], first["texts"]) == (6, len(ANSWERS), len(TEXTS))
    assert any("photo.md" in note for note in first["notes"])
    assert ranks(8) != ranks(64), "the models differ"
    for told, dimensions in zip(first["models"], (64, 8), strict=True):
        assert {name: told[name] for name in quality([1])} == quality(ranks(dimensions))
        assert (told["dimensions"], told["texts_embedded"], told["refused"]) == (dimensions, 12, 0)
        assert told["texts_per_second"] > 0
    assert [told["name"] for told in first["models"]] == ["openai/model-a@64", "openai/model-b@8"]

    paid = server.requests
    second = evaluated(
        site, "--plot", str(plots[1]), INGESTOR_EVALUATION__MODELS=" openai/model-a@64, openai/model-b@8"
    )

    assert server.requests == paid
    for told in second["models"]:
        assert [told[name] for name in SPEED] == [0, 0, None]
    for report in (first, second):
        for told in report["models"]:
            for name in SPEED:
                del told[name]
    assert first == second
    drawn, again = (plot.read_bytes() for plot in plots)
    assert drawn == again
    figure = ET.fromstring(drawn)  # noqa: S314 - our own file
    words = {node.text for node in figure.iter("{http://www.w3.org/2000/svg}text")}
    assert {"openai/model-a@64", "openai/model-b@8", "Recall@1", "Recall@10", "MRR"} <= words


def test_without_models_the_configured_one_and_the_built_in_one_are_compared_and_drawn(site: Site) -> None:
    plot = site.root / "plot.PNG"

    done = site.command("evaluate", "--plot", str(plot), COLUMNS="140")

    assert done.code == 0, done.err
    heading, configured, built_in, *_ = done.out.splitlines()
    assert heading.split() == ["model", "dimensions", "Recall@1", "Recall@10", "MRR", "texts/s", "price/M", "tokens"]
    assert configured.split()[:2] == ["openai/unheard-of-model@64", "64"]
    assert configured.endswith("not known")
    assert built_in.split()[:2] == ["local/multilingual-e5-small", "384"]
    assert float(built_in.split()[2]) > float(configured.split()[2]), "a real model knows more than n-grams do"
    raw = plot.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", raw[16:24])
    assert width > height > 300


def test_what_is_left_out_is_told(site: Site) -> None:
    told = evaluated(site, "--model", "model-a@64", "--sample", "2", "--max-texts", "3", "--seed", "7")

    assert (told["questions"], told["questions_found"], told["texts"], told["texts_found"]) == (2, 6, 3, 6)
    notes = " ".join(told["notes"])
    for words in ("2 of 6 questions", "--sample 2", "3 of 6 texts were left out", "--max-texts 3", "photo.md"):
        assert words in notes


def test_a_price_of_the_users_own_is_in_no_list_prices_currency(site: Site) -> None:
    name = "text-embedding-3-small"
    own = {"INGESTOR_EMBEDDING__MODEL": name, "INGESTOR_EMBEDDING__PRICE_PER_MILLION_TOKENS": "1.5"}

    (listed,) = evaluated(site, "--model", name, INGESTOR_EMBEDDING__MODEL=name)["models"]
    (chosen,) = evaluated(site, "--model", name, **own)["models"]

    assert (listed["price_per_million_tokens"], listed["currency"]) == (0.02, "USD")
    assert (chosen["price_per_million_tokens"], chosen["currency"]) == (1.5, "")


def assert_refused(done: Finished, *words: str) -> None:
    assert (done.code, done.out) == (2, ""), done.err
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_what_cannot_be_evaluated_is_told_before_anything_is_paid_for(
    site: Site, server: EmbeddingServer, tmp_path: Path
) -> None:
    paid = server.requests
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("a", "b"):
        (bare / f"{name}.txt").write_text("A text under no title.", encoding="utf-8")
    hidden = tmp_path / "without"
    hidden.mkdir()
    (hidden / "matplotlib.py").write_text("raise ImportError('no module named matplotlib')", encoding="utf-8")
    anew = ("evaluate", "--model", "never-paid-for")

    assert_refused(site.command(*anew, str(bare)), "too little to ask", "headings")
    assert_refused(site.command(*anew, "--model", "dashscope"), "DASHSCOPE_API_KEY")
    assert_refused(site.command(*anew, "--plot", "figure.gif"), "figure.gif", ".png or .svg")
    assert_refused(
        site.command(*anew, "--plot", "figure.png", PYTHONPATH=str(hidden)), "matplotlib", "'ingestor[plot]'"
    )
    assert_refused(site.command("evaluate", INGESTOR_EVALUATION__MODELS="openai/a@x"), "evaluation.models")
    assert server.requests == paid
