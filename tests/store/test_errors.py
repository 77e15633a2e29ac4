"""How refusals of servers, poolers and networks become our errors, and how the pool waits after a refused login."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trustme
from aiohappyeyeballs import AddrInfoType

from fubd.commands.check.issuer import find_issuer, issuer_name
from fubd.errors import Interrupted, Malformed, TableRefused, Unavailable
from fubd.os_errors import describe_os_error
from fubd.store import Pool
from fubd.store.connecting import connector
from fubd.store.dsn import parse
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.tls import behind_tls

pytestmark = pytest.mark.slow

# SQLSTATE and text as servers and poolers send them, and words of our message.
REFUSALS = {
    "wrong password": ("28P01", 'password authentication failed for user "app_user"', "refused the user or the password"),
    "not in pg_hba": ("28000", 'no pg_hba.conf entry for host "203.0.113.7", user "app_user"', "refused the user or the password"),
    "no database": ("3D000", 'database "secret" does not exist', "does not exist"),
    "no right": ("42501", "permission denied for schema fubd", "run GRANT USAGE, CREATE ON SCHEMA fubd TO"),
    "no right to draw ids": (
        "42501",
        "permission denied for sequence stage_changes_id_seq",
        "USAGE, SELECT ON SEQUENCE public.stage_changes_id",
    ),
    "no right to record": ("42501", "permission denied for table claim", "SELECT, INSERT, UPDATE, DELETE ON fubd.claim TO"),
    "another right": ("42501", "must be owner of table claim", "lacks a privilege in the database at"),
    "a view is gone": ("42P01", 'relation "public.source_health" does not exist', "public.source_health is missing in the database at"),
    "a standby": ("25006", "cannot execute INSERT in a read-only transaction", "can only be read"),
    "server full": ("53300", "sorry, too many clients already", "accepts no further connection"),
    "starting": ("57P03", "the database system is starting up", "starting up"),
    "ended": ("57P01", "terminating connection due to administrator command", "starting up or shutting down"),
    "closed": ("55000", 'database "secret" is not currently accepting connections', "accepts no connections: run ALTER DATABASE"),
    "no tenant": ("XX000", "Tenant or user not found", "postgres.PROJECT"),
    "no tenant, newer": ("XX000", "(ENOTFOUND) tenant/user postgres.app_user not found", "postgres.PROJECT"),
    "session pool full": (
        "XX000",
        "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size",
        "accepts no further connection",
    ),
    "session pool full, newer": ("XX000", "(EMAXCONNSESSION) max clients reached in session mode", "accepts no further connection"),
    "clients full": ("XX000", "Max client connections reached", "accepts no further connection"),
    "no server in time": (
        "XX000",
        "(ECHECKOUTTIMEOUT) unable to check out process from the pool due to timeout",
        "no connection to its server",
    ),
    "handler gone": ("XX000", "(EDBHANDLEREXITED) connection to database closed", "no connection to its server"),
    "locked out": ("XX000", "Circuit breaker open: too many authentication errors", "accepts no logins"),
    "locked out, newer": (
        "XX000",
        "(ECIRCUITBREAKER) too many authentication failures, new connections are blocked",
        "accepts no logins",
    ),
    "secret lookup": ("XX000", "(EAUTHQUERY) authentication query failed", "refused the user or the password"),
    "pooler's user": ("08P01", "no such user: app_user", "postgres.PROJECT"),
    "pooler's client limit": ("08P01", "no more connections allowed (max_client_conn)", "accepts no further connection"),
    "pooler's wait": ("08P01", "query_wait_timeout", "no connection to its server"),
    "pooler's log-in": ("08P01", "server login has been failing, try again later (server_login_retry)", "no connection to its server"),
    "pooler in statement mode": ("08P01", "transaction blocks not allowed in statement pooling mode", "runs in statement mode"),
    "something else": ("XX000", "app_user@203.0.113.7 did a thing", "could not run a statement now (XX000"),
}


@asynccontextmanager
async def refusing(code: str, text: str) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve a Postgres that answers every login with an error; yield its URL, and a list that grows with each login."""
    logins: list[int] = []
    fields = b"".join(kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", code), (b"M", text)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(4), "big")
            await reader.readexactly(length - 4)
            logins.append(length)
            writer.write(b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"postgresql://app_user:a-long-secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/secret", logins
    finally:
        server.close()
        await server.wait_closed()


async def refusal_of(pool: Pool) -> Unavailable:
    """Return the error that using the pool raises."""
    with pytest.raises(Unavailable) as raised:
        async with pool.reading():
            pass
    return raised.value


class _WindowsError(OSError):
    def __init__(self, winerror: int) -> None:
        super().__init__(errno.EINVAL, "[WinError] Connect call failed ('192.0.2.1', 5432)")
        self.winerror = winerror


def test_the_numbers_of_windows_have_the_same_words() -> None:
    """The advice of `check` depends on them, and Windows has no words of its own for the numbers of sockets."""
    assert (
        describe_os_error(_WindowsError(1225)) == describe_os_error(ConnectionRefusedError(errno.ECONNREFUSED, "x")) == "Connection refused"
    )
    assert describe_os_error(_WindowsError(121)) == "Connection timed out"
    assert describe_os_error(OSError(errno.EACCES, "x")) == "Permission denied"


async def test_a_connection_that_is_closed_at_once_says_so() -> None:
    """A proxy or pooler without its server accepts the connection and hangs up."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        dsn = parse(f"postgresql://app_user@127.0.0.1:{server.sockets[0].getsockname()[1]}/secret")
        assert str(await refusal_of(Pool(dsn))) == f"the database at {dsn.place} cannot be reached (the connection was cut)"


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusals_of_servers_and_poolers_are_translated(name: str) -> None:
    """A retry is allowed, and nothing of their text is repeated."""
    code, text, words = REFUSALS[name]
    async with refusing(code, text) as (url, _):
        message = str(await refusal_of(Pool(parse(url))))
        assert words in message
        assert f"the database at {parse(url).place}" in message
        for private in ("app_user", "203.0.113.7", "a-long-secret", '"secret"'):
            assert private not in message


async def test_logins_are_limited_after_a_refused_one() -> None:
    """However often the pool is used, it logs in at most four times in 150 seconds: a pooler locks out after ten."""
    now = 0.0
    async with refusing("28P01", "password authentication failed") as (url, logins):
        pool = Pool(parse(url), monotonic=lambda: now)
        for second in range(150):
            now = float(second)
            refusals = await asyncio.gather(*(refusal_of(pool) for _ in range(4)))
            assert all("password" in str(refusal) for refusal in refusals)
        assert len(logins) <= 4
        assert ((await refusal_of(pool)).retry_after or 0.0) > 0


async def test_the_pool_waits_until_a_lockout_ends() -> None:
    """It does not log in before."""
    now = 0.0
    async with refusing("XX000", "Circuit breaker open") as (url, logins):
        pool = Pool(parse(url), monotonic=lambda: now)
        await refusal_of(pool)
        now = 119.0
        await refusal_of(pool)
        assert len(logins) == 1
        now = 121.0
        await refusal_of(pool)
        assert len(logins) == 2


async def test_a_database_that_is_reachable_again_is_used_at_once(database: str) -> None:
    """Only a refused login delays the next attempt."""
    async with Proxy(database) as proxy:
        pool = Pool(parse(proxy.dsn))
        await proxy.refuse()
        assert "cannot be reached" in str(await refusal_of(pool))
        await proxy.accept()
        async with pool.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await pool.close()


async def test_a_session_that_began_read_only_is_not_lent_again(database: str) -> None:
    """Once a new session shows that the database can be written: a delivery that is lent an old one would be refused."""
    dsn = parse(database)
    owner, pool = await connector(dsn, timeout_seconds=10.0)(), Pool(dsn)
    await owner.execute(f'ALTER DATABASE "{dsn.database}" SET default_transaction_read_only = on')
    async with pool.connection() as old:
        assert await old.fetchval("SHOW transaction_read_only") == "on"
        await owner.execute(f'ALTER DATABASE "{dsn.database}" RESET default_transaction_read_only')
        for name in ("first", "second"):
            async with pool.transaction() as connection:
                await connection.execute(f"CREATE TABLE public.{name} (id int)")
    # The pool lends first what was given back last.
    async with pool.transaction() as connection:
        await connection.execute("CREATE TABLE public.third (id int)")
    await pool.close()
    await owner.close()


async def test_errors_of_the_network_are_translated(database: str) -> None:
    """No listener, an unknown name, no TLS, and certificates of another name or authority."""
    authority, other = trustme.CA(), trustme.CA()
    ours, theirs = (each.cert_pem.bytes().decode() for each in (authority, other))
    assert "cannot be reached" in str(await refusal_of(Pool(parse(f"postgresql://me@127.0.0.1:{free_port()}/x"))))
    assert "cannot be reached" in str(await refusal_of(Pool(parse("postgresql://me@nowhere.invalid/x"))))
    async with Proxy(database) as proxy:
        assert "offers no TLS" in str(await refusal_of(Pool(parse(f"{proxy.dsn}&sslmode=require"))))
    async with behind_tls(database, authority, "localhost") as url:
        pool = Pool(parse(url, ca_certificates=ours))
        async with pool.reading() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await pool.close()
        assert "not trusted" in str(await refusal_of(Pool(parse(url, ca_certificates=theirs))))
    async with behind_tls(database, authority, "elsewhere.example") as url:
        assert "not trusted" in str(await refusal_of(Pool(parse(url, ca_certificates=ours))))


# The record with which a server ends the handshake: an alert "protocol version", and what is no record of TLS at all.
HANDSHAKES = {
    "only older versions": (b"\x15\x03\x01\x00\x02\x02\x46", "offers only TLS versions below 1.2"),
    "no TLS after all": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "failed the TLS handshake (WRONG_VERSION_NUMBER)"),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_failed_handshake_names_the_database_and_the_reason(name: str) -> None:
    """The server agrees to TLS and then does not speak a version that we accept."""
    reply, words = HANDSHAKES[name]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(8)
            writer.write(b"S")
            await reader.readexactly(5)
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        message = str(await refusal_of(Pool(parse(f"postgresql://me@{place}?sslmode=require"))))
    assert message == f"the database at {place} {words}"


async def test_a_refused_value_is_malformed_and_anything_else_unavailable(database: str) -> None:
    """A retry cannot help against a refused value; it can after a timeout or a lost connection."""
    pool = Pool(parse(database))
    with pytest.raises(Malformed):
        async with pool.connection() as connection:
            await connection.execute("SELECT 1 / 0")
    with pytest.raises(TableRefused, match="DROP NOT NULL"):
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO stage_changes (person_id) VALUES (NULL)")
    with pytest.raises(Interrupted, match="57014"):
        async with pool.connection() as connection:
            await connection.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)")
    with pytest.raises(Unavailable, match="in time"):
        async with pool.connection() as connection:
            await connection.execute("SELECT pg_sleep(10)", timeout=0.01)
    with pytest.raises(Unavailable, match=r"lost|shutting down"):
        async with pool.connection() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


async def test_one_silent_connection_makes_the_pool_replace_the_others(database: str) -> None:
    """A router dropped them all: the first one used costs its 9 s, the others are not used any more."""
    async with Proxy(database) as proxy:
        pool = Pool(parse(proxy.dsn))
        await asyncio.gather(*(_query(pool) for _ in range(4)))
        before = proxy.connections
        proxy.freeze_open_connections()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert "in time" in str(await refusal_of(pool))
        assert loop.time() - began < 15.0
        # Were another of the old ones tried, this would take as long again and fail.
        await asyncio.gather(*(_query(pool) for _ in range(4)))
        assert proxy.connections >= before + 1
        await pool.close()


async def _query(pool: Pool) -> None:
    async with pool.reading() as connection:
        await connection.execute("SELECT pg_sleep(0.2)")


async def test_a_dead_ipv6_address_next_to_a_living_ipv4_one_costs_a_moment(database: str) -> None:
    """The living one is used, and its certificate is verified by the name of the host."""
    authority = trustme.CA()
    async with behind_tls(database, authority, "db.example") as url:
        certificate = authority.cert_pem.bytes().decode()
        dsn = parse(url.replace("localhost", "db.example"), ca_certificates=certificate)
        with socket.create_server(("::1", dsn.port), family=socket.AF_INET6, backlog=0) as silent, ExitStack() as full:
            for _ in range(3):
                # What its queue does not hold gets no answer at all.
                waiting = full.enter_context(socket.socket(socket.AF_INET6))
                waiting.setblocking(False)
                waiting.connect_ex(silent.getsockname())

            async def resolve(host: str, port: int) -> list[AddrInfoType]:
                assert host == "db.example"
                kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
                return [(socket.AF_INET6, *kind, ("::1", port, 0, 0)), (socket.AF_INET, *kind, ("127.0.0.1", port))]

            connection = await connector(dsn, timeout_seconds=8.0, resolve=resolve)()
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
            other = replace(dsn, context=parse(url.replace("localhost", "x.example"), ca_certificates=certificate).context)
            with pytest.raises(ssl.SSLCertVerificationError):
                await connector(other, timeout_seconds=8.0, resolve=resolve)()


async def test_the_issuer_of_a_certificate_is_named(database: str) -> None:
    """Through Postgres' own request for TLS; None where there is no TLS."""
    authority = trustme.CA(organization_name="Example Firewall")
    async with behind_tls(database, authority, "localhost") as url:
        assert await find_issuer("localhost", parse(url).port, is_postgres=True) == "Example Firewall"
    async with Proxy(database) as proxy:
        assert await find_issuer("127.0.0.1", parse(proxy.dsn).port, is_postgres=True) is None
    assert issuer_name(b"") is issuer_name(b"\x30\x03\x30\x01\x00") is None
