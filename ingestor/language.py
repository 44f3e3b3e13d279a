"""The language in which people are told things: English as the source has it, or another that has a catalogue.

Invariant: what is stored, logged or printed as JSON stays English, but for the comments of a settings file. An error is
a value that a daemon in one language writes and a person in another reads, so that translation happens where something
is shown, and never before.

A catalogue (`languages/zh.json`) maps English sentences to those of its language. A key may have holes: `{}` is any
text, `{#}` a number, `{~}` what has no spaces. In the translation, `{}` or `{0}` is what was found in a hole, as it
was; `{*}` or `{0*}` is translated in turn, as the hole holds words of ours. Sentences that were put together with " -
", "; " or ", " are translated part by part. What no key fits is told in English. No catalogue is loaded while the
language is English.

The glossary of the Chinese catalogue, one word for one thing:
    folder 文件夹, watched folder 受监视的文件夹, file 文件, document 文档, collection 集合, record 记录, chunk 分块,
    text 文本, token 词元, embedding 嵌入, vector 向量, dimensions 维度, model 模型, provider 服务商, endpoint 端点,
    ledger 账本, vector store 向量库, data folder 数据文件夹, database 数据库, tenant 租户, index 索引, daemon 守护进程,
    source 来源, setting 设置, settings file 设置文件, environment variable 环境变量, key 密钥 (of a provider) or 键 (of
    metadata), metadata 元数据, front matter 前置元数据, sidecar 伴随文件, symbolic link 符号链接, problem 问题,
    queue 队列, held back 暂缓, approve 批准, rebuild 重建, switch 切换, repair 修复, prune 清理, forget 彻底删除.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Final

ENGLISH: Final = "en"
CHINESE: Final = "zh"
_KNOWN: Final = (ENGLISH, CHINESE)
_UNSET: Final = ("", "C", "POSIX")
_MAX_CHARACTERS: Final = 4_000
"""What is longer is no sentence of ours, and would take long to look at."""
_KEPT_SENTENCES: Final = 1_024
"""What a page tells, it tells again each second, and a sentence that no key fits exactly takes milliseconds."""
_HOLE: Final = re.compile(r"\{[#~]?\}")
_KINDS: Final = {"{}": "(.*?)", "{#}": "([0-9.,]+)", "{~}": r"(\S+?)"}
_HAN: Final = "[\u3001-\u303f\u3400-\u9fff\uff01-\uff60]"
_PLACE: Final = re.compile(rf"((?<={_HAN}) )?\{{(\d*)(\*?)\}}( (?={_HAN}))?")
"""With the space around it, which stands between Chinese and other writing, and never between Chinese and Chinese."""
_BEGINS_CHINESE: Final = re.compile(_HAN)
_ENDS_CHINESE: Final = re.compile(f"{_HAN}$")
_BEFORE: Final = re.compile(r"(?:[\s,;…*]|-(?=\s))*")
_AFTER: Final = re.compile(r"(?:[\s,;…*]|(?<=\s)-)*\Z")
_REMEDY_JOINT: Final = " - "
_JOINTS: Final = {_REMEDY_JOINT: "。", "; ": "；", ", ": "，"}


def language_of(environ: Mapping[str, str]) -> str:
    """The reader's language by the variables of the environment: `ENGLISH` or `CHINESE`.

    The first of LC_ALL, LC_MESSAGES and LANG that is set counts, whether the system has that locale or not; LANGUAGE, a
    list with colons, goes before it unless the locale is C. Source: POSIX, Base Definitions 8.2; GNU gettext, 2.3.3.
    """
    locale = next((environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(name)), "")
    if _bare(locale) in _UNSET:
        return ENGLISH
    wished = (_bare(name).partition("_")[0].lower() for name in (*environ.get("LANGUAGE", "").split(":"), locale))
    return next((name for name in wished if name in _KNOWN), ENGLISH)


def translated(sentence: str, language: str | None = None) -> str:
    """A sentence of ours in a language, by default in that of the environment; what is not ours stays as it is."""
    chosen = _own_language() if language is None else language
    return sentence if chosen == ENGLISH else _translated(sentence, chosen)


def joined(parts: Iterable[str], joint: str = ", ", language: str | None = None) -> str:
    """What is in the reader's language already, put together by the sign of that language; empty parts are left out."""
    chosen = _own_language() if language is None else language
    return (joint if chosen == ENGLISH else _JOINTS[joint]).join(filter(None, parts))


def spoken(sentence: str) -> str:
    """A sentence without the space and the signs around it, by which it was put together with others."""
    return _around(sentence)[1]


@lru_cache(maxsize=_KEPT_SENTENCES)
def _translated(sentence: str, language: str) -> str:
    return _catalogue(language).translated(sentence)


def _bare(locale: str) -> str:
    """A locale without its encoding and its modifier."""
    return re.split("[.@]", locale, maxsplit=1)[0]


def _around(sentence: str) -> tuple[str, str, str]:
    before = _BEFORE.match(sentence)
    start = before.end() if before else 0
    after = _AFTER.search(sentence, start)
    end = after.start() if after else len(sentence)
    return sentence[:start], sentence[start:end], sentence[end:]


@cache
def _own_language() -> str:
    return language_of(os.environ)


@cache
def _catalogue(language: str) -> "_Catalogue":
    file = Path(__file__).parent / "languages" / f"{language}.json"
    return _Catalogue(json.loads(file.read_text(encoding="utf-8")))


@dataclass(frozen=True)  # no slots: the pattern is kept once it was needed
class _Template:
    key: str
    meaning: str
    literals: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "literals", tuple(_HOLE.split(self.key)))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        holes = [_KINDS[hole] for hole in _HOLE.findall(self.key)]
        first, *others = map(re.escape, self.literals)
        parts = [hole + literal for hole, literal in zip(holes, others, strict=True)]
        return re.compile("".join((first, *parts)), re.DOTALL)

    @property
    def own_characters(self) -> int:
        """How much of it is no hole."""
        return sum(map(len, self.literals))

    def found_in(self, sentence: str) -> tuple[str, ...] | None:
        """What stands in the holes when the sentence has this form."""
        if not all(literal in sentence for literal in self.literals):
            return None
        found = self.pattern.fullmatch(sentence)
        return found.groups() if found else None


class _Catalogue:
    """The sentences of one language."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._sentences = entries
        with_holes = (_Template(key, meaning) for key, meaning in entries.items() if _HOLE.search(key))
        # Of several that fit, the one with the most words of its own says most exactly what is meant.
        self._templates = sorted(with_holes, key=lambda template: (-template.own_characters, -len(template.literals)))
        self._with_joint = [template for template in self._templates if _REMEDY_JOINT in template.key]

    def translated(self, sentence: str) -> str:
        if len(sentence) > _MAX_CHARACTERS:
            return sentence
        before, core, after = _around(sentence)
        told = self._told(core)
        return sentence if told is None else _rejoined(before) + told + _rejoined(after)

    def _told(self, sentence: str) -> str | None:
        return (
            self._fitted(sentence, self._with_joint)
            or self._with_remedy(sentence)
            or self._fitted(sentence, self._templates)
            or self._listed(sentence)
        )

    def _fitted(self, sentence: str, templates: Sequence[_Template]) -> str | None:
        if (exact := self._sentences.get(sentence)) is not None:
            return exact
        for template in templates:
            if (found := template.found_in(sentence)) is not None:
                return self._filled(template.meaning, found)
        return None

    def _filled(self, meaning: str, found: tuple[str, ...]) -> str:
        order: Iterator[int] = iter(range(len(found)))

        def put(place: re.Match[str]) -> str:
            before, number, is_told, after = place.groups(default="")
            part = found[int(number) if number else next(order)]
            told = self.translated(part) if is_told else part
            if told == part:
                return before + part + after
            return f"{'' if _BEGINS_CHINESE.match(told) else before}{told}{'' if _ENDS_CHINESE.search(told) else after}"

        return _PLACE.sub(put, meaning)

    def _with_remedy(self, sentence: str) -> str | None:
        """An error with its remedy, looked at before all that may hold both in a hole at its end."""
        error, joint, remedy = sentence.rpartition(_REMEDY_JOINT)
        told = self._fitted(remedy, self._templates) if joint else None
        return None if told is None else (self._told(error) or error) + _JOINTS[joint] + told

    def _listed(self, sentence: str) -> str | None:
        for joint in ("; ", ", "):
            parts = sentence.split(joint)
            told = [self._fitted(part, self._templates) for part in parts]
            if len(parts) > 1 and None not in told:
                return _JOINTS[joint].join(filter(None, told))
        return None


def _rejoined(signs: str) -> str:
    for joint, sign in _JOINTS.items():
        signs = signs.replace(joint, sign)
    return signs
