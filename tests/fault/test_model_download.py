"""Chroma's default model on a machine without the network, and with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ingestor.core.chunking import Cutter
from tests.daemon import Site, eventually, free_port
from tests.minilm import FOLDER, put_model

MAX_TOKENS = 200
ASK = """
import json, sys
sys.modules["ingestor"] = None
import chromadb
collection = chromadb.HttpClient("127.0.0.1", int(sys.argv[1])).get_collection("documents")
found = collection.query(query_texts=["where does the cat sleep"], n_results=2)
print(json.dumps([metadata["source"] for metadata in found["metadatas"][0]]))
"""


def test_a_daemon_waits_for_a_model_that_cannot_be_downloaded_and_then_anybody_asks_by_text(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    nowhere = f"http://127.0.0.1:{free_port()}"
    settings = {
        "HOME": str(home),
        "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere,
        "INGESTOR_EMBEDDING__PROVIDER": "chroma-default",
        "INGESTOR_CHUNK__MAX_TOKENS": str(MAX_TOKENS),
    }
    with Site(tmp_path, settings) as site:
        (site.folder / "cat.txt").write_text("the cat sleeps on the warm mat\n", encoding="utf-8")
        (site.folder / "law.txt").write_text("states settle their disputes by arbitration\n", encoding="utf-8")
        daemon = site.start("run").wait_ready()
        eventually(lambda: "cannot be downloaded" in daemon.log(), lambda: daemon.log()[-3_000:])

        put_model(home / FOLDER)

        with site.reading() as reading:
            reading.wait_equal(cutter=Cutter(MAX_TOKENS))
        asked = site.command("query", "where does the cat sleep", "-n", "2", "--json")
        assert asked.code == 0, asked.err
        sources = [hit["metadata"]["source"] for hit in asked.json()]
        told = subprocess.run(
            [sys.executable, "-c", ASK, str(site.port)],
            env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout) == sources == ["cat.txt", "law.txt"]
        assert daemon.terminate() == 0


def test_texts_longer_than_the_model_takes_are_refused_by_the_settings(tmp_path: Path) -> None:
    settings = {"INGESTOR_EMBEDDING__PROVIDER": "chroma-default", "INGESTOR_CHUNK__MAX_TOKENS": "300"}
    with Site(tmp_path, settings) as site:
        done = site.command("sync")
    assert done.code == 2
    assert "chunk.max_tokens: all-MiniLM-L6-v2 takes at most 256 tokens a text" in done.err
