"""Webhook subscriptions: as Follow Up Boss lists them, and what a check of ours found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Subscription:
    """One registered webhook. `status` is `Active` or `Disabled` (docs.followupboss.com/reference/webhooks-post)."""

    id: int
    event: str
    url: str
    status: str


@dataclass(frozen=True, slots=True)
class UnusableSubscription:
    """An element of FUB's list that is no whole webhook. `event` and `url`: None where they cannot be read; `fault`: what it lacks."""

    event: str | None
    url: str | None
    fault: str


@dataclass(frozen=True, slots=True)
class SubscriptionList:
    """What FUB lists of our system: the webhooks, and the elements that cannot be used as such."""

    usable: tuple[Subscription, ...]
    unusable: tuple[UnusableSubscription, ...] = ()


class SubscriptionStatus(StrEnum):
    """The state of our webhook for one event.

    `SLOTS_TAKEN`: other webhooks hold both places that FUB gives a system for an event. `NOT_OWNER`: the API key may not list webhooks.
    `UNMANAGED`: no public URL is known, so there is nothing to compare with. `UNKNOWN`: FUB did not answer, or only an element of its list
    that cannot be used may be our webhook.
    """

    ACTIVE = "active"
    MISSING = "missing"
    DISABLED = "disabled"
    ELSEWHERE = "elsewhere"
    SLOTS_TAKEN = "slots_taken"
    NOT_OWNER = "not_owner"
    UNMANAGED = "unmanaged"
    UNKNOWN = "unknown"


# The statuses that prove that no change can arrive.
_BROKEN = {
    SubscriptionStatus.MISSING: "is missing in Follow Up Boss",
    SubscriptionStatus.DISABLED: "is disabled in Follow Up Boss",
    SubscriptionStatus.ELSEWHERE: "points to another address",
    SubscriptionStatus.SLOTS_TAKEN: "is missing, because other webhooks hold both places for it",
}


@dataclass(frozen=True, slots=True)
class SubscriptionReport:
    """Our webhook for one event: its status as `found`, its status `now` after a repair, and what the owner can do about it.

    `is_refused`: FUB refused the repair.
    """

    event: str
    found: SubscriptionStatus
    now: SubscriptionStatus
    advice: str | None = None
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class SubscriptionsReport:
    """The result of one check of all our webhooks."""

    events: tuple[SubscriptionReport, ...]

    @property
    def was_broken(self) -> str | None:
        """Describe the first webhook that was found unable to deliver; None when there was none."""
        return _first_broken((report.event, report.found) for report in self.events)

    @property
    def is_broken(self) -> str | None:
        """Describe the first webhook that still cannot deliver after the repairs; None when there is none."""
        return _first_broken((report.event, report.now) for report in self.events)

    def statuses(self) -> dict[str, str]:
        """Return the present status by event, as `/health` shows it."""
        return {report.event: report.now.value for report in self.events}


def _first_broken(statuses: Iterable[tuple[str, SubscriptionStatus]]) -> str | None:
    return next((f"the webhook for {event} {_BROKEN[status]}" for event, status in statuses if status in _BROKEN), None)
