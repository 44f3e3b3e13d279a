"""What somebody decides before new texts are embedded: costs, another model behind a name, files of no use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import COMMAND, KEY, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer
from tests.terminal import OnTerminal

FILES = 12
PRICE = {"INGESTOR_EMBEDDING__PRICE_PER_MILLION_TOKENS": "10000", "INGESTOR_EMBEDDING__CONFIRM_ABOVE_COST": "1.5"}


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(server)) as site:
        for number in range(FILES):
            (site.folder / f"{number}.txt").write_text(f"{number} has words enough. " * 8, encoding="utf-8")
        yield site


def test_a_first_sync_that_costs_more_than_agreed_waits_until_somebody_approves(
    site: Site, server: EmbeddingServer
) -> None:
    site.settings |= PRICE
    done = site.command("sync")
    assert done.code == 4
    assert "the first sync of" in done.err
    assert "ingestor approve" in done.err
    assert server.texts == server.samples == 0
    daemon = site.start("run").wait_ready()
    status = site.command("status", "--json").json()
    assert "the first sync of" in status["undecided"]
    assert "trouble" in site.command("status").out
    assert "not embedded: the first sync of" in str(site.command("doctor", "--json", "--no-call").json())
    assert server.texts == 0

    told = site.command("approve", "--json").json()
    assert "about" in told["decided"][0]
    with site.reading() as reading:
        reading.wait_equal()
    assert server.texts == FILES
    assert site.command("status", "--json").json()["undecided"] == ""
    assert daemon.terminate() == 0
    (site.folder / "more.txt").write_text("It is not the first sync any more. " * 40, encoding="utf-8")
    assert site.command("sync").code == 0


def test_on_a_terminal_a_sync_asks_first(site: Site, server: EmbeddingServer) -> None:
    site.settings |= PRICE
    for answer, code in ((b"n\r", 1), (b"y\r", 0)):
        with OnTerminal([COMMAND, "sync"], site.root, site.environment()) as terminal:
            asked = terminal.wait_for("Go on?").text
            assert "the first sync of" in asked.replace("\r\n", " ")
            assert server.texts == 0
            terminal.press(answer)
            assert terminal.finished()[0] == code
    assert server.texts == FILES


def test_a_higher_limit_or_a_price_that_is_low_asks_nobody(site: Site, server: EmbeddingServer) -> None:
    site.settings |= PRICE
    assert site.command("sync").code == 4
    assert site.command("sync", INGESTOR_EMBEDDING__CONFIRM_ABOVE_COST="1000").code == 0
    assert server.texts == FILES


def test_what_the_first_sync_of_several_sources_costs_together_is_agreed_to_once(
    site: Site, server: EmbeddingServer
) -> None:
    """Each of them costs less than may be spent without a question."""
    site.settings |= PRICE | {"INGESTOR_EMBEDDING__CONFIRM_ABOVE_COST": "2"}
    for name in ("a", "b"):
        (site.root / name).mkdir()
        for number in range(3):
            (site.root / name / f"{number}.txt").write_text(f"{name} {number} has words enough. " * 8, encoding="utf-8")
    alone = {"INGESTOR_WATCH_DIR": str(site.root / "a")}
    assert 1.0 < site.command("plan", "--json", **alone).json()["price"]["cost"] < 2.0
    (site.root / "ingestor.toml").write_text("[[sources]]\nfolder = 'a'\n[[sources]]\nfolder = 'b'\n", encoding="utf-8")
    done = site.command("sync")
    assert done.code == 4
    assert f"the first sync of {site.root / 'a'}, {site.root / 'b'} embeds about" in done.err.replace("\n", " ")
    assert server.texts == 0
    assert len(site.command("approve", "--json").json()["decided"]) == 1
    daemon = site.start("run").wait_ready()
    eventually(lambda: server.texts == 6, daemon.log)
    assert daemon.terminate() == 0
    assert site.command("sync").code == 0


def test_another_model_behind_the_name_stops_new_texts_alone_until_somebody_accepts_it(
    site: Site, server: EmbeddingServer
) -> None:
    assert site.command("sync").code == 0
    assert server.samples == 1
    assert site.command("sync").code == 0
    assert server.samples == 1, "nothing was to be embedded"
    server.is_another_model = True

    daemon = site.start("run").wait_ready()
    eventually(lambda: daemon.events("model.changed"), daemon.log)
    (site.folder / "new.txt").write_text("A text for the new model.", encoding="utf-8")
    (site.folder / "0.txt").unlink()
    (site.folder / "1.txt").rename(site.folder / "renamed.txt")
    with site.reading() as reading:
        wanted = {f"{number}.txt" for number in range(2, FILES)} | {"renamed.txt"}
        eventually(lambda: {row.source for row in reading.rows()} == wanted, daemon.log)
    status = site.command("status", "--json").json()
    assert "another model answers to the name unheard-of-model" in status["undecided"]
    assert "ingestor rebuild" in status["undecided"]
    assert server.texts == FILES
    assert site.command("approve").code == 0
    with site.reading() as reading:
        eventually(lambda: {row.source for row in reading.rows()} == wanted | {"new.txt"}, daemon.log)
    assert server.texts == FILES + 1
    assert daemon.terminate() == 0


def test_files_of_package_managers_and_of_gitignore_are_named_before_they_cost_anything(
    site: Site, server: EmbeddingServer
) -> None:
    for name in ("node_modules/a/index.js", "node_modules/b/index.js", "web/dist/app.js", "logs/today.log"):
        file = site.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"made by a command: {name}", encoding="utf-8")
    (site.folder / ".gitignore").write_text("*.log\nnode_modules/\n", encoding="utf-8")
    total = FILES + 4
    told = site.command("plan", "--json").json()["suggestions"]
    assert [sentence.partition(":")[0] for sentence in told] == [
        f"2 of {total} files lie below node_modules",
        f"1 of {total} files lie below dist",
        f"3 of {total} files are left out by .gitignore, which is not looked at",
    ]
    named = ("--provider", "openai", "--config", str(site.root / "new.toml"))
    begun = site.command("init", "--json", *named, str(site.folder), INGESTOR_EMBEDDING__DIMENSIONS="")
    assert begun.code == 0, begun.err
    assert begun.json()["suggestions"] == told
    for done in (site.command("plan"), site.command("sync")):
        assert f"2 of {total} files lie below node_modules" in " ".join((done.out + done.err).split())
    assert "lie below" not in site.command("sync").err
    assert server.texts == total
