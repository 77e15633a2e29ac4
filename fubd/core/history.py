"""The values of a person's history: claims (entries and states) and the changes derived from them. All instants are FUB's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

# By how much an event may be dated after the move that it reports (observed: an automation's queue takes seconds), and a replica be behind.
LAG = timedelta(seconds=5)
# By how much the index behind lists of people may trail.
TRAILING = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage by name, and by the id that FUB had for that name when the claim was made. Renaming a stage changes only its name."""

    name: str
    id: int | None = None

    def is_same(self, other: Stage) -> bool:
        """Return whether both are one stage: by name in any case, or renamed, by id."""
        return self.name == other.name or self.name.casefold() == other.name.casefold() or (self.id is not None and self.id == other.id)


@dataclass(frozen=True, slots=True)
class Entry:
    """The person entered `stage` at `at` (FUB's clock).

    `seq` numbers claims in the order of their first arrival. A negative `seq` is that of a row by another writer, which keeps its place.
    `resent`: the claims of the same event with a later instant.
    """

    seq: int
    at: datetime
    stage: Stage
    resent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """The person was in `stage` at `updated` and until `read_at` (FUB's clock, a lower bound).

    `answered_at`: when FUB answered the last read, where what the answer shows may be older. `first_read_at`: when it was first read so.
    `watermark`: FUB's instant at which the stage before was known to hold still. `created`: when the person was created.
    `is_redated`: the change did not move `updated`, which is here when the state was first read instead.
    """

    seq: int
    updated: datetime
    read_at: datetime
    stage: Stage
    watermark: datetime | None = None
    created: datetime | None = None
    first_read_at: datetime | None = None
    answered_at: datetime | None = None
    is_redated: bool = False

    @property
    def first_seen(self) -> datetime:
        """Return when this state was first read."""
        return self.first_read_at or self.read_at


@dataclass(frozen=True, slots=True)
class Start:
    """The change after which to begin: everything up to it is settled. `at` is its `changed_at`."""

    stage: Stage
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One stage really entered.

    `changed_after` is None when `changed_at` is exact, else the earliest bound. `dated_by` is the claim that dates it. `claims`: every
    claim, by `seq`, that saw this very change. `repeated_by`: later entries of the same stage; what came between was seen by no source.
    """

    stage_from: str | None
    stage: Stage
    changed_at: datetime
    changed_after: datetime | None
    dated_by: Entry | State
    claims: tuple[int, ...]
    repeated_by: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class History:
    """What the claims amount to.

    `at_start`: claims that agree with the start (or with the first sight). `repeated_at_start`: later entries of its stage.
    `stage` is where the person stands at the end, None when nothing is known.
    """

    changes: tuple[Change, ...]
    at_start: tuple[int, ...]
    repeated_at_start: tuple[int, ...]
    stage: Stage | None
