"""What is told of the folder: events, the watch itself, and comparisons with the ledger."""

from dataclasses import fields

from ingestor.core.model import DoubtKind
from ingestor.engine.reconcile import Reconciled
from ingestor.engine.tally import HINT_KINDS
from ingestor.metrics.family import Family, Samples, Source, by, counter, gauge, histogram, one

WATCH_MODES = ("inotify", "polling")


def _last_found(source: Source) -> Samples:
    last = source.pipeline.reconciler.last
    kinds = [field.name for field in fields(Reconciled) if field.name != "seconds"]
    return {} if last is None else {(kind,): getattr(last, kind) for kind in kinds}


WATCHING: tuple[Family, ...] = (
    counter(
        "ingestor_hints_total",
        "Events of the file system, by what they are about: a folder, a file that is complete, any other file.",
        lambda source: by(source.tally.hints, HINT_KINDS),
        "kind",
    ),
    gauge(
        "ingestor_last_hint_timestamp_seconds",
        "When the last event came; 0 before the first.",
        lambda source: one(source.tally.hinted_seconds),
    ),
    gauge(
        "ingestor_watch_up",
        "Whether the folder is watched just now.",
        lambda source: one(source.followed.line.follower.is_watching),
    ),
    gauge(
        "ingestor_watch_mode",
        "How events are had: 1 for the mode in force.",
        lambda source: by({source.followed.line.watch.mode: 1}, WATCH_MODES),
        "mode",
    ),
    gauge(
        "ingestor_watch_limited",
        "Whether something keeps events from being had as they should be; `ingestor status` says what.",
        lambda source: one(bool(source.followed.line.watch.limitation)),
    ),
    counter(
        "ingestor_watch_restarts_total",
        "How often the watch was doubted and started again, by reason.",
        lambda source: by(source.tally.restarts, DoubtKind),
        "reason",
    ),
    counter(
        "ingestor_rescans_total",
        "How often the folder was compared though the watch was sound and it was not time yet, by reason.",
        lambda source: by(source.tally.rescans, DoubtKind),
        "reason",
    ),
    counter(
        "ingestor_drift_documents_total",
        "Documents that a comparison due by time has found different and no event had told of; a lower bound.",
        lambda source: one(source.tally.drift),
    ),
    counter(
        "ingestor_reconcile_differences_total",
        "Paths that comparisons have found: present and new or different, or gone.",
        lambda source: by({"present": source.tally.present, "gone": source.tally.gone}),
        "kind",
    ),
    gauge(
        "ingestor_last_reconcile_paths",
        "What the last comparison of the whole folder has found.",
        _last_found,
        "kind",
    ),
    gauge(
        "ingestor_last_reconcile_timestamp_seconds",
        "When the last comparison of the whole folder ended; 0 before the first.",
        lambda source: one(source.pipeline.reconciler.last_at_seconds),
    ),
    gauge(
        "ingestor_rescan_interval_seconds",
        "After how long the whole folder is compared again, whatever events say.",
        lambda source: one(source.pipeline.rescan_seconds),
    ),
    histogram(
        "ingestor_reconcile_seconds",
        "How long comparisons of the whole folder took.",
        lambda source: {(): source.tally.compared},
    ),
    gauge(
        "ingestor_held_deletions",
        "Deletions that wait for `ingestor approve`.",
        lambda source: one(source.pipeline.reconciler.held),
    ),
)
