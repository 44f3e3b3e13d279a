"""What is attached to a file: settings of folders, sidecars, and the name that the ledger keeps of them."""

import pytest

from ingestor.core.attaching import (
    UNTELLABLE,
    FolderSettings,
    Ground,
    deepened,
    folder_settings,
    name_of,
    own_metadata,
    recipe_in,
    sidecar_layer,
)
from ingestor.core.errors import UnusableMetadata
from ingestor.core.frontmatter import front_matter_of
from ingestor.core.metadata import MAX_BYTES, expanded
from ingestor.core.model import NOTHING, UNKNOWN_STAT, Attached, ChunkSize, Content

PATH = "a/.ingestor.toml"
GROUND = Ground(size=ChunkSize(100, 0), most_tokens=500)


def test_a_file_without_anything_attached_has_the_empty_name() -> None:
    assert name_of(NOTHING) == ""
    assert name_of(deepened(NOTHING, folder_settings(b'ignore = ["x"]', PATH), GROUND, PATH)) == ""
    assert name_of(deepened(NOTHING, folder_settings(b"[chunk]\nmax_tokens = 100", PATH), GROUND, PATH)) == ""


def test_whatever_is_attached_changes_the_name_and_a_comment_does_not() -> None:
    def named(raw: bytes) -> str:
        return name_of(deepened(NOTHING, folder_settings(raw, PATH), GROUND, PATH))

    texts = (b"[metadata]\na = 1", b"[metadata]\na = true", b'[metadata]\na = "1"', b"[chunk]\nmax_tokens = 99")
    names = {named(raw) for raw in texts} | {name_of(NOTHING, UNKNOWN_STAT.version), UNTELLABLE, ""}
    assert len(names) == 7
    assert named(b"# a comment\n[metadata]\na=1 # another") == named(texts[0])
    assert all(recipe_in(f"cut2-440-0-ab{name}") == "cut2-440-0-ab" for name in names)


def test_deeper_folders_front_matter_and_sidecar_win_in_this_order() -> None:
    attached = Ground({"a": "setting", "b": "setting", "c": "setting", "d": "setting", "e": "setting"}).attached
    for raw in (b'[metadata]\nb="root"\nc="root"\nd="root"\ne="root"', b'[metadata]\nc="deep"\nd="deep"\ne="deep"'):
        attached = deepened(attached, folder_settings(raw, PATH), GROUND, PATH)
    front = front_matter_of("---\nd: front\ne: front\n---\n", "x.md")
    assert front is not None
    content = Content(UNKNOWN_STAT, b"", "", attached, b'\xef\xbb\xbf{"e": "sidecar"}')
    told = own_metadata(content, "x.md", front.layer)
    assert told == {"a": "setting", "b": "root", "c": "deep", "d": "front", "e": "sidecar"}


def test_sizes_are_set_one_by_one_and_checked_together() -> None:
    inner = deepened(NOTHING, folder_settings(b"[chunk]\noverlap_tokens = 50", PATH), GROUND, PATH)
    assert inner.size == ChunkSize(100, 50)
    deepest = deepened(inner, folder_settings(b"[chunk]\nmax_tokens = 200", PATH), GROUND, PATH)
    assert deepest.size == ChunkSize(200, 50)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b"[chunk]\nmax_tokens = 501", "chunk.max_tokens"),
        (b"[chunk]\nmax_tokens = 15", "chunk.max_tokens"),
        (b"[chunk]\nmax_tokens = true", "chunk.max_tokens"),
        (b'[chunk]\nmax_tokens = "90"', "chunk.max_tokens"),
        (b"[chunk]\noverlap_tokens = 51", "chunk.overlap_tokens"),
        (b"[chunk]\noverlap_tokens = -1", "chunk.overlap_tokens"),
        (b"[chunk]\nsize = 90", "chunk.size"),
        (b"chunk = 90", "chunk"),
        (b"[metdata]\na = 1", "metdata"),
        (b"[metadata]\nsource = 'x'", "source"),
        (b"[metadata]\na = nan", "a"),
        (b"metadata = 1", "metadata"),
    ],
)
def test_a_fault_of_a_settings_file_names_the_key_the_file_and_a_remedy(raw: bytes, key: str) -> None:
    inner = folder_settings(b'ignore = ["*.log"]\n' + raw, PATH)
    assert inner.ignore == ("*.log",)
    with pytest.raises(UnusableMetadata, match=PATH) as caught:
        deepened(NOTHING, inner, GROUND, PATH)
    assert f"the key {key}" in str(caught.value)
    assert caught.value.remedy


def test_a_settings_file_that_is_no_toml_is_a_fault_and_one_that_may_ignore_is_an_error() -> None:
    assert folder_settings(b"[metadata\n", PATH).fault is not None
    assert folder_settings(b"a = '" + b"x" * MAX_BYTES, PATH).fault is not None
    for raw in (b"ignore = [\n", b"ignore = 7", b"ignore = [7]", b'[metadata]\na=1\nignore = ["x"]'):
        with pytest.raises(UnusableMetadata, match=PATH):
            folder_settings(raw, PATH)


def test_a_fault_above_stays_untellable_below() -> None:
    broken = Attached(is_known=False)
    assert name_of(deepened(broken, FolderSettings(layer={"a": 1}), GROUND, PATH)) == UNTELLABLE
    assert name_of(broken, UNKNOWN_STAT.version) == UNTELLABLE


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"a": }', b"\xff", b'"' + b"x" * MAX_BYTES + b'"', b'{"a": NaN}'])
def test_a_sidecar_that_is_no_object_of_metadata_is_told_by_its_name(raw: bytes) -> None:
    with pytest.raises(UnusableMetadata, match=r"x\.md\.meta\.json") as caught:
        sidecar_layer(raw, "x.md")
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        "---\n",
        "---\ntitle: never closed\n",
        "---\n---\n",
        "---\n# only a comment\n---\n",
        "---\nProse between two rules.\n\n---\n",
        "---\n**Prose**: with: colons\n---\n",
        "---\n- a\n- list\n---\n",
        "\n---\ntitle: not at the start\n---\n",
        "----\ntitle: four\n----\n",
    ],
)
def test_a_text_that_begins_with_a_rule_has_no_front_matter(text: str) -> None:
    assert front_matter_of(text, "x.md") is None


@pytest.mark.parametrize("opening", ["---\n", "\ufeff---\n", "--- \t\n"])
@pytest.mark.parametrize("closing", ["---\n", "...\n", "---", "--- \n"])
def test_front_matter_is_found_between_its_fences(opening: str, closing: str) -> None:
    text = f"{opening}title: x\ndate: 2026-01-02\n{closing}"
    found = front_matter_of(text, "x.md")
    assert found is not None
    assert (found.end, expanded(found.layer)) == (len(text), {"title": "x", "date": "2026-01-02"})


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("title: a: b\n", "line 2"),
        ("\n# note\n'title': [\n", "line"),
        ("a: &x [1]\nb: *x\n", "alias"),
        ("a: !!python/name:os.system\n", "a tag"),
        ("a: !!bool maybe\n", "a tag"),
        ("a: !!timestamp never\n", "a tag"),
        ("a: " + "[" * 30_000 + "\n", "deep"),
        ("a: 2026-13-01\n", "month"),
        ("a: " + "x" * MAX_BYTES + "\n", "65,536 bytes"),
        ("7: x\nseven: 7\n", "the key 7"),
    ],
)
def test_what_is_meant_as_front_matter_and_cannot_be_taken_is_a_fault_of_the_file(block: str, reason: str) -> None:
    with pytest.raises(UnusableMetadata, match=reason) as caught:
        front_matter_of(f"---\n{block}---\ntext\n", "notes/x.md")
    assert "notes/x.md" in str(caught.value)
    assert caught.value.remedy
