"""The installed command, as a reader of Chinese meets it: only what is told to people is in Chinese.

The locale is not generated on most machines that run these tests; the variable alone counts.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.daemon import KEY, Site, provider_settings
from tests.embedding_server import EmbeddingServer

CHINESE = {"LC_ALL": "zh_CN.UTF-8"}
LOCAL = {"INGESTOR_EMBEDDING__MODEL": "", "INGESTOR_EMBEDDING__DIMENSIONS": "", "INGESTOR_EMBEDDING__BASE_URL": ""}
MOST_CELLS = 80
COMMANDS = {
    "": ["用法：ingestor", "选项", "日常使用", "显示此帮助并退出。", "按含义搜索。"],
    "query": ["用法：ingestor query", "参数", "要查询的问题。", "默认：5"],
    "evaluate": ["第二次运行不产生费用。", "--max-texts"],
    "collections": ["命令", "删除集合及其所有记录；会先询问。"],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A folder that was synced once: a good file, one that is no text, and another that does not fit."""
    root: Path = tmp_path_factory.mktemp("chinese")
    with EmbeddingServer(api_key=KEY) as server, Site(root, provider_settings(server)) as site:
        (site.folder / "好.md").write_text("# 标题\n\n一个文件。\n", encoding="utf-8")
        (site.folder / "free.txt").write_bytes(b"\x00\x01")
        site.sync(code=3)
        yield site


@pytest.mark.parametrize("command", COMMANDS)
def test_helps_are_chinese_and_fit_into_a_terminal(site: Site, command: str) -> None:
    done = site.command(*command.split(), "--help", **CHINESE)

    assert (done.code, done.err) == (0, "")
    assert all(words in done.out for words in COMMANDS[command])
    assert max(map(cell_len, done.out.splitlines())) <= MOST_CELLS
    assert not any(line.lstrip().startswith(tuple("，。；：、）")) for line in done.out.splitlines())
    assert not [line for line in done.out.splitlines() if line.endswith(":")], "a heading has the colon of Chinese"


def test_the_settings_file_of_init_explains_itself_in_chinese_and_means_the_same(site: Site, tmp_path: Path) -> None:
    english, chinese = tmp_path / "en.toml", tmp_path / "zh.toml"
    for file, setting in ((english, {}), (chinese, CHINESE)):
        assert site.command("init", "--config", str(file), "--provider", "dashscope", "--yes", **setting).code == 0

    comments = [line for line in chinese.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    in_words = [line for line in comments if " = " not in line]
    assert [line for line in in_words if not re.search("[\u4e00-\u9fff]", line)] == []
    assert "# 端点的地址，不含 `/embeddings`。" in in_words
    values = [
        [line for line in file.read_text(encoding="utf-8").splitlines() if " = " in line] for file in (english, chinese)
    ]
    assert values[0] == values[1]


def test_a_part_of_a_help_that_english_has_is_never_left_out(site: Site) -> None:
    english, chinese = (site.command("query", "--help", **setting).out for setting in ({}, CHINESE))

    def named(told: str) -> list[str]:
        return re.findall(r"--[a-z-]+|\b[A-Z]{2,}\b|\d+<=x<=\d+", told)

    assert named(english) == named(chinese)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch"], "没有命令 'nosuch'。"),
        (["quer"], "没有命令 'quer'。您是否想用 'query'？"),
        (["query", "--nosuch"], "没有选项 --nosuch"),
        (["query", "-n", "many", "x"], "'-n' / '--limit' 的值无效：必须是整数，无法解析为整数"),
        (["query", "-n", "0", "x"], "'-n' / '--limit' 的值无效：必须大于或等于 1"),
        (["query", "-n"], "选项 '-n' 需要一个值。"),
        (["run", "a", "b"], "多余的参数（b）"),
        (["forget"], "缺少参数 'path'。"),
        (["update"], "缺少选项 '--id'。"),
        (
            ["embed", "--encoding-format", "x", "y"],
            "'--encoding-format' 的值无效：'x' 不是以下之一：'float', 'base64'。",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_in_a_command_are_told_in_chinese_with_the_same_exit_code(
    site: Site, arguments: list[str], told: str
) -> None:
    done = site.command(*arguments, **CHINESE)

    assert (done.code, done.out) == (2, "")
    assert "Error" not in done.err
    assert done.err.splitlines()[-1] == f"错误：{told}"


def test_an_error_is_one_line_in_chinese_with_its_remedy(site: Site) -> None:
    wrong = site.command("sync", **CHINESE, INGESTOR_CHUNK__MAX_TOKENS="3")
    missing = site.command("config", "--config", "nosuch.toml", **CHINESE)

    assert (wrong.code, missing.code) == (2, 2)
    assert wrong.err == (
        "错误：设置 chunk.max_tokens（INGESTOR_CHUNK__MAX_TOKENS）有误：必须大于或等于 16。请在设置它的地方修改：环境\n"
    )
    assert missing.err == "错误：设置文件 nosuch.toml 不存在。请检查 --config 或 INGESTOR_CONFIG\n"


def test_status_and_plan_and_settings_have_chinese_labels_that_stand_in_columns(site: Site) -> None:
    status = site.command("status", **CHINESE)
    plan = site.command("plan", **CHINESE)
    settings = site.command("config", **CHINESE)

    assert (status.code, plan.code, settings.code) == (0, 0, 0)
    assert "没有运行" in status.out
    assert "新增 0，更改 0，重命名 0，删除 0，未变 1，有问题 1" in plan.out
    assert re.search(r"^chroma.port +\d+ +环境 *$", settings.out, re.MULTILINE)
    for told in (status.out, plan.out):
        rows = [line for line in told.splitlines() if line.strip()][:6]
        columns = {cell_len(re.match(r"\S+(?: \S+)?  +", row)[0]) for row in rows}  # type: ignore[index]  # or it fails
        assert len(columns) == 1, told


def test_health_waiting_and_the_doctor_speak_chinese(site: Site) -> None:
    status = site.command("status", **CHINESE)
    waited = site.command("wait", "watched_dir", "--timeout-seconds", "0", **CHINESE)
    checked = site.command("doctor", "--no-call", **CHINESE)

    assert re.search(r"^健康状况 +异常：1 个文档有问题", status.out, re.MULTILINE)
    assert re.search(r"^1 个可搜索，1 个有问题；用时 [0-9.]+ 秒$", waited.out, re.MULTILINE), waited.out
    assert "该文件是二进制文件" in waited.err
    told = re.sub(
        r"`[^`]*`|INGESTOR_\w+|[\w.-]*[/_.=-][\w./-]*|Chroma|ingestor|inotify|ext4|MiB|UTF|utf|overlay", "", checked.out
    )
    assert not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", told), told
    assert re.search(r"^正常 +设置 +设置", checked.out, re.MULTILINE), checked.out


def test_init_says_in_chinese_what_comes_next(site: Site) -> None:
    done = site.command("init", "--config", "new.toml", "--yes", **CHINESE, **LOCAL)
    again = site.command("init", "--config", "new.toml", "--yes", **CHINESE, **LOCAL)

    assert "其中说明了每一项设置" in done.out
    assert "接下来：\n  ingestor doctor" in done.out
    assert (again.code, "已存在" in again.err) == (2, True)


def test_a_problem_is_told_in_chinese_and_stored_in_english(site: Site) -> None:
    told = site.command("problems", **CHINESE)

    assert told.code == 3
    assert told.out.startswith(
        "free.txt: 该文件是二进制文件：含有 NUL 字节或控制字符。请将其转换为文本，或用 watch.exclude 排除它\n"
    )
    assert "尝试 1 次，直到文件更改" in told.out
    assert "the file is binary" in site.command("problems").out


@pytest.mark.parametrize("command", ["status", "problems", "plan"])
def test_json_is_the_same_in_every_language(site: Site, command: str) -> None:
    chinese, english = (site.command(command, "--json", LC_ALL=locale).json() for locale in ("zh_CN.UTF-8", "C.UTF-8"))
    for result in (chinese, english):
        if isinstance(result, dict):
            result.pop("seconds", None)
            result.pop("duration", None)
    assert chinese == english


def test_a_daemon_logs_in_english_and_what_others_wrote_is_shown_as_it_is(site: Site) -> None:
    synced = site.command("sync", **CHINESE)
    found = site.command("get", **CHINESE)

    assert synced.code == 3
    assert synced.out.startswith("文档：新增 0，更改 0，重命名 0，删除 0，未变 1，有问题 1\n")
    assert '"event": "folder.reconciled"' in synced.err
    assert "有些文档有问题：`ingestor problems` 会列出它们" in synced.err
    assert "标题" in found.out


def test_the_other_variables_of_the_locale_count_as_posix_says(site: Site) -> None:
    def first_word(**variables: str) -> str:
        return site.command("--help", **{"LC_ALL": "", **variables}).out.split()[0]

    assert first_word(LANG="zh_CN.UTF-8") == "用法：ingestor"
    assert first_word(LANG="en_US.UTF-8", LC_MESSAGES="zh_CN.UTF-8") == "用法：ingestor"
    assert first_word(LANG="en_US.UTF-8", LANGUAGE="zh_CN:en") == "用法：ingestor"
    assert first_word(LANG="zh_CN.UTF-8", LANGUAGE="en") == "Usage:"
