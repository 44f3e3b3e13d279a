"""Which kind of text a file is, by its name, and the grammar that knows its syntax."""

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

import tree_sitter_python


class Kind(StrEnum):
    """How a text is cut."""

    MARKDOWN = "markdown"
    PROSE = "prose"
    CODE = "code"
    LINES = "lines"


GRAMMARS: Final = {".py": tree_sitter_python.language(), ".pyi": tree_sitter_python.language()}
"""By file extension: what `CodeSplitter` takes for a language."""
GRAMMAR_PACKAGES: Final = ("tree-sitter-python",)

_MARKDOWN: Final = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"})
_LINES: Final = frozenset({".csv", ".tsv", ".psv", ".log", ".jsonl", ".ndjson", ".srt", ".vtt"})
_CODE: Final = frozenset(
    (  # noqa: SIM905 - a hundred names in a column would be longer than the rest of the file
        ".py .pyi .js .mjs .cjs .jsx .ts .tsx .go .rs .java .kt .kts .scala .c .h .cc .cpp .cxx .hpp .hh .cs .swift .m "
        ".rb .php .pl .pm .lua .r .jl .sh .bash .zsh .fish .ps1 .sql .proto .thrift .graphql .vue .svelte .dart .ex "
        ".exs .erl .hs .ml .clj .lisp .el .vim .tf .nix .cmake .gradle .groovy .zig .css .scss .less .html .htm .xml "
        ".xsd .svg .json .json5 .yaml .yml .toml .ini .cfg .conf .properties .env .diff .patch"
    ).split()
)
_CODE_NAMES: Final = frozenset({"makefile", "dockerfile", "containerfile", "jenkinsfile", "vagrantfile"})


def kind_of(file_name: str) -> Kind:
    """The kind of a file; prose where the name does not tell."""
    path = PurePosixPath(file_name.lower())
    if path.suffix in _MARKDOWN:
        return Kind.MARKDOWN
    if path.suffix in _LINES:
        return Kind.LINES
    if path.suffix in _CODE or path.name in _CODE_NAMES:
        return Kind.CODE
    return Kind.PROSE
