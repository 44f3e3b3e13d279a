"""Metadata of one's own: flattened, laid over each other, told in scalars."""

from datetime import UTC, date, datetime, time

import pytest

from ingestor.core.errors import UnusableMetadata
from ingestor.core.metadata import MAX_DEPTH, MAX_ELEMENTS, MAX_KEYS, RESERVED, expanded, layer_of, overlaid

PLACE = "the front matter of a/b.md"


def nested(depth: int) -> dict[object, object]:
    tree: dict[object, object] = {"leaf": 1}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def test_scalars_stay_as_they_are_and_dates_become_text() -> None:
    written = {"s": "词", "i": 1, "f": 0.5, "b": True, "d": date(2026, 1, 2), "t": time(3, 4)}
    written["moment"] = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    told = expanded(layer_of(written, PLACE))
    dates = {"d": "2026-01-02", "t": "03:04:00", "moment": "2026-01-02T03:04:00+00:00"}
    assert told == {"s": "词", "i": 1, "f": 0.5, "b": True} | dates
    assert told["b"] is True


def test_tables_are_joined_by_dots_and_lists_told_element_by_element() -> None:
    written = {"author": {"name": "Ada", "mail": {"work": "a@b"}}, "tags": ["python", 3, True, None, date(2026, 1, 2)]}
    assert expanded(layer_of(written, PLACE)) == {
        "author.name": "Ada",
        "author.mail.work": "a@b",
        "tags": "python, 3, true, 2026-01-02",
        "tags.python": True,
        "tags.3": True,
        "tags.true": True,
        "tags.2026-01-02": True,
    }


def test_null_leaves_a_key_out() -> None:
    assert expanded(layer_of({"a": None, "b": [None]}, PLACE)) == {"b": ""}


def test_the_layer_above_wins_key_by_key() -> None:
    lower = layer_of({"a": 1, "b": 2, "author": {"name": "x", "mail": "y"}, "tags": ["one", "two"]}, PLACE)
    upper = layer_of({"b": None, "author": {"mail": "z"}, "tags": ["three"]}, PLACE)
    told = expanded(overlaid(lower, upper))
    assert told == {"a": 1, "author.name": "x", "author.mail": "z", "tags": "three", "tags.three": True}


def test_a_table_takes_the_place_of_a_value_and_the_other_way_round() -> None:
    assert expanded(overlaid(layer_of({"a": 1}, PLACE), layer_of({"a": {"b": 2}}, PLACE))) == {"a.b": 2}
    assert expanded(overlaid(layer_of({"a": {"b": 2}}, PLACE), layer_of({"a": 1}, PLACE))) == {"a": 1}


def test_what_is_flat_is_flattened_to_itself() -> None:
    layer = layer_of({"a": {"b": 1}, "tags": ["x"], "n": None}, PLACE)
    assert layer_of(dict(layer), PLACE) == layer


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ({"a": float("nan")}, "a"),
        ({"a": {"b": float("inf")}}, "a.b"),
        ({"a": [1, float("-inf")]}, "a"),
        ({"a": 2**63}, "a"),
        ({"a": -(2**63) - 1}, "a"),
        ({"a": b"bytes"}, "a"),
        ({"a": [{"b": 1}]}, "a"),
        ({"a": [[1]]}, "a"),
        ({"a": "\ud800"}, "a"),
        ({"a": "\0"}, "a"),
        ({"$a": 1}, "$a"),
        ({"#a": 1}, "#a"),
        ({"chroma:document": 1}, "chroma:document"),
        ({"a": list(range(MAX_ELEMENTS + 1))}, "a"),
        ({str(number): 1 for number in range(MAX_KEYS + 1)}, str(MAX_KEYS)),
        ({7: 1}, "7"),
        ({"a": {True: 1}}, "a.True"),
        ({"a": {" ": 1}}, "a. "),
        ({"a": {"b": 1}, "a.b": 2}, "a.b"),
        ({"a": 1, "a.b": 2}, "a"),
        ({"\x1b[2J\ud800": 1}, r"\x1b[2J"),
        (nested(MAX_DEPTH), "a.a.a"),
    ],
)
def test_what_cannot_be_taken_is_told_with_its_key_its_place_and_a_remedy(
    written: dict[object, object], key: str
) -> None:
    with pytest.raises(UnusableMetadata) as caught:
        layer_of(written, PLACE)
    assert f"the key {key}" in str(caught.value)
    assert PLACE in str(caught.value)
    assert caught.value.remedy
    assert caught.value.sentence.isprintable()


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_no_key_of_ours_is_taken_even_as_a_list(key: str) -> None:
    for value in ("mine", ["mine"]):
        with pytest.raises(UnusableMetadata, match=key):
            layer_of({key: value}, PLACE)


def test_as_much_as_is_allowed_is_taken() -> None:
    layer_of(nested(MAX_DEPTH - 1), PLACE)
    layer_of({str(number): list(range(MAX_ELEMENTS)) for number in range(MAX_KEYS)}, PLACE)
    assert expanded(layer_of({"a": 2**63 - 1, "b": -(2**63)}, PLACE)) == {"a": 2**63 - 1, "b": -(2**63)}
