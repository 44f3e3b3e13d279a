"""Chroma's default model: where its files come from, and what is said when they cannot be had."""

import asyncio
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from chromadb.utils.embedding_functions import DefaultEmbeddingFunction, ONNXMiniLM_L6_V2

from ingestor.adapters import chroma_embedder
from ingestor.adapters.chroma_embedder import ChromaEmbedder
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.model import Recipe
from tests.daemon import free_port
from tests.minilm import FOLDER, put_model

CAT = "the cat sleeps on the warm mat"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where Chroma looks for the model; there is none, and nowhere to download one from."""
    folder = tmp_path / FOLDER
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", folder.parent)
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "MODEL_DOWNLOAD_URL", f"http://127.0.0.1:{free_port()}/onnx.tar.gz")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


async def test_vectors_are_those_of_chroma_s_default_function(files: Path) -> None:
    put_model(files)
    vectors, usage = await ChromaEmbedder().embed([CAT, "bread " * 400])
    assert np.allclose(vectors, np.array(DefaultEmbeddingFunction()([CAT, "bread " * 400])), atol=1e-6)
    assert usage.tokens == len(CAT.split()) + 2 + 256


async def test_a_model_that_cannot_be_downloaded_is_an_outage_with_url_folder_and_remedy_and_comes_later(
    files: Path,
) -> None:
    embedder = ChromaEmbedder()
    with pytest.raises(ServiceUnavailable, match=r"all-MiniLM-L6-v2 cannot be downloaded: ConnectError") as caught:
        await embedder.embed([CAT])
    for named in (ONNXMiniLM_L6_V2.MODEL_DOWNLOAD_URL, str(files.parent), "embedding.provider to local"):
        assert named in caught.value.remedy
    put_model(files)
    assert len((await embedder.embed([CAT]))[0]) == 1


async def test_a_damaged_model_is_told_and_used_as_soon_as_it_is_whole(files: Path) -> None:
    """As an extraction leaves it that was killed: every file is there, and the last one is not whole."""
    put_model(files)
    whole = (files / "model.onnx").read_bytes()
    (files / "model.onnx").write_bytes(whole[: len(whole) // 2])
    embedder = ChromaEmbedder()
    with pytest.raises(ServiceUnavailable, match="cannot be run") as caught:
        await embedder.embed([CAT])
    assert "delete that folder when it is damaged" in caught.value.remedy
    (files / "model.onnx").write_bytes(whole)
    assert len((await embedder.embed([CAT]))[0]) == 1


class _Slow(BaseHTTPRequestHandler):
    """Sends the archive of the model when it is told to."""

    archive = b""
    asked = threading.Event()
    goes = threading.Event()

    def do_GET(self) -> None:
        self.asked.set()
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.archive)))
        self.end_headers()
        self.wfile.write(self.archive[:10])
        self.goes.wait(60)
        self.wfile.write(self.archive[10:])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of the class above
        """Say nothing."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: Path) -> Iterator[type[_Slow]]:
    put_model(tmp_path / "made" / "onnx")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(tmp_path / "made" / "onnx", "onnx")
    _Slow.archive = packed.getvalue()
    _Slow.asked.clear()
    _Slow.goes.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "MODEL_DOWNLOAD_URL", f"http://127.0.0.1:{server.server_port}/onnx.tar.gz")
    monkeypatch.setattr("chromadb.utils.embedding_functions.onnx_mini_lm_l6_v2._verify_sha256", lambda *_: True)
    assert not files.exists()
    yield _Slow
    _Slow.goes.set()
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_caller_that_goes_leaves_its_download_to_the_next_one(
    slow: type[_Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Mock(wraps=chroma_embedder._download)
    monkeypatch.setattr(chroma_embedder, "_download", download)
    embedder = ChromaEmbedder()
    gone = asyncio.ensure_future(embedder.embed([CAT]))
    await asyncio.to_thread(slow.asked.wait, 60)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    waiting = asyncio.ensure_future(embedder.embed([CAT]))
    await asyncio.sleep(0)
    slow.goes.set()
    vectors, _ = await waiting
    assert vectors.shape == (1, 384)
    assert download.call_count == 1


async def test_another_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match="384 dimensions"):
        ChromaEmbedder(Recipe("chroma-default", "all-MiniLM-L6-v2", 128))
