"""What a user may write into a collection by hand, and what would be taken for a file's record."""

from typing import Any

import pytest

from ingestor.core.errors import ConfigError
from ingestor.core.fingerprint import chunk_fingerprint, is_owned, record_id
from ingestor.core.handmade import (
    checked_id,
    checked_metadata,
    checked_text,
    checked_vector,
    named_ids,
    refuse_disguise,
    refuse_files,
    refuse_repeats,
)

DOCUMENT_ID = "457bcc329b4940fdaa8b0494daf2bcac"
OF_A_FILE = record_id(DOCUMENT_ID, chunk_fingerprint("text"), 1)
FIFTH_OF_A_FILE = record_id(DOCUMENT_ID, chunk_fingerprint("text"), 5)


@pytest.mark.parametrize(
    ("identity", "word"),
    [("", "empty"), ("a\x1b", r"\x1b"), ("a\ud800", r"\ud800"), ("a\nb", r"a\nb")],
    ids=["empty", "control", "surrogate", "newline"],
)
def test_an_id_that_no_line_shows_is_refused(identity: str, word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked_id(identity)
    assert word in refused.value.sentence
    assert refused.value.sentence.isprintable()


@pytest.mark.parametrize("identity", [OF_A_FILE, FIFTH_OF_A_FILE], ids=["first", "fifth"])
def test_an_id_that_a_file_s_record_may_get_is_refused(identity: str) -> None:
    with pytest.raises(ConfigError, match="records of files"):
        refuse_disguise(identity, {})


@pytest.mark.parametrize("identity", ["a", "contract 7", "合同:1", f"{DOCUMENT_ID}:note"])
def test_any_other_id_is_taken(identity: str) -> None:
    assert checked_id(identity) == identity
    refuse_disguise(identity, {"document_id": DOCUMENT_ID[::-1]})


def test_metadata_that_makes_a_record_look_like_a_file_s_is_refused() -> None:
    metadata = {"document_id": "mine"}
    assert is_owned("mine:1", metadata)
    with pytest.raises(ConfigError, match="document_id"):
        refuse_disguise("mine:1", metadata)
    refuse_disguise("other", metadata)
    refuse_disguise("mine:1", {})


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        {},
        {"": 1},
        {"$where": 1},
        {"#hash": 1},
        {"chroma:document": "x"},
        {"a\x07": 1},
        {"key": None},
        {"key": {"deep": 1}},
        {"key": []},
        {"key": [1, "a"]},
        {"key": [True, 1]},
        {"key": [[1]]},
        {"key": float("nan")},
        {"key": float("inf")},
        {"key": 2**63},
        {"key": "a\x00b"},
        {"key": "\udcff"},
    ],
    ids=repr,
)
def test_metadata_that_chroma_refuses_or_changes_is_refused(value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        checked_metadata(value)
    assert refused.value.remedy
    assert refused.value.sentence.isprintable()


def test_metadata_that_chroma_keeps_is_taken_and_null_takes_a_key_away_where_there_is_one() -> None:
    value: dict[str, Any] = {"text": "a\nb", "number": -(2**63), "share": 0.5, "is": True, "list": ["a", "b"]}
    assert checked_metadata(value) == value
    assert checked_metadata({"text": None}, takes_away=True) == {"text": None}


@pytest.mark.parametrize("text", ["", " \n\t", "a\x00", "a\x1b[31m", "\ud800"], ids=repr)
def test_a_text_that_nobody_can_embed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        checked_text(text)


def test_a_text_of_lines_in_any_language_is_taken() -> None:
    text = "第一行\n\tsecond line\r\n"
    assert checked_text(text) == text


@pytest.mark.parametrize(
    "value",
    [
        "text",
        [],
        [1, "a"],
        [1, True],
        [1, None],
        [float("nan"), 1],
        [float("inf"), 1],
        [1e300, 1, 2],
        [0, 0, 0],
        [1, 2],
    ],
    ids=repr,
)
def test_a_vector_that_is_none_or_of_another_length_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="--embedding"):
        checked_vector(value, 3, "the collection 'notes'")


def test_a_vector_of_the_collection_s_length_or_of_the_first_is_taken() -> None:
    assert checked_vector([1, 2.5, -3], 3, "").tolist() == [1.0, 2.5, -3.0]
    assert len(checked_vector([1, 2], 0, "")) == 2


def test_records_of_files_are_named_by_their_files_a_few_and_then_a_count() -> None:
    free = {"mine": {"source": "not a file"}}
    refuse_files(free)
    one = {OF_A_FILE: {"document_id": DOCUMENT_ID, "source": "notes/a.md"}}
    with pytest.raises(ConfigError) as refused:
        refuse_files(free | one)
    assert refused.value.sentence.endswith("belongs to notes/a.md - edit that file; nothing was changed")
    many = {f"d{n}:1": {"document_id": f"d{n}", "source": f"{n}.md"} for n in range(7)}
    with pytest.raises(ConfigError) as refused:
        refuse_files(free | many)
    assert str(refused.value) == "7 of the 8 records belong to files: 0.md, 1.md, 2.md, 3.md, 4.md and 2 more"


def test_an_id_given_twice_is_named_and_many_are_named_by_the_first() -> None:
    refuse_repeats(["a", "b"])
    with pytest.raises(ConfigError, match="'b' is given twice"):
        refuse_repeats(["a", "b", "b"])
    assert named_ids(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
