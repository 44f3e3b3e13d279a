"""Bounds: how many of a kind of request are worked on at once; more are refused at once, and told so."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException

MAX_SEARCHES: Final = 16
"""Searches that are under way at once."""
MAX_RETRIES: Final = 4
"""Requests to try documents again: each may wait for a lock of the ledger, on a thread that others wait for."""


class Bound:
    """Places for requests of one kind, used by the thread of the loop alone."""

    def __init__(self, most: int, kind: str) -> None:
        self._most = most
        self._kind = kind
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises the answer 429 when there is none."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def take(self) -> None:
        """Take a place until `give_back`. Raises as `place`."""
        if self._taken >= self._most:
            raise HTTPException(
                HTTPStatus.TOO_MANY_REQUESTS, f"{self._most} {self._kind} are under way already", {"Retry-After": "1"}
            )
        self._taken += 1

    def give_back(self) -> None:
        """Let somebody else have the place."""
        self._taken -= 1


searches: Final = Bound(MAX_SEARCHES, "searches")
"""Of the API and of the page together."""
retries: Final = Bound(MAX_RETRIES, "requests to try again")
