"""What the parts expect of each other: protocols, and the values that cross them.

No part imports another's implementation: the composition root gives each part its neighbours, which satisfy the protocols below.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from fubd.core.alerts import Alert
from fubd.core.api import PeoplePage
from fubd.core.batch import NewRefetch, PersonFacts, ReceivedDelivery
from fubd.core.explanation import KnownPerson, PersonEvidence
from fubd.core.observation import Delivery, Reading, Snapshot
from fubd.core.pacing import Hysteresis
from fubd.core.problems import Problem
from fubd.core.reconcile import Claim, NewRow, PersonHistory, Row, RowUpdate
from fubd.core.stored_state import Coverage, CurrentStage, LastHeard, ModeRecord, PendingRefetch, UnreadPerson
from fubd.core.subscriptions import Subscription, SubscriptionList
from fubd.core.vocabulary import DeliveryOutcome


class Clock(Protocol):
    """Our own clock. The daemon's is the machine's; a test's may run faster."""

    def now(self) -> datetime:
        """Return our wall clock, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never decrease."""

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (return True) or the seconds have passed (return False)."""


class Lease(Protocol):
    """Leadership among the instances on one database: only the leader polls and changes webhook subscriptions."""

    @property
    def held(self) -> bool:
        """Whether this instance is the leader now."""

    @property
    def gained(self) -> asyncio.Event:
        """Set when this instance becomes the leader; the part that waits for it clears it."""


# --- Follow Up Boss -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeopleQuery:
    """One call of `GET /people`. Trash and unclaimed people are always included.

    `updated_after` in FUB's time. `next` is the opaque token of the page before; `limit` is at most 100.
    """

    limit: int = 100
    ids: tuple[int, ...] | None = None
    sort: str | None = None
    offset: int | None = None
    next: str | None = None
    updated_after: datetime | None = None
    id_greater_than: int | None = None
    id_less_than: int | None = None


class FubApi(Protocol):
    """Follow Up Boss. Every method raises Unavailable when FUB could not answer within the bounded retries."""

    def fub_now(self) -> datetime:
        """Return FUB's clock: ours corrected by the skew last measured (0 before the first answer)."""

    def skew_seconds(self) -> float:
        """Return our clock minus FUB's, in seconds, as last measured; 0 before the first answer."""

    def calls_made(self) -> int:
        """Return how many requests were sent so far, retries included."""

    async def people(self, query: PeopleQuery) -> PeoplePage:
        """Read one page of people."""

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        """Read one person by id, Trash included, and when they were read (see `PeoplePage.read_at`). None when FUB answers 404."""

    async def stages(self) -> dict[str, int]:
        """Read all stages: name to id."""

    async def subscriptions(self) -> SubscriptionList:
        """Read our system's webhooks. Raises FubRefused when the key may not."""

    async def subscribe(self, event: str, url: str) -> Subscription:
        """Create a webhook. Raises FubRefused."""

    async def update_subscription(self, subscription_id: int, *, url: str | None = None, status: str | None = None) -> Subscription | None:
        """Correct a webhook's url, status or both. Raises FubRefused."""


# --- Ingest ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SnapshotResult:
    """What a committed snapshot brought.

    `changes`: rows that these readings made. `mismatched`: known people whose stage was not the one we held, so that a change had been
    reported by no source. `first_seen`: people read for the first time. `refused`: people that the table refused; nothing of them was
    recorded, so they count as not read.
    """

    changes: int
    mismatched: frozenset[int]
    first_seen: int
    refused: frozenset[int] = frozenset()


class SnapshotSink(Protocol):
    """Records people as read."""

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Record readings; return once they are committed. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The ids of the rows that one commit touched: new, corrected, updated without a correction, or merged into another row."""

    recorded: Sequence[int] = ()
    corrected: Sequence[int] = ()
    updated: Sequence[int] = ()
    removed: Sequence[int] = ()


class Ingestor(SnapshotSink, Protocol):
    """Records what both sources report (`ingest`)."""

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Queue a delivery; the result comes once it is committed. Unavailable at once means that it was not queued.

        A caller may stop waiting by setting the future itself; the delivery is recorded all the same when that becomes possible.
        """

    def is_partly_recorded(self, delivery: Delivery) -> bool:
        """Return whether some of the people of a queued delivery are committed, so that the others follow soon."""


# --- One transaction of ingest, as the database carries it out ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InsertedEvidence:
    """What of the evidence was new: keys of deliveries, seqs of claims.

    `upserted`: the new claims, and those that a repetition widened. `known`: who of the people had been read before. `began`: FUB's instant
    since when we watch; None before the first baseline started. `histories`: what stands near the claims, when any was upserted.
    """

    deliveries: frozenset[bytes]
    claims: frozenset[int]
    upserted: frozenset[int]
    known: frozenset[int]
    began: datetime | None
    histories: Sequence[PersonHistory]


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The difference to be written. `evidence`: the JSON text for raw_payload, by the seq of the claim that dates a row.

    `now` is our clock's; `alert_since`, before which changes are of the past and make no alert, is FUB's.
    """

    inserts: Sequence[NewRow]
    updates: Sequence[RowUpdate]
    merged: Sequence[Row]
    refetches: Sequence[NewRefetch]
    evidence: Mapping[int, str]
    now: datetime
    alert_since: datetime


class RecordingTransaction(Protocol):
    """The steps of a transaction, in this order. Nothing is stored before `commit`."""

    async def insert_claims(
        self, deliveries: Sequence[ReceivedDelivery], claims: Collection[Claim], people: Collection[int], since: Mapping[int, datetime]
    ) -> InsertedEvidence:
        """Store deliveries, lock people, add claims, load what stands near them: for each person from the last row before `since` on.

        Of the claims of that row's own second, only the reads that show its stage are included.
        """

    async def commit(self, facts: Sequence[PersonFacts], changes: ChangeSet | None) -> None:
        """Store people as read, fill the rows that waited for it and answer their refetch requests; write the difference; commit."""


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row of stage_changes as readers see it: its id, and all its columns but the evidence as a JSON object."""

    id: int
    json: str

    def to_dict(self) -> dict[str, Any]:
        """Return the columns as JSON values."""
        columns: dict[str, Any] = json.loads(self.json)
        return columns


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Which changes a reader asks for: those into a stage, of an agent's people, first seen by a source. None: all."""

    stage: str | None = None
    agent: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class StageCounts:
    """How many changes entered a stage today, yesterday and in seven days. `polling_only`: those of today that no webhook reported."""

    stage: str
    today: int
    yesterday: int
    week: int
    polling_only: int


@dataclass(frozen=True, slots=True)
class BlindSpan:
    """A time (our clock) in which neither webhooks nor polls were alive."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Absence:
    """A time (our clock) in which fubd did not run (`kind` is `not_running`) or could not record (`not_recording`)."""

    kind: str
    since: datetime
    until: datetime


class PeopleReader(Protocol):
    """People and their evidence, as the status page shows them. Every method raises Unavailable."""

    async def find_by_name(self, text: str, limit: int) -> list[KnownPerson]:
        """Return people whose name contains the text in any case, the last changed first."""

    async def evidence(self, person_id: int) -> PersonEvidence | None:
        """Return everything stored about a person; None for an unknown id."""


class ChangeReader(Protocol):
    """Recorded changes, as clients of the server read them. Every method raises Unavailable."""

    async def safe_id(self) -> int:
        """Return the id up to which no further row can appear. It never goes back."""

    async def page(self, after: int, limit: int, *, up_to: int | None = None) -> Sequence[ShownRow]:
        """Return at most `limit` rows with ids above `after`, ascending, none above the safe id; `up_to`: one that was read before.

        A row that becomes visible later has an id above every row returned, so a client that pages by id gets it.
        """

    async def filtered(self, chosen: ChangeFilter, *, before: int | None, limit: int) -> Sequence[ShownRow]:
        """Return the latest of the chosen rows that come before row `before`, newest first."""

    async def by_ids(self, ids: Sequence[int]) -> Sequence[ShownRow]:
        """Return the rows with these ids; ids without a row are left out."""

    async def last_correction_id(self) -> int:
        """Return the id of the newest correction, 0 for none."""

    async def corrections(self, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return at most `limit` corrections with ids above `after`, ascending: the correction's id, and the id of the corrected row.

        A row that was merged into another one is among them, and `by_ids` then leaves it out.
        """

    async def news(self, after_correction: int, limit: int) -> tuple[int, Sequence[tuple[int, int]]]:
        """Return what `safe_id` and `corrections` return, in one statement."""


class ChangeStore(Protocol):
    """Where ingest records."""

    def recording(self) -> AbstractAsyncContextManager[RecordingTransaction]:
        """Open a transaction. Raises Unavailable (all of it may be tried again), or Malformed (some of it can never be stored)."""

    async def committed_by_this_process(self, keys: Sequence[bytes], received_at: datetime) -> frozenset[bytes]:
        """Return which of these deliveries this very process stored since `received_at`, after a COMMIT whose reply was lost."""


# --- State that survives a restart ----------------------------------------------------------------------------------


class WebhookHosts(Protocol):
    """The hosts at which FUB reached the daemons of this database. Every method raises Unavailable."""

    async def webhook_hosts(self) -> frozenset[str]:
        """Return them."""

    async def remember_webhook_host(self, host: str) -> None:
        """Add one."""


class StateStore(Protocol):
    """The daemon's memory in the database. Every method raises Unavailable."""

    async def coverage(self) -> Coverage:
        """Return how far the account is recorded."""

    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        """Store that a sweep begun at `began` (FUB's time) has read every id below `from_id`; sets `Coverage.began` where it is None."""

    async def advance_coverage(self, watermark: datetime, *, sweep: bool) -> datetime:
        """Advance the watermark (never backwards) and return what it is now; `sweep` also clears the state of the sweep."""

    async def start_run(self, kind: str, started_at: datetime, *, next_within_seconds: float | None = None) -> int:
        """Store that a poll run started (kind incremental, scrub or sweep; our clock); return its id.

        `next_within_seconds`: within what time another run follows, 0 for none; None where the delay of the mode says it.
        """

    async def finish_run(
        self,
        run_id: int,
        *,
        outcome: str,
        finished_at: datetime,
        people: int,
        calls: int,
        changes: int,
        note: str | None,
    ) -> None:
        """Store how a poll run ended: outcome ok or failed (our clock)."""

    async def last_heard(self) -> LastHeard:
        """Return when each source was last heard."""

    async def last_mode(self) -> ModeRecord | None:
        """Return the mode last announced; None on a fresh database."""

    async def missed_changes(self, *, fub_now: datetime, missed_after_seconds: float) -> frozenset[int]:
        """Return the changes found by polling that are older than this, that no webhook has reported since, and that were not counted yet.

        They are counted by giving them to `insert_mode` or `update_mode`: a process that ends before leaves them to the next.
        """

    async def insert_mode(self, record: ModeRecord, *, evidence: dict[str, object], missed: Collection[int] = ()) -> None:
        """Store a change of mode with its evidence, and count the missed changes that prove it."""

    async def update_mode(self, reason: str, delay_seconds: float, hysteresis: Hysteresis, *, missed: Collection[int] = ()) -> None:
        """Store how the current mode continues, so that a restart continues it, and count missed changes."""

    async def oldest_verified(self, limit: int) -> list[int]:
        """Return known people, longest unverified first, without those marked as deleted."""

    async def current_stages(self, person_ids: Collection[int]) -> Mapping[int, CurrentStage]:
        """Return the stage that each of these people is in here; people without a known stage are left out."""

    async def requeue(self, person_ids: Sequence[int]) -> None:
        """Put people that a scrub could not verify at the end of its queue; they stay unverified."""

    async def note_scrub(self, *, matched: int, mismatched: int) -> None:
        """Add to the scrub round in progress; a round is complete once everyone was verified after it began."""

    async def mark_deleted(self, person_id: int, at: datetime) -> None:
        """Mark a person as deleted after FUB answered 404 at `at` (its clock), unless read later. Drops an older refetch request."""

    async def due_refetches(self, limit: int) -> list[PendingRefetch]:
        """Return people to be read because a webhook mentioned them, without those postponed.

        First come people never tried, the longest waiting first, then those with the fewest attempts; last come the deleted ones that were
        already looked for.
        """

    async def postpone_refetches(self, person_ids: Sequence[int], *, delay_seconds: float) -> None:
        """Postpone people who could not be read yet, and count the attempt."""

    async def drop_refetches(self, person_ids: Sequence[int]) -> None:
        """Delete refetch requests that will never be answered."""

    async def unread_people(self) -> list[UnreadPerson]:
        """Return the people who could not be read, those due longest first."""

    async def add_unread(self, person_ids: Collection[int], now: datetime) -> None:
        """Note people who could not be read; each time they are seen again the next attempt comes later."""

    async def drop_unread(self, person_ids: Collection[int]) -> None:
        """Forget that these people could not be read: they were read, or are gone."""

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> int | None:
        """Take or renew the lease by the database's clock; return the fencing token, None when another instance holds it."""

    async def release_lease(self, holder: str) -> None:
        """Give the lease back, so that another instance takes over at once."""


# --- Problems and alerts ----------------------------------------------------------------------------------------------


class ProblemStore(Protocol):
    """Keeps the problems over the end of the process. Every method raises Unavailable."""

    async def load(self) -> Sequence[Problem]:
        """Return the problems that other processes reported last."""

    async def unfinished_run(self) -> datetime | None:
        """Return until when the process before this one ran, by its clock; None when it stopped in good order, or when there was none."""

    async def save(self, problems: Collection[Problem], *, ended: Collection[str], alerts: Sequence[Mapping[str, object]]) -> None:
        """Report the problems that hold and those that ended, and put alerts into the outbox, in this order."""


class Outbox(Protocol):
    """Alerts that wait to be sent. Every method raises Unavailable."""

    async def claim(self, limit: int, *, for_seconds: float) -> list[Alert]:
        """Claim alerts that are due, none before an older one of the same person. No other instance gets them within `for_seconds`."""

    async def settle(self, sent: Sequence[int], postponed: Mapping[int, float]) -> None:
        """Remove the sent events and postpone the others, each by its seconds; both by id."""

    async def give_up(self, *, older_than_days: float) -> int:
        """Remove alerts that could not be sent for so long. Return their number."""
