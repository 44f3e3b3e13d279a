"""What the source of the product tells people: its literals and f-strings, read from the source and not from a list.

Invariant: whatever holds two words is told, unless its place says otherwise; `NOT_TOLD` names the rest with reasons.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer.main

import ingestor
from ingestor.adapters import chroma_server
from ingestor.cli.main import app
from ingestor.language import spoken

ROOT = Path(ingestor.__file__).parent
_INTERNAL: Final = {"AssertionError", "LookupError", "NotImplementedError", "RuntimeError", "TypeError"}
"""Defects of the program, which end up in a report and not with a user."""
_SQL: Final = re.compile(r"\s*(SELECT|INSERT|DELETE|UPDATE|PRAGMA|BEGIN|CREATE|ALTER|DROP|VACUUM) [A-Z_a-z(]+")
_TWO_WORDS: Final = re.compile(r"[A-Za-z]{2}.* .*[A-Za-z`]|[A-Za-z`].* .*[A-Za-z]{2}", re.DOTALL)
_COMMAND: Final = re.compile(r"ingestor [a-z]+\b")
"""What is to be typed."""
_MARKUP: Final = re.compile(r"\[/?[a-z ]*\]")
_NOT_SENTENCES: Final = {"adapters/western.py", "core/grammars.py", "core/refusals.py"}
"""Lists of words, of file names, and of what providers say."""
_TO_PROGRAMS: Final = ("metrics/", "web/", "mcp.py")
"""What is told to programs: Prometheus, those that use the HTTP API, language models. The page has words of its own."""
_TO_PEOPLE: Final = {"web/listening.py", "web/server.py"}
"""But for these, whose errors end the command."""

NOT_TOLD: Final[dict[str, tuple[str, ...]]] = {
    "names that other systems give to folders": (
        "Network Trash Folder/",
        "Temporary Items/",
        "System Volume Information/",
    ),
    "the keys of metadata": (
        (
            "source file_name file_type file_size last_modified content_hash document_id chunk start_line end_line "
            "heading embedding_model ingested_at page"
        ),
    ),
    "part of an answer of Chroma, which is looked for": (
        "Error finding id",
        "expecting embedding with dimension",
        "limit is {}",
        "already exists",
    ),
    "a program": (chroma_server._COMMAND.strip(),),
    "part of what Python says of broken text, which is looked for": ("unexpected end of data",),
    "the text that a new engine is tried with": ("query: the folder is the collection 文件夹就是集合",),
    "the text that a model is known again by": ("The folder is the collection. 文件夹就是集合。",),
    "a name in the ledger": ("tokens of",),
    "part of what SQLite says, which is looked for": ("Could not decode", "malformed JSON"),
    "SQL": (
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
        "SELECT 1 FROM sqlite_master WHERE name = 'uses'",
    ),
    "told to programmers alone": (
        "LocalEmbedder({}, threads={})",
        "OpenAIEmbedder({}, base_url={})",
        "set for each request",
        "the configuration of the embedding function {} lacks {}",
        "the configuration of the embedding function {} lacks base_url",
    ),
    "a word of matplotlib": ("outside lower center",),
    "part of what the kernel says, which is looked for": ("inotify wd:",),
    "part of what watchdog says, which is looked for": (
        "Callback with id '",
        "called when the thread is inactive",
    ),
    "told in the log alone": ("thread {} did not end",),
    "part of what pydantic says, which is taken off": ("Value error",),
    "a command, as the lock notes it": (
        "collections rename",
        "collections delete",
    ),
    "drawn into a picture, whose font may have no Chinese": ("{} questions, {} texts",),
    "an example of JSON": (
        '{"file_name": "notes.md"}',
        '{"topic": "law"}',
        '{"author": "Ada"}',
        '{"$contains": "law"}',
    ),
    "settings to copy": ("{}=openai INGESTOR_EMBEDDING__BASE_URL=… {}=",),
    "a defect of the program": ("a plan for {} has neither a state before nor one after",),
    "a step, as the journal notes it": (
        "keep ledger",
        "step aside",
        "step in",
        "step back",
        "take ledger",
        "note ledger",
        "drop ledger",
    ),
    "a style of rich": (
        "bold red",
        "bold magenta",
        "cyan link file://{}{}",
    ),
}
"""What holds two words and is told to nobody, by the reason."""


def templates() -> dict[str, str]:
    """Each template that is told, `{}` for each hole, and the first place where the source has it."""
    found: dict[str, str] = {}
    for file in sorted(ROOT.rglob("*.py")):
        place = file.relative_to(ROOT).as_posix()
        if place in _NOT_SENTENCES or (place.startswith(_TO_PROGRAMS) and place not in _TO_PEOPLE):
            continue
        for line, template in _told_in(ast.parse(file.read_text(encoding="utf-8")), is_cli=place.startswith("cli/")):
            if _TWO_WORDS.search(_MARKUP.sub("", template)) and not (_SQL.match(template) or _COMMAND.match(template)):
                found.setdefault(spoken(template), f"{place}:{line}")
    return found


def words() -> set[str]:
    """Every literal of the source, long or short."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in ROOT.rglob("*.py"))
    return {
        spoken(template)
        for tree in trees
        for node in ast.walk(tree)
        for template in [_template(node)]
        if template is not None
    }


def _told_in(node: ast.AST, *, is_cli: bool, is_sentence: bool = True) -> Iterator[tuple[int, str]]:
    template = _template(node)
    if template is not None and is_sentence:
        yield node.lineno, template  # type: ignore[attr-defined]  # every literal has a line
    for child in _children(node, is_cli=is_cli):
        # The literal parts of an f-string belong to its template; what stands in its holes may tell something, too.
        is_part = isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)
        is_spec = isinstance(node, ast.FormattedValue) and child is node.format_spec
        yield from _told_in(child, is_cli=is_cli, is_sentence=not (is_part or is_spec))


def _template(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in values)
    return None


def _children(node: ast.AST, *, is_cli: bool) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Constant()):
            return  # a docstring
        case ast.Raise(exc=ast.Call(func=ast.Name(id=name))) if name in _INTERNAL:
            return
        case ast.AnnAssign(value=value):
            yield from [node.annotation] if is_cli else []
            yield from [value] if value is not None else []
            return
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield node.args
            yield from (*node.body, *node.decorator_list)
            return
        case ast.arg(annotation=annotation):
            # Typer reads options and their helps from annotations; all others are types.
            yield from [annotation] if is_cli and not isinstance(annotation, ast.Constant | None) else []
            return
        case ast.Call(func=function) if _is_silent(function):
            return
    yield from ast.iter_child_nodes(node)


def _is_silent(function: ast.expr) -> bool:
    """Whether what a function is called with is told to nobody: regular expressions, types, events of the log."""
    match function:
        case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
            is_logged = attribute in {"debug", "info", "warning", "error", "exception", "critical", "bind"}
            return owner == "re" or (is_logged and "log" in owner)
        case ast.Name(id=name):
            return name in {"cast", "TypeVar", "Literal"}
    return False


def helps() -> set[str]:
    """The paragraphs with which the commands explain themselves, which are their docstrings."""
    pending: list[Any] = [typer.main.get_command(app)]
    found: set[str] = set()
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        for text in (command.help, command.short_help):
            found |= {" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n")}
    return found - {""}
