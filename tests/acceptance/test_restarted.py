"""What is said between the start of a daemon and its first comparison, after another one was killed."""

import signal
from pathlib import Path

from ingestor.adapters.instance import RECORD_FILE
from tests.daemon import Site, assert_equal, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 8


def health_of(site: Site) -> str:
    """What `status` says of it in its first line."""
    done = site.command("status")
    assert done.code == 0, done.err
    return next(line for line in done.out.splitlines() if "health" in line)


def test_a_daemon_that_was_killed_does_not_say_in_step_for_the_next_one(tmp_path: Path) -> None:
    """Files change while nothing runs; until they are searchable nothing claims that the collection is the folder."""
    with (
        EmbeddingServer(dimensions=DIMENSIONS, latency_seconds=0.5) as server,
        Site(tmp_path, provider_settings(server)) as site,
    ):
        for name in ("edited", "gone", "kept"):
            (site.folder / f"{name}.md").write_text(f"the text of {name}\n", encoding="utf-8")
        first = site.start("run").wait_ready()
        eventually(lambda: "in step" in health_of(site), lambda: health_of(site))
        first.kill()
        eventually(lambda: not site.servers(), lambda: "the server outlived its daemon")
        assert "stopped" in health_of(site)
        (site.folder / "edited.md").write_text("another text\n", encoding="utf-8")
        (site.folder / "gone.md").unlink()
        (site.folder / "new.md").write_text("a new text\n", encoding="utf-8")

        second = site.start("run")
        record = site.data_dir / RECORD_FILE
        eventually(lambda: record.exists() and str(second.pid) in record.read_text(), second.log, pause_seconds=0.01)
        second.process.send_signal(signal.SIGSTOP)  # a start that takes its time, as with a large collection
        told = health_of(site)
        second.process.send_signal(signal.SIGCONT)
        assert "what has changed is being looked at" in told
        eventually(lambda: "in step" in health_of(site), lambda: health_of(site))

        assert second.events("daemon.ready"), "in step was said before anything had been compared"
        with site.reading() as collection:
            assert_equal(site.folder, collection.rows(), dimensions=DIMENSIONS)
