"""Live ones before the backfill, which goes on all the same."""

from itertools import islice

from ingestor.core.precedence import Precedence


def line(live: int = 0, backfill: int = 0, share: int = 4) -> Precedence[str, str]:
    made = Precedence[str, str](share)
    for number in range(backfill):
        made.put(f"b{number}", f"b{number}", is_live=False)
    for number in range(live):
        made.put(f"l{number}", f"l{number}", is_live=True)
    return made


def test_a_live_one_overtakes_ten_thousand_that_wait() -> None:
    made = line(live=1, backfill=10_000)
    assert list(islice(made, 2)) == ["l0", "b0"], "as it is told"
    assert made.take(3) == ["l0", "b0", "b1"], "as it is done"
    assert len(made) == 9_998


def test_those_of_a_kind_keep_their_order() -> None:
    made = line(live=3, backfill=2)
    assert made.take(10) == ["l0", "l1", "l2", "b0", "b1"]
    assert len(made) == 0
    assert made.take(1) == []


def test_the_backfill_has_its_share_of_turns_however_many_live_ones_come() -> None:
    made = line(live=100, backfill=2)
    assert [made.take(1)[0][0] for _ in range(9)] == list("lllblllbl")


def test_a_turn_that_takes_something_of_both_is_one_of_the_backfill() -> None:
    made = line(backfill=20)
    for number in range(10):
        made.put(f"l{number}", f"l{number}", is_live=True)
        assert made.take(2)[0] == f"l{number}"


def test_turns_that_the_backfill_has_had_by_itself_are_turns_it_has_had() -> None:
    made = line(backfill=10, live=0)
    made.take(5)
    made.put("l0", "l0", is_live=True)
    assert made.take(1) == ["l0"]


def test_one_that_waits_already_and_is_wanted_live_moves_up() -> None:
    made = line(live=1, backfill=3)
    made.move_up("b1")
    made.move_up("b1")
    made.move_up("unknown")
    assert made.take(10) == ["l0", "b1", "b0", "b2"]


def test_the_foremost_are_those_of_the_kind_that_goes_first() -> None:
    made = line(live=4, backfill=2)
    assert list(made.foremost) == ["l0", "l1", "l2", "l3"]
    for _ in range(3):
        made.take(1)
    assert list(made.foremost) == ["b0", "b1"], "it is their turn"
    assert list(line(backfill=1).foremost) == ["b0"]
    assert list(line().foremost) == []


def test_what_is_put_back_goes_before_all_of_its_kind() -> None:
    made = line(live=2, backfill=2)
    live, _, backfill = made.take(3)
    made.put_back({backfill: backfill}, is_live=False)
    made.put_back({live: live}, is_live=True)
    made.put("l2", "l2", is_live=True)
    assert made.take(5) == ["l0", "l2", "b0", "b1"]


def test_what_is_cleared_waits_no_more() -> None:
    made = line(live=2, backfill=2)
    made.clear()
    assert (len(made), made.has_live) == (0, False)
