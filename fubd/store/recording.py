"""The recording transaction, as SQL: take, load, facts, write (`fubd/sql/*.sql`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from fubd.core.reconcile import Claim, PersonHistory, Row
from fubd.core.timeline import Stage
from fubd.errors import Unavailable
from fubd.ports import ChangeSet, Facts, InsertedEvidence, KeptDelivery, NewClaim
from fubd.store import stage_changes, statements
from fubd.store.pool import Pool
from fubd.store.stage_changes import StageChangesTable

_CLAIM_FIELDS = len(NewClaim._fields)


class ChangeStore:
    """Records through the pool. `instance` names this process among others; `columns` is FUBD_COLUMNS.

    `alert_stages`: who enters one of these is told of through the outbox; none when nobody listens.
    """

    def __init__(self, pool: Pool, *, instance: str, columns: Mapping[str, str], alert_stages: Collection[str] = ()) -> None:
        self._pool = pool
        self._instance = instance
        self._columns = dict(columns)
        self._alert_stages = sorted(alert_stages)
        self._table: StageChangesTable | None = None

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[RecordingTransaction]:
        """Open the transaction; committed when left without an error."""
        try:
            async with self._pool.transaction() as connection:
                self._table = self._table or await stage_changes.read(connection)
                yield RecordingTransaction(connection, self._table, self._instance, self._columns, self._alert_stages)
        except BaseException:
            # Whatever failed, somebody may have altered the table: it is looked at anew.
            self._table = None
            raise

    async def committed_by_this_process(self, keys: Sequence[bytes], received_at: datetime) -> frozenset[bytes]:
        """Tell which deliveries this process stored since `received_at`."""
        async with self._pool.reading() as connection:
            rows = await connection.fetch(
                "SELECT key FROM fubd.delivery WHERE key = ANY($1::bytea[]) AND instance = $2 AND received_at >= $3",
                list(keys),
                self._instance,
                received_at,
            )
            return frozenset(row["key"] for row in rows)


class RecordingTransaction:
    """The steps of one transaction, which its owner began and ends. Satisfies `fubd.ports.RecordingTransaction`."""

    def __init__(
        self, connection: asyncpg.Connection, product: StageChangesTable, instance: str, columns: Mapping[str, str], alert_stages: list[str]
    ) -> None:
        self._connection = connection
        self._table = product
        self._instance = instance
        self._columns = columns
        self._alert_stages = alert_stages
        # From where on rows of other writers have come among a person's, by person.
        self._others: dict[int, datetime] = {}

    async def insert_claims(
        self, deliveries: Sequence[KeptDelivery], claims: Collection[NewClaim], people: Collection[int]
    ) -> InsertedEvidence:
        """Keep deliveries, lock people, add claims."""
        kept = [(d.key, d.event_id, d.event, received_at, d.quarantine, d.body) for d, received_at in deliveries]
        row = await self._connection.fetchrow(
            statements.text("recording/insert_claims"),
            self._instance,
            *_columns(kept, 6),
            sorted(people),
            *_columns(list(claims), _CLAIM_FIELDS),
            self._table.sequence,
        )
        if row["locked"] != len(people):
            # Someone else has just made one of these people: our snapshot is older than their row, so it could not be locked.
            raise Unavailable("a person was being added by another instance")
        for person_id, since in zip(row["others"] or (), row["since"] or (), strict=True):
            self._others[person_id] = min(since, self._others.get(person_id, since))
        return InsertedEvidence(
            frozenset(row["delivered"] or ()), frozenset(row["claimed"] or ()), frozenset(row["touched"] or ()), row["began"]
        )

    async def load_history(self, since: Mapping[int, datetime]) -> list[PersonHistory]:
        """Give what stands near the new claims, and near rows of other writers that were not seen by the last ones."""
        from_when = [min(at, self._others.get(person_id, at)) for person_id, at in since.items()]
        found = await self._connection.fetch(statements.text("recording/load_history"), list(since), from_when, self._table.stage_length)
        starts: dict[int, Row | None] = {}
        rows: dict[int, list[Row]] = {}
        claims: dict[int, list[Claim]] = {}
        announced: set[int] = set()
        for record in found:
            what, person_id = record[0], record[1]
            if what == "claim":
                claims.setdefault(person_id, []).append(_claim(record))
            elif what == "row":
                rows.setdefault(person_id, []).append(_row(record))
            else:
                starts[person_id] = None if record[2] is None else _row(record)
                if record["kind"] == "announced":
                    announced.add(person_id)
        return [
            PersonHistory(person_id, start, tuple(rows.get(person_id, ())), tuple(claims.get(person_id, ())), person_id in announced)
            for person_id, start in starts.items()
        ]

    async def upsert_people(self, facts: Sequence[Facts]) -> frozenset[int]:
        """Keep people as read; gives who of them was read before."""
        values = [
            (
                r.person_id, r.stage, r.stage_id, r.created, r.updated, read_at, r.first_name, r.last_name, r.assigned_user_id,
                r.assigned_user_name, tag, json.dumps(dict(r.fields)),
            )
            for r, read_at, tag in sorted(facts, key=lambda fact: fact.reading.person_id)
        ]  # fmt: skip
        statement = self._table.query("recording/upsert_people", self._columns).text
        return frozenset(record["id"] for record in await self._connection.fetch(statement, *_columns(values, 12)))

    async def apply_changes(self, change_set: ChangeSet) -> None:
        """Write the difference."""
        recorded = await self._with_ids(change_set)
        evidence = change_set.evidence
        made = [
            (
                row.id, person_id, row.stage_from, row.stage.name, row.changed_at, row.changed_after, row.received_at, row.source,
                row.confirmed_by, row.confirmed_at, row.event_id, evidence.get(seq),
            )
            for person_id, row, seq, _ in recorded
        ]  # fmt: skip
        corrected = [
            (
                c.now.id, person_id, c.now.stage_from, c.now.stage.name, c.now.changed_at, c.now.changed_after, c.now.confirmed_by,
                c.now.confirmed_at, c.now.event_id, evidence.get(c.dated_by.seq) if c.dated_by is not None else None,
            )
            for person_id, c in change_set.corrected
        ]  # fmt: skip
        healed = [(person_id, c) for person_id, c in change_set.corrected if c.healed]
        notes: list[tuple[object, ...]] = [(c.was.id, person_id, change_set.now, _json(c.was), _json(c.now)) for person_id, c in healed]
        notes += [(row.id, person_id, change_set.now, _json(row), None) for person_id, row in change_set.merged]
        forgotten = [c.was.id for _, c in change_set.corrected if c.now.confirmed_by == "webhook"]
        merged = [row.id for _, row in change_set.merged]
        relinked = [(person_id, claim_to_relink, row.id) for person_id, row, _, claim_to_relink in recorded if claim_to_relink is not None]
        asked = _columns(sorted(change_set.refetches), 5)
        await self._connection.execute(
            self._table.query("recording/apply_changes", self._columns).text,
            merged,
            forgotten + merged,
            *_columns(corrected, 10),
            *_columns(notes, 5),
            *_columns(made, 12),
            *_columns(relinked, 3),
            *asked[:3],
            self._alert_stages,
            *asked[3:],
        )

    async def _with_ids(self, change_set: ChangeSet) -> list[tuple[int, Row, int, int | None]]:
        """Draw ids for rows that older claims make: such an id must be new, or readers who page by id would never see it."""
        wanted = sum(made.claim_to_relink is not None for _, made in change_set.recorded)
        drawn: list[int] = []
        if wanted:
            drawn = await self._connection.fetchval(
                "SELECT array_agg(nextval($1::text::regclass)) FROM generate_series(1, $2)", self._table.sequence, wanted
            )
        return [
            (
                person_id,
                made.row if made.claim_to_relink is None else made.row._replace(id=drawn.pop(0)),
                made.dated_by.seq,
                made.claim_to_relink,
            )
            for person_id, made in change_set.recorded
        ]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _claim(record: asyncpg.Record) -> Claim:
    (_, _, seq, row_id, kind, channel, event_id, _, stage, stage_id, at, _, received_at, _, _, read_at, covered, created, _) = record
    return Claim(seq, row_id, kind == "entry", channel, at, Stage(stage, stage_id), event_id, received_at, read_at, covered, created)


def _row(record: asyncpg.Record) -> Row:
    (_, _, row_id, _, _, source, event_id, stage_from, stage, stage_id, at, after, received_at, confirmed_by, confirmed_at, *_, foreign) = (
        record
    )
    return Row(row_id, stage_from, Stage(stage, stage_id), at, after, source, received_at, confirmed_by, confirmed_at, event_id, foreign)


def _json(row: Row) -> str:
    shown = {
        "stage_from": row.stage_from,
        "stage_to": row.stage.name,
        "changed_at": row.changed_at.isoformat(),
        "changed_after": row.changed_after and row.changed_after.isoformat(),
        "source": row.source,
        "confirmed_by": row.confirmed_by,
    }
    return json.dumps(shown)
