import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.adapters.folder import Folder
from ingestor.adapters.rules import DEFAULT_EXCLUDE, RULES_FILE, Patterns, Rules, Scope
from ingestor.core.errors import ConfigError


def leaves_out(scope: Scope, path: str, *, is_folder: bool = False) -> bool:
    return scope.leaves_out(path, path.rpartition("/")[2], is_folder=is_folder)


@pytest.mark.parametrize(
    "name",
    [
        *(".hidden", "a.md~", ".a.md.swp", "a.swp", "a.swx", "a.swo", "4913", "#a.md#", ".#a.md", "a.tmp", "a.temp"),
        *("a.part", "a.partial", "a.crdownload", "a.download", "a.aria2", "~$a.docx", "Thumbs.db", "desktop.ini"),
    ],
)
def test_temporaries_are_left_out_at_any_depth(name: str) -> None:
    scope = Rules([], []).scope
    assert leaves_out(scope, name)
    assert leaves_out(scope, f"one/two/{name}")


@pytest.mark.parametrize(
    "name",
    [
        *("a.!qB", "a.!ut", "a.bc!", "a.xltd", "a.filepart", "film.mkv.rclone_chunk.001", "A.TMP", "thumbs.DB"),
        *("a.md@SynoEAStream", "aquota.user"),
    ],
)
def test_what_has_not_arrived_whole_and_what_shares_write_beside_files_are_left_out(name: str) -> None:
    scope = Rules([], []).scope
    assert leaves_out(scope, name)
    assert leaves_out(scope, f"one/two/{name}")


@pytest.mark.parametrize(
    "name",
    [
        *("#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", "trashbox", "files_trashbin", "files_versions"),
        *("#snapshot", "@Recently-Snapshot", "@snapshots", "~snapshot", "@GMT-2026.11.30-12.00.00", ".snapshot"),
        *("@eaDir", "@tmp", "@sharebin", ".@__thumb", ".zfs", ".Trash-1000", "System Volume Information"),
        *("lost+found", "FOUND.000", "DfsrPrivate"),
    ],
)
def test_recycle_bins_and_snapshots_of_shares_are_left_out_in_letters_of_any_case(name: str) -> None:
    scope = Rules([], []).scope
    for spelled in (name, name.lower(), name.upper(), name.swapcase()):
        assert leaves_out(scope, spelled, is_folder=True)
        assert leaves_out(scope, f"one/{spelled}", is_folder=True)
        assert not leaves_out(Rules([], [f"!{spelled}"]).scope, spelled, is_folder=True)


@pytest.mark.parametrize(
    "name",
    [
        *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ed25519_sk", "id_rsa.bak", "work_ed25519", "github_rsa"),
        *("ssh_host_rsa_key", "server.pem", "SERVER.KEY", "a.p12", "a.pfx", "a.jks", "a.keystore", "a.kdbx", "a.ppk"),
        *(".netrc", "_netrc", ".pgpass", "pgpass.conf", ".htpasswd", "site.htpasswd", "office.ovpn", ".env"),
    ],
)
def test_key_material_is_left_out_and_a_pattern_takes_it_back_in(name: str) -> None:
    assert leaves_out(Rules([], []).scope, name)
    assert leaves_out(Rules([], []).scope, f"one/two/{name}")
    assert not leaves_out(Rules([], [f"!{name}"]).scope, name)


@pytest.mark.parametrize(
    "name",
    [
        *("a.md", "a~b.md", "part", "a.part.md", "49130", "a#b", "Thumbs.db.md", "__pycache__"),
        *("id_rsa.pub", "id_ed25519.pub", "work_rsa.pub", "id_rsa_rotation.md", "keys.md", "server.crt", "recycle.md"),
        *("notes.sync-conflict-20261130-120000-ABCDEFG.md", "notes (conflicted copy 2026-11-30).md", "#snapshot.md"),
    ],
)
def test_other_files_are_kept(name: str) -> None:
    assert not leaves_out(Rules([], []).scope, name)


def test_a_pattern_with_a_slash_at_its_end_is_for_folders() -> None:
    assert leaves_out(Rules([], []).scope, "a/__pycache__", is_folder=True)
    assert not leaves_out(Rules([], []).scope, "a/__pycache__")


def test_a_users_exclude_undoes_a_default_one() -> None:
    scope = Rules([], ["!.*", ".git/"]).scope
    assert not leaves_out(scope, ".notes.md")
    assert leaves_out(scope, ".git", is_folder=True)
    assert leaves_out(scope, "a.tmp")


@pytest.mark.parametrize("name", ["recycle", "snapshot", "snapshots", "tmp", "@types", "#1", "lost", "my_dsa", "keys"])
def test_other_folders_are_kept(name: str) -> None:
    assert not leaves_out(Rules([], []).scope, name, is_folder=True)


def test_every_default_is_a_pattern_for_names() -> None:
    for line in DEFAULT_EXCLUDE:
        assert Patterns([line]).refused == ()
        assert Patterns([], built_in=[line]).verdict("x", "x", is_folder=True) is not True
        assert "/" not in line.removesuffix("/")


def test_the_pattern_of_a_user_means_the_case_that_it_is_written_in() -> None:
    scope = Rules([], ["*.Log", "!*.PEM"]).scope
    assert leaves_out(scope, "a.Log")
    assert not leaves_out(scope, "a.log")
    assert not leaves_out(scope, "a.PEM")
    assert leaves_out(scope, "a.pem")


def test_everything_but_some_files_can_be_left_out() -> None:
    scope = Rules([], ["*", "!*/", "!*.md"]).scope
    assert not leaves_out(scope, "docs", is_folder=True)
    assert not leaves_out(scope, "docs/a.md")
    assert leaves_out(scope, "docs/a.pdf")


def test_include_is_for_files_and_for_all_below_a_folder() -> None:
    rules = Rules(["*.md", "/notes/", "!secret.md"], [])
    assert [
        path for path in ("a.md", "x/y/a.md", "notes/b.pdf", "x/notes/b.pdf", "secret.md") if rules.wants(path)
    ] == [
        "a.md",
        "x/y/a.md",
        "notes/b.pdf",
    ]


def test_an_empty_include_wants_everything() -> None:
    assert Rules([], []).wants("whatever.bin")


@pytest.mark.parametrize("line", ["!", "[z-a]", "a\\"])
@pytest.mark.parametrize("name", ["include", "exclude"])
def test_a_setting_that_is_no_pattern_is_an_error_that_names_it(name: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rules(**{"include": [], "exclude": [], name: ["*.md", line]})
    assert f"watch.{name}: line 2" in str(caught.value)


def test_a_bad_line_of_an_ignore_file_is_told_and_the_others_count() -> None:
    scope, refused = Rules([], []).scope.deepen("", b"*.log\n[z-a]\n!\n/drafts\n")
    assert [line.partition(" is")[0] for line in refused] == ["line 2", "line 3"]
    assert leaves_out(scope, "a.log")
    assert leaves_out(scope, "drafts")


def test_an_ignore_file_may_have_a_byte_order_mark_dos_line_ends_and_names_that_are_no_utf8() -> None:
    scope, refused = Rules([], []).scope.deepen("", b"\xef\xbb\xbf*.log\r\n\xc4\xe3\r\n")
    assert refused == ()
    assert leaves_out(scope, "a.log")
    assert leaves_out(scope, os.fsdecode(b"\xc4\xe3"))


def test_a_deeper_ignore_file_goes_before_a_higher_one_and_is_relative_to_its_folder() -> None:
    outer, _ = Rules([], []).scope.deepen("", b"*.log\n/top.md\n")
    inner, _ = outer.deepen("a", b"!keep.log\n/b.md\n!.*\n")
    assert not leaves_out(inner, "a/keep.log")
    assert leaves_out(inner, "a/other.log")
    assert leaves_out(inner, "a/b.md")
    assert not leaves_out(inner, "a/top.md")
    assert not leaves_out(inner, "a/.visible")


def test_a_group_spelled_inside_brackets_is_still_a_pattern() -> None:
    scope = Rules([], ["x[(?P<y>]"]).scope
    assert leaves_out(scope, "xP")
    assert not leaves_out(scope, "xq")


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # of what pathspec makes of `[[]`
@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.text("ab.#~!*?[]\\^- /", max_size=6), max_size=4),
    name=st.text("ab.#~!*?[]\\^- ", min_size=1, max_size=6),
    is_folder=st.booleans(),
)
@example(lines=["*"], name="a", is_folder=False)
@example(lines=["\\#*#"], name="#a#", is_folder=False)
@example(lines=["[ab]"], name="a", is_folder=False)
@example(lines=["a\\ "], name="a ", is_folder=False)
@example(lines=["a/"], name="a", is_folder=True)
def test_the_quick_look_at_a_name_passes_over_no_pattern_that_matches(
    lines: list[str], name: str, *, is_folder: bool
) -> None:
    patterns = Patterns(lines, built_in=["A*", "*.b", "ab", "-/"])
    matching = [each for each in patterns._backwards if each.matches(name, name, is_folder=is_folder)]
    expected = matching[0].leaves_out if matching else None
    assert patterns.verdict(name, name, is_folder=is_folder) is expected


NAMES = st.sampled_from(["a", "b", "c", "ab", "a.md", "b.md", "x y"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
SEGMENTS = st.sampled_from(["a", "b", "c", "*", "**", "?", "*.md", "a*", "[ab]", "[!a]", "ab", "x y"])
LINES = st.tuples(
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "", "/"]),
).map("".join)


@pytest.fixture(scope="module")
def git_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("git") is None:
        pytest.skip("Git is the reference here and is not installed")
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", "--bare", folder], check=True, capture_output=True)
    return folder


@settings(max_examples=60, deadline=None)
@given(
    paths=st.sets(PATHS, min_size=1, max_size=12),
    rules_files=st.dictionaries(st.sampled_from(["", "a", "a/b", "b"]), st.lists(LINES, max_size=5), max_size=3),
)
def test_ignore_files_mean_what_git_takes_them_to_mean(
    git_folder: Path, paths: set[str], rules_files: dict[str, list[str]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path in sorted(paths):
            file = root / path
            if not any(parent.is_file() for parent in file.parents) and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"")
        for folder, lines in rules_files.items():
            if (root / folder).is_dir():
                (root / folder / RULES_FILE).write_text("\n".join(lines), "utf-8")
        ask_git = ["git", f"--git-dir={git_folder}", f"--work-tree={root}", "ls-files", "--others", "-z"]
        listed = subprocess.run(
            [*ask_git, f"--exclude-per-directory={RULES_FILE}"], cwd=root, check=True, capture_output=True
        ).stdout
        expected = {os.fsdecode(path) for path in listed.split(b"\0") if path}
        found = Folder(root, Rules([], []), follow_symlinks=False, max_file_bytes=1).scan().files
        assert visible(found) == visible(expected)


def visible(paths: Iterable[str]) -> set[str]:
    return {path for path in paths if not path.rpartition("/")[2].startswith(".")}
