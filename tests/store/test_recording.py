"""The recording transaction: it locks its people, deletes merged rows, keeps newer facts, and steps aside for another holder of a lock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fubd.core.history import Stage
from fubd.core.reconcile import Claim, ClaimKind
from fubd.core.vocabulary import DeliveryOutcome
from fubd.ports import Committed
from fubd.store import ChangeReader, ChangeStore
from tests.recorder import Recorder, at, read, refetch_event, running_recorder, webhook
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def _entry(stage: str, when: str) -> Claim:
    return Claim(
        person_id=1, kind=ClaimKind.ENTRY, channel="webhook", at=at(when), stage=Stage(stage), event_id=stage, received_at=at(when)
    )


async def test_a_second_transaction_about_a_person_waits_for_the_first(database: str) -> None:
    """It would otherwise derive its rows from a history that lacks what the first adds."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"))
        first, second = (ChangeStore(recorder.pool, instance=name, columns={}) for name in ("first", "second"))
        async with first.recording() as transaction:
            await transaction.insert_claims([], [_entry("B", "10:00")], {1}, {})
            waiting = asyncio.ensure_future(_claims_seen(second))
            await eventually(lambda: _is_waiting(recorder))
            assert not waiting.done()
        assert await waiting == {"A", "B", "C"}


async def _claims_seen(store: ChangeStore) -> set[str]:
    async with store.recording() as transaction:
        evidence = await transaction.insert_claims([], [_entry("C", "10:05")], {1}, {1: at("08:00") - timedelta(hours=1)})
        (history,) = evidence.histories
        return {claim.stage.name for claim in history.claims}


async def _is_waiting(recorder: Recorder) -> bool:
    async with recorder.pool.connection() as connection:
        return int(await connection.fetchval(_WAITING)) > 0


async def test_a_row_that_is_merged_is_deleted_and_reported_as_removed(database: str) -> None:
    """A webhook about a stage that an earlier read shows to have held already: the row goes, and readers are given its id."""
    commits: list[Committed] = []
    async with running_recorder(database, on_commit=commits.append) as recorder:
        await recorder.record(webhook("e1", "B", "10:15"))
        (row,) = await recorder.records()
        await recorder.record(read("B", "10:00", "10:01"))
        assert await recorder.records() == []
        assert list(commits[-1].removed) == [row["id"]]
        changes = ChangeReader(recorder.pool)
        assert [row_id for _, row_id in await changes.corrections(0, 10)] == [row["id"]]
        assert await changes.by_ids([row["id"]]) == []


async def test_what_is_known_draws_no_id_for_a_row(database: str) -> None:
    """Polls read the same people again and again, and deliveries are repeated: the ids of rows have no gap for each."""
    async with running_recorder(database) as recorder:
        seen = [read("A", "08:00", "09:00", person=person) for person in range(1, 6)]
        await recorder.record(*seen, webhook("e1", "B", "10:00"))
        await recorder.record(*(read("A", "08:00", "09:30", person=person) for person in range(1, 6)), *seen, webhook("e1", "B", "10:00"))
        await recorder.record(webhook("e2", "C", "11:00"))
        assert [row["id"] for row in await recorder.records()] == [6, 7]


async def test_an_older_read_changes_no_newer_fact(database: str) -> None:
    """Pages may arrive out of order: the person stays as last read."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("B", "10:00", "10:30", first_name="Grace"), read("A", "09:00", "11:00", first_name="Ada"))
        async with recorder.pool.reading() as connection:
            person = await connection.fetchrow("SELECT stage, first_name, verified_at FROM fubd.person WHERE id = 1")
        assert tuple(person) == ("B", "Grace", at("10:30"))


async def test_a_name_that_another_stage_takes_over_keeps_its_id_until_that_is_first_seen(database: str) -> None:
    """Also where one transaction records several reads of the new id: an event from before the first is of the old stage."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("B", "08:00", "09:00", stage_id=1), read("A", "08:00", "09:00", person=2, stage_id=3))
        await recorder.record_concurrently(
            read("B", "10:00", "10:05", person=3, stage_id=2), read("B", "10:00", "10:20", person=4, stage_id=2)
        )
        await recorder.record(webhook("e1", "B", "10:04:59", (2,)), webhook("e2", "B", "10:05", (5,)))
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT until FROM fubd.former_stage WHERE (name, id) = ('B', 1)") == at("10:05")
            claims = await connection.fetch("SELECT person_id, stage_id FROM fubd.claim WHERE kind = 'entry' ORDER BY person_id")
        assert [tuple(claim) for claim in claims] == [(2, 1), (5, 2)]


async def test_a_state_read_again_holds_for_longer_in_each_direction(database: str) -> None:
    """It is one claim with the latest and the first read, and the lowest watermark, of which unknown is the lowest."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), read("B", "10:12", "10:30", "10:10"))
        for read_at, watermark, expected in (
            ("10:40", "10:11", (at("10:40"), at("10:30"), at("10:10"))),
            ("10:20", "10:11", (at("10:40"), at("10:20"), at("10:10"))),
            ("10:30", "10:05", (at("10:40"), at("10:20"), at("10:05"))),
            ("10:30", None, (at("10:40"), at("10:20"), None)),
            ("10:30", "10:00", (at("10:40"), at("10:20"), None)),
        ):
            await recorder.record(read("B", "10:12", read_at, watermark))
            async with recorder.pool.reading() as connection:
                claim = await connection.fetchrow("SELECT read_at, first_read_at, covered FROM fubd.claim WHERE stage = 'B'")
            assert tuple(claim) == expected


async def test_a_read_fills_the_rows_made_since_it_was_asked_for_but_none_of_another_writer(database: str) -> None:
    """The scrub goes on to the next people by it, and by nothing that was read of others."""
    async with running_recorder(database) as recorder:
        await recorder.record(
            read("A", "08:00", "09:00", person=2), refetch_event("e0", "peopleUpdated", "09:30"), webhook("e1", "B", "10:00")
        )
        async with recorder.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO stage_changes (person_id, stage_to, changed_at, received_at, source)"
                " VALUES ('1', 'C', '2026-01-05 10:10+00', now(), 'polling')"
            )
        await recorder.record(read("C", "10:10", "10:30"))
        assert [(row["stage_to"], row["first_name"]) for row in await recorder.records()] == [("B", "Ada"), ("C", None)]
        await recorder.record(read("A", "07:00", "10:40"))
        async with recorder.pool.reading() as connection:
            people = await connection.fetch("SELECT scrub_after FROM fubd.person ORDER BY id")
        assert [person["scrub_after"] for person in people] == [at("10:40"), at("09:00")]


async def test_a_delivery_counts_as_stored_by_the_process_that_stored_it(database: str) -> None:
    """From an instant on: after a lost reply to COMMIT it is asked which deliveries of this process are there."""
    async with running_recorder(database) as recorder:
        mine, before, earlier = webhook("e1", "B", "10:00"), datetime.now(UTC), webhook("e2", "C", "10:01")
        await recorder.record(mine)
        async with recorder.pool.connection() as connection:
            await connection.execute("UPDATE fubd.delivery SET received_at = $1", before)
        await recorder.record(earlier)
        async with recorder.pool.connection() as connection:
            await connection.execute("UPDATE fubd.delivery SET received_at = $1 WHERE event_id = 'e2'", before - timedelta(seconds=1))
        for instance, keys, found in (
            ("test", [mine.key, earlier.key], {mine.key}),
            ("test", [earlier.key], set[bytes]()),
            ("other", [mine.key, earlier.key], set[bytes]()),
        ):
            store = ChangeStore(recorder.pool, instance=instance, columns={})
            assert await store.committed_by_this_process(keys, before) == found


@pytest.mark.slow
async def test_a_person_locked_by_another_program_delays_no_other(database: str) -> None:
    """The batch steps aside after the lock's time limit; what is about others is recorded while that person waits."""
    async with running_recorder(database) as recorder:
        await recorder.record(webhook("e0", "A", "09:00", (7,)))
        async with recorder.pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT FROM fubd.person WHERE id = 7 FOR UPDATE")
            held = asyncio.ensure_future(recorder.record(webhook("e7", "B", "10:00", (7,))))
            await eventually(lambda: _is_waiting(recorder))
            async with asyncio.timeout(30.0):
                for person in range(1, 6):
                    assert await recorder.record(webhook(f"e{person}", "B", "10:00", (person,))) == [DeliveryOutcome.ACCEPTED]
            assert not held.done()
        async with asyncio.timeout(30.0):
            assert await held == [DeliveryOutcome.ACCEPTED]


@pytest.mark.slow
async def test_a_bulk_edit_is_recorded_in_a_few_transactions(database: str) -> None:
    """Neither one transaction so long that the server ends it, nor a round trip for each person; readings in pages share transactions.

    Slow transactions get smaller. To this clock none is, however busy the machine.
    """
    async with Proxy(database) as proxy, running_recorder(proxy.dsn, clock_speed=0.001) as recorder:
        await recorder.record(webhook("e0", "A", "09:00", (1,)))
        before = proxy.commits
        await recorder.record(webhook("e1", "B", "10:00", tuple(range(1, 10_001))))
        assert 4 <= proxy.commits - before <= 16
        before = proxy.commits
        (one,) = read("C", "11:00", "11:30").readings
        pages = [
            replace(read("C", "11:00", "11:30"), readings=tuple(replace(one, person_id=first + number) for number in range(100)))
            for first in range(1, 2_001, 100)
        ]
        await recorder.record_concurrently(*pages)
        assert proxy.commits - before <= 15
