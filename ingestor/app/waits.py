"""Waits: how people are told of documents that wait for a service, once for so many."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from ingestor.core.counting import counted
from ingestor.core.model import ServiceWait


def told_wait(wait: ServiceWait, *, is_attended: bool, has_reason: bool = False) -> str:
    """How many documents wait for a service, since when, and when it is tried again, in one sentence.

    `is_attended` says whether anybody is at work who tries it again, `has_reason` whether the service's words follow.
    """
    now_seconds = time.time()
    count, service, since = wait.documents, wait.service, _clock_time(wait.since_seconds, now_seconds)
    again = "now" if wait.next_try_seconds <= now_seconds else _clock_time(wait.next_try_seconds, now_seconds)
    if not is_attended:
        again = "at the next start"
    if has_reason:
        reason = reason_of(wait)
        return counted(
            count,
            f"1 document waits for {service} (since {since}, next try {again}): {reason}",
            f"{count} documents wait for {service} (since {since}, next try {again}): {reason}",
        )
    return counted(
        count,
        f"1 document waits for {service} (since {since}, next try {again})",
        f"{count} documents wait for {service} (since {since}, next try {again})",
    )


def reason_of(wait: ServiceWait) -> str:
    """What is known of the service's being away, with the remedy, in one line."""
    return f"{wait.reason} - {wait.remedy}" if wait.remedy else wait.reason


def merged(waits: Iterable[ServiceWait]) -> list[ServiceWait]:
    """The waits of several sources, by service."""
    found: dict[str, ServiceWait] = {}
    for each in waits:
        known = found.get(each.service)
        found[each.service] = each if known is None else _together(known, each)
    return [found[service] for service in sorted(found)]


def _together(one: ServiceWait, other: ServiceWait) -> ServiceWait:
    latest = max(one, other, key=lambda wait: wait.next_try_seconds)
    return ServiceWait(
        service=one.service,
        documents=one.documents + other.documents,
        reason=latest.reason,
        remedy=latest.remedy,
        since_seconds=min(one.since_seconds, other.since_seconds),
        next_try_seconds=min(one.next_try_seconds, other.next_try_seconds),
    )


def _clock_time(seconds: float, now_seconds: float) -> str:
    """A time for people, in their own zone; with its day where that is another one."""
    then, now = (datetime.fromtimestamp(each, UTC).astimezone() for each in (seconds, now_seconds))
    return then.strftime("%H:%M" if then.date() == now.date() else "%Y-%m-%d %H:%M")
