"""The allocator of the C library: memory that was freed goes back to the system.

Invariant: on a system whose C library has no such setting nothing happens.
"""

from typing import Final

KEPT_BYTES: Final = 1024 * 1024
"""What may stay free at the end of a heap. Much less would be asked for again at once."""
_TRIM_THRESHOLD: Final = -1
"""M_TRIM_THRESHOLD of malloc.h."""


def give_back_freed_memory() -> None:
    """Have malloc keep no more than `KEPT_BYTES` free at the end of each heap.

    By itself, glibc adjusts the bound to the largest block that was freed: after one file of 10 MiB it is 20 MiB, for
    the heap of each thread, and blocks of megabytes go into heaps that were mapped by themselves before. A bound that
    is named stays as it is. Source: mallopt(3).
    """
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
