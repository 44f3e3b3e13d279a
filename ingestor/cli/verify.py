"""`ingestor verify`: whether folder, ledger and collection say the same."""

from collections import Counter
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import EXIT_PROBLEMS, errors_explained, out, print_json, shown
from ingestor.cli.signals import run_in_order
from ingestor.core.escaping import spelled
from ingestor.language import translated

if TYPE_CHECKING:
    from ingestor.app.verify import Verification, Verified
    from ingestor.core.auditing import Finding
    from ingestor.engine.verify import Audit

_MAX_SHOWN = 20


def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what differs, then compare again.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare folder, ledger and collection, record by record. Exit code 0 only when all three agree."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import verify as app
        from ingestor.app.status import held

        found = run_in_order(app.verify(loaded.settings, is_repair=repair))
        if as_json:
            print_json(_as_json(found))
        else:
            kept = held(loaded.settings)
            for source in found.sources:
                _print(source, frozenset(kept.get(source.source, ())), is_repair=repair)
        if not found.is_sound:
            raise typer.Exit(EXIT_PROBLEMS)


def _as_json(found: "Verified") -> dict[str, Any]:
    spent = {
        "embedding": {"requests": found.usage.requests, "texts": found.usage.texts, "tokens": found.usage.tokens},
        "seconds": found.seconds,
    }
    if len(found.sources) == 1:
        return _source_json(found.sources[0]) | spent
    each = {source.source: _source_json(source) for source in found.sources}
    return {"is_sound": found.is_sound, "sources": each} | spent


def _source_json(found: "Verification") -> dict[str, Any]:
    last = found.last
    return {
        "is_sound": last.is_sound,
        "documents": last.documents,
        "records": last.records,
        "foreign_records": last.foreign,
        "unchecked_vectors": last.unchecked_vectors,
        "waiting": len(last.waiting),
        "found": _counts(found.first),
        "left": _counts(last),
        "findings": [_finding_json(finding) for finding in found.first.findings],
    }


def _finding_json(finding: "Finding") -> dict[str, str]:
    return {
        "kind": finding.kind.value,
        "path": spelled(finding.path),
        "record_id": finding.record_id,
        "reason": finding.reason,
    }


def _counts(audit: "Audit") -> dict[str, int]:
    return dict(sorted(Counter(finding.kind.value for finding in audit.findings).items()))


def _print(found: "Verification", held: AbstractSet[str], *, is_repair: bool) -> None:
    last = found.last
    if found.source:
        out.print(f"[bold]{shown(found.source)}[/]")
    for finding in found.first.findings[:_MAX_SHOWN]:
        said = translated(finding.reason) if finding.reason else finding.record_id
        kind = translated(finding.kind.value)
        out.print_verbatim(f"[bold]{kind}[/]  [cyan]{shown(finding.path)}[/]  {shown(said)}")
    more = len(found.first.findings) - _MAX_SHOWN
    if more > 0:
        out.print(f"… and {more} more: `ingestor verify --json` lists them")
    foreign = f", {last.foreign} records of others left alone" if last.foreign else ""
    out.print(f"{last.documents} documents, {last.records} records{foreign}")
    if last.unchecked_vectors:
        out.print(f"{last.unchecked_vectors} vectors could not be compared: the vector store does not have them")
    if last.waiting:
        out.print(
            f"{len(last.waiting)} documents wait in the queue: `ingestor status` and `ingestor problems` tell more"
        )
    if last.is_sound:
        mended = f"; {_sentence(found.first)} mended" if found.first.findings else ""
        out.print(f"folder, ledger and collection agree{mended}")
    elif last.findings:
        may_be_mended = not is_repair and any(finding.path not in held for finding in last.findings)
        out.print(f"[bold red]they do not agree[/]: {_sentence(last)}" + (" - run it with --repair" * may_be_mended))
    if held:
        from ingestor.app.health import held_back

        out.print(held_back(len(held)))


def _sentence(audit: "Audit") -> str:
    return ", ".join(f"{count} {kind}" for kind, count in _counts(audit).items())
