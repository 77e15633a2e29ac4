"""The recording transaction, as SQL (`fubd/sql/recording`): insert claims, load history, upsert people, apply changes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import asyncpg

from fubd.core.batch import PersonFacts, ReceivedDelivery
from fubd.core.history import Stage
from fubd.core.observation import Delivery, RefetchEvent, StageEvent, normalize_stage_name
from fubd.core.reconcile import Claim, NewRow, PersonHistory, Row
from fubd.core.redaction import mentioned_people, redact
from fubd.errors import Interrupted, TableRefused
from fubd.ports import ChangeSet, InsertedEvidence
from fubd.store import refusals, stage_changes, statements
from fubd.store.pool import Pool
from fubd.store.stage_changes import StageChangesTable


class ChangeStore:
    """Records through the pool. `instance` names this process; `columns` is FUBD_COLUMNS.

    `alert_stages`: each row that enters one of these stages, in any case, is put into the outbox; empty when no alerts are sent.
    """

    def __init__(self, pool: Pool, *, instance: str, columns: Mapping[str, str], alert_stages: Collection[str] = ()) -> None:
        self._pool = pool
        self._instance = instance
        self._columns = dict(columns)
        self._alert_stages = sorted({normalize_stage_name(stage).lower() for stage in alert_stages})
        self._table: StageChangesTable | None = None

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[RecordingTransaction]:
        """Open the transaction; it is committed when left without an error."""
        try:
            async with self._pool.transaction() as connection:
                self._table = self._table or await self._read_table(connection)
                yield RecordingTransaction(connection, self._table, self._instance, self._columns, self._alert_stages)
        except BaseException:
            # The cause may be that the table was altered: the next transaction reads its columns again.
            self._table = None
            raise

    async def _read_table(self, connection: asyncpg.Connection) -> StageChangesTable:
        missing = refusals.find_missing_columns(await stage_changes.read_columns(connection), self._columns)
        if missing is not None:
            raise TableRefused(missing)
        return await stage_changes.read(connection)

    async def committed_by_this_process(self, keys: Sequence[bytes], received_at: datetime) -> frozenset[bytes]:
        """Return which deliveries this process stored since `received_at`."""
        query = statements.query("recording/committed_deliveries")
        async with self._pool.reading() as connection:
            rows = await query.fetch(connection, keys=list(keys), instance=self._instance, received_at=received_at)
        return frozenset(row["key"] for row in rows)


class RecordingTransaction:
    """The steps of one transaction, which the caller begins and ends. Implements `fubd.ports.RecordingTransaction`."""

    def __init__(
        self, connection: asyncpg.Connection, table: StageChangesTable, instance: str, columns: Mapping[str, str], alert_stages: list[str]
    ) -> None:
        self._connection = connection
        self._table = table
        self._instance = instance
        self._columns = columns
        self._alert_stages = alert_stages
        # By person, the earliest instant at which a row of another writer was noticed.
        self._foreign_since: dict[int, datetime] = {}

    async def insert_claims(
        self, deliveries: Sequence[ReceivedDelivery], claims: Collection[Claim], people: Collection[int]
    ) -> InsertedEvidence:
        """Store deliveries, lock people, add claims. Raises Interrupted when another transaction was adding one of the people."""
        deliveries = await self._without_forgotten_people(deliveries)
        row = await statements.query("recording/insert_claims").fetchrow(
            self._connection,
            instance=self._instance,
            sequence=self._table.sequence,
            people=sorted(people),
            delivery_key=[received.delivery.key for received in deliveries],
            delivery_event_id=[received.delivery.event_id for received in deliveries],
            delivery_event=[received.delivery.event for received in deliveries],
            delivery_received_at=[received.received_at for received in deliveries],
            delivery_quarantine=[received.delivery.quarantine for received in deliveries],
            delivery_body=[received.delivery.body for received in deliveries],
            delivery_only_person_id=[_only_person_id(received.delivery) for received in deliveries],
            claim_person_id=[claim.person_id for claim in claims],
            claim_at=[claim.at for claim in claims],
            claim_kind=[claim.kind for claim in claims],
            claim_channel=[claim.channel for claim in claims],
            claim_event_id=[claim.event_id for claim in claims],
            claim_stage=[claim.stage.name for claim in claims],
            claim_stage_id=[claim.stage.id for claim in claims],
            claim_received_at=[claim.received_at for claim in claims],
            claim_read_at=[claim.read_at for claim in claims],
            claim_first_read_at=[claim.first_read_at for claim in claims],
            claim_watermark=[claim.watermark for claim in claims],
            claim_created=[claim.created for claim in claims],
            claim_ignored=[claim.ignored for claim in claims],
        )
        if row["locked"] != len(people):
            # The other instance's row is newer than our snapshot, so the statement could not lock it.
            raise Interrupted("a person was being added by another transaction")
        for person_id, since in zip(row["foreign_row_people"] or (), row["foreign_row_since"] or (), strict=True):
            self._foreign_since[person_id] = min(since, self._foreign_since.get(person_id, since))
        return InsertedEvidence(
            deliveries=frozenset(row["deliveries"] or ()),
            claims=frozenset(row["claims"] or ()),
            upserted=frozenset(row["upserted"] or ()),
            began=row["began"],
        )

    async def _without_forgotten_people(self, deliveries: Sequence[ReceivedDelivery]) -> Sequence[ReceivedDelivery]:
        """Redact deliveries for the quarantine: it is unknown which part of them is about which person."""
        people = set[int]().union(*(mentioned_people(each.delivery.body) for each in deliveries if each.delivery.quarantine is not None))
        if not people:
            return deliveries
        records = await statements.query("recording/forgotten_people").fetch(self._connection, people=sorted(people))
        forgotten = [record["person_id"] for record in records]
        return [_redacted(each, forgotten) if forgotten and each.delivery.quarantine is not None else each for each in deliveries]

    async def load_history(self, since: Mapping[int, datetime]) -> list[PersonHistory]:
        """Return what stands near the new claims, and near rows of other writers that were noticed since the last claims."""
        records = await statements.query("recording/load_history").fetch(
            self._connection,
            person_id=list(since),
            since=[min(at, self._foreign_since.get(person_id, at)) for person_id, at in since.items()],
            stage_length=self._table.stage_length,
        )
        starts: dict[int, Row | None] = {}
        rows: defaultdict[int, list[Row]] = defaultdict(list)
        claims: defaultdict[int, list[Claim]] = defaultdict(list)
        announced: set[int] = set()
        for record in records:
            person_id = record["person_id"]
            match record["what"]:
                case "claim":
                    claims[person_id].append(_claim(record))
                case "row":
                    rows[person_id].append(_row(record))
                case _:
                    starts[person_id] = None if record["row_id"] is None else _row(record)
                    if record["kind"] == "announced":
                        announced.add(person_id)
        return [
            PersonHistory(person_id, start, tuple(rows[person_id]), tuple(claims[person_id]), person_id in announced)
            for person_id, start in starts.items()
        ]

    async def upsert_people(self, facts: Sequence[PersonFacts]) -> frozenset[int]:
        """Store people as read; return who had been read before."""
        facts = sorted(facts, key=lambda fact: fact.reading.person_id)
        readings = [fact.reading for fact in facts]
        known = await self._table.query("recording/upsert_people", self._columns).fetch(
            self._connection,
            id=[reading.person_id for reading in readings],
            stage=[reading.stage for reading in readings],
            stage_id=[reading.stage_id for reading in readings],
            created=[reading.created for reading in readings],
            updated=[reading.updated for reading in readings],
            read_at=[fact.read_at for fact in facts],
            first_name=[reading.first_name for reading in readings],
            last_name=[reading.last_name for reading in readings],
            assigned_user_id=[reading.assigned_user_id for reading in readings],
            assigned_user_name=[reading.assigned_user_name for reading in readings],
            lead_source_tag=[fact.lead_source_tag for fact in facts],
            fields=[json.dumps(dict(reading.fields)) for reading in readings],
        )
        return frozenset(record["id"] for record in known)

    async def apply_changes(self, change_set: ChangeSet) -> None:
        """Write the difference. Raises TableRefused when the table did not take all of it."""
        inserts = await self._with_ids(change_set.inserts)
        rows = [new.row for new in inserts]
        updates = change_set.updates
        updated = [update.now for update in updates]
        relinked = [new for new in inserts if new.claim_to_relink is not None]
        corrections: list[tuple[Row, Row | None]] = [(update.was, update.now) for update in updates if update.is_correction]
        corrections += [(row, None) for row in change_set.merged]
        merged = [row.id for row in change_set.merged]
        refetches = sorted(change_set.refetches, key=lambda refetch: refetch.person_id)
        written = await self._table.query("recording/apply_changes", self._columns).fetchrow(
            self._connection,
            now=change_set.now,
            alert_stages=self._alert_stages,
            alert_since=change_set.alert_since,
            merged=merged,
            confirmed=merged + [row.id for row in updated if row.confirmed_by == "webhook"],
            update_id=[row.id for row in updated],
            update_person_id=[row.person_id for row in updated],
            update_stage_from=[row.stage_from for row in updated],
            update_stage_to=[row.stage.name for row in updated],
            update_changed_at=[row.changed_at for row in updated],
            update_changed_after=[row.changed_after for row in updated],
            update_confirmed_by=[row.confirmed_by for row in updated],
            update_confirmed_at=[row.confirmed_at for row in updated],
            update_event_id=[row.event_id for row in updated],
            update_raw_payload=[None if update.dated_by is None else change_set.evidence.get(update.dated_by.seq) for update in updates],
            correction_change_id=[was.id for was, _ in corrections],
            correction_person_id=[was.person_id for was, _ in corrections],
            correction_was=[_json(was) for was, _ in corrections],
            correction_became=[None if became is None else _json(became) for _, became in corrections],
            new_id=[row.id for row in rows],
            new_person_id=[row.person_id for row in rows],
            new_stage_from=[row.stage_from for row in rows],
            new_stage_to=[row.stage.name for row in rows],
            new_changed_at=[row.changed_at for row in rows],
            new_changed_after=[row.changed_after for row in rows],
            new_received_at=[row.received_at for row in rows],
            new_source=[row.source for row in rows],
            new_confirmed_by=[row.confirmed_by for row in rows],
            new_confirmed_at=[row.confirmed_at for row in rows],
            new_event_id=[row.event_id for row in rows],
            new_raw_payload=[change_set.evidence.get(new.dated_by.seq) for new in inserts],
            relinked_person_id=[new.row.person_id for new in relinked],
            relinked_seq=[new.claim_to_relink for new in relinked],
            relinked_row_id=[new.row.id for new in relinked],
            refetch_person_id=[refetch.person_id for refetch in refetches],
            refetch_since=[refetch.since for refetch in refetches],
            refetch_asked_at=[refetch.asked_at for refetch in refetches],
            refetch_deleted=[refetch.deleted for refetch in refetches],
            refetch_created=[refetch.created for refetch in refetches],
        )
        if (written["inserted"], written["updated"], written["merged"]) != (len(rows), len(updated), len(merged)):
            triggers = await statements.query("recording/owner_triggers").fetch(self._connection)
            raise TableRefused(refusals.dropped_rows([record["name"] for record in triggers]))

    async def _with_ids(self, inserts: Sequence[NewRow]) -> list[NewRow]:
        """Draw ids for rows that older claims make: such an id must be new, or readers who page by id would never see the row."""
        count = sum(new.claim_to_relink is not None for new in inserts)
        if not count:
            return list(inserts)
        records = await statements.query("recording/draw_ids").fetch(self._connection, sequence=self._table.sequence, count=count)
        drawn = iter(records)
        return [new if new.claim_to_relink is None else replace(new, row=replace(new.row, id=next(drawn)["id"])) for new in inserts]


def _redacted(received: ReceivedDelivery, forgotten: Collection[int]) -> ReceivedDelivery:
    """Remove what a delivery says about forgotten people. One that says nothing any more needs no quarantine: no version can read it."""
    body = redact(received.delivery.body, forgotten)
    if body is None:
        return received
    return replace(received, delivery=replace(received.delivery, body=body, quarantine=received.delivery.quarantine if body else None))


def _only_person_id(delivery: Delivery) -> int | None:
    people = delivery.content.person_ids if isinstance(delivery.content, StageEvent | RefetchEvent) else ()
    return people[0] if len(people) == 1 else None


def _claim(record: asyncpg.Record) -> Claim:
    return Claim(
        seq=record["seq"],
        row_id=record["row_id"],
        person_id=record["person_id"],
        kind=record["kind"],
        channel=record["channel"],
        at=record["at"],
        stage=Stage(record["stage"], record["stage_id"]),
        event_id=record["event_id"],
        received_at=record["received_at"],
        read_at=record["read_at"],
        first_read_at=record["first_read_at"],
        watermark=record["covered"],
        created=record["created"],
    )


def _row(record: asyncpg.Record) -> Row:
    return Row(
        id=record["row_id"],
        person_id=record["person_id"],
        stage_from=record["stage_from"],
        stage=Stage(record["stage"], record["stage_id"]),
        changed_at=record["at"],
        changed_after=record["after"],
        source=record["channel"],
        received_at=record["received_at"],
        confirmed_by=record["confirmed_by"],
        confirmed_at=record["confirmed_at"],
        event_id=record["event_id"],
        foreign=record["is_foreign"],
    )


def _json(row: Row) -> str:
    columns = {
        "stage_from": row.stage_from,
        "stage_to": row.stage.name,
        "changed_at": row.changed_at.isoformat(),
        "changed_after": row.changed_after and row.changed_after.isoformat(),
        "source": row.source,
        "confirmed_by": row.confirmed_by,
    }
    return json.dumps(columns)
