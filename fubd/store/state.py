"""The daemon's memory: coverage, runs, modes, hints, scrub and lease, one short statement each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from fubd.core.pacing import Hysteresis
from fubd.errors import Unavailable
from fubd.ports import Coverage, LastHeard, ModeRecord, PendingRefetch
from fubd.store import statements
from fubd.store.pool import Pool

_LEASE = "poller"


class StateStore:
    """Keeps it through the pool; satisfies `fubd.ports.StateStore`. `alerting`: a change of mode is told of through the outbox.

    Once it had the lease, it decides nothing any more when another has it: how the mode and a sweep go on, and what a scrub counts. The
    other writes are true whoever makes them, and a book that never had the lease is a recovery run's, which is welcome beside the holder.
    """

    def __init__(self, pool: Pool, *, alerting: bool = False) -> None:
        self._pool = pool
        self._alerting = alerting
        self._token: int | None = None

    async def _fetchrow(self, statement: str, *values: object) -> asyncpg.Record:
        async with self._pool.transaction() as connection:
            return await connection.fetchrow(statement, *values)

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        async with self._pool.transaction() as connection:
            rows: list[Any] = await connection.fetch(statement, *values)
            return rows

    async def _execute(self, statement: str, *values: object) -> None:
        async with self._pool.transaction() as connection:
            await connection.execute(statement, *values)

    @asynccontextmanager
    async def fenced(self) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction within which nobody takes the lease. Raises Unavailable when another has it."""
        async with self._pool.transaction() as connection:
            if self._token is not None:
                token = await connection.fetchval("SELECT token FROM fubd.lease WHERE name = $1 FOR SHARE", _LEASE)
                if token != self._token:
                    raise Unavailable("another instance polls now")
            yield connection

    async def coverage(self) -> Coverage:
        """Give the coverage record."""
        row = await self._fetchrow("SELECT began, reached, sweep_began, sweep_from_id FROM fubd.coverage")
        return Coverage(row["began"], row["reached"], row["sweep_began"], row["sweep_from_id"])

    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        """Note how far a sweep has come; the very first sets since when we watch."""
        async with self.fenced() as connection:
            await connection.execute(
                "UPDATE fubd.coverage SET began = coalesce(began, $1), sweep_began = $1, sweep_from_id = $2", began, from_id
            )

    async def advance_coverage(self, reached: datetime, *, sweep: bool) -> datetime:
        """Advance coverage, never backwards. The first baseline is the first complete round: everyone was read and is as recorded."""
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(
                "UPDATE fubd.coverage SET reached = greatest(reached, $1), began = coalesce(began, $1),"
                " sweep_began = CASE WHEN $2 THEN NULL ELSE sweep_began END, sweep_from_id = CASE WHEN $2 THEN NULL ELSE sweep_from_id END"
                " RETURNING reached",
                reached,
                sweep,
            )
            if sweep:
                await connection.execute(
                    "UPDATE fubd.scrub SET last_ratio = 1, last_finished = now(), last_people = (SELECT count(*) FROM fubd.person)"
                    " WHERE last_ratio IS NULL"
                )
        now: datetime = row["reached"]
        return now

    async def start_run(self, kind: str, started_at: datetime) -> int:
        """Note a poll run; gives its id."""
        row = await self._fetchrow("INSERT INTO fubd.poll_run (kind, started_at) VALUES ($1, $2) RETURNING id", kind, started_at)
        return int(row["id"])

    async def set_next_run(self, run_id: int, *, next_within_seconds: float) -> None:
        """Note within how many seconds another run is to follow this one, 0 for none: else the mode in force says it."""
        await self._execute("UPDATE fubd.poll_run SET next_within_seconds = $2 WHERE id = $1", run_id, next_within_seconds)

    async def finish_run(
        self, run_id: int, *, outcome: str, finished_at: datetime, people: int, calls: int, changes: int, note: str | None
    ) -> None:
        """Note how a poll run ended."""
        await self._execute(
            "UPDATE fubd.poll_run SET outcome = $2, finished_at = $3, people = $4, calls = $5, changes = $6, note = $7 WHERE id = $1",
            run_id,
            outcome,
            finished_at,
            people,
            calls,
            changes,
            note,
        )

    async def heard(self) -> LastHeard:
        """Give when each source was last heard."""
        row = await self._fetchrow(
            "SELECT (SELECT received_at FROM fubd.delivery ORDER BY id DESC LIMIT 1) AS webhook,"
            " (SELECT received_at FROM fubd.delivery WHERE event = 'peopleStageUpdated' ORDER BY id DESC LIMIT 1) AS stage,"
            " (SELECT max(finished_at) FROM fubd.poll_run WHERE outcome = 'ok' AND kind <> 'scrub') AS polling"
        )
        return LastHeard(row["webhook"], row["stage"], row["polling"])

    async def mode(self) -> ModeRecord | None:
        """Give the mode last announced."""
        row = await self._fetchrow(
            "SELECT mode, reason, delay_seconds, at, proven_at, missed, heard_again_at, relapses"
            " FROM fubd.mode_change ORDER BY id DESC LIMIT 1"
        )
        if row is None:
            return None
        kept = None
        if row["relapses"] is not None:
            kept = Hysteresis(row["proven_at"], row["missed"], row["heard_again_at"], row["relapses"])
        return ModeRecord(row["mode"], row["reason"], row["delay_seconds"], row["at"], kept)

    async def missed(self, *, fub_now: datetime, missed_after_seconds: float) -> frozenset[int]:
        """Give the unconfirmed changes found by polling that are old enough and were not counted yet."""
        rows = await self._fetch(
            "SELECT change_id FROM fubd.unconfirmed WHERE changed_at <= $1::timestamptz - make_interval(secs => $2)",
            fub_now,
            missed_after_seconds,
        )
        return frozenset(row["change_id"] for row in rows)

    async def insert_mode(self, record: ModeRecord, *, evidence: dict[str, object], missed: Collection[int] = ()) -> None:
        """Keep a change of mode with its evidence and the alert that tells of it, and count what proved it."""
        kept = record.hysteresis or Hysteresis()
        alert = {
            "kind": "mode",
            "mode": record.mode,
            "before": evidence.get("before"),
            "reason": record.reason,
            "poll_interval_seconds": record.delay_seconds,
            "at": record.since.isoformat(),
        }
        async with self.fenced() as connection:
            await connection.execute(
                statements.text("state/insert_mode"),
                record.since,
                record.mode,
                record.reason,
                record.delay_seconds,
                kept.proven_at,
                kept.missed,
                kept.heard_again_at,
                kept.relapses if record.hysteresis is not None else None,
                json.dumps(evidence, default=str),
                json.dumps(alert) if self._alerting else None,
                sorted(missed),
            )

    async def update_mode(self, delay_seconds: float, hysteresis: Hysteresis, *, missed: Collection[int] = ()) -> None:
        """Keep how the current mode goes on, and count missed changes."""
        async with self.fenced() as connection:
            await connection.execute(
                statements.text("state/update_mode"),
                delay_seconds,
                hysteresis.proven_at,
                hysteresis.missed,
                hysteresis.heard_again_at,
                hysteresis.relapses,
                sorted(missed),
            )

    async def oldest_verified(self, limit: int) -> list[int]:
        """Give known people, longest unverified first."""
        rows = await self._fetch("SELECT id FROM fubd.person WHERE gone_at IS NULL ORDER BY scrub_after, id LIMIT $1", limit)
        return [row["id"] for row in rows]

    async def requeue(self, person_ids: Sequence[int]) -> None:
        """Put people at the end of the scrub's queue."""
        await self._execute(
            "UPDATE fubd.person SET scrub_after = (SELECT max(scrub_after) FROM fubd.person WHERE gone_at IS NULL)"
            " WHERE id = ANY($1::bigint[])",
            sorted(person_ids),
        )

    async def note_scrub(self, *, matched: int, mismatched: int) -> None:
        """Add to the round under way, and close it once everyone was verified after it began."""
        latest = "(SELECT max(p.scrub_after) FROM fubd.person p WHERE p.gone_at IS NULL)"
        async with self.fenced() as connection:
            await connection.execute(
                f"UPDATE fubd.scrub SET round_began = coalesce(round_began, {latest}),"
                " matched = matched + $1, mismatched = mismatched + $2",
                matched,
                mismatched,
            )
            await connection.execute(
                "UPDATE fubd.scrub SET last_ratio = matched::float8 / greatest(matched + mismatched, 1),"
                " last_people = matched + mismatched,"
                f" last_finished = now(), round_began = {latest}, matched = 0, mismatched = 0"
                " WHERE matched + mismatched > 0"
                " AND NOT EXISTS (SELECT FROM fubd.person p WHERE p.gone_at IS NULL AND p.scrub_after <= fubd.scrub.round_began)"
            )

    async def mark_deleted(self, person_id: int, at: datetime) -> None:
        """Mark a person gone, unless they were read since; never makes a row."""
        async with self._pool.transaction() as connection:
            await connection.execute(
                "UPDATE fubd.person SET gone_at = coalesce(gone_at, $2) WHERE id = $1 AND (verified_at IS NULL OR verified_at <= $2)",
                person_id,
                at,
            )
            await connection.execute("DELETE FROM fubd.hint WHERE person_id = $1 AND since <= $2", person_id, at)

    async def due_refetches(self, limit: int) -> list[PendingRefetch]:
        """Give people to be read: those never asked for before those who were not there, of whom the deleted come last."""
        rows = await self._fetch(
            "SELECT person_id, since, attempts, deleted FROM fubd.hint WHERE not_before <= now()"
            " ORDER BY deleted AND attempts > 0, attempts, asked_at, person_id LIMIT $1",
            limit,
        )
        return [PendingRefetch(row["person_id"], row["since"], row["attempts"], row["deleted"]) for row in rows]

    async def postpone_refetches(self, person_ids: Sequence[int], *, delay_seconds: float) -> None:
        """Put off hints, counting the attempt."""
        await self._execute(
            "UPDATE fubd.hint SET attempts = attempts + 1, not_before = now() + make_interval(secs => $2)"
            " WHERE person_id = ANY($1::bigint[])",
            sorted(person_ids),
            delay_seconds,
        )

    async def drop_refetches(self, person_ids: Sequence[int]) -> None:
        """Give up hints."""
        await self._execute("DELETE FROM fubd.hint WHERE person_id = ANY($1::bigint[])", sorted(person_ids))

    async def highest_person_id(self) -> int:
        """Give the highest id known."""
        row = await self._fetchrow("SELECT coalesce(max(id), 0) AS highest FROM fubd.person")
        return int(row["highest"])

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> int | None:
        """Take or renew the lease by the database's clock; a new holder gets a new token."""
        row = await self._fetchrow(
            "INSERT INTO fubd.lease AS l (name, holder, token, expires_at)"
            " VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))"
            " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at,"
            " token = l.token + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END"
            " WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp() RETURNING token",
            _LEASE,
            holder,
            ttl_seconds,
        )
        if row is None:
            return None
        self._token = int(row["token"])
        return self._token

    async def release_lease(self, holder: str) -> None:
        """Give the lease back."""
        await self._execute("UPDATE fubd.lease SET expires_at = '-infinity' WHERE name = $1 AND holder = $2", _LEASE, holder)
