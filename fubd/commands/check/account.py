"""The checks of Follow Up Boss: the API key, the registered system, the clock, and our webhooks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from difflib import get_close_matches
from enum import StrEnum
from http import HTTPStatus
from urllib.request import getproxies

from prometheus_client import CollectorRegistry
from yarl import URL

from fubd.client import FubClient, Timeouts
from fubd.clock import SystemClock
from fubd.commands.check.connection import explain_fub_failure
from fubd.commands.check.issuer import find_issuer
from fubd.commands.check.result import CheckResult, CheckStatus, not_checked
from fubd.components import fub_credentials
from fubd.core.api import AccountIdentity
from fubd.core.observation import normalize_stage_name
from fubd.core.subscriptions import SubscriptionReport, SubscriptionStatus
from fubd.core.text import format_duration
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.problems import Problems
from fubd.settings import Settings
from fubd.subscriptions import NoWebhookHosts, SubscriptionManager

REGISTER_SYSTEM = "register a system at apps.followupboss.com/system-registration, and set FUB_SYSTEM and FUB_SYSTEM_KEY to what it shows"

_UNREGISTERED_LIMIT = 125
_MAX_SKEW_SECONDS = 30.0
_TIMEOUT_SECONDS = 8.0


@asynccontextmanager
async def _client(settings: Settings, metrics: Metrics) -> AsyncIterator[FubClient]:
    """Yield a client with short timeouts, as a person is waiting."""
    async with FubClient(
        base_url=settings.fub_api_url,
        credentials=fub_credentials(settings),
        custom_fields=(),
        share=settings.api_share,
        clock=SystemClock(),
        metrics=metrics,
        rng=random.SystemRandom(),
        timeouts=Timeouts(connect_seconds=_TIMEOUT_SECONDS / 2, attempt_seconds=_TIMEOUT_SECONDS / 2, total_seconds=_TIMEOUT_SECONDS),
    ) as client:
        yield client


async def check_account(settings: Settings) -> list[CheckResult]:
    """Check what Follow Up Boss says; while it does not answer or refuses the key, everything else is unknown."""
    metrics = Metrics(CollectorRegistry())
    async with _client(settings, metrics) as client:
        try:
            identity = await client.identity()
        except FubRefused as error:
            found = "Follow Up Boss does not accept FUB_API_KEY" if error.status == HTTPStatus.UNAUTHORIZED else str(error)
            return _without_access(found, "set FUB_API_KEY to a key of the account's owner (Follow Up Boss: Admin, API)")
        except (Unavailable, Malformed) as error:
            return _without_access(*await _explain(str(error), URL(settings.fub_api_url)))
        access = await _webhook_access(client)
        remaining = metrics.registry.get_sample_value("fubd_api_rate_limit_remaining", {"context": "global"})
        return [
            _check_key(identity, access),
            _check_system(settings, access, remaining),
            _check_clock(client.skew_seconds()),
            await _check_webhooks(settings, client, metrics, access),
            *await _check_stages(settings, client),
        ]


async def _explain(message: str, api: URL) -> tuple[str, str]:
    """Return what happened and the fix."""
    host, port = api.host or "", api.port or 443
    if "certificate" in message and (issuer := await find_issuer(host, port)) is not None:
        message += f"; it was issued by {issuer}"
    return message, explain_fub_failure(message, host=host, port=port, has_proxy="https" in getproxies())


async def read_identity(settings: Settings) -> AccountIdentity | None:
    """Return the account of the API key; None when it is unknown."""
    async with _client(settings, Metrics(CollectorRegistry())) as client:
        try:
            return await client.identity()
        except (Unavailable, FubRefused, Malformed):
            return None


def _without_access(found: str, fix: str) -> list[CheckResult]:
    return [CheckResult("api key", CheckStatus.FIX, found, fix), *not_checked(("system", "clock", "webhooks"), "api key")]


class _WebhookAccess(StrEnum):
    """Whether we may use the webhooks endpoint: only a registered system with the owner's key may.

    https://docs.followupboss.com/reference/webhooks-guide
    """

    OWNER = "owner"
    NOT_OWNER = "not owner"
    NO_SYSTEM = "no system"
    UNKNOWN = "unknown"


async def _webhook_access(client: FubClient) -> _WebhookAccess:
    try:
        await client.subscriptions()
    except FubRefused as error:
        if error.owner_only:
            return _WebhookAccess.NOT_OWNER
        return _WebhookAccess.NO_SYSTEM if "system" in str(error).lower() else _WebhookAccess.UNKNOWN
    except (Unavailable, Malformed):
        return _WebhookAccess.UNKNOWN
    return _WebhookAccess.OWNER


def _check_key(account: AccountIdentity | None, access: _WebhookAccess) -> CheckResult:
    found = f"valid, of the account {account.label()}" if account else "valid"
    if access is _WebhookAccess.NOT_OWNER:
        return CheckResult(
            "api key",
            CheckStatus.FIX,
            f"{found}, but not its owner's: only the owner's key may manage webhooks, and other keys see only some of the people",
            "set FUB_API_KEY to a key of the account's owner",
        )
    return CheckResult("api key", CheckStatus.GOOD, f"{found}, and its owner's" if access is _WebhookAccess.OWNER else found)


def _check_system(settings: Settings, access: _WebhookAccess, remaining: float | None) -> CheckResult:
    """Check that the system is registered: by the webhooks endpoint, else by the rate limit, which is twice as high then.

    https://docs.followupboss.com/reference/rate-limiting
    """
    if settings.fub_system_key is None:
        return CheckResult("system", CheckStatus.FIX, "FUB_SYSTEM_KEY is not set: half the rate limit, and no webhooks", REGISTER_SYSTEM)
    low_limit = remaining is not None and remaining < _UNREGISTERED_LIMIT
    if access is _WebhookAccess.NO_SYSTEM or (access is not _WebhookAccess.OWNER and low_limit):
        found = f"Follow Up Boss does not know the system {settings.fub_system} with this FUB_SYSTEM_KEY"
        return CheckResult("system", CheckStatus.FIX, found, REGISTER_SYSTEM)
    limit = "; the rate limit is 250 requests in 10 s" if remaining is not None and not low_limit else ""
    if access is _WebhookAccess.OWNER or limit:
        return CheckResult("system", CheckStatus.GOOD, f"{settings.fub_system} is registered{limit}")
    return CheckResult("system", CheckStatus.UNKNOWN, "Follow Up Boss did not answer")


def _check_clock(skew_seconds: float) -> CheckResult:
    if abs(skew_seconds) <= _MAX_SKEW_SECONDS:
        return CheckResult("clock", CheckStatus.GOOD, "within a few seconds of Follow Up Boss's")
    direction = "ahead of" if skew_seconds > 0 else "behind"
    found = f"{format_duration(round(abs(skew_seconds)))} {direction} Follow Up Boss's; recorded instants are in theirs, and right"
    return CheckResult("clock", CheckStatus.FIX, found, "set this machine's clock (NTP)")


async def _check_stages(settings: Settings, client: FubClient) -> list[CheckResult]:
    """Check the names of stages in the settings: one that the account does not have is never entered."""
    named = {"FUBD_ALERT_STAGES": settings.alert_stages, "FUBD_IGNORE_STAGES": settings.ignore_stages}
    if not any(named.values()):
        return []
    try:
        stages = await client.stages()
    except (FubRefused, Unavailable) as error:
        return [CheckResult("stages", CheckStatus.UNKNOWN, str(error))]
    known = {name.casefold() for name in stages}
    wrong = [(variable, name) for variable, names in named.items() for name in names if normalize_stage_name(name).casefold() not in known]
    if not wrong:
        return [CheckResult("stages", CheckStatus.GOOD, "every stage named in the settings is one of the account's")]
    return [
        CheckResult("stages", CheckStatus.FIX, f"{variable} names {name!r}, which is no stage of the account", _stage_fix(name, stages))
        for variable, name in wrong
    ]


def _stage_fix(name: str, stages: Collection[str]) -> str:
    nearest = {stage.casefold(): stage for stage in stages}
    found = get_close_matches(name.casefold(), nearest, 1)
    return f"write {nearest[found[0]]!r}" if found else "write it as Follow Up Boss does (Admin, Stages)"


async def _check_webhooks(settings: Settings, client: FubClient, metrics: Metrics, access: _WebhookAccess) -> CheckResult:
    if access in {_WebhookAccess.NOT_OWNER, _WebhookAccess.NO_SYSTEM}:
        (result,) = not_checked(["webhooks"], "api key" if access is _WebhookAccess.NOT_OWNER else "system")
        return result
    if access is _WebhookAccess.UNKNOWN:
        return CheckResult("webhooks", CheckStatus.UNKNOWN, "Follow Up Boss did not answer")
    # It may change nothing here.
    clock = SystemClock()
    manager = SubscriptionManager(
        client,
        metrics,
        Problems(clock, metrics),
        NoWebhookHosts(),
        clock,
        public_url=settings.public_url,
        manage=False,
        lease=LocalLease(),
    )
    events = (await manager.check()).events
    wrong = [event for event in events if event.now is not SubscriptionStatus.ACTIVE]
    if not wrong:
        found = f"{', '.join(event.event for event in events)} are active and point here"
        advice = "; ".join(f"{event.event}: {event.advice}" for event in events if event.advice is not None)
        if advice:
            return CheckResult("webhooks", CheckStatus.NOTE, f"{found}, and others of ours do too", advice)
        return CheckResult("webhooks", CheckStatus.GOOD, found)
    if all(event.now is SubscriptionStatus.UNMANAGED for event in wrong):
        status = CheckStatus.UNKNOWN if settings.manage_webhooks else CheckStatus.NOTE
        return CheckResult("webhooks", status, "not checked: see public url")
    found = ", ".join(f"{event.event} is {event.now.replace('_', ' ')}" for event in wrong)
    return CheckResult("webhooks", CheckStatus.FIX, found, "; ".join(dict.fromkeys(_advice(settings, event) for event in wrong)))


def _advice(settings: Settings, event: SubscriptionReport) -> str:
    repaired = {SubscriptionStatus.MISSING, SubscriptionStatus.DISABLED, SubscriptionStatus.ELSEWHERE}
    if settings.manage_webhooks and event.now in repaired:
        return "start the daemon: it corrects this with its next poll"
    return event.advice or ""
