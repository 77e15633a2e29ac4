"""What the poller and pacing must find again after a restart: coverage, runs, modes, refetch requests, the scrub and the lease."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg

from fubd.core.api import AccountIdentity
from fubd.core.history import Stage
from fubd.core.pacing import Hysteresis
from fubd.core.stored_state import Coverage, CurrentStage, LastHeard, ModeRecord, PendingRefetch, UnreadPerson
from fubd.errors import Unavailable
from fubd.store import statements
from fubd.store.errors import emptied
from fubd.store.pool import Pool
from fubd.store.statements import parse_instant

_LEASE = "poller"
_COVERAGE = "fubd.coverage"


class StateStore:
    """Works through the pool; satisfies `fubd.ports.StateStore`. `alerting`: a change of mode also inserts an alert.

    A store that once held the lease is fenced: while another instance holds it, every write that decides something (the mode, the sweep,
    the scrub's counts) raises Unavailable. All other writes are right whichever instance makes them. A store that never held the lease
    belongs to a recovery run, which may run next to the holder.
    """

    def __init__(self, pool: Pool, *, alerting: bool = False) -> None:
        self._pool = pool
        self._alerting = alerting
        self._token: int | None = None

    @asynccontextmanager
    async def fenced(self) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction during which no instance can take the lease. Raises Unavailable when another one holds it."""
        async with self._pool.transaction() as connection:
            if self._token is not None:
                row = await statements.query("state/lock_lease").fetchrow(connection, name=_LEASE)
                if row is None or row["token"] != self._token:
                    raise Unavailable("another instance polls now")
            yield connection

    async def coverage(self) -> Coverage:
        """Return the coverage record."""
        row = next(iter(await self._read("state/coverage")), None)
        if row is None:
            raise emptied(_COVERAGE, self._pool.place)
        began, reached, sweep_began = (parse_instant(row[name]) for name in ("began", "reached", "sweep_began"))
        return Coverage(began, reached, sweep_began, row["sweep_from_id"])

    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        """Save how far a sweep has come; the first of all also sets the instant from which we watch."""
        async with self.fenced() as connection:
            await statements.query("state/begin_sweep").execute(connection, began=began, from_id=from_id)

    async def save_stages(self, stages: Mapping[str, int], at: datetime) -> None:
        """Save the account's stages, name to id in their own order, as its list shows them `at` an instant of FUB's clock."""
        await self._execute("state/save_stages", names=list(stages), ids=list(stages.values()), at=at)

    async def advance_coverage(self, watermark: datetime, *, sweep: bool) -> datetime:
        """Advance coverage, never backwards, and return it. The first complete sweep is the first complete scrub round too."""
        async with self._pool.transaction() if sweep else self._pool.statement() as connection:
            rows = await statements.fetch_directly(connection, "state/advance_coverage", watermark=watermark, sweep=sweep)
            if sweep:
                await statements.query("state/complete_baseline").execute(connection)
        if not rows:
            raise emptied(_COVERAGE, self._pool.place)
        return datetime.fromisoformat(rows[0]["reached"]).astimezone(UTC)

    async def start_run(self, kind: str, started_at: datetime, *, next_within_seconds: float | None = None) -> int:
        """Insert a poll run and return its id."""
        rows = await self._fetch_directly("state/insert_run", kind=kind, started_at=started_at, next_within_seconds=next_within_seconds)
        return int(rows[0]["id"])

    async def finish_run(
        self, run_id: int, *, outcome: str, finished_at: datetime, people: int, calls: int, changes: int, note: str | None
    ) -> None:
        """Save how a poll run ended."""
        await self._fetch_directly(
            "state/finish_run",
            run_id=run_id,
            outcome=outcome,
            finished_at=finished_at,
            people=people,
            calls=calls,
            changes=changes,
            note=note,
        )

    async def last_heard(self) -> LastHeard:
        """Return when each source was last heard."""
        row = await self._fetchrow("state/last_heard")
        return LastHeard(row["webhook"], row["stage_webhook"], row["polling"])

    async def last_mode(self) -> ModeRecord | None:
        """Return the mode in force; None on a fresh database."""
        row = await self._fetchrow("state/current_mode")
        if row is None:
            return None
        hysteresis = None
        if row["relapses"] is not None:
            hysteresis = Hysteresis(row["proven_at"], row["missed"], row["heard_again_at"], row["relapses"])
        return ModeRecord(row["mode"], row["reason"], row["delay_seconds"], row["at"], hysteresis)

    async def missed_changes(self, *, fub_now: datetime, missed_after_seconds: float) -> frozenset[int]:
        """Return the unconfirmed changes found by polling that are old enough and were not counted yet."""
        rows = await self._fetch("state/missed_changes", fub_now=fub_now, missed_after_seconds=missed_after_seconds)
        return frozenset(row["change_id"] for row in rows)

    async def insert_mode(self, record: ModeRecord, *, evidence: dict[str, object], missed: Collection[int] = ()) -> None:
        """Save a change of mode with its evidence and its alert, and count the missed changes that proved it."""
        hysteresis = record.hysteresis or Hysteresis()
        alert = {
            "kind": "mode",
            "mode": record.mode,
            "before": evidence.get("before"),
            "reason": record.reason,
            "poll_interval_seconds": record.delay_seconds,
            "at": record.since.isoformat(),
        }
        async with self.fenced() as connection:
            await statements.query("state/insert_mode").execute(
                connection,
                at=record.since,
                mode=record.mode,
                reason=record.reason,
                delay_seconds=record.delay_seconds,
                proven_at=hysteresis.proven_at,
                missed=hysteresis.missed,
                heard_again_at=hysteresis.heard_again_at,
                relapses=hysteresis.relapses if record.hysteresis is not None else None,
                evidence=json.dumps(evidence, default=str),
                alert=json.dumps(alert) if self._alerting else None,
                missed_changes=sorted(missed),
            )

    async def update_mode(self, reason: str, delay_seconds: float, hysteresis: Hysteresis, *, missed: Collection[int] = ()) -> None:
        """Save how the mode in force goes on, and count missed changes."""
        async with self.fenced() as connection:
            await statements.query("state/update_mode").execute(
                connection,
                reason=reason,
                delay_seconds=delay_seconds,
                proven_at=hysteresis.proven_at,
                missed=hysteresis.missed,
                heard_again_at=hysteresis.heard_again_at,
                relapses=hysteresis.relapses,
                missed_changes=sorted(missed),
            )

    async def oldest_verified(self, limit: int) -> list[int]:
        """Return known people, longest unverified first."""
        return [row["id"] for row in await self._fetch("state/oldest_verified", limit=limit)]

    async def current_stages(self, person_ids: Collection[int]) -> dict[int, CurrentStage]:
        """Return the stage that each of these people is in here; people without a known stage are left out."""
        rows = await self._fetch("state/current_stages", person_ids=sorted(person_ids))
        return {row["id"]: CurrentStage(Stage(row["stage"], row["stage_id"]), row["since"], row["gone"], row["ignored"]) for row in rows}

    async def requeue(self, person_ids: Sequence[int]) -> None:
        """Put people at the end of the scrub's queue."""
        await self._execute("state/requeue", person_ids=sorted(person_ids))

    async def note_scrub(self, *, matched: int, mismatched: int) -> None:
        """Add to the scrub round in progress, and close it once every person was verified after it began."""
        async with self.fenced() as connection:
            await statements.query("state/count_scrubbed").execute(connection, matched=matched, mismatched=mismatched)
            await statements.query("state/close_scrub_round").execute(connection)

    async def mark_deleted(self, person_id: int, at: datetime) -> None:
        """Mark a person as gone and drop their refetch request, unless they were read or requested after `at`."""
        async with self._pool.transaction() as connection:
            await statements.query("state/mark_deleted").execute(connection, person_id=person_id, at=at)
            await statements.query("state/drop_refetch_before").execute(connection, person_id=person_id, at=at)

    async def due_refetches(self, limit: int) -> list[PendingRefetch]:
        """Return refetch requests that are due: first attempts first, and last those of deleted people who were not found."""
        rows = await self._fetch_directly("state/due_refetches", limit=limit)
        return [PendingRefetch(row["person_id"], datetime.fromisoformat(row["since"]), row["attempts"], row["deleted"]) for row in rows]

    async def postpone_refetches(self, person_ids: Sequence[int], *, delay_seconds: float) -> None:
        """Postpone refetch requests, counting the attempt."""
        await self._execute("state/postpone_refetches", person_ids=sorted(person_ids), delay_seconds=delay_seconds)

    async def drop_refetches(self, person_ids: Sequence[int]) -> None:
        """Drop refetch requests."""
        await self._execute("state/drop_refetches", person_ids=sorted(person_ids))

    async def unread_people(self) -> list[UnreadPerson]:
        """Return the people who could not be read, those due longest first."""
        rows = await self._read("state/unread")
        return [
            UnreadPerson(row["person_id"], datetime.fromisoformat(row["since"]), datetime.fromisoformat(row["not_before"])) for row in rows
        ]

    async def add_unread(self, person_ids: Collection[int], now: datetime) -> None:
        """Note people who could not be read, and when to ask for them again."""
        await self._execute("state/add_unread", person_ids=sorted(person_ids), now=now)

    async def drop_unread(self, person_ids: Collection[int]) -> None:
        """Forget that these people could not be read."""
        await self._execute("state/drop_unread", person_ids=sorted(person_ids))

    async def webhook_hosts(self) -> frozenset[str]:
        """Return the hosts at which FUB reached the daemons of this database."""
        return frozenset(row["host"] for row in await self._read("state/webhook_hosts"))

    async def remember_webhook_host(self, host: str) -> None:
        """Add a host at which FUB reaches a daemon of this database."""
        await self._execute("state/insert_webhook_host", host=host)

    async def account(self) -> AccountIdentity | None:
        """Return the account whose people are recorded here; None before it is known."""
        rows = await self._read("state/account")
        return AccountIdentity(rows[0]["id"], rows[0]["name"]) if rows else None

    async def keep_account(self, account: AccountIdentity) -> AccountIdentity:
        """Keep this account if there is none. Return the one that is kept."""
        await self._execute("state/insert_account", id=account.id, name=account.name)
        return await self.account() or account

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> int | None:
        """Take or renew the lease by the database's clock and return its token, a new one for a new holder; None when another holds it."""
        row = await self._fetchrow("state/acquire_lease", name=_LEASE, holder=holder, ttl_seconds=ttl_seconds)
        if row is None:
            return None
        self._token = int(row["token"])
        return self._token

    async def release_lease(self, holder: str) -> None:
        """Release the lease."""
        await self._execute("state/release_lease", name=_LEASE, holder=holder)

    async def _read(self, statement: str, /) -> list[dict[str, Any]]:
        """Return the rows of a statement about little, in one round trip through every pooler; instants are texts."""
        async with self._pool.combined() as connection:
            return (await statements.combine(rows=statement).fetch(connection))["rows"]

    async def _fetchrow(self, statement: str, /, **values: object) -> asyncpg.Record:
        async with self._pool.statement() as connection:
            return await statements.query(statement).fetchrow(connection, **values)

    async def _fetch(self, statement: str, /, **values: object) -> list[asyncpg.Record]:
        async with self._pool.statement() as connection:
            return await statements.query(statement).fetch(connection, **values)

    async def _fetch_directly(self, statement: str, /, **values: object) -> list[dict[str, Any]]:
        """Return the rows of a statement that is run rarely, in one round trip; instants are texts."""
        async with self._pool.statement() as connection:
            return await statements.fetch_directly(connection, statement, **values)

    async def _execute(self, statement: str, /, **values: object) -> None:
        async with self._pool.statement() as connection:
            await statements.query(statement).execute(connection, **values)
