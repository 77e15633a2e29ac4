"""The lines on the database: how it is reached, and what stands in it."""

from __future__ import annotations

from fubd.commands.check.finding import Finding, Status, unknown
from fubd.commands.session import database
from fubd.core.text import format_count
from fubd.errors import Unavailable
from fubd.settings import Settings
from fubd.store.dsn import Dsn, Tls, parse
from fubd.store.inspection import DatabaseInspection, Schema, inspect
from fubd.store.pool_mode import PoolMode

_OLDEST_VERSION = 14
_EXPOSED_SHOWN = 3
_SUPABASE_DIRECT = ("db.", ".supabase.co")
_SUPABASE_TRANSACTIONS = 6543


async def examine_database(settings: Settings) -> list[Finding]:
    """Look at the database; what cannot be known while it does not answer is told so."""
    try:
        async with database(settings) as dsn:
            seen = await inspect(dsn)
    except Unavailable as error:
        return [
            Finding("database", Status.FIX, str(error), _fix_of(settings)),
            *unknown(("tls", "pooler", "schema", "exposure"), "database"),
        ]
    return [_reached(settings, dsn, seen), _tls(dsn, seen), _pooler(dsn, seen), _schema(settings, seen), _exposure(seen)]


def _fix_of(settings: Settings) -> str:
    if settings.database_url is None:
        return "set DATABASE_URL to a database of your own, or look why the embedded one does not start"
    if _is_supabase_direct(parse(settings.database_url.get_secret_value(), ca_certificates=settings.database_ca_cert)):
        return "this address of Supabase is IPv6 only: use the one of its session pooler, port 5432, or correct DATABASE_URL"
    return "correct DATABASE_URL (host, port, user, password, database), or start the database"


def _is_supabase_direct(dsn: Dsn) -> bool:
    beginning, ending = _SUPABASE_DIRECT
    return dsn.host.startswith(beginning) and dsn.host.endswith(ending)


def _reached(settings: Settings, dsn: Dsn, seen: DatabaseInspection) -> Finding:
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


def _tls(dsn: Dsn, seen: DatabaseInspection) -> Finding:
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


def _pooler(dsn: Dsn, seen: DatabaseInspection) -> Finding:
    if seen.pool_mode is PoolMode.TRANSACTION:
        better = "the session pooler, port 5432, saves parsing each statement anew" if dsn.port == _SUPABASE_TRANSACTIONS else ""
        return Finding("pooler", Status.NOTE, "a pooler in transaction mode: no statement stays prepared", better)
    if seen.pool_mode is PoolMode.SESSION:
        return Finding("pooler", Status.GOOD, "a pooler in session mode; fubd takes at most 4 of its connections")
    if _is_supabase_direct(dsn):
        return Finding("pooler", Status.NOTE, "none; this address is IPv6 only", "from Railway use the session pooler's address, port 5432")
    return Finding("pooler", Status.GOOD, "none: connected to the server itself")


def _schema(settings: Settings, seen: DatabaseInspection) -> Finding:
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
    if seen.schema is Schema.READY and seen.foreign_rows:
        told = f"ready, {mine}; another writer has added {format_count(seen.foreign_rows, 'row')} since"
        return Finding("schema", Status.NOTE, told, "stop the older scripts once you trust fubd")
    if seen.schema is Schema.READY:
        return Finding("schema", Status.GOOD, f"ready, {mine}")
    coming = "not made yet" if seen.schema is Schema.EMPTY else "of an older version of fubd"
    if not seen.may_create:
        grant = f"GRANT CREATE ON SCHEMA public TO {_user(settings)}; and CREATE ON DATABASE, or CREATE SCHEMA fubd AUTHORIZATION for it"
        return Finding("schema", Status.FIX, f"{coming}, and the user of DATABASE_URL may not make it", f"run as an administrator: {grant}")
    return Finding("schema", Status.NOTE, f"{coming}; the daemon brings it up to date at its next start")


def _user(settings: Settings) -> str:
    return parse(settings.database_url.get_secret_value()).user if settings.database_url is not None else "the user"


def _exposure(seen: DatabaseInspection) -> Finding:
    if not seen.exposed:
        return Finding("exposure", Status.GOOD, "anon and authenticated, the roles of web clients, can reach nothing of it")
    shown = [f"{thing.name} is open to {' and '.join(thing.roles)}" for thing in seen.exposed[:_EXPOSED_SHOWN]]
    more = len(seen.exposed) - _EXPOSED_SHOWN
    found = "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
    return Finding("exposure", Status.FIX, found, "run: " + "; ".join(thing.closing_statement for thing in seen.exposed))
