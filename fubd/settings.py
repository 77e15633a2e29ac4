"""The settings, read once from the environment and from `.env` in the working directory (the environment wins).

An empty variable counts as not set. Every bad variable is told at once, a line each, and no line ever holds a secret's value.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

# What `load` is told to insist on.
FOR_FUB = frozenset({"FUB_API_KEY"})
FOR_THE_DAEMON = FOR_FUB | {"FUB_SYSTEM_KEY"}

# fubd's own columns of public.stage_changes, and the names Postgres keeps for itself in every table.
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
# Thirty years. Longer is for ever all the same, and no instant can be moved by more than a few thousand.
_LONGEST_SECONDS = 1e9
_DAY_SECONDS = 86_400
_SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One bad variable: its name, what is wrong with it, and what is accepted."""

    variable: str
    problem: str
    accepted: str

    def line(self) -> str:
        """Give it as one line."""
        return f"{self.variable}: {self.problem}; accepted: {self.accepted}"


class SettingsError(ValueError):
    """The configuration cannot be used. The message has a line for every bad variable."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(problem.line() for problem in problems))
        self.problems = problems


class _Bad(ValueError):
    """What is wrong with one value, to be read after the variable's name."""


def _shown(value: object) -> str:
    """Quote a value that is no secret, on one line of readable length."""
    text = "".join(character if character.isprintable() else "?" for character in str(value))
    return json.dumps(text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "…", ensure_ascii=False)


def _number(value: object) -> float:
    text = str(value)
    try:
        # Python alone reads 1_000, and the digits of every script.
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise _Bad(f"{_shown(value)} is not a number")
    if not math.isfinite(number):
        raise _Bad(f"{_shown(value)} is not a finite number")
    return number


def _positive(value: object) -> float:
    number = _number(value)
    if number <= 0:
        raise _Bad(f"{_shown(value)} is not greater than 0")
    return number


def _seconds(value: object) -> float:
    return min(_positive(value), _LONGEST_SECONDS)


def _days(value: object) -> float:
    return min(_positive(value), _LONGEST_SECONDS / _DAY_SECONDS)


def _share(value: object) -> float:
    number = _positive(value)
    if number > 1:
        raise _Bad(f"{_shown(value)} is greater than 1")
    return number


def _whole(value: object) -> int:
    if not _DIGITS.fullmatch(str(value)):
        raise _Bad(f"{_shown(value)} is not a whole number of 0 or more")
    return int(str(value))


def _port(value: object) -> int:
    number = _whole(value)
    if number > _HIGHEST_PORT:
        raise _Bad(f"{_shown(value)} is greater than {_HIGHEST_PORT}")
    return number


def _yes_or_no(value: object) -> bool:
    answer = _YES_OR_NO.get(str(value).lower())
    if answer is None:
        raise _Bad(f"{_shown(value)} is neither yes nor no")
    return answer


def _log_format(value: object) -> object:
    if value not in {None, "json", "console"}:
        raise _Bad(f"{_shown(value)} is not known")
    return value


def _plain(value: str) -> str:
    if not value.isprintable():
        raise _Bad("holds a character that cannot be printed")
    return value


def _secret(value: object) -> object:
    if isinstance(value, str):
        _plain(value)
    return value


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise _Bad(f"{_shown(value)} is not an IP address") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(value: str) -> str:
    """Check an address we call or are called at; the value is not repeated in an error, as it may hold a token."""
    try:
        components = urlsplit(_plain(value))
        host, _ = components.hostname, components.port
    except ValueError:
        raise _Bad("is not a URL") from None
    if components.scheme not in {"http", "https"} or not host or " " in value:
        raise _Bad("is not an http(s) URL")
    if components.scheme == "http" and not _is_loopback(host):
        raise _Bad("is plain http to another machine")
    if components.username is not None or components.password is not None:
        raise _Bad("holds a user or a password")
    return value


def _base_url(value: str) -> str:
    components = urlsplit(_url(value))
    if components.query or components.fragment:
        raise _Bad("has a ? or a # in it")
    return value.rstrip("/")


def _secret_url(value: object) -> object:
    if isinstance(value, str):
        _url(value)
    return value


def _certificates(value: str) -> str:
    """Give the PEM text, read from the file when the value is a path."""
    text = value
    if "-----BEGIN" not in value:
        try:
            text = Path(value).expanduser().read_text(encoding="ascii")
        except (OSError, ValueError, RuntimeError):
            raise _Bad("is neither PEM text nor a file that can be read") from None
    # A variable of one line often carries its line breaks as a backslash and an n.
    text = text.replace("\\n", "\n")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise _Bad("holds no certificate that can be read") from None
    return text


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise _Bad("is not JSON") from None


def _columns(value: object) -> dict[str, str]:
    decoded = _json(value)
    if not isinstance(decoded, Mapping):
        raise _Bad("is not a JSON object")
    for column, name in decoded.items():
        if not _COLUMN.fullmatch(column):
            raise _Bad(f"the column {_shown(column)} is not a plain lower-case identifier")
        if column in _OWN_COLUMNS:
            raise _Bad(f"{_shown(column)} is one of fubd's own columns")
        if column in _SYSTEM_COLUMNS:
            raise _Bad(f"{_shown(column)} is a name that Postgres keeps for itself")
        if not isinstance(name, str) or not _FUB_FIELD.fullmatch(name):
            raise _Bad(f"the value of {_shown(column)} is not the name of a FUB field")
    return dict(decoded)


def _names(value: object) -> tuple[str, ...]:
    decoded = _json(value)
    if not isinstance(decoded, list | tuple):
        raise _Bad("is not a JSON list")
    names = [name for name in decoded if isinstance(name, str) and name.strip() and name.isprintable()]
    if len(names) != len(decoded):
        raise _Bad("holds something that is not a name")
    return tuple(names)


_URL = "an https URL; plain http for loopback addresses only"
_SECONDS = "a positive number of seconds, such as 1800 or 0.5"
_NAMES = 'a JSON list of names, such as ["Lead", "Under Contract"]'

_Text = Annotated[str, AfterValidator(_plain)]
_Secret = Annotated[SecretStr, BeforeValidator(_secret)]
_Url = Annotated[str, AfterValidator(_base_url)]
_Seconds = Annotated[float, BeforeValidator(_seconds)]
_Whole = Annotated[int, BeforeValidator(_whole)]
_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Settings(BaseSettings):
    """Everything that can be set; `load` makes it. Each field names its variable, then its aliases, and says what is accepted.

    Fields that end in `_seconds` are seconds, `_days` days, thirty years at most. A secret shows its value to `get_secret_value()` only.
    None means, for `database_url`: the embedded Postgres; `host`: every address; `public_url`: FUB cannot reach us; `log_format`: as the
    terminal asks.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    fub_api_key: _Secret | None = Field(
        None, validation_alias=AliasChoices("FUB_API_KEY"), description="an API key of the Follow Up Boss account's owner"
    )
    fub_system: _Text = Field("fubd", validation_alias=AliasChoices("FUB_SYSTEM"), description="the name of the registered system")
    fub_system_key: _Secret | None = Field(
        None,
        validation_alias=AliasChoices("FUB_SYSTEM_KEY"),
        description="the key of the registered system (apps.followupboss.com/system-registration); it signs the webhooks",
    )
    fub_system_key_previous: _Secret | None = Field(
        None, validation_alias=AliasChoices("FUB_SYSTEM_KEY_PREVIOUS"), description="the signing key that is being replaced"
    )
    fub_api_url: _Url = Field("https://api.followupboss.com/v1", validation_alias=AliasChoices("FUB_API_URL"), description=_URL)
    database_url: _Secret | None = Field(
        None, validation_alias=AliasChoices("DATABASE_URL", "SUPABASE_DB_URL"), description="postgresql://user:password@host:port/database"
    )
    database_ca_cert: Annotated[str, AfterValidator(_certificates)] | None = Field(
        None, validation_alias=AliasChoices("DATABASE_CA_CERT"), description="certificates as PEM text, or the path of such a file"
    )
    port: Annotated[int, BeforeValidator(_port)] = Field(
        8080, validation_alias=AliasChoices("PORT"), description="a port from 0 to 65535; 0 for any that is free"
    )
    host: Annotated[str, AfterValidator(_ip_address)] | None = Field(
        None, validation_alias=AliasChoices("FUBD_HOST"), description="an IP address of this machine, such as 127.0.0.1"
    )
    public_url: _Url | None = Field(
        None, validation_alias=AliasChoices("PUBLIC_URL", "WEBHOOK_BASE_URL", "RAILWAY_PUBLIC_DOMAIN"), description=_URL
    )
    manage_webhooks: Annotated[bool, BeforeValidator(_yes_or_no)] = Field(
        True, validation_alias=AliasChoices("FUBD_MANAGE_WEBHOOKS"), description="true or false"
    )
    poll_interval_seconds: _Seconds = Field(
        1800.0, validation_alias=AliasChoices("FUBD_POLL_INTERVAL", "POLLING_INTERVAL"), description=_SECONDS
    )
    poll_interval_watch_seconds: _Seconds = Field(300.0, validation_alias=AliasChoices("FUBD_POLL_INTERVAL_WATCH"), description=_SECONDS)
    poll_interval_failover_seconds: _Seconds = Field(
        30.0, validation_alias=AliasChoices("FUBD_POLL_INTERVAL_FAILOVER"), description=_SECONDS
    )
    webhook_stale_after_seconds: _Seconds = Field(3600.0, validation_alias=AliasChoices("FUBD_WEBHOOK_STALE_AFTER"), description=_SECONDS)
    poll_stale_after_seconds: _Seconds = Field(2700.0, validation_alias=AliasChoices("FUBD_POLL_STALE_AFTER"), description=_SECONDS)
    missed_after_seconds: _Seconds = Field(120.0, validation_alias=AliasChoices("FUBD_MISSED_AFTER"), description=_SECONDS)
    dedup_window_seconds: _Seconds = Field(300.0, validation_alias=AliasChoices("FUBD_DEDUP_WINDOW"), description=_SECONDS)
    api_share: Annotated[float, BeforeValidator(_share)] = Field(
        0.8, validation_alias=AliasChoices("FUBD_API_SHARE"), description="a number greater than 0 and at most 1"
    )
    scrub_batches: _Whole = Field(4, validation_alias=AliasChoices("FUBD_SCRUB_BATCHES"), description="a whole number of 0 or more")
    columns: Annotated[Mapping[str, str], BeforeValidator(_columns), AfterValidator(MappingProxyType)] = Field(
        default_factory=lambda: MappingProxyType({}),
        validation_alias=AliasChoices("FUBD_COLUMNS"),
        description='a JSON object of column to FUB field, such as {"campaign_id":"customCampaignID"}; '
        "a column is a plain lower-case identifier of at most 63 characters",
    )
    lead_source_tags: _Names = Field((), validation_alias=AliasChoices("FUBD_LEAD_SOURCE_TAGS"), description=_NAMES)
    ignore_stages: _Names = Field((), validation_alias=AliasChoices("FUBD_IGNORE_STAGES"), description=_NAMES)
    keep_deliveries_days: Annotated[float, BeforeValidator(_days)] = Field(
        90.0, validation_alias=AliasChoices("FUBD_KEEP_DELIVERIES_DAYS"), description="a positive number of days"
    )
    alert_url: Annotated[SecretStr, BeforeValidator(_secret_url)] | None = Field(
        None, validation_alias=AliasChoices("FUBD_ALERT_URL"), description=_URL
    )
    alert_stages: _Names = Field((), validation_alias=AliasChoices("FUBD_ALERT_STAGES"), description=_NAMES)
    metrics_token: _Secret | None = Field(None, validation_alias=AliasChoices("FUBD_METRICS_TOKEN"), description="a token of your choice")
    log_format: Annotated[Literal["json", "console"] | None, BeforeValidator(_log_format)] = Field(
        None, validation_alias=AliasChoices("FUBD_LOG_FORMAT"), description="json or console"
    )

    def secrets(self) -> tuple[str, ...]:
        """Give the text of every secret that is set: what no line of a log may hold."""
        return tuple(value.get_secret_value() for _, value in self if isinstance(value, SecretStr))

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load` hands in and nothing else: it knows which alias was set, and so which name a problem must bear."""
        return (init_settings,)


def variables() -> dict[str, tuple[str, ...]]:
    """Give every variable with its aliases, in the order of the fields."""
    return {choices[0]: choices[1:] for choices in (_choices(name) for name in Settings.model_fields)}


def load(
    environ: Mapping[str, str] | None = None,
    *,
    need: Collection[str] = frozenset(),
    checks: Mapping[str, Callable[[str], object]] | None = None,
    stand_ins: Mapping[str, Callable[[], object]] | None = None,
    env_file: Path | None = Path(".env"),
) -> Settings:
    """Read the settings. `environ` defaults to the process's own.

    `need`: variables that must be set. `checks`: for a variable, another reader of its text that raises SettingsError
    (`fubd.store.dsn.parse` for DATABASE_URL). `stand_ins`: for a variable, what takes its place when it is not set; raises SettingsError
    where that is missing too. Raises SettingsError with every problem at once.
    """
    problems: list[Problem] = []
    given = {**_from_file(env_file, problems), **_set(os.environ if environ is None else environ)}
    values, told_as = _resolve(given)
    bad: set[str] = set()
    settings = None
    try:
        settings = Settings(**values)
    except ValidationError as error:
        for found in _problems(error, told_as):
            bad.add(found.variable)
            problems.append(found)
    for name, check in (checks or {}).items():
        if name in values and told_as[name] not in bad:
            try:
                check(values[name])
            except SettingsError as error:
                problems += [Problem(told_as[name], problem.problem, problem.accepted) for problem in error.problems]
    for name, stand_in in (stand_ins or {}).items():
        if name not in values:
            try:
                stand_in()
            except SettingsError as error:
                problems += error.problems
    problems += [Problem(name, "is not set", _accepted(name)) for name in sorted(need) if name not in values]
    if problems or settings is None:
        raise SettingsError(*problems)
    return settings


def _set(environ: Mapping[str, str | None]) -> dict[str, str]:
    """Leave out what is empty, and the white space around a value: nobody means it."""
    return {name: value.strip() for name, value in environ.items() if value is not None and value.strip()}


def _from_file(path: Path | None, problems: list[Problem]) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        # Without interpolation, which would eat a password's ${.
        return _set(dotenv_values(path, interpolate=False, encoding="utf-8-sig"))
    except (OSError, ValueError):
        problems.append(Problem(str(path), "cannot be read", "a UTF-8 text file of lines NAME=value, or no such file"))
        return {}


def _resolve(given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Give each variable's text under its own name, and for each the name it was set by."""
    values: dict[str, Any] = {}
    told_as: dict[str, str] = {}
    for name, aliases in variables().items():
        used = next((choice for choice in (name, *aliases) if choice in given), None)
        if used is not None:
            told_as[name] = used
            bare = used == "RAILWAY_PUBLIC_DOMAIN" and "://" not in given[used]
            values[name] = f"https://{given[used]}" if bare else given[used]
    return values, told_as


def _problems(error: ValidationError, told_as: Mapping[str, str]) -> Iterator[Problem]:
    for found in error.errors(include_url=False, include_input=False):
        name = str(found["loc"][0])
        cause = found.get("ctx", {}).get("error")
        yield Problem(told_as.get(name, name), str(cause) if isinstance(cause, _Bad) else "cannot be used", _accepted(name))


def _choices(field: str) -> tuple[str, ...]:
    alias = Settings.model_fields[field].validation_alias
    return tuple(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else (field,)


def _accepted(variable: str) -> str:
    return next((field.description or "" for name, field in Settings.model_fields.items() if _choices(name)[0] == variable), "")
