"""The settings, read once from the environment and from `.env` in the working directory (the environment wins).

An empty variable counts as not set. All bad variables are reported at once, one line each, and no line contains the value of a secret.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import time
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo

from dotenv.parser import Binding, parse_stream
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from fubd import setting_values
from fubd.errors import ConfigurationError

# Names that begin so are meant for fubd. How alike a name must be to one of ours to be called a misspelling: SUPABASE_URL, beside
# SUPABASE_DB_URL, belongs to another program.
_OUR_PREFIXES = ("FUB", "DATABASE")
_CLOSE_IN_OUR_NAMES = 0.8
_CLOSE_IN_OTHER_NAMES = 0.9

# The variables that must be set: for a command that calls Follow Up Boss, and for the daemon.
FOR_FUB = frozenset({"FUB_API_KEY"})
FOR_THE_DAEMON = FOR_FUB | {"FUB_SYSTEM_KEY"}


@dataclass(frozen=True, slots=True)
class InvalidSetting:
    """One bad variable: its name, what is wrong with it, and what is accepted."""

    variable: str
    reason: str
    accepted: str

    def line(self) -> str:
        """Return it as one line."""
        return f"{self.variable}: {self.reason}; accepted: {self.accepted}"


class SettingsError(ConfigurationError):
    """The configuration cannot be used. The message has one line per bad variable."""

    def __init__(self, *invalid: InvalidSetting) -> None:
        super().__init__("\n".join(setting.line() for setting in invalid))
        self.invalid = invalid


DATABASE_VARIABLES = ("DATABASE_URL", "SUPABASE_DB_URL")
_RAILWAY_DOMAIN = "RAILWAY_PUBLIC_DOMAIN"
_RAILWAY_ENVIRONMENT = "RAILWAY_ENVIRONMENT_NAME"
_PRODUCTION = "production"
_MANAGE_WEBHOOKS = "FUBD_MANAGE_WEBHOOKS"
_DAYS = "a positive number of days"
_URL = "an https URL; plain http for loopback addresses only"
_SECONDS = "a positive number of seconds, such as 1800 or 0.5"
_NAMES = 'a JSON list of names, such as ["Lead", "Under Contract"]'

_Default = TypeVar("_Default")
_Text = Annotated[str, AfterValidator(setting_values.printable)]
_Secret = Annotated[SecretStr, BeforeValidator(setting_values.secret)]
_Url = Annotated[str, AfterValidator(setting_values.base_url)]
_Seconds = Annotated[float, BeforeValidator(setting_values.seconds)]
_Days = Annotated[float, BeforeValidator(setting_values.days)]
_Port = Annotated[int, BeforeValidator(setting_values.port)]
_Share = Annotated[float, BeforeValidator(setting_values.share)]
_Whole = Annotated[int, BeforeValidator(setting_values.whole)]
_Names = Annotated[tuple[str, ...], BeforeValidator(setting_values.names)]


def _setting(default: _Default, *names: str, accepted: str) -> _Default:
    """Declare a field: its default, its variable with the aliases after it, and what is accepted."""
    return Field(default, validation_alias=AliasChoices(*names), description=accepted)


class Settings(BaseModel):
    """All settings, as made by `load`.

    Fields that end in `_seconds` are seconds, `_days` days, thirty years at most. Only `get_secret_value()` returns the value of a secret.
    None means, for `database_url`: the embedded Postgres; `host`: all addresses; `public_url`: FUB cannot reach us; `daily_summary` and
    `forget_deleted_days`: never; `log_format`: json, or console on a terminal.
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
    database_url: _Secret | None = _setting(None, *DATABASE_VARIABLES, accepted="postgresql://user:password@host:port/database")
    database_ca_cert: Annotated[str, AfterValidator(setting_values.certificates)] | None = _setting(
        None, "DATABASE_CA_CERT", accepted="certificates as PEM text, or the path of such a file"
    )
    port: Annotated[int, BeforeValidator(setting_values.port)] = _setting(
        8080, "PORT", accepted="a port from 0 to 65535; 0 for any free port"
    )
    host: Annotated[str, AfterValidator(setting_values.ip_address)] | None = _setting(
        None, "FUBD_HOST", accepted="an IP address of this machine, such as 127.0.0.1"
    )
    public_url: Annotated[str, AfterValidator(setting_values.public_url)] | None = _setting(
        None, "PUBLIC_URL", "WEBHOOK_BASE_URL", _RAILWAY_DOMAIN, accepted=_URL
    )
    manage_webhooks: Annotated[bool, BeforeValidator(setting_values.yes_or_no)] = _setting(True, _MANAGE_WEBHOOKS, accepted="true or false")
    poll_interval_seconds: _Seconds = _setting(1800.0, "FUBD_POLL_INTERVAL", "POLLING_INTERVAL", accepted=_SECONDS)
    poll_interval_watch_seconds: _Seconds = _setting(300.0, "FUBD_POLL_INTERVAL_WATCH", accepted=_SECONDS)
    poll_interval_failover_seconds: _Seconds = _setting(30.0, "FUBD_POLL_INTERVAL_FAILOVER", accepted=_SECONDS)
    webhook_stale_after_seconds: _Seconds = _setting(3600.0, "FUBD_WEBHOOK_STALE_AFTER", accepted=_SECONDS)
    poll_stale_after_seconds: _Seconds = _setting(2700.0, "FUBD_POLL_STALE_AFTER", accepted=_SECONDS)
    missed_after_seconds: _Seconds = _setting(120.0, "FUBD_MISSED_AFTER", accepted=_SECONDS)
    dedup_window_seconds: _Seconds = _setting(300.0, "FUBD_DEDUP_WINDOW", accepted=_SECONDS)
    api_share: _Share = _setting(0.8, "FUBD_API_SHARE", accepted="a number greater than 0 and at most 1")
    scrub_batches: _Whole = _setting(4, "FUBD_SCRUB_BATCHES", accepted="a whole number of 0 or more")
    columns: Annotated[Mapping[str, str], BeforeValidator(setting_values.columns), AfterValidator(MappingProxyType)] = Field(
        default_factory=lambda: MappingProxyType({}),
        validation_alias=AliasChoices("FUBD_COLUMNS"),
        description='a JSON object of column to FUB field, such as {"campaign_id":"customCampaignID"}; '
        "a column is a plain lower-case identifier of at most 63 characters",
    )
    lead_source_tags: _Names = _setting((), "FUBD_LEAD_SOURCE_TAGS", accepted=_NAMES)
    ignore_stages: _Names = _setting((), "FUBD_IGNORE_STAGES", accepted=_NAMES)
    keep_deliveries_days: _Days = _setting(90.0, "FUBD_KEEP_DELIVERIES_DAYS", accepted=_DAYS)
    alert_url: Annotated[SecretStr, BeforeValidator(setting_values.secret_url)] | None = _setting(None, "FUBD_ALERT_URL", accepted=_URL)
    heartbeat_url: Annotated[SecretStr, BeforeValidator(setting_values.secret_url)] | None = _setting(
        None, "FUBD_HEARTBEAT_URL", accepted=_URL
    )
    daily_summary: Annotated[time | None, BeforeValidator(setting_values.time_of_day)] = _setting(
        time(18), "FUBD_DAILY_SUMMARY", accepted="a time of the day, such as 18:00, or off"
    )
    forget_deleted_days: _Days | None = _setting(None, "FUBD_FORGET_DELETED_DAYS", accepted=_DAYS)
    keep_adoption_copy_days: _Days = _setting(90.0, "FUBD_KEEP_ADOPTION_COPY_DAYS", accepted=_DAYS)
    timezone: Annotated[str, AfterValidator(setting_values.timezone)] = _setting(
        "UTC", "FUBD_TIMEZONE", accepted="an IANA name, such as America/Chicago"
    )
    alert_stages: _Names = _setting((), "FUBD_ALERT_STAGES", accepted=_NAMES)
    metrics_token: Annotated[SecretStr, BeforeValidator(setting_values.token)] | None = _setting(
        None, "FUBD_METRICS_TOKEN", accepted="a token of your choice, of at least 16 characters"
    )
    log_format: Annotated[Literal["json", "console"] | None, BeforeValidator(setting_values.log_format)] = _setting(
        None, "FUBD_LOG_FORMAT", accepted="json or console"
    )

    def zone(self) -> ZoneInfo:
        """Return the time zone of FUBD_TIMEZONE."""
        return ZoneInfo(self.timezone)

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
    given = _given(environ, env_file, invalid)
    if invalid:
        # What is missing or wrong apart from the file is only known once it can be read.
        raise SettingsError(*invalid)
    if (domain := given.get(_RAILWAY_DOMAIN)) is not None and "://" not in domain:
        given[_RAILWAY_DOMAIN] = f"https://{domain}"
    if given.get(_RAILWAY_ENVIRONMENT, _PRODUCTION).lower() != _PRODUCTION:
        # A preview environment with the same key would take the webhooks away from production.
        given.setdefault(_MANAGE_WEBHOOKS, "false")
    settings = None
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        invalid += _as_invalid(error)
    name = next((name for name in DATABASE_VARIABLES if name in given), None)
    if check_database is not None and name not in {setting.variable for setting in invalid}:
        try:
            check_database(None if name is None else given[name])
        except SettingsError as error:
            invalid += [replace(setting, variable=name or setting.variable) for setting in error.invalid]
    if missing := [name for name in sorted(need) if name not in given]:
        misspelled = {found.nearest: f"; {found.line()}" for found in unknown_variables(environ, env_file=env_file)}
        invalid += [InvalidSetting(name, f"is not set{misspelled.get(name, '')}", _accepted(name)) for name in missing]
    if invalid or settings is None:
        # Such a line may have been meant to set what is missing.
        raise SettingsError(*(line.invalid() for line in unreadable_lines(env_file)), *invalid)
    return settings


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that fubd does not read, although its name looks like one of fubd's. `nearest`: the name that was probably meant."""

    name: str
    nearest: str | None

    def line(self) -> str:
        """Return it as one line."""
        meant = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.name} is not a setting of fubd and has no effect{meant}"


def unknown_variables(environ: Mapping[str, str] | None = None, *, env_file: Path | None = Path(".env")) -> list[UnknownVariable]:
    """Return the variables that are set and whose names are misspelled, or begin as fubd's do. `environ` defaults to the process's."""
    known = {name for own, aliases in variables().items() for name in (own, *aliases)}
    unknown = []
    for name in sorted(_given(environ, env_file, []).keys() - known):
        ours = name.upper().startswith(_OUR_PREFIXES)
        nearest = get_close_matches(name.upper(), known, 1, _CLOSE_IN_OUR_NAMES if ours else _CLOSE_IN_OTHER_NAMES)
        if ours or nearest:
            unknown.append(UnknownVariable(name, nearest[0] if nearest else None))
    return unknown


@dataclass(frozen=True, slots=True)
class UnreadableLine:
    """A line of `.env` that sets nothing. `number` counts from 1; a value in quotes may go on over several lines."""

    file: str
    number: int

    def line(self) -> str:
        """Return it as one line, without what the file says there: it may be a secret."""
        return self.invalid().line()

    def invalid(self) -> InvalidSetting:
        """Return it as a bad variable."""
        accepted = "NAME=value, with the quotes of a value closed, or a comment that begins with #"
        return InvalidSetting(f"{self.file} line {self.number}", "cannot be read and has no effect", accepted)


def unreadable_lines(env_file: Path | None = Path(".env")) -> list[UnreadableLine]:
    """Return the lines of the file that set nothing and are no comments."""
    bindings = _bindings(env_file, [])
    return [UnreadableLine(str(env_file), _first_line(binding)) for binding in bindings if _sets_nothing(binding)]


def ineffective() -> list[UnknownVariable | UnreadableLine]:
    """Return everything in the environment of the process and in `.env` that looks like a setting and has no effect."""
    return [*unreadable_lines(), *unknown_variables()]


def _given(environ: Mapping[str, str] | None, env_file: Path | None, invalid: list[InvalidSetting]) -> dict[str, str]:
    """Return what is set, the environment before the file."""
    return {**_read_file(env_file, invalid), **_without_empty(os.environ if environ is None else environ)}


def _without_empty(environ: Mapping[str, str | None]) -> dict[str, str]:
    """Leave out empty variables, and the white space around a value."""
    return {name: value.strip() for name, value in environ.items() if value is not None and value.strip()}


def _read_file(path: Path | None, invalid: list[InvalidSetting]) -> dict[str, str]:
    return _without_empty({binding.key: binding.value for binding in _bindings(path, invalid) if binding.key is not None})


def _bindings(path: Path | None, invalid: list[InvalidSetting]) -> list[Binding]:
    """Return the lines of the file, if there is one. A ${ in a password stays as it is."""
    if path is None or not path.is_file():
        return []
    try:
        with path.open(encoding=_encoding(path)) as file:
            return list(parse_stream(file))
    except (OSError, ValueError):
        invalid.append(InvalidSetting(str(path), "cannot be read", "a UTF-8 text file of lines NAME=value, or no such file"))
        return []


def _sets_nothing(binding: Binding) -> bool:
    return binding.error or (binding.key is not None and binding.value is None)


def _first_line(binding: Binding) -> int:
    """Return the number of the line, without the empty lines before it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _encoding(path: Path) -> str:
    """Return the encoding of a text file by its first bytes: PowerShell 5 writes UTF-16 with `>`. Raises OSError, ValueError."""
    with path.open("rb") as file:
        first = file.read(4)
    if first.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in first:
        raise ValueError("UTF-16 without a byte order mark")
    return "utf-8-sig"


def _as_invalid(error: ValidationError) -> Iterator[InvalidSetting]:
    for found in error.errors(include_url=False, include_input=False):
        name = str(found["loc"][0])
        cause = found.get("ctx", {}).get("error")
        yield InvalidSetting(name, str(cause) if isinstance(cause, setting_values.Rejected) else "cannot be used", _accepted(name))


def _names_of(field: str) -> tuple[str, ...]:
    alias = Settings.model_fields[field].validation_alias
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (field,)


def _accepted(variable: str) -> str:
    return next((field.description or "" for name, field in Settings.model_fields.items() if variable in _names_of(name)), "")
