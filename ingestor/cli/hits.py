"""What `ingestor query` shows of a hit: where it is, its heading, and the passage that answers best.

Invariant: `path:line` stays in one piece on every terminal, for editors and grep; where nobody looks at a terminal a
hit is two lines, however long.
"""

import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ingestor.cli.output import out, printable
from ingestor.core.excerpt import excerpt

if TYPE_CHECKING:
    from rich.text import Text

    from ingestor.core.model import Hit

_EXCERPT_CHARACTERS = 240
_MARGIN = 7
_MIN_COLUMNS = 10
_GAP = "  "
_MARK = "bold magenta"


def print_hit(hit: "Hit", question: str, file: Path | None) -> None:
    """Print a hit; `question` is empty for a vector, and `file` what a click opens."""
    from rich.text import Text

    place = Text.assemble((f"{hit.score:.3f}", "bold"), _GAP, (printable(_place(hit)), _style(file)))
    heading = Text(printable(str(hit.metadata.get("heading") or hit.metadata.get("title") or "")))
    passage = _passage(hit.document, question)
    if not out.is_terminal:
        out.print(Text.assemble(place, _GAP, heading))
        out.print(Text.assemble(" " * _MARGIN, passage, "\n"))
        return
    one_line = Text.assemble(place, _GAP, heading)
    if one_line.cell_len <= out.console.width:
        out.print(one_line)
    else:
        out.print(place)
        _print_folded(heading)
    _print_folded(passage)
    out.print()


def _print_folded(text: "Text") -> None:
    """Print a text between the margin and the end of the terminal's lines."""
    from rich.text import Text

    for line in text.wrap(out.console, max(_MIN_COLUMNS, out.console.width - _MARGIN)):
        out.print(Text.assemble(" " * _MARGIN, line))


def _place(hit: "Hit") -> str:
    metadata = hit.metadata
    place = hit.id
    if "source" in metadata:
        place = f"{metadata['source']}:{metadata.get('start_line', '?')}-{metadata.get('end_line', '?')}"
    if page := metadata.get("page"):
        place += f" (page {page})"
    return place


def _style(file: Path | None) -> str:
    """Colour, and a hyperlink that names this machine, so that a terminal far away does not open a file of its own."""
    return "cyan" if file is None else f"cyan link file://{socket.gethostname()}{quote(bytes(file))}"


def _passage(document: str, question: str) -> "Text":
    from rich.text import Text

    passage = Text()
    for part, is_marked in excerpt(document, question, _EXCERPT_CHARACTERS).parts():
        passage.append(printable(part), _MARK if is_marked else "")
    return passage
