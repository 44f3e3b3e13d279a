"""What people write into the filters of a search becomes a filter that Chroma takes."""

import pytest

from ingestor.core.errors import ConfigError
from ingestor.core.filters import filter_of, pair_of


def test_nothing_chosen_is_no_filter() -> None:
    assert filter_of() is None


def test_one_choice_is_one_operator_and_several_are_joined() -> None:
    assert filter_of(file_type="text/plain") == {"file_type": {"$eq": "text/plain"}}
    assert filter_of([("author", "Ada")], file_type="text/plain", document_ids=["one"]) == {
        "$and": [
            {"author": {"$eq": "Ada"}},
            {"file_type": {"$eq": "text/plain"}},
            {"document_id": {"$in": ["one"]}},
        ]
    }


@pytest.mark.parametrize(
    ("written", "readings"),
    [
        ("Ada", ["Ada"]),
        ("2024", ["2024", 2024, 2024.0]),
        ("-3", ["-3", -3, -3.0]),
        ("1.5", ["1.5", 1.5]),
        ("2.0", ["2.0", 2, 2.0]),
        ("True", ["True", True]),
        ("1_000", ["1_000"]),
        ("٣", ["٣"]),
        ("nan", ["nan"]),
        ("inf", ["inf"]),
        ("9223372036854775808", ["9223372036854775808", 9223372036854775808.0]),
        ("9007199254740993", ["9007199254740993", 9007199254740993, 9007199254740992.0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_may_be_all_that_it_reads_as(written: str, readings: list[object]) -> None:
    found = filter_of([("key", written)])
    alternatives = [{"key": {"$eq": value}} for value in readings]
    assert found == (alternatives[0] if len(alternatives) == 1 else {"$or": alternatives})
    if found is not None and "$or" in found:
        values = [alternative["key"]["$eq"] for alternative in found["$or"]]
        assert [type(value) for value in values] == [type(value) for value in readings]


def test_a_pair_is_a_key_and_a_value() -> None:
    assert pair_of(" formula = e = mc² ") == ("formula", "e = mc²")


@pytest.mark.parametrize("written", ["", "author", "author =", "= Ada", "$and = 1", "#key = 1"])
def test_what_is_no_pair_is_told_with_a_remedy(written: str) -> None:
    with pytest.raises(ConfigError, match="key = value") as raised:
        pair_of(written)
    assert "author = Ada" in raised.value.remedy
