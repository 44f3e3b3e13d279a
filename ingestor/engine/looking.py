"""Looking: what the folder holds of many paths now, off the loop; and whether that is what plans were made of."""

from collections.abc import Sequence
from typing import TypeAlias

from ingestor.core.errors import DocumentError, TransientError
from ingestor.core.model import Plan, Stat
from ingestor.core.reconciling import Standing, standing
from ingestor.ports import Runtime, Source

Look: TypeAlias = tuple[Stat | None, DocumentError | TransientError | None]
"""What there is, None for nothing; or why that cannot be told."""


class Looker:
    """Looks at paths of a source; `cutting` is the fingerprint of the cutting recipe of now."""

    def __init__(self, source: Source, runtime: Runtime, *, cutting: str) -> None:
        self._source = source
        self._runtime = runtime
        self._cutting = cutting

    async def looks(self, paths: Sequence[str]) -> list[Look]:
        """Look at paths, in their order."""
        return await self._runtime.in_thread(self._looks, paths)

    async def standings(self, plans: Sequence[Plan]) -> list[Standing]:
        """Whether the folder still holds what plans were made of, in their order."""
        return await self._runtime.in_thread(self._standings, plans)

    def _looks(self, paths: Sequence[str]) -> list[Look]:
        return [_look(found) for found in self._source.looks(paths)]

    def _standings(self, plans: Sequence[Plan]) -> list[Standing]:
        looks = self._looks([plan.path for plan in plans])
        return [
            Standing.UNKNOWN if error else standing(stat, plan.after, self._cutting)
            for plan, (stat, error) in zip(plans, looks, strict=True)
        ]


def _look(found: Stat | DocumentError | TransientError | None) -> Look:
    return (None, found) if isinstance(found, Exception) else (found, None)
