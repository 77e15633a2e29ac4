"""What the parts expect of each other: the protocols, and the three errors named by their remedy.

No part imports another's implementation; the daemon hands each its neighbours, which satisfy the protocols below.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from fubd.core.observation import Delivery, Reading, Snapshot
from fubd.core.pacing import Hysteresis
from fubd.core.reconcile import NewRow, PersonHistory, Row, RowUpdate
from fubd.core.subscriptions import Subscription


class Clock(Protocol):
    """Our own clock. The daemon's is the machine's; a test's may run faster."""

    def now(self) -> datetime:
        """Give our wall clock, aware, UTC."""

    def monotonic(self) -> float:
        """Give seconds that only grow."""

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (True) or the seconds have passed (False)."""


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


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """One answer of `GET /people`.

    `ids` are all ids on the page, in its order, also of the people who could not be read (`unreadable`).
    `read_at` is at or before the moment of reading, in FUB's time; `total` and `next` as far as the page told them.
    """

    readings: tuple[Reading, ...]
    ids: tuple[int, ...]
    unreadable: tuple[int, ...]
    total: int | None
    next: str | None
    read_at: datetime


class FubApi(Protocol):
    """Follow Up Boss. Every method raises Unavailable when FUB could not answer within the bounded retries."""

    def fub_now(self) -> datetime:
        """Give FUB's clock: ours corrected by the skew last measured (0 before the first answer)."""

    def skew_seconds(self) -> float:
        """Give our clock minus FUB's, in seconds, as last measured; 0 before the first answer."""

    def calls_made(self) -> int:
        """Give how many requests were sent so far, retries included."""

    async def people(self, query: PeopleQuery) -> PeoplePage:
        """Read one page of people."""

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        """Read one person by id, Trash included; None when FUB answers 404. Second: `read_at` as in PeoplePage."""

    async def stages(self) -> dict[str, int]:
        """Read all stages: name to id."""

    async def subscriptions(self) -> list[Subscription]:
        """Read our system's webhooks. Raises Refused when the key may not."""

    async def subscribe(self, event: str, url: str) -> Subscription:
        """Create a webhook. Raises Refused."""

    async def update_subscription(self, subscription_id: int, *, url: str | None = None, status: str | None = None) -> Subscription:
        """Correct a webhook. Raises Refused."""


# --- The junction ---------------------------------------------------------------------------------------------------


class DeliveryOutcome(StrEnum):
    """What became of a delivery that is now committed."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class SnapshotResult:
    """What a committed snapshot brought.

    `changes`: rows these readings made. `mismatched`: people already known whose stage was not the one we held, so a change that
    nobody had told. `first_seen`: people read for the first time.
    """

    changes: int
    mismatched: frozenset[int]
    first_seen: int


class SnapshotSink(Protocol):
    """Where readings go."""

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Take readings; returns once they are committed. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The ids of the rows that one commit touched: new, corrected, or updated without a correction in the database."""

    recorded: Sequence[int] = ()
    corrected: Sequence[int] = ()
    updated: Sequence[int] = ()


class Ingestor(SnapshotSink, Protocol):
    """Where both roads meet (`ingest`)."""

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Take a delivery; the answer comes once it is committed. It may be Unavailable at once: then it was not kept.

        Whoever waits may give up by settling the answer; the delivery is recorded all the same when that becomes possible.
        """


# --- The journal: one transaction of ingest, as the database carries it out ------------------------------------------


class KeptDelivery(NamedTuple):
    """A delivery with when it was received (our clock)."""

    delivery: Delivery
    received_at: datetime


class NewClaim(NamedTuple):
    """A claim as it comes in; the first six fields tell it from every other. `ignored`: kept, but it makes no row."""

    person_id: int
    at: datetime
    kind: str
    channel: str
    event_id: str
    stage: str
    stage_id: int | None
    received_at: datetime
    read_at: datetime | None
    covered: datetime | None
    created: datetime | None
    ignored: bool


class InsertedEvidence(NamedTuple):
    """What of it was new: keys of deliveries, seqs of claims. `upserted`: the new claims and those whose knowledge grew.

    `began`: the FUB instant since when we watch; None before the first baseline started.
    """

    deliveries: frozenset[bytes]
    claims: frozenset[int]
    upserted: frozenset[int]
    began: datetime | None


class Facts(NamedTuple):
    """A person as read, with the tag that FUBD_LEAD_SOURCE_TAGS chose, to be kept and to fill rows from."""

    reading: Reading
    read_at: datetime
    lead_source_tag: str | None


class NewRefetch(NamedTuple):
    """A person to be read: by a read that saw `since` (FUB's clock); rows received from `asked_at` (ours) on are filled by it.

    `deleted`, `created`: FUB said that they were.
    """

    person_id: int
    since: datetime
    asked_at: datetime
    deleted: bool
    created: bool


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The difference to be written. Each with the person it is of; `evidence` is the JSON text for raw_payload, by claim seq."""

    recorded: Sequence[tuple[int, NewRow]]
    corrected: Sequence[tuple[int, RowUpdate]]
    merged: Sequence[tuple[int, Row]]
    refetches: Sequence[NewRefetch]
    evidence: Mapping[int, str]
    now: datetime


class RecordingTransaction(Protocol):
    """A transaction under way, in this order: take, load, facts, write. Nothing of it stands until it is left without an error."""

    async def insert_claims(
        self, deliveries: Sequence[KeptDelivery], claims: Collection[NewClaim], people: Collection[int]
    ) -> InsertedEvidence:
        """Keep deliveries, lock people, add claims."""

    async def load_history(self, since: Mapping[int, datetime]) -> list[PersonHistory]:
        """Give what stands near the new claims of each person, from the last row before the given instant on.

        Of the reads of that row's second those are there that show its stage.
        """

    async def upsert_people(self, facts: Sequence[Facts]) -> frozenset[int]:
        """Keep people as read, fill the rows that waited for it, answer their hints; gives who of them was read before."""

    async def apply_changes(self, change_set: ChangeSet) -> None:
        """Write the difference."""


class ShownRow(NamedTuple):
    """A row of stage_changes as readers are shown it: its id, and all its columns but the evidence as a JSON object."""

    id: int
    json: str

    def to_dict(self) -> dict[str, Any]:
        """Return the columns as JSON values."""
        columns: dict[str, Any] = json.loads(self.json)
        return columns


class ChangeReader(Protocol):
    """Recorded changes, as clients of the server read them. Every method raises Unavailable."""

    async def safe_id(self) -> int:
        """Return the id up to which no further row can appear. It never goes back."""

    async def page(self, after: int, limit: int) -> Sequence[ShownRow]:
        """Return at most `limit` rows with ids above `after`, ascending, none above the safe id.

        A row that becomes visible later has an id above every row returned, so a client that pages by id gets it.
        """

    async def by_ids(self, ids: Sequence[int]) -> Sequence[ShownRow]:
        """Return the rows with these ids; ids without a row are left out."""

    async def last_correction_id(self) -> int:
        """Return the id of the newest correction, 0 for none."""

    async def corrections(self, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return at most `limit` corrections with ids above `after`, ascending: the correction's id, and the id of the corrected row."""


class ChangeStore(Protocol):
    """Where ingest records."""

    def recording(self) -> AbstractAsyncContextManager[RecordingTransaction]:
        """Open a transaction. Raises Unavailable (all of it may be tried again), or Malformed (some of it can never be held)."""

    async def committed_by_this_process(self, keys: Sequence[bytes], received_at: datetime) -> frozenset[bytes]:
        """Tell which of these deliveries this very process stored from that instant on, after a COMMIT whose reply was lost."""


# --- The book: what the poller, the keeper and pacing must find again after a restart ---------------------------------


@dataclass(frozen=True, slots=True)
class Coverage:
    """`began`: FUB's instant at which the first baseline started. `reached`: all that changed in FUB before it is recorded.

    Both null until known. `sweep_from_id`: where an interrupted sweep goes on (ids below it are read), with `sweep_began` its start.
    """

    began: datetime | None
    reached: datetime | None
    sweep_began: datetime | None
    sweep_from_id: int | None


@dataclass(frozen=True, slots=True)
class LastHeard:
    """What the database knows of the two sources. `*_received` are our clock's, the others FUB's.

    `webhook_received`: last verified delivery. `stage_webhook_received`: last peopleStageUpdated. `polling_received`: last complete poll.
    """

    webhook_received: datetime | None
    stage_webhook_received: datetime | None
    polling_received: datetime | None


@dataclass(frozen=True, slots=True)
class ModeRecord:
    """The mode last announced, with what is needed to go on from it after a restart. `since` is our clock's.

    `hysteresis` is None where it was not kept, or is not asked for.
    """

    mode: str
    reason: str
    delay_seconds: float
    since: datetime
    hysteresis: Hysteresis | None = None


@dataclass(frozen=True, slots=True)
class PendingRefetch:
    """A person to be read. `since` is FUB's instant that the read must have seen; `attempts` counts reads that found nobody.

    `deleted`: FUB said that they were.
    """

    person_id: int
    since: datetime
    attempts: int
    deleted: bool = False


class StateStore(Protocol):
    """The daemon's memory in the database. Every method raises Unavailable."""

    async def coverage(self) -> Coverage:
        """Give the coverage record."""

    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        """Note that a sweep that began at `began` (FUB's time) has read every id below `from_id`; sets `Coverage.began` when it is null."""

    async def advance_coverage(self, reached: datetime, *, sweep: bool) -> datetime:
        """Advance coverage (never backwards) and give what it is now; `sweep` also clears the sweep's notes."""

    async def start_run(self, kind: str, started_at: datetime) -> int:
        """Note a poll run (kind incremental, scrub or sweep; our clock); gives its id."""

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
        """Note how a poll run ended: outcome ok or failed (our clock)."""

    async def heard(self) -> LastHeard:
        """Give when each source was last heard."""

    async def mode(self) -> ModeRecord | None:
        """Give the mode last announced; None on a fresh database."""

    async def missed(self, *, fub_now: datetime, missed_after_seconds: float) -> frozenset[int]:
        """Give the changes found by polling that are older than this, that no webhook has told since, and that were not counted yet.

        They are counted by being handed to `insert_mode` or `update_mode`: whoever dies before leaves them to the next.
        """

    async def insert_mode(self, record: ModeRecord, *, evidence: dict[str, object], missed: Collection[int] = ()) -> None:
        """Keep a change of mode with its evidence, and count the missed changes that prove it."""

    async def update_mode(self, delay_seconds: float, hysteresis: Hysteresis, *, missed: Collection[int] = ()) -> None:
        """Keep how the current mode goes on, so that it goes on so after a restart, and count missed changes."""

    async def oldest_verified(self, limit: int) -> list[int]:
        """Give known people, longest unverified first, those who are gone left out."""

    async def requeue(self, person_ids: Sequence[int]) -> None:
        """Put people whom a scrub could not settle now at the end of its queue, unverified as they were."""

    async def note_scrub(self, *, matched: int, mismatched: int) -> None:
        """Add to the scrub round under way; a round is complete once everyone was verified after it began."""

    async def mark_deleted(self, person_id: int, at: datetime) -> None:
        """Mark a person gone, for whom FUB answered 404 at its instant `at`, unless read later. Makes no row. Drops an older hint."""

    async def due_refetches(self, limit: int) -> list[PendingRefetch]:
        """Give people to be read because a webhook spoke of them, those put off left out.

        Those never asked for come first, longest waiting first, then those of the fewest attempts; the deleted who were not there last.
        """

    async def postpone_refetches(self, person_ids: Sequence[int], *, delay_seconds: float) -> None:
        """Put off hints whose people could not be read yet, counting the attempt."""

    async def drop_refetches(self, person_ids: Sequence[int]) -> None:
        """Give up hints that will never be answered."""

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> int | None:
        """Take or renew the lease by the database's clock; gives the fencing token, None when another holds it."""

    async def release_lease(self, holder: str) -> None:
        """Give the lease back, so that another instance takes over at once."""


# --- Alerts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `content`: what happened, as JSON values; `attempts`: how often it was tried, this time included.

    The names are those of the person as last read; None for a change of mode, and for a person not read yet.
    """

    id: int
    content: Mapping[str, Any]
    attempts: int
    first_name: str | None
    last_name: str | None


class Outbox(Protocol):
    """Alerts that wait to be sent. Every method raises Unavailable."""

    async def claim(self, limit: int, *, for_seconds: float) -> list[Alert]:
        """Claim alerts that are due, the oldest of each person. No other instance gets them within `for_seconds`."""

    async def settle(self, sent: Sequence[int], postponed: Mapping[int, float]) -> None:
        """Remove the sent alerts and postpone the others, each by its seconds; both by id."""

    async def give_up(self, *, older_than_days: float) -> int:
        """Remove alerts that could not be sent for so long. Return their number."""
