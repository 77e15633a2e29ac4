"""The lines on Follow Up Boss: the key, the system, the clock, and our webhooks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from fubd.client import FubClient, Timeouts
from fubd.clock import SystemClock
from fubd.commands.check.finding import Finding, Status, unknown
from fubd.components import fub_credentials
from fubd.core.subscriptions import SubscriptionReport, SubscriptionStatus
from fubd.core.text import format_duration
from fubd.errors import FubRefused, Unavailable
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.settings import Settings
from fubd.subscriptions import SubscriptionManager

REGISTER = "register a system at apps.followupboss.com/system-registration, and set FUB_SYSTEM and FUB_SYSTEM_KEY to what it gives"

_UNREGISTERED_LIMIT = 125
_MOST_SKEW_SECONDS = 30.0
_FUB_SECONDS = 8.0


@asynccontextmanager
async def _client(settings: Settings, metrics: Metrics) -> AsyncIterator[FubClient]:
    """Give a client that does not try for long: somebody waits."""
    async with FubClient(
        base_url=settings.fub_api_url,
        credentials=fub_credentials(settings),
        custom_fields=(),
        share=settings.api_share,
        clock=SystemClock(),
        metrics=metrics,
        rng=random.SystemRandom(),
        timeouts=Timeouts(connect_seconds=_FUB_SECONDS / 2, attempt_seconds=_FUB_SECONDS / 2, total_seconds=_FUB_SECONDS),
    ) as client:
        yield client


async def examine_account(settings: Settings) -> list[Finding]:
    """Ask Follow Up Boss; what cannot be known while it does not answer, or refuses the key, is told so."""
    metrics = Metrics(CollectorRegistry())
    async with _client(settings, metrics) as client:
        try:
            identity = await client.identity()
        except FubRefused as error:
            told = "Follow Up Boss does not accept FUB_API_KEY" if error.status == HTTPStatus.UNAUTHORIZED else str(error)
            return [
                Finding("api key", Status.FIX, told, "set FUB_API_KEY to a key of the account's owner (Follow Up Boss: Admin, API)"),
                *unknown(("system", "clock", "webhooks"), "api key"),
            ]
        except Unavailable as error:
            return [
                Finding("api key", Status.FIX, str(error), "look whether this machine can reach FUB_API_URL, and try again"),
                *unknown(("system", "clock", "webhooks"), "api key"),
            ]
        owner = await _ownership(client)
        key = _key(identity, owner)
        system = _system(settings, owner, metrics.registry.get_sample_value("fubd_api_rate_limit_remaining", {"context": "global"}))
        return [key, system, _clock(client.skew_seconds()), await _webhooks(settings, client, metrics, owner)]


class _Ownership(StrEnum):
    """What the webhooks' own endpoint makes of us: only the owner's key, and only a registered system, may use it (documented)."""

    OWNER = "owner"
    NOT_OWNER = "not owner"
    NO_SYSTEM = "no system"
    UNKNOWN = "unknown"


async def _ownership(client: FubClient) -> _Ownership:
    try:
        await client.subscriptions()
    except FubRefused as error:
        return _Ownership.NO_SYSTEM if "system" in str(error).lower() else _Ownership.NOT_OWNER
    except Unavailable:
        return _Ownership.UNKNOWN
    return _Ownership.OWNER


def _key(identity: Mapping[str, object], owner: _Ownership) -> Finding:
    account = identity.get("account")
    domain = account.get("domain") if isinstance(account, Mapping) else None
    of = f"valid, of the account {domain}" if isinstance(domain, str) else "valid"
    if owner is _Ownership.NOT_OWNER:
        return Finding(
            "api key",
            Status.FIX,
            f"{of}, but not its owner's: webhooks are the owner's alone, and other keys see only a part of the people",
            "set FUB_API_KEY to a key of the account's owner",
        )
    return Finding("api key", Status.GOOD, f"{of}, and its owner's" if owner is _Ownership.OWNER else of)


def _system(settings: Settings, owner: _Ownership, remaining: float | None) -> Finding:
    """Tell whether the system is registered: by what the webhooks' endpoint says, else by the rate limit, which is twice as high then."""
    if settings.fub_system_key is None:
        return Finding("system", Status.FIX, "FUB_SYSTEM_KEY is not set: half the rate limit, and no webhooks", REGISTER)
    if owner is _Ownership.NO_SYSTEM or (owner is not _Ownership.OWNER and remaining is not None and remaining < _UNREGISTERED_LIMIT):
        return Finding("system", Status.FIX, f"Follow Up Boss does not know {settings.fub_system} with this FUB_SYSTEM_KEY", REGISTER)
    limit = "; the rate limit is 250 requests in 10 s" if remaining is not None and remaining >= _UNREGISTERED_LIMIT else ""
    if owner is _Ownership.OWNER or limit:
        return Finding("system", Status.GOOD, f"{settings.fub_system} is registered{limit}")
    return Finding("system", Status.UNKNOWN, "Follow Up Boss did not tell")


def _clock(skew_seconds: float) -> Finding:
    if abs(skew_seconds) <= _MOST_SKEW_SECONDS:
        return Finding("clock", Status.GOOD, "right within a few seconds of Follow Up Boss's")
    way = "ahead of" if skew_seconds > 0 else "behind"
    told = f"{format_duration(round(abs(skew_seconds)))} {way} Follow Up Boss's; what is recorded is in theirs"
    return Finding("clock", Status.FIX, told, "set this machine's clock (NTP)")


async def _webhooks(settings: Settings, client: FubClient, metrics: Metrics, owner: _Ownership) -> Finding:
    if owner in {_Ownership.NOT_OWNER, _Ownership.NO_SYSTEM}:
        return Finding("webhooks", Status.UNKNOWN, f"not examined: see {'api key' if owner is _Ownership.NOT_OWNER else 'system'}")
    if owner is _Ownership.UNKNOWN:
        return Finding("webhooks", Status.UNKNOWN, "Follow Up Boss did not tell")
    # It may change nothing here.
    report = await SubscriptionManager(client, metrics, public_url=settings.public_url, manage=False, lease=LocalLease()).check()
    wrong = [event for event in report.events if event.now is not SubscriptionStatus.ACTIVE]
    if not wrong:
        told = f"{', '.join(event.event for event in report.events)} are active and lead here"
        twice = [f"{event.event}: {event.advice}" for event in report.events if event.advice is not None]
        return Finding("webhooks", Status.NOTE, f"{told}, not alone", "; ".join(twice)) if twice else Finding("webhooks", Status.GOOD, told)
    found = ", ".join(f"{event.event} is {event.now.replace('_', ' ')}" for event in wrong)
    if all(event.now is SubscriptionStatus.UNMANAGED for event in wrong):
        status = Status.UNKNOWN if settings.manage_webhooks else Status.NOTE
        return Finding("webhooks", status, "not examined: see public url")
    return Finding("webhooks", Status.FIX, found, "; ".join(dict.fromkeys(_advice(settings, event) for event in wrong)))


def _advice(settings: Settings, event: SubscriptionReport) -> str:
    mended = {SubscriptionStatus.MISSING, SubscriptionStatus.DISABLED, SubscriptionStatus.ELSEWHERE}
    if settings.manage_webhooks and event.now in mended:
        return "start the daemon: it puts that right with its next poll"
    return event.advice or ""
