"""Laws of front matter: whatever a file begins with, its lines are accounted for, and only a Problem is raised."""

import json
from contextlib import suppress

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingestor.core.attaching import folder_settings, sidecar_layer
from ingestor.core.errors import UnusableMetadata
from ingestor.core.frontmatter import front_matter_of
from ingestor.core.metadata import MAX_KEYS, expanded
from ingestor.engine.reading import Reader
from tests.doubles_folder import MemoryFolder
from tests.world import LineCutter, decode

IS_THOROUGH = settings().max_examples > 100
UNHURRIED = settings(deadline=None, derandomize=not IS_THOROUGH, suppress_health_check=[HealthCheck.too_slow])
PIECES = st.sampled_from(
    [
        "---\n",
        "...\n",
        "--- \n",
        "title: x\n",
        "a: [1, 2]\n",
        "a: {b: c}\n",
        "- x\n",
        "key:\n  sub: 1\n",
        "prose here\n",
        "a: &x y\n",
        "b: *x\n",
        "<<: *x\n",
        "c: !!binary aGk=\n",
        "d: !tag x\n",
        "l: !!bool x\n",
        "m: !!timestamp x\n",
        "? [\n",
        "e: '\n",
        'f: "\n',
        "g: |\n  text\n",
        "h: 2024-99-99\n",
        "i: .nan\n",
        "j: 0b_\n",
        "=: =\n",
        "1: 2\n",
        "\n",
        "# note\n",
        "k: 1:60:60\n",
        "\t\n",
        "%YAML 9.9\n",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=12), max_size=12).map("".join).map(lambda text: text.replace("\r", "\n"))
KEYS = st.text("abcdefgh_-词", min_size=1, max_size=6)
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | WORDS | st.dates()
TREES = st.dictionaries(
    KEYS,
    st.recursive(SCALARS | st.lists(SCALARS, max_size=4), lambda each: st.dictionaries(KEYS, each, max_size=3)),
    max_size=5,
)


@UNHURRIED
@given(text=TEXTS)
@example("---\na: 1\n---")
@example("\ufeff---\na: 1\n...\n")
@example("---\na: " + "[" * 9_000 + "\n---\n")
def test_whatever_a_text_begins_with_it_is_told_or_left_alone(text: str) -> None:
    with suppress(UnusableMetadata):
        found = front_matter_of("---\n" + text, "a.md")
        if found is not None:
            assert ("---\n" + text)[: found.end].rstrip(" \t\n").endswith(("---", "..."))


@UNHURRIED
@given(text=TEXTS)
def test_text_and_offset_make_up_the_lines_of_the_file(text: str) -> None:
    folder = MemoryFolder()
    whole = "---\n" + text.encode(errors="replace").decode().replace("\0", "")
    folder.write("a.md", whole.encode())
    with suppress(UnusableMetadata):
        document = Reader(folder, decode, LineCutter()).read("a.md")
        lines = whole.split("\n")
        assert all(lines[chunk.start_line - 1] == chunk.text for chunk in document.chunks)
        # What was taken out stands at the top; all else is there.
        first = document.chunks[0].start_line if document.chunks else len(lines) + 1
        assert [line for line in lines[first - 1 :] if line] == [chunk.text for chunk in document.chunks]


@UNHURRIED
@given(tree=TREES)
def test_what_yaml_writes_is_read_as_what_json_writes(tree: dict[str, object]) -> None:
    block = yaml.safe_dump(tree, allow_unicode=True)
    if not tree or "&" in block:
        return
    try:
        found = front_matter_of(f"---\n{block}---\ntext", "a.md")
    except UnusableMetadata:
        return
    assert found is not None
    sidecar = json.dumps(tree, default=lambda each: each.isoformat()).encode()
    assert expanded(found.layer) == expanded(sidecar_layer(sidecar, "a.md"))
    assert all(isinstance(value, str | int | float | bool) for value in expanded(found.layer).values())


@UNHURRIED
@given(raw=st.binary(max_size=60) | TEXTS.map(lambda text: text.encode(errors="replace")))
@example(b"a" + b"[" * 60_000)
@example(b'{"a":' * 10_000)
@example(b"a=" + b"[" * 60_000)
@example(b"\xff")
@example(b"1" * 5_000)
@example(b"ignore = 7")
def test_any_bytes_are_a_sidecar_or_settings_or_a_named_fault(raw: bytes) -> None:
    with suppress(UnusableMetadata):
        assert len(sidecar_layer(raw, "a.md")) <= MAX_KEYS
    with suppress(UnusableMetadata):
        told = folder_settings(raw, ".ingestor.toml")
        assert told.fault is None or not told.layer
