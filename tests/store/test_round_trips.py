"""A recording transaction takes three round trips, so that a database far away delays an answer three times only."""

from __future__ import annotations

import asyncpg
import pytest

from fubd.core.observation import Delivery, Snapshot
from fubd.store import ChangeReader, OverviewReader, OverviewSpan, Pool, StateStore, StatusReader, migrate
from fubd.store.dsn import parse
from fubd.store.people import PeopleReader
from fubd.store.pool_mode import PoolMode
from tests.recorder import Recorder, at, execute, read, refetch_event, running_recorder, webhook
from tests.support.pooler import pooled
from tests.support.proxy import Proxy

_EVIDENCE: tuple[Delivery | Snapshot, ...] = (
    webhook("new", "B", "11:00"),
    webhook("new", "B", "11:00"),
    refetch_event("asks", "peopleUpdated", "11:01"),
    read("B", "11:00", "11:02"),
    read("C", "11:10", "11:20", person=2),
    webhook("later", "D", "11:30", (1, 2, 3)),
)


async def _round_trips(proxy: Proxy, recorder: Recorder) -> list[int]:
    """Return how many each piece of evidence took, when the connection has prepared its statements."""
    await recorder.record(webhook("e0", "A", "09:00"), read("A", "09:00", "10:00"))
    counts = []
    for evidence in _EVIDENCE:
        before = proxy.round_trips
        await recorder.record(evidence)
        counts.append(proxy.round_trips - before)
    return counts


async def test_a_recording_transaction_takes_three_round_trips(database: str) -> None:
    """Begin; add claims and load the history; write and commit: for deliveries, repeated ones, refetch requests and people as read."""
    async with Proxy(database) as proxy, running_recorder(proxy.dsn) as recorder:
        assert await _round_trips(proxy, recorder) == [3] * len(_EVIDENCE)
        assert [(row[1], row[2]) for row in await recorder.rows(2)] == [("D", at("11:30"))]


async def test_the_first_recording_takes_seven_with_its_log_in(database: str) -> None:
    """Log in and see that nothing stands between; begin; read the table; prepare; add; write. The driver asks for no type of array."""
    async with Proxy(database) as proxy, running_recorder(proxy.dsn) as recorder:
        await recorder.record(webhook("e0", "A", "09:00"))
        assert (proxy.connections, proxy.round_trips) == (1, 7)


@pytest.mark.slow
async def test_through_a_pooler_it_takes_four(database: str) -> None:
    """In transaction mode nothing stays prepared: the statement that adds claims is prepared each time."""
    async with pooled(database) as pooler, Proxy(pooler.url) as proxy, running_recorder(proxy.dsn) as recorder:
        assert await _round_trips(proxy, recorder) == [4] * len(_EVIDENCE)


_LIMITS = "SELECT name, setting FROM pg_settings WHERE name = ANY('{TimeZone,statement_timeout,jit,enable_seqscan}') ORDER BY name"


@pytest.mark.parametrize("mode", PoolMode)
async def test_every_transaction_has_our_limits(database: str, mode: PoolMode) -> None:
    """Set by its script or, without a pooler, from the log-in on; whatever limits the database has."""
    name = parse(database).database
    await execute(database, f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    await execute(database, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    pool = Pool(parse(database), mode=mode)
    for begun, whole_tables in (
        (pool.transaction(), "off"),
        (pool.statement(), "off"),
        (pool.reading_by_index(), "off"),
        (pool.reading(), "on"),
    ):
        async with begun as connection:
            found = dict(await connection.fetch(_LIMITS))
            assert await connection.fetchval("SELECT current_setting('transaction_isolation')") == "read committed"
        assert found == {"TimeZone": "UTC", "statement_timeout": "8000", "jit": "off", "enable_seqscan": whole_tables}
    async with pool.transaction() as connection:
        waits = await connection.fetchval(
            "SELECT current_setting('lock_timeout') || current_setting('idle_in_transaction_session_timeout')"
        )
        assert waits == "5s10s"
    await pool.close()


async def test_a_single_statement_takes_one_round_trip(database: str) -> None:
    """Without a pooler it needs no transaction around it, whether it reads or writes."""
    async with Proxy(database) as proxy:
        pool = Pool(parse(proxy.dsn))
        state = StateStore(pool)
        await state.coverage()
        await state.acquire_lease("one", ttl_seconds=10)
        before = proxy.round_trips
        await state.coverage()
        await state.acquire_lease("one", ttl_seconds=10)
        assert proxy.round_trips - before == 2
        await pool.close()


async def test_the_daemons_look_is_one_statement(database: str) -> None:
    """It is made every few seconds, the definition of the table included."""
    async with Proxy(database) as proxy:
        pool = Pool(parse(proxy.dsn))
        status = StatusReader(pool)
        await status.summary()
        before = proxy.statements, proxy.round_trips
        assert (await status.summary()).table_refusal is None
        assert (proxy.statements - before[0], proxy.round_trips - before[1]) == (1, 1)
        await pool.close()


async def test_a_current_schema_is_recognized_in_one_round_trip(database: str) -> None:
    """Without a lock, so that a start waits for nothing."""
    async with Proxy(database) as proxy:
        connection = await asyncpg.connect(**parse(proxy.dsn).connect_arguments())
        before = proxy.round_trips
        await migrate(connection)
        assert proxy.round_trips - before == 1
        await connection.close()


@pytest.mark.parametrize("mode", PoolMode)
async def test_a_far_database_answers_status_and_explain_in_six(database: str, mode: PoolMode) -> None:
    """With the log-in: everything that `status` shows is one statement, and what `explain` needs of a person two."""
    async with running_recorder(database) as recorder:
        await recorder.record(webhook("e0", "A", "09:00"))
    for read_all in (_overview, _evidence):
        async with Proxy(database) as proxy:
            pool = Pool(parse(proxy.dsn), mode=mode)
            await read_all(pool)
            assert proxy.round_trips <= 6
            await pool.close()


async def _overview(pool: Pool) -> None:
    assert (await StatusReader(pool).overview(blind_since=at("09:00"), now=at("10:00"), changes=10)).summary.webhook_change is not None


async def _evidence(pool: Pool) -> None:
    assert await PeopleReader(pool).evidence(1) is not None


async def test_an_open_page_costs_a_statement_a_look_and_two_an_overview(database: str) -> None:
    """The stream looks for new rows and corrections at once; the overview is the safe id and everything else."""
    span = OverviewSpan(at("08:00"), 300, 288, at("12:00"), at("00:00"), at("00:00"), at("00:00"), at("08:00"))
    async with running_recorder(database) as recorder:
        await recorder.record(webhook("e0", "A", "09:00"))
    async with Proxy(database) as proxy:
        pool = Pool(parse(proxy.dsn))
        reader = ChangeReader(pool)
        await OverviewReader(reader).read(span, recent=10)
        await reader.news(0, 10)
        before = proxy.statements, proxy.round_trips
        safe_id, corrections = await reader.news(0, 10)
        overview = await OverviewReader(reader).read(span, recent=10)
        assert (proxy.statements - before[0], proxy.round_trips - before[1]) == (3, 3)
        assert (overview.safe_id, [row.id for row in overview.recent], corrections) == (safe_id, [safe_id], [])
        await pool.close()
