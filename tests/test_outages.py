"""Database outages of every kind: deliveries are answered 503 in time, kept, and stored afterwards; the process goes on.

Each outage is real for the daemon: a server or pooler refuses log-ins, a database refuses writes, the network fails. It lasts only for the
seconds until the first refusals; what adds up over an hour is bounded elsewhere: log-ins by the pool (`test_errors`), waiting deliveries by
the buffer (`test_ingest`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import asyncpg
import pytest

from fubd.store.dsn import parse
from tests.stack import Stack, event, running_stack
from tests.support.databases import Databases
from tests.support.process import Process
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

# Five, and what a busy machine adds; a connection that is given up takes nine.
_ANSWERED_SECONDS = 8.0
_RECOVERY_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Target:
    """What an outage changes: the network (`proxy`) or the database behind it."""

    proxy: Proxy
    database: str

    async def execute(self, *statements: str) -> None:
        """Run statements one by one, not through the proxy, as the owner of the database would."""
        connection = await asyncpg.connect(**parse(self.database).connect_arguments())
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


Change = Callable[[Target], Awaitable[None]]


def refusing(code: str, text: str) -> tuple[Change, Change]:
    """Break every connection, and refuse each log-in with this error."""

    async def begin(target: Target) -> None:
        target.proxy.refusal = (code, text)
        await target.proxy.cut()

    async def end(target: Target) -> None:
        target.proxy.refusal = None

    return begin, end


def failing(code: str) -> tuple[Change, Change]:
    """Let each insert of a delivery fail with this SQLSTATE, while everything can still be read; in no function of the owner's."""

    async def begin(target: Target) -> None:
        await target.execute(
            "CREATE FUNCTION fubd.fails() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$;"
            " CREATE TRIGGER fails BEFORE INSERT ON fubd.delivery EXECUTE FUNCTION fubd.fails()"
        )

    async def end(target: Target) -> None:
        await target.execute("DROP FUNCTION fubd.fails CASCADE")

    return begin, end


async def _become_read_only(target: Target) -> None:
    name = parse(target.database).database
    await target.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await target.proxy.cut()


async def _become_writable(target: Target) -> None:
    # Open sessions stay read-only, like those to a server that became a standby.
    name = parse(target.database).database
    await target.execute("SET default_transaction_read_only = off", f'ALTER DATABASE "{name}" RESET default_transaction_read_only')


async def _go_silent(target: Target) -> None:
    target.proxy.blackhole = True


async def _answer_again(target: Target) -> None:
    target.proxy.blackhole = False


async def _disconnect(target: Target) -> None:
    await target.proxy.refuse()
    await target.proxy.cut()


async def _reconnect(target: Target) -> None:
    await target.proxy.accept()


OUTAGES: dict[str, dict[str, tuple[Change, Change]]] = {
    "log-ins refused": {
        "a refused password": refusing("28P01", "password authentication failed"),
        "too many connections": refusing("53300", "sorry, too many clients already"),
        "a session pool that is full": refusing("XX000", "MaxClientsInSessionMode: max clients reached"),
        "a pooler without a server": refusing("XX000", "(ECHECKOUTTIMEOUT) unable to check out process from the pool due to timeout"),
        "a server that starts": refusing("57P03", "the database system is starting up"),
    },
    "writes refused": {
        "a full disk": failing("53100"),
        "a statement that takes too long": failing("57014"),
        "deadlocks": failing("40P01"),
        "serialization failures": failing("40001"),
        "a standby": (_become_read_only, _become_writable),
    },
    "the network": {
        "silence": (_go_silent, _answer_again),
        "connections refused": (_disconnect, _reconnect),
        "an administrator's shutdown": refusing("57P01", "terminating connection due to administrator command"),
    },
}


@pytest.mark.parametrize("kind", OUTAGES)
async def test_an_outage_loses_nothing(databases: Databases, tmp_path: Path, kind: str) -> None:
    """All outages of one kind, each on its own stack, at the same time."""
    async with asyncio.TaskGroup() as group:
        for number, (name, (begin, end)) in enumerate(OUTAGES[kind].items()):
            group.create_task(_survive(databases, tmp_path, number, name, begin, end))


async def _survive(databases: Databases, folder: Path, number: int, name: str, begin: Change, end: Change) -> None:
    own = folder / str(number)
    own.mkdir()
    async with (
        databases.migrated() as database,
        Proxy(database) as proxy,
        running_stack(database, own, daemon_dsn=proxy.dsn) as stack,
        stack.ready_daemon() as process,
    ):
        target = Target(proxy, database)
        await begin(target)
        logins = proxy.connections
        await _assert_refused_in_time(stack, process, name)
        await eventually(lambda: _shows_database(stack, up=False), 45.0)
        assert proxy.connections - logins < 40, name
        await end(target)
        await eventually(lambda: _is_stored(stack), _RECOVERY_SECONDS)
        # Until the daemon has the reply to its COMMIT, it would answer that it keeps this delivery already.
        await eventually(lambda: _shows_database(stack, up=True), _RECOVERY_SECONDS)
        assert (await stack.post(_delivery()))[0] == 200, name
        metrics = await stack.metrics()
        assert metrics["fubd_webhook_deliveries_total{outcome=duplicate}"] == 1, name
        for person in Random(number).sample(list(stack.account.ids), 5):
            stack.move_randomly(Random(person), people=[person])
        found = await stack.final_score()
        # The one invented change is our own delivery, which the account did not send.
        assert (found.captured, found.doubled, found.invented, found.chain_breaks) == (found.changes, 0, 1, 0), (name, found.discrepancies)
        assert process.code is None, name
        assert process.errors == [], name
        assert not [line for line in process.lines if "Traceback" in line or '"level": "error"' in line], name


def _delivery() -> bytes:
    return event("outage-1", "Nurture", datetime(2026, 1, 5, 10, tzinfo=UTC), [10_000_001])


async def _assert_refused_in_time(stack: Stack, process: Process, name: str) -> None:
    """The delivery is answered 503 with Retry-After in time, and other routes still answer."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    status, headers = await stack.post(_delivery())
    assert (status, headers.get("Retry-After", "").isdigit()) == (503, True), name
    assert loop.time() - began < _ANSWERED_SECONDS, name
    assert (await stack.get("/health"))["mode"], name
    assert process.code is None, name


async def _is_stored(stack: Stack) -> bool:
    return bool(await stack.fetch("SELECT 1 FROM public.stage_changes WHERE event_id = 'outage-1'"))


async def _shows_database(stack: Stack, *, up: bool) -> bool:
    """Return whether the gauges show that the database is up (then with the lease held and a balanced ledger) or down."""
    metrics = await stack.metrics()
    if not up:
        return metrics["fubd_db_up"] == 0
    return (metrics["fubd_db_up"], metrics["fubd_lease_held"], metrics["fubd_ledger_imbalance"]) == (1, 1, 0)
