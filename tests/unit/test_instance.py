"""At most one process works on a data folder, and others can tell."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.core.errors import AlreadyRunning, ConfigError

RECORD = InstanceRecord(pid=os.getpid(), command="run", watch_dir="/w", started_seconds=1.0, chroma_port=8000)

HOLDER = """
import sys, time
from pathlib import Path
from ingestor.adapters.instance import Instance
instance = Instance(Path(sys.argv[1]))
instance.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_nobody_runs_on_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert Instance(tmp_path / "missing").running() is None
    assert not (tmp_path / "missing").exists()


def test_the_holder_is_told_to_others_until_it_lets_go(tmp_path: Path) -> None:
    holder = Instance(tmp_path)
    holder.acquire()
    holder.announce(RECORD)
    assert Instance(tmp_path).running() == RECORD
    holder.release()
    assert Instance(tmp_path).running() is None
    holder.release()


def test_a_second_instance_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    holder = Instance(tmp_path)
    holder.acquire()
    holder.announce(RECORD)
    with pytest.raises(AlreadyRunning, match=f"process id {os.getpid()}"):
        Instance(tmp_path).acquire()
    holder.release()
    second = Instance(tmp_path)
    second.acquire()
    second.release()


def test_the_lock_of_a_killed_process_is_free_and_its_record_is_not_believed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning):
            Instance(tmp_path, patience_seconds=0.1).acquire()
        Instance(tmp_path).announce(RECORD)
        process.kill()
    assert Instance(tmp_path).running() is None
    survivor = Instance(tmp_path)
    survivor.acquire()
    survivor.release()


def test_a_holder_that_has_not_introduced_itself_is_waited_for_whatever_was_said_by_one_that_was_killed(
    tmp_path: Path,
) -> None:
    Instance(tmp_path).announce(RECORD)
    holder = Instance(tmp_path)
    holder.acquire()
    threading.Timer(1.5, holder.release).start()
    second = Instance(tmp_path)
    second.acquire()
    second.release()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="file"):
        Instance(tmp_path / "file").acquire()
