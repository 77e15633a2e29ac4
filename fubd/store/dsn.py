"""Parses DATABASE_URL into the arguments of asyncpg.connect.

A password may be written as it is, with any of @ # / : ? % in it, or percent-encoded: the host begins after the last @ that a host and a
database can follow, and a % that does not begin a valid escape is a plain character. PG* variables and ~/.pgpass are not used, and no error
repeats any part of the URL.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

from typing_extensions import override

from fubd.settings import InvalidSetting, SettingsError
from fubd.store.quoting import quote_identifier

_ACCEPTED = "postgresql://user:password@host:port/database"
_DEFAULT_PORT = 5432
_HIGHEST_PORT = 65535

_SUPABASE_POOLER = ".pooler.supabase.com"
# Supabase's dashboard shows the URL with this in place of the password.
_PLACEHOLDER = "[YOUR-PASSWORD]"

_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCHEME = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_TAIL = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.~%-]*)(?::(?P<port>[0-9]*))?(?P<others>,[^/?#@]*)?"
    r"(?:/(?P<database>[^/?#@]*))?(?:\?(?P<query>.*))?"
)

# The parameters that libpq and common drivers know. An @ after the ? belongs to the query only if all of its keys are among them.
_KNOWN_KEYS = frozenset(
    (
        *("host", "hostaddr", "port", "user", "password", "passfile", "dbname", "database", "options", "application_name"),
        *("sslmode", "ssl", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslnegotiation", "pgbouncer", "connection_limit"),
        *("connect_timeout", "target_session_attrs", "channel_binding", "client_encoding", "fallback_application_name"),
    )
)


class Tls(StrEnum):
    """libpq's sslmode, after our rules were applied."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


_LAX = frozenset({Tls.DISABLE, Tls.ALLOW, Tls.PREFER})
# Other drivers' words for the same.
_TLS_WORDS = {
    **{mode.value: mode for mode in Tls},
    **dict.fromkeys(("true", "1", "no-verify", "verify_none"), Tls.REQUIRE),
    **dict.fromkeys(("false", "0"), Tls.DISABLE),
    "verify_ca": Tls.VERIFY_CA,
    "verify_full": Tls.VERIFY_FULL,
}


class HostContext(ssl.SSLContext):
    """A TLS context for one host, by name, whichever address of it is connected to. The name is also what the server is asked for (SNI)."""

    host = ""

    @override
    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.host, session)


@dataclass(frozen=True, slots=True)
class Dsn:
    """Where the database is and how to connect to it. A `host` that begins with / is the folder of a Unix socket.

    `dropped`: the names of parameters that fubd does not use, such as pgbouncer.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: Tls
    direct_tls: bool = False
    application_name: str = "fubd"
    options: str | None = None
    dropped: tuple[str, ...] = ()
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    @property
    def place(self) -> str:
        """Host, port and database name, for messages: no user, no password."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("/") else self.host
        return f"{host}:{self.port}/{self.database}"

    @property
    def role(self) -> str:
        """The user's name in the database, as a statement takes it: through Supabase's pooler the user is ROLE.PROJECT."""
        return quote_identifier(self.user.rpartition(".")[0] if self.host.endswith(_SUPABASE_POOLER) else self.user)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        return _is_local(self.host)

    def connect_arguments(self) -> dict[str, Any]:
        """Return the arguments of asyncpg.connect and asyncpg.create_pool.

        They include everything that asyncpg would otherwise look up in the environment. Where TLS is required they include an SSL context,
        because asyncpg's own modes fall back to plaintext silently.
        """
        server_settings = {"application_name": self.application_name}
        if self.options is not None:
            server_settings["options"] = self.options
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "ssl": self.context or (False if self.tls is Tls.DISABLE else self.tls.value),
            "direct_tls": self.direct_tls,
            "server_settings": server_settings,
            "target_session_attrs": "any",
            "krbsrvname": "postgres",
            "gsslib": "gssapi",
        }


def parse(url: str, *, ca_certificates: str | None = None) -> Dsn:
    """Parse a DATABASE_URL. `ca_certificates` is PEM text and turns on verify-full. Raises SettingsError."""
    text = url.strip()
    scheme = _SCHEME.match(text)
    if scheme is None:
        _refuse("does not begin with postgresql:// or postgres://")
    if _UNUSABLE.search(text):
        _refuse("contains a line break or another control character")
    user, password, tail = _split(text[scheme.end() :])
    if tail["others"] is not None:
        _refuse("names more than one host")
    parameters = _Parameters(_parameters(tail["query"] or ""))
    host = parameters.take("host") or unquote(tail["host"]).strip("[]")
    if not host:
        _refuse("names no host", "a host, or the folder of a Unix socket as ?host=/run/postgresql")
    if "," in host and not host.startswith("/"):
        _refuse("names more than one host")
    user = parameters.take("user") or user
    if not user:
        _refuse("names no user")
    password = parameters.take("password") or password
    if password == _PLACEHOLDER:
        _refuse(f"still contains the placeholder {_PLACEHOLDER}", "the URL with the database's password in its place")
    database = parameters.take("dbname") or parameters.take("database") or unquote(tail["database"] or "") or user
    if "\0" in user + password + database + host:
        _refuse("contains a zero byte")
    tls = _tls(host, parameters.take("sslmode") or parameters.take("ssl"), ca_certificates)
    return Dsn(
        host=host,
        port=_port(parameters.take("port") or tail["port"]),
        user=user,
        password=password,
        database=database,
        tls=tls,
        direct_tls=parameters.take("sslnegotiation") == "direct" and tls not in _LAX,
        application_name=parameters.take("application_name") or "fubd",
        options=_options(parameters.take("options")),
        context=_context(host, tls, parameters, ca_certificates),
        dropped=parameters.unused(),
    )


class _Parameters:
    """The URL's parameters; those that are never taken are dropped."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """Return a parameter's text, empty when it is not there."""
        self._taken.add(name)
        return self._values.get(name, "")

    def unused(self) -> tuple[str, ...]:
        """Return the names of the parameters that were not taken."""
        return tuple(sorted(name for name in self._values if name not in self._taken))


def _split(rest: str) -> tuple[str, str, re.Match[str]]:
    """Return user, password and the match of the rest. The last @ that a database can follow ends the password."""
    ends = [index for index in range(len(rest) - 1, -1, -1) if rest[index] == "@"]
    read = ((end, _TAIL.fullmatch(rest, end + 1)) for end in (*ends, -1))
    candidates = [(end, tail) for end, tail in read if tail is not None and _is_plausible_query(tail["query"] or "")]
    with_database = [found for found in candidates if found[1]["database"]]
    with_at_in_query = [found for found in candidates if "@" in (found[1]["query"] or "")]
    best = next(iter(with_database or with_at_in_query or candidates), None)
    if best is None:
        _refuse("cannot be read: host, port and database do not follow the last @")
    if best[0] < 0:
        return "", "", best[1]
    user, _, password = rest[: best[0]].partition(":")
    return _decoded(user), _decoded(password), best[1]


def _is_plausible_query(query: str) -> bool:
    return "@" not in query or set(_parameters(query)) <= _KNOWN_KEYS


def _decoded(text: str) -> str:
    """Decode percent-encoding; a % that begins no valid escape stays as it is."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def _parameters(query: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote(name): _decoded(value) for name, _, value in pairs}


def _port(text: str | None) -> int:
    if not text:
        return _DEFAULT_PORT
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_HIGHEST_PORT)) or not 0 < int(text) <= _HIGHEST_PORT:
        _refuse("has a port that is not a number from 1 to 65535")
    return int(text)


def _options(text: str) -> str | None:
    """Keep the tenant that some poolers read from `options`; drop settings (-c name=value), which poolers refuse and fubd makes itself."""
    return text if text and not text.startswith("-") else None


def _is_local(host: str) -> bool:
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(host: str, sslmode: str, ca_certificates: str | None) -> Tls:
    """Return the mode: as requested on this machine, at least `require` to another one, `verify-full` with a CA."""
    if sslmode and sslmode.lower() not in _TLS_WORDS:
        _refuse("has an unknown sslmode", ", ".join(mode.value for mode in Tls))
    requested = _TLS_WORDS[sslmode.lower()] if sslmode else Tls.DISABLE
    if host.startswith("/"):
        return Tls.DISABLE
    if ca_certificates is not None:
        return Tls.VERIFY_FULL
    return Tls.REQUIRE if requested in _LAX and not _is_local(host) else requested


def _context(host: str, tls: Tls, parameters: _Parameters, ca_certificates: str | None) -> ssl.SSLContext | None:
    root, certificate, key, passphrase = (parameters.take(name) for name in ("sslrootcert", "sslcert", "sslkey", "sslpassword"))
    if tls in _LAX:
        return None
    # Not create_default_context: its strict mode (Python 3.13) rejects the CA certificates of well-known providers.
    context = HostContext(ssl.PROTOCOL_TLS_CLIENT)
    context.host = host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["postgresql"])
    context.check_hostname = tls is Tls.VERIFY_FULL
    if tls is Tls.REQUIRE:
        context.verify_mode = ssl.CERT_NONE
    elif ca_certificates is not None:
        context.load_verify_locations(cadata=ca_certificates)
    elif root and root != "system":
        _load(lambda: context.load_verify_locations(cafile=Path(root).expanduser()), "sslrootcert")
    else:
        context.load_default_certs()
    if certificate:
        # Without the callback OpenSSL asks for the passphrase of a key on the terminal.
        _load(lambda: context.load_cert_chain(certificate, keyfile=key or None, password=lambda: passphrase), "sslcert or sslkey")
    return context


def _load(load: Callable[[], None], parameter: str) -> None:
    try:
        load()
    except (OSError, ValueError):
        _refuse(f"names a file in {parameter} that cannot be read")


def _refuse(problem: str, accepted: str = _ACCEPTED) -> NoReturn:
    raise SettingsError(InvalidSetting("DATABASE_URL", problem, accepted)) from None
