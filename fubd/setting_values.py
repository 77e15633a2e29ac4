"""The values of settings, parsed from text: one function per kind of value, each raises Rejected with what is wrong with it."""

from __future__ import annotations

import ipaddress
import json
import math
import re
import ssl
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

# fubd's own columns of public.stage_changes, and the system columns that every table of Postgres has.
_OWN_COLUMNS = frozenset(
    (
        *("id", "person_id", "first_name", "last_name", "stage_from", "stage_to", "changed_at", "changed_after", "received_at"),
        *("source", "confirmed_by", "confirmed_at", "event_id", "raw_payload"),
        *("assigned_user_id", "assigned_user_name", "lead_source_tag"),
    )
)
_SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_COLUMN = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_FUB_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
# The routes of `fubd.server.server`, one of which is often pasted with the address.
_OUR_ROUTE = re.compile(r"/(?:webhook/fub(?:/stage-change)?|healthz|readyz|health|metrics|api/changes|api/stream)/?$", re.IGNORECASE)
_TIME_OF_DAY = re.compile(r"(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])", re.ASCII)
_SHORTEST_TOKEN = 16
_DIGITS = re.compile(r"[0-9]{1,9}")
_YES_OR_NO = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_HIGHEST_PORT = 65535
# Thirty years: long enough for any purpose, and short enough to add to any date.
_LONGEST_SECONDS = 1e9
_DAY_SECONDS = 86_400
_SHOWN_LENGTH = 60


class Rejected(ValueError):
    """What is wrong with one value, worded to follow the name of its variable."""


def _quoted(value: object) -> str:
    """Return a value that is not a secret in quotes, on one line of readable length."""
    text = "".join(character if character.isprintable() else "?" for character in str(value))
    return json.dumps(text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "…", ensure_ascii=False)


def _number(value: object) -> float:
    text = str(value)
    try:
        # float() also accepts 1_000 and the digits of every script; other programs do not.
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise Rejected(f"{_quoted(value)} is not a number")
    if not math.isfinite(number):
        raise Rejected(f"{_quoted(value)} is not a finite number")
    return number


def _positive(value: object) -> float:
    number = _number(value)
    if number <= 0:
        raise Rejected(f"{_quoted(value)} is not greater than 0")
    return number


def seconds(value: object) -> float:
    """Return a number of seconds above 0, thirty years at most."""
    return min(_positive(value), _LONGEST_SECONDS)


def days(value: object) -> float:
    """Return a number of days above 0, thirty years at most."""
    return min(_positive(value), _LONGEST_SECONDS / _DAY_SECONDS)


def share(value: object) -> float:
    """Return a number above 0 and at most 1."""
    number = _positive(value)
    if number > 1:
        raise Rejected(f"{_quoted(value)} is greater than 1")
    return number


def whole(value: object) -> int:
    """Return a whole number of 0 or more."""
    if not _DIGITS.fullmatch(str(value)):
        raise Rejected(f"{_quoted(value)} is not a whole number of 0 or more")
    return int(str(value))


def port(value: object) -> int:
    """Return the number of a port, 0 for any free one."""
    number = whole(value)
    if number > _HIGHEST_PORT:
        raise Rejected(f"{_quoted(value)} is greater than {_HIGHEST_PORT}")
    return number


def yes_or_no(value: object) -> bool:
    """Return whether the text means yes."""
    parsed = _YES_OR_NO.get(str(value).lower())
    if parsed is None:
        raise Rejected(f"{_quoted(value)} is neither true nor false")
    return parsed


def log_format(value: object) -> object:
    """Return the name of a log format."""
    if value not in {None, "json", "console"}:
        raise Rejected(f"{_quoted(value)} is not known")
    return value


def printable(value: str) -> str:
    """Return text without control characters."""
    if not value.isprintable():
        raise Rejected("contains a character that cannot be printed")
    return value


def secret(value: object) -> object:
    """Check a secret, without repeating it in an error."""
    if isinstance(value, str):
        printable(value)
    return value


def ip_address(value: str) -> str:
    """Return an IP address in its usual form."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise Rejected(f"{_quoted(value)} is not an IP address") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url(value: str) -> str:
    """Check the URL of an HTTP service; an error does not repeat the value, which may contain a token."""
    try:
        components = urlsplit(printable(value))
        host, _ = components.hostname, components.port
    except ValueError:
        raise Rejected("is not a URL") from None
    if components.scheme not in {"http", "https"} or not host or " " in value:
        raise Rejected("is not an http(s) URL")
    if components.scheme == "http" and not _is_loopback(host):
        raise Rejected("is plain http to another host")
    if components.username is not None or components.password is not None:
        raise Rejected("contains a user or a password")
    return value


def base_url(value: str) -> str:
    """Return a URL without a query and without a slash at its end."""
    components = urlsplit(url(value))
    if components.query or components.fragment:
        raise Rejected("contains a ? or a #")
    return value.rstrip("/")


def secret_url(value: object) -> object:
    """Check a URL that may contain a token, without repeating it in an error."""
    if isinstance(value, str):
        url(value)
    return value


def certificates(value: str) -> str:
    """Return the PEM text, read from the file when the value is a path."""
    text = value
    if "-----BEGIN" not in value:
        if not value.isprintable():
            raise Rejected("is a path with a control character; in .env, write a path without double quotes, which make \\n a line break")
        try:
            text = Path(value).expanduser().read_text(encoding="ascii")
        except (OSError, ValueError, RuntimeError):
            raise Rejected("is neither PEM text nor a file that can be read") from None
    # In a variable of one line, line breaks are often written as a backslash and an n.
    text = text.replace("\\n", "\n")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise Rejected("contains no certificate that can be read") from None
    return text


def public_url(value: str) -> str:
    """Return the address under which FUB reaches us: doubled slashes, and one of our routes at its end, are left out."""
    if "${" in value:
        raise Rejected("contains ${, a reference to another variable that was not replaced")
    components = urlsplit(base_url(value))
    path = _OUR_ROUTE.sub("", re.sub("/{2,}", "/", components.path))
    return f"{components.scheme}://{components.netloc}{path.rstrip('/')}"


def timezone(value: str) -> str:
    """Return the name of a time zone that this machine knows."""
    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError):
        raise Rejected(f"{_quoted(value)} is not a time zone known here") from None
    return value


def time_of_day(value: object) -> time | None:
    """Return a time of the day; None for `off`."""
    if not isinstance(value, str):
        raise Rejected("is not a time of the day")
    if value.lower() == "off":
        return None
    found = _TIME_OF_DAY.fullmatch(value)
    if found is None:
        raise Rejected(f"{_quoted(value)} is not a time of the day")
    return time(int(found["hour"]), int(found["minute"]))


def token(value: object) -> object:
    """Check a token that others must not guess, without repeating it in an error."""
    if isinstance(value, str) and len(value) < _SHORTEST_TOKEN:
        raise Rejected(f"is shorter than {_SHORTEST_TOKEN} characters")
    return secret(value)


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_without_repetition)
    except Rejected:
        raise
    except (ValueError, RecursionError):
        raise Rejected("is not JSON") from None


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    decoded = dict[str, object]()
    for key, value in pairs:
        if key in decoded:
            # JSON's decoder would keep the last one and say nothing.
            raise Rejected(f"contains {_quoted(key)} twice")
        decoded[key] = value
    return decoded


def columns(value: object) -> dict[str, str]:
    """Return columns of stage_changes by name, with the FUB field of each."""
    decoded = _json(value)
    if not isinstance(decoded, Mapping):
        raise Rejected("is not a JSON object")
    for column, name in decoded.items():
        if not _COLUMN.fullmatch(column):
            raise Rejected(f"the column {_quoted(column)} is not a plain lower-case identifier")
        if column in _OWN_COLUMNS:
            raise Rejected(f"{_quoted(column)} is one of fubd's own columns")
        if column in _SYSTEM_COLUMNS:
            raise Rejected(f"{_quoted(column)} is a system column of Postgres")
        if not isinstance(name, str) or not _FUB_FIELD.fullmatch(name):
            raise Rejected(f"the value of {_quoted(column)} is not the name of a field in Follow Up Boss")
    return dict(decoded)


def names(value: object) -> tuple[str, ...]:
    """Return a list of names."""
    decoded = _json(value)
    if not isinstance(decoded, list | tuple):
        raise Rejected("is not a JSON list")
    names = [name for name in decoded if isinstance(name, str) and name.strip() and name.isprintable()]
    if len(names) != len(decoded):
        raise Rejected("contains something that is not a name")
    return tuple(names)
