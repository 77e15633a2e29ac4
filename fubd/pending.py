"""Deliveries and snapshots that wait to be recorded, whole or in parts.

A part is some of the people of one item. An item is complete once every part of it is committed, in whatever order, and only then answered:
the history of each person is a function of the evidence, so people may be recorded in different transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fubd.core.observation import Delivery, RefetchEvent, Snapshot, StageEvent
from fubd.core.vocabulary import DeliveryOutcome
from fubd.errors import Unavailable
from fubd.ports import SnapshotResult

# What a delivery, a number in it and a person as read occupy in memory besides the bytes received.
_BYTES_PER_ITEM = 2_000
_BYTES_PER_ID = 40
_BYTES_PER_READING = 4_000

# The limit of the people of one transaction. A slow one is far from the limit of a statement, but delays those who need the same people.
_MOST_PEOPLE = 2_500
_FEWEST_PEOPLE = 100
_SLOW_SECONDS = 2.0
_MALFORMED_TRIES = 2


@dataclass(slots=True, eq=False)
class Item:
    """A delivery or snapshot on its way into the database. `result` is done once its caller was answered or stopped waiting.

    `open_parts`: how many parts are not committed yet. `is_begun`: some are. `tried`: a COMMIT of it may have succeeded without a reply.
    `brought`: what the committed parts of a snapshot brought. `size`: about how many bytes of memory it occupies.
    """

    content: Delivery | Snapshot
    received_at: datetime
    result: asyncio.Future[Any]
    open_parts: int = 1
    is_begun: bool = False
    tried: bool = False
    duplicates: list[asyncio.Future[DeliveryOutcome]] = field(default_factory=list)
    brought: SnapshotResult = field(default_factory=lambda: SnapshotResult(changes=0, mismatched=frozenset(), first_seen=0))
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Measure it."""
        if isinstance(self.content, Snapshot):
            self.size = _BYTES_PER_ITEM + _BYTES_PER_READING * len(self.content.readings)
        else:
            self.size = _BYTES_PER_ITEM + len(self.content.body) + _BYTES_PER_ID * len(_people(self.content))

    @property
    def is_unwanted(self) -> bool:
        """Whether its caller stopped waiting and will read again; a delivery is recorded even if its sender no longer waits."""
        return self.result.done() and isinstance(self.content, Snapshot)

    def refuse(self) -> None:
        """Answer that it is not recorded, because the daemon is stopping."""
        if not self.result.done():
            self.result.set_exception(Unavailable("fubd is stopping"))


@dataclass(slots=True, eq=False)
class Part:
    """Some of the people of an item. `failures`: how often it alone could not be recorded; `retry_at`: when to try again (monotonic).

    `malformed`: how often a value of it was refused, and nothing in the table explained it.
    """

    item: Item
    content: Delivery | Snapshot
    failures: int = 0
    retry_at: float = 0.0
    malformed: int = 0

    @property
    def people(self) -> tuple[int, ...]:
        """The people in its content."""
        return _people(self.content)

    @property
    def refusal_keys(self) -> Sequence[Hashable]:
        """By what a refusal is remembered until it is over: a reading by its person, who is read again, anything else by itself."""
        return self.people if isinstance(self.content, Snapshot) else (self,)

    def on_malformed(self, problem: str) -> None:
        """Note that a value of this delivery was refused, and nothing in the table explains it; put it into quarantine the second time.

        The owner may have removed the cause from the table just before it was looked for.
        """
        self.malformed += 1
        if self.malformed >= _MALFORMED_TRIES and isinstance(self.content, Delivery):
            self.content = self.item.content = quarantined(self.content, problem)

    def take(self, limit: int) -> Part:
        """Split off the first `limit` people and return them as a part of their own; this one keeps the others."""
        if len(self.people) <= limit:
            return self
        self.item.open_parts += 1
        head = Part(self.item, _slice(self.content, slice(limit)), self.failures, self.retry_at)
        self.content = _slice(self.content, slice(limit, None))
        return head

    def without_people(self) -> Part:
        """Return a part about nobody: what is left of an item when all its people are recorded."""
        return Part(self.item, _slice(self.content, slice(0)))

    def halves(self) -> list[Part]:
        """Split it into two parts of about as many people; return only itself when it is about one person."""
        head = self.take((len(self.people) + 1) // 2)
        return [self] if head is self else [head, self]


class PeopleLimit:
    """How many people one transaction may be about. A failure or a slow transaction halves it, a quick one with so many doubles it."""

    def __init__(self) -> None:
        self.people = _MOST_PEOPLE

    def on_failure(self) -> None:
        """Halve the limit."""
        self.people = max(_FEWEST_PEOPLE, self.people // 2)

    def on_success(self, people: int, seconds: float) -> None:
        """Judge a committed transaction about so many people."""
        if seconds > _SLOW_SECONDS:
            self.on_failure()
        elif people >= self.people:
            self.people = min(_MOST_PEOPLE, self.people * 2)


def split(batch: Sequence[Part]) -> list[list[Part]]:
    """Split a batch in two, in its order: by parts, or a single part by its people. A part about one person stays as it is."""
    if len(batch) == 1:
        return [[part] for part in batch[0].halves()]
    half = (len(batch) + 1) // 2
    return [list(batch[:half]), list(batch[half:])]


def merge(first: SnapshotResult, second: SnapshotResult) -> SnapshotResult:
    """Return what two parts of a snapshot brought together."""
    return SnapshotResult(
        changes=first.changes + second.changes,
        mismatched=first.mismatched | second.mismatched,
        first_seen=first.first_seen + second.first_seen,
        refused=first.refused | second.refused,
    )


def outcome_of(delivery: Delivery) -> DeliveryOutcome:
    """Return how a new delivery is answered."""
    if delivery.quarantine is not None:
        return DeliveryOutcome.QUARANTINED
    return DeliveryOutcome.ACCEPTED if isinstance(delivery.content, StageEvent | RefetchEvent) else DeliveryOutcome.IGNORED


def quarantined(delivery: Delivery, problem: str) -> Delivery:
    """Return a delivery that holds something that can never be stored, to be kept as received and not used."""
    if delivery.content is None:
        raise RuntimeError(f"a cleaned value could not be stored: {problem}")
    return Delivery(delivery.key, delivery.body, None, None, None, problem)


def snapshot_result(snapshot: Snapshot, moved: Mapping[int, bool], known: frozenset[int]) -> SnapshotResult:
    """Return what these readings brought. `moved`: people with a row made by a read, and whether their stage was known before."""
    people = {reading.person_id for reading in snapshot.readings}
    return SnapshotResult(
        changes=len(people & moved.keys()),
        mismatched=frozenset(person_id for person_id in people if moved.get(person_id)),
        first_seen=len(people - known),
    )


def _people(content: Delivery | Snapshot) -> tuple[int, ...]:
    if isinstance(content, Snapshot):
        return tuple(reading.person_id for reading in content.readings)
    return content.content.person_ids if isinstance(content.content, StageEvent | RefetchEvent) else ()


def _slice(content: Delivery | Snapshot, share: slice) -> Delivery | Snapshot:
    if isinstance(content, Snapshot):
        return replace(content, readings=content.readings[share])
    if isinstance(content.content, StageEvent | RefetchEvent):
        return replace(content, content=replace(content.content, person_ids=content.content.person_ids[share]))
    return content
