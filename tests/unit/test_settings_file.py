"""The settings file with one value changed, and nothing else."""

import stat
import tomllib
from pathlib import Path

import pytest

from ingestor.adapters.settings_file import replace_settings, with_setting
from ingestor.core.errors import ConfigError

PLACES = [("chroma", "collection")]
COMMENTED = '# mine\nwatch_dir = "a" # here\n\n[chroma]\n  collection   = {}   # the one\nport = 3\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (COMMENTED.format("'documents'"), COMMENTED.format('"notes"')),
        ('chroma.collection = "documents" # c\r\n', 'chroma.collection = "notes" # c\r\n'),
        ('chroma = {collection = "documents", port = 3} # x\n', 'chroma = {collection = "notes", port = 3} # x\n'),
        ('watch_dir = "n"\n', 'watch_dir = "n"\n\n[chroma]\ncollection = "notes"\n'),
        ("[chroma.hnsw]\nef_search = 3\n", '[chroma]\ncollection = "notes"\n\n[chroma.hnsw]\nef_search = 3\n'),
        ("", '[chroma]\ncollection = "notes"\n'),
    ],
    ids=["table", "dotted", "inline", "no-table", "deeper-table", "empty"],
)
def test_one_value_is_changed_and_not_a_comment_or_blank_more(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "ingestor.toml"
    file.write_bytes(before.encode())
    changed = with_setting(file, PLACES, "notes")
    assert changed == after
    assert tomllib.loads(changed)["chroma"]["collection"] == "notes"
    assert file.read_bytes() == before.encode()


def test_a_file_that_is_missing_is_an_empty_one_and_one_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ingestor.toml"
    assert with_setting(file, PLACES, "notes") == '[chroma]\ncollection = "notes"\n'
    file.write_text("[chroma\n")
    with pytest.raises(ConfigError, match=r"ingestor\.toml cannot be changed"):
        with_setting(file, PLACES, "notes")
    file.write_text('chroma = "text"\n')
    with pytest.raises(ConfigError, match=r"ingestor\.toml cannot be changed"):
        with_setting(file, PLACES, "notes")


def test_a_file_keeps_its_mode_and_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "real.toml", tmp_path / "ingestor.toml"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    replace_settings(link, "new = 1\n")
    assert link.is_symlink()
    assert target.read_text() == "new = 1\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ingestor.toml", "real.toml"]
    replace_settings(tmp_path / "fresh.toml", "new = 1\n")
    assert stat.S_IMODE((tmp_path / "fresh.toml").stat().st_mode) == 0o644


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        replace_settings(tmp_path / "gone" / "ingestor.toml", "new = 1\n")


def test_a_file_that_has_to_be_new_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "ingestor.toml"
    replace_settings(file, "first = 1\n", is_new=True)
    with pytest.raises(FileExistsError):
        replace_settings(file, "second = 1\n", is_new=True)
    assert file.read_text() == "first = 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ingestor.toml"]
