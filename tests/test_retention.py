"""What is kept for a time only is removed after it, and what is still needed stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest

from fubd.retention import Retention, RetentionPolicy
from fubd.store import Maintenance, Pool
from fubd.store.adoption import BACKUP
from tests.recorder import read, running_recorder
from tests.store.adopting import adopt, connected, pooled
from tests.support import legacy_tables


class _Rounds:
    """A clock whose pause number `count` ends the test."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 5, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        self.pauses.append(seconds)
        if len(self.pauses) == self._count:
            events[0].set()
        return False


async def _run(pool: Pool, *, rounds: int = 1, forget_days: float | None = None, columns: Mapping[str, str] | None = None) -> list[float]:
    """Run so many rounds with 30 days for everything else; return the pauses."""
    clock = _Rounds(rounds)
    policy = RetentionPolicy(30.0, 30.0, forget_days, columns or {})
    await Retention(Maintenance(pool), clock, policy).run(asyncio.Event())
    return clock.pauses


async def test_names_of_deleted_people_are_removed_in_batches(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Never without the setting; after its time all of them, with the custom columns, and the log names nobody."""
    caplog.set_level(logging.INFO, "fubd.retention")
    columns = {"campaign_id": "customCampaignID"}
    async with running_recorder(database, columns=columns) as recorder:
        await recorder.record(*(read("A", "08:30", "09:00", "08:00", person=person) for person in range(1, 53)))
        async with recorder.pool.connection() as connection:
            await connection.execute(
                "UPDATE fubd.person SET gone_at = now() - interval '20 days', fields = '{\"customCampaignID\": \"x\"}' WHERE id > 1"
            )
            await connection.execute("UPDATE public.stage_changes SET campaign_id = 'x'")
        assert await _run(recorder.pool) == [3600.0]
        assert await _run(recorder.pool, forget_days=21.0, columns=columns) == [3600.0]
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fubd.forgotten") == 0
        assert await _run(recorder.pool, rounds=2, forget_days=19.0, columns=columns) == [5.0, 3600.0]
        async with recorder.pool.reading() as connection:
            named = "SELECT id FROM fubd.person WHERE first_name IS NOT NULL OR fields <> '{}'"
            assert [row["id"] for row in await connection.fetch(named)] == [1]
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes WHERE person_id <> '1' AND campaign_id <> ''") == 0
    assert [record.getMessage() for record in caplog.records] == [
        "Forgot 50 people that Follow Up Boss confirmed deleted at least 19 days ago (FUBD_FORGET_DELETED_DAYS)",
        "Forgot 1 person that Follow Up Boss confirmed deleted at least 19 days ago (FUBD_FORGET_DELETED_DAYS)",
    ]


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        (RetentionPolicy(90.0, 90.0), 3600.0),
        (RetentionPolicy(90.0, 90.0, 30.0), 3600.0),
        (RetentionPolicy(90.0, 90.0, 0.1), 864.0),
        (RetentionPolicy(90.0, 0.05), 432.0),
        (RetentionPolicy(0.00001, 90.0, 30.0), 5.0),
    ],
)
def test_what_is_kept_for_a_short_time_is_looked_for_more_often(policy: RetentionPolicy, seconds: float) -> None:
    """Every hour, or after a tenth of the shortest time, but not without a pause."""
    assert policy.round_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(("days", "settled"), [(90.0, 91.0), (30.0, 31.0), (0.5, 30.0)])
def test_evidence_is_settled_a_day_after_the_last_delivery_is_removed(days: float, settled: float) -> None:
    """What is in quarantine is processed again while it is kept, and Follow Up Boss repeats an event for hours."""
    assert RetentionPolicy(days, 90.0).settled_days == settled


async def test_superseded_reads_are_removed_in_rounds(database: str) -> None:
    """Each round goes on with the next people, and soon where there was much to remove."""
    async with running_recorder(database) as recorder:
        for hour in range(8, 13):
            snapshots = [read("A", f"{hour}:00", f"{hour}:01", person=person) for person in range(1, 61)]
            await recorder.record_concurrently(*snapshots)
        async with recorder.pool.connection() as connection:
            await connection.execute(
                "UPDATE fubd.claim SET at = at + d.by, read_at = read_at + d.by, first_read_at = first_read_at + d.by,"
                " received_at = read_at + d.by FROM (SELECT now() - interval '40 days' - '2026-01-05 14:00Z' AS by) d"
            )
        assert await _run(recorder.pool, rounds=2) == [5.0, 3600.0]
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fubd.claim") == 60 * 3


async def _ids(pool: Pool, table: str) -> Sequence[int]:
    async with pool.reading() as connection:
        return [row["id"] for row in await connection.fetch(f"SELECT id FROM fubd.{table} ORDER BY id")]


async def test_old_runs_modes_and_corrections_are_removed(database: str) -> None:
    """The last complete poll, the mode in force and the one in force when the kept time begins stay."""
    async with pooled(database) as pool, connected(database) as connection:
        await connection.execute("""
            INSERT INTO fubd.poll_run (kind, started_at, finished_at, outcome) VALUES
                ('incremental', now() - interval '50 days', now() - interval '50 days', 'ok'),
                ('incremental', now() - interval '40 days', now() - interval '40 days', 'ok'),
                ('scrub', now() - interval '39 days', now() - interval '39 days', 'ok'),
                ('incremental', now() - interval '38 days', NULL, NULL),
                ('sweep', now() - interval '37 days', now() - interval '29 days', 'failed'),
                ('incremental', now() - interval '1 day', now() - interval '1 day', 'failed');
            INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, evidence) VALUES
                (now() - interval '50 days', 'normal', '', 1800, '{}'), (now() - interval '40 days', 'watch', '', 300, '{}'),
                (now() - interval '20 days', 'normal', '', 1800, '{}');
            INSERT INTO fubd.correction (change_id, person_id, corrected_at, was) VALUES
                (1, 1, now() - interval '40 days', '{}'), (1, 1, now() - interval '20 days', '{}');
            INSERT INTO fubd.recording_gap (instance, began_at, ended_at) VALUES
                ('a', now() - interval '41 days', now() - interval '40 days'),
                ('b', now() - interval '40 days', now() - interval '20 days');
            INSERT INTO fubd.process_run (instance, started_at, alive_at) SELECT instance, began_at, ended_at FROM fubd.recording_gap;
        """)
        assert await _run(pool) == [3600.0]
        assert await _ids(pool, "poll_run") == [2, 5, 6]
        assert await _ids(pool, "mode_change") == [2, 3]
        assert await _ids(pool, "correction") == [2]
        assert await _ids(pool, "recording_gap") == [2]
        assert [row["instance"] for row in await connection.fetch("SELECT instance FROM fubd.process_run")] == ["b"]
        maintenance = Maintenance(pool)
        # However short the time is, the mode in force stays, and so does the operation of the last week.
        assert await maintenance.prune_history(older_than_days=0.5, limit=10) == 1
        assert await _ids(pool, "poll_run") == [2, 6]
        assert await _ids(pool, "mode_change") == [3]
        assert await _ids(pool, "correction") == []


async def test_the_history_is_removed_in_batches(database: str) -> None:
    """Each batch has a limit, and the next one follows soon."""
    async with pooled(database) as pool, connected(database) as connection:
        await connection.execute(
            "INSERT INTO fubd.correction (change_id, person_id, corrected_at, was)"
            " SELECT n, n, now() - interval '40 days', '{}' FROM generate_series(1, 1001) n"
        )
        assert await _run(pool, rounds=2) == [5.0, 3600.0]
        assert await _ids(pool, "correction") == []


@pytest.mark.slow
async def test_the_copy_of_an_adopted_table_is_dropped_after_its_time(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not before, with one line in the log, once."""
    caplog.set_level(logging.INFO, "fubd.retention")
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=20)
        await adopt(pool)
        await connection.execute("UPDATE fubd.adoption SET adopted_at = now() - interval '29 days'")
        await _run(pool)
        assert await connection.fetchval(f"SELECT count(*) FROM {BACKUP}") == 20
        await connection.execute("UPDATE fubd.adoption SET adopted_at = now() - interval '31 days'")
        await _run(pool, rounds=2)
        assert await connection.fetchval("SELECT to_regclass($1) IS NULL", BACKUP)
        assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 20
    assert [record.getMessage() for record in caplog.records] == [
        f"Dropped {BACKUP}, the copy of the older table, 30 days after its adoption (FUBD_KEEP_ADOPTION_COPY_DAYS)"
    ]


@pytest.mark.slow
async def test_a_copy_that_others_use_stays_and_holds_nothing_up(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    """A view on it is not dropped; the rest is removed, one warning is logged, and the next try is minutes away."""
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=20)
        await adopt(pool)
        await connection.execute(f"CREATE VIEW mine AS SELECT * FROM {BACKUP}")
        await connection.execute("UPDATE fubd.adoption SET adopted_at = now() - interval '31 days'")
        await connection.execute(
            "INSERT INTO fubd.correction (change_id, person_id, corrected_at, was) VALUES (1, 1, now() - interval '31 days', '{}')"
        )
        assert await _run(pool, rounds=2) == [300.0, 300.0]
        assert await connection.fetchval("SELECT count(*) FROM mine") == 20
        assert await _ids(pool, "correction") == []
    assert len(caplog.records) == 1
