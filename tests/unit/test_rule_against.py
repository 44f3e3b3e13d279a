"""What leaves a path out is told in words, and agrees with what a look-up finds."""

from pathlib import Path

import pytest

from ingestor.adapters.folder import Folder
from ingestor.adapters.rules import Rules

FILES = {
    "kept.md": "",
    "other.pdf": "",
    "folder/a.log": "",
    "folder/kept.log.md": "",
    "folder/ours.md": "",
    "folder/.ingestorignore": "*.log\n",
    "settled/a.md": "",
    "settled/.ingestor.toml": 'ignore = ["a.*"]\n',
    ".git/config.md": "",
    "drafts/deep/a.md": "",
    "back.tmp": "",
    "data/x.md": "",
    "kept.md.meta.json": "{}",
}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("kept.md", ""),
        ("folder/kept.log.md", ""),
        ("never/there.md", ""),
        ("other.pdf", "no pattern of watch.include covers it"),
        ("folder/a.log", "the pattern '*.log' of the folder folder/"),
        ("settled/a.md", "the pattern 'a.*' of the folder settled/"),
        (".git/config.md", "the pattern '.*' that is built in"),
        ("drafts/deep/a.md", "the pattern 'drafts/' of watch.exclude"),
        ("back.tmp", ""),
        ("data/x.md", "it lies in a folder of our own"),
        ("kept.md.meta.json", "it speaks of other files, and is none itself"),
    ],
)
def test_the_rule_that_leaves_a_path_out_is_named(tmp_path: Path, path: str, said: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    rules = Rules(["*.md", "*.tmp", "*.log", "*.json"], ["drafts/", "!*.tmp"])
    folder = Folder(tmp_path, rules, follow_symlinks=False, max_file_bytes=1000, left_out=[tmp_path / "data"])
    assert folder.rule_against(path) == said
    if (tmp_path / path).exists():
        assert (folder.look(path) is None) == bool(said)
