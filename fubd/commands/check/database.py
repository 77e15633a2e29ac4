"""The checks of the database: how it is reached, and what is in it."""

from __future__ import annotations

from dataclasses import replace

from fubd.account import CHANGE_ONE, describe_mismatch
from fubd.commands.check.account import read_identity
from fubd.commands.check.connection import explain_failure, is_supabase, is_supabase_direct
from fubd.commands.check.issuer import find_issuer
from fubd.commands.check.result import CheckResult, CheckStatus, not_checked
from fubd.commands.session import database
from fubd.core.text import format_count
from fubd.errors import Unavailable
from fubd.settings import Settings
from fubd.store import Pool, StateStore
from fubd.store.dsn import Dsn, Tls, parse
from fubd.store.inspection import DatabaseInspection, Schema, inspect
from fubd.store.pool_mode import PoolMode
from fubd.store.refusals import ANY_USER
from fubd.store.table_check import find_trouble

_OLDEST_VERSION = 14
_EXPOSED_SHOWN = 3
_SUPABASE_TRANSACTION_PORT = 6543
_UNUSABLE = {
    Schema.OLDER: (
        "public.stage_changes was made by older scripts, and fubd does not write into it before it is adopted",
        "run: python -m fubd adopt",
    ),
    Schema.HIDDEN: (
        "row level security hides the tables of the schema fubd from the user of DATABASE_URL, who does not own them",
        "run deploy/role.sql as their owner, and use the role that it makes in DATABASE_URL",
    ),
}


async def check_database(settings: Settings) -> list[CheckResult]:
    """Check the database; while it cannot be reached, everything else is unknown."""
    try:
        async with database(settings) as dsn:
            seen = await inspect(dsn)
            table = await _check_table(dsn, settings, seen)
            mismatch = await _check_account_of_database(dsn, settings) if seen.schema is Schema.READY else []
    except Unavailable as error:
        own = _own_dsn(settings)
        found, fix = explain_failure(str(error), own)
        if own is not None and "not trusted" in found and (issuer := await find_issuer(own.host, own.port, is_postgres=True)) is not None:
            found += f"; it was issued by {issuer}"
        unreached = CheckResult("database", CheckStatus.FIX, found, fix)
        return [unreached, *not_checked(("tls", "pooler", "schema", "table", "exposure"), "database")]
    return [
        _check_server(settings, dsn, seen),
        _check_tls(dsn, seen),
        _check_pooler(dsn, seen),
        _check_schema(settings, seen),
        table,
        _check_exposure(seen),
        *mismatch,
    ]


async def _check_account_of_database(dsn: Dsn, settings: Settings) -> list[CheckResult]:
    """Check that the API key is of the account whose people are recorded here. No result when it is, or when either is unknown."""
    pool = Pool(dsn, mode=PoolMode.TRANSACTION)
    try:
        of_database = await StateStore(pool).account()
    finally:
        await pool.close()
    of_key = await read_identity(settings) if of_database else None
    if of_database is None or of_key is None or of_key.id == of_database.id:
        return []
    return [CheckResult("account", CheckStatus.FIX, describe_mismatch(of_key, of_database), CHANGE_ONE)]


def _own_dsn(settings: Settings) -> Dsn | None:
    if settings.database_url is None:
        return None
    return parse(settings.database_url.get_secret_value(), ca_certificates=settings.database_ca_cert)


def _check_server(settings: Settings, dsn: Dsn, seen: DatabaseInspection) -> CheckResult:
    server = f"PostgreSQL {seen.version} at {dsn.place}" if settings.database_url is not None else f"the embedded PostgreSQL {seen.version}"
    if seen.version < _OLDEST_VERSION:
        return CheckResult("database", CheckStatus.FIX, f"{server} is too old", f"use PostgreSQL {_OLDEST_VERSION} or newer")
    if seen.is_standby:
        return CheckResult("database", CheckStatus.FIX, f"{server} is a read-only replica", "set DATABASE_URL to the primary server")
    if seen.read_only:
        fix = "set default_transaction_read_only = off (ALTER DATABASE, ALTER ROLE); Supabase sets it while the disk is full: enlarge it"
        return CheckResult("database", CheckStatus.FIX, f"{server} is set to read-only", fix)
    if settings.database_url is None:
        fix = "in a container set DATABASE_URL: a container's disk is not kept"
        return CheckResult("database", CheckStatus.NOTE, f"{server}, on this machine's disk", fix)
    return CheckResult("database", CheckStatus.GOOD, server)


def _check_tls(dsn: Dsn, seen: DatabaseInspection) -> CheckResult:
    if dsn.tls in {Tls.VERIFY_FULL, Tls.VERIFY_CA}:
        return CheckResult("tls", CheckStatus.GOOD, f"{dsn.tls}: encrypted, and the server's certificate is verified")
    if dsn.tls is Tls.REQUIRE:
        where = "Supabase: Database, Settings, SSL Configuration, Download certificate" if is_supabase(dsn) else "your provider has it"
        fix = f"set DATABASE_CA_CERT to the text or the path of the provider's CA certificate ({where})"
        found = "encrypted, but the server's certificate is not verified: another server could pose as yours and read the password"
        return CheckResult("tls", CheckStatus.NOTE if dsn.is_local else CheckStatus.FIX, found, fix)
    found = "encrypted, on this machine" if seen.encrypted else "not encrypted: the server is on this machine"
    return CheckResult("tls", CheckStatus.GOOD, found)


def _check_pooler(dsn: Dsn, seen: DatabaseInspection) -> CheckResult:
    if seen.pool_mode is PoolMode.TRANSACTION:
        better = "the session pooler, port 5432, saves parsing each statement again" if dsn.port == _SUPABASE_TRANSACTION_PORT else ""
        return CheckResult("pooler", CheckStatus.NOTE, "a pooler in transaction mode: no prepared statement can be kept", better)
    if seen.pool_mode is PoolMode.SESSION:
        return CheckResult("pooler", CheckStatus.GOOD, "a pooler in session mode; fubd uses at most 4 of its connections")
    if is_supabase_direct(dsn):
        fix = "from Railway use the host of the session pooler, port 5432"
        return CheckResult("pooler", CheckStatus.NOTE, "none; this host has only an IPv6 address", fix)
    return CheckResult("pooler", CheckStatus.GOOD, "none: connected to the server directly")


def _check_schema(settings: Settings, seen: DatabaseInspection) -> CheckResult:
    if seen.schema is Schema.REFUSED:
        return CheckResult("schema", CheckStatus.FIX, seen.refusal or "", "start the version of fubd that made it")
    if seen.schema in _UNUSABLE:
        return CheckResult("schema", CheckStatus.FIX, *_UNUSABLE[seen.schema])
    if seen.schema is Schema.READY:
        found = f"ready, {'adopted from older scripts' if seen.adopted else 'made by fubd'}"
        if not seen.foreign_rows:
            return CheckResult("schema", CheckStatus.GOOD, found)
        found += f"; another program has added {format_count(seen.foreign_rows, 'row')} since"
        return CheckResult("schema", CheckStatus.NOTE, found, "stop the older scripts once you trust fubd")
    state = "not made yet" if seen.schema is Schema.EMPTY else "of an older version of fubd"
    if seen.may_create:
        return CheckResult("schema", CheckStatus.NOTE, f"{state}; the daemon brings it up to date at its next start")
    grant = f"GRANT CREATE ON SCHEMA public TO {_user(settings)}; and CREATE ON DATABASE, or CREATE SCHEMA fubd AUTHORIZATION for it"
    return CheckResult(
        "schema", CheckStatus.FIX, f"{state}, and the user of DATABASE_URL may not make it", f"run as an administrator: {grant}"
    )


async def _check_table(dsn: Dsn, settings: Settings, seen: DatabaseInspection) -> CheckResult:
    """Check the table by looking and by a write that is rolled back. Raises Unavailable."""
    if seen.schema is not Schema.READY or seen.read_only:
        (result,) = not_checked(["table"], "database" if seen.read_only else "schema")
        # A schema that is still to be made is no trouble, and neither is a table that does not exist yet.
        return replace(result, status=CheckStatus.NOTE) if seen.schema in {Schema.EMPTY, Schema.BEHIND} and seen.may_create else result
    trouble = await find_trouble(dsn, settings.columns, settings.zone())
    if trouble is not None:
        return CheckResult("table", CheckStatus.FIX, trouble.found, trouble.fix.replace(ANY_USER, dsn.role))
    return CheckResult("table", CheckStatus.GOOD, "public.stage_changes takes what the daemon writes (a write that was rolled back)")


def _user(settings: Settings) -> str:
    return parse(settings.database_url.get_secret_value()).user if settings.database_url is not None else "the user"


def _check_exposure(seen: DatabaseInspection) -> CheckResult:
    if not seen.exposed:
        return CheckResult("exposure", CheckStatus.GOOD, "anon and authenticated, the roles of web clients, can read nothing of it")
    shown = [f"{thing.name} is open to {' and '.join(thing.roles)}" for thing in seen.exposed[:_EXPOSED_SHOWN]]
    more = len(seen.exposed) - _EXPOSED_SHOWN
    found = "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
    return CheckResult("exposure", CheckStatus.FIX, found, "run: " + "; ".join(thing.closing_statement for thing in seen.exposed))
