"""How fresh the two sources are, and for how long neither of them watched.

Every instant here is our own clock's (when something was received), never Follow Up Boss's.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from fubd.core.vocabulary import HEALTHY, STALE


def source_status(source: str, last_heard: datetime | None, now: datetime, *, stale_after_seconds: float, fails: bool) -> str:
    """Return the status of a source, as `/health` and the view `source_health` show it. `fails`: it is known to fail (failover)."""
    return HEALTHY if not fails and is_fresh(last_heard, now, within_seconds=stale_after_seconds) else STALE[source]


def is_fresh(last_heard: datetime | None, now: datetime, *, within_seconds: float) -> bool:
    """Return whether the source was heard within these seconds. An instant in the future (our clock was set back) is fresh."""
    return last_heard is not None and (now - last_heard).total_seconds() <= within_seconds


def watched_until(
    webhook_heard: datetime | None,
    polled: datetime | None,
    *,
    webhooks_fail: bool,
    poll_delay_seconds: float,
    webhook_stale_after_seconds: float,
    poll_stale_after_seconds: float,
) -> datetime | None:
    """Return the instant up to which at least one source watches; None when neither was ever heard.

    Webhooks watch until their silence turns stale, unless it is proven that they fail. Polling watches until the next poll is one full
    delay late, and never for longer than its own staleness.
    """
    ends = []
    if webhook_heard is not None and not webhooks_fail:
        ends.append(webhook_heard + timedelta(seconds=webhook_stale_after_seconds))
    if polled is not None:
        ends.append(polled + timedelta(seconds=min(2 * poll_delay_seconds, poll_stale_after_seconds)))
    return max(ends, default=None)


def blind_seconds(since: datetime, until: datetime, watched: datetime | None) -> float:
    """Return how many seconds between `since` and `until` lie after `watched`: no source would have seen a change come and go."""
    unwatched_from = since if watched is None else max(since, watched)
    return max(0.0, (until - unwatched_from).total_seconds())
