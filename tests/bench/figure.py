"""Figure: what a benchmark has measured, as a ratio to a floor that was measured in the same run on the same data."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement; `ratio` is `value / floor`, and within its bound at most `bound` (or at least, `is_least`)."""

    name: str
    value: float
    floor: float
    unit: str
    bound: float
    is_least: bool = False
    """Whether the ratio is to be at least the bound: a rate, not a time."""
    note: str = ""
    """What the floor is, and what to mind."""

    @property
    def ratio(self) -> float:
        """The value by its floor."""
        return self.value / self.floor

    @property
    def is_within(self) -> bool:
        """Whether the ratio keeps its bound."""
        return self.ratio >= self.bound if self.is_least else self.ratio <= self.bound

    def as_json(self) -> dict[str, Any]:
        """The fields, the ratio and whether it keeps its bound."""
        return {
            "name": self.name,
            "value": self.value,
            "floor": self.floor,
            "unit": self.unit,
            "ratio": self.ratio,
            "bound": self.bound,
            "is_least": self.is_least,
            "is_within": self.is_within,
            "note": self.note,
        }
