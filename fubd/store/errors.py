"""Translates what asyncpg, a pooler and the network raise into fubd's errors: Unavailable (try again) or Malformed (never storable).

Poolers report most faults as internal errors (SQLSTATE XX000) with the cause only in the text, so the text is searched too. The text itself
is never repeated: it may contain names of users and hosts. Messages name the database by host, port and name.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg

from fubd.errors import Interrupted, Malformed, TableRefused, Unavailable
from fubd.os_errors import describe_os_error
from fubd.store import refusals

_SOON_SECONDS = 5.0
# Supavisor locks a client out for 120 s after ten refused logins within 150 s.
_LOCKED_OUT_SECONDS = 120.0


class LoginRefused(Unavailable):
    """The server or a pooler refused the login. An immediate retry makes it worse: some lock out a client after several refusals."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """A message with {database} for the place, whether a login was refused, and the advised delay in seconds."""

    message: str
    login: bool = False
    retry_after: float | None = None

    def error(self, place: str) -> Unavailable:
        """Return the exception to raise."""
        message = self.message.format(database=f"the database at {place}")
        return (LoginRefused if self.login else Unavailable)(message, retry_after=self.retry_after)


_BAD_CREDENTIALS = _Fault("{database} refused the user or the password of DATABASE_URL", login=True)
_NO_DATABASE = _Fault("{database} does not exist: correct the name in DATABASE_URL, or create it")
_LOCKED_OUT = _Fault(
    "the pooler of {database} accepts no logins for about two minutes, after too many refused ones",
    login=True,
    retry_after=_LOCKED_OUT_SECONDS,
)
_NO_TENANT = _Fault(
    "the pooler of {database} does not know the user of DATABASE_URL; on Supabase it is postgres.PROJECT, as its dashboard shows it",
    login=True,
)
_NOT_ALLOWED = _Fault(
    "the user of DATABASE_URL lacks a privilege in {database}: run deploy/role.sql as the owner of the database, and use the role that it"
    " makes in DATABASE_URL"
)
_READ_ONLY = _Fault(
    "{database} can only be read: set DATABASE_URL to the primary server, with a role that may write; a Supabase project whose disk is full"
    " is read-only too, until its disk is enlarged"
)
_DISK_FULL = _Fault("the disk of {database} is full: free space or enlarge it", retry_after=_SOON_SECONDS)
_FULL = _Fault("{database} accepts no further connection", retry_after=_SOON_SECONDS)
_CLOSED = _Fault("{database} accepts no connections: run ALTER DATABASE … ALLOW_CONNECTIONS true, or resume it")
_NO_SERVER = _Fault("the pooler of {database} has no connection to its server", retry_after=_SOON_SECONDS)
_STATEMENT_MODE = _Fault(
    "the pooler of {database} runs in statement mode, and fubd needs transactions: set it to transaction or session mode"
)
_CUT = _Fault("{database} cannot be reached (the connection was cut)")
_STARTING = _Fault("{database} is starting up or shutting down", retry_after=_SOON_SECONDS)

# Words in the lower-case text of an internal error; the first that occurs decides. Codes and texts are Supavisor's and PgBouncer's.
_MESSAGES: tuple[tuple[str, _Fault], ...] = (
    ("ecircuitbreaker", _LOCKED_OUT),
    ("circuit breaker", _LOCKED_OUT),
    ("too many authentication", _LOCKED_OUT),
    ("enotfound", _NO_TENANT),
    ("tenant or user not found", _NO_TENANT),
    ("no such user", _NO_TENANT),
    ("emaxconn", _FULL),
    ("max client", _FULL),
    ("maxclients", _FULL),
    ("no more connections allowed", _FULL),
    ("too many connections", _FULL),
    ("statement pooling", _STATEMENT_MODE),
    ("no such database", _NO_DATABASE),
    ("password", _BAD_CREDENTIALS),
    ("auth", _BAD_CREDENTIALS),
    ("sasl", _BAD_CREDENTIALS),
    ("echeckouttimeout", _NO_SERVER),
    ("unable to check out", _NO_SERVER),
    ("edbhandlerexited", _NO_SERVER),
    ("dbhandler", _NO_SERVER),
    ("server_login_retry", _NO_SERVER),
    ("server login", _NO_SERVER),
    ("connection to database closed", _NO_SERVER),
    ("server conn crashed", _NO_SERVER),
    ("query_wait_timeout", _NO_SERVER),
    ("shutting down", _STARTING),
    ("not currently accepting connections", _CLOSED),
)
# SQLSTATEs that identify the fault by themselves.
_CODES = {
    "28P01": _BAD_CREDENTIALS,
    "28000": _BAD_CREDENTIALS,
    "3D000": _NO_DATABASE,
    "42501": _NOT_ALLOWED,
    "25006": _READ_ONLY,
    "53100": _DISK_FULL,
    "53300": _FULL,
    "57P01": _STARTING,
    "57P02": _STARTING,
    "57P03": _STARTING,
}
# A retry cannot help: a type or an index of ours refuses the value.
_REFUSED_VALUE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
# The transaction took too long, waited too long for a lock, collided with another, or the table was altered since its plan was made.
_INTERRUPTED = (
    *(asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError),
    *(asyncpg.InvalidCachedStatementError, asyncpg.UndefinedObjectError),
)
# Used for many faults: internal error, protocol violation, connection exception, something in the wrong state.
_UNSPECIFIC = frozenset({"XX000", "55000", "08P01", "08006", "08000", "08003", "08004", "58000"})
# The driver's own too, for a connection that ended while it waited for an answer.
_CONNECTION_LOST = frozenset({"08003", "08006"})

# What the user may not use, as the server names it, and what to grant: on an object of this name.
_DENIED = re.compile(r"permission denied for (?P<kind>table|view|sequence|schema|function|database) \"?(?P<name>\w+)")
_GRANTS = {
    "table": "SELECT, INSERT, UPDATE, DELETE ON {schema}.{name}",
    "view": "SELECT ON {schema}.{name}",
    "sequence": "USAGE, SELECT ON SEQUENCE {schema}.{name}",
    "schema": "USAGE, CREATE ON SCHEMA {name}",
    "function": "EXECUTE ON ALL FUNCTIONS IN SCHEMA fubd",
    "database": "CREATE ON DATABASE {name}",
}
_PRODUCT = re.compile(r"stage_changes\w*|source_health|rapid_transitions|stage_durations|current_stages")
_NO_RELATION = re.compile(r"relation \"(?P<name>[\w.]+)\" does not exist")

# OpenSSL's reasons for a handshake that failed because the server is limited to older versions than ours.
_OLD_TLS = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})


def read_only(place: str) -> Unavailable:
    """Return the error of a database that can be read and not written."""
    return _READ_ONLY.error(place)


def emptied(table: str, place: str) -> Unavailable:
    """Return the error of one of fubd's tables whose only row is gone, as while a backup is being restored."""
    return Unavailable(
        f"the table {table} is empty in the database at {place}, and fubd made it with one row: while a backup is being restored, wait for"
        " its end; else restore one"
    )


@contextmanager
def translate_errors(place: str) -> Iterator[None]:
    """Raise fubd's errors in place of the driver's and the network's. `place` is the database's host, port and name."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_statement(error) or _of_server(error).error(place) from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise Unavailable(f"the connection to the database at {place} was lost ({type(error).__name__})") from None
    except TimeoutError:
        raise Unavailable(f"the database at {place} did not answer in time") from None
    except OSError as error:
        raise Unavailable(f"the database at {place} {_of_network(error)}") from None


def _of_statement(error: asyncpg.PostgresError) -> Unavailable | Malformed | None:
    """Return the error of a statement that the server could not run for what it says; None when the server itself is in trouble."""
    refusal = refusals.describe(error)
    if refusal is not None:
        return TableRefused(refusal)
    if isinstance(error, _REFUSED_VALUE):
        return Malformed(f"the database refused a value ({type(error).__name__})")
    if isinstance(error, _INTERRUPTED):
        return Interrupted(f"the database stopped a statement ({error.sqlstate} {type(error).__name__})")
    return None


def _of_server(error: asyncpg.PostgresError) -> _Fault:
    code = error.sqlstate or ""
    if code == "42501" and (denied := _DENIED.search(str(error))):
        return _denied(denied["kind"], denied["name"])
    if code == "42P01" and (missing := _NO_RELATION.search(str(error))):
        return _Fault(
            f"the table or view {missing['name']} is missing in {{database}}: if it was renamed or moved to another schema, undo that; else"
            " restore it from a backup of the database, as fubd made it once; where nothing of fubd is left, a restart of fubd makes all of"
            " it again, empty"
        )
    if code in _CODES:
        return _CODES[code]
    if code in _UNSPECIFIC:
        text = str(error).lower()
        for word, fault in _MESSAGES:
            if word in text:
                return fault
    if code in _CONNECTION_LOST:
        return _CUT
    return _Fault(f"{{database}} could not run a statement now ({code or 'no code'} {type(error).__name__})")


def _denied(kind: str, name: str) -> _Fault:
    schema = "public" if _PRODUCT.fullmatch(name) else "fubd"
    grant = _GRANTS[kind].format(schema=schema, name=name)
    return _Fault(
        f"the user of DATABASE_URL lacks a privilege on the {kind} {name} in {{database}}: as its owner run GRANT {grant}"
        f" TO {refusals.ANY_USER}; deploy/role.sql makes a role that has them all"
    )


def _of_network(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        if error.reason in _OLD_TLS:
            return "offers only TLS versions below 1.2"
        return f"failed the TLS handshake ({error.reason or type(error).__name__})"
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error):
        return "offers no TLS, which is required"
    return f"cannot be reached ({_cause(error)})"


def _cause(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its host name is not known, or no name server answers"
    if error.errno is None:
        return "the connection was cut" if isinstance(error, ConnectionError) else "none of its addresses answers"
    return describe_os_error(error)
