"""Metadata of one's own with a real daemon: each change of it arrives, costs nothing, and is searched by.

One daemon for all: the tests go on from each other, as a day does.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.checker import Row, document_ids
from tests.daemon import Daemon, Site, eventually, provider_settings
from tests.embedding_server import EmbeddingServer

DIMENSIONS = 64
PARAGRAPHS = "\n\n".join(f"Paragraph {number} of the notes tells its own story at some length." for number in range(60))
FRONT = "---\ntitle: Notes of May\ntags: [python, 中文]\ndate: 2026-05-04\n---\n"


@dataclass
class Scene:
    site: Site
    server: EmbeddingServer
    daemon: Daemon

    def write(self, path: str, text: str) -> None:
        file = self.site.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def rows(self) -> list[Row]:
        with self.site.reading() as reading:
            reading.dimensions = DIMENSIONS
            return reading.wait_equal()

    def found(self, where: dict[str, Any]) -> set[str]:
        """The files that a search finds by metadata."""
        done = self.site.command("query", "a story", "-n", "99", "--where", json.dumps(where), "--json")
        assert done.code == 0, done.err
        return {hit["metadata"]["source"] for hit in done.json()}

    def problems(self) -> dict[str, dict[str, Any]]:
        return {problem["path"]: problem for problem in self.site.command("problems", "--json").json()}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with (
        EmbeddingServer(dimensions=DIMENSIONS) as server,
        Site(tmp_path_factory.mktemp("retags"), provider_settings(server, LOG__FORMAT="json")) as site,
    ):
        made = Scene(site, server, None)  # type: ignore[arg-type]  # it is started when its folder is filled
        made.write("notes/a.md", FRONT + "# May\n\n" + PARAGRAPHS)
        made.write("notes/b.txt", PARAGRAPHS.replace("notes", "papers"))
        made.write("notes/b.txt.meta.json", '{"reviewed": false, "author": {"name": "Ada"}}')
        made.write("c.md", "# Alone\n\nNothing is attached to it.\n")
        made.daemon = site.start("run").wait_ready()
        made.rows()
        yield made


def edit_front_matter(scene: Scene) -> None:
    scene.write(
        "notes/a.md", FRONT.replace("python", "rust").replace("date", "level: 3\nday") + "# May\n\n" + PARAGRAPHS
    )


def write_settings(scene: Scene) -> None:
    scene.write("notes/.ingestor.toml", '[metadata]\nteam = "legal"\ntags = ["contract"]\n')


def edit_a_sidecar(scene: Scene) -> None:
    scene.write("notes/b.txt.meta.json", '{"reviewed": true, "tags": ["contract", "signed"]}')


CHANGES: dict[Callable[[Scene], None], list[tuple[dict[str, Any], set[str]]]] = {
    edit_front_matter: [
        ({"tags.rust": True}, {"notes/a.md"}),
        ({"tags.python": True}, set()),
        ({"level": {"$gt": 2}}, {"notes/a.md"}),
        ({"title": "Notes of May"}, {"notes/a.md"}),
    ],
    write_settings: [({"team": "legal"}, {"notes/a.md", "notes/b.txt"}), ({"tags.contract": True}, {"notes/b.txt"})],
    edit_a_sidecar: [
        ({"reviewed": True}, {"notes/b.txt"}),
        ({"tags.signed": True}, {"notes/b.txt"}),
        ({"author.name": "Ada"}, set()),
    ],
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_each_kind_of_change_retags_and_no_more_and_is_searched_by(
    scene: Scene, change: Callable[[Scene], None]
) -> None:
    before = scene.rows()
    paid = (scene.server.requests, scene.server.texts)
    change(scene)
    after = scene.rows()
    assert {row.id for row in after} == {row.id for row in before}
    assert (scene.server.requests, scene.server.texts) == paid
    for where, sources in CHANGES[change]:
        assert scene.found(where) == sources


def test_a_renamed_folder_takes_all_along_and_a_sidecar_that_goes_takes_its_keys(scene: Scene) -> None:
    before, paid = scene.rows(), scene.server.texts
    (scene.site.folder / "notes").rename(scene.site.folder / "papers")
    (scene.site.folder / "papers" / "b.txt.meta.json").unlink()
    after = scene.rows()
    assert {row.id for row in after} == {row.id for row in before}
    assert set(document_ids(after)) == {"papers/a.md", "papers/b.txt", "c.md"}
    assert not any("reviewed" in row.metadata for row in after)
    assert scene.server.texts == paid


def test_sizes_of_a_folder_cut_its_files_anew_and_no_others(scene: Scene) -> None:
    before = {row.id: row for row in scene.rows()}
    settings = (scene.site.folder / "papers" / ".ingestor.toml").read_text("utf-8")
    scene.write("papers/.ingestor.toml", f"{settings}\n[chunk]\nmax_tokens = 60\n")
    after = {row.id: row for row in scene.rows()}
    assert len(after) > 2 * len(before)
    assert {id_ for id_ in before if before[id_].source == "c.md"} <= after.keys()
    paid = scene.server.texts
    scene.write("papers/.ingestor.toml", settings)
    assert {row.id for row in scene.rows()} == before.keys()
    assert scene.server.texts == paid


def test_what_is_bad_is_told_with_its_key_and_heals_while_nothing_runs(scene: Scene) -> None:
    rows, paid = scene.rows(), scene.server.texts
    folder = scene.site.folder
    settings = (folder / "papers" / ".ingestor.toml").read_text("utf-8")
    scene.write("papers/.ingestor.toml", '[metadata]\n"chroma:document" = "x"\n')
    scene.write("c.md.meta.json", '{"page": 7}')
    scene.write("bomb.md", "---\na: &a [x, x]\nb: [*a, *a]\n---\nIt never goes off.\n")
    scene.write("gone.txt.meta.json", "{}")
    bad = {"papers/.ingestor.toml": "chroma:document", "c.md": "page", "bomb.md": "alias"}
    eventually(lambda: scene.problems().keys() == bad.keys(), lambda: str(scene.problems()))
    for path, problem in scene.problems().items():
        assert bad[path] in problem["reason"]
        assert problem["kind"] == "UnusableMetadata"
        assert problem["remedy"]
    with scene.site.reading() as reading:
        kept = {row.id for row in reading.rows()}
    assert kept == {row.id for row in rows if row.source != "c.md"}
    scene.daemon.kill()
    scene.write("papers/.ingestor.toml", settings)
    (folder / "c.md.meta.json").unlink()
    (folder / "bomb.md").unlink()
    scene.daemon = scene.site.start("run").wait_ready()
    assert {row.id for row in scene.rows()} == {row.id for row in rows}
    assert scene.problems() == {}
    assert [told["path"] for told in scene.daemon.events("path.left_out")] == ["gone.txt.meta.json"]
    assert scene.server.texts == paid
    verified = scene.site.command("verify", "--json")
    assert verified.code == 0, verified.out


def test_metadata_of_the_setting_reaches_every_document(scene: Scene) -> None:
    rows, paid = scene.rows(), scene.server.texts
    assert scene.daemon.terminate() == 0
    scene.site.sync(INGESTOR_WATCH__METADATA='{"origin": "share", "team": "nobody"}')
    told = scene.site.at_rest()
    assert {row.id for row in told} == {row.id for row in rows}
    assert {row.metadata["origin"] for row in told} == {"share"}
    assert {row.source: row.metadata["team"] for row in told} == {
        "papers/a.md": "legal",
        "papers/b.txt": "legal",
        "c.md": "nobody",
    }
    assert scene.server.texts == paid
