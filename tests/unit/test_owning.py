"""Who may fill a collection, by its metadata and by what the data folder remembers."""

from dataclasses import replace
from typing import Any

import pytest

from ingestor.core.fingerprint import document_id_of, owner_tag_of, source_of
from ingestor.core.owning import (
    BEAT_KEY,
    BEAT_SECONDS,
    FORMER_KEY,
    OWNER_KEY,
    PLACE_KEY,
    PROCESS_KEY,
    STALE_SECONDS,
    Ours,
    Owner,
    Recalled,
    Standing,
    former_of,
    labels,
    left_seconds,
    standing,
    tag_of,
    told,
)

NOW_SECONDS = 1_800_000_000.0
OWN = Owner("a" * 32, "here", "one:/data", "/folder")
OTHER = Owner("b" * 32, "there", "two:/data", "/other")


def held(owner: Owner, *, process: str = "p1", beat_seconds: float = 0.0) -> dict[str, Any]:
    return labels(owner, {}, process, beat_seconds=beat_seconds)


FRESH = NOW_SECONDS - 1
STALE = NOW_SECONDS - STALE_SECONDS
ELSEWHERE = replace(OWN, place="elsewhere")
SEEN = Recalled(rival="p1", rival_beat_seconds=FRESH - BEAT_SECONDS)


@pytest.mark.parametrize(
    ("metadata", "recalled", "expected"),
    [
        ({}, Recalled(), Standing.UNOWNED),
        ({"ingestor_recipe": "f"}, Recalled(), Standing.UNOWNED),
        (held(OTHER), Recalled(), Standing.ANOTHERS),
        (held(OTHER, beat_seconds=FRESH), Recalled(place="there"), Standing.ANOTHERS),
        # At one's own place the one before is dead: the data folder is locked.
        (held(OWN), Recalled(), Standing.OWN),
        (held(OWN, beat_seconds=FRESH), Recalled(), Standing.OWN),
        # From another place: moved, copied, or at work there still.
        (held(ELSEWHERE), Recalled(place="elsewhere"), Standing.OWN),
        (held(ELSEWHERE, beat_seconds=STALE), Recalled(place="elsewhere"), Standing.OWN),
        (held(ELSEWHERE, beat_seconds=FRESH), Recalled(place="elsewhere"), Standing.BUSY),
        (held(ELSEWHERE, beat_seconds=NOW_SECONDS + 5), Recalled(place="elsewhere"), Standing.BUSY),
        (held(ELSEWHERE, beat_seconds=NOW_SECONDS + STALE_SECONDS), Recalled(place="elsewhere"), Standing.OWN),
        (held(ELSEWHERE), Recalled(place="here"), Standing.COPIED),
        (held(ELSEWHERE), Recalled(), Standing.COPIED),
        (held(ELSEWHERE, beat_seconds=FRESH), Recalled(place="here"), Standing.BUSY),
        # A process that was seen before has given a sign of life since, or has not.
        (held(ELSEWHERE, beat_seconds=FRESH), SEEN, Standing.RIVALLED),
        (held(ELSEWHERE, beat_seconds=FRESH - BEAT_SECONDS), SEEN, Standing.BUSY),
        (held(ELSEWHERE, process="p2", beat_seconds=FRESH), SEEN, Standing.BUSY),
        (held(ELSEWHERE, beat_seconds=STALE), replace(SEEN, place="elsewhere"), Standing.OWN),
        # Also where places do not tell two machines apart: images of one disk.
        (held(OWN, beat_seconds=FRESH), SEEN, Standing.RIVALLED),
        (held(OWN, beat_seconds=FRESH - BEAT_SECONDS), SEEN, Standing.BUSY),
        (held(OWN, beat_seconds=STALE), SEEN, Standing.OWN),
    ],
)
def test_what_the_metadata_says_to_a_data_folder(
    metadata: dict[str, Any], recalled: Recalled, expected: Standing
) -> None:
    assert standing(metadata, OWN, recalled, NOW_SECONDS) is expected


def test_nobody_waits_longer_than_until_the_last_sign_of_life_is_stale() -> None:
    assert left_seconds(held(OWN, beat_seconds=FRESH), NOW_SECONDS) == pytest.approx(STALE_SECONDS - 1)
    assert left_seconds(held(OWN), NOW_SECONDS) == 0
    assert STALE_SECONDS >= 3 * BEAT_SECONDS


def test_labels_are_single_values_that_name_the_owner_the_process_and_who_was_before() -> None:
    first = labels(OTHER, {}, "p1", beat_seconds=NOW_SECONDS + 0.5)
    assert all(isinstance(value, str | int) for value in first.values())
    assert (first[OWNER_KEY], first[PLACE_KEY], first[PROCESS_KEY]) == (OTHER.id, "there", "p1")
    assert first[BEAT_KEY] == int(NOW_SECONDS)
    assert FORMER_KEY not in first
    taken = labels(OWN, first, "p2", beat_seconds=0)
    assert former_of(taken) == {tag_of(OTHER.id)}
    again = labels(replace(OWN, former=frozenset({"cccccccc"})), taken, "p3", beat_seconds=0)
    assert former_of(again) == {tag_of(OTHER.id), "cccccccc"}
    back = labels(OTHER, again, "p4", beat_seconds=0)
    assert former_of(back) == {tag_of(OWN.id), "cccccccc"}
    assert told(first) == "two:/data (/other)"
    assert told({}) == ""


def test_a_documents_id_bears_its_source_and_its_owner() -> None:
    for source in ("", "notes"):
        for tag in ("", "0123abcd"):
            id_ = document_id_of(source, "f" * 32, tag)
            assert (source_of(id_), owner_tag_of(id_)) == (source, tag)


@pytest.mark.parametrize(
    ("document_id", "is_ours"),
    [
        ("ffff", True),
        ("notes-ffff", True),
        (f"{'a' * 8}.ffff", True),
        (f"notes-{'a' * 8}.ffff", True),
        (f"{'c' * 8}.ffff", True),
        (f"{'b' * 8}.ffff", False),
        (f"notes-{'b' * 8}.ffff", False),
    ],
)
def test_records_of_unknown_owners_are_foreign(document_id: str, *, is_ours: bool) -> None:
    ours = Ours.of({OWNER_KEY: OWN.id, FORMER_KEY: "c" * 8})
    assert ours.has(f"{document_id}:1", {"document_id": document_id}) is is_ours
    assert not ours.has("another:1", {"document_id": document_id})
    assert not ours.has(f"{document_id}:1", None)
