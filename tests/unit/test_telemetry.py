"""Libraries that would tell their makers what they are used for are told not to."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("word", ["0", None], ids=["wanted", "unsaid"])
def test_the_embedded_model_leaves_no_identifier_of_the_machine(tmp_path: Path, word: str | None) -> None:
    # What onnxruntime keeps there is what it sends; that it is there when it is wanted shows that the test can tell.
    environment = {"HOME": str(tmp_path), **({"ORT_DISABLE_TELEMETRY": word} if word else {})}
    subprocess.run(
        [Path(sys.executable).with_name("ingestor"), "embed", "a comet"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert [path.name for path in tmp_path.rglob("deviceid")] == ["deviceid"] * (word == "0")
