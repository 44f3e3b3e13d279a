"""Check: names of files can be told as text."""

import locale
import os
import sys
from collections.abc import Sequence

from ingestor.app.doctor.folders import MAX_FACTS, named
from ingestor.app.doctor.premises import Premises
from ingestor.core.diagnosing import Finding, warning, well

_NAME = "names"


def check(premises: Premises) -> Sequence[Finding]:
    """The encoding of this process, and the names that it cannot read."""
    encoding = sys.getfilesystemencoding()
    facts = {"encoding": encoding, "locale": os.environ.get("LC_ALL") or os.environ.get("LANG", "")}
    found = [well(_NAME, f"names of files are read as {encoding}", **facts)]
    if encoding != "utf-8":
        remedy = "set LANG to a UTF-8 locale such as C.UTF-8, or PYTHONUTF8=1"
        found = [warning(_NAME, f"names of files are read as {encoding}, not as UTF-8", remedy, **facts)]
    elif locale.getpreferredencoding(do_setlocale=False).lower() not in {"utf-8", "utf8"}:
        sentence = f"the terminal is written to as {locale.getpreferredencoding(do_setlocale=False)}"
        found = [warning(_NAME, sentence, "set LANG to a UTF-8 locale such as C.UTF-8", **facts)]
    for seen in premises.surveys:
        odd = [path for path in seen.snapshot.files if not _is_text(path)]
        if odd:
            sentence = f"names that are no UTF-8, below {seen.settings.watch_dir}: {len(odd):,} ({named(odd)})"
            remedy = "rename them (convmv renames whole folders): Chroma refuses such names"
            found.append(warning(_NAME, sentence, remedy, count=len(odd), paths=sorted(odd)[:MAX_FACTS]))
    return found


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
