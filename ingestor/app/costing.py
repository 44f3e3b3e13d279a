"""Costing: whether a first sync may cost what it is about to, or somebody is asked first.

Invariant: nothing is embedded before that is known, and what was agreed to is not asked again. Where the collection has
records, a sync is not the first one, even if the ledger was lost.
"""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ingestor.adapters.chroma_sink import ChromaSink
from ingestor.adapters.ledger import SqliteLedger
from ingestor.app.embedder import currency_of, price_of
from ingestor.app.parts import folder_of, in_data_dir, ledger_of
from ingestor.app.plan import plan
from ingestor.core.errors import ServiceUnavailable, Undecided
from ingestor.core.estimating import cost_of
from ingestor.engine.gate import COST_APPROVED_NOTE, UNDECIDED_NOTE, undecided
from ingestor.settings import EmbeddingSettings, Settings

_TOKENS_PER_BYTE = 1.5
"""More than any text has, with what chunks repeat of each other."""


def costly(settings: Settings) -> Sequence[Undecided]:
    """What somebody has to agree to. Reads the folders where they are large enough to cost so much."""
    return list(dict.fromkeys(_held(settings.each()).values()))


def agree(settings: Settings) -> None:
    """Note that somebody has agreed to what the first sync costs."""
    for each in settings.each():
        with _made(each) as ledger:
            ledger.set_note(COST_APPROVED_NOTE, "yes")


def hold_costly(settings: Settings, sinks: Mapping[str, ChromaSink]) -> None:
    """Let new texts wait where a first sync would cost more than the settings allow without a question.

    What a former start has held for its cost, and would not now, goes on. The caller holds the instance lock.
    """
    keepers: dict[EmbeddingSettings, Settings] = {}
    beginning = []
    for each in settings.each():
        keepers.setdefault(each.embedding, each)
        if price_of(each.embedding) and _is_first(each) and not sinks[each.chroma.collection].count():
            beginning.append(each)
    found = _held(beginning, is_empty=True)
    for model, keeper in keepers.items():
        held = next(
            (found[each.source_name] for each in beginning if each.embedding == model and each.source_name in found),
            None,
        )
        # The gate of a model asks the ledger of the first source that has it.
        with ledger_of(keeper) as ledger:
            is_noted = ledger is not None and bool(ledger.note(UNDECIDED_NOTE))
        if held or (is_noted and price_of(model) and _is_first(keeper)):
            with _made(keeper) as ledger:
                ledger.set_note(UNDECIDED_NOTE, undecided(str(held), held.remedy) if held else "")


def _held(sources: Sequence[Settings], *, is_empty: bool = False) -> Mapping[str, Undecided]:
    """What has to be agreed to, by source: the sources of one currency cost together what their first sync costs.

    `is_empty` says that their collections have no record, which only Chroma knows for sure. A folder whose disk is
    away holds nobody up: there is nothing to embed of it.
    """
    by_currency: defaultdict[str, dict[str, Settings]] = defaultdict(dict)
    most: defaultdict[str, float] = defaultdict(float)
    for each in sources:
        price = price_of(each.embedding)
        if price and _is_first(each):
            with contextlib.suppress(ServiceUnavailable):
                size_bytes = sum(
                    size for _, size, *_ in folder_of(each, may_be_away=len(sources) > 1).scan().files.values()
                )
                by_currency[currency_of(each.embedding)][each.source_name] = each
                most[currency_of(each.embedding)] += cost_of(int(size_bytes * _TOKENS_PER_BYTE), price) or 0.0
    found: dict[str, Undecided] = {}
    for currency, together in by_currency.items():
        limit = min(each.embedding.confirm_above_cost for each in together.values())
        if most[currency] > limit and (held := _together(list(together.values()), currency, limit, is_empty=is_empty)):
            found |= dict.fromkeys(together, held)
    return found


def _together(sources: Sequence[Settings], currency: str, limit: float, *, is_empty: bool) -> Undecided | None:
    """What the first sync of some sources costs, if that is more than the limit."""
    planned = [plan(each, lambda _done, _total: None) for each in sources]
    first = [each for each in planned if is_empty or not each.caveat]
    cost = sum(each.price.cost or 0.0 for each in first)
    if cost <= limit:
        return None
    tokens, folders = sum(each.forecast.texts.tokens for each in first), ", ".join(each.watch_dir for each in first)
    money = f"{cost:,.2f} {currency}".rstrip()
    return Undecided(
        f"the first sync of {folders} embeds about {tokens:,} tokens, about {money}",
        remedy="`ingestor plan` shows more; `ingestor approve` agrees to it, and so does a higher "
        "embedding.confirm_above_cost",
    )


def _is_first(settings: Settings) -> bool:
    with ledger_of(settings) as ledger:
        return ledger is None or not (ledger.totals().documents or ledger.note(COST_APPROVED_NOTE))


def _made(settings: Settings) -> "contextlib.closing[SqliteLedger]":
    return contextlib.closing(SqliteLedger(in_data_dir(settings, settings.ledger_file)))
