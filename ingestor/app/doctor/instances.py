"""Check: who works on the data folder and on the Chroma folder."""

from collections.abc import Iterator, Sequence

from ingestor.adapters.folder_lock import Occupant, occupants
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.app.doctor.premises import Premises
from ingestor.core.diagnosing import Finding, failure, hint, well
from ingestor.core.errors import AlreadyRunning

_NAME = "instances"


def check(premises: Premises) -> Sequence[Finding]:
    """The holder of the lock, what one that died has left, and strangers."""
    settings = premises.settings
    instance = Instance(settings.data_dir)
    running = instance.running()
    if running is not None:
        sentence = f"`ingestor {running.command}` with process id {running.pid} works on {settings.data_dir}"
        found = [well(_NAME, sentence, pid=running.pid, command=running.command)]
    elif (before := instance.left_behind()) is not None:
        sentence = f"`ingestor {before.command}` (process id {before.pid}) has ended without a word"
        remedy = "no need to do anything: the next start goes on where it was"
        found = [hint(_NAME, sentence, remedy, pid=before.pid, command=before.command)]
    else:
        found = [well(_NAME, f"nobody works on {settings.data_dir}")]
    if premises.has_own_chroma and settings.chroma_path.is_dir():
        found += _chroma(premises, occupants(settings.chroma_path), running)
    return found


def orphans(found: Sequence[Occupant]) -> list[int]:
    """Servers that have outlived their daemon: the next start ends them, and takes the folder and the port."""
    return [each.pid for each in found if each.is_server and all(each.parent != other.pid for other in found)]


def _chroma(premises: Premises, found: Sequence[Occupant], running: InstanceRecord | None) -> Iterator[Finding]:
    folder = premises.settings.chroma_path
    left = orphans(found)
    for each in found:
        if running is not None and running.pid in {each.pid, each.parent}:
            continue
        if each.pid in left:
            sentence = f"the Chroma server with process id {each.pid} has outlived its daemon"
            yield hint(_NAME, sentence, "no need to do anything: the next start ends it", pid=each.pid)
        else:
            message = f"process {each.pid} has the Chroma folder {folder} open"
            remedy = "end it: two processes in one Chroma folder corrupt it"
            yield failure(_NAME, AlreadyRunning(message, remedy=remedy), pid=each.pid)
