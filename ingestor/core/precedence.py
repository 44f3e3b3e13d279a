"""Precedence: one line in which live ones go before the backfill.

Invariant: those of a kind keep their order, but for what is put back, which goes first; of `share` turns at least one
takes something of the backfill, so that it ends even if live ones never do.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping
from itertools import chain, islice
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Thing = TypeVar("_Thing")


class Precedence(Generic[_Key, _Thing]):
    """Things that wait, each by its key; iteration is in the order in which the next turn takes them."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._turns = 0
        """Turns that took live ones alone, since the last one that took something of the backfill."""
        self._live: dict[_Key, _Thing] = {}
        self._backfill: dict[_Key, _Thing] = {}

    def __len__(self) -> int:
        return len(self._live) + len(self._backfill)

    def __iter__(self) -> Iterator[_Thing]:
        return chain.from_iterable(line.values() for line in self._lines())

    @property
    def foremost(self) -> Collection[_Thing]:
        """Those of the kind that goes first now."""
        first, second = self._lines()
        return (first or second).values()

    @property
    def has_live(self) -> bool:
        """Whether a live one waits."""
        return bool(self._live)

    def put(self, key: _Key, thing: _Thing, *, is_live: bool) -> None:
        """Add a thing behind those of its kind."""
        (self._live if is_live else self._backfill)[key] = thing

    def put_back(self, things: Mapping[_Key, _Thing], *, is_live: bool) -> None:
        """Put things that were taken back before all of their kind."""
        if is_live:
            self._live = {**things, **self._live}
        else:
            self._backfill = {**things, **self._backfill}

    def move_up(self, key: _Key) -> None:
        """A thing that may wait is wanted by a live one now."""
        if key in self._backfill:
            self._live[key] = self._backfill.pop(key)

    def take(self, count: int) -> list[_Thing]:
        """Take the first ones: this is a turn."""
        keys = list(islice(chain.from_iterable(self._lines()), count))
        is_passed_over = bool(self._backfill) and not any(key in self._backfill for key in keys)
        self._turns = self._turns + 1 if is_passed_over else 0
        return [self._live.pop(key) if key in self._live else self._backfill.pop(key) for key in keys]

    def clear(self) -> None:
        """Forget all that waits."""
        self._live.clear()
        self._backfill.clear()

    def _lines(self) -> tuple[dict[_Key, _Thing], dict[_Key, _Thing]]:
        if self._backfill and self._turns + 1 >= self._share:
            return self._backfill, self._live
        return self._live, self._backfill
