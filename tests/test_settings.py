"""The settings: read from the environment and .env, all problems reported at once, no secret in any message."""

from __future__ import annotations

import ssl
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import MutableMapping
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.settings import (
    FOR_FUB,
    FOR_THE_DAEMON,
    InvalidSetting,
    Settings,
    SettingsError,
    load,
    unknown_variables,
    unreadable_lines,
    variables,
)

_SECRETS = (
    "FUB_API_KEY",
    "FUB_SYSTEM_KEY",
    "FUB_SYSTEM_KEY_PREVIOUS",
    "DATABASE_URL",
    "FUBD_ALERT_URL",
    "FUBD_HEARTBEAT_URL",
    "FUBD_METRICS_TOKEN",
)

# A variable, a text that is accepted, the field and its value.
_GOOD: list[tuple[str, str, str, object]] = [
    ("PORT", "0", "port", 0),
    ("PORT", " 9090 ", "port", 9090),
    ("FUBD_HOST", "127.0.0.1", "host", "127.0.0.1"),
    ("FUB_API_URL", "http://localhost:8181/v1/", "fub_api_url", "http://localhost:8181/v1"),
    ("FUB_API_URL", "http://127.8.9.1/v1", "fub_api_url", "http://127.8.9.1/v1"),
    ("FUB_API_URL", "http://[::1]:81", "fub_api_url", "http://[::1]:81"),
    ("PUBLIC_URL", "https://fubd.example/base/", "public_url", "https://fubd.example/base"),
    ("PUBLIC_URL", "https://fubd.example//webhook/fub/stage-change/", "public_url", "https://fubd.example"),
    ("PUBLIC_URL", "https://fubd.example//base//webhook/fub", "public_url", "https://fubd.example/base"),
    ("PUBLIC_URL", "https://fubd.example/healthz", "public_url", "https://fubd.example"),
    ("WEBHOOK_BASE_URL", "https://old.example", "public_url", "https://old.example"),
    ("RAILWAY_PUBLIC_DOMAIN", "fubd.up.example", "public_url", "https://fubd.up.example"),
    ("RAILWAY_PUBLIC_DOMAIN", "https://fubd.up.example/", "public_url", "https://fubd.up.example"),
    ("FUBD_MANAGE_WEBHOOKS", "No", "manage_webhooks", False),
    ("FUBD_MANAGE_WEBHOOKS", "1", "manage_webhooks", True),
    ("POLLING_INTERVAL", "900", "poll_interval_seconds", 900.0),
    ("FUBD_POLL_INTERVAL", "0.25", "poll_interval_seconds", 0.25),
    ("FUBD_POLL_INTERVAL_WATCH", "1e6", "poll_interval_watch_seconds", 1e6),
    ("FUBD_POLL_INTERVAL_FAILOVER", "1e-9", "poll_interval_failover_seconds", 1e-9),
    ("FUBD_DEDUP_WINDOW", "1e308", "dedup_window_seconds", 1e9),
    ("FUBD_API_SHARE", "1", "api_share", 1.0),
    ("FUBD_SCRUB_BATCHES", "0", "scrub_batches", 0),
    ("FUBD_COLUMNS", '{"campaign_id":"customCampaignID"}', "columns", {"campaign_id": "customCampaignID"}),
    ("FUBD_LEAD_SOURCE_TAGS", '["Blue Cards", "PPC"]', "lead_source_tags", ("Blue Cards", "PPC")),
    ("FUBD_IGNORE_STAGES", "[]", "ignore_stages", ()),
    ("FUBD_KEEP_DELIVERIES_DAYS", "0.5", "keep_deliveries_days", 0.5),
    ("FUBD_KEEP_DELIVERIES_DAYS", "1e308", "keep_deliveries_days", 1e9 / 86_400),
    ("FUBD_LOG_FORMAT", "console", "log_format", "console"),
    ("FUBD_DAILY_SUMMARY", "7:05", "daily_summary", time(7, 5)),
    ("FUBD_DAILY_SUMMARY", "Off", "daily_summary", None),
    ("FUBD_FORGET_DELETED_DAYS", "30", "forget_deleted_days", 30.0),
    ("FUBD_KEEP_ADOPTION_COPY_DAYS", "7", "keep_adoption_copy_days", 7.0),
    ("FUBD_TIMEZONE", "America/Chicago", "timezone", "America/Chicago"),
]

# A variable, a text that is not accepted, and a part of the message.
_BAD = [
    ("PORT", "65536", "greater than 65535"),
    ("PORT", "-1", "not a whole number"),
    ("PORT", "\N{ARABIC-INDIC DIGIT ONE}", "not a whole number"),
    ("FUBD_HOST", "everywhere", "not an IP address"),
    ("FUB_API_URL", "http://api.example/v1", "plain http to another host"),
    ("FUB_API_URL", "http://127.0.0.1.example/v1", "plain http to another host"),
    ("FUB_API_URL", "ftp://api.example", "not an http(s) URL"),
    ("FUB_API_URL", "https://", "not an http(s) URL"),
    ("FUB_API_URL", "https://[::1", "not a URL"),
    ("FUB_API_URL", "https://user:pass@api.example", "user or a password"),
    ("PUBLIC_URL", "https://fubd.example/?x=1", "? or a #"),
    ("RAILWAY_PUBLIC_DOMAIN", "two words", "not an http(s) URL"),
    ("RAILWAY_PUBLIC_DOMAIN", "http://fubd.up.example", "plain http to another host"),
    ("FUBD_MANAGE_WEBHOOKS", "perhaps", "neither true nor false"),
    ("FUBD_POLL_INTERVAL", "0", "not greater than 0"),
    ("POLLING_INTERVAL", "half an hour", "not a number"),
    ("POLLING_INTERVAL", "1_800", "not a number"),
    ("POLLING_INTERVAL", "\N{ARABIC-INDIC DIGIT ONE}", "not a number"),
    ("FUBD_WEBHOOK_STALE_AFTER", "inf", "not a finite number"),
    ("FUBD_POLL_STALE_AFTER", "nan", "not a number"),
    ("FUBD_MISSED_AFTER", "-5", "not greater than 0"),
    ("FUBD_API_SHARE", "0", "not greater than 0"),
    ("FUBD_API_SHARE", "1.01", "greater than 1"),
    ("FUBD_SCRUB_BATCHES", "2.5", "not a whole number"),
    ("FUBD_COLUMNS", "campaign_id", "not JSON"),
    ("FUBD_COLUMNS", "[" * 100_000, "not JSON"),
    ("FUBD_COLUMNS", "[]", "not a JSON object"),
    ("FUBD_COLUMNS", '{"Campaign":"customCampaign"}', "plain lower-case identifier"),
    ("FUBD_COLUMNS", '{"a; drop":"customCampaign"}', "plain lower-case identifier"),
    ("FUBD_COLUMNS", '{"' + "a" * 64 + '":"customCampaign"}', "plain lower-case identifier"),
    ("FUBD_COLUMNS", '{"stage_to":"customStage"}', "own columns"),
    ("FUBD_COLUMNS", '{"xmin":"customStage"}', "a system column of Postgres"),
    ("FUBD_COLUMNS", '{"campaign_id":"it\'s"}', "not the name of a field"),
    ("FUBD_COLUMNS", '{"campaign_id":7}', "not the name of a field"),
    ("FUBD_COLUMNS", '{"agent":"customAgent","agent":"customOther"}', 'contains "agent" twice'),
    ("FUBD_IGNORE_STAGES", "Lead", "not JSON"),
    ("FUBD_IGNORE_STAGES", '"Lead"', "not a JSON list"),
    ("FUBD_ALERT_STAGES", '["Lead", 7]', "not a name"),
    ("FUBD_LEAD_SOURCE_TAGS", '[" "]', "not a name"),
    ("FUBD_KEEP_DELIVERIES_DAYS", "0", "not greater than 0"),
    ("FUBD_ALERT_URL", "http://chat.example/hook", "plain http to another host"),
    ("FUBD_LOG_FORMAT", "xml", "not known"),
    ("FUBD_HEARTBEAT_URL", "http://monitor.example/ping", "plain http to another host"),
    ("FUBD_DAILY_SUMMARY", "24:00", "not a time of the day"),
    ("FUBD_DAILY_SUMMARY", "6 pm", "not a time of the day"),
    ("FUBD_FORGET_DELETED_DAYS", "never", "not a number"),
    ("FUBD_KEEP_ADOPTION_COPY_DAYS", "0", "not greater than 0"),
    ("FUBD_TIMEZONE", "Chicago", "not a time zone"),
    ("FUBD_TIMEZONE", "/etc/localtime", "not a time zone"),
    ("FUBD_TIMEZONE", "America", "not a time zone"),
    ("FUBD_METRICS_TOKEN", "too-short", "shorter than 16 characters"),
    ("PUBLIC_URL", "https://${{RAILWAY_PUBLIC_DOMAIN}}", "contains ${"),
    ("DATABASE_CA_CERT", "/no/such/file.pem", "neither PEM text nor a file"),
    ("DATABASE_CA_CERT", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----", "no certificate"),
    ("FUB_API_KEY", "two\nlines", "cannot be printed"),
]


def _load(environ: dict[str, str], **more: str) -> Settings:
    return load({**environ, **more}, env_file=None)


def test_defaults() -> None:
    """With nothing set, every setting has the documented default."""
    settings = _load({})
    assert settings.port == 8080
    assert settings.fub_system == "fubd"
    assert settings.fub_api_url == "https://api.followupboss.com/v1"
    assert (settings.poll_interval_seconds, settings.poll_interval_watch_seconds, settings.poll_interval_failover_seconds) == (
        1800,
        300,
        30,
    )
    assert (settings.webhook_stale_after_seconds, settings.poll_stale_after_seconds) == (3600, 2700)
    assert (settings.missed_after_seconds, settings.dedup_window_seconds) == (120, 300)
    assert (settings.api_share, settings.scrub_batches, settings.keep_deliveries_days) == (0.8, 4, 90)
    assert (settings.columns, settings.lead_source_tags, settings.ignore_stages, settings.alert_stages) == ({}, (), (), ())
    assert settings.manage_webhooks
    assert (settings.daily_summary, settings.zone(), settings.keep_adoption_copy_days) == (time(18), ZoneInfo("UTC"), 90)
    assert (settings.heartbeat_url, settings.forget_deleted_days) == (None, None)
    assert (settings.database_url, settings.public_url, settings.log_format, settings.fub_system_key) == (None, None, None, None)


@pytest.mark.parametrize(("variable", "text", "field", "value"), _GOOD)
def test_a_valid_text_is_accepted(variable: str, text: str, field: str, value: object) -> None:
    """Under the variable's own name and under its aliases."""
    assert getattr(_load({variable: text}), field) == value


@pytest.mark.parametrize(("variable", "text", "message"), _BAD)
def test_an_invalid_text_is_rejected(variable: str, text: str, message: str) -> None:
    """One line has the name that was set, what is wrong with the value, and what is accepted."""
    with pytest.raises(SettingsError) as refused:
        _load({variable: text})
    (problem,) = refused.value.invalid
    assert problem.variable == variable
    assert message in problem.reason
    assert problem.accepted
    assert len(str(refused.value).splitlines()) == 1


def test_all_problems_are_reported_at_once() -> None:
    """One error has a line for each bad or missing variable."""
    bad = {"PORT": "eighty", "FUBD_POLL_INTERVAL": "-1", "FUBD_COLUMNS": "{", "DATABASE_CA_CERT": "nothing"}
    with pytest.raises(SettingsError) as refused:
        load(bad, need=FOR_THE_DAEMON, env_file=None)
    named = [line.partition(":")[0] for line in str(refused.value).splitlines()]
    assert sorted(named) == sorted([*bad, "FUB_API_KEY", "FUB_SYSTEM_KEY"])


def test_the_check_of_the_database_is_reported_with_the_rest() -> None:
    """Its problems have the name under which DATABASE_URL was set."""

    def check(text: str | None) -> None:
        raise SettingsError(InvalidSetting("DATABASE_URL", f"is {text}", "shorter"))

    with pytest.raises(SettingsError) as refused:
        load({"SUPABASE_DB_URL": "abc", "PORT": "x"}, check_database=check, env_file=None)
    assert [problem.variable for problem in refused.value.invalid] == ["PORT", "SUPABASE_DB_URL"]


def test_only_needed_variables_must_be_set() -> None:
    """A key that is not needed may be missing; one that is needed may not be empty."""
    assert load({"FUB_API_KEY": "key-1"}, need=FOR_FUB, env_file=None).fub_system_key is None
    with pytest.raises(SettingsError, match="FUB_API_KEY: is not set"):
        load({"FUB_API_KEY": "  "}, need=FOR_FUB, env_file=None)


def test_the_own_name_wins_over_an_alias() -> None:
    """An empty variable counts as not set."""
    both = {"FUBD_POLL_INTERVAL": "60", "POLLING_INTERVAL": "90"}
    assert _load(both).poll_interval_seconds == 60
    assert _load(both, FUBD_POLL_INTERVAL="").poll_interval_seconds == 90
    urls = {"RAILWAY_PUBLIC_DOMAIN": "rail.example", "WEBHOOK_BASE_URL": "https://old.example"}
    assert _load(urls).public_url == "https://old.example"
    assert _load(urls, PUBLIC_URL="https://new.example").public_url == "https://new.example"


def test_webhooks_of_a_preview_environment_are_not_managed() -> None:
    """On Railway, environments other than production have the same keys; there the subscriptions are changed only when asked for."""
    assert _load({"RAILWAY_ENVIRONMENT_NAME": "production"}).manage_webhooks
    assert not _load({"RAILWAY_ENVIRONMENT_NAME": "pr-17"}).manage_webhooks
    assert _load({"RAILWAY_ENVIRONMENT_NAME": "pr-17", "FUBD_MANAGE_WEBHOOKS": "true"}).manage_webhooks


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("FUBD_POL_INTERVAL", "FUBD_POLL_INTERVAL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("FUB_APIKEY", "FUB_API_KEY"),
        ("fubd_timezone", "FUBD_TIMEZONE"),
        ("PUBLC_URL", "PUBLIC_URL"),
        ("FUBD_NOTHING_LIKE_IT", None),
        ("DATABASE_PUBLIC_URL", None),
    ],
)
def test_a_misspelled_name_is_found(name: str, nearest: str | None) -> None:
    """With the name that was probably meant, where there is one."""
    (unknown,) = unknown_variables({name: "x", "FUB_API_KEY": "x"}, env_file=None)
    assert (unknown.name, unknown.nearest) == (name, nearest)


def test_names_of_other_programs_are_not_misspelled() -> None:
    """Those of Supabase, Next.js and the platform, and each of our own."""
    others = ("SUPABASE_URL", "SUPABASE_KEY", "NEXT_PUBLIC_URL", "PATH", "HOST", "PORTS", "WEBHOOK_URL", "RAILWAY_PUBLIC_DOMAIN")
    names = [*others, *variables(), *(alias for aliases in variables().values() for alias in aliases)]
    assert unknown_variables(dict.fromkeys(names, "x"), env_file=None) == []


def test_env_file_fills_what_the_environment_leaves_open(tmp_path: Path) -> None:
    """Values of .env are used as written, without interpolation."""
    file = tmp_path / ".env"
    file.write_text('PORT=9001\nFUB_SYSTEM="from the file"\nFUB_SYSTEM_KEY=a#b${HOME}\nFUBD_COLUMNS={"agent":"customAgent"}\n')
    settings = load({"PORT": "9002", "FUB_SYSTEM": ""}, env_file=file)
    assert settings.port == 9002
    assert settings.fub_system == "from the file"
    assert settings.fub_system_key is not None
    assert settings.fub_system_key.get_secret_value() == "a#b${HOME}"
    assert settings.columns == {"agent": "customAgent"}


def test_env_file_of_another_platform(tmp_path: Path) -> None:
    """A byte order mark, CRLF line ends and a shell's `export` are not part of names and values."""
    file = tmp_path / ".env"
    file.write_bytes("\ufeffPORT=9001\r\nexport FUB_SYSTEM=fubd-2\r\n# a remark\r\nFUB_API_KEY='k=1'\r\n".encode())
    settings = load({}, env_file=file)
    assert (settings.port, settings.fub_system, settings.secrets()) == (9001, "fubd-2", ("k=1",))


@pytest.mark.parametrize(("mark", "encoding"), [(BOM_UTF16_LE, "utf-16-le"), (BOM_UTF16_BE, "utf-16-be")])
def test_env_file_of_powershell(tmp_path: Path, mark: bytes, encoding: str) -> None:
    """Before version 6 its `>` writes UTF-16."""
    file = tmp_path / ".env"
    file.write_bytes(mark + "PORT=9001\r\nFUB_SYSTEM=fubd-2\r\n".encode(encoding))
    settings = load({}, env_file=file)
    assert (settings.port, settings.fub_system) == (9001, "fubd-2")


@pytest.mark.parametrize("content", [b"PORT=\xff\xfe", "PORT=9001\r\n".encode("utf-16-le")])
def test_an_unreadable_env_file_is_a_problem(tmp_path: Path, content: bytes) -> None:
    """A .env that is no text is reported like a bad variable, in one line: what it would have set is not known."""
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"\A[^\n]*cannot be read[^\n]*\Z"):
        load({}, need=FOR_FUB, env_file=file)


def test_a_line_of_env_file_that_sets_nothing_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By its number, without its text, which may be a secret; also beside the error that it may have caused."""
    file = tmp_path / ".env"
    file.write_text('# a remark\n\nFUB_SYSTEM=mine\n\nFUB_API_KEY: k1-secret\nPORT\nFUBD_TIMEZONE="UTC\nFUBD_API_SHARE=0.5\n')
    assert [line.number for line in unreadable_lines(file)] == [5, 6, 7]
    settings = load({}, env_file=file)
    assert (settings.fub_system, settings.api_share) == ("mine", 0.5)
    with pytest.raises(SettingsError) as refused:
        load({"FUB_APIKEY": "k2-secret"}, need=FOR_FUB, env_file=file)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(f"{file} line 5: cannot be read and has no effect; accepted: NAME=value")
    assert "FUB_API_KEY: is not set; FUB_APIKEY is not a setting of fubd and has no effect; did you mean FUB_API_KEY?" in lines[-1]
    assert "secret" not in str(refused.value)
    assert not caplog.records


def test_certificates_are_read_from_text_or_file(tmp_path: Path) -> None:
    """DATABASE_CA_CERT is PEM text, the same on one line, or a path."""
    pem = (Path(__file__).parent / "samples" / "settings" / "ca.pem").read_text()
    file = tmp_path / "ca file.pem"
    file.write_text(pem)
    for text in (pem, pem.strip().replace("\n", "\\n"), str(file)):
        certificates = _load({"DATABASE_CA_CERT": text}).database_ca_cert
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=certificates)
        assert len(context.get_ca_certs()) == 1


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40), st.sampled_from(_SECRETS))
def test_no_message_contains_a_secret(secret: str, variable: str) -> None:
    """Neither an error nor the text form of the settings contains the value of a secret."""
    hidden = f"q1Z{secret}9xY"
    try:
        settings = _load({variable: hidden}, PORT="bad" if len(secret) % 2 else "1")
        text = repr(settings) + str(settings)
        kept = settings.secrets()
    except SettingsError as error:
        text = str(error) + repr(error)
        kept = (hidden,)
    assert kept == (hidden,)
    assert hidden not in text


@given(st.dictionaries(st.sampled_from([*variables(), "POLLING_INTERVAL"]), st.text(max_size=30)))
def test_any_text_is_accepted_or_reported(environ: dict[str, str]) -> None:
    """Whatever the variables contain, there are settings or one readable error."""
    reported: SettingsError | None = None
    try:
        _load(environ)
    except SettingsError as error:
        reported = error
    if reported is not None:
        assert {problem.variable for problem in reported.invalid} <= set(environ)
        assert len(str(reported).splitlines()) == len(reported.invalid)


def test_settings_are_immutable() -> None:
    """Neither a field nor a mapping in it can be changed."""
    settings = _load({"FUBD_COLUMNS": '{"agent": "customAgent"}'})
    names = ("port", "columns")
    for name in names:
        with pytest.raises(ValueError, match="frozen"):
            setattr(settings, name, None)
    assert not isinstance(settings.columns, MutableMapping)
