"""Check: whether what the folders hold besides text can be converted."""

from collections import Counter
from collections.abc import Sequence

from ingestor.adapters import conversion
from ingestor.app.doctor.premises import Premises
from ingestor.core.diagnosing import Finding, warning, well
from ingestor.core.formats import format_of, formats_of
from ingestor.engine.reconcile import CONVERTER_REMEDY

_NAME = "converters"


def check(premises: Premises) -> Sequence[Finding]:
    """Formats of the files, and what nothing here converts."""
    counts, left = Counter[str](), Counter[str]()
    for seen in premises.surveys:
        counts.update(format_.value for format_ in formats_of(seen.snapshot.files).values())
        left.update(format_.value for path in seen.snapshot.unconverted if (format_ := format_of(path)))
    converter = conversion.name() if conversion.is_installed() else None
    facts = {"converter": converter, "converted": dict(counts), "left_out": dict(left)}
    if left:
        sentence = f"nothing here converts {_told(left)}: these files are left out"
        return [warning(_NAME, sentence, CONVERTER_REMEDY, **facts)]
    if counts:
        by = f"converted by {converter}" if converter else "taken as the text that it is"
        return [well(_NAME, f"{by}: {_told(counts)}", **facts)]
    return [well(_NAME, "no file has to be converted", **facts)]


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {format_}" for format_, count in counts.most_common())
