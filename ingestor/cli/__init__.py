"""The command line. One file per group of commands; what they share is in `output` and `options`.

Invariant: importing this costs little more than Typer: what a command needs is imported when it runs.
"""

from ingestor.cli.main import main

__all__ = ["main"]
