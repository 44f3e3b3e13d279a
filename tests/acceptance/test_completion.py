"""Completion, by the Tab key of real shells."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.daemon import COMMAND, Site, provider_settings
from tests.embedding_server import EmbeddingServer
from tests.terminal import OnTerminal

EVIL = "evil $(touch pwned) `touch pwned` \\$(touch pwned) 'a' \"b\" ;touch pwned.md"
"""A name that does harm in any shell that evaluates it."""
CHINESE = "坏文件.txt"
INTERACTIVE = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
BEGUN = {
    "bash": "source <(ingestor completion bash)",
    "zsh": "autoload -Uz compinit; compinit -u -D; source <(ingestor completion zsh)",
}
WORDS = b"\x01printf '<%s>\\n' \x05; echo do\"\"ne\n"
"""Goes to the beginning of the line and the end of it, to print its words instead of running them."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two sources, and two files that have a problem."""
    root = tmp_path_factory.mktemp("completion")
    with EmbeddingServer(dimensions=64) as server, Site(root, provider_settings(server)) as made:
        (made.folder / EVIL).write_bytes(b"\x00\x01")
        (made.folder / CHINESE).write_bytes(b"\x00\x01")
        made.sync(code=3)
        yield made


def environment(site: Site) -> dict[str, str]:
    ours = {name: value for name, value in site.environment().items() if name.startswith("INGESTOR_")}
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    return ours | {"PATH": path, "HOME": str(site.root), "LC_ALL": "C.UTF-8", "EDITOR": "", "PS1": "> "}


def completed(site: Site, shell: str, typed: str) -> list[str]:
    """The words of a line after Tab was pressed at its end."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    with OnTerminal(INTERACTIVE[shell], site.root, environment(site), columns=400) as terminal:
        terminal.press(f'{BEGUN[shell]}; echo be""gun\n'.encode())
        terminal.wait_for("begun")
        terminal.press(typed.encode() + b"\t" + WORDS)
        told = terminal.wait_for("\r\ndone")
        terminal.press(b"exit\n")
        terminal.finished()
    return re.findall(r"<(.*)>\r", told.text.rpartition("printf")[2])


def candidates_of_fish(site: Site, typed: str) -> list[str]:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    done = subprocess.run(
        ["fish", "--no-config", "-c", "ingestor completion fish | source; complete -C $argv[1]", typed],
        cwd=site.root,
        env=environment(site) | {"TERM": "xterm"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("ingestor st", "status"),
        ("ingestor query --coll", "--collection"),
        ("ingestor query --collection doc", "documents"),
        ("ingestor retry 坏", CHINESE),
        ("ingestor retry ev", EVIL),
        ("ingestor run watched", "watched_dir"),
    ],
    ids=["command", "option", "collection", "problem", "hostile", "folder"],
)
def test_tab_completes_a_line_and_evaluates_nothing(site: Site, shell: str, typed: str, word: str) -> None:
    assert completed(site, shell, typed)[-1].rstrip("/") == word
    assert not list(site.root.rglob("pwned*"))


def test_fish_offers_the_same_and_evaluates_nothing(site: Site) -> None:
    assert candidates_of_fish(site, "ingestor st") == ["status"]
    assert "--collection" in candidates_of_fish(site, "ingestor query --coll")
    assert candidates_of_fish(site, "ingestor query --collection doc") == ["documents"]
    assert sorted(candidates_of_fish(site, "ingestor retry ")) == sorted([EVIL, CHINESE])
    assert candidates_of_fish(site, "ingestor run watched") == ["watched_dir/"]
    assert not list(site.root.rglob("pwned*"))


@pytest.mark.parametrize("typed", ["query --config broken.toml --collection", "retry --config broken.toml"])
def test_what_cannot_be_known_is_answered_with_nothing(site: Site, typed: str) -> None:
    (site.root / "broken.toml").write_text("[", encoding="utf-8")
    words = ["ingestor", *typed.split(), ""]
    asked = {
        "_INGESTOR_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = site.command(**asked)
    assert (done.out.strip(), done.err) == ("", "")


def test_an_answer_imports_neither_chroma_nor_a_model(site: Site) -> None:
    script = (
        "import sys, ingestor.cli\ntry:\n    ingestor.cli.main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    asked = {"_INGESTOR_COMPLETE": "complete_bash", "COMP_WORDS": "ingestor\nretry\n", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=site.root,
        env=site.environment() | asked,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert CHINESE in done.stdout
    assert "sqlalchemy" in done.stderr.split()
    assert not {"chromadb", "onnxruntime", "openai"} & set(done.stderr.split())
