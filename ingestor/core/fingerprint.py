"""Fingerprints: short names for content, stable across versions, machines and runs.

Invariant: a fingerprint depends on nothing but the bytes named here. Changing one of these functions makes every
ledger, vector store and collection out there different from its folder.
"""

import hashlib
import json

from ingestor.core.model import Metadata, Recipe, Scalar

_CHUNK_BYTES = 16
_RECIPE_BYTES = 8
_HALF_TAG_BYTES = 6
UNTAGGED = frozenset({"ingested_at"})
"""Keys of metadata that say when a text came into the collection, and nothing of the file: a retag leaves them."""
OF_FILE = frozenset({"source", "file_name", "file_size", "last_modified", "content_hash"})
"""Keys of metadata that are the same in all records of a file, and known without looking at its text."""


def chunk_fingerprint(text: str) -> str:
    """Name a chunk by its text: 32 hex digits of BLAKE2b."""
    return hashlib.blake2b(text.encode(), digest_size=_CHUNK_BYTES).hexdigest()


def record_id(document_id: str, fingerprint: str, occurrence: int) -> str:
    """Id of the `occurrence`-th (from 1) equal chunk of a document."""
    suffix = f":{occurrence}" if occurrence > 1 else ""
    return f"{document_id}:{fingerprint}{suffix}"


def text_fingerprint_of(record_id: str) -> str:
    """The fingerprint of the text that a record of this id must have; empty for an id of another form."""
    return record_id.partition(":")[2].partition(":")[0]


def document_id_of(source_name: str, unique: str, owner_tag: str = "") -> str:
    """Id of a new document; it names its source, where there are several, and its owner.

    Neither `unique` nor the tag has a hyphen or a dot.
    """
    owned = f"{owner_tag}.{unique}" if owner_tag else unique
    return f"{source_name}-{owned}" if source_name else owned


def source_of(document_id: str) -> str:
    """The name of the source that made a document's id; empty for one that was the only one."""
    return document_id.rpartition("-")[0]


def owner_tag_of(document_id: str) -> str:
    """The tag of the owner that made a document's id; empty for one that was made before ids had one."""
    tag, dot, _ = document_id.rpartition("-")[2].partition(".")
    return tag if dot else ""


def is_owned(record_id: str, metadata: Metadata | None) -> bool:
    """Whether a record has the form of ours, whoever's it is: it names its document, and its id begins with that.

    Others use the key `document_id` too, LlamaIndex for one.
    """
    document_id = (metadata or {}).get("document_id")
    return isinstance(document_id, str) and record_id.startswith(f"{document_id}:")


def vector_key(recipe: Recipe, sent_text: str) -> bytes:
    """Key of a vector that was paid for: 32 bytes over (provider, model, dimensions, exact text sent)."""
    hashed = hashlib.blake2b(digest_size=32)
    for part in (recipe.provider, recipe.model, str(recipe.dimensions), sent_text):
        encoded = part.encode()
        hashed.update(len(encoded).to_bytes(8, "big"))
        hashed.update(encoded)
    return hashed.digest()


def recipe_fingerprint(recipe: Recipe) -> str:
    """Name an embedding recipe: two collections may share vectors only when theirs are equal."""
    fields = [recipe.provider, recipe.model, recipe.dimensions, recipe.document_prefix]
    return hashlib.blake2b(json.dumps(fields).encode(), digest_size=_RECIPE_BYTES).hexdigest()


def metadata_tag(metadata: Metadata) -> str:
    """Name metadata by its content, but for the time of ingestion, which differs with every write.

    The first half names what tells of the file (`OF_FILE`), the second all else: who knows that a file has got another
    path or time knows its new tags by the old ones.
    """
    return file_tag(metadata) + own_tag(metadata)


def file_tag(metadata: Metadata) -> str:
    """Name what metadata tells of the file: the first half of its tag."""
    return _half_tag({key: value for key, value in metadata.items() if key in OF_FILE})


def own_tag(metadata: Metadata) -> str:
    """Name what metadata tells besides: the second half of its tag."""
    return _half_tag({key: value for key, value in metadata.items() if key not in OF_FILE and key not in UNTAGGED})


def _half_tag(metadata: dict[str, Scalar]) -> str:
    encoded = json.dumps(metadata, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(encoded.encode(), digest_size=_HALF_TAG_BYTES).hexdigest()
