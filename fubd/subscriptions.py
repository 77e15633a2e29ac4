"""Keeps our webhook subscriptions alive: checks, creates, corrects and re-activates them, and reports what only the owner can fix.

A subscription is ours when our system registered it (FUB lists no others) for one of our events and one of our two webhook routes, on any
host: an earlier deployment may have left it. Every other subscription belongs to another program and is never changed.

One of ours on another host may serve a second deployment. An active one is left alone, and a subscription of our own is created in the free
place, unless this database was at that host before. Disabled ones, those on hosts that we had, and any of ours when both places are in use
are taken over. If another program takes one back twice, we stop and report it (`subscriptions_contested`): a fight costs both deliveries.

An element of FUB's list that cannot be used may be ours, too. Where no other is, one is created, once in the life of this process: a second
one of ours delivers everything twice, which is recorded once, while none delivers nothing. Until then the status is unknown, which proves
no failure. FUB itself allows no more than two.

When two subscriptions of one event are ours, the better one is kept correct. If the other is active too, the owner is advised: at our
address it delivers everything twice (recorded once); at another address, which may no longer exist, its failures count until FUB disables
it. Nothing is ever removed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from fubd.core.problems import ProblemName
from fubd.core.subscriptions import (
    Subscription,
    SubscriptionList,
    SubscriptionReport,
    SubscriptionsReport,
    SubscriptionStatus,
    UnusableSubscription,
)
from fubd.core.vocabulary import SUBSCRIBED_EVENTS, WEBHOOK_ROUTE, WEBHOOK_ROUTES
from fubd.core.webhook import is_webhook_route
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.log_once import LogOnce
from fubd.metrics import Metrics
from fubd.ports import Clock, FubApi, Lease, WebhookHosts
from fubd.problems import Problems

_log = logging.getLogger("fubd.subscriptions")

# FUB allows a system so many webhooks for one event (https://docs.followupboss.com/reference/webhooks-guide).
_SLOTS = 2
# FUB's list may show a change of ours seconds late (observed).
_LIST_LAG_SECONDS = 60.0
# A webhook that was ours for so long after a correction is no longer contested.
_CALM_SECONDS = 3600.0
_MOST_CORRECTIONS = 2
_FAULTS_SHOWN = 5
_DEFAULT_PORTS = {"http": 80, "https": 443}

_ADVICE = {
    SubscriptionStatus.MISSING: "set PUBLIC_URL and FUBD_MANAGE_WEBHOOKS=true, or create it",
    SubscriptionStatus.DISABLED: "set FUBD_MANAGE_WEBHOOKS=true, or set it to Active",
    SubscriptionStatus.ELSEWHERE: "set FUBD_MANAGE_WEBHOOKS=true, or correct its address",
    SubscriptionStatus.SLOTS_TAKEN: "others hold both places of this system for it: remove one of them, or register another system",
    SubscriptionStatus.NOT_OWNER: "only the account owner's key may see webhooks: use the owner's FUB_API_KEY",
    SubscriptionStatus.UNMANAGED: "set PUBLIC_URL to the address at which Follow Up Boss reaches this daemon",
    SubscriptionStatus.UNKNOWN: "Follow Up Boss did not answer; fubd asks again",
}
_BLOCKED = (SubscriptionStatus.SLOTS_TAKEN, SubscriptionStatus.NOT_OWNER, SubscriptionStatus.UNMANAGED)

_REPAIRABLE = (SubscriptionStatus.MISSING, SubscriptionStatus.DISABLED, SubscriptionStatus.ELSEWHERE, SubscriptionStatus.UNKNOWN)

_DESCRIPTIONS = {
    SubscriptionStatus.ACTIVE: "active, but not the only one",
    SubscriptionStatus.MISSING: "missing",
    SubscriptionStatus.DISABLED: "disabled",
    SubscriptionStatus.ELSEWHERE: "pointing to another address",
    SubscriptionStatus.SLOTS_TAKEN: "missing",
    SubscriptionStatus.NOT_OWNER: "not visible to this API key",
    SubscriptionStatus.UNMANAGED: "not managed",
    SubscriptionStatus.UNKNOWN: "in an unknown state",
}


class AccountCheck(Protocol):
    """Compares the account of the API key with that of the database."""

    async def verify(self) -> None:
        """Return when they are the same, or one is unknown. Raises AccountMismatch, Unavailable."""


class NoWebhookHosts:
    """Knows no host: for a check that changes nothing. Satisfies `fubd.ports.WebhookHosts`."""

    async def webhook_hosts(self) -> frozenset[str]:
        """Return none."""
        return frozenset()

    async def remember_webhook_host(self, host: str) -> None:
        """Forget it."""


class SubscriptionManager:
    """Maintains our subscriptions. `public_url`: where FUB reaches us, None when unknown; `manage`: whether it may change them.

    `account`: verified before each change, None for never: webhooks that are gone may show that the key reads another account. The lease
    is checked before each change, too: while this process was suspended, another instance may have made the change.
    """

    def __init__(
        self,
        api: FubApi,
        metrics: Metrics,
        problems: Problems,
        hosts: WebhookHosts,
        clock: Clock,
        *,
        public_url: str | None,
        manage: bool,
        lease: Lease,
        account: AccountCheck | None = None,
    ) -> None:
        self._api = api
        self._metrics = metrics
        self._problems = problems
        self._hosts = hosts
        self._clock = clock
        self._public_address = None if public_url is None else _parse_address(public_url.rstrip("/"))
        self._callback_url = None if public_url is None else public_url.rstrip("/") + WEBHOOK_ROUTE
        self._manage = manage
        self._lease = lease
        self._account = account
        self._reports: dict[str, SubscriptionReport] = {}
        self._known_hosts: frozenset[str] = frozenset()
        self._writes: dict[str, _Write] = {}
        self._unusable_log = LogOnce(_log)
        self._created_in_doubt: set[str] = set()

    def statuses(self) -> dict[str, str]:
        """Return the status of each event from the last check, as `/health` shows it; unknown before the first."""
        unknown = dict.fromkeys(SUBSCRIBED_EVENTS, SubscriptionStatus.UNKNOWN.value)
        return unknown | {event: report.now.value for event, report in self._reports.items()}

    def advice(self) -> dict[str, str]:
        """Return what the owner can do, by event, from the last check; events that need nothing are left out."""
        return {event: report.advice for event, report in self._reports.items() if report.advice is not None}

    async def check(self) -> SubscriptionsReport:
        """List our subscriptions, repair what may be repaired, and report the status before and after. Raises as `AccountCheck` does."""
        reports = await self._check_and_repair()
        self._log_changes(reports)
        self._report_blocked(reports)
        return SubscriptionsReport(reports)

    async def _check_and_repair(self) -> tuple[SubscriptionReport, ...]:
        try:
            registered = await self._api.subscriptions()
        except FubRefused as error:
            for event in SUBSCRIBED_EVENTS:
                self._metrics.webhook_subscription_active.labels(event).set(math.nan)
            if error.owner_only:
                return _same_for_all(SubscriptionStatus.NOT_OWNER)
            return _same_for_all(SubscriptionStatus.UNKNOWN, advice=str(error))
        except Malformed as error:
            return _same_for_all(SubscriptionStatus.UNKNOWN, advice=f"{error}; fubd asks again")
        except Unavailable:
            return _same_for_all(SubscriptionStatus.UNKNOWN)
        self._log_unusable(registered.unusable)
        await self._remember_hosts()
        findings = [self._find(event, registered) for event in SUBSCRIBED_EVENTS]
        reports = tuple([await self._repair(finding) for finding in findings])
        self._report_contested(findings)
        return reports

    def _log_unusable(self, unusable: tuple[UnusableSubscription, ...]) -> None:
        if unusable:
            faults = "; ".join(dict.fromkeys(one.fault for one in unusable[:_FAULTS_SHOWN]))
            self._unusable_log.warning("Of the webhooks that Follow Up Boss lists %s; the others are kept as usual", faults)
        else:
            self._unusable_log.resolved("All webhooks that Follow Up Boss lists can be used again")

    async def _remember_hosts(self) -> None:
        """Learn which hosts this database had, and add the present one: it is ours from the first check on that may manage webhooks."""
        if self._public_host in self._known_hosts or self._public_host is None:
            return
        try:
            self._known_hosts = await self._hosts.webhook_hosts()
            if self._manage and self._lease.held:
                await self._hosts.remember_webhook_host(self._public_host)
                self._known_hosts |= {self._public_host}
        except Unavailable:
            # Without them only the present host counts as ours; the next check asks again.
            self._known_hosts = frozenset()

    @property
    def _public_host(self) -> str | None:
        return None if self._public_address is None else self._public_address.host[1]

    def _report_blocked(self, reports: Iterable[SubscriptionReport]) -> None:
        blocked = next((report for report in reports if report.now in _BLOCKED or report.is_refused), None)
        if blocked is not None:
            self._problems.begin(ProblemName.SUBSCRIPTIONS_BLOCKED, f"The webhook for {blocked.event} cannot be kept: {blocked.advice}.")
        elif all(report.now is not SubscriptionStatus.UNKNOWN for report in reports):
            self._problems.end(ProblemName.SUBSCRIPTIONS_BLOCKED)

    def _report_contested(self, findings: Iterable[_Finding]) -> None:
        contested = [finding for finding in findings if finding.contested_by is not None]
        if contested:
            host = contested[0].contested_by
            self._problems.begin(
                ProblemName.SUBSCRIPTIONS_CONTESTED,
                f"Another program keeps pointing our webhooks to {host}; fubd no longer changes them."
                " Stop that deployment or give it another FUB_SYSTEM, then restart fubd.",
            )
        else:
            self._problems.end(ProblemName.SUBSCRIPTIONS_CONTESTED)

    def _find(self, event: str, registered: SubscriptionList) -> _Finding:
        of_event = [subscription for subscription in registered.usable if subscription.event == event]
        ours = [subscription for subscription in of_event if self._is_ours(subscription.url)]
        full = len(of_event) >= _SLOTS
        candidates = [each for each in ours if self._is_correct(each) or self._may_take_over(each, full=full)]
        best = min(candidates, key=lambda each: (not self._is_correct(each), not _is_active(each), each.id), default=None)
        delivers = best is not None and _is_active(best) and (self._public_address is None or self._is_correct(best))
        duplicates = tuple(each for each in ours if each is not best and _is_active(each))
        status = self._status(best, others=len(of_event) - len(candidates))
        doubt = next((one.fault for one in registered.unusable if self._may_be_ours(one, event)), None)
        if status is SubscriptionStatus.MISSING and doubt is not None:
            status = SubscriptionStatus.UNKNOWN
        self._metrics.webhook_subscription_active.labels(event).set(
            math.nan if status is SubscriptionStatus.UNKNOWN else 1 if delivers else 0
        )
        return _Finding(event, best, duplicates, status, self._contested_by(event, ours, status), doubt)

    def _may_be_ours(self, unusable: UnusableSubscription, event: str) -> bool:
        """Return whether an element that cannot be used may be our webhook for this event."""
        return unusable.event in (None, event) and (unusable.url is None or self._is_ours(unusable.url))

    def _may_take_over(self, subscription: Subscription, *, full: bool) -> bool:
        """Return whether one of ours at another address may be corrected, rather than left to another deployment."""
        address = _parse_address(subscription.url)
        host = None if address is None else address.host[1]
        return full or not _is_active(subscription) or host == self._public_host or host in self._known_hosts

    def _contested_by(self, event: str, ours: Iterable[Subscription], status: SubscriptionStatus) -> str | None:
        """Return the host to which another program has pointed our webhook again and again; None while it is not contested."""
        write = self._writes.get(event)
        if write is None:
            return None
        since = self._clock.monotonic() - write.at
        if status is SubscriptionStatus.ACTIVE:
            if since > _CALM_SECONDS:
                del self._writes[event]
            return None
        if write.corrections < _MOST_CORRECTIONS or since <= _LIST_LAG_SECONDS:
            return None
        # One that Follow Up Boss disabled delivers to nobody, so nobody loses it.
        return next((urlsplit(each.url).hostname for each in ours if not self._is_correct(each) and _is_active(each)), None)

    def _advice(self, finding: _Finding) -> str | None:
        if finding.contested_by is not None:
            return f"stop the program that points it to {finding.contested_by}, or give that another FUB_SYSTEM, then restart fubd"
        if finding.status is SubscriptionStatus.UNKNOWN:
            return f"of those that Follow Up Boss lists {finding.doubt}, and that may be it: remove it there if it is of no use"
        if finding.status is not SubscriptionStatus.ACTIVE or not finding.duplicates:
            return _ADVICE.get(finding.status)
        return "; ".join(self._duplicate_advice(each) for each in finding.duplicates)

    def _duplicate_advice(self, duplicate: Subscription) -> str:
        if self._is_correct(duplicate):
            return f"webhook {duplicate.id} sends every delivery a second time: remove it in Follow Up Boss"
        # Only the host: the rest of the URL may hold a secret.
        host = urlsplit(duplicate.url).hostname
        return f"webhook {duplicate.id} of this system points to {host}: remove it in Follow Up Boss, unless fubd runs there too"

    def _status(self, best: Subscription | None, *, others: int) -> SubscriptionStatus:
        if self._public_address is None:
            return SubscriptionStatus.UNMANAGED
        if best is None:
            return SubscriptionStatus.SLOTS_TAKEN if others >= _SLOTS else SubscriptionStatus.MISSING
        if not self._is_correct(best):
            return SubscriptionStatus.ELSEWHERE
        return SubscriptionStatus.ACTIVE if _is_active(best) else SubscriptionStatus.DISABLED

    async def _repair(self, finding: _Finding) -> SubscriptionReport:
        event, best, status = finding.event, finding.best, finding.status
        report = SubscriptionReport(event, status, status, self._advice(finding))
        callback_url = self._callback_url
        if not self._manage or callback_url is None or not self._lease.held or self._is_left_alone(finding):
            return report
        if status is not SubscriptionStatus.ACTIVE and self._is_change_unlisted(event):
            return replace(report, now=SubscriptionStatus.ACTIVE, advice=None)
        corrections = 0 if event not in self._writes else self._writes[event].corrections
        if self._account is not None and status in _REPAIRABLE:
            await self._account.verify()
        try:
            if status in (SubscriptionStatus.MISSING, SubscriptionStatus.UNKNOWN):
                await self._api.subscribe(event, callback_url)
                self._created_in_doubt |= {event} if status is SubscriptionStatus.UNKNOWN else set()
            elif best is not None and status is SubscriptionStatus.DISABLED:
                await self._api.update_subscription(best.id, status="Active")
            elif best is not None and status is SubscriptionStatus.ELSEWHERE:
                await self._api.update_subscription(best.id, url=callback_url, status="Active")
                corrections += 1
            else:
                return report
        except FubRefused as error:
            doubt = "" if finding.doubt is None else f"; of those that it lists {finding.doubt}"
            return replace(report, advice=f"Follow Up Boss refused the repair: {error}{doubt}", is_refused=True)
        except (Unavailable, Malformed):
            return replace(report, advice="Follow Up Boss did not answer the repair; fubd tries again")
        self._writes[event] = _Write(self._clock.monotonic(), corrections)
        self._metrics.webhook_subscription_active.labels(event).set(1)
        _log.info("The webhook for %s was %s and has been repaired.", event, _DESCRIPTIONS[status])
        return replace(report, now=SubscriptionStatus.ACTIVE, advice=self._advice(replace(finding, status=SubscriptionStatus.ACTIVE)))

    def _is_left_alone(self, finding: _Finding) -> bool:
        """Return whether another change would be of no use: one that was created in doubt is listed as an unusable element, too."""
        is_doubted_again = finding.status is SubscriptionStatus.UNKNOWN and finding.event in self._created_in_doubt
        return finding.contested_by is not None or (is_doubted_again and not self._is_change_unlisted(finding.event))

    def _is_change_unlisted(self, event: str) -> bool:
        """Return whether our last change is so fresh that FUB's list may not show it yet: it is not made a second time."""
        write = self._writes.get(event)
        return write is not None and self._clock.monotonic() - write.at <= _LIST_LAG_SECONDS

    def _is_ours(self, url: str) -> bool:
        address = _parse_address(url)
        return address is not None and (is_webhook_route(address.path) or self._is_correct_url(url))

    def _is_correct(self, subscription: Subscription) -> bool:
        return self._is_correct_url(subscription.url)

    def _is_correct_url(self, url: str) -> bool:
        """Return whether it points to one of our routes at the public address."""
        address, public = _parse_address(url), self._public_address
        if address is None or public is None or address.host != public.host:
            return False
        return address.path in tuple(public.path + route for route in WEBHOOK_ROUTES)

    def _log_changes(self, reports: Iterable[SubscriptionReport]) -> None:
        """Log each problem when it begins and when it ends, in one line for all events that share it."""
        changed: dict[tuple[SubscriptionStatus, str | None], list[str]] = {}
        for report in reports:
            before = self._reports.get(report.event)
            logged = (SubscriptionStatus.ACTIVE, None) if before is None else (before.now, before.advice)
            self._reports[report.event] = report
            if (report.now, report.advice) != logged:
                changed.setdefault((report.now, report.advice), []).append(report.event)
        for (status, advice), events in changed.items():
            subject = f"The webhook for {events[0]} is" if len(events) == 1 else f"The webhooks for {', '.join(events)} are"
            if advice is None:
                _log.info("%s active.", subject)
            else:
                _log.warning("%s %s: %s.", subject, _DESCRIPTIONS[status], advice)


@dataclass(frozen=True, slots=True)
class _Finding:
    """The subscription to keep for an event, the other active ones of ours, the status, and who keeps changing it.

    `doubt`: what an element lacks that cannot be used and may be ours; None where there is none.
    """

    event: str
    best: Subscription | None
    duplicates: tuple[Subscription, ...]
    status: SubscriptionStatus
    contested_by: str | None
    doubt: str | None


@dataclass(frozen=True, slots=True)
class _Write:
    """When (our steady clock) we last changed the webhook of an event, and how often its address had to be corrected."""

    at: float
    corrections: int


def _same_for_all(status: SubscriptionStatus, *, advice: str | None = None) -> tuple[SubscriptionReport, ...]:
    return tuple(SubscriptionReport(event, status, status, advice or _ADVICE[status]) for event in SUBSCRIBED_EVENTS)


def _is_active(subscription: Subscription) -> bool:
    return subscription.status.lower() == "active"


@dataclass(frozen=True, slots=True)
class _Address:
    """The part of a URL that decides where a request goes. `host` is scheme, name and port, also the default port."""

    host: tuple[str, str | None, int | None]
    path: str


def _parse_address(url: str) -> _Address | None:
    """Return the address of a URL; None for an invalid one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    return _Address((scheme, parts.hostname, port or _DEFAULT_PORTS.get(scheme)), parts.path)
