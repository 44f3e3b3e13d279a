"""Peers: how many texts each way of keeping a collection sends to the model when files change; a table, no bounds.

`python -m tests.bench.peers`. Every tool gets the same ten files, cuts them to about the same length, and writes to
Chroma. The others are used as their documentation advises for a folder: called again after each change.
"""

import hashlib
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.daemon import Site, provider_settings
from tests.embedding_server import EmbeddingServer

FILES = 10
PARAGRAPHS = 10
CHUNK_TOKENS = 300
DIMENSIONS = 16

Sync = Callable[[], int]
"""Bring a collection up to date; returns how many texts were sent to the model."""


def plant(folder: Path) -> None:
    """Write the files."""
    for number in range(FILES):
        (folder / f"f{number}.txt").write_text(_text(number), encoding="utf-8")


def changes(folder: Path) -> Iterator[str]:
    """Change the files step by step; each step by its name."""
    yield "first run"
    yield "nothing changed"
    for file in folder.iterdir():
        os.utime(file)
    yield "all files touched"
    (folder / "f0.txt").rename(folder / "g0.txt")
    yield "a file renamed"
    shutil.copy(folder / "f1.txt", folder / "h1.txt")
    yield "a file copied"
    (folder / "f2.txt").write_text(f"{_paragraph('new')}\n\n{_text(2)}", encoding="utf-8")
    yield "a paragraph put on top"
    (folder / "f3.txt").unlink()
    yield "a file deleted"
    (folder / "f3.txt").write_text(_text(3), encoding="utf-8")
    yield "and restored"


def ours(folder: Path, place: Path) -> Iterator[Sync]:
    """`ingestor sync`."""
    with EmbeddingServer(dimensions=DIMENSIONS) as server:
        settings = provider_settings(server, WATCH_DIR=folder, CHUNK__MAX_TOKENS=CHUNK_TOKENS)
        with Site(place, settings) as site:

            def sync() -> int:
                before = server.texts
                site.sync()
                return server.texts - before

            yield sync


def langchain(folder: Path, _: Path) -> Iterator[Sync]:
    """LangChain's indexing API, which deletes what is gone at the end of each run."""
    import chromadb  # noqa: PLC0415 - slow, and each tool has its own
    from langchain_chroma import Chroma  # noqa: PLC0415 - as above
    from langchain_core.documents import Document  # noqa: PLC0415 - as above
    from langchain_core.embeddings import Embeddings  # noqa: PLC0415 - as above
    from langchain_core.indexing import InMemoryRecordManager, index  # noqa: PLC0415 - as above

    sent: list[str] = []

    class Model(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            sent.extend(texts)
            return [_vector(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return _vector(text)

    store = Chroma("langchain", client=chromadb.EphemeralClient(), embedding_function=Model())
    manager = InMemoryRecordManager("peers")
    manager.create_schema()

    def sync() -> int:
        sent.clear()
        documents = [
            Document(paragraph, metadata={"source": file.name})
            for file in sorted(folder.iterdir())
            for paragraph in file.read_text(encoding="utf-8").split("\n\n")
        ]
        index(documents, manager, store, cleanup="full", source_id_key="source", key_encoder="sha256")
        return len(sent)

    yield sync


def llama_index(folder: Path, _: Path) -> Iterator[Sync]:
    """LlamaIndex's ingestion pipeline with a docstore and a cache."""
    import chromadb  # noqa: PLC0415 - as above
    from llama_index.core import SimpleDirectoryReader  # noqa: PLC0415 - as above
    from llama_index.core.embeddings import BaseEmbedding  # noqa: PLC0415 - as above
    from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline  # noqa: PLC0415 - as above
    from llama_index.core.node_parser import SentenceSplitter  # noqa: PLC0415 - as above
    from llama_index.core.storage.docstore import SimpleDocumentStore  # noqa: PLC0415 - as above
    from llama_index.vector_stores.chroma import ChromaVectorStore  # noqa: PLC0415 - as above

    sent: list[str] = []

    class Model(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            sent.append(text)
            return _vector(text)

        def _get_query_embedding(self, query: str) -> list[float]:
            return _vector(query)

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return _vector(query)

    collection = chromadb.EphemeralClient().get_or_create_collection("llama-index", embedding_function=None)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=CHUNK_TOKENS, chunk_overlap=0), Model()],
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        vector_store=ChromaVectorStore(collection),
        cache=IngestionCache(),
    )

    def sync() -> int:
        sent.clear()
        pipeline.run(documents=SimpleDirectoryReader(str(folder), filename_as_id=True).load_data())
        return len(sent)

    yield sync


PEERS: dict[str, Callable[[Path, Path], Iterator[Sync]]] = {
    "ingestor": ours,
    "LangChain": langchain,
    "LlamaIndex": llama_index,
}


def compare() -> dict[str, dict[str, int]]:
    """By step and tool: how many texts were sent."""
    sent: dict[str, dict[str, int]] = {}
    for name, peer in PEERS.items():
        with TemporaryDirectory() as place:
            folder, own = Path(place, "documents"), Path(place, "own")
            folder.mkdir()
            own.mkdir()
            plant(folder)
            for sync in peer(folder, own):
                for step in changes(folder):
                    sent.setdefault(step, {})[name] = sync()
    return sent


def _text(number: int) -> str:
    return "\n\n".join(_paragraph((number, place)) for place in range(PARAGRAPHS))


def _paragraph(name: object) -> str:
    drawn = random.Random(str(name))
    return " ".join("".join(drawn.choices("abcdefghij", k=6)) for _ in range(60))


def _vector(text: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of the other tools' dependencies
    table = Table("texts sent to the model", *PEERS)
    for step_name, counts in compare().items():
        table.add_row(step_name, *map(str, counts.values()))
    Console().print(table)
