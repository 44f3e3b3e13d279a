"""The reader's language, and that the Chinese catalogue has all that is told and nothing else."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from pydantic_core._pydantic_core import list_all_errors

import ingestor
from ingestor.language import CHINESE, ENGLISH, joined, language_of, spoken, translated
from tests.told import NOT_TOLD, helps, templates, words

ROOT = Path(ingestor.__file__).parent
CATALOGUE: dict[str, str] = json.loads((ROOT / "languages" / "zh.json").read_text(encoding="utf-8"))
HOLE = re.compile(r"\{[#~]?\}")
PLACE = re.compile(r"\{(\d*)(\*?)\}")
PLURAL = re.compile(r"[a-z]\{\}(?=[ ?]|$)")
CHINESE_CHARACTER = re.compile("[\u4e00-\u9fff]")
OF_TYPER = {
    "Usage:",
    "Try '{}' for help.",
    "Error: {}",
    "Aborted!",
    "No such command {}.",
    "No such command {}. Did you mean {}?",
    "No such option: {}",
    "No such option: {} (Possible options: {})",
    "Missing argument {}.",
    "Missing argument {}. Choose from:",
    "Missing option {}.",
    "Got unexpected extra argument(s) ({})",
    "Invalid value for {}: {}",
    "Option {} requires an argument.",
    "Option {} does not take a value.",
    "Value error, {} is not one of {}.",
    "Options",
    "Commands",
    "Arguments",
    "Show this message and exit.",
    "Install completion for the current shell.",
    "Show completion for the current shell, to copy it or customize the installation.",
    "default: {}",
    "required",
}
OF_LIBRARIES = {"Name or service not known", "Input is not a valid path for {}", "All connection attempts failed"}
"""What the C library's resolver, pydantic besides what it lists, and httpx say."""
KEY = "the key {} in {} "
PUT_TOGETHER = {
    f"{word}: {{}}": word
    for word in ("polling", "inotify", "not at the moment", "trouble", "stopped", "waiting", "working", "in step")
} | {key: key.removeprefix(KEY) for key in CATALOGUE if key.startswith(KEY)}
"""How a folder is watched, and what limits that; how a source is, and why; a key of metadata, and what it is."""
SAME_IN_CHINESE = {"Chroma Cloud", "markdown", "inotify: {}", "sysctl -w fs.inotify.max_queued_events={}"}


def with_holes(key: str) -> str:
    return key.replace("{#}", "{}").replace("{~}", "{}")


def sample(key: str) -> tuple[str, list[str]]:
    """A sentence of the form of a key, and what stands in its holes."""
    values = [f"{number}7" if hole == "{#}" else f"x{number}x" for number, hole in enumerate(HOLE.findall(key))]
    left = iter(values)
    return HOLE.sub(lambda _: next(left), key), values


def filled(meaning: str, values: list[str]) -> str:
    order = iter(values)
    return PLACE.sub(lambda place: values[int(place[1])] if place[1] else next(order), meaning)


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8"}, CHINESE),
        ({"LANG": "zh"}, CHINESE),
        ({"LANG": "zh_TW.Big5"}, CHINESE),
        ({"LANG": "zh_CN@cjknarrow"}, CHINESE),
        ({"LANG": "en_US.UTF-8"}, ENGLISH),
        ({"LANG": "de_DE.UTF-8"}, ENGLISH),
        ({"LANG": "zha_CN.UTF-8"}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, ENGLISH),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, CHINESE),
        ({"LC_MESSAGES": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, ENGLISH),
        ({"LC_ALL": "", "LC_MESSAGES": "", "LANG": "zh_CN.UTF-8"}, CHINESE),
        ({"LC_CTYPE": "zh_CN.UTF-8", "LANG": "en_US.UTF-8"}, ENGLISH),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, CHINESE),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en"}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "fr:de"}, CHINESE),
        ({"LANG": "C", "LANGUAGE": "zh_CN"}, ENGLISH),
        ({"LANGUAGE": "zh_CN"}, ENGLISH),
    ],
    ids=lambda value: "-".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else value,
)
def test_the_first_variable_that_is_set_decides(environ: dict[str, str], language: str) -> None:
    assert language_of(environ) == language


def test_all_that_the_source_tells_is_in_the_catalogue() -> None:
    silent = {template for group in NOT_TOLD.values() for template in group}
    known = {with_holes(key) for key in CATALOGUE}
    missing = {template: place for template, place in templates().items() if template not in known | silent}
    missing |= dict.fromkeys(helps() - known, "a docstring of cli/")
    assert not missing, "translate them in ingestor/languages/zh.json, or name the reason in tests/told.py"


def test_what_is_named_as_told_to_nobody_is_in_the_source_and_not_in_the_catalogue() -> None:
    silent = {template for group in NOT_TOLD.values() for template in group}
    assert silent <= set(templates())
    assert not silent & {with_holes(key) for key in CATALOGUE}


def test_the_catalogue_has_nothing_that_nobody_tells() -> None:
    literals = words() | helps() | set(re.findall('= "(.+)"', (ROOT / "core/models.toml").read_text(encoding="utf-8")))
    of_pydantic = {re.sub(r"\{\w+\}", "{}", each["message_template_python"]) for each in list_all_errors()}
    of_system = {os.strerror(number) for number in errno.errorcode}
    known = literals | of_pydantic | of_system | OF_TYPER | OF_LIBRARIES
    unused = {
        key
        for key in CATALOGUE
        if with_holes(key) not in known
        and not {counted := key.removeprefix("{#} "), f"{counted}s", counted.removesuffix("s")} & literals
        and PUT_TOGETHER.get(key) not in literals
    }
    assert not unused


def test_every_sentence_of_the_catalogue_is_found_with_its_values_in_place() -> None:
    wrong = {}
    for key, meaning in CATALOGUE.items():
        sentence, values = sample(key)
        if (told := translated(sentence, CHINESE)) != filled(meaning, values):
            wrong[key] = told
    assert not wrong


def test_every_hole_has_its_place_but_that_of_a_plural() -> None:
    wrong = set()
    for key, meaning in CATALOGUE.items():
        holes = len(HOLE.findall(key))
        order = iter(range(holes))
        shown = {int(place[1]) if place[1] else next(order, -1) for place in PLACE.finditer(meaning)}
        plurals = {len(HOLE.findall(key[: found.end()])) - 1 for found in PLURAL.finditer(key)}
        if shown | plurals != set(range(holes)):
            wrong.add(key)
    assert not wrong


def test_the_catalogue_is_chinese_and_keeps_commands_and_markup() -> None:
    foreign = {key for key, meaning in CATALOGUE.items() if not CHINESE_CHARACTER.search(meaning)}
    assert foreign == SAME_IN_CHINESE
    for mark in (r"`[^`]+`", r"\[/?[a-z ]*\]", r"INGESTOR_\w+", r"--[a-z-]+"):
        for key, meaning in CATALOGUE.items():
            named = [HOLE.sub("", found) for found in re.findall(mark, key)]
            assert sorted(named) == sorted(PLACE.sub("", found) for found in re.findall(mark, meaning)), key


def test_keys_are_sentences_without_what_they_are_put_together_with() -> None:
    assert [key for key in CATALOGUE if spoken(key) != key] == []


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("no problems", "没有问题"),
        ("  … no records\n", "  … 没有记录\n"),
        ("the file a.md cannot be read: Permission denied", "无法读取文件 a.md：权限不足"),
        (
            "the file changed while it was read - open it by hand to see what is wrong, then `ingestor retry`",
            "该文件在读取过程中发生了变化。请手动打开它看看哪里有问题，然后运行 `ingestor retry`",
        ),
        ("words of a provider - try again", "words of a provider。请重试"),
        ("Chroma refused while listing the collections: no", "列出集合时，Chroma 拒绝了请求：no"),
        ("3 missing, 1 wrong metadata", "缺失 3，元数据有误 1"),
        ("3 missing, 1 anything", "3 missing, 1 anything"),
        ("12 records written", "已写入 12 条记录"),
        (
            "the key source in the front matter of my notes/a b.md is one of ingestor's own",
            "my notes/a b.md 的前置元数据中的键 source 是 ingestor 自己的键",
        ),
        ("the collection 'a' has no record 'b'", "集合 'a' 中没有记录 'b'"),
        (
            "`ingestor run` with process id 7 already works on the data folder x",
            "`ingestor run`（进程号 7）已在使用数据文件夹 x",
        ),
        (
            (
                "the collection a was built with x/m (3 dimensions, document prefix p, distance ip), "
                "and the settings name y"
            ),
            "集合 a 是用 x/m（3 维，文档前缀 p，距离 ip）建立的，而设置中是 y",
        ),
        (
            "x/m (dimensions not known yet, document prefix 'p: ', distance l2)",
            "x/m（维度尚不清楚，文档前缀 'p: '，距离 l2）",
        ),
        (
            "the collection 'a' (records: 8) was built with the distance cosine, and the settings name l2",
            "集合 'a'（记录数：8）是用距离 cosine 建立的，而设置中是 l2",
        ),
        (
            "port 1 cannot be had for the Chroma server: Address already in use (process 2)",
            "Chroma 服务器无法使用端口 1：地址已被占用（进程 2）",
        ),
        ("http://a/v1 fails (HTTP 500): no", "http://a/v1 出错 (HTTP 500): no"),
        ("the settings are read from environment", "设置取自环境"),
        ("the settings are read from a.toml", "设置取自 a.toml"),
        ("Error: Missing argument 'shell'. Choose from:", "错误：缺少参数 'shell'。请选择其一："),
    ],
    ids=lambda text: spoken(text)[:24],
)
def test_parts_are_translated_where_they_are_ours(english: str, chinese: str) -> None:
    assert translated(english, CHINESE) == chinese


def test_what_is_put_together_has_the_signs_of_its_language() -> None:
    assert joined(("一", "", "二"), language=CHINESE) == "一，二"
    assert joined(("one", "two"), "; ", language=CHINESE) == "one；two"
    assert joined(("one", "", "two"), language=ENGLISH) == "one, two"
    assert joined((), language=CHINESE) == ""


def test_a_name_that_is_a_word_of_ours_stays_as_it_is() -> None:
    assert translated("deleted the database free", CHINESE) == "已删除数据库 free"
    assert translated("the settings file no problems does not exist", CHINESE) == "设置文件 no problems 不存在"


def test_what_is_not_ours_stays_as_it_is() -> None:
    text = "Nobody has heard of this - at least not here; nor there, and {} is no hole."
    assert translated(text, CHINESE) == text
    assert translated("x" * 10_000_000, CHINESE) == "x" * 10_000_000
    assert translated(" - " * 1_000, CHINESE) == " - " * 1_000
    assert translated("", CHINESE) == ""


def test_english_is_told_as_it_is() -> None:
    assert all(translated(key, ENGLISH) == key for key in CATALOGUE)
