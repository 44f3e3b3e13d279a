"""Counting: sentences about one thing, and about several."""


def counted(count: int, one: str, many: str) -> str:
    """The sentence that is right for so many."""
    return one if count == 1 else many
