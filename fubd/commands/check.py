"""`python -m fubd check`: examine everything that fubd needs, one line each, and tell how to put right what is wrong. Changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

import aiohttp
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.text import Text

from fubd.client import FubClient
from fubd.clock import SystemClock
from fubd.commands.database import database
from fubd.commands.screen import Screen, counted, duration, plain
from fubd.core.freshness import SubscriptionReport, SubscriptionStatus
from fubd.keeper import Keeper
from fubd.metrics import Metrics
from fubd.ports import Refused, Unavailable
from fubd.settings import FOR_FUB, Settings, load
from fubd.store.dsn import Dsn, Tls, parse
from fubd.store.examination import Examination, Pooling, Schema, examine

_OLDEST_VERSION = 14
_UNREGISTERED_LIMIT = 125
_MOST_SKEW_SECONDS = 30.0
_FUB_SECONDS = 8.0
_URL_SECONDS = 10.0
_EXPOSED_SHOWN = 3

_REGISTER = "register a system at apps.followupboss.com/system-registration, and set FUB_SYSTEM and FUB_SYSTEM_KEY to what it gives"
_SUPABASE_DIRECT = ("db.", ".supabase.co")
_SUPABASE_TRANSACTIONS = 6543


class Status(StrEnum):
    """What came of examining one thing. `NOTE`: good, and something to be known. `UNKNOWN`: what it rests on is not there."""

    GOOD = "ok"
    NOTE = "note"
    FIX = "fix"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was examined, how it is, and what to do about it, empty when nothing."""

    name: str
    status: Status
    found: str
    fix: str = ""


def run(args: argparse.Namespace) -> int:
    """Examine; 0 when all is good, 1 when something is to be put right."""
    settings = load(need=FOR_FUB, checks={"DATABASE_URL": parse})
    findings = asyncio.run(examined(settings))
    _show(findings, Screen(), as_json=args.json)
    return 0 if _is_good(findings) else 1


async def examined(settings: Settings) -> list[Finding]:
    """Examine everything, side by side where it can be; in the order of the lines."""
    parts = (_database(settings), _follow_up_boss(settings), _public_url(settings))
    return [_configuration(settings), *(finding for part in await asyncio.gather(*parts) for finding in part)]


def _is_good(findings: list[Finding]) -> bool:
    return all(finding.status in {Status.GOOD, Status.NOTE} for finding in findings)


# --- Configuration ----------------------------------------------------------------------------------------------------


def _configuration(settings: Settings) -> Finding:
    if settings.fub_system_key is None:
        return Finding("configuration", Status.FIX, "FUB_SYSTEM_KEY is not set, and the daemon does not start without it", _REGISTER)
    return Finding("configuration", Status.GOOD, "every variable that is set can be used, and none is missing")


# --- The database -----------------------------------------------------------------------------------------------------


async def _database(settings: Settings) -> list[Finding]:
    """Look at the database; what cannot be known while it does not answer is told so."""
    try:
        async with database(settings) as dsn:
            seen = await examine(dsn)
    except Unavailable as error:
        return [
            Finding("database", Status.FIX, str(error), _fix_of(settings)),
            *_unknown(("tls", "pooler", "schema", "exposure"), "database"),
        ]
    return [_reached(settings, dsn, seen), _tls(dsn, seen), _pooler(dsn, seen), _schema(settings, seen), _exposure(seen)]


def _unknown(names: tuple[str, ...], because: str) -> list[Finding]:
    return [Finding(name, Status.UNKNOWN, f"not examined: see {because}") for name in names]


def _fix_of(settings: Settings) -> str:
    if settings.database_url is None:
        return "set DATABASE_URL to a database of your own, or look why the embedded one does not start"
    if _is_supabase_direct(parse(settings.database_url.get_secret_value(), ca_certificates=settings.database_ca_cert)):
        return "this address of Supabase is IPv6 only: use the one of its session pooler, port 5432, or correct DATABASE_URL"
    return "correct DATABASE_URL (host, port, user, password, database), or start the database"


def _is_supabase_direct(dsn: Dsn) -> bool:
    beginning, ending = _SUPABASE_DIRECT
    return dsn.host.startswith(beginning) and dsn.host.endswith(ending)


def _reached(settings: Settings, dsn: Dsn, seen: Examination) -> Finding:
    place = f"PostgreSQL {seen.version} at {dsn.place}" if settings.database_url is not None else f"the embedded PostgreSQL {seen.version}"
    if seen.version < _OLDEST_VERSION:
        return Finding("database", Status.FIX, f"{place} is too old", f"use PostgreSQL {_OLDEST_VERSION} or newer")
    if seen.read_only:
        return Finding(
            "database", Status.FIX, f"{place} can only be read", "set DATABASE_URL to the primary server, with a role that may write"
        )
    if settings.database_url is None:
        return Finding(
            "database", Status.NOTE, f"{place}, on this machine's disk", "for a container set DATABASE_URL: its disk does not last"
        )
    return Finding("database", Status.GOOD, place)


def _tls(dsn: Dsn, seen: Examination) -> Finding:
    if dsn.tls in {Tls.VERIFY_FULL, Tls.VERIFY_CA}:
        return Finding("tls", Status.GOOD, f"{dsn.tls}: encrypted, and the server's certificate is verified")
    if dsn.tls is Tls.REQUIRE:
        return Finding(
            "tls",
            Status.NOTE,
            "encrypted; whose certificate it is, is not verified",
            "set DATABASE_CA_CERT to the provider's certificate to be sure that it is your server",
        )
    if seen.encrypted:
        return Finding("tls", Status.GOOD, "encrypted, on this machine")
    return Finding("tls", Status.GOOD, "not encrypted: the server is on this machine")


def _pooler(dsn: Dsn, seen: Examination) -> Finding:
    if seen.pooling is Pooling.TRANSACTION:
        better = "the session pooler, port 5432, saves parsing each statement anew" if dsn.port == _SUPABASE_TRANSACTIONS else ""
        return Finding("pooler", Status.NOTE, "a pooler in transaction mode: no statement stays prepared", better)
    if seen.pooling is Pooling.SESSION:
        return Finding("pooler", Status.GOOD, "a pooler in session mode; fubd takes at most 4 of its connections")
    if _is_supabase_direct(dsn):
        return Finding("pooler", Status.NOTE, "none; this address is IPv6 only", "from Railway use the session pooler's address, port 5432")
    return Finding("pooler", Status.GOOD, "none: connected to the server itself")


def _schema(settings: Settings, seen: Examination) -> Finding:
    mine = "adopted from older scripts" if seen.adopted else "fubd's own"
    if seen.schema is Schema.REFUSED:
        return Finding("schema", Status.FIX, seen.refusal or "", "start the version of fubd that made it")
    if seen.schema is Schema.OLDER:
        return Finding(
            "schema",
            Status.FIX,
            "public.stage_changes was made by older scripts, and fubd does not write into it",
            "run: python -m fubd adopt",
        )
    if seen.schema is Schema.READY and seen.foreign:
        told = f"ready, {mine}; another writer has added {counted(seen.foreign, 'row')} since"
        return Finding("schema", Status.NOTE, told, "stop the older scripts once you trust fubd")
    if seen.schema is Schema.READY:
        return Finding("schema", Status.GOOD, f"ready, {mine}")
    coming = "not made yet" if seen.schema is Schema.EMPTY else "of an older version of fubd"
    if not seen.may_make:
        grant = f"GRANT CREATE ON SCHEMA public TO {_user(settings)}; and CREATE ON DATABASE, or CREATE SCHEMA fubd AUTHORIZATION for it"
        return Finding("schema", Status.FIX, f"{coming}, and the user of DATABASE_URL may not make it", f"run as an administrator: {grant}")
    return Finding("schema", Status.NOTE, f"{coming}; the daemon brings it up to date at its next start")


def _user(settings: Settings) -> str:
    return parse(settings.database_url.get_secret_value()).user if settings.database_url is not None else "the user"


def _exposure(seen: Examination) -> Finding:
    if not seen.exposed:
        return Finding("exposure", Status.GOOD, "anon and authenticated, the roles of web clients, can reach nothing of it")
    shown = [f"{thing.name} is open to {' and '.join(thing.roles)}" for thing in seen.exposed[:_EXPOSED_SHOWN]]
    more = len(seen.exposed) - _EXPOSED_SHOWN
    found = "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
    return Finding("exposure", Status.FIX, found, "run: " + "; ".join(thing.closing for thing in seen.exposed))


# --- Follow Up Boss ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _client(settings: Settings, metrics: Metrics) -> AsyncIterator[FubClient]:
    """Give a client that does not try for long: somebody waits."""
    async with FubClient(
        base_url=settings.fub_api_url,
        api_key=settings.fub_api_key.get_secret_value() if settings.fub_api_key else "",
        system=settings.fub_system,
        system_key=settings.fub_system_key.get_secret_value() if settings.fub_system_key else None,
        custom_fields=(),
        share=settings.api_share,
        clock=SystemClock(),
        metrics=metrics,
        rng=random.SystemRandom(),
        connect_timeout_seconds=_FUB_SECONDS / 2,
        attempt_timeout_seconds=_FUB_SECONDS / 2,
        patience_seconds=_FUB_SECONDS,
    ) as client:
        yield client


async def _follow_up_boss(settings: Settings) -> list[Finding]:
    metrics = Metrics(CollectorRegistry())
    async with _client(settings, metrics) as client:
        try:
            identity = await client.identity()
        except Refused as error:
            told = "Follow Up Boss does not accept FUB_API_KEY" if error.status == HTTPStatus.UNAUTHORIZED else str(error)
            return [
                Finding("api key", Status.FIX, told, "set FUB_API_KEY to a key of the account's owner (Follow Up Boss: Admin, API)"),
                *_unknown(("system", "clock", "webhooks"), "api key"),
            ]
        except Unavailable as error:
            return [
                Finding("api key", Status.FIX, str(error), "look whether this machine can reach FUB_API_URL, and try again"),
                *_unknown(("system", "clock", "webhooks"), "api key"),
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
    except Refused as error:
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
        return Finding("system", Status.FIX, "FUB_SYSTEM_KEY is not set: half the rate limit, and no webhooks", _REGISTER)
    if owner is _Ownership.NO_SYSTEM or (owner is not _Ownership.OWNER and remaining is not None and remaining < _UNREGISTERED_LIMIT):
        return Finding("system", Status.FIX, f"Follow Up Boss does not know {settings.fub_system} with this FUB_SYSTEM_KEY", _REGISTER)
    limit = "; the rate limit is 250 requests in 10 s" if remaining is not None and remaining >= _UNREGISTERED_LIMIT else ""
    if owner is _Ownership.OWNER or limit:
        return Finding("system", Status.GOOD, f"{settings.fub_system} is registered{limit}")
    return Finding("system", Status.UNKNOWN, "Follow Up Boss did not tell")


def _clock(skew_seconds: float) -> Finding:
    if abs(skew_seconds) <= _MOST_SKEW_SECONDS:
        return Finding("clock", Status.GOOD, "right within a few seconds of Follow Up Boss's")
    way = "ahead of" if skew_seconds > 0 else "behind"
    told = f"{duration(round(abs(skew_seconds)))} {way} Follow Up Boss's; what is recorded is in theirs"
    return Finding("clock", Status.FIX, told, "set this machine's clock (NTP)")


async def _webhooks(settings: Settings, client: FubClient, metrics: Metrics, owner: _Ownership) -> Finding:
    if owner in {_Ownership.NOT_OWNER, _Ownership.NO_SYSTEM}:
        return Finding("webhooks", Status.UNKNOWN, f"not examined: see {'api key' if owner is _Ownership.NOT_OWNER else 'system'}")
    # It may change nothing here.
    report = await Keeper(client, metrics, public_url=settings.public_url, manage=False).check()
    wrong = [event for event in report.events if event.now is not SubscriptionStatus.ACTIVE]
    if not wrong:
        return Finding("webhooks", Status.GOOD, f"{', '.join(event.event for event in report.events)} are active and lead here")
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


# --- The public address -----------------------------------------------------------------------------------------------


async def _public_url(settings: Settings) -> list[Finding]:
    if settings.public_url is None:
        if not settings.manage_webhooks:
            return [
                Finding("public url", Status.NOTE, "PUBLIC_URL is not set, and FUBD_MANAGE_WEBHOOKS is off: webhooks are your own affair")
            ]
        return [
            Finding(
                "public url",
                Status.FIX,
                "PUBLIC_URL is not set: nobody sees to the webhooks",
                "set PUBLIC_URL to the https address at which Follow Up Boss reaches the daemon",
            )
        ]
    return [await _answer(settings.public_url)]


async def _answer(public_url: str) -> Finding:
    """Ask as Follow Up Boss would: no redirect is followed, and the certificate must be good."""
    url = f"{public_url}/healthz"
    fix = "start the daemon, or correct PUBLIC_URL"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_URL_SECONDS)) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            status, body = answer.status, await answer.content.read(100)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return Finding("public url", Status.FIX, f"{url} cannot be reached ({_told(error)})", fix)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Finding(
            "public url", Status.FIX, f"{url} leads elsewhere ({status}), where no webhook follows", "set PUBLIC_URL to where it leads"
        )
    if status != HTTPStatus.OK or b"alive" not in body:
        return Finding("public url", Status.FIX, f"something else than fubd answers at {url} ({status})", fix)
    return Finding("public url", Status.GOOD, f"fubd answers at {public_url}")


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate is not good"),
    (aiohttp.ClientConnectorDNSError, "its name is not known"),
    (TimeoutError, "no answer in time"),
    (Exception, "no connection"),
)


def _told(error: Exception) -> str:
    return next(words for kind, words in _WORDS if isinstance(error, kind))


# --- Telling ----------------------------------------------------------------------------------------------------------

_MARKS = {Status.GOOD: ("✓", "green"), Status.NOTE: ("•", "cyan"), Status.FIX: ("✗", "bold red"), Status.UNKNOWN: ("?", "yellow")}


def _show(findings: list[Finding], screen: Screen, *, as_json: bool) -> None:
    if as_json:
        checks = [{"name": one.name, "status": one.status.value, "found": one.found, "fix": one.fix or None} for one in findings]
        screen.json({"good": _is_good(findings), "checks": checks})
        return
    width = max(len(finding.name) for finding in findings)
    if screen.terminal:
        _draw(findings, width)
    else:
        for one in findings:
            screen.say(f"{one.status:<7} {one.name:<{width}}  {one.found}{f' -> {one.fix}' if one.fix else ''}")
    wrong, unseen = (sum(finding.status is status for finding in findings) for status in (Status.FIX, Status.UNKNOWN))
    if _is_good(findings):
        screen.say("All good.", "bold green")
    else:
        screen.say(f"{counted(wrong, 'thing')} to put right" + (f", {unseen} not examined." if unseen else "."), "bold red")


def _draw(findings: list[Finding], width: int) -> None:
    """Draw it for a terminal: a mark, and what to do on a line of its own, which is not broken so that it can be copied."""
    console = Console(highlight=False, markup=False, emoji=False)
    for one in findings:
        mark, style = _MARKS[one.status]
        console.print(Text.assemble((mark, style), " ", (f"{one.name:<{width}}", "bold"), "  ", plain(one.found)), soft_wrap=True)
        if one.fix:
            console.print(Text.assemble(" " * (width + 4), ("→ ", style), (plain(one.fix), "cyan")), soft_wrap=True)
