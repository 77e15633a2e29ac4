"""Keeps our webhook subscriptions alive: looks at them, creates, corrects and re-activates, and says what the owner must do.

Ours are those that our system registered (FUB shows no others) for one of our events under one of our two webhook routes, on whatever
host: an older deployment may have left them. A subscription of any other kind is another program's, and is never touched.

Where two are ours for one event, the best is kept in force and the other is left as it is, for it may serve a second deployment on purpose.
The event counts as active, and the owner is told, when the other is active too: at our address it brings every delivery twice (recorded
once), elsewhere it is nobody's and counts failures until FUB disables it. Nothing is ever removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from fubd.core.subscriptions import Subscription, SubscriptionReport, SubscriptionsReport, SubscriptionStatus
from fubd.core.vocabulary import SUBSCRIBED_EVENTS, WEBHOOK_ROUTE, WEBHOOK_ROUTES
from fubd.core.webhook import is_webhook_route
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import FubApi, Lease

_log = logging.getLogger("fubd.subscriptions")

_SLOTS = 2
_NOT_ALLOWED = 403
_PORTS = {"http": 80, "https": 443}

_ADVICE = {
    SubscriptionStatus.MISSING: "set PUBLIC_URL and FUBD_MANAGE_WEBHOOKS=true, or create it",
    SubscriptionStatus.DISABLED: "set FUBD_MANAGE_WEBHOOKS=true, or set it to Active",
    SubscriptionStatus.ELSEWHERE: "set FUBD_MANAGE_WEBHOOKS=true, or correct its address",
    SubscriptionStatus.SLOTS_TAKEN: "others hold both places of this system for it: remove one of them, or register another system",
    SubscriptionStatus.NOT_OWNER: "only the account owner's key may see webhooks: use the owner's FUB_API_KEY",
    SubscriptionStatus.UNMANAGED: "set PUBLIC_URL to the address at which Follow Up Boss reaches this daemon",
    SubscriptionStatus.UNKNOWN: "Follow Up Boss could not be asked; it is asked again",
}

_SAID = {
    SubscriptionStatus.ACTIVE: "in force, and not alone",
    SubscriptionStatus.MISSING: "missing",
    SubscriptionStatus.DISABLED: "disabled",
    SubscriptionStatus.ELSEWHERE: "leading to another address",
    SubscriptionStatus.SLOTS_TAKEN: "missing",
    SubscriptionStatus.NOT_OWNER: "not to be seen",
    SubscriptionStatus.UNMANAGED: "not looked after",
    SubscriptionStatus.UNKNOWN: "not known",
}


class SubscriptionManager:
    """Looks after the subscriptions. `public_url`: where FUB reaches us, None when unknown; `manage`: whether it may change ours.

    The lease is checked before each change: while this process was suspended, another instance may have made the change.
    """

    def __init__(self, api: FubApi, metrics: Metrics, *, public_url: str | None, manage: bool, lease: Lease) -> None:
        self._api = api
        self._metrics = metrics
        self._public = None if public_url is None else _address(public_url.rstrip("/"))
        self._callback = None if public_url is None else public_url.rstrip("/") + WEBHOOK_ROUTE
        self._manage = manage
        self._lease = lease
        self._reports: dict[str, SubscriptionReport] = {}

    def statuses(self) -> dict[str, str]:
        """Give the status of each event as of the last check, as `/health` shows it; unknown before the first."""
        unknown = dict.fromkeys(SUBSCRIBED_EVENTS, SubscriptionStatus.UNKNOWN.value)
        return unknown | {event: report.now.value for event, report in self._reports.items()}

    def advice(self) -> dict[str, str]:
        """Give what the owner can do, as of the last check, for each event where there is something to do."""
        return {event: report.advice for event, report in self._reports.items() if report.advice is not None}

    async def check(self) -> SubscriptionsReport:
        """Look, put right what may be put right, and tell how it was and how it is."""
        reports = await self._look()
        self._say(reports)
        return SubscriptionsReport(reports)

    async def _look(self) -> tuple[SubscriptionReport, ...]:
        try:
            registered = await self._api.subscriptions()
        except FubRefused as error:
            return _everywhere(SubscriptionStatus.NOT_OWNER if error.status == _NOT_ALLOWED else SubscriptionStatus.UNKNOWN)
        except (Unavailable, Malformed):
            return _everywhere(SubscriptionStatus.UNKNOWN)
        found = [self._find(event, registered) for event in SUBSCRIBED_EVENTS]
        return tuple([await self._put_right(one) for one in found])

    def _find(self, event: str, registered: list[Subscription]) -> _Found:
        of_event = [subscription for subscription in registered if subscription.event == event]
        ours = [one for one in of_event if self._is_ours(one)]
        best = min(ours, key=lambda one: (not self._is_right(one), not _is_active(one), one.id), default=None)
        in_force = best is not None and _is_active(best) and (self._public is None or self._is_right(best))
        self._metrics.webhook_subscription_active.labels(event).set(1 if in_force else 0)
        beside = tuple(one for one in ours if one is not best and _is_active(one))
        return _Found(event, best, beside, self._status(best, others=len(of_event) - len(ours)))

    def _advice(self, found: _Found) -> str | None:
        if found.status is not SubscriptionStatus.ACTIVE or not found.beside:
            return _ADVICE.get(found.status)
        return "; ".join(self._second(one) for one in found.beside)

    def _second(self, one: Subscription) -> str:
        if self._is_right(one):
            return f"webhook {one.id} brings every delivery a second time: remove it in Follow Up Boss"
        # Only the host: what follows may hold a secret.
        elsewhere = urlsplit(one.url).hostname
        return f"webhook {one.id} of this system leads to {elsewhere}: remove it in Follow Up Boss, unless fubd runs there too"

    def _status(self, best: Subscription | None, *, others: int) -> SubscriptionStatus:
        if self._public is None:
            return SubscriptionStatus.UNMANAGED
        if best is None:
            return SubscriptionStatus.SLOTS_TAKEN if others >= _SLOTS else SubscriptionStatus.MISSING
        if not self._is_right(best):
            return SubscriptionStatus.ELSEWHERE
        return SubscriptionStatus.ACTIVE if _is_active(best) else SubscriptionStatus.DISABLED

    async def _put_right(self, found: _Found) -> SubscriptionReport:
        advice = self._advice(found)
        report = SubscriptionReport(found.event, found.status, found.status, advice)
        callback = self._callback
        if not self._manage or callback is None or not self._lease.held:
            return report
        try:
            if found.status is SubscriptionStatus.MISSING:
                await self._api.subscribe(found.event, callback)
            elif found.best is not None and found.status is SubscriptionStatus.DISABLED:
                await self._api.update_subscription(found.best.id, status="Active")
            elif found.best is not None and found.status is SubscriptionStatus.ELSEWHERE:
                await self._api.update_subscription(found.best.id, url=callback, status="Active")
            else:
                return report
        except FubRefused as error:
            return replace(report, advice=f"Follow Up Boss refused to put it right: {error}")
        except (Unavailable, Malformed):
            return replace(report, advice="Follow Up Boss could not put it right; it is asked again")
        self._metrics.webhook_subscription_active.labels(found.event).set(1)
        _log.info("The webhook for %s was %s and has been put right.", found.event, found.status)
        return replace(report, now=SubscriptionStatus.ACTIVE, advice=self._advice(replace(found, status=SubscriptionStatus.ACTIVE)))

    def _is_ours(self, subscription: Subscription) -> bool:
        address = _address(subscription.url)
        return address is not None and (is_webhook_route(address.path) or self._is_right(subscription))

    def _is_right(self, subscription: Subscription) -> bool:
        """Tell whether it leads to one of our routes at the public address."""
        address, public = _address(subscription.url), self._public
        if address is None or public is None or address.host != public.host:
            return False
        return address.path in tuple(public.path + route for route in WEBHOOK_ROUTES)

    def _say(self, reports: Iterable[SubscriptionReport]) -> None:
        """Say a problem when it appears, in one line for all the events that have it, and not again while it lasts."""
        appeared: dict[tuple[SubscriptionStatus, str | None], list[str]] = {}
        for report in reports:
            before = self._reports.get(report.event)
            said = (SubscriptionStatus.ACTIVE, None) if before is None else (before.now, before.advice)
            self._reports[report.event] = report
            if (report.now, report.advice) != said:
                appeared.setdefault((report.now, report.advice), []).append(report.event)
        for (status, advice), events in appeared.items():
            subject = f"The webhook for {events[0]} is" if len(events) == 1 else f"The webhooks for {', '.join(events)} are"
            if advice is None:
                _log.info("%s in force.", subject)
            else:
                _log.warning("%s %s: %s.", subject, _SAID[status], advice)


@dataclass(frozen=True, slots=True)
class _Found:
    """The best of our subscriptions for an event, those of ours that are active `beside` it, and how it was found."""

    event: str
    best: Subscription | None
    beside: tuple[Subscription, ...]
    status: SubscriptionStatus


def _everywhere(status: SubscriptionStatus) -> tuple[SubscriptionReport, ...]:
    return tuple(SubscriptionReport(event, status, status, _ADVICE[status]) for event in SUBSCRIBED_EVENTS)


def _is_active(subscription: Subscription) -> bool:
    return subscription.status.lower() == "active"


@dataclass(frozen=True, slots=True)
class _Address:
    """Where a request to a URL goes: `host` is scheme, name and port, the usual port filled in."""

    host: tuple[str, str | None, int | None]
    path: str


def _address(url: str) -> _Address | None:
    """Take a URL apart; None for one that no request could go to."""
    try:
        components = urlsplit(url)
        port = components.port
    except ValueError:
        return None
    scheme = components.scheme.lower()
    return _Address((scheme, components.hostname, port or _PORTS.get(scheme)), components.path)
