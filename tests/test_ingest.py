"""Ingest on a real database: examples in any order, in batches, repeated, and by two instances."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from fubd.core.observation import Channel, Delivery, Snapshot, StageEvent
from fubd.core.pacing import Hysteresis
from fubd.core.vocabulary import DeliveryOutcome
from fubd.ports import SnapshotResult
from fubd.store import ChangeReader, PeopleReader
from tests.recorder import Recorder, Row, at, execute, read, refetch_event, running_recorder, webhook
from tests.support.proxy import Proxy

pytestmark = pytest.mark.slow

KNOWN_A = read("A", "08:00", "09:00")

EXAMPLES: dict[str, tuple[list[Delivery | Snapshot], list[Row]]] = {
    "webhook": ([KNOWN_A, webhook("e1", "B", "10:00")], [("A", "B", at("10:00"), None)]),
    "webhook then poll": (
        [KNOWN_A, webhook("e1", "B", "10:00:00"), read("B", "10:00:01", "10:30", "10:00")],
        [("A", "B", at("10:00:00"), None)],
    ),
    "poll alone": ([KNOWN_A, read("B", "10:12", "10:30", "10:00")], [("A", "B", at("10:12"), at("10:00"))]),
    "poll then retry": (
        [KNOWN_A, read("B", "10:12", "10:30", "10:00"), webhook("e1", "B", "10:07")],
        [("A", "B", at("10:07"), None)],
    ),
    "poll then two retries": (
        [KNOWN_A, read("B", "10:12", "10:30", "10:00"), webhook("e1", "B", "10:07"), webhook("e2", "C", "10:03")],
        [("A", "C", at("10:03"), None), ("C", "B", at("10:07"), None)],
    ),
    "there and back and there": (
        [KNOWN_A, webhook("e1", "B", "10:00:00"), webhook("e2", "A", "10:00:04"), webhook("e3", "B", "10:00:09")],
        [("A", "B", at("10:00:00"), None), ("B", "A", at("10:00:04"), None), ("A", "B", at("10:00:09"), None)],
    ),
    "older page": (
        [KNOWN_A, webhook("e1", "B", "10:00:30"), read("A", "08:00", "10:00:20", "09:58")],
        [("A", "B", at("10:00:30"), None)],
    ),
    "poll then three webhooks": (
        [
            KNOWN_A,
            read("B", "10:12", "10:30", "10:00"),
            webhook("e1", "B", "10:05"),
            webhook("e2", "C", "10:08"),
            webhook("e3", "B", "10:12"),
        ],
        [("A", "B", at("10:05"), None), ("B", "C", at("10:08"), None), ("C", "B", at("10:12"), None)],
    ),
    "a read that merely agreed": (
        [KNOWN_A, webhook("e1", "B", "10:05"), read("B", "10:12", "10:15", "10:00"), webhook("e2", "A", "10:10")],
        [("A", "B", at("10:05"), None), ("B", "A", at("10:10"), None), ("A", "B", at("10:12"), at("10:10"))],
    ),
    "first sight then late retry": (
        [read("A", "10:03", "10:05"), webhook("e1", "B", "10:00")],
        [(None, "B", at("10:00"), None), ("B", "A", at("10:03"), at("10:00"))],
    ),
    "two events of one change": ([KNOWN_A, webhook("e1", "B", "10:00"), webhook("e2", "B", "10:00")], [("A", "B", at("10:00"), None)]),
    "renamed stage": ([read("B", "08:00", "09:00", stage_id=5), read("Better", "10:00", "10:30", "09:30", stage_id=5)], []),
    "first sight": ([KNOWN_A], []),
}


@pytest.mark.parametrize(("evidence", "expected"), EXAMPLES.values(), ids=EXAMPLES.keys())
async def test_examples_hold_in_any_order_and_batching(
    fubd_database: str, evidence: list[Delivery | Snapshot], expected: list[Row]
) -> None:
    """In any order of the evidence, one by one or in one transaction, and recorded twice, the rows are the same."""
    async with running_recorder(fubd_database) as recorder:
        for person, order in enumerate(itertools.permutations(evidence), start=10):
            moved = [about(person, item) for item in order]
            if person % 2:
                await recorder.record_concurrently(*moved)
            else:
                await recorder.record(*moved)
            await recorder.record(*moved)
            assert await recorder.rows(person) == expected, [_short(item) for item in order]


def about(person: int, item: Delivery | Snapshot) -> Delivery | Snapshot:
    """Return the same evidence about another person."""
    if isinstance(item, Snapshot):
        (reading,) = item.readings
        day = {"id": person, "stage": reading.stage}
        moved = type(reading)(person, reading.stage, reading.stage_id, reading.created, reading.updated, "Ada", "Example", payload=day)
        return Snapshot((moved,), item.read_at, item.watermark, item.channel)
    content = item.content
    assert isinstance(content, StageEvent)
    return webhook(f"{content.event_id}-{person}", content.stage, f"{content.at:%H:%M:%S}", (person,))


def _short(item: Delivery | Snapshot) -> str:
    return item.readings[0].stage if isinstance(item, Snapshot) else str(item.event_id)


async def test_a_stage_keeps_its_id_when_another_stage_gets_its_name(fubd_database: str) -> None:
    """The people of the renamed stage make no row when they are edited, though its old name belongs to another stage by then."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(
            read("A", "08:00", "09:00"),
            webhook("e1", "Nurture", "10:00"),
            read("Nurture", "10:00", "10:05", stage_id=5),
            read("Nurture", "10:30", "10:35", stage_id=9, person=2),
            read("Nurture (old)", "11:00", "11:05", "10:50", stage_id=5),
        )
        assert [row[:2] for row in await recorder.rows()] == [("A", "Nurture")]


async def test_a_row_has_its_first_source_and_its_confirmation(fubd_database: str) -> None:
    """Polling first and a webhook later, and the other way round; the row keeps its id and its first source."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(KNOWN_A, read("B", "10:12", "10:30", "10:00"))
        (before,) = await recorder.records()
        await recorder.record(webhook("e1", "B", "10:07"))
        (after,) = await recorder.records()
        assert (before["id"], before["source"], before["confirmed_by"]) == (after["id"], "polling", None)
        assert (after["source"], after["confirmed_by"], after["event_id"]) == ("polling", "webhook", "e1")
        assert after["confirmed_at"] is not None
        await recorder.record(webhook("e2", "C", "11:00"), read("C", "11:00:01", "11:30", "11:00"))
        last = (await recorder.records())[-1]
        assert (last["source"], last["confirmed_by"]) == ("webhook", "polling")


async def test_a_late_webhook_is_inserted_between_two_rows_that_keep_their_ids(fubd_database: str) -> None:
    """The stage_from of the next row is corrected, the correction is stored, and the healed counter grows."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(KNOWN_A, webhook("e1", "B", "10:00"), webhook("e3", "D", "10:20"))
        ids = [row["id"] for row in await recorder.records()]
        await recorder.record(webhook("e2", "C", "10:10"))
        rows = await recorder.records()
        assert [(row["stage_from"], row["stage_to"]) for row in rows] == [("A", "B"), ("B", "C"), ("C", "D")]
        assert [rows[0]["id"], rows[2]["id"]] == ids
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT was->>'stage_from' FROM fubd.correction WHERE change_id = $1", ids[1]) == "B"
        assert recorder.metrics.registry.get_sample_value("fubd_healed_total") == 1


async def test_a_redelivery_is_a_duplicate_without_a_refetch(fubd_database: str) -> None:
    """Five times the same delivery: one accepted, four duplicates, one row, one refetch."""
    async with running_recorder(fubd_database) as recorder:
        first = webhook("e1", "B", "10:00")
        assert await recorder.record(first, first, first) == [
            DeliveryOutcome.ACCEPTED,
            DeliveryOutcome.DUPLICATE,
            DeliveryOutcome.DUPLICATE,
        ]
        assert sorted(map(str, await recorder.record_concurrently(first, first))) == ["duplicate", "duplicate"]
        assert len(await recorder.records()) == 1
        assert [pending.person_id for pending in await recorder.state.due_refetches(10)] == [1]


async def test_a_bulk_edit_of_ten_thousand_is_ten_thousand_rows(fubd_database: str) -> None:
    """One delivery with 10,000 ids is recorded completely, each row with the evidence of its own person only."""
    async with running_recorder(fubd_database) as recorder:
        assert await recorder.record(webhook("e1", "B", "10:00", tuple(range(1, 10_001)))) == [DeliveryOutcome.ACCEPTED]
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 10_000
            assert await connection.fetchval("SELECT max(length(raw_payload::text)) FROM public.stage_changes") < 300


async def test_a_read_fills_the_names_that_a_webhook_lacks(fubd_database: str) -> None:
    """A row from a webhook gets its names from the following read, which answers the refetch; followers of the stream are sent it again."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(webhook("e1", "B", "10:00:00"))
        (bare,) = await recorder.records()
        assert bare["first_name"] is None
        await recorder.record(read("B", "10:00:00", "10:00:05", channel=Channel.WEBHOOK, first_name="Grace"))
        (filled,) = await recorder.records()
        assert (filled["first_name"], filled["last_name"]) == ("Grace", "Example")
        assert [row_id for _, row_id in await ChangeReader(recorder.pool).corrections(0, 10)] == [filled["id"]]
        evidence = await PeopleReader(recorder.pool).evidence(1)
        assert evidence is not None
        assert evidence.corrections == []
        await recorder.record(webhook("e1", "B", "10:00:00"), refetch_event("e2", "peopleUpdated", "10:00:06"))
        await recorder.record(read("B", "10:00:00", "10:00:07", channel=Channel.WEBHOOK, first_name="Grace"))
        assert len(await ChangeReader(recorder.pool).corrections(0, 10)) == 1
        assert await recorder.state.due_refetches(10) == []


async def test_a_deletion_reported_by_a_webhook_stays_until_it_is_confirmed(fubd_database: str) -> None:
    """The refetch stays marked as a deletion, whatever other events of the person arrive, until a read by id confirms it."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(
            refetch_event("e1", "peopleUpdated", "10:00:10"),
            refetch_event("e2", "peopleDeleted", "10:00:20"),
            refetch_event("e3", "peopleUpdated", "10:00:30"),
        )
        (pending,) = await recorder.state.due_refetches(10)
        assert (pending.deleted, pending.since) == (True, at("10:00:30"))


async def test_custom_columns_are_filled_from_the_last_read_and_then_from_the_next(fubd_database: str) -> None:
    """A new row has the values of the last read, and those of the read after the change once it was made."""
    async with running_recorder(fubd_database, columns={"campaign_id": "customCampaignID"}) as recorder:
        known = _with_field(KNOWN_A, "Spring")
        await recorder.record(known, webhook("e1", "B", "10:00:00"))
        assert [(row["campaign_id"], row["first_name"]) for row in await recorder.records()] == [("Spring", "Ada")]
        await recorder.record(_with_field(read("B", "10:00:00", "10:00:05", channel=Channel.WEBHOOK), "Summer"))
        assert [row["campaign_id"] for row in await recorder.records()] == ["Summer"]
        await recorder.record(_with_field(read("C", "11:00:00", "11:00:05", "10:30"), "Autumn"))
        assert [row["campaign_id"] for row in await recorder.records()] == ["Summer", "Autumn"]


def _with_field(snapshot: Snapshot, value: str) -> Snapshot:
    (reading,) = snapshot.readings
    return replace(snapshot, readings=(replace(reading, fields={"customCampaignID": value}),))


async def test_a_read_before_the_event_does_not_answer_its_refetch(fubd_database: str) -> None:
    """The person is read again when the read is older than the event."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(refetch_event("e1", "peopleUpdated", "10:00:10"), read("A", "09:00", "10:00:05", channel=Channel.WEBHOOK))
        assert [pending.person_id for pending in await recorder.state.due_refetches(10)] == [1]


async def test_moves_into_an_ignored_stage_make_no_row(fubd_database: str) -> None:
    """The claim is stored, and the chain continues as if the stage did not exist."""
    async with running_recorder(fubd_database, ignored_stages=("Contact Upload",)) as recorder:
        await recorder.record(KNOWN_A, webhook("e1", "Contact Upload", "10:00"), webhook("e2", "B", "10:05"))
        assert await recorder.rows() == [("A", "B", at("10:05"), None)]


async def test_a_stage_in_another_case_is_the_same_stage(fubd_database: str) -> None:
    """The row has the name that people have; a stage of the settings is meant in any case; the poll makes no second row."""
    async with running_recorder(fubd_database, ignored_stages=("contact upload",)) as recorder:
        await recorder.record(read("A", "08:00", "09:00", stage_id=1), read("Offers Made", "08:00", "09:00", person=2, stage_id=2))
        await recorder.record(
            webhook("e1", "OFFERS MADE", "10:00"), webhook("e1", "offers made", "10:00"), webhook("e2", "Contact Upload", "10:05")
        )
        await recorder.record(read("Offers Made", "10:00", "10:30", stage_id=2))
        assert await recorder.rows() == [("A", "Offers Made", at("10:00"), None)]


async def test_the_first_stage_of_a_new_person_is_a_change(fubd_database: str) -> None:
    """A person created after the first baseline started enters a stage from null; the first stage of an older person is no change."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.state.begin_sweep(at("09:00"), from_id=0)
        found = await recorder.record(read("Lead", "10:02", "10:03", "10:00", created="10:00"))
        await recorder.record(read("Lead", "10:02", "10:03", "10:00", person=2, created="08:00"))
        assert await recorder.rows(1) == [(None, "Lead", at("10:00"), None)]
        assert await recorder.rows(2) == []
        assert found == [SnapshotResult(changes=1, mismatched=frozenset(), first_seen=1)]


async def test_a_change_found_by_polling_counts_as_missed_once_it_is_old_enough(fubd_database: str) -> None:
    """It is missed when no webhook has reported it until then; it is counted once."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(KNOWN_A, read("B", "10:12", "10:30", "10:00"))
        await recorder.record(read("A", "08:00", "09:00", person=2), read("B", "10:12", "10:30", "10:00", person=2))
        await recorder.record(webhook("e1", "B", "10:11", (2,)))
        assert await recorder.state.missed_changes(fub_now=at("10:13"), missed_after_seconds=120) == frozenset()
        missed = await recorder.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120)
        assert len(missed) == 1
        assert await recorder.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120) == missed
        await recorder.state.update_mode("as it was", 30.0, Hysteresis(), missed=missed)
        assert await recorder.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120) == frozenset()


async def test_a_move_to_trash_found_by_polling_is_no_miss(fubd_database: str) -> None:
    """A merge moves up to ten people to Trash without a stage webhook: that proves nothing against webhooks."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(KNOWN_A, read("Trash", "10:12", "10:13", "10:00"))
        assert await recorder.rows() == [("A", "Trash", at("10:12"), at("10:00"))]
        assert await recorder.state.missed_changes(fub_now=at("11:00"), missed_after_seconds=120) == frozenset()


async def test_reading_a_found_change_again_does_not_narrow_its_bounds(fubd_database: str) -> None:
    """Coverage at a later read has no effect: the earlier read had shown the change already."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(KNOWN_A, read("B", "10:12", "10:13", "10:00"), read("B", "10:12", "10:14", "10:10"))
        assert await recorder.rows() == [("A", "B", at("10:12"), at("10:00"))]
        await recorder.record_concurrently(read("A", "08:00", "09:00", person=2))
        await recorder.record_concurrently(read("B", "10:12", "10:14", "10:10", person=2), read("B", "10:12", "10:13", "10:00", person=2))
        assert await recorder.rows(2) == [("A", "B", at("10:12"), at("10:00"))]


async def _covered_since(recorder: Recorder, began: str) -> None:
    await recorder.state.begin_sweep(at(began), from_id=0)
    await recorder.state.advance_coverage(at(began), sweep=True)


NEWCOMER = read("Lead", "10:00", "10:00:20", "09:58", created="10:00")
ANNOUNCED = refetch_event("e1", "peopleCreated", "10:00:00")
MOVED_ON = read("Nurture", "10:00:22", "10:00:25", "09:58", created="10:00", channel=Channel.WEBHOOK)
READ_FOR_IT = replace(NEWCOMER, read_at=at("10:00:25"), channel=Channel.WEBHOOK)


@pytest.mark.parametrize(
    ("evidence", "source", "confirmed_by", "missed"),
    [
        ((ANNOUNCED, NEWCOMER), "webhook", "polling", 0),
        ((ANNOUNCED, READ_FOR_IT, NEWCOMER), "webhook", "polling", 0),
        ((NEWCOMER, ANNOUNCED, READ_FOR_IT), "polling", "webhook", 0),
        ((NEWCOMER, webhook("e2", "Nurture", "10:00:22"), ANNOUNCED, MOVED_ON), "polling", None, 0),
        ((NEWCOMER,), "polling", None, 1),
        ((NEWCOMER, webhook("e2", "Nurture", "10:00:22"), MOVED_ON), "polling", None, 1),
    ],
    ids=["a poll reads them first", "read for it", "the webhook comes late", "and they moved on", "no webhook", "another webhook"],
)
async def test_a_new_person_reported_by_a_webhook_was_not_missed(
    fubd_database: str, evidence: tuple[Delivery | Snapshot, ...], source: str, confirmed_by: str | None, missed: int
) -> None:
    """A peopleCreated webhook reports the person, whichever source reads them first; without one, webhooks missed the person."""
    async with running_recorder(fubd_database) as recorder:
        await _covered_since(recorder, "09:00")
        await recorder.record(*evidence)
        (row, *_) = await recorder.records()
        assert (row["stage_from"], row["stage_to"], row["source"], row["confirmed_by"]) == (None, "Lead", source, confirmed_by)
        assert len(await recorder.state.missed_changes(fub_now=at("11:00"), missed_after_seconds=120.0)) == missed


async def test_a_new_person_reported_and_read_at_once_was_not_missed(fubd_database: str) -> None:
    """A poll and the peopleCreated webhook in one transaction: the webhook reported the person."""
    async with running_recorder(fubd_database) as recorder:
        await _covered_since(recorder, "09:00")
        await recorder.record_concurrently(NEWCOMER, ANNOUNCED)
        (row,) = await recorder.records()
        assert (row["source"], row["confirmed_by"]) == ("webhook", "polling")
        assert await recorder.state.missed_changes(fub_now=at("11:00"), missed_after_seconds=120.0) == frozenset()


async def test_a_change_found_by_a_refetch_was_not_reported_by_a_webhook(fubd_database: str) -> None:
    """Its source is polling, and it may count as missed; the source of a new person reported by a webhook is the webhook."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.state.begin_sweep(at("09:00"), from_id=0)
        await recorder.record(KNOWN_A, read("B", "10:12", "10:13", "10:00", channel=Channel.WEBHOOK))
        assert [(row["source"], row["confirmed_by"]) for row in await recorder.records()] == [("polling", None)]
        missed = await recorder.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120)
        assert len(missed) == 1
        await recorder.record(read("Lead", "10:02", "10:03", "10:00", person=2, created="10:02", channel=Channel.WEBHOOK))
        assert [(row["source"], row["confirmed_by"]) for row in await recorder.records(2)] == [("webhook", None)]
        assert await recorder.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120) == missed


async def test_two_instances_record_the_same_evidence_once(fubd_database: str) -> None:
    """During a deploy both instances receive and read everything: the rows are those of one instance."""
    rng = random.Random(11)
    evidence: list[Delivery | Snapshot] = []
    for person in range(1, 41):
        evidence.append(read("A", "08:00", "09:00", person=person))
        for step, stage in enumerate(("B", "C", "A", "B")):
            evidence.append(webhook(f"e{person}-{step}", stage, f"10:{step:02}:00", (person,)))
        evidence.append(read("B", "10:03:00", "10:30", "10:00", person=person))
    async with running_recorder(fubd_database, instance="one") as one, running_recorder(fubd_database, instance="two") as two:
        orders = [rng.sample(evidence, len(evidence)) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for recorder, order in zip((one, two), orders, strict=True):
                group.create_task(_record_in_batches(recorder, order, random.Random(len(order))))
        for person in range(1, 41):
            assert [row[1] for row in await one.rows(person)] == ["B", "C", "A", "B"]
            assert [row[2] for row in await one.rows(person)] == [at("10:00") + timedelta(minutes=step) for step in range(4)]


async def _record_in_batches(recorder: Recorder, order: list[Delivery | Snapshot], rng: random.Random) -> None:
    while order:
        size = rng.randrange(1, 20)
        await recorder.record_concurrently(*order[:size])
        del order[:size]


async def test_values_too_long_for_an_index_are_quarantined(fubd_database: str) -> None:
    """A stage and an event id of the greatest accepted length can exceed an index entry; the rest of the batch is recorded."""
    rng = random.Random(5)
    endless = "".join(chr(rng.randrange(0x20000, 0x2A6D0)) for _ in range(700))
    async with running_recorder(fubd_database) as recorder:
        receipts = await recorder.record_concurrently(
            webhook("e1", "B", "10:00"), webhook(endless[:200], endless[200:], "10:01", (2,)), webhook("e3", "B", "10:02", (3,))
        )
        assert receipts == [DeliveryOutcome.ACCEPTED, DeliveryOutcome.QUARANTINED, DeliveryOutcome.ACCEPTED]
        assert [len(await recorder.records(person)) for person in (1, 2, 3)] == [1, 0, 1]


async def test_a_batch_that_takes_too_long_is_recorded_in_parts(database: str, fubd_database: str) -> None:
    """When the database cancels statements on many rows as too slow, each retry has fewer rows."""
    await execute(
        database,
        "CREATE FUNCTION too_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT count(*) FROM inserted) > 30 THEN RAISE EXCEPTION 'too slow' USING ERRCODE = 'query_canceled'; END IF; RETURN NULL;"
        " END $$;"
        " CREATE TRIGGER too_slow AFTER INSERT ON public.stage_changes REFERENCING NEW TABLE AS inserted"
        " FOR EACH STATEMENT EXECUTE FUNCTION too_slow()",
    )
    async with running_recorder(fubd_database) as recorder:
        async with asyncio.timeout(60.0):
            receipts = await recorder.record_concurrently(*(webhook(f"e{person}", "B", "10:00", (person,)) for person in range(1, 301)))
        assert set(receipts) == {DeliveryOutcome.ACCEPTED}
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 300


CUTS = 40


async def test_a_connection_cut_at_any_byte_loses_nothing(database: str) -> None:
    """Before, within and after each message of a transaction and of the next log-in: recorded once, and answered as new."""
    async with Proxy(database) as proxy, running_recorder(proxy.dsn) as recorder:
        await recorder.record(webhook("warm-1", "B", "10:00", (100_001,)), webhook("warm-2", "B", "10:00", (100_002,)))
        before = proxy.bytes
        await recorder.record(webhook("whole", "B", "10:00", (100_003,)))
        # After its end, the next transaction is cut, or the log-in before it.
        step = 2 * (proxy.bytes - before) / CUTS
        for number in range(1, CUTS + 1):
            proxy.cut_after_bytes = int((number - 1) * step)
            assert await recorder.record(webhook(f"e{number}", "B", "10:00", (number,))) == [DeliveryOutcome.ACCEPTED]
        proxy.cut_after_bytes = None
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == CUTS + 3
            assert await connection.fetchval("SELECT count(*) FROM fubd.delivery") == CUTS + 3


async def test_an_older_read_verifies_no_person_and_delays_no_other(database: str) -> None:
    """A read older than the last one (a lagging replica, a clock set back) verifies nothing, and the next people are still verified."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "10:00", "10:30"), read("A", "09:00", "10:00", person=2))
        await recorder.record(read("A", "09:50", "11:00"))
        async with recorder.pool.connection() as connection:
            person = await connection.fetchrow("SELECT updated, verified_at, scrub_after FROM fubd.person WHERE id = 1")
        assert tuple(person) == (at("10:00"), at("10:30"), at("11:00"))
        assert await recorder.state.oldest_verified(1) == [2]


async def test_a_late_change_does_not_move_the_time_of_the_last_one(database: str) -> None:
    """The time of the last change is the greatest in the database, not that of the last delivery."""
    async with running_recorder(database) as recorder:
        await recorder.record(webhook("e1", "B", "10:10"), webhook("e2", "C", "10:00"))
        shown = recorder.metrics.registry.get_sample_value("fubd_source_last_change_timestamp_seconds", {"source": "webhook"})
        assert str(shown) in ("nan", str(at("10:10").timestamp()))
