"""The values that the read-only routes show, and the protocol of the part that has them.

Every instant is aware; the docstrings name its clock where it matters. The routes write instants as ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fubd.ports import Absence, BlindSpan, ShownRow, StageCounts

# The time spans of the status page, in hours, each with the bucket size of its timeline in seconds.
SPANS = {1: 60, 24: 900}


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """One of the two sources. `status` is `HEALTHY` or begins with `STALE`; `last_heard` is on our clock, `last_change` on FUB's."""

    status: str
    last_heard: datetime | None
    last_change: datetime | None
    records_today: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """The last complete scrub round: the share of people found as recorded, their number, and the oldest time of verification."""

    ratio: float | None
    people: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """Whether evidence can be recorded now, and since when that is so (our clock)."""

    recording: bool
    since: datetime | None


@dataclass(frozen=True, slots=True)
class AccountName:
    """The Follow Up Boss account whose people are recorded; None until it is known."""

    id: int | None
    name: str | None


@dataclass(frozen=True, slots=True)
class ShownProblem:
    """A problem that holds since `since` (our clock). `text` says what happened, to which thing, and what to do."""

    problem: str
    since: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Health:
    """The document of `/health`. `sources` has the keys `webhook` and `polling`.

    `subscriptions` maps an event to the status of its webhook subscription; `subscription_advice` maps an event to what the owner can do.
    `as_of`: when the figures of the database were read (our clock); None before the first time.
    """

    mode: str
    reason: str
    poll_interval_seconds: float | None
    coverage: datetime | None
    sources: Mapping[str, SourceHealth]
    subscriptions: Mapping[str, str]
    completeness: Completeness
    subscription_advice: Mapping[str, str] = field(default_factory=dict)
    database: DatabaseHealth = DatabaseHealth(recording=False, since=None)
    account: AccountName = AccountName(None, None)
    problems: Sequence[ShownProblem] = ()
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A mode with its reason in words, in force since `since` (our clock)."""

    mode: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class ChangeCounts:
    """The number of changes each source reported first, in buckets of `bucket_seconds` from `start` (by `received_at`, our clock).

    Every source has the same number of buckets; the last one contains the current time.
    """

    start: datetime
    bucket_seconds: int
    by_source: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class ApiBudget:
    """FUB's global rate limit per `window_seconds`, the calls left of it, our share of it, and our calls. None: not known yet."""

    limit: int | None
    remaining: int | None
    window_seconds: float
    share: float
    calls: int


@dataclass(frozen=True, slots=True)
class Day:
    """The present day of `zone` (FUBD_TIMEZONE), which began at `started`.

    `blind`: the times of the overview's span in which neither source was alive; `blind_seconds`: of the day, None before the first complete
    poll. `absences`: when fubd did not run or could not record, in the overview's span. `watched`: FUBD_ALERT_STAGES.
    """

    zone: str
    started: datetime
    stages: Sequence[StageCounts]
    watched: Sequence[str]
    agents: Sequence[str]
    blind: Sequence[BlindSpan]
    blind_seconds: float | None
    absences: Sequence[Absence] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """What the status page shows in addition to `/health`.

    `recent`: the latest changes, newest first. `safe_id`: the id up to which no further row can appear. `modes` are ascending; the first
    may lie before the window: it was in force when the window started. `api.calls` and `started_at` are those of this process.
    `people_url`: what a person's id follows in their address in Follow Up Boss.
    """

    now: datetime
    started_at: datetime
    version: str
    change_counts: ChangeCounts
    modes: Sequence[ModeChange]
    api: ApiBudget
    pending: int
    quarantined: int
    safe_id: int
    recent: Sequence[ShownRow]
    people_url: str
    day: Day


class StatusView(Protocol):
    """The state of the daemon, as the read-only routes show it (`monitor`)."""

    def not_ready_reason(self) -> str | None:
        """Return why nothing can be recorded yet, in words. None once the database has answered and its schema is right."""

    def health(self) -> Health:
        """Return the health document, from memory: it does not need the database."""

    async def overview(self, hours: int) -> Overview:
        """Return what the status page shows of the last `hours` (a key of SPANS). Raises Unavailable."""
