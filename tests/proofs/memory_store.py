"""The database in memory: what `fubd/sql/state` does for the poller, without Postgres, for the sake of speed.

The laws of what it records are proved on Postgres itself in `tests/store/test_histories.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter

from fubd.core.pacing import Hysteresis
from fubd.core.reconcile import Row
from fubd.core.stored_state import Coverage, CurrentStage, LastHeard, ModeRecord, PendingRefetch, UnreadPerson
from fubd.errors import Unavailable
from fubd.ports import Clock
from tests.proofs.memory_recording import NEVER, MemoryTransaction, Person, Tables


@dataclass(slots=True)
class _Unread:
    since: datetime
    not_before: datetime
    attempts: int = 0


@dataclass(slots=True)
class _ScrubRound:
    began: datetime | None = None
    matched: int = 0
    mismatched: int = 0


class MemoryStore(Tables):
    """Satisfies `ChangeStore`, `StateStore` and `WebhookHosts`.

    `outage`: every call fails. `lost_replies`: so many transactions are committed without a reply. `on_advance` is called before coverage
    advances, with the new watermark; `on_round` when completeness is stated, with the number of people who did not match.
    """

    def __init__(
        self, clock: Clock, *, on_advance: Callable[[datetime], None] | None = None, on_round: Callable[[int], None] | None = None
    ) -> None:
        super().__init__()
        self.clock = clock
        self.outage: Unavailable | None = None
        self.lost_replies = 0
        self.completeness: float | None = None
        self.modes: list[ModeRecord] = []
        self._on_advance = on_advance
        self._on_round = on_round
        self._unread: dict[int, _Unread] = {}
        self._scrub = _ScrubRound()
        self._polled: datetime | None = None
        self._runs: dict[int, str] = {}
        self._hosts: set[str] = set()

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        for person in self.people.values():
            yield from person.rows.values()

    def knows(self, person_id: int, at: datetime) -> bool:
        """Return whether evidence of this instant or a later one about the person is recorded."""
        person = self.people.get(person_id)
        return person is not None and any(claim.at >= at for claim in person.claims.values())

    def is_unread(self, person_id: int) -> bool:
        """Return whether the person is kept as one who could not be read."""
        return person_id in self._unread

    def check(self) -> None:
        """Raise Unavailable while the database is away."""
        if self.outage is not None:
            raise self.outage

    # --- ChangeStore --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[MemoryTransaction]:
        """Open a transaction."""
        self.check()
        yield MemoryTransaction(self)
        if self.lost_replies:
            self.lost_replies -= 1
            raise Unavailable("the reply to COMMIT was lost")

    async def committed_by_this_process(self, keys: Sequence[bytes], received_at: datetime) -> frozenset[bytes]:
        """Return which of these deliveries were stored since."""
        self.check()
        return frozenset(key for key in keys if self.deliveries.get(key, NEVER) >= received_at)

    # --- StateStore: coverage and runs --------------------------------------------------------------------------------

    async def coverage(self) -> Coverage:
        """Return the coverage record."""
        self.check()
        return self.stored_coverage

    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        """Save how far a sweep has come."""
        self.check()
        known = self.stored_coverage
        self.stored_coverage = replace(known, began=known.began or began, sweep_began=began, sweep_from_id=from_id)

    async def advance_coverage(self, watermark: datetime, *, sweep: bool) -> datetime:
        """Advance coverage, never backwards."""
        self.check()
        if self._on_advance is not None:
            self._on_advance(watermark)
        known = self.stored_coverage
        now = watermark if known.watermark is None else max(watermark, known.watermark)
        self.stored_coverage = replace(known, watermark=now, began=known.began or watermark)
        if sweep:
            self.stored_coverage = replace(self.stored_coverage, sweep_began=None, sweep_from_id=None)
            if self.completeness is None and any(one.verified_at and not one.gone_at for one in self.people.values()):
                self._state_completeness(1.0, mismatched=0)
        return now

    async def start_run(self, kind: str, started_at: datetime, *, next_within_seconds: float | None = None) -> int:
        """Insert a poll run."""
        del started_at, next_within_seconds
        self.check()
        run_id = len(self._runs)
        self._runs[run_id] = kind
        return run_id

    async def finish_run(
        self, run_id: int, *, outcome: str, finished_at: datetime, people: int, calls: int, changes: int, note: str | None
    ) -> None:
        """Save how a poll run ended."""
        del people, calls, changes, note
        self.check()
        if outcome == "ok" and self._runs[run_id] != "scrub":
            self._polled = finished_at if self._polled is None else max(self._polled, finished_at)

    async def last_heard(self) -> LastHeard:
        """Return when each source was last heard."""
        self.check()
        return LastHeard(self.webhook_heard, self.stage_webhook_heard, self._polled)

    # --- StateStore: the mode -----------------------------------------------------------------------------------------

    async def last_mode(self) -> ModeRecord | None:
        """Return the mode in force."""
        self.check()
        return self.modes[-1] if self.modes else None

    async def missed_changes(self, *, fub_now: datetime, missed_after_seconds: float) -> frozenset[int]:
        """Return the unconfirmed changes that are old enough."""
        self.check()
        latest = fub_now - timedelta(seconds=missed_after_seconds)
        return frozenset(change_id for change_id, changed_at in self.unconfirmed.items() if changed_at <= latest)

    async def insert_mode(self, record: ModeRecord, *, evidence: dict[str, object], missed: Collection[int] = ()) -> None:
        """Save a change of mode."""
        del evidence
        self.check()
        self.modes.append(record)
        self._count_missed(missed)

    async def update_mode(self, reason: str, delay_seconds: float, hysteresis: Hysteresis, *, missed: Collection[int] = ()) -> None:
        """Save how the mode in force goes on."""
        self.check()
        self.modes[-1] = replace(self.modes[-1], reason=reason, delay_seconds=delay_seconds, hysteresis=hysteresis)
        self._count_missed(missed)

    def _count_missed(self, missed: Collection[int]) -> None:
        for change_id in missed:
            self.unconfirmed.pop(change_id, None)

    # --- StateStore: the scrub ----------------------------------------------------------------------------------------

    def _present(self) -> list[tuple[int, Person]]:
        return [(person_id, person) for person_id, person in self.people.items() if person.gone_at is None]

    def _latest_scrub(self) -> datetime:
        return max((person.scrub_after for _, person in self._present()), default=NEVER)

    async def oldest_verified(self, limit: int) -> list[int]:
        """Return known people, longest unverified first."""
        self.check()
        queue = sorted(self._present(), key=lambda found: (found[1].scrub_after, found[0]))
        return [person_id for person_id, _ in queue[:limit]]

    async def current_stages(self, person_ids: Collection[int]) -> dict[int, CurrentStage]:
        """Return the stage of the last row of each of these people, or of their first read where they have none."""
        self.check()
        found = {person_id: self.stage_of(person_id) for person_id in person_ids}
        return {person_id: stage for person_id, stage in found.items() if stage is not None}

    def stage_of(self, person_id: int) -> CurrentStage | None:
        """Return the stage of a person's last row, or of their first claim."""
        person = self.people[person_id]
        rows = [(row.changed_at, row.id, row.stage) for row in person.rows.values()]
        claims = [(claim.at, claim.seq, claim.stage) for claim in person.claims.values() if not claim.ignored]
        if not rows and not claims:
            return None
        since, _, stage = max(rows) if rows else min(claims)
        return CurrentStage(stage, since, gone=person.gone_at is not None, ignored=False)

    async def requeue(self, person_ids: Sequence[int]) -> None:
        """Put people at the end of the queue."""
        self.check()
        latest = self._latest_scrub()
        for person_id in person_ids:
            self.people[person_id].scrub_after = latest

    async def note_scrub(self, *, matched: int, mismatched: int) -> None:
        """Add to the scrub round, and close it when it is complete."""
        self.check()
        scrub = self._scrub
        scrub.began = scrub.began or self._latest_scrub()
        scrub.matched += matched
        scrub.mismatched += mismatched
        is_open = any(person.scrub_after <= scrub.began for _, person in self._present())
        if not is_open and scrub.matched + scrub.mismatched:
            verified = sum((person.verified_at or NEVER) > scrub.began for _, person in self._present())
            self._state_completeness((verified - min(scrub.mismatched, verified)) / max(verified, 1), mismatched=scrub.mismatched)
            self._scrub = _ScrubRound(began=self._latest_scrub())

    def _state_completeness(self, ratio: float, *, mismatched: int) -> None:
        self.completeness = ratio
        if self._on_round is not None:
            self._on_round(mismatched)

    async def mark_deleted(self, person_id: int, at: datetime) -> None:
        """Mark a person as gone, and drop an older request."""
        self.check()
        person = self.people.get(person_id)
        if person is not None and (person.verified_at is None or person.verified_at <= at):
            person.gone_at = person.gone_at or at
        request = self.requests.get(person_id)
        if request is not None and request.since <= at:
            del self.requests[person_id]

    # --- StateStore: people to be read --------------------------------------------------------------------------------

    async def due_refetches(self, limit: int) -> list[PendingRefetch]:
        """Return the requests that are due."""
        self.check()
        now = self.clock.now()
        due = [(person_id, request) for person_id, request in self.requests.items() if request.not_before <= now]
        due.sort(key=lambda found: (found[1].deleted and found[1].attempts > 0, found[1].attempts, found[1].asked_at, found[0]))
        return [PendingRefetch(person_id, request.since, request.attempts, request.deleted) for person_id, request in due[:limit]]

    async def postpone_refetches(self, person_ids: Sequence[int], *, delay_seconds: float) -> None:
        """Postpone requests."""
        self.check()
        for person_id in person_ids:
            if person_id in self.requests:
                self.requests[person_id].attempts += 1
                self.requests[person_id].not_before = self.clock.now() + timedelta(seconds=delay_seconds)

    async def drop_refetches(self, person_ids: Sequence[int]) -> None:
        """Drop requests."""
        self.check()
        for person_id in person_ids:
            self.requests.pop(person_id, None)

    async def unread_people(self) -> list[UnreadPerson]:
        """Return the people who could not be read."""
        self.check()
        unread = [UnreadPerson(person_id, one.since, one.not_before) for person_id, one in self._unread.items()]
        return sorted(unread, key=attrgetter("not_before", "person_id"))

    async def add_unread(self, person_ids: Collection[int], now: datetime) -> None:
        """Note people who could not be read."""
        self.check()
        for person_id in person_ids:
            known = self._unread.get(person_id)
            if known is None:
                self._unread[person_id] = _Unread(now, now + timedelta(minutes=1))
            else:
                known.not_before = now + min(timedelta(hours=6), timedelta(minutes=1) * 2 ** min(known.attempts, 10))
                known.attempts += 1

    async def drop_unread(self, person_ids: Collection[int]) -> None:
        """Forget that these people could not be read."""
        self.check()
        for person_id in person_ids:
            self._unread.pop(person_id, None)

    # --- The lease and the hosts --------------------------------------------------------------------------------------

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> int | None:
        """Grant the lease: there is one instance."""
        del holder, ttl_seconds
        self.check()
        return 1

    async def release_lease(self, holder: str) -> None:
        """Release the lease."""
        del holder
        self.check()

    async def webhook_hosts(self) -> frozenset[str]:
        """Return the hosts at which FUB reached us."""
        self.check()
        return frozenset(self._hosts)

    async def remember_webhook_host(self, host: str) -> None:
        """Add a host."""
        self.check()
        self._hosts.add(host)
