"""DATABASE_URL: every way in which people write it, and how it is parsed."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
import trustme
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fubd.settings import SettingsError
from fubd.store.dsn import Dsn, Tls, parse
from tests.support.databases import url_of
from tests.support.proxy import Proxy
from tests.support.tls import behind_tls

_CA = (Path(__file__).parents[1] / "samples" / "settings" / "ca.pem").read_text()

_RAW = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
_LIKE_A_URL = st.text(st.sampled_from("ab1@#/:?%&=[]., "), min_size=1, max_size=20)
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")

# The text after the scheme; the user, password, host, port and database meant.
_ACCEPTED = [
    ("app:s3cret@db.example:6543/prod", ("app", "s3cret", "db.example", 6543, "prod")),
    ("app:s3cret@db.example/prod", ("app", "s3cret", "db.example", 5432, "prod")),
    ("app:s3cret@db.example:/prod", ("app", "s3cret", "db.example", 5432, "prod")),
    ("app:s3cret@db.example", ("app", "s3cret", "db.example", 5432, "app")),
    ("app:s3cret@db.example/", ("app", "s3cret", "db.example", 5432, "app")),
    ("app@db.example/prod", ("app", "", "db.example", 5432, "prod")),
    ("app.project:p@ss/w#o:r?d%@db.example:5432/prod", ("app.project", "p@ss/w#o:r?d%", "db.example", 5432, "prod")),
    ("app:a@b/c?d=e@db.example:5432/prod?sslmode=require", ("app", "a@b/c?d=e", "db.example", 5432, "prod")),
    ("app:p%40ss%2Fword%25@db.example/prod", ("app", "p@ss/word%", "db.example", 5432, "prod")),
    ("app:100%@db.example/prod", ("app", "100%", "db.example", 5432, "prod")),
    ("app:%ff%fe@db.example/prod", ("app", "%ff%fe", "db.example", 5432, "prod")),
    ("app:[brackets]@db.example/prod", ("app", "[brackets]", "db.example", 5432, "prod")),
    ("a%40corp:pw@db.example/prod", ("a@corp", "pw", "db.example", 5432, "prod")),
    ("app:pw@[2001:db8::7]:5433/prod", ("app", "pw", "2001:db8::7", 5433, "prod")),
    ("app:pw@[::1]/prod", ("app", "pw", "::1", 5432, "prod")),
    ("app:pw@/prod?host=/run/postgresql", ("app", "pw", "/run/postgresql", 5432, "prod")),
    ("app@%2Fsrv%2Fmy%20socket/prod", ("app", "", "/srv/my socket", 5432, "prod")),
    ("/prod?host=/srv&user=app&password=p%40w&port=5444", ("app", "p@w", "/srv", 5444, "prod")),
    ("/prod?host=/srv&user=app&password=p@w", ("app", "p@w", "/srv", 5432, "prod")),
    ("db.example/?user=app&dbname=prod", ("app", "", "db.example", 5432, "prod")),
    ("app:pw@db.example/prod?application_name=me@home", ("app", "pw", "db.example", 5432, "prod")),
    ("app:pw@db.example/my%20data", ("app", "pw", "db.example", 5432, "my data")),
]

_REFUSED = [
    ("mysql://app:hunter2@db.example/prod", "does not begin with postgresql"),
    ("hunter2", "does not begin with postgresql"),
    ("postgresql://app:hunter2@one.example,two.example/prod", "more than one host"),
    ("postgresql://app:hunter2@/prod?host=one.example,two.example", "more than one host"),
    ("postgresql://app:hunter2@/prod", "names no host"),
    ("postgresql://db.example/prod", "names no user"),
    ("postgresql://:hunter2@db.example/prod", "names no user"),
    ("postgresql://app:hunter2@db.example:0/prod", "port"),
    ("postgresql://app:hunter2@db.example:65536/prod", "port"),
    ("postgresql://app:hunter2@db.example/prod?port=many", "port"),
    ("postgresql://app:hunter2@db.example:port/prod", "do not follow the last @"),
    ("postgresql://app:hunter2@::1/prod", "do not follow the last @"),
    ("postgresql://app:hunter2@db.example/prod?sslmode=hunter2", "unknown sslmode"),
    ("postgresql://app:hunter2@db.example/prod?sslmode=verify-ca&sslrootcert=/hunter2.pem", "sslrootcert"),
    ("postgresql://app:hunter2@db.example/prod?sslcert=/hunter2.pem", "sslcert"),
    ("postgresql://app:hunter2%00@db.example/prod", "zero byte"),
    ("postgresql://app:hun\nter2@db.example/prod", "control character"),
    ("postgresql://app:[YOUR-PASSWORD]@db.example/prod", "placeholder"),
    ("postgresql://", "names no host"),
]


@pytest.mark.parametrize(("written", "meant"), _ACCEPTED)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "POSTGRESQL"])
def test_each_way_of_writing_is_parsed_as_meant(scheme: str, written: str, meant: tuple[str, str, str, int, str]) -> None:
    """With every name of the scheme."""
    dsn = parse(f" {scheme}://{written}\n")
    assert (dsn.user, dsn.password, dsn.host, dsn.port, dsn.database) == meant


@pytest.mark.parametrize(("url", "reason"), _REFUSED)
def test_an_unusable_url_is_refused_with_the_reason(url: str, reason: str) -> None:
    """In one line that repeats no part of the URL."""
    with pytest.raises(SettingsError) as refused:
        parse(url)
    message = str(refused.value)
    assert reason in message
    assert len(message.splitlines()) == 1
    assert "hunter2" not in message
    assert "example" not in message
    assert refused.value.__context__ is None or refused.value.__suppress_context__


@given(_RAW | _LIKE_A_URL, st.sampled_from(["", "?sslmode=require", "?pgbouncer=true&connection_limit=1"]))
@example("@", "")
@example("a@b:5/c", "")
def test_any_password_is_accepted_unescaped(password: str, parameters: str) -> None:
    """Unless a part of it happens to be a valid escape."""
    assume(not _ESCAPE.search(password))
    dsn = parse(f"postgresql://app:{password}@db.example:5432/prod{parameters}")
    assert (dsn.user, dsn.password, dsn.host, dsn.database) == ("app", password, "db.example", "prod")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40), st.booleans())
def test_any_password_is_accepted_percent_encoded(password: str, with_database: bool) -> None:
    """It is decoded to what it was."""
    assume(password != "[YOUR-PASSWORD]")
    dsn = parse(f"postgresql://app:{quote(password, safe='')}@db.example:5432{'/prod' if with_database else ''}")
    assert (dsn.password, dsn.host) == (password, "db.example")


@given(_RAW | _LIKE_A_URL)
def test_any_text_is_parsed_or_refused_without_repeating_it(text: str) -> None:
    """In at most one line."""
    message = ""
    try:
        parse(f"postgresql://{text}")
    except SettingsError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert len(text) < 6 or text not in message


@given(
    st.builds(
        Dsn,
        host=st.sampled_from(["db.example", "127.0.0.1", "::1", "/run/my socket"]),
        port=st.integers(1, 65535),
        user=_RAW,
        password=_RAW,
        database=_RAW,
        tls=st.just(Tls.REQUIRE),
    )
)
def test_the_urls_that_the_tests_build_are_parsed_back(dsn: Dsn) -> None:
    """User, password, host, port and database are the same."""
    read = parse(url_of(dsn))
    assert (read.host, read.port, read.user, read.password, read.database) == (dsn.host, dsn.port, dsn.user, dsn.password, dsn.database)


@pytest.mark.parametrize("requested", ["", "?sslmode=disable", "?sslmode=allow", "?sslmode=prefer", "?sslmode=require", "?ssl=false"])
@pytest.mark.parametrize("host", ["db.example", "10.0.0.7", "postgres.internal", "[2001:db8::7]", "localhost.example"])
def test_tls_is_required_to_another_machine(host: str, requested: str) -> None:
    """Whatever the URL requests, and without a fallback to plaintext."""
    dsn = parse(f"postgresql://app:pw@{host}/prod{requested}")
    context = dsn.connect_arguments()["ssl"]
    assert dsn.tls is Tls.REQUIRE
    assert isinstance(context, ssl.SSLContext)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_tls_to_this_machine_is_as_requested(host: str) -> None:
    """None is required, and what the URL requests is done."""
    url = f"postgresql://app:pw@{host}/prod"
    assert parse(url).connect_arguments()["ssl"] is False
    assert parse(f"{url}?sslmode=prefer").connect_arguments()["ssl"] == "prefer"
    assert isinstance(parse(f"{url}?sslmode=require").connect_arguments()["ssl"], ssl.SSLContext)


@pytest.mark.parametrize("host", ["db.example", "localhost"])
def test_a_ca_turns_on_verification(host: str) -> None:
    """With DATABASE_CA_CERT the certificate and the name are verified against it and nothing else."""
    dsn = parse(f"postgresql://app:pw@{host}/prod?sslmode=disable", ca_certificates=_CA)
    context = dsn.connect_arguments()["ssl"]
    assert dsn.tls is Tls.VERIFY_FULL
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_verification_is_as_requested() -> None:
    """sslmode=verify-ca and verify-full use the machine's own authorities."""
    relaxed = parse("postgresql://app:pw@db.example/prod?sslmode=verify-ca").connect_arguments()["ssl"]
    strict = parse("postgresql://app:pw@db.example/prod?sslmode=verify-full").connect_arguments()["ssl"]
    assert (relaxed.verify_mode, relaxed.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_unix_socket_needs_no_tls() -> None:
    """Not even with a CA."""
    assert parse("postgresql://app@/prod?host=/run/postgresql", ca_certificates=_CA).connect_arguments()["ssl"] is False


def test_parameters_of_other_drivers_are_dropped() -> None:
    """Their names are kept for `check`; the tenant that a pooler reads from `options` stays."""
    dsn = parse(
        "postgresql://app:pw@db.example:6543/prod?pgbouncer=true&connection_limit=5&pool_timeout=0&schema=public&connect_timeout=9"
        "&options=reference%3Dabcdef&application_name=mine&target_session_attrs=read-write&&flag"
    )
    assert dsn.dropped == ("connect_timeout", "connection_limit", "flag", "pgbouncer", "pool_timeout", "schema", "target_session_attrs")
    assert dsn.connect_arguments()["server_settings"] == {"application_name": "mine", "options": "reference=abcdef"}
    plain = parse("postgresql://app:pw@db.example/prod?options=-c%20statement_timeout%3D5s")
    assert plain.connect_arguments()["server_settings"] == {"application_name": "fubd"}


def test_the_role_of_a_user() -> None:
    """A statement takes it as it is; the user of Supabase's pooler has the project after a dot."""
    assert parse("postgresql://a.b@127.0.0.1/x").role == '"a.b"'
    assert parse("postgresql://fubd.abcdef:x@aws-0-eu-1.pooler.supabase.com/postgres").role == '"fubd"'


def test_the_password_is_not_shown() -> None:
    """Neither repr, str nor place contains it."""
    dsn = parse("postgresql://app:hunter2@db.example:6543/prod")
    assert "hunter2" not in repr(dsn) + str(dsn) + dsn.place
    assert dsn.place == "db.example:6543/prod"
    assert parse("postgresql://app@[100::1]:6543/prod").place == "[100::1]:6543/prod"


async def test_nothing_is_read_from_the_environment(empty_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No PG* variable and no password file changes where and as which user we connect."""
    service = tmp_path / "service.conf"
    service.write_text("[other]\nhost=192.0.2.1\n")
    for name, value in {
        "PGHOST": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGPASSWORD": "wrong",
        "PGDATABASE": "nothing",
        "PGSSLMODE": "verify-full",
        "PGSSLNEGOTIATION": "direct",
        "PGTARGETSESSIONATTRS": "standby",
        "PGSERVICE": "other",
        "PGSERVICEFILE": str(service),
        "PGPASSFILE": str(tmp_path / "none"),
        "PGGSSLIB": "nonsense",
    }.items():
        monkeypatch.setenv(name, value)
    dsn = parse(empty_database)
    connection = await asyncpg.connect(**dsn.connect_arguments(), timeout=10)
    try:
        assert await connection.fetchval("SELECT current_database()") == dsn.database
        assert await connection.fetchval("SHOW application_name") == "fubd"
    finally:
        await connection.close()


async def test_a_server_without_tls_is_refused_where_tls_is_required(empty_database: str) -> None:
    """There is no fallback to plaintext."""
    async with Proxy(empty_database) as proxy:
        dsn = parse(f"{proxy.dsn}&sslmode=require")
        with pytest.raises(ConnectionError, match="SSL"):
            await asyncpg.connect(**dsn.connect_arguments(), timeout=10)


async def test_it_connects_through_tls(empty_database: str) -> None:
    """Without a CA to any certificate, with one to that authority's certificate for that name."""
    authority = trustme.CA()
    certificates = authority.cert_pem.bytes().decode()
    async with behind_tls(empty_database, authority, "localhost") as url:
        for dsn in (parse(url), parse(url, ca_certificates=certificates)):
            connection = await asyncpg.connect(**dsn.connect_arguments(), timeout=10)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()


@pytest.mark.parametrize(("name", "is_ours"), [("other.example", True), ("localhost", False)])
async def test_with_a_ca_other_certificates_are_refused(empty_database: str, name: str, is_ours: bool) -> None:
    """Those for another name, and those of another authority."""
    authority = trustme.CA()
    trusted = authority if is_ours else trustme.CA()
    async with behind_tls(empty_database, authority, name) as url:
        dsn = parse(url, ca_certificates=trusted.cert_pem.bytes().decode())
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(**dsn.connect_arguments(), timeout=10)
