"""Where both roads meet, on a real database: every example of the contract, in every order, batched, repeated, and by two instances."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from fubd.core.observation import Channel, Delivery, Snapshot, StageEvent
from fubd.core.pacing import Hysteresis
from fubd.ports import DeliveryOutcome, SnapshotResult
from fubd.store.dsn import parse
from tests.recorder import Recorder, Row, at, hint, read, recorder, webhook
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
async def test_examples_hold_in_every_order_and_batching(
    fubd_database: str, evidence: list[Delivery | Snapshot], expected: list[Row]
) -> None:
    """Whatever order the evidence comes in, one by one or in one transaction, and told twice, the rows are the same."""
    async with recorder(fubd_database) as made:
        for person, order in enumerate(itertools.permutations(evidence), start=10):
            moved = [about(person, item) for item in order]
            if person % 2:
                await made.record_concurrently(*moved)
            else:
                await made.record(*moved)
            await made.record(*moved)
            assert await made.rows(person) == expected, [_short(item) for item in order]


def about(person: int, item: Delivery | Snapshot) -> Delivery | Snapshot:
    """The same evidence about somebody else."""
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


async def test_a_row_tells_who_saw_it_first_and_who_confirmed_it(fubd_database: str) -> None:
    """Polling first and a webhook later, and the reverse; the row keeps its id and its first source."""
    async with recorder(fubd_database) as made:
        await made.record(KNOWN_A, read("B", "10:12", "10:30", "10:00"))
        (before,) = await made.records()
        await made.record(webhook("e1", "B", "10:07"))
        (after,) = await made.records()
        assert (before["id"], before["source"], before["confirmed_by"]) == (after["id"], "polling", None)
        assert (after["source"], after["confirmed_by"], after["event_id"]) == ("polling", "webhook", "e1")
        assert after["confirmed_at"] is not None
        await made.record(webhook("e2", "C", "11:00"), read("C", "11:00:01", "11:30", "11:00"))
        last = (await made.records())[-1]
        assert (last["source"], last["confirmed_by"]) == ("webhook", "polling")


async def test_a_late_webhook_lands_between_two_rows_and_both_keep_their_ids(fubd_database: str) -> None:
    """The row behind it has its stage_from corrected, the correction is noted, and the healing is counted."""
    async with recorder(fubd_database) as made:
        await made.record(KNOWN_A, webhook("e1", "B", "10:00"), webhook("e3", "D", "10:20"))
        ids = [row["id"] for row in await made.records()]
        await made.record(webhook("e2", "C", "10:10"))
        rows = await made.records()
        assert [(row["stage_from"], row["stage_to"]) for row in rows] == [("A", "B"), ("B", "C"), ("C", "D")]
        assert [rows[0]["id"], rows[2]["id"]] == ids
        async with made.pool.reading() as connection:
            assert await connection.fetchval("SELECT was->>'stage_from' FROM fubd.correction WHERE change_id = $1", ids[1]) == "B"
        assert made.metrics.registry.get_sample_value("fubd_healed_total") == 1


async def test_a_redelivery_is_a_duplicate_and_asks_for_nothing(fubd_database: str) -> None:
    """Five times the same delivery: one accepted, four duplicates, one row, one person to be read."""
    async with recorder(fubd_database) as made:
        first = webhook("e1", "B", "10:00")
        assert await made.record(first, first, first) == [DeliveryOutcome.ACCEPTED, DeliveryOutcome.DUPLICATE, DeliveryOutcome.DUPLICATE]
        assert sorted(map(str, await made.record_concurrently(first, first))) == ["duplicate", "duplicate"]
        assert len(await made.records()) == 1
        assert [pending.person_id for pending in await made.state.due_refetches(10)] == [1]


async def test_a_bulk_edit_of_ten_thousand_is_ten_thousand_rows(fubd_database: str) -> None:
    """One delivery with 10,000 ids is recorded whole, each row with evidence of its own person only."""
    async with recorder(fubd_database) as made:
        assert await made.record(webhook("e1", "B", "10:00", tuple(range(1, 10_001)))) == [DeliveryOutcome.ACCEPTED]
        async with made.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 10_000
            assert await connection.fetchval("SELECT max(length(raw_payload::text)) FROM public.stage_changes") < 300


async def test_a_read_fills_what_the_webhook_did_not_tell(fubd_database: str) -> None:
    """A row from a webhook gets its names from the read that follows; the person is then no longer to be read."""
    async with recorder(fubd_database) as made:
        await made.record(webhook("e1", "B", "10:00:00"))
        (bare,) = await made.records()
        assert bare["first_name"] is None
        await made.record(read("B", "10:00:00", "10:00:05", channel=Channel.WEBHOOK, first_name="Grace"))
        (filled,) = await made.records()
        assert (filled["first_name"], filled["last_name"]) == ("Grace", "Example")
        assert await made.state.due_refetches(10) == []


async def test_a_deletion_that_a_webhook_told_is_remembered_until_it_is_settled(fubd_database: str) -> None:
    """The person is to be confirmed by id as soon as a list does not show them, whatever else is told of them meanwhile."""
    async with recorder(fubd_database) as made:
        await made.record(
            hint("e1", "peopleUpdated", "10:00:10"), hint("e2", "peopleDeleted", "10:00:20"), hint("e3", "peopleUpdated", "10:00:30")
        )
        (pending,) = await made.state.due_refetches(10)
        assert (pending.deleted, pending.since) == (True, at("10:00:30"))


async def test_custom_columns_are_filled_from_what_is_known_and_then_from_a_fresh_read(fubd_database: str) -> None:
    """A row begins with the person as last read, and has the value of the read that follows the change."""
    async with recorder(fubd_database, columns={"campaign_id": "customCampaignID"}) as made:
        known = _with_field(KNOWN_A, "Spring")
        await made.record(known, webhook("e1", "B", "10:00:00"))
        assert [(row["campaign_id"], row["first_name"]) for row in await made.records()] == [("Spring", "Ada")]
        await made.record(_with_field(read("B", "10:00:00", "10:00:05", channel=Channel.WEBHOOK), "Summer"))
        assert [row["campaign_id"] for row in await made.records()] == ["Summer"]
        await made.record(_with_field(read("C", "11:00:00", "11:00:05", "10:30"), "Autumn"))
        assert [row["campaign_id"] for row in await made.records()] == ["Summer", "Autumn"]


def _with_field(snapshot: Snapshot, value: str) -> Snapshot:
    (reading,) = snapshot.readings
    return replace(snapshot, readings=(replace(reading, fields={"customCampaignID": value}),))


async def test_a_read_made_before_the_event_does_not_answer_its_hint(fubd_database: str) -> None:
    """The person is read again when the read cannot have seen what the webhook spoke of."""
    async with recorder(fubd_database) as made:
        await made.record(hint("e1", "peopleUpdated", "10:00:10"), read("A", "09:00", "10:00:05", channel=Channel.WEBHOOK))
        assert [pending.person_id for pending in await made.state.due_refetches(10)] == [1]


async def test_moves_into_an_ignored_stage_make_no_row(fubd_database: str) -> None:
    """The move is kept as a claim, the chain goes on as if the stage did not exist."""
    async with recorder(fubd_database, ignored_stages=("Contact Upload",)) as made:
        await made.record(KNOWN_A, webhook("e1", "Contact Upload", "10:00"), webhook("e2", "B", "10:05"))
        assert await made.rows() == [("A", "B", at("10:05"), None)]


async def test_someone_created_since_we_watch_enters_a_stage(fubd_database: str) -> None:
    """A person created after the first baseline began is a change from nothing; one created before only stands there."""
    async with recorder(fubd_database) as made:
        await made.state.begin_sweep(at("09:00"), from_id=0)
        found = await made.record(read("Lead", "10:02", "10:03", "10:00", created="10:00"))
        await made.record(read("Lead", "10:02", "10:03", "10:00", person=2, created="08:00"))
        assert await made.rows(1) == [(None, "Lead", at("10:00"), None)]
        assert await made.rows(2) == []
        assert found == [SnapshotResult(changes=1, mismatched=frozenset(), first_seen=1)]


async def test_polling_tells_what_webhooks_missed_once_it_is_old_enough(fubd_database: str) -> None:
    """A change found by polling is missed when it is old enough and no webhook has told it by then, until that was counted."""
    async with recorder(fubd_database) as made:
        await made.record(KNOWN_A, read("B", "10:12", "10:30", "10:00"))
        await made.record(read("A", "08:00", "09:00", person=2), read("B", "10:12", "10:30", "10:00", person=2))
        await made.record(webhook("e1", "B", "10:11", (2,)))
        assert await made.state.missed_changes(fub_now=at("10:13"), missed_after_seconds=120) == frozenset()
        missed = await made.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120)
        assert len(missed) == 1
        assert await made.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120) == missed
        await made.state.update_mode(30.0, Hysteresis(), missed=missed)
        assert await made.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120) == frozenset()


async def test_reading_a_found_change_again_does_not_narrow_its_bounds(fubd_database: str) -> None:
    """Coverage at a later read says nothing of when the change was: the earlier read had shown it already."""
    async with recorder(fubd_database) as made:
        await made.record(KNOWN_A, read("B", "10:12", "10:13", "10:00"), read("B", "10:12", "10:14", "10:10"))
        assert await made.rows() == [("A", "B", at("10:12"), at("10:00"))]
        await made.record_concurrently(read("A", "08:00", "09:00", person=2))
        await made.record_concurrently(read("B", "10:12", "10:14", "10:10", person=2), read("B", "10:12", "10:13", "10:00", person=2))
        assert await made.rows(2) == [("A", "B", at("10:12"), at("10:00"))]


async def _covered_since(made: Recorder, began: str) -> None:
    await made.state.begin_sweep(at(began), from_id=0)
    await made.state.advance_coverage(at(began), sweep=True)


NEWCOMER = read("Lead", "10:00", "10:00:20", "09:58", created="10:00")
ANNOUNCED = hint("e1", "peopleCreated", "10:00:00")
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
async def test_a_newcomer_whom_a_webhook_announced_was_not_missed(
    fubd_database: str, evidence: tuple[Delivery | Snapshot, ...], source: str, confirmed_by: str | None, missed: int
) -> None:
    """Whoever reads them first, the announcement counts as told; only a newcomer whom no webhook announced is a proof against them."""
    async with recorder(fubd_database) as made:
        await _covered_since(made, "09:00")
        await made.record(*evidence)
        (row, *_) = await made.records()
        assert (row["stage_from"], row["stage_to"], row["source"], row["confirmed_by"]) == (None, "Lead", source, confirmed_by)
        assert len(await made.state.missed_changes(fub_now=at("11:00"), missed_after_seconds=120.0)) == missed


async def test_a_newcomer_who_is_announced_and_read_at_once_was_not_missed(fubd_database: str) -> None:
    """A poll and the announcement in one transaction: the webhook told of them."""
    async with recorder(fubd_database) as made:
        await _covered_since(made, "09:00")
        await made.record_concurrently(NEWCOMER, ANNOUNCED)
        (row,) = await made.records()
        assert (row["source"], row["confirmed_by"]) == ("webhook", "polling")
        assert await made.state.missed_changes(fub_now=at("11:00"), missed_after_seconds=120.0) == frozenset()


async def test_a_change_that_a_prompted_read_finds_was_told_by_no_webhook(fubd_database: str) -> None:
    """Found while filling names, it is polling's, and counts as missed in time; a newcomer that a webhook announced is the webhook's."""
    async with recorder(fubd_database) as made:
        await made.state.begin_sweep(at("09:00"), from_id=0)
        await made.record(KNOWN_A, read("B", "10:12", "10:13", "10:00", channel=Channel.WEBHOOK))
        assert [(row["source"], row["confirmed_by"]) for row in await made.records()] == [("polling", None)]
        missed = await made.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120)
        assert len(missed) == 1
        await made.record(read("Lead", "10:02", "10:03", "10:00", person=2, created="10:02", channel=Channel.WEBHOOK))
        assert [(row["source"], row["confirmed_by"]) for row in await made.records(2)] == [("webhook", None)]
        assert await made.state.missed_changes(fub_now=at("10:30"), missed_after_seconds=120) == missed


async def test_two_instances_record_the_same_evidence_once(fubd_database: str) -> None:
    """During a deploy both instances hear and read everything: the rows are those of one."""
    chance = random.Random(11)
    evidence: list[Delivery | Snapshot] = []
    for person in range(1, 41):
        evidence.append(read("A", "08:00", "09:00", person=person))
        for step, stage in enumerate(("B", "C", "A", "B")):
            evidence.append(webhook(f"e{person}-{step}", stage, f"10:{step:02}:00", (person,)))
        evidence.append(read("B", "10:03:00", "10:30", "10:00", person=person))
    async with recorder(fubd_database, instance="one") as one, recorder(fubd_database, instance="two") as two:
        orders = [chance.sample(evidence, len(evidence)) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for made, order in zip((one, two), orders, strict=True):
                group.create_task(_in_handfuls(made, order, random.Random(len(order))))
        for person in range(1, 41):
            assert [row[1] for row in await one.rows(person)] == ["B", "C", "A", "B"]
            assert [row[2] for row in await one.rows(person)] == [at("10:00") + timedelta(minutes=step) for step in range(4)]


async def _in_handfuls(made: Recorder, order: list[Delivery | Snapshot], chance: random.Random) -> None:
    while order:
        size = chance.randrange(1, 20)
        await made.record_concurrently(*order[:size])
        del order[:size]


async def test_what_no_index_can_hold_is_put_aside(fubd_database: str) -> None:
    """A stage and an event id at the limit of what is read can be too much for an index: quarantined, and the rest of the batch goes on."""
    chance = random.Random(5)
    endless = "".join(chr(chance.randrange(0x20000, 0x2A6D0)) for _ in range(700))
    async with recorder(fubd_database) as made:
        receipts = await made.record_concurrently(
            webhook("e1", "B", "10:00"), webhook(endless[:200], endless[200:], "10:01", (2,)), webhook("e3", "B", "10:02", (3,))
        )
        assert receipts == [DeliveryOutcome.ACCEPTED, DeliveryOutcome.QUARANTINED, DeliveryOutcome.ACCEPTED]
        assert [len(await made.records(person)) for person in (1, 2, 3)] == [1, 0, 1]


async def test_a_batch_that_takes_too_long_is_recorded_in_parts(database: str, fubd_database: str) -> None:
    """A database that ends statements about many rows as too slow would end them for ever: each time less is asked of it."""
    await _execute(
        database,
        "CREATE FUNCTION too_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT count(*) FROM made) > 30 THEN RAISE EXCEPTION 'too slow' USING ERRCODE = 'query_canceled'; END IF; RETURN NULL;"
        " END $$;"
        " CREATE TRIGGER too_slow AFTER INSERT ON public.stage_changes REFERENCING NEW TABLE AS made"
        " FOR EACH STATEMENT EXECUTE FUNCTION too_slow()",
    )
    async with recorder(fubd_database) as made:
        async with asyncio.timeout(60.0):
            receipts = await made.record_concurrently(*(webhook(f"e{person}", "B", "10:00", (person,)) for person in range(1, 301)))
        assert set(receipts) == {DeliveryOutcome.ACCEPTED}
        async with made.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 300


async def _execute(database: str, statements: str) -> None:
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


CUTS = 40


async def test_a_connection_cut_at_any_byte_costs_nothing(database: str) -> None:
    """Before, within and after each message of a transaction and of the log-in that follows: recorded once, and told as new."""
    async with Proxy(database) as proxy, recorder(proxy.dsn) as made:
        await made.record(webhook("warm-1", "B", "10:00", (100_001,)), webhook("warm-2", "B", "10:00", (100_002,)))
        before = proxy.bytes
        await made.record(webhook("whole", "B", "10:00", (100_003,)))
        # Beyond its end the next transaction is cut, or the log-in that goes before it.
        step = 2 * (proxy.bytes - before) / CUTS
        for number in range(1, CUTS + 1):
            proxy.cut_after_bytes = int((number - 1) * step)
            assert await made.record(webhook(f"e{number}", "B", "10:00", (number,))) == [DeliveryOutcome.ACCEPTED]
        proxy.cut_after_bytes = None
        async with made.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == CUTS + 3
            assert await connection.fetchval("SELECT count(*) FROM fubd.delivery") == CUTS + 3


async def test_an_older_read_verifies_nobody_and_holds_up_nobody(database: str) -> None:
    """A read older than what is known (a replica lags, a clock was set back) verifies nothing, but the next in line have their turn."""
    async with recorder(database) as made:
        await made.record(read("A", "10:00", "10:30"), read("A", "09:00", "10:00", person=2))
        await made.record(read("A", "09:50", "11:00"))
        async with made.pool.connection() as connection:
            person = await connection.fetchrow("SELECT updated, verified_at, scrub_after FROM fubd.person WHERE id = 1")
        assert tuple(person) == (at("10:00"), at("10:30"), at("11:00"))
        assert await made.state.oldest_verified(1) == [2]


async def test_a_late_change_is_not_the_last(database: str) -> None:
    """A webhook that comes late does not move the time of the last change back: that is the database's to tell."""
    async with recorder(database) as made:
        await made.record(webhook("e1", "B", "10:10"), webhook("e2", "C", "10:00"))
        shown = made.metrics.registry.get_sample_value("fubd_source_last_change_timestamp_seconds", {"source": "webhook"})
        assert shown in (0, at("10:10").timestamp())
