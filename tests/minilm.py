"""A tiny stand-in for Chroma's default model, in the files and with the inputs of the real one.

Each word piece has a random vector, so texts that share words are near each other. The real model cannot be had without
the network; whoever tests against this tests everything but the numbers of its weights.
"""

import json
from pathlib import Path

import numpy as np

from ingestor.adapters import onnx_bytes
from ingestor.adapters.onnx_bytes import _bytes, _number, _text

FOLDER = Path(".cache/chroma/onnx_models/all-MiniLM-L6-v2/onnx")
"""Below the home folder."""
_OTHERS = ("config.json", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = (
    "the cat sleeps sleep on warm mat states settle ##ment their disputes peaceful ##ly of where does by arbitration a"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789各国和平解决际争端两个沿海家同意把提交仲裁"
_INT64 = 7


def put_model(folder: Path) -> None:
    """Write the files that Chroma looks for into `folder`, which is made."""
    pieces = [*_SPECIAL, *_WORDS.split(), *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    folder.mkdir(parents=True)
    for name in _OTHERS:
        (folder / name).touch()
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(vocabulary)), encoding="utf-8")
    # Last, as by an extraction that was not interrupted.
    (folder / "model.onnx").write_bytes(_model(len(vocabulary)))


def _tokenizer(vocabulary: dict[str, int]) -> dict[str, object]:
    special = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]")]
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special[0], {"Sequence": {"id": "A", "type_id": 0}}, special[1]],
            "pair": [],
            "special_tokens": {
                name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def _model(pieces: int) -> bytes:
    """A network that looks its first input up in a table, and takes the other two for nothing."""
    table = np.random.default_rng(7).normal(size=(pieces, 384)).astype(np.float32)
    table[:4] /= 20  # what every text has would make all of them alike
    graph = b"".join(
        [
            _bytes(1, onnx_bytes.node("Gather", ["table", "input_ids"], ["states"], "", axis=0)),
            _text(2, "graph"),
            _bytes(5, onnx_bytes.tensor("table", table)),
            *(_bytes(11, _integers(name)) for name in ("input_ids", "attention_mask", "token_type_ids")),
            _bytes(12, onnx_bytes.floats("states", ("texts", "tokens", 384))),
        ]
    )
    return _number(1, onnx_bytes.IR_VERSION) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, 17))


def _integers(name: str) -> bytes:
    lengths = b"".join(_bytes(1, _text(2, length)) for length in ("texts", "tokens"))
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, _INT64) + _bytes(2, lengths)))
