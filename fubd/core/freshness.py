"""How fresh the two sources are, folded to words; and the time in which neither of them watched.

Every instant here is our own clock's (when something was *heard*), never Follow Up Boss's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

HEALTHY = "HEALTHY"
WEBHOOK_STALE = "STALE - Check webhook server"
POLLING_STALE = "STALE - Check polling"


class SubscriptionStatus(StrEnum):
    """What the keeper found of our webhook for one event.

    `SLOTS_TAKEN`: others hold both places FUB gives a system for the event. `NOT_OWNER`: the key may not look. `UNMANAGED`: no public URL
    is known, so nothing can be compared. `UNKNOWN`: FUB did not answer.
    """

    ACTIVE = "active"
    MISSING = "missing"
    DISABLED = "disabled"
    ELSEWHERE = "elsewhere"
    SLOTS_TAKEN = "slots_taken"
    NOT_OWNER = "not_owner"
    UNMANAGED = "unmanaged"
    UNKNOWN = "unknown"


_BROKEN = {
    SubscriptionStatus.MISSING: "is missing in Follow Up Boss",
    SubscriptionStatus.DISABLED: "is disabled in Follow Up Boss",
    SubscriptionStatus.ELSEWHERE: "points to another address",
    SubscriptionStatus.SLOTS_TAKEN: "is missing, because others hold both places for it",
}


@dataclass(frozen=True, slots=True)
class SubscriptionReport:
    """Our webhook for one event: as it was `found`, as it is `now` after a repair, and what the owner can do about it."""

    event: str
    found: SubscriptionStatus
    now: SubscriptionStatus
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionsReport:
    """One look at all our webhooks."""

    events: tuple[SubscriptionReport, ...]

    @property
    def was_broken(self) -> str | None:
        """Say which webhook could not have told us of changes when we looked; None when no proof was found."""
        return _first_broken((report.event, report.found) for report in self.events)

    @property
    def is_broken(self) -> str | None:
        """Say which webhook still cannot, after what was repaired."""
        return _first_broken((report.event, report.now) for report in self.events)

    def statuses(self) -> dict[str, str]:
        """Give the present status of each event, as `/health` shows it."""
        return {report.event: report.now.value for report in self.events}


def _first_broken(statuses: Iterable[tuple[str, SubscriptionStatus]]) -> str | None:
    return next((f"the webhook for {event} {_BROKEN[status]}" for event, status in statuses if status in _BROKEN), None)


def webhook_status(last_heard: datetime | None, now: datetime, *, stale_after_seconds: float) -> str:
    """Fold the last verified delivery to the word that `/health` and `source_health` show."""
    return HEALTHY if is_fresh(last_heard, now, within_seconds=stale_after_seconds) else WEBHOOK_STALE


def polling_status(last_heard: datetime | None, now: datetime, *, stale_after_seconds: float) -> str:
    """Fold the last complete poll to the word that `/health` and `source_health` show."""
    return HEALTHY if is_fresh(last_heard, now, within_seconds=stale_after_seconds) else POLLING_STALE


def is_fresh(last_heard: datetime | None, now: datetime, *, within_seconds: float) -> bool:
    """Tell whether something was heard within these seconds. What was heard "later than now" (a clock set back) is fresh."""
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
    """Give the instant up to which a source watches, by what was heard so far; None when neither was ever heard.

    Webhooks watch for as long as silence does not turn stale, unless it is proven that they fail. Polling watches until the next poll
    is one full delay late, and never for longer than its own staleness.
    """
    alive = []
    if webhook_heard is not None and not webhooks_fail:
        alive.append(webhook_heard + timedelta(seconds=webhook_stale_after_seconds))
    if polled is not None:
        alive.append(polled + timedelta(seconds=min(2 * poll_delay_seconds, poll_stale_after_seconds)))
    return max(alive, default=None)


def blind_seconds(since: datetime, until: datetime, watched: datetime | None) -> float:
    """Count the seconds between `since` and `until` that lie after `watched`: nobody would have seen a change come and go."""
    unwatched_from = since if watched is None else max(since, watched)
    return max(0.0, (until - unwatched_from).total_seconds())
