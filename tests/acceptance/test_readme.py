"""The README's commands, to the letter, as a new user runs them: in a fresh copy, with a fresh environment."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedding_server import EmbeddingServer

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
SH = re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
TEXT = re.findall(r"^```text\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
RUN_HERE = (
    ".venv/bin/ingestor run", "quantum.txt", "[dev]", "curl", "ingestor add", "DASHSCOPE_API_KEY", "ingestor rebuild",
    "ingestor evaluate", "ingestor plan", '"page"', '"tags.contract"',
)  # fmt: skip
"""What each command of the README has, and no other; `command` finds it by that."""


def command(containing: str) -> str:
    assert containing in RUN_HERE
    found: list[str] = [block for block in SH if containing in block]
    assert len(found) == 1, f"{containing!r} is in {len(found)} blocks of the README"
    return found[0]


def test_every_command_of_the_readme_is_run_here() -> None:
    assert [block for block in SH if not any(words in block for words in RUN_HERE)] == []
    source = Path(__file__).read_text(encoding="utf-8").partition("def command(")[2]
    assert [words for words in RUN_HERE if words not in source] == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, and nothing else: what a clone would hold."""
    folder = tmp_path_factory.mktemp("readme") / "ingestor"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in listed.decode().split("\0"):
        if name and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment of a shell that knows nothing of this test run."""
    kept = {
        "HOME",
        "LANG",
        "PATH",
        "TMPDIR",
        "PIP_INDEX_URL",
        "PIP_CONFIG_FILE",
        "PIP_CACHE_DIR",
        "http_proxy",
        "https_proxy",
    }
    return {name: value for name, value in os.environ.items() if name in kept or name.startswith("PIP_")}


def wait_for(path: Path, text: str, process: subprocess.Popen[bytes], times: int = 1) -> None:
    for _ in range(6_000):
        if path.read_text(encoding="utf-8").count(text) >= times:
            return
        assert process.poll() is None, path.read_text(encoding="utf-8")
        time.sleep(0.1)
    pytest.fail(f"{text!r} never came: {path.read_text(encoding='utf-8')}")


def ended(process: subprocess.Popen[bytes]) -> int:
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(timeout=30)


@pytest.fixture(scope="module")
def daemon(checkout: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The first command of the README, running; gives the file of its output."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.fail("port 8000 is taken: the README's command could not run for a user either")
    output = checkout.parent / "run.log"
    with output.open("wb") as log:
        run = ["bash", "-c", command(".venv/bin/ingestor run")]
        process = subprocess.Popen(
            run, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_for(output, "document.synced", process, times=8)
            yield output
        finally:
            code = ended(process)
    assert code == 0, output.read_text(encoding="utf-8")


@pytest.mark.timeout(900)
def test_the_first_command_installs_and_prints_what_it_indexed(daemon: Path) -> None:
    told = daemon.read_text(encoding="utf-8")
    for event in ("daemon.started", "folder.reconciled", "daemon.ready", "http://127.0.0.1:8000"):
        assert event in told
    assert "cup-final.txt" in told


def test_a_dropped_file_and_a_question(daemon: Path, checkout: Path, environment: dict[str, str]) -> None:
    asked = subprocess.run(
        ["bash", "-euc", command("quantum.txt")], cwd=checkout, env=environment, capture_output=True, check=True
    )
    first, *_ = asked.stdout.decode().splitlines()
    assert re.match(r"0\.\d{3}  新闻/海洋划界仲裁\.md:1-\d+  海洋划界争端提交仲裁", first)
    for _ in range(300):
        if "quantum.txt" in daemon.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    pytest.fail("the dropped file was never indexed")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("words", ["ingestor add", '"page"', '"tags.contract"'], ids=["add", "page", "tag"])
def test_the_commands_beside_the_daemon(words: str, checkout: Path, environment: dict[str, str]) -> None:
    path = f"{checkout}/.venv/bin:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", command(words)],
        cwd=checkout,
        env=environment | {"PATH": path},
        capture_output=True,
        check=True,
    )
    assert ("1 record written" in done.stdout.decode()) == (words == "ingestor add")


@pytest.mark.usefixtures("daemon")
def test_the_snippet_for_ones_own_program(checkout: Path, environment: dict[str, str]) -> None:
    snippet, *_ = PYTHON
    told = subprocess.run(
        [checkout / ".venv/bin/python", "-c", snippet], cwd=checkout, env=environment, capture_output=True, check=True
    )
    assert told.stdout.decode() == "cup-final.txt 1\n"


@pytest.mark.usefixtures("daemon")
def test_the_command_for_another_provider(checkout: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Against a loopback stand-in for DashScope: only its URL is given besides what the README says."""
    shutil.copytree(checkout / "watched_dir", tmp_path / "watched_dir")
    output = tmp_path / "run.log"
    with EmbeddingServer(dimensions=1024, max_inputs=10) as server, output.open("wb") as log:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        extra = {
            "PATH": f"{checkout}/.venv/bin:{environment['PATH']}",
            "INGESTOR_EMBEDDING__BASE_URL": server.base_url,
            "INGESTOR_CHROMA__PORT": str(port),  # the first command's daemon has the default one
            "INGESTOR_HTTP__PORT": "0",  # as above
        }
        process = subprocess.Popen(
            ["bash", "-euc", command("DASHSCOPE_API_KEY").replace("…", "x")],
            cwd=tmp_path, env=environment | extra, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(output, "document.synced", process, times=8)
        finally:
            code = ended(process)
    assert code == 0
    assert server.calls >= 1


def test_a_rebuild_for_another_provider(checkout: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Against a loopback stand-in for DashScope, as above."""
    shutil.copytree(checkout / "watched_dir", tmp_path / "watched_dir")
    ours = environment | {"PATH": f"{checkout}/.venv/bin:{environment['PATH']}"}
    subprocess.run(["ingestor", "sync"], cwd=tmp_path, env=ours, capture_output=True, check=True)
    with EmbeddingServer(dimensions=1024, max_inputs=10) as server:
        extra = {"DASHSCOPE_API_KEY": "sk-x", "INGESTOR_EMBEDDING__BASE_URL": server.base_url}
        done = subprocess.run(
            ["bash", "-euc", command("ingestor rebuild")],
            cwd=tmp_path,
            env=ours | extra,
            capture_output=True,
            check=True,
        )
    assert server.texts >= 8, done.stderr.decode()
    kept = subprocess.run(["ingestor", "rebuild", "--status"], cwd=tmp_path, env=ours, capture_output=True, check=False)
    assert "documents-before-" in kept.stdout.decode()


def test_a_comparison_of_models(checkout: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Against loopback stand-ins for OpenAI and Ollama; as `~/notes` the documents of the checkout are there."""
    notes = shutil.copytree(checkout / "watched_dir", tmp_path / "notes")
    with (
        EmbeddingServer(dimensions=1536) as openai,
        EmbeddingServer(port=11434, dimensions=1024) as ollama,
    ):
        extra = {
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",  # a picture needs an extra
            "OPENAI_API_KEY": "sk-x",
            "INGESTOR_EMBEDDING__PROVIDER": "openai",
            "INGESTOR_EMBEDDING__BASE_URL": openai.base_url,
        }
        done = subprocess.run(
            ["bash", "-euc", command("ingestor evaluate")],
            cwd=tmp_path,
            env=environment | extra,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode()
    assert all(name in told for name in ("Recall@1", "text-embedding-3-small", "bge-m3")), told
    assert {each.dimensions for each in openai.received} == {512}
    assert ollama.texts > 0
    assert (tmp_path / "models.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert sorted(each.name for each in notes.iterdir()) == sorted(
        each.name for each in (checkout / "watched_dir").iterdir()
    )


@pytest.mark.usefixtures("daemon")
def test_a_plan_prints_what_the_readme_shows(checkout: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Of the samples as they come: those of the checkout have company by now."""
    shutil.copytree(PROJECT / "watched_dir", tmp_path / "watched_dir")
    (tmp_path / ".venv").symlink_to(checkout / ".venv")
    done = subprocess.run(
        ["bash", "-euc", command("ingestor plan")], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    (shown,) = [block for block in TEXT if block.startswith("folder ")]
    assert done.stdout.decode() == shown


@pytest.mark.usefixtures("daemon")
def test_the_request_over_http(checkout: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euc", command("curl")], cwd=checkout, env=environment, capture_output=True, check=True
    )
    assert [hit["source"] for hit in json.loads(done.stdout)["hits"]][:1] == ["新闻/海洋划界仲裁.md"]


@pytest.mark.usefixtures("daemon")
def test_the_snippet_that_asks_by_text(checkout: Path, environment: dict[str, str]) -> None:
    told = subprocess.run(
        [checkout / ".venv/bin/python", "-c", PYTHON[1]], cwd=checkout, env=environment, capture_output=True, check=True
    )
    assert "新闻/海洋划界仲裁.md" in told.stdout.decode()


def test_the_test_command_is_the_one_that_ci_runs(checkout: Path) -> None:
    assert ".venv/bin/pytest -q" in command("[dev]")
    assert "Test it" in (checkout / ".ci/run").read_text(encoding="utf-8")
