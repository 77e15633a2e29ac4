"""Whatever keeps the database from taking a delivery: 503 in time, kept, stored when it is over, and the process goes on as before.

Each trouble is real for the daemon: a server or a pooler that refuses log-ins, a database that refuses to write, a network that fails. An
hour of it is scaled down to the seconds it takes to see the first refusals; what would add up in an hour is bounded elsewhere: log-ins by
the pool (`test_errors`), what waits by the buffer (`test_ingest`).
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
from tests.test_daemon import move_some

_ANSWERED_SECONDS = 5.5
_BACK_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where trouble is made: the network between, the database behind it."""

    proxy: Proxy
    database: str

    async def execute(self, *statements: str) -> None:
        """Run statements past the proxy, each by itself, as the database's owner would."""
        connection = await asyncpg.connect(**parse(self.database).connect_arguments())
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


Change = Callable[[Place], Awaitable[None]]


def refusing(code: str, text: str) -> tuple[Change, Change]:
    """Break every connection, and refuse each log-in with this."""

    async def begin(place: Place) -> None:
        place.proxy.refusal = (code, text)
        await place.proxy.cut()

    async def end(place: Place) -> None:
        place.proxy.refusal = None

    return begin, end


def failing(code: str) -> tuple[Change, Change]:
    """Fail each attempt to keep a delivery with this SQLSTATE, while everything can still be read."""

    async def begin(place: Place) -> None:
        await place.execute(
            "CREATE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$;"
            " CREATE TRIGGER fails BEFORE INSERT ON fubd.delivery EXECUTE FUNCTION public.fails()"
        )

    async def end(place: Place) -> None:
        await place.execute("DROP FUNCTION public.fails CASCADE")

    return begin, end


async def _only_read(place: Place) -> None:
    name = parse(place.database).database
    await place.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await place.proxy.cut()


async def _write_again(place: Place) -> None:
    # The sessions under way stay as they are, as those to a server that has become a standby do.
    name = parse(place.database).database
    await place.execute("SET default_transaction_read_only = off", f'ALTER DATABASE "{name}" RESET default_transaction_read_only')


async def _go_silent(place: Place) -> None:
    place.proxy.blackhole = True


async def _speak_again(place: Place) -> None:
    place.proxy.blackhole = False


async def _go_away(place: Place) -> None:
    await place.proxy.refuse()
    await place.proxy.cut()


async def _come_back(place: Place) -> None:
    await place.proxy.accept()


TROUBLES: dict[str, dict[str, tuple[Change, Change]]] = {
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
        "a standby": (_only_read, _write_again),
    },
    "the network": {
        "silence": (_go_silent, _speak_again),
        "nobody there": (_go_away, _come_back),
        "an administrator's shutdown": refusing("57P01", "terminating connection due to administrator command"),
    },
}


@pytest.mark.parametrize("kind", TROUBLES)
async def test_an_outage_costs_nothing(databases: Databases, tmp_path: Path, kind: str) -> None:
    """Each trouble of the kind in a house of its own, side by side."""
    async with asyncio.TaskGroup() as group:
        for number, (name, (begin, end)) in enumerate(TROUBLES[kind].items()):
            group.create_task(_outlived(databases, tmp_path, number, name, begin, end))


async def _outlived(databases: Databases, folder: Path, number: int, name: str, begin: Change, end: Change) -> None:
    own = folder / str(number)
    own.mkdir()
    async with (
        databases.migrated() as database,
        Proxy(database) as proxy,
        running_stack(database, own, daemon_dsn=proxy.dsn) as stack,
        stack.ready_daemon() as process,
    ):
        place = Place(proxy, database)
        await begin(place)
        logins = proxy.connections
        await _refused_and_kept(stack, process, name)
        await eventually(lambda: _is_up(stack, up=False), 20.0)
        assert proxy.connections - logins < 40, name
        await end(place)
        await eventually(lambda: _is_stored(stack), _BACK_SECONDS)
        assert (await stack.post(_delivery()))[0] == 200, name
        metrics = await stack.metrics()
        assert metrics["fubd_webhook_deliveries_total{outcome=duplicate}"] == 1, name
        await eventually(lambda: _is_up(stack, up=True), _BACK_SECONDS)
        for person in Random(number).sample(list(stack.account.ids), 5):
            move_some(stack, Random(person), 1, people=[person])
        found = await stack.final_score()
        # Ours is the one that the account knows nothing of.
        assert (found.captured, found.doubled, found.invented, found.chain_breaks) == (found.changes, 0, 1, 0), (name, found.discrepancies)
        assert process.code is None, name
        assert process.errors == [], name
        assert not [line for line in process.lines if "Traceback" in line or '"level": "error"' in line], name


def _delivery() -> bytes:
    return event("outage-1", "Nurture", datetime(2026, 1, 5, 10, tzinfo=UTC), [10_000_001])


async def _refused_and_kept(stack: Stack, process: Process, name: str) -> None:
    """The sender is told to come again in time, and everything else goes on answering."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    status, headers = await stack.post(_delivery())
    assert (status, headers.get("Retry-After", "").isdigit()) == (503, True), name
    assert loop.time() - began < _ANSWERED_SECONDS, name
    assert (await stack.get("/health"))["mode"], name
    assert process.code is None, name


async def _is_stored(stack: Stack) -> bool:
    return bool(await stack.fetch("SELECT 1 FROM public.stage_changes WHERE event_id = 'outage-1'"))


async def _is_up(stack: Stack, *, up: bool) -> bool:
    """Tell whether it says of itself that the database is there, and whether it holds the lease and the books balance when it is."""
    metrics = await stack.metrics()
    if not up:
        return metrics["fubd_db_up"] == 0
    return (metrics["fubd_db_up"], metrics["fubd_lease_held"], metrics["fubd_ledger_imbalance"]) == (1, 1, 0)
