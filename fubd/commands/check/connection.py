"""What to do when the database or Follow Up Boss cannot be reached or used: each cause has its own fix."""

from __future__ import annotations

from fubd.store.dsn import Dsn
from fubd.store.refusals import ANY_USER

_SESSION_POOLER = "Supabase: Connect, Session pooler, port 5432"
_POOLED_USER = "copy the connection string again and put the password in it; through a pooler the user is postgres.PROJECT"

# A part of the message (`fubd.store.errors`), and the fix. The first that occurs decides.
_FIXES = (
    ("refused the user or the password", f"{_POOLED_USER} ({_SESSION_POOLER})"),
    ("does not know the user", f"{_POOLED_USER} ({_SESSION_POOLER})"),
    ("accepts no logins", "correct the password in every program that uses this database, then wait two minutes"),
    (
        "accepts no further connection",
        "close connections of other programs, or raise the limit of the server or pooler; fubd uses at most 4",
    ),
    ("has no connection to its server", "see whether the database is paused, restarting or overloaded; on Supabase, restore the project"),
    ("is starting up or shutting down", "wait a minute, then run this again"),
    ("certificate that is not trusted", "set DATABASE_CA_CERT to the provider's certificate; if a firewall inspects TLS, except this host"),
    ("in statement mode", "set pool_mode = transaction in the pooler, or connect to the server directly"),
    ("can only be read", "use the primary server in DATABASE_URL; on Supabase enlarge a full disk (Database, Settings)"),
    ("is full", "free space or enlarge the disk; on Supabase: Database, Settings, Disk size"),
    ("offers no TLS", "turn on TLS in the server (ssl = on), or use your provider's host that has it"),
    ("TLS", "use a server and a pooler with TLS 1.2 or newer, and no proxy between that changes the connection"),
    ("host name is not known", "correct the host in DATABASE_URL; it has no spaces and no https://"),
    (
        "the connection was cut",
        "correct host and port in DATABASE_URL, or look at the log of a pooler or proxy there",
    ),
    ("Connection refused", "start the database, or correct host and port in DATABASE_URL"),
    *(
        (
            words,
            "use a host that this machine has a route to, such as one with an IPv4 address, or let it through the firewall",
        )
        for words in ("No route to host", "etwork is unreachable")
    ),
    (
        "did not answer in time",
        "allow this machine in the database's firewall (Supabase: Database, Network Restrictions), or correct the port",
    ),
    ("none of its addresses answers", "allow this machine in the database's firewall, or correct host and port in DATABASE_URL"),
)
_IPV6_ONLY = f"this host has only an IPv6 address: use the host of the session pooler ({_SESSION_POOLER})"
_CREDENTIALS = "correct user and password in DATABASE_URL, or allow this user and this machine in the server's pg_hba.conf"
_OTHERWISE = "look at the database's own log, then run this again"
_EMBEDDED = "set DATABASE_URL to a database of your own, or remove the cause that is named here"


def is_supabase(dsn: Dsn) -> bool:
    """Return whether this is a host of Supabase."""
    return dsn.host.endswith((".supabase.co", ".supabase.com"))


def is_supabase_direct(dsn: Dsn) -> bool:
    """Return whether this is the host of a Supabase project itself, which has only an IPv6 address."""
    return dsn.host.startswith("db.") and is_supabase(dsn)


# The same for Follow Up Boss (`fubd.client`).
_FUB_FIXES = (
    (
        "certificate could not be verified",
        "a firewall or antivirus program inspects TLS here: except {host} from it, or set SSL_CERT_FILE to a file that also has its CA",
    ),
    ("name could not be resolved", "correct FUB_API_URL, or the name server of this machine"),
    ("no connection", "allow this machine to open {host}:{port} in its firewall, or correct FUB_API_URL"),
    ("timed out", "try again: the connection to {host} works, and the answer took too long"),
)
_FUB_OTHERWISE = "check that this machine can reach FUB_API_URL, and try again"
_PROXY = "HTTPS_PROXY is set here, and fubd connects without a proxy: let this machine open {host}:{port} directly"


def explain_fub_failure(message: str, *, host: str, port: int, has_proxy: bool) -> str:
    """Return the fix. `has_proxy`: a proxy is set for this machine."""
    cause, fix = next(((words, fix) for words, fix in _FUB_FIXES if words in message), ("", _FUB_OTHERWISE))
    if has_proxy and cause in {"no connection", "name could not be resolved"}:
        fix = _PROXY
    return fix.format(host=host, port=port)


def explain_failure(message: str, dsn: Dsn | None) -> tuple[str, str]:
    """Return what happened and the fix. `dsn`: None for the embedded database."""
    if dsn is None:
        return message, _EMBEDDED
    message = message.replace(ANY_USER, dsn.role)
    found, separator, advice = message.partition(": ")
    if is_supabase_direct(dsn) and "cannot be reached" in message:
        return message, _IPV6_ONLY
    if "refused the user or the password" in message and not is_supabase(dsn):
        return message, _CREDENTIALS
    fix = next((fix for words, fix in _FIXES if words in message), None)
    if fix is None and separator:
        return found, advice
    return message, fix or _OTHERWISE
