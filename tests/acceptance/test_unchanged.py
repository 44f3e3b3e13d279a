"""A sync of a folder in which nothing has changed: it looks at every file, and opens none."""

import json
import subprocess
import sys
from pathlib import Path

from tests.daemon import Site, provider_settings
from tests.embedding_server import EmbeddingServer

SYNC = """
import sys
from ingestor.cli import main

opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
try:
    main()
finally:
    sys.stderr.write("\\n".join(opened))
"""


def test_a_sync_opens_the_files_that_have_changed_and_no_other(tmp_path: Path) -> None:
    with EmbeddingServer(dimensions=8) as server, Site(tmp_path, provider_settings(server)) as site:
        names = {"a.md", "b.md", "deeper/c.md"}
        (site.folder / "deeper").mkdir()
        for name in names:
            (site.folder / name).write_text(f"The text of {name}.", encoding="utf-8")
        assert opened_by_a_sync(site) == names
        assert opened_by_a_sync(site) == set()
        (site.folder / "b.md").write_text("Another text.", encoding="utf-8")
        assert opened_by_a_sync(site) == {"b.md"}


def opened_by_a_sync(site: Site) -> set[str]:
    """Files of the folder, by name where they were opened from their open folder."""
    done = subprocess.run(
        [sys.executable, "-c", SYNC, "sync", "--json"],
        cwd=site.root,
        env=site.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout)["documents"]["problems"] == 0
    files = {file.relative_to(site.folder).as_posix() for file in site.folder.rglob("*") if file.is_file()}
    opened = {path.rpartition("/")[2] for path in done.stderr.splitlines()}
    return {file for file in files if file.rpartition("/")[2] in opened}
