"""Records of any collection, as people choose them and see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = ("documents", "metadatas", "embeddings", "uris")
"""What a record consists of, besides its id."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as Chroma holds it; a part that was not asked for, or that it does not have, is None."""

    id: str
    document: str | None = None
    metadata: Mapping[str, Any] | None = None
    embedding: NDArray[np.float32] | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records: those that all of it fits; all, when nothing is given."""

    ids: Sequence[str] = ()
    where: Mapping[str, Any] | None = None
    where_document: Mapping[str, Any] | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing was given."""
        return not self.ids and self.where is None and self.where_document is None
