"""Corpus: a folder of files such as people keep, in Chinese and English, alike in every run.

Invariant: an equal count, median and seed give equal files, byte for byte. Each of the top folders holds a tenth of the
files. Sizes are log-normal; one file in fifty is a copy of an earlier one, every other text is its own.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

SEED = 20_261_123
MEDIAN_BYTES = 2_000
COPY_ONE_IN = 50
TOP_FOLDERS = ("archive", "contracts", "letters", "meetings", "notes", "research", "会议", "合同", "新闻", "研究")
_SPREAD = 1.0
"""Standard deviation of the logarithm: one file in a hundred is ten times the median, some are a tenth of it."""
_MIN_BYTES = 60
_MAX_BYTES = 200_000
_SUBFOLDERS = 7

_ENGLISH_WORDS = """
the of and to in a is that for it was on with as by at from this be are an or which have not had but were they
river bridge council budget harvest engine signal window market season island winter letter station harbour
treaty panel tariff border survey sample method result theory figure degree matrix vector kernel thread buffer
record index server client folder commit branch release version patch test failure restart timeout policy
school teacher student library museum theatre concert garden kitchen bottle copper silver carbon oxygen protein
patient doctor vaccine clinic insurance contract tenant landlord lawyer witness verdict appeal statute licence
railway airport ferry cargo pilot captain weather rainfall drought glacier volcano earthquake coast desert
forest grows falls measures reports explains refuses delays approves replaces compares repairs closes opens
returns
"""
_ENGLISH = tuple(_ENGLISH_WORDS.split())
_CHINESE_WORDS = """
的 了 在 是 和 与 对 将 已 由 以及 因此 但是 如果 同时 之后 其中 仍然 可以 需要 河流 桥梁 议会 预算 收成 发动机
信号 市场 季节 岛屿 冬天 信件 车站 港口 条约 专家组 关税 边界 调查 样本 方法 结果 理论 矩阵 向量 内核 线程
缓冲区 记录 索引 服务器 客户端 文件夹 提交 分支 版本 补丁 测试 故障 重启 超时 政策 学校 教师 学生 图书馆 博物馆
剧院 音乐会 花园 厨房 铜矿 白银 碳排放 氧气 蛋白质 病人 医生 疫苗 诊所 保险 合同 租户 房东 律师 证人 判决 上诉
法规 许可证 铁路 机场 渡轮 货物 飞行员 船长 天气 降雨量 干旱 冰川 火山 地震 海岸 沙漠 森林 增长 下降 测量 报告
解释 拒绝 推迟 批准 替换 比较 修复 关闭 打开 返回 谈判 仲裁 停火 撤回
"""
_CHINESE = tuple(_CHINESE_WORDS.split())
_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARNING", "ERROR")


def write_corpus(folder: Path, files: int, *, median_bytes: int = MEDIAN_BYTES, seed: int = SEED) -> None:
    """Write so many files into the top folders of `folder`, which is made when it is missing."""
    dice = Random(seed)
    written: list[str] = []
    for number in range(files):
        top = TOP_FOLDERS[number % len(TOP_FOLDERS)]
        kind = dice.choices(("md", "txt", "py", "log"), (45, 25, 15, 15))[0]
        is_chinese = top in TOP_FOLDERS[6:] or dice.random() < 1 / 6  # half of all, with the Chinese top folders
        name = f"{dice.choice(_CHINESE if is_chinese else _ENGLISH)}-{number:06}.{kind}"
        place = folder / top / f"{number // len(TOP_FOLDERS) % _SUBFOLDERS:02}"
        place.mkdir(parents=True, exist_ok=True)
        size_bytes = round(min(_MAX_BYTES, max(_MIN_BYTES, dice.lognormvariate(math.log(median_bytes), _SPREAD))))
        is_copy = bool(written) and dice.randrange(COPY_ONE_IN) == 0
        text = dice.choice(written) if is_copy else _text(dice, kind, size_bytes, is_chinese=is_chinese)
        if len(written) < COPY_ONE_IN:
            written.append(text)
        (place / name).write_text(text, encoding="utf-8")


def _text(dice: Random, kind: str, size_bytes: int, *, is_chinese: bool) -> str:
    """A text of about so many bytes in UTF-8."""
    parts = [f"# {_sentence(dice, is_chinese=is_chinese)}\n"] if kind == "md" else []
    length_bytes = 0
    while length_bytes < size_bytes:
        match kind:
            case "py":
                part = _function(dice)
            case "log":
                part = _log_line(dice)
            case "md" if dice.randrange(4) == 0:
                part = f"\n## {_sentence(dice, is_chinese=is_chinese)}\n"
            case _:
                sentences = [_sentence(dice, is_chinese=is_chinese) for _ in range(dice.randint(2, 5))]
                part = ("" if is_chinese else " ").join(sentences) + "\n\n"
        parts.append(part)
        length_bytes += len(part.encode())
    return "".join(parts)


def _sentence(dice: Random, *, is_chinese: bool) -> str:
    words = _words(dice, _CHINESE if is_chinese else _ENGLISH, dice.randint(6, 18))
    if not is_chinese:
        return f"{' '.join(words).capitalize()}."
    middle = len(words) // 2
    return f"{''.join(words[:middle])}，{''.join(words[middle:])}。"


def _function(dice: Random) -> str:
    name, first, second = _words(dice, _ENGLISH, 3)
    body = "\n".join(
        f"    {word}_{dice.randrange(100)} = {first} * {dice.randrange(1_000)} + len({second}_{word})"
        for word in _words(dice, _ENGLISH, dice.randint(2, 8))
    )
    head = f"def {name}_{dice.randrange(10_000)}({first}, {second}):"
    return f'{head}\n    """{_sentence(dice, is_chinese=False)}"""\n{body}\n    return {first}\n\n\n'


def _log_line(dice: Random) -> str:
    moment = f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}T{dice.randrange(24):02}:{dice.randrange(60):02}"
    words = " ".join(_words(dice, _ENGLISH, dice.randint(4, 9)))
    seconds = f"{dice.randrange(60_000) / 1_000:06.3f}"
    return f"{moment}:{seconds}Z {dice.choice(_LEVELS)} {words} request={dice.getrandbits(40):010x}\n"


def _words(dice: Random, words: Sequence[str], count: int) -> list[str]:
    """Words, of which the first ones of the list are frequent, as in a language."""
    return [words[int(len(words) * dice.random() ** 1.6)] for _ in range(count)]
