"""`ingestor embed` and `ingestor similarity`: the model itself, on texts given by hand."""

import base64
import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.completion import model_names
from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, out, print_json, printable, shown

if TYPE_CHECKING:
    from ingestor.app.embed import Comparison, Embedded
    from ingestor.ports import Vector

_BAR_CELLS = 24
_TEXT_CELLS = 240
_DECIMALS = 6


class EncodingFormat(StrEnum):
    """How a vector is written."""

    FLOAT = "float"
    BASE64 = "base64"


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="PROVIDER/MODEL[@DIMENSIONS], or a model of the configured provider (default: the configured model).",
        metavar="NAME",
        autocompletion=model_names,
    ),
]
DimensionsOption = Annotated[
    int | None,
    typer.Option("--dimensions", min=1, help="Length of the vectors (default: the model's own).", metavar="N"),
]


def embed(  # noqa: PLR0913, PLR0917 - the options of the command
    texts: Annotated[list[str], typer.Argument(help="The texts; a single - reads one from standard input.")],
    model: ModelOption = "",
    dimensions: DimensionsOption = None,
    encoding_format: Annotated[
        EncodingFormat, typer.Option(help="Numbers, or little-endian float32 in base64.")
    ] = EncodingFormat.FLOAT,
    query: Annotated[
        bool,
        typer.Option(
            "--query/--document",
            help="What the texts are: a model that tells questions from documents gets its prefix for it.",
        ),
    ] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Print the vectors of texts, in the form of the OpenAI API; what is in the vector store costs no tokens."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        import asyncio

        from ingestor.app import embed as app
        from ingestor.app.choice import embedding_for
        from ingestor.core.model import Purpose

        chosen = embedding_for(loaded.settings, model, dimensions)
        given = [app.text_of(sys.stdin.buffer.read())] if texts == ["-"] else texts
        purpose = Purpose.QUERY if query else Purpose.DOCUMENT
        embedded = asyncio.run(app.embed(loaded.settings, chosen, given, purpose))
        # One line: thousands of numbers, each on a line of its own, would help nobody.
        sys.stdout.write(json.dumps(_answer(embedded, encoding_format)) + "\n")


def similarity(  # noqa: PLR0913, PLR0917 - the options of the command
    query: Annotated[str, typer.Argument(help="What to compare with; embedded as a question.")],
    texts: Annotated[list[str], typer.Argument(help="What to compare; embedded as documents.")],
    model: ModelOption = "",
    dimensions: DimensionsOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare texts with a query: cosine similarity and Euclidean distance, the nearest first."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        import asyncio

        from ingestor.app import embed as app
        from ingestor.app.choice import embedding_for

        chosen = embedding_for(loaded.settings, model, dimensions)
        found = asyncio.run(app.compare(loaded.settings, chosen, query, texts))
        if as_json:
            print_json(_comparison_json(found))
        else:
            _print(found)


def _answer(embedded: "Embedded", encoding_format: EncodingFormat) -> dict[str, Any]:
    tokens = embedded.usage.tokens
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding_format)}
            for index, vector in enumerate(embedded.vectors)
        ],
        "model": embedded.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encoded(vector: "Vector", encoding_format: EncodingFormat) -> list[float] | str:
    if encoding_format is EncodingFormat.BASE64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector.tolist()
    return numbers


def _comparison_json(found: "Comparison") -> dict[str, Any]:
    return {
        "model": found.model,
        "dimensions": found.dimensions,
        "results": [
            {
                "text": row.text,
                "is_query": row.is_query,
                "cosine": round(row.cosine, _DECIMALS),
                "distance": round(row.distance, _DECIMALS),
            }
            for row in found.rows
        ],
        "usage": {"texts": found.usage.texts, "tokens": found.usage.tokens},
    }


def _print(found: "Comparison") -> None:
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("cosine", justify="right")
    table.add_column("")
    table.add_column("distance", justify="right")
    table.add_column("text")
    for row in found.rows:
        text = Text(printable(" ".join(row.text.split())), style="bold" if row.is_query else "")
        text.truncate(_TEXT_CELLS, overflow="ellipsis")
        bar = Bar(1.0, 0.0, max(0.0, row.cosine), width=_BAR_CELLS)
        table.add_row(f"{row.cosine:.4f}", bar, f"{row.distance:.4f}", text)
    out.print(table)
    out.print(f"{shown(found.model)}, {found.dimensions:,} dimensions")
