"""The views: days of the office's time zone, the status in failover, and a comment on everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from fubd.store import Maintenance, Pool, StatusReader, adoption, migrate
from fubd.store.dsn import parse
from tests.support import legacy_tables

_INSERT = "INSERT INTO public.stage_changes (person_id, stage_to, changed_at, received_at, source) VALUES ($1, 'B', $2, $2, $3)"


@pytest.fixture(params=["fresh", "as reconstructed"])
async def pool(request: pytest.FixtureRequest, empty_database: str) -> AsyncIterator[Pool]:
    """Yield a pool on a fresh database, and on an adopted one whose instants have no zone."""
    made = Pool(parse(empty_database), size=2)
    async with made.connection() as connection:
        if request.param == "fresh":
            await migrate(connection, columns={"campaign_id": "customCampaignID"})
        else:
            await legacy_tables.make(connection, request.param)
    if request.param != "fresh":
        plan = await adoption.plan_adoption(made, {})
        assert plan is not None
        await adoption.adopt(made, {}, plan=plan)
    yield made
    await made.close()


async def _set_time_zone(pool: Pool, name: str) -> None:
    await Maintenance(pool).save_settings({"webhook_stale_after_seconds": 3600.0, "poll_stale_after_seconds": 2700.0}, time_zone=name)


async def _insert(pool: Pool, instants: Sequence[datetime], source: str = "webhook") -> None:
    async with pool.transaction() as connection:
        column = await connection.fetchval("SELECT pg_typeof(changed_at)::text FROM (SELECT (NULL::public.stage_changes).changed_at) t")
        for number, at in enumerate(instants):
            await connection.execute(_INSERT, str(number), at.replace(tzinfo=None) if "without" in column else at, source)


@pytest.mark.parametrize(
    ("zone", "first", "hours"),
    [
        pytest.param("Europe/Berlin", datetime(2026, 3, 28, 23, tzinfo=UTC), 23, id="clocks go forward"),
        pytest.param("Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC), 25, id="clocks go back"),
        pytest.param("America/New_York", datetime(2026, 3, 8, 5, tzinfo=UTC), 23, id="west of UTC, forward"),
        pytest.param("America/New_York", datetime(2026, 11, 1, 4, tzinfo=UTC), 25, id="west of UTC, back"),
    ],
)
async def test_a_day_of_the_daily_view_is_a_day_of_the_time_zone(pool: Pool, zone: str, first: datetime, hours: int) -> None:
    """One change each half hour over four days: each change counts on one day, and the middle day has 23 or 25 hours."""
    await _set_time_zone(pool, zone)
    await _insert(pool, [first + timedelta(minutes=30 * step) for step in range(-48, 96)])
    async with pool.connection() as connection:
        await connection.execute("SET timezone = 'Asia/Tokyo'")
        rows = await connection.fetch("SELECT day, source, stage, changes FROM public.stage_changes_daily ORDER BY day")
        bounded = await connection.fetch("SELECT day, changes FROM public.stage_changes_daily WHERE day = $1", rows[1]["day"])
        await connection.execute("RESET timezone")
    assert sum(row["changes"] for row in rows) == 144
    middle = date(first.year, first.month, first.day) + timedelta(days=zone == "Europe/Berlin")
    assert [row["changes"] for row in rows if row["day"] == middle] == [hours * 2]
    assert rows[0]["changes"] == 48
    assert {(row["source"], row["stage"]) for row in rows} == {("webhook", "B")}
    assert [(row["day"], row["changes"]) for row in bounded] == [(middle, hours * 2)]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
async def test_today_begins_at_midnight_of_the_time_zone(pool: Pool, zone: str) -> None:
    """Rows received a second before and after midnight of the zone, 14 hours ahead of UTC and 11 behind it."""
    await _set_time_zone(pool, zone)
    async with pool.connection() as connection:
        midnight = await connection.fetchval("SELECT date_trunc('day', now() AT TIME ZONE $1) AT TIME ZONE $1", zone)
    await _insert(pool, [midnight - timedelta(seconds=1), midnight + timedelta(microseconds=1)])
    async with pool.connection() as connection:
        rows = {row["source"]: row for row in await connection.fetch("SELECT * FROM public.source_health")}
    assert rows["webhook"]["records_today"] == 1
    assert rows["webhook"]["latest_change"] == midnight + timedelta(microseconds=1)
    assert (rows["polling"]["records_today"], rows["polling"]["latest_change"]) == (0, None)
    summary = await StatusReader(pool).summary()
    assert (summary.webhook_today, summary.polling_today) == (1, 0)


async def test_a_time_zone_that_the_server_does_not_know_is_utc(pool: Pool) -> None:
    """The views answer all the same."""
    await _set_time_zone(pool, "Mars/Olympus_Mons")
    await _insert(pool, [datetime(2026, 1, 1, tzinfo=UTC)])
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT day FROM public.stage_changes_daily") == date(2026, 1, 1)


async def test_the_latest_change_counts_by_the_words_of_older_scripts(pool: Pool) -> None:
    """Whatever stands in the column `source`; rows without a usable instant do not count."""
    hours = {"webhook": 1, "wh_peopleUpdated": 3, "webhook_x": 2, "polling": 1, "manual_fix": 5, "events_api": 4}
    for source, hour in hours.items():
        await _insert(pool, [datetime(2026, 1, 1, hour, tzinfo=UTC)], source)
    async with pool.connection() as connection:
        rows = {row["source"]: row["latest_change"].hour for row in await connection.fetch("SELECT * FROM public.source_health")}
    assert rows == {"webhook": 3, "polling": 5}


async def test_in_failover_the_webhook_source_is_not_healthy(pool: Pool) -> None:
    """Although a webhook was heard a moment ago; it is healthy again when the mode is another."""
    async with pool.transaction() as connection:
        await connection.execute(
            "INSERT INTO fubd.delivery (key, received_at, instance, body) VALUES ('\\x01', now(), 'i', '');"
            "INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, evidence) VALUES (now(), 'failover', '', 30, '{}')"
        )
    status = "SELECT status FROM public.source_health WHERE source = 'webhook'"
    async with pool.connection() as connection:
        assert await connection.fetchval(status) == "STALE - Check webhook server"
        await connection.execute(
            "INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, evidence) VALUES (now(), 'recovering', '', 30, '{}')"
        )
        assert await connection.fetchval(status) == "HEALTHY"


async def test_everything_in_public_has_a_comment(pool: Pool) -> None:
    """Every view and column of fresh and adopted tables that fubd fills, the columns of FUBD_COLUMNS too."""
    async with pool.connection() as connection:
        missing = await connection.fetch(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND NOT a.attisdropped"
            " AND (col_description(c.oid, a.attnum) IS NULL OR (obj_description(c.oid) IS NULL AND c.relname <> 'stage_changes'))"
            " AND (c.relname <> 'stage_changes' OR NOT EXISTS (SELECT FROM fubd.adoption) OR a.attname = 'changed_after')"
            " AND c.relname <> 'throwaway_leads_detail_60d'"
        )
    assert [tuple(row) for row in missing] == []


async def test_every_table_of_the_schema_has_comments(pool: Pool) -> None:
    """The tables in the schema fubd and their columns; what `adopt` copied is as its owner made it."""
    async with pool.connection() as connection:
        missing = await connection.fetch(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
            " WHERE c.relnamespace = 'fubd'::regnamespace AND c.relkind = 'r' AND NOT a.attisdropped"
            " AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL) AND c.relname <> 'stage_changes_backup'"
        )
    assert [tuple(row) for row in missing] == []


async def test_durations_end_with_the_next_row(pool: Pool) -> None:
    """Rows of one instant are in the order of their ids, and the last one is still open."""
    at = datetime(2026, 1, 1, 10, tzinfo=UTC)
    async with pool.transaction() as connection:
        naive: asyncpg.Connection = connection
        await naive.execute(
            "INSERT INTO public.stage_changes (person_id, stage_to, changed_at, received_at, source) VALUES"
            " ('1', 'A', '2026-01-01 10:00', '2026-01-01', 'webhook'), ('1', 'B', '2026-01-01 10:00', '2026-01-01', 'webhook'),"
            " ('2', 'X', '2026-01-01 10:01', '2026-01-01', 'webhook'), ('1', 'C', '2026-01-01 10:04', '2026-01-01', 'webhook')"
        )
        rows = await connection.fetch("SELECT stage, left_at, next_stage FROM public.stage_durations WHERE person_id = '1' ORDER BY id")
        rapid = await connection.fetch("SELECT stage, next_stage FROM public.rapid_transitions ORDER BY id")
    assert [tuple(row) for row in rows] == [("A", at, "B"), ("B", at + timedelta(minutes=4), "C"), ("C", None, None)]
    assert [tuple(row) for row in rapid] == [("A", "B"), ("B", "C")]
