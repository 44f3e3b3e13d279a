"""Suggesting: what a folder holds that its owner hardly means to search, and would pay for."""

import contextlib
from collections.abc import Collection

from ingestor.adapters.gitignores import ignored_by_git
from ingestor.adapters.rules import RULES_FILE
from ingestor.app.parts import folder_of, ledger_of
from ingestor.core.bulk import bulky
from ingestor.core.errors import IngestorError
from ingestor.settings import Settings

_MOST_NAMES = 3


def suggestions(settings: Settings, paths: Collection[str] | None = None) -> list[str]:
    """Sentences on files that could be left out; `paths` are those of the folder, which is scanned without them.

    Raises as `folder_of`.
    """
    if paths is None:
        paths = folder_of(settings).scan().files.keys()
    total = len(paths)
    found = [
        f"{count:,} of {total:,} files lie below {name}: leave them out, by `{name}/` in watch.exclude or {RULES_FILE}?"
        for name, count in bulky(paths)[:_MOST_NAMES]
    ]
    if ignored := ignored_by_git(settings.watch_dir, paths):
        found.append(
            f"{ignored:,} of {total:,} files are left out by .gitignore, which is not looked at: "
            f"copy its lines to {RULES_FILE}?"
        )
    return found


def first_suggestions(settings: Settings) -> list[str]:
    """Those of sources that were never indexed."""
    found: list[str] = []
    for each in settings.each():
        # What cannot be looked at is told by whoever has to, with what to do about it.
        with contextlib.suppress(IngestorError), ledger_of(each) as ledger:
            if each.watch_dir.is_dir() and (ledger is None or not ledger.totals().documents):
                found += suggestions(each)
    return found
