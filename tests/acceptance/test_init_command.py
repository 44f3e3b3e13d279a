"""`ingestor init` as users meet it: asked on a terminal, and from a script."""

import os
import pty
import select
import subprocess
from pathlib import Path

import pytest

from ingestor.settings import load_settings
from tests.daemon import COMMAND, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, {})


def converse(site: Site, *arguments: str, answers: dict[str, str], **variables: str) -> str:
    """Run a command on a terminal and answer its questions; returns all that it said."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=site.root,
        env=site.environment(**variables),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    told, waiting = "", dict(answers)
    while select.select([ours], [], [], 60)[0]:
        try:
            told += os.read(ours, 65_536).decode()
        except OSError:  # the terminal's other end is closed: the command has ended
            break
        for question in [question for question in waiting if question in told]:
            os.write(ours, f"{waiting.pop(question)}\n".encode())
    os.close(ours)
    assert process.wait(60) == 0, told
    assert not waiting, told
    return told


def test_on_a_terminal_it_asks_and_makes_the_folder(site: Site) -> None:
    answers = {
        "Folder to watch": "notes",
        "Embedding provider": "dashscope",
        "Model": "",
        "Endpoint": "",
        "Variable that": "INGESTOR_EMBEDDING__API_KEY",
        "Chroma (": "http",
        "Host of": "db.example.org",
        "Port of": "8123",
        "Collection": "notes",
        "Make it?": "y",
    }
    told = converse(site, "init", answers=answers)
    assert "INGESTOR_EMBEDDING__API_KEY is not set" in told
    assert "ingestor doctor" in told
    assert (site.root / "notes").is_dir()
    settings = load_settings(site.root / "ingestor.toml").settings
    assert settings.embedding.provider == "dashscope"
    assert str(settings.embedding.base_url) == ""
    assert (settings.chroma.host, settings.chroma.port, settings.chroma.collection) == ("db.example.org", 8123, "notes")


def test_a_wrong_answer_is_asked_again(site: Site) -> None:
    answers = {"Embedding provider": "nobody", "choose one of": "local"}
    told = converse(
        site, "init", "notes", "--chroma-mode", "managed", "--collection", "mine", answers=answers | {"Make it?": "n"}
    )
    assert "the folder notes does not exist" in told
    assert 'provider = "local"' in (site.root / "ingestor.toml").read_text("utf-8")


def test_whatever_cannot_be_is_asked_again_at_once_in_the_readers_language(site: Site) -> None:
    (site.root / "file.txt").touch()
    answers = {
        "要监视的文件夹 [": "file.txt",
        "file.txt 不是文件夹": "notes",
        "嵌入服务商": "dashscope",
        "模型": "",
        "端点 [": "ftp://x",
        "必须以 http:// 或 https:// 开头": "",
        "读取密钥的变量": "",
        "Chroma (": "http",
        "服务器的主机": "",
        "端口 [": "many",
        "必须是整数": "99999",
        "必须小于或等于 65535": "8001",
        "集合 [": "a b",
        "chroma.collection（": "ab-c",
        "要创建它吗": "maybe",
        "请回答 y 或 n": "n",
    }
    converse(site, "init", answers=answers, LANG="zh_CN.UTF-8", LC_ALL="")
    settings = load_settings(site.root / "ingestor.toml").settings
    assert (settings.chroma.port, settings.chroma.collection, str(settings.embedding.base_url)) == (8001, "ab-c", "")
    assert settings.watch_dir == site.root / "notes"
    assert not settings.watch_dir.exists()


def test_from_a_script_it_asks_nothing_and_the_next_commands_work(site: Site) -> None:
    done = site.command("init", "notes", "--make-folder", "--json")
    assert done.code == 0, done.err
    assert done.json()["next"] == ["ingestor doctor", "ingestor run"]
    assert site.command("config", "--json").json()["watch_dir"]["value"] == str(site.root / "notes")
    again = site.command("init", "--yes")
    assert again.code == 2
    assert "--force" in again.err
    assert site.command("init", "--yes", "--force", "--provider", "openai").code == 0
    assert "OPENAI_API_KEY" in (site.root / "ingestor.toml").read_text("utf-8")
