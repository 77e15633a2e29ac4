"""The settings, read once from the environment and from `.env` in the working directory (the environment wins).

An empty variable counts as not set. All bad variables are reported at once, one line each, and no line contains the value of a secret.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from fubd.errors import UserError

# The variables that must be set: for a command that calls Follow Up Boss, and for the daemon.
FOR_FUB = frozenset({"FUB_API_KEY"})
FOR_THE_DAEMON = FOR_FUB | {"FUB_SYSTEM_KEY"}

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
_DIGITS = re.compile(r"[0-9]{1,9}")
_YES_OR_NO = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_HIGHEST_PORT = 65535
# Thirty years: long enough for any purpose, and short enough to add to any date.
_LONGEST_SECONDS = 1e9
_DAY_SECONDS = 86_400
_SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class InvalidSetting:
    """One bad variable: its name, what is wrong with it, and what is accepted."""

    variable: str
    reason: str
    accepted: str

    def line(self) -> str:
        """Return it as one line."""
        return f"{self.variable}: {self.reason}; accepted: {self.accepted}"


class SettingsError(UserError):
    """The configuration cannot be used. The message has one line per bad variable."""

    def __init__(self, *invalid: InvalidSetting) -> None:
        super().__init__("\n".join(setting.line() for setting in invalid))
        self.invalid = invalid


class _Rejected(ValueError):
    """What is wrong with one value, worded to follow the name of its variable."""


# --- Parsers, one per kind of value: each raises _Rejected ------------------------------------------------------------


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
        raise _Rejected(f"{_quoted(value)} is not a number")
    if not math.isfinite(number):
        raise _Rejected(f"{_quoted(value)} is not a finite number")
    return number


def _positive(value: object) -> float:
    number = _number(value)
    if number <= 0:
        raise _Rejected(f"{_quoted(value)} is not greater than 0")
    return number


def _seconds(value: object) -> float:
    return min(_positive(value), _LONGEST_SECONDS)


def _days(value: object) -> float:
    return min(_positive(value), _LONGEST_SECONDS / _DAY_SECONDS)


def _share(value: object) -> float:
    number = _positive(value)
    if number > 1:
        raise _Rejected(f"{_quoted(value)} is greater than 1")
    return number


def _whole(value: object) -> int:
    if not _DIGITS.fullmatch(str(value)):
        raise _Rejected(f"{_quoted(value)} is not a whole number of 0 or more")
    return int(str(value))


def _port(value: object) -> int:
    number = _whole(value)
    if number > _HIGHEST_PORT:
        raise _Rejected(f"{_quoted(value)} is greater than {_HIGHEST_PORT}")
    return number


def _yes_or_no(value: object) -> bool:
    parsed = _YES_OR_NO.get(str(value).lower())
    if parsed is None:
        raise _Rejected(f"{_quoted(value)} is neither true nor false")
    return parsed


def _log_format(value: object) -> object:
    if value not in {None, "json", "console"}:
        raise _Rejected(f"{_quoted(value)} is not known")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise _Rejected("contains a character that cannot be printed")
    return value


def _secret(value: object) -> object:
    if isinstance(value, str):
        _printable(value)
    return value


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise _Rejected(f"{_quoted(value)} is not an IP address") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(value: str) -> str:
    """Check the URL of an HTTP service; an error does not repeat the value, which may contain a token."""
    try:
        components = urlsplit(_printable(value))
        host, _ = components.hostname, components.port
    except ValueError:
        raise _Rejected("is not a URL") from None
    if components.scheme not in {"http", "https"} or not host or " " in value:
        raise _Rejected("is not an http(s) URL")
    if components.scheme == "http" and not _is_loopback(host):
        raise _Rejected("is plain http to another host")
    if components.username is not None or components.password is not None:
        raise _Rejected("contains a user or a password")
    return value


def _base_url(value: str) -> str:
    components = urlsplit(_url(value))
    if components.query or components.fragment:
        raise _Rejected("contains a ? or a #")
    return value.rstrip("/")


def _secret_url(value: object) -> object:
    if isinstance(value, str):
        _url(value)
    return value


def _certificates(value: str) -> str:
    """Return the PEM text, read from the file when the value is a path."""
    text = value
    if "-----BEGIN" not in value:
        try:
            text = Path(value).expanduser().read_text(encoding="ascii")
        except (OSError, ValueError, RuntimeError):
            raise _Rejected("is neither PEM text nor a file that can be read") from None
    # In a variable of one line, line breaks are often written as a backslash and an n.
    text = text.replace("\\n", "\n")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise _Rejected("contains no certificate that can be read") from None
    return text


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise _Rejected("is not JSON") from None


def _columns(value: object) -> dict[str, str]:
    decoded = _json(value)
    if not isinstance(decoded, Mapping):
        raise _Rejected("is not a JSON object")
    for column, name in decoded.items():
        if not _COLUMN.fullmatch(column):
            raise _Rejected(f"the column {_quoted(column)} is not a plain lower-case identifier")
        if column in _OWN_COLUMNS:
            raise _Rejected(f"{_quoted(column)} is one of fubd's own columns")
        if column in _SYSTEM_COLUMNS:
            raise _Rejected(f"{_quoted(column)} is a system column of Postgres")
        if not isinstance(name, str) or not _FUB_FIELD.fullmatch(name):
            raise _Rejected(f"the value of {_quoted(column)} is not the name of a field in Follow Up Boss")
    return dict(decoded)


def _names(value: object) -> tuple[str, ...]:
    decoded = _json(value)
    if not isinstance(decoded, list | tuple):
        raise _Rejected("is not a JSON list")
    names = [name for name in decoded if isinstance(name, str) and name.strip() and name.isprintable()]
    if len(names) != len(decoded):
        raise _Rejected("contains something that is not a name")
    return tuple(names)


_DATABASE_URL = ("DATABASE_URL", "SUPABASE_DB_URL")
_RAILWAY_DOMAIN = "RAILWAY_PUBLIC_DOMAIN"
_URL = "an https URL; plain http for loopback addresses only"
_SECONDS = "a positive number of seconds, such as 1800 or 0.5"
_NAMES = 'a JSON list of names, such as ["Lead", "Under Contract"]'

_Default = TypeVar("_Default")
_Text = Annotated[str, AfterValidator(_printable)]
_Secret = Annotated[SecretStr, BeforeValidator(_secret)]
_Url = Annotated[str, AfterValidator(_base_url)]
_Seconds = Annotated[float, BeforeValidator(_seconds)]
_Whole = Annotated[int, BeforeValidator(_whole)]
_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


def _setting(default: _Default, *names: str, accepted: str) -> _Default:
    """Declare a field: its default, its variable with the aliases after it, and what is accepted."""
    return Field(default, validation_alias=AliasChoices(*names), description=accepted)


class Settings(BaseModel):
    """All settings, as made by `load`.

    Fields that end in `_seconds` are seconds, `_days` days, thirty years at most. Only `get_secret_value()` returns the value of a secret.
    None means, for `database_url`: the embedded Postgres; `host`: all addresses; `public_url`: FUB cannot reach us; `log_format`: json, or
    console on a terminal.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    fub_api_key: _Secret | None = _setting(None, "FUB_API_KEY", accepted="an API key of the Follow Up Boss account's owner")
    fub_system: _Text = _setting("fubd", "FUB_SYSTEM", accepted="the name of the registered system")
    fub_system_key: _Secret | None = _setting(
        None,
        "FUB_SYSTEM_KEY",
        accepted="the key of the registered system (apps.followupboss.com/system-registration); it signs the webhooks",
    )
    fub_system_key_previous: _Secret | None = _setting(None, "FUB_SYSTEM_KEY_PREVIOUS", accepted="the signing key that is being replaced")
    fub_api_url: _Url = _setting("https://api.followupboss.com/v1", "FUB_API_URL", accepted=_URL)
    database_url: _Secret | None = _setting(None, *_DATABASE_URL, accepted="postgresql://user:password@host:port/database")
    database_ca_cert: Annotated[str, AfterValidator(_certificates)] | None = _setting(
        None, "DATABASE_CA_CERT", accepted="certificates as PEM text, or the path of such a file"
    )
    port: Annotated[int, BeforeValidator(_port)] = _setting(8080, "PORT", accepted="a port from 0 to 65535; 0 for any free port")
    host: Annotated[str, AfterValidator(_ip_address)] | None = _setting(
        None, "FUBD_HOST", accepted="an IP address of this machine, such as 127.0.0.1"
    )
    public_url: _Url | None = _setting(None, "PUBLIC_URL", "WEBHOOK_BASE_URL", _RAILWAY_DOMAIN, accepted=_URL)
    manage_webhooks: Annotated[bool, BeforeValidator(_yes_or_no)] = _setting(True, "FUBD_MANAGE_WEBHOOKS", accepted="true or false")
    poll_interval_seconds: _Seconds = _setting(1800.0, "FUBD_POLL_INTERVAL", "POLLING_INTERVAL", accepted=_SECONDS)
    poll_interval_watch_seconds: _Seconds = _setting(300.0, "FUBD_POLL_INTERVAL_WATCH", accepted=_SECONDS)
    poll_interval_failover_seconds: _Seconds = _setting(30.0, "FUBD_POLL_INTERVAL_FAILOVER", accepted=_SECONDS)
    webhook_stale_after_seconds: _Seconds = _setting(3600.0, "FUBD_WEBHOOK_STALE_AFTER", accepted=_SECONDS)
    poll_stale_after_seconds: _Seconds = _setting(2700.0, "FUBD_POLL_STALE_AFTER", accepted=_SECONDS)
    missed_after_seconds: _Seconds = _setting(120.0, "FUBD_MISSED_AFTER", accepted=_SECONDS)
    dedup_window_seconds: _Seconds = _setting(300.0, "FUBD_DEDUP_WINDOW", accepted=_SECONDS)
    api_share: Annotated[float, BeforeValidator(_share)] = _setting(0.8, "FUBD_API_SHARE", accepted="a number greater than 0 and at most 1")
    scrub_batches: _Whole = _setting(4, "FUBD_SCRUB_BATCHES", accepted="a whole number of 0 or more")
    columns: Annotated[Mapping[str, str], BeforeValidator(_columns), AfterValidator(MappingProxyType)] = Field(
        default_factory=lambda: MappingProxyType({}),
        validation_alias=AliasChoices("FUBD_COLUMNS"),
        description='a JSON object of column to FUB field, such as {"campaign_id":"customCampaignID"}; '
        "a column is a plain lower-case identifier of at most 63 characters",
    )
    lead_source_tags: _Names = _setting((), "FUBD_LEAD_SOURCE_TAGS", accepted=_NAMES)
    ignore_stages: _Names = _setting((), "FUBD_IGNORE_STAGES", accepted=_NAMES)
    keep_deliveries_days: Annotated[float, BeforeValidator(_days)] = _setting(
        90.0, "FUBD_KEEP_DELIVERIES_DAYS", accepted="a positive number of days"
    )
    alert_url: Annotated[SecretStr, BeforeValidator(_secret_url)] | None = _setting(None, "FUBD_ALERT_URL", accepted=_URL)
    alert_stages: _Names = _setting((), "FUBD_ALERT_STAGES", accepted=_NAMES)
    metrics_token: _Secret | None = _setting(None, "FUBD_METRICS_TOKEN", accepted="a token of your choice")
    log_format: Annotated[Literal["json", "console"] | None, BeforeValidator(_log_format)] = _setting(
        None, "FUBD_LOG_FORMAT", accepted="json or console"
    )

    def secrets(self) -> tuple[str, ...]:
        """Return the values of all secrets that are set: no log line may contain one of them."""
        return tuple(value.get_secret_value() for _, value in self if isinstance(value, SecretStr))


def variables() -> dict[str, tuple[str, ...]]:
    """Return every variable with its aliases, in the order of the fields."""
    return {names[0]: names[1:] for names in map(_names_of, Settings.model_fields)}


def load(
    environ: Mapping[str, str] | None = None,
    *,
    need: Collection[str] = frozenset(),
    check_database: Callable[[str | None], object] | None = None,
    env_file: Path | None = Path(".env"),
) -> Settings:
    """Read the settings. `environ` defaults to that of the process.

    `need` names the variables that must be set. `check_database` gets the text of DATABASE_URL, None when that is not set, and raises
    SettingsError when the database cannot be used. Raises SettingsError with everything that is wrong, at once.
    """
    invalid: list[InvalidSetting] = []
    given = {**_read_file(env_file, invalid), **_without_empty(os.environ if environ is None else environ)}
    if (domain := given.get(_RAILWAY_DOMAIN)) is not None and "://" not in domain:
        given[_RAILWAY_DOMAIN] = f"https://{domain}"
    settings = None
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        invalid += _as_invalid(error)
    name = next((name for name in _DATABASE_URL if name in given), None)
    if check_database is not None and name not in {setting.variable for setting in invalid}:
        try:
            check_database(None if name is None else given[name])
        except SettingsError as error:
            invalid += [replace(setting, variable=name or setting.variable) for setting in error.invalid]
    invalid += [InvalidSetting(name, "is not set", _accepted(name)) for name in sorted(need) if name not in given]
    if invalid or settings is None:
        raise SettingsError(*invalid)
    return settings


def _without_empty(environ: Mapping[str, str | None]) -> dict[str, str]:
    """Leave out empty variables, and the white space around a value."""
    return {name: value.strip() for name, value in environ.items() if value is not None and value.strip()}


def _read_file(path: Path | None, invalid: list[InvalidSetting]) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        # Interpolation is off: it would replace a ${ in a password.
        return _without_empty(dotenv_values(path, interpolate=False, encoding="utf-8-sig"))
    except (OSError, ValueError):
        invalid.append(InvalidSetting(str(path), "cannot be read", "a UTF-8 text file of lines NAME=value, or no such file"))
        return {}


def _as_invalid(error: ValidationError) -> Iterator[InvalidSetting]:
    for found in error.errors(include_url=False, include_input=False):
        name = str(found["loc"][0])
        cause = found.get("ctx", {}).get("error")
        yield InvalidSetting(name, str(cause) if isinstance(cause, _Rejected) else "cannot be used", _accepted(name))


def _names_of(field: str) -> tuple[str, ...]:
    alias = Settings.model_fields[field].validation_alias
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (field,)


def _accepted(variable: str) -> str:
    return next((field.description or "" for name, field in Settings.model_fields.items() if variable in _names_of(name)), "")
