"""The recording transaction, as SQL (`fubd/sql/recording`), in three round trips: begin; add claims and load history; write and commit.

The last is one script, because the driver sends nothing ahead of an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import asyncpg

from fubd.core.batch import NewRefetch, PersonFacts, ReceivedDelivery
from fubd.core.history import Stage
from fubd.core.observation import Delivery, RefetchEvent, StageEvent, normalize_stage_name
from fubd.core.reconcile import Claim, NewRow, PersonHistory, Row
from fubd.core.redaction import mentioned_people, redact
from fubd.errors import Interrupted, TableRefused
from fubd.ports import ChangeSet, InsertedEvidence
from fubd.store import stage_changes, statements
from fubd.store.expressions import find_failing
from fubd.store.pool import Pool
from fubd.store.quoting import quote_document
from fubd.store.refusals import is_unexplained, sentence
from fubd.store.stage_changes import StageChangesTable
from fubd.store.table_definition import definition_of, find_refusal


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
        """Open the transaction; what is not committed when it is left without an error is committed then."""
        written: list[Mapping[str, object]] = []
        try:
            async with self._pool.transaction() as connection:
                self._table = self._table or await self._read_table(connection)
                recording = RecordingTransaction(connection, self._table, self._instance, self._columns, self._alert_stages)
                written = recording.written
                yield recording
        except BaseException as error:
            # The cause may be that the table was altered: the next transaction reads its definition again.
            self._table = None
            if is_unexplained(error) and (cause := await self._find_cause(written)) is not None:
                raise TableRefused(sentence(*cause)) from None
            raise

    async def _find_cause(self, written: Sequence[Mapping[str, object]]) -> tuple[str, str] | None:
        """Return which expression of the table fails on what was written, and its remedy. Raises Unavailable."""
        # One transaction, in which each expression is tried below a savepoint: a transaction pooler may change the server between two.
        async with self._pool.connection() as connection, connection.transaction():
            return await find_failing(connection, written, self._columns)

    async def _read_table(self, connection: asyncpg.Connection) -> StageChangesTable:
        query = statements.combine(definition="check/table", columns="adopt/columns", sequence="adopt/sequence")
        found = await query.fetch(connection)
        refusal = find_refusal(definition_of(found["definition"][0]), self._columns)
        if refusal is not None:
            raise TableRefused(refusal)
        return StageChangesTable(stage_changes.columns_of(found["columns"]), found["sequence"][0]["sequence"])

    async def committed_by_this_process(self, keys: Sequence[bytes], received_at: datetime) -> frozenset[bytes]:
        """Return which deliveries this process stored since `received_at`."""
        query = statements.query("recording/committed_deliveries")
        async with self._pool.reading() as connection:
            rows = await query.fetch(connection, keys=list(keys), instance=self._instance, received_at=received_at)
        return frozenset(row["key"] for row in rows)


async def load_history(connection: asyncpg.Connection, person_id: int, since: datetime, *, stage_length: int) -> PersonHistory | None:
    """Return what stands near an instant, as the recording transaction loads it; None for an unknown person."""
    query = statements.query("recording/load_history")
    records = await query.fetch(connection, person_id=person_id, since=since, stage_length=stage_length)
    return next(iter(histories(records)), None)


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
        # The rows of the last write, which a failure is explained with.
        self.written: list[Mapping[str, object]] = []

    async def insert_claims(
        self, deliveries: Sequence[ReceivedDelivery], claims: Collection[Claim], people: Collection[int], since: Mapping[int, datetime]
    ) -> InsertedEvidence:
        """Store deliveries, lock people, add claims, load the history: one round trip.

        Raises Interrupted when another transaction was adding one of the people.
        """
        deliveries = await self._without_forgotten_people(deliveries)
        *records, row = await statements.query("recording/insert_claims").fetch(
            self._connection,
            instance=self._instance,
            sequence=self._table.sequence,
            stage_length=self._table.stage_length,
            people=sorted(people),
            since_person_id=list(since),
            since=list(since.values()),
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
        return InsertedEvidence(
            deliveries=frozenset(row["deliveries"] or ()),
            claims=frozenset(row["claims"] or ()),
            upserted=frozenset(row["upserted"] or ()),
            known=frozenset(row["known"] or ()),
            began=row["began"],
            histories=histories(records),
        )

    async def _without_forgotten_people(self, deliveries: Sequence[ReceivedDelivery]) -> Sequence[ReceivedDelivery]:
        """Redact deliveries for the quarantine: it is unknown which part of them is about which person."""
        people = set[int]().union(*(mentioned_people(each.delivery.body) for each in deliveries if each.delivery.quarantine is not None))
        if not people:
            return deliveries
        records = await statements.query("recording/forgotten_people").fetch(self._connection, people=sorted(people))
        forgotten = [record["person_id"] for record in records]
        return [_redacted(each, forgotten) if forgotten and each.delivery.quarantine is not None else each for each in deliveries]

    async def commit(self, facts: Sequence[PersonFacts], changes: ChangeSet | None) -> None:
        """Store people as read, write the difference, commit: one round trip. Raises TableRefused when the table did not take all of it."""
        await self._run([*await self._script(facts, changes), "COMMIT"])

    async def write(self, facts: Sequence[PersonFacts], changes: ChangeSet) -> None:
        """Do the same without the commit."""
        await self._run(await self._script(facts, changes))

    async def _run(self, script: Sequence[str]) -> None:
        # In one message, which takes no parameters: each statement holds its values as one JSON literal.
        await self._connection.execute(";\n".join(script))

    async def _script(self, facts: Sequence[PersonFacts], changes: ChangeSet | None) -> list[str]:
        script = []
        if facts:
            script.append(self._with_document("recording/upsert_people", _people(facts)))
        if changes is not None:
            inserts = await self._with_ids(changes.inserts)
            script.append(self._with_document("recording/apply_changes", self._changes(changes, inserts)))
            if written := [*(new.row for new in inserts), *(update.now for update in changes.updates)]:
                script.append(statements.text("recording/run_deferred"))
                script.append(self._with_document("recording/require_kept", [_kept(row) for row in written]))
        return script

    def _with_document(self, name: str, document: object) -> str:
        return self._table.query(name, self._columns).fill(document=quote_document(document)).text

    def _changes(self, change_set: ChangeSet, inserts: Sequence[NewRow]) -> dict[str, object]:
        updates = change_set.updates
        updated = [_columns(update.now, update.dated_by, change_set.evidence) for update in updates]
        new_rows = [_columns(new.row, new.dated_by, change_set.evidence) for new in inserts]
        self.written[:] = [*new_rows, *updated]
        corrections: list[tuple[Row, Row | None]] = [(update.was, update.now) for update in updates if update.is_correction]
        corrections += [(row, None) for row in change_set.merged]
        merged = [row.id for row in change_set.merged]
        return {
            "now": change_set.now,
            "alert_stages": self._alert_stages,
            "alert_since": change_set.alert_since,
            "merged": merged,
            "confirmed": merged + [update.now.id for update in updates if update.now.confirmed_by == "webhook"],
            "updates": updated,
            "corrections": [
                {"change_id": was.id, "person_id": was.person_id, "was": _shown(was), "became": became and _shown(became)}
                for was, became in corrections
            ],
            "new_rows": new_rows,
            "relinked": [
                {"person_id": new.row.person_id, "seq": new.claim_to_relink, "row_id": new.row.id}
                for new in inserts
                if new.claim_to_relink is not None
            ],
            "refetches": [_refetch(refetch) for refetch in sorted(change_set.refetches, key=lambda refetch: refetch.person_id)],
        }

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


def histories(records: Sequence[asyncpg.Record]) -> list[PersonHistory]:
    """Return the history of each person from the rows of fubd.load_history."""
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


def _people(facts: Sequence[PersonFacts]) -> list[dict[str, object]]:
    """Return what sql/recording/upsert_people.sql takes."""
    return [
        {
            "id": fact.reading.person_id,
            "stage": fact.reading.stage,
            "stage_id": fact.reading.stage_id,
            "created": fact.reading.created,
            "updated": fact.reading.updated,
            "read_at": fact.read_at,
            "first_name": fact.reading.first_name,
            "last_name": fact.reading.last_name,
            "assigned_user_id": fact.reading.assigned_user_id,
            "assigned_user_name": fact.reading.assigned_user_name,
            "lead_source_tag": fact.lead_source_tag,
            "fields": dict(fact.reading.fields),
        }
        for fact in sorted(facts, key=lambda fact: fact.reading.person_id)
    ]


def _refetch(refetch: NewRefetch) -> dict[str, object]:
    return {
        "person_id": refetch.person_id,
        "since": refetch.since,
        "asked_at": refetch.asked_at,
        "deleted": refetch.deleted,
        "created": refetch.created,
    }


def _columns(row: Row, dated_by: Claim | None, evidence: Mapping[int, str]) -> dict[str, object]:
    """Return the columns of a row that is written."""
    return {
        "id": row.id,
        "person_id": row.person_id,
        "stage_from": row.stage_from,
        "stage_to": row.stage.name,
        "changed_at": row.changed_at,
        "changed_after": row.changed_after,
        "received_at": row.received_at,
        "source": row.source,
        "confirmed_by": row.confirmed_by,
        "confirmed_at": row.confirmed_at,
        "event_id": row.event_id,
        "raw_payload": None if dated_by is None else evidence.get(dated_by.seq),
    }


def _kept(row: Row) -> dict[str, object]:
    """Return the columns that must stand in the table as they were written."""
    return {
        "id": row.id,
        "person_id": row.person_id,
        "changed_at": row.changed_at,
        "stage_from": row.stage_from,
        "stage_to": row.stage.name,
        "source": row.source,
    }


def _shown(row: Row) -> dict[str, object]:
    """Return the columns that a correction shows."""
    return {
        "stage_from": row.stage_from,
        "stage_to": row.stage.name,
        "changed_at": row.changed_at,
        "changed_after": row.changed_after,
        "source": row.source,
        "confirmed_by": row.confirmed_by,
    }
