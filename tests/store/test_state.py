"""The state store in a real database: what the poller must find again after a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fubd.core.history import Stage
from fubd.core.pacing import Hysteresis
from fubd.core.stored_state import LastHeard, ModeRecord, UnreadPerson
from fubd.errors import Unavailable
from fubd.store import StatusReader
from tests.recorder import at, execute, read, refetch_event, running_recorder, webhook


async def test_the_hysteresis_of_the_mode_survives_a_restart(database: str) -> None:
    """The mode is read with all its hysteresis, as inserted and as updated later, and each change of mode stays a row of its own."""
    relapsed = Hysteresis(proven_at=at("10:05"), missed=True, heard_again_at=at("10:04"), relapses=3)
    failover = ModeRecord("failover", "polling found 1 change", 30.0, at("10:00"), Hysteresis(proven_at=at("10:00"), relapses=2))
    async with running_recorder(database) as recorder:
        assert await recorder.state.last_mode() is None
        await recorder.state.insert_mode(ModeRecord("steady", "webhooks arrive", 1800.0, at("09:00"), Hysteresis()), evidence={})
        await recorder.state.insert_mode(failover, evidence={"before": "steady"})
        assert await recorder.state.last_mode() == failover
        await recorder.state.update_mode("polling found 2 changes", 60.0, relapsed)
        assert await recorder.state.last_mode() == replace(
            failover, reason="polling found 2 changes", delay_seconds=60.0, hysteresis=relapsed
        )
        async with recorder.pool.connection() as connection:
            rows = await connection.fetch("SELECT mode, relapses FROM fubd.mode_change ORDER BY id")
        assert [tuple(row) for row in rows] == [("steady", 0), ("failover", 3)]


async def test_a_mode_of_an_older_version_has_no_hysteresis(database: str) -> None:
    """Where none was saved none is invented, so that the poller starts cautiously."""
    async with running_recorder(database) as recorder:
        await recorder.state.insert_mode(ModeRecord("failover", "polling found 1 change", 30.0, at("10:00")), evidence={})
        found = await recorder.state.last_mode()
        assert found is not None
        assert found.hysteresis is None


async def test_people_who_could_not_be_read_are_kept_until_they_are(database: str) -> None:
    """Each sighting puts the next attempt later; the first sighting stays."""
    async with running_recorder(database) as recorder:
        await recorder.state.add_unread([7, 8], at("10:00"))
        await recorder.state.add_unread([7], at("10:05"))
        await recorder.state.add_unread([7], at("10:10"))
        await recorder.state.drop_unread([8, 9])
        assert await recorder.state.unread_people() == [UnreadPerson(7, since=at("10:00"), not_before=at("10:14"))]


async def test_completeness_counts_each_person_once_a_round(database: str) -> None:
    """Somebody verified twice before the round closed, and somebody who could not be read at all, change neither ratio nor number."""
    async with running_recorder(database) as recorder:
        state = recorder.state
        await recorder.record(*(read("A", "08:00", "09:00", person=person) for person in (1, 2, 3)), read("A", "08:00", "09:30", person=4))
        await state.note_scrub(matched=0, mismatched=0)
        await recorder.record(*(read("A", "08:00", "10:00", person=person) for person in (1, 2, 3)))
        await state.note_scrub(matched=2, mismatched=1)
        await recorder.record(*(read("A", "08:00", "10:05", person=person) for person in (1, 2)))
        await state.note_scrub(matched=2, mismatched=0)
        await state.requeue([4])
        await state.note_scrub(matched=0, mismatched=0)
        async with recorder.pool.connection() as connection:
            row = await connection.fetchrow("SELECT last_people, round(last_ratio::numeric, 3) AS ratio FROM fubd.scrub")
    assert (row["last_people"], float(row["ratio"])) == (3, 0.667)


async def test_the_first_baseline_is_the_first_round_and_a_round_without_a_match_is_none(database: str) -> None:
    """Everyone who was verified and is not gone is as recorded then. What other reads verified in the meantime closes no round."""
    ratio = "SELECT last_people, last_ratio, round_began FROM fubd.scrub"
    async with running_recorder(database) as recorder:
        await recorder.state.advance_coverage(at("08:00"), sweep=True)
        await recorder.record(*(read("A", "08:00", "09:00", person=person) for person in (1, 2, 3)), webhook("e1", "A", "08:00", (4,)))
        await recorder.state.mark_deleted(3, at("09:00"))
        async with recorder.pool.connection() as connection:
            assert tuple(await connection.fetchrow(ratio))[:2] == (None, None)
            await recorder.state.advance_coverage(at("09:00"), sweep=True)
            assert tuple(await connection.fetchrow(ratio)) == (2, 1.0, None)
            await recorder.state.note_scrub(matched=0, mismatched=0)
            await recorder.record(*(read("A", "08:00", "10:00", person=person) for person in (1, 2)))
            await execute(database, "UPDATE fubd.person SET scrub_after = '2026-01-05 10:00+00'")
            await recorder.state.note_scrub(matched=0, mismatched=0)
            assert tuple(await connection.fetchrow(ratio)) == (2, 1.0, at("09:00"))


async def test_webhooks_missed_what_polling_alone_found_since_we_watch(database: str) -> None:
    """From the very instant on; not what was before, nor a move to Trash."""
    async with running_recorder(database) as recorder:
        await recorder.state.begin_sweep(at("10:12"), from_id=0)
        for person, stage, updated in ((1, "B", "10:12"), (2, "B", "10:11:59"), (3, "Trash", "10:20"), (4, "B", "10:20")):
            await recorder.record(read("A", "08:00", "09:00", person=person), read(stage, updated, "10:30", "10:00", person=person))
        await recorder.record(webhook("e1", "B", "10:19:59", (4,)))
        missed = await recorder.state.missed_changes(fub_now=at("11:00"), missed_after_seconds=120)
        assert missed == {row["id"] for row in await recorder.records(1)}


async def test_the_current_stage_of_a_person_is_that_of_the_last_row(database: str) -> None:
    """With the id that the stage had when it was entered; without a row it is that of the first read; a removed row counts no more."""
    async with running_recorder(database, ignored_stages=("hidden",)) as recorder:
        state = recorder.state
        await recorder.record(*(read("A", "08:00", "09:00", person=person, stage_id=1) for person in (1, 2, 3)))
        await recorder.record(webhook("e1", "B", "10:00", (1, 2)), read("B", "10:00", "10:05", "09:00", stage_id=2))
        await recorder.record(read("Hidden", "11:00", "11:05", "10:00", person=3, stage_id=3))
        # B was renamed, and a new stage has its name.
        await recorder.record(
            read("B then", "11:00", "11:05", "10:00", stage_id=2), read("B", "11:00", "11:05", "10:00", person=4, stage_id=9)
        )
        await execute(database, "DELETE FROM public.stage_changes WHERE person_id = '2'")
        # Of another writer, about a person who was never read.
        await execute(
            database,
            "INSERT INTO public.stage_changes (person_id, stage_to, changed_at, received_at, source)"
            " VALUES ('6', 'A', '2026-01-05 07:00+00', now(), 'polling')",
        )
        # An event names no id: that of a read of the same change counts before the one that was guessed for the event.
        await recorder.record(webhook("e7", "B", "10:00", (7,)), read("B", "10:00:03", "11:10", person=7, stage_id=9))
        current = await state.current_stages([1, 2, 3, 4, 5, 6, 7])
        assert {person_id: (here.stage.name, here.stage.id, here.since) for person_id, here in current.items()} == {
            1: ("B", 2, at("10:00")),
            2: ("A", 1, at("08:00")),
            3: ("A", 1, at("08:00")),
            4: ("B", 9, at("11:00")),
            6: ("A", 1, at("07:00")),
            7: ("B", 9, at("10:00")),
        }
        assert [person_id for person_id, here in current.items() if here.ignored] == [3]
        assert current[1].is_in(Stage("B then", 2))


async def test_a_source_was_last_heard_at_its_latest_delivery_or_complete_poll(database: str) -> None:
    """A delivery that names no stage counts as a webhook only; a poll that failed and a scrub count for nothing."""
    async with running_recorder(database) as recorder:
        for delivery in (webhook("e1", "B", "08:00"), webhook("e2", "C", "08:01"), refetch_event("e3", "peopleUpdated", "08:02")):
            await recorder.record(delivery)
        await execute(
            database,
            "UPDATE fubd.delivery SET received_at = timestamptz '2026-01-05 10:00+00' + right(event_id, 1)::int * interval '1 min'",
        )
        for kind, outcome, ended in (
            ("incremental", "ok", "11:00"),
            ("sweep", "ok", "11:05"),
            ("scrub", "ok", "11:10"),
            ("sweep", "failed", "11:15"),
        ):
            run = await recorder.state.start_run(kind, at("10:59"))
            await recorder.state.finish_run(run, outcome=outcome, finished_at=at(ended), people=1, calls=1, changes=0, note=None)
        assert await recorder.state.last_heard() == LastHeard(at("10:03"), at("10:02"), at("11:05"))


async def test_a_table_that_a_restore_has_emptied_is_an_outage(database: str) -> None:
    """Between the steps of a restore the one row of a table is gone: what needs it tries again, and says which table that is."""
    async with running_recorder(database) as recorder:
        status = StatusReader(recorder.pool)
        await execute(database, "DELETE FROM fubd.coverage")
        for needs_coverage in (
            recorder.state.coverage(),
            recorder.state.advance_coverage(at("10:00"), sweep=True),
            status.summary(),
            status.overview(blind_since=at("09:00"), now=at("10:00"), changes=1),
        ):
            with pytest.raises(Unavailable, match=r"fubd\.coverage.* is empty in the database at .*restore"):
                await needs_coverage
