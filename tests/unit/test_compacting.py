"""When a collection is copied afresh, and what the collections on the way are called."""

import pytest

from ingestor.core.compacting import FLOOR_TOMBSTONES, aside_name, copy_name, is_due, is_left_over


@pytest.mark.parametrize(
    ("live", "tombstones", "max_ratio", "due"),
    [
        pytest.param(100, FLOOR_TOMBSTONES - 1, 2.0, False, id="few tombstones beside fewer records"),
        pytest.param(100, FLOOR_TOMBSTONES, 2.0, True, id="many beside few"),
        pytest.param(10_000, 19_999, 2.0, False, id="not twice as many"),
        pytest.param(10_000, 20_000, 2.0, True, id="twice as many"),
        pytest.param(0, FLOOR_TOMBSTONES, 2.0, True, id="nothing live"),
        pytest.param(100, 1_000_000, 0.0, False, id="never"),
    ],
)
def test_a_copy_is_due_by_ratio_and_never_for_a_few(live: int, tombstones: int, max_ratio: float, *, due: bool) -> None:
    assert is_due(live, tombstones, max_ratio) is due


@pytest.mark.parametrize("name", [pytest.param("documents", id="short"), pytest.param("d" * 512, id="longest")])
def test_what_is_left_over_is_known_by_its_name(name: str) -> None:
    made = [copy_name(name), aside_name(name, "0f3a9c11-aaaa")]
    assert all(len(each) <= 512 and is_left_over(each, name) for each in made)
    assert not any(is_left_over(each, name) for each in (name, "documents-2", "documents.copy", "other.compacting"))
