"""Looking: what the folder holds of many paths now, off the loop; and whether that is what plans were made of.

Invariant: a path is reported as gone only where the folder is the one that was compared as a whole last. A disk that is
unmounted may leave an empty folder behind, and what is missing from that is for a comparison to judge, which can hold
deletions back.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from ingestor.core.errors import DocumentError, ServiceUnavailable, TransientError
from ingestor.core.model import Plan, Stat
from ingestor.core.reconciling import Standing, standing
from ingestor.ports import Runtime, Source

Look: TypeAlias = tuple[Stat | None, DocumentError | TransientError | None]
"""What there is, None for nothing; or why that cannot be told."""

_GONE: Look = (None, None)
_NOWHERE = ""
"""No place: while it is that, nothing is reported as gone."""


class Looker:
    """Looks at paths of a source; `cutting` is the fingerprint of the cutting recipe of now."""

    def __init__(self, source: Source, runtime: Runtime, *, cutting: str) -> None:
        self._source = source
        self._runtime = runtime
        self._cutting = cutting
        self._place: str | None = None
        """Where the folder was compared last; None before it ever was."""

    @asynccontextmanager
    async def comparing(self) -> AsyncIterator[None]:
        """Compare the whole folder in the block: by its end it is known what is missing where it lies now.

        Raises `ServiceUnavailable` when the root is missing.
        """
        place = await self._runtime.in_thread(self._source.place)
        if place != self._place:
            self._place = _NOWHERE
        yield
        self._place = place

    async def see_that_it_is_the_same(self) -> None:
        """Raise `ServiceUnavailable` when the folder is another one than was compared last."""
        await self._runtime.in_thread(self._see_that_it_is_the_same)

    async def looks(self, paths: Sequence[str]) -> list[Look]:
        """Look at paths, in their order."""
        return await self._runtime.in_thread(self._looks, paths)

    async def standings(self, plans: Sequence[Plan]) -> list[Standing]:
        """Whether the folder still holds what plans were made of, in their order."""
        return await self._runtime.in_thread(self._standings, plans)

    def _looks(self, paths: Sequence[str]) -> list[Look]:
        looks = [_look(found) for found in self._source.looks(paths)]
        if _GONE in looks:
            try:
                self._see_that_it_is_the_same()
            except TransientError as error:
                return [(None, error) if look == _GONE else look for look in looks]
        return looks

    def _see_that_it_is_the_same(self) -> None:
        if self._place is not None and self._source.place() != self._place:
            message = "the watched folder, or a disk mounted in it, is another one than when it was compared last"
            raise ServiceUnavailable(message, remedy="it is compared again; see that its disks are mounted")

    def _standings(self, plans: Sequence[Plan]) -> list[Standing]:
        looks = self._looks([plan.path for plan in plans])
        return [
            Standing.UNKNOWN if error else standing(stat, plan.after, self._cutting)
            for plan, (stat, error) in zip(plans, looks, strict=True)
        ]


def _look(found: Stat | DocumentError | TransientError | None) -> Look:
    return (None, found) if isinstance(found, Exception) else (found, None)
