"""The network of multilingual-e5-small as an ONNX graph: embeddings of one window in, states of its tokens out.

Input `embeddings`, float32 (1, tokens, hidden): word, position and type added up. Output `states`, of the same shape.

Weights stay in few bits, and activations are rounded to 8 bits as the matrices run, with one scale for all tokens of
the window: so a window runs alone, or its vector would depend on its neighbours. Rounding follows the matrix:
- most: 8-bit numbers with a scale for each column, and of these only 7 bits, because without the processor's VNNI the
  sums of two products are cut off at 16 bits, which 8-bit weights would reach;
- the first feed-forward matrix of a layer: as these, its activations divided by what the normalization before it lets
  each grow to, and its weights multiplied by that. Else a few large activations would leave little of the others;
- the second: the file's own 4-bit blocks with a scale for every 32 activations, much slower, because its
  activations are the most uneven of all and nothing tells beforehand which are large.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.adapters import onnx_bytes
from ingestor.adapters.e5_weights import BLOCK, Floats, Weights

INPUT: Final = "embeddings"
OUTPUT: Final = "states"

_MICROSOFT: Final = "com.microsoft"
"""Domain of the operators that onnxruntime adds to the standard's."""
_VERSIONS: Final = {"": 17, _MICROSOFT: 1}
"""17 is the first with LayerNormalization."""
_EPSILON: Final = 1e-12
_MOST: Final = 63
"""The largest number of 7 bits."""
_DEVIATIONS: Final = 2
"""How many standard deviations from its mean an activation is taken to go: of 1, 2 and 4 the one that loses least."""


def graph_of(weights: Weights) -> bytes:
    """The graph as an ONNX model, 19 MB."""
    return _Graph(weights).as_bytes()


class _Graph:
    """A graph that grows by a node at a time; each method answers with the name of what its last node gives."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._network = weights.network
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []
        state = self._normalized(INPUT, "emb.ln")
        for layer in range(self._network.layers):
            state = self._layer(state, f"l{layer}")
        self._nodes.append(onnx_bytes.node("Identity", [state], [OUTPUT], ""))

    def as_bytes(self) -> bytes:
        shape = (1, "tokens", self._network.hidden)
        return onnx_bytes.model(
            self._nodes, self._tensors, onnx_bytes.floats(INPUT, shape), onnx_bytes.floats(OUTPUT, shape), _VERSIONS
        )

    def _layer(self, state: str, name: str) -> str:
        attended = self._dense(self._attention(state, name), [f"{name}.ao"])
        state = self._normalized(self._node("Add", [state, attended]), f"{name}.aln")
        inner = self._node("Gelu", [self._dense_of_normalized(state, f"{name}.fi", f"{name}.aln")], _MICROSOFT)
        return self._normalized(self._node("Add", [state, self._dense_in_blocks(inner, f"{name}.fo")]), f"{name}.oln")

    def _attention(self, state: str, name: str) -> str:
        together = self._dense(state, [f"{name}.{part}" for part in "qkv"])
        parts = [f"{name}.{part}" for part in "qkv"]
        self._nodes.append(onnx_bytes.node("Split", [together], parts, "", axis=-1))
        heads = self._network.heads
        scale = 1 / math.sqrt(self._network.hidden / heads)
        return self._node("MultiHeadAttention", parts, _MICROSOFT, num_heads=heads, scale=scale)

    def _normalized(self, state: str, name: str) -> str:
        parts = [state, self._floats(f"{name}.w"), self._floats(f"{name}.b")]
        return self._node("LayerNormalization", parts, axis=-1, epsilon=_EPSILON)

    def _dense(self, state: str, names: Sequence[str], growth: Floats | None = None) -> str:
        """The product with matrices of the same input, side by side; activations arrive divided by their `growth`."""
        blocks = [self._weights.blocks(f"{name}.w", self._network.hidden) for name in names]
        matrix = np.concatenate([block.as_floats() for block in blocks])
        numbers, scales = _in_seven_bits((matrix if growth is None else matrix * growth).T)
        bias = np.concatenate([self._weights.floats(f"{name}.b") for name in names])
        name = names[0]
        weights = [self._tensor(f"{name}.w", numbers), self._tensor(f"{name}.scales", scales), ""]
        return self._node("DynamicQuantizeMatMul", [state, *weights, self._tensor(f"{name}.b", bias)], _MICROSOFT)

    def _dense_of_normalized(self, state: str, name: str, norm: str) -> str:
        gain, offset = self._weights.floats(f"{norm}.w"), self._weights.floats(f"{norm}.b")
        growth: Floats = np.abs(offset) + np.float32(_DEVIATIONS) * np.abs(gain)
        evened = self._node("Mul", [state, self._tensor(f"{name}.evening", np.reciprocal(growth))])
        return self._dense(evened, [name], growth)

    def _dense_in_blocks(self, state: str, name: str) -> str:
        columns = self._network.inner
        blocks = self._weights.blocks(f"{name}.w", columns)
        pairs = blocks.numbers[:, :, 0::2] | blocks.numbers[:, :, 1::2] << 4
        product = self._node(
            "MatMulNBits",
            [state, self._tensor(f"{name}.w", pairs), self._tensor(f"{name}.scales", blocks.scales)],
            _MICROSOFT,
            K=columns,
            N=len(pairs),
            bits=4,
            block_size=BLOCK,
            accuracy_level=4,  # activations in 8 bits
        )
        return self._node("Add", [product, self._floats(f"{name}.b")])

    def _floats(self, name: str) -> str:
        return self._tensor(name, self._weights.floats(name))

    def _tensor(self, name: str, numbers: Floats | NDArray[np.int8] | NDArray[np.uint8]) -> str:
        self._tensors.append(onnx_bytes.tensor(name, numbers))
        return name

    def _node(self, operator: str, inputs: list[str], domain: str = "", **attributes: onnx_bytes.Attribute) -> str:
        result = f"{operator}.{len(self._nodes)}"
        self._nodes.append(onnx_bytes.node(operator, inputs, [result], domain, **attributes))
        return result


def _in_seven_bits(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """The matrix in numbers from -63 to 63, and what to multiply each column of them by."""
    scales: Floats = np.abs(matrix).max(axis=0) / np.float32(_MOST)
    return np.round(matrix / scales).astype(np.int8), scales
