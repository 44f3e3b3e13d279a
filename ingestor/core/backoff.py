"""Backoff: how long to wait before the next attempt, and when to stop attempting.

Exponential with half jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that many
documents that failed together do not come back together; a Retry-After of the service is a lower bound, up to a day.
"""

from dataclasses import dataclass

from ingestor.core.waits import bounded_wait_seconds


@dataclass(frozen=True, slots=True)
class Backoff:
    """At most `max_attempts` tries; the n-th pause is at most `first_seconds * 2**(n-1)` and at most `max_seconds`."""

    first_seconds: float
    max_seconds: float
    max_attempts: int

    def pause_seconds(self, attempt: int, jitter: float, retry_after_seconds: float | None = None) -> float:
        """Pause after the `attempt`-th failure (from 1); `jitter` is a random number in [0, 1)."""
        ceiling_seconds = min(self.max_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 32))
        pause_seconds = ceiling_seconds * (0.5 + 0.5 * jitter)
        return max(pause_seconds, bounded_wait_seconds(retry_after_seconds, is_quota=True) or 0.0)

    def is_exhausted(self, attempts: int) -> bool:
        """Whether that many attempts were the last."""
        return attempts >= self.max_attempts
