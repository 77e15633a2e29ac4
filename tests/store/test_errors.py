"""What servers, poolers and networks say when they will not: sorted by its remedy, in our words, and never knocked at in a hurry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from fubd.errors import Malformed, Unavailable
from fubd.store import Pool
from fubd.store.dsn import parse
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.tls import behind_tls

# SQLSTATE and text as servers and poolers send them, and a word of what we make of it.
REFUSALS = {
    "wrong password": ("28P01", 'password authentication failed for user "somebody"', "refused the user or the password"),
    "not in pg_hba": ("28000", 'no pg_hba.conf entry for host "203.0.113.7", user "somebody"', "refused the user or the password"),
    "no database": ("3D000", 'database "secret" does not exist', "does not exist"),
    "no right": ("42501", "permission denied for schema fubd", "lacks a privilege"),
    "a standby": ("25006", "cannot execute INSERT in a read-only transaction", "can only be read"),
    "server full": ("53300", "sorry, too many clients already", "accepts no further connection"),
    "starting": ("57P03", "the database system is starting up", "starting up"),
    "ended": ("57P01", "terminating connection due to administrator command", "starting up or shutting down"),
    "no tenant": ("XX000", "Tenant or user not found", "postgres.PROJECT"),
    "no tenant, newer": ("XX000", "(ENOTFOUND) tenant/user postgres.somebody not found", "postgres.PROJECT"),
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
    "pooler's user": ("08P01", "no such user: somebody", "postgres.PROJECT"),
    "pooler's client limit": ("08P01", "no more connections allowed (max_client_conn)", "accepts no further connection"),
    "pooler's wait": ("08P01", "query_wait_timeout", "no connection to its server"),
    "pooler's log-in": ("08P01", "server login has been failing, try again later (server_login_retry)", "no connection to its server"),
    "something else": ("XX000", "somebody@203.0.113.7 did a thing", "could not run a statement now (XX000"),
}


@asynccontextmanager
async def refusing(code: str, text: str) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve a Postgres that answers every log-in with an error; gives its URL, and a list that grows with each log-in."""
    knocks: list[int] = []
    fields = b"".join(kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", code), (b"M", text)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(4), "big")
            await reader.readexactly(length - 4)
            knocks.append(length)
            writer.write(b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"postgresql://somebody:a-long-secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/secret", knocks
    finally:
        server.close()
        await server.wait_closed()


async def refusal_of(pool: Pool) -> Unavailable:
    """Give what using the pool raises."""
    with pytest.raises(Unavailable) as raised:
        async with pool.reading():
            pass
    return raised.value


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_a_server_or_a_pooler_says_is_told_in_our_words(name: str) -> None:
    """It may be tried again; nothing that names a user, a host or a database is repeated."""
    code, text, words = REFUSALS[name]
    async with refusing(code, text) as (url, _):
        told = str(await refusal_of(Pool(parse(url))))
        assert words in told
        for private in ("somebody", "203.0.113.7", "a-long-secret", '"secret"'):
            assert private not in told


async def test_who_is_refused_at_the_log_in_does_not_knock_in_a_hurry() -> None:
    """However often and by however many it is asked, at most four log-ins in 150 seconds: ten would lock us out of a pooler."""
    now = 0.0
    async with refusing("28P01", "password authentication failed") as (url, knocks):
        pool = Pool(parse(url), monotonic=lambda: now)
        for second in range(150):
            now = float(second)
            refusals = await asyncio.gather(*(refusal_of(pool) for _ in range(4)))
            assert all("password" in str(refusal) for refusal in refusals)
        assert len(knocks) <= 4
        assert ((await refusal_of(pool)).retry_after or 0.0) > 0


async def test_a_lock_out_is_waited_out() -> None:
    """For as long as it lasts, not a knock."""
    now = 0.0
    async with refusing("XX000", "Circuit breaker open") as (url, knocks):
        pool = Pool(parse(url), monotonic=lambda: now)
        await refusal_of(pool)
        now = 119.0
        await refusal_of(pool)
        assert len(knocks) == 1
        now = 121.0
        await refusal_of(pool)
        assert len(knocks) == 2


async def test_a_log_in_that_works_again_is_used_at_once(database: str) -> None:
    """A full server, one that starts, one that cannot be reached: tried again without waiting; a refused log-in soon."""
    async with Proxy(database) as proxy:
        pool = Pool(parse(proxy.dsn))
        await proxy.refuse()
        assert "cannot be reached" in str(await refusal_of(pool))
        await proxy.accept()
        async with pool.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await pool.close()


async def test_what_the_network_says_is_told_in_our_words(database: str) -> None:
    """Nobody listens, no such name, no TLS, and certificates of another name or authority."""
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


async def test_what_can_never_be_written_is_told_apart(database: str) -> None:
    """A value that does not fit is Malformed, and a statement that took too long may be tried again."""
    pool = Pool(parse(database))
    with pytest.raises(Malformed):
        async with pool.connection() as connection:
            await connection.execute("SELECT 1 / 0")
    with pytest.raises(Malformed):
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO stage_changes (person_id) VALUES (NULL)")
    with pytest.raises(Unavailable, match="57014"):
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


async def test_connections_that_all_fell_silent_are_found_out_at_once(database: str) -> None:
    """A router forgot them all: the first that is tried costs its 9 s, the others are not tried any more."""
    async with Proxy(database) as proxy:
        pool = Pool(parse(proxy.dsn))
        await asyncio.gather(*(_ask(pool) for _ in range(4)))
        before = proxy.connections
        proxy.deafen()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert "in time" in str(await refusal_of(pool))
        assert loop.time() - began < 10.0
        # Were another of the old ones tried, this would take as long again and fail.
        await asyncio.gather(*(_ask(pool) for _ in range(4)))
        assert proxy.connections >= before + 1
        await pool.close()


async def _ask(pool: Pool) -> None:
    async with pool.reading() as connection:
        await connection.execute("SELECT pg_sleep(0.2)")
