"""Costing: whether a first sync may cost what it is about to, or somebody is asked first.

Invariant: nothing is embedded before that is known, and what was agreed to is not asked again. Where the collection has
records, a sync is not the first one, even if the ledger was lost.
"""

import contextlib
from collections.abc import Mapping

from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.ledger import SqliteLedger
from ingestor.app.embedder import price_of
from ingestor.app.parts import folder_of, in_data_dir, ledger_of
from ingestor.app.plan import plan
from ingestor.core.errors import ServiceUnavailable, Undecided
from ingestor.core.estimating import cost_of
from ingestor.engine.gate import COST_APPROVED_NOTE, UNDECIDED_NOTE, undecided
from ingestor.settings import EmbeddingSettings, Settings

_TOKENS_PER_BYTE = 1.5
"""More than any text has, with what chunks repeat of each other."""


def costly(settings: Settings) -> Mapping[str, Undecided]:
    """What somebody has to agree to, by source. Reads the folder where it is large enough to cost so much."""
    found = {each.source_name: _held(each) for each in settings.each()}
    return {name: held for name, held in found.items() if held is not None}


def agree(settings: Settings) -> None:
    """Note that somebody has agreed to what the first sync costs."""
    for each in settings.each():
        with _made(each) as ledger:
            ledger.set_note(COST_APPROVED_NOTE, "yes")


def hold_costly(settings: Settings, sinks: Mapping[str, ChromaSink]) -> None:
    """Let new texts wait where a first sync would cost more than the settings allow without a question.

    What a former start has held for its cost, and would not now, goes on. The caller holds the instance lock.
    """
    found: dict[EmbeddingSettings, Undecided | None] = {}
    keepers: dict[EmbeddingSettings, Settings] = {}
    for each in settings.each():
        keepers.setdefault(each.embedding, each)
        if price_of(each.embedding) and _is_first(each):
            is_empty = not sinks[each.chroma.collection].count()
            # A folder whose disk is away holds nobody up: there is nothing to embed of it.
            with contextlib.suppress(ServiceUnavailable):
                held = _held(each, is_empty=True) if is_empty else None
                found[each.embedding] = found.get(each.embedding) or held
    for model, held in found.items():
        # The gate of a model asks the ledger of the first source that has it.
        with ledger_of(keepers[model]) as ledger:
            is_noted = ledger is not None and bool(ledger.note(UNDECIDED_NOTE))
        if held or (is_noted and _is_first(keepers[model])):
            with _made(keepers[model]) as ledger:
                ledger.set_note(UNDECIDED_NOTE, undecided(str(held), held.remedy) if held else "")


def _held(settings: Settings, *, is_empty: bool = False) -> Undecided | None:
    """What has to be agreed to; `is_empty` says that the collection has no record, which only Chroma knows for sure."""
    chosen = settings.embedding
    price = price_of(chosen)
    if not price or not _is_first(settings):
        return None
    size_bytes = sum(size for _, size, *_ in folder_of(settings).scan().files.values())
    if (cost_of(int(size_bytes * _TOKENS_PER_BYTE), price) or 0.0) <= chosen.confirm_above_cost:
        return None
    planned = plan(settings, lambda _done, _total: None)
    cost = planned.price.cost or 0.0
    if (planned.caveat and not is_empty) or cost <= chosen.confirm_above_cost:
        return None
    money = f"{cost:,.2f} {planned.price.currency}".rstrip()
    return Undecided(
        f"the first sync of {planned.watch_dir} embeds about {planned.forecast.texts.tokens:,} tokens, about {money}",
        remedy="`ingestor plan` shows more; `ingestor approve` agrees to it, and so does a higher "
        "embedding.confirm_above_cost",
    )


def _is_first(settings: Settings) -> bool:
    with ledger_of(settings) as ledger:
        return ledger is None or not (ledger.totals().documents or ledger.note(COST_APPROVED_NOTE))


def _made(settings: Settings) -> "contextlib.closing[SqliteLedger]":
    return contextlib.closing(SqliteLedger(in_data_dir(settings, settings.ledger_file)))
