"""What asyncpg, a pooler and the network raise, sorted by its remedy: Unavailable (try again), Malformed (this data can never be written).

Poolers say most of what troubles them as internal errors (SQLSTATE XX000) with the cause in the text alone, so the text is looked at too.
No text of theirs is repeated: it may hold names of users and hosts.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass

import asyncpg

from fubd.errors import Malformed, Unavailable

_SOON_SECONDS = 5.0
# Ten refused log-ins within 150 s lock a client out for 120 s (Supavisor).
_LOCKED_OUT_SECONDS = 120.0


class LoginRefused(Unavailable):
    """The server or a pooler let us not in. Trying again at once would make it worse: some lock out who is refused too often."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What is said in its place, whether a log-in was refused, and for how long it is better to wait."""

    said: str
    login: bool = False
    retry_after: float | None = None

    def error(self) -> Unavailable:
        """Give the error by remedy."""
        return (LoginRefused if self.login else Unavailable)(self.said, retry_after=self.retry_after)


_NO_ENTRY = _Trouble("the database refused the user or the password of DATABASE_URL", login=True)
_NO_DATABASE = _Trouble("the database named in DATABASE_URL does not exist")
_LOCKED_OUT = _Trouble("the pooler lets nobody in for a while, after too many refused log-ins", login=True, retry_after=_LOCKED_OUT_SECONDS)
_NO_TENANT = _Trouble("the pooler knows no such user; on Supabase it is postgres.PROJECT, as its dashboard shows it", login=True)
_MAY_NOT = _Trouble("the user of DATABASE_URL may not do this in the database: `python -m fubd check` says what it needs")
_READ_ONLY = _Trouble("the database can only be read: set DATABASE_URL to the primary server, with a role that may write")
_FULL = _Trouble("there is no room for another connection to the database", retry_after=_SOON_SECONDS)
_NO_SERVER = _Trouble("the pooler has no connection to the database", retry_after=_SOON_SECONDS)
_STARTING = _Trouble("the database is starting up or shutting down", retry_after=_SOON_SECONDS)

# The first whose word occurs in the text of an internal error, in lower case. Codes and texts are Supavisor's and PgBouncer's.
_SAID: tuple[tuple[str, _Trouble], ...] = (
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
    ("no such database", _NO_DATABASE),
    ("password", _NO_ENTRY),
    ("auth", _NO_ENTRY),
    ("sasl", _NO_ENTRY),
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
)
# SQLSTATEs that say enough by themselves.
_CODES = {
    "28P01": _NO_ENTRY,
    "28000": _NO_ENTRY,
    "3D000": _NO_DATABASE,
    "42501": _MAY_NOT,
    "25006": _READ_ONLY,
    "53300": _FULL,
    "57P01": _STARTING,
    "57P02": _STARTING,
    "57P03": _STARTING,
}
# What no later try can change: a value that its type, a constraint or an index does not take.
_UNFIT = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
# What poolers use for whatever it is: internal error, protocol violation, connection exception.
_VAGUE = frozenset({"XX000", "08P01", "08006", "08000", "08003", "08004", "58000"})


class SortedErrors:
    """Turn what the driver raises into the errors named by remedy."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raise the error by remedy in place of the driver's."""
        if isinstance(error, _UNFIT):
            raise Malformed(f"the database cannot hold this: {type(error).__name__}") from None
        if isinstance(error, asyncpg.PostgresError):
            raise _of_server(error).error() from None
        if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
            raise Unavailable(f"the connection to the database was lost ({type(error).__name__})") from None
        if isinstance(error, TimeoutError):
            raise Unavailable("the database did not answer in time") from None
        if isinstance(error, OSError):
            raise Unavailable(_of_network(error)) from None


def _of_server(error: asyncpg.PostgresError) -> _Trouble:
    code = error.sqlstate or ""
    if code in _CODES:
        return _CODES[code]
    if code in _VAGUE:
        text = str(error).lower()
        for word, trouble in _SAID:
            if word in text:
                return trouble
    return _Trouble(f"the database could not do it now ({code or 'no code'} {type(error).__name__})")


def _of_network(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the database's certificate is not to be trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "the database speaks no TLS that we do"
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error):
        return "the database speaks no TLS, which is required"
    return f"the database cannot be reached ({_cause(error)})"


def _cause(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its host's name is not known, or no name server answers"
    if error.errno is None:
        return "the connection was cut" if isinstance(error, ConnectionError) else "none of its addresses answers"
    # The system's own words for the number: what asyncio adds to them names the address.
    return os.strerror(error.errno)
