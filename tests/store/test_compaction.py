"""Reads that say nothing any more are removed from the database, a few people at a time, without any other row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from random import Random

from fubd.core.explanation import explain
from fubd.core.observation import Channel, Delivery, Reading, Snapshot, StageEvent
from fubd.core.reconcile import Claim
from fubd.store import Maintenance, Pool
from fubd.store.people import PeopleReader
from tests.core.test_compaction import EDGE, WINDOW, instant, lives
from tests.recorder import running_recorder


def _as_received(claim: Claim, person: int) -> Delivery | Snapshot:
    """Return what is received when a source reports the claim of this person."""
    if claim.is_entry:
        content = StageEvent(f"{claim.event_id}.{person}", claim.at, claim.stage.name, (person,))
        return Delivery(f"{claim.event_id}.{person}".encode(), b"{}", content.event_id, "peopleStageUpdated", content, None)
    assert claim.read_at is not None
    reading = Reading(person, claim.stage.name, claim.stage.id, claim.created, claim.at)
    return Snapshot((reading,), claim.read_at, claim.watermark, Channel.POLLING)


async def _report(pool: Pool, person: int) -> list[tuple[object, ...]]:
    """Return what `explain` shows of a person's rows, without the evidence."""
    evidence = await PeopleReader(pool).evidence(person)
    assert evidence is not None
    report = explain(evidence, window=WINDOW)
    return [
        (
            entry.change.stage_from,
            entry.change.stage,
            entry.change.changed_at,
            entry.change.changed_after,
            entry.row.source,
            entry.row.confirmed_by,
        )
        for entry in report.entries
        if entry.change is not None and entry.row is not None
    ]


async def test_superseded_reads_are_removed_and_later_evidence_makes_the_same_rows(database: str) -> None:
    """Twins are reported the same; one of each pair is compacted. Afterwards, and after what comes later, their rows and explain agree."""
    stories = {person: lives(Random(person), end=9_000) for person in range(1, 9)}
    settled_days = (datetime.now(UTC) - instant(EDGE)).total_seconds() / 86_400
    async with running_recorder(database) as recorder:

        async def record(part: int, people: Sequence[int]) -> None:
            for claims in zip_longest(*(stories[person % 100][part] for person in people)):
                reported = [_as_received(claim, person) for person, claim in zip(people, claims, strict=True) if claim is not None]
                await recorder.record_concurrently(*reported)

        async def assert_twins_agree() -> None:
            for person in stories:
                one, other = [await _report(recorder.pool, twin) for twin in (person, person + 100)]
                assert one == other
                assert await recorder.rows(person) == await recorder.rows(person + 100)

        twins = [*stories, *(person + 100 for person in stories)]
        await record(0, twins)
        async with recorder.pool.connection() as connection:
            # Of the twins with the lower ids everything came long ago.
            age = timedelta(days=settled_days + 1)
            await connection.execute("UPDATE fubd.claim SET received_at = received_at - $1::interval WHERE person_id < 100", age)
            await connection.execute(
                "UPDATE public.stage_changes SET received_at = received_at - $1::interval, confirmed_at = confirmed_at - $1::interval"
                " WHERE person_id::bigint < 100",
                age,
            )
        compacted = await Maintenance(recorder.pool).compact(after=0, settled_days=settled_days, window=WINDOW)
        assert compacted.removed > 10
        assert compacted.last_person == 0
        async with recorder.pool.reading() as connection:
            kept = dict(await connection.fetch("SELECT person_id > 100, count(*) FROM fubd.claim GROUP BY 1"))
        assert kept[True] - kept[False] == compacted.removed
        assert (await Maintenance(recorder.pool).compact(after=0, settled_days=settled_days, window=WINDOW)).removed == 0
        await assert_twins_agree()
        await record(1, twins)
        await assert_twins_agree()
