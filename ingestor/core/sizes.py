"""Sizes that settings and cutting share: apart from cutting, which needs numpy, as settings do not."""

from typing import Final

DEFAULT_MAX_TOKENS: Final = 440
"""Of a chunk, by estimate; 99.9 % of such chunks are at most 512 tokens of multilingual-e5, its prefix included."""
FILLED: Final = 0.8
"""Of the limit of a model that takes less, chunks are to take this share, by estimate."""
MIN_MAX_TOKENS: Final = 16
