"""What a batch of deliveries and snapshots says: the claims, the people as read, and the people to be read again."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from fubd.core.history import Stage
from fubd.core.observation import Channel, Delivery, Reading, RefetchEvent, Snapshot, StageEvent, normalize_stage_name
from fubd.core.reconcile import Claim, ClaimKind
from fubd.core.vocabulary import PERSON_CREATED, PERSON_DELETED, STAGE_UPDATED

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)
_quoted = json.encoder.encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class ReceivedDelivery:
    """A delivery with when it was received (our clock)."""

    delivery: Delivery
    received_at: datetime


@dataclass(frozen=True, slots=True)
class PersonFacts:
    """A person as read, with the tag that FUBD_LEAD_SOURCE_TAGS chose, to be stored and to fill rows from."""

    reading: Reading
    read_at: datetime
    lead_source_tag: str | None


@dataclass(frozen=True, slots=True)
class NewRefetch:
    """A person to be read by a read that saw `since` (FUB's clock); it fills the rows received from `asked_at` (our clock) on.

    `deleted`, `created`: FUB reported that the person was.
    """

    person_id: int
    since: datetime
    asked_at: datetime
    deleted: bool
    created: bool


@dataclass(frozen=True, slots=True)
class RecordingRules:
    """How evidence becomes rows: FUBD_DEDUP_WINDOW, FUBD_IGNORE_STAGES and FUBD_LEAD_SOURCE_TAGS (in order)."""

    window: timedelta
    ignored_stages: frozenset[str] = frozenset()
    lead_source_tags: tuple[str, ...] = ()


class Batch:
    """Collects deliveries and snapshots."""

    def __init__(self, rules: RecordingRules) -> None:
        self._ignored_stages = {normalize_stage_name(stage).casefold() for stage in rules.ignored_stages}
        self._lead_source_tags = [(_normalized_tag(tag), tag) for tag in rules.lead_source_tags]
        self.deliveries: list[ReceivedDelivery] = []
        self.claims: dict[Hashable, Claim] = {}
        self.facts: dict[int, PersonFacts] = {}
        self.refetches: dict[int, NewRefetch] = {}
        self.people: set[int] = set()
        # People of deliveries that are stored later.
        self._asked_for: set[int] = set()

    def add_delivery(self, delivery: Delivery, received_at: datetime, *, is_complete: bool = True) -> None:
        """Add a delivery, or some of its people: an entry for each person where it names a stage, and a refetch of each.

        `is_complete`: all its people are recorded with this batch, so the delivery itself is stored with it.
        """
        if is_complete:
            self.deliveries.append(ReceivedDelivery(delivery, received_at))
        content = delivery.content
        if not isinstance(content, StageEvent | RefetchEvent):
            return
        if not is_complete:
            self._asked_for.update(content.person_ids)
        for person_id in content.person_ids:
            self.people.add(person_id)
            refetch = NewRefetch(
                person_id, content.at, received_at, deleted=delivery.event == PERSON_DELETED, created=delivery.event == PERSON_CREATED
            )
            known = self.refetches.get(person_id)
            self.refetches[person_id] = refetch if known is None else _merged(known, refetch)
            if isinstance(content, StageEvent):
                claim = Claim(
                    person_id=person_id,
                    kind=ClaimKind.ENTRY,
                    channel=Channel.WEBHOOK,
                    at=content.at,
                    stage=Stage(content.stage),
                    event_id=content.event_id,
                    received_at=received_at,
                    ignored=content.stage.casefold() in self._ignored_stages,
                )
                self.claims.setdefault(claim.key, claim)

    def add_snapshot(self, snapshot: Snapshot, received_at: datetime) -> None:
        """Add people as read: a state for each."""
        for reading in snapshot.readings:
            self.people.add(reading.person_id)
            # A watermark beyond `updated` says nothing about the stage before it.
            useful = snapshot.watermark is not None and snapshot.watermark < reading.updated
            read_at = max(snapshot.read_at, reading.updated)
            claim = Claim(
                person_id=reading.person_id,
                kind=ClaimKind.STATE,
                channel=snapshot.channel,
                at=reading.updated,
                stage=Stage(reading.stage, reading.stage_id),
                received_at=received_at,
                read_at=read_at,
                first_read_at=read_at,
                watermark=snapshot.watermark if useful else None,
                created=reading.created,
                ignored=reading.stage.casefold() in self._ignored_stages,
            )
            known = self.claims.get(claim.key)
            self.claims[claim.key] = claim if known is None else _widened(known, claim)
            facts = self.facts.get(reading.person_id)
            if facts is None or (facts.reading.updated, facts.read_at) <= (reading.updated, snapshot.read_at):
                self.facts[reading.person_id] = PersonFacts(reading, snapshot.read_at, self._lead_source_tag(reading))

    def _lead_source_tag(self, reading: Reading) -> str | None:
        tags = {_normalized_tag(tag) for tag in reading.tags}
        return next((tag for normalized, tag in self._lead_source_tags if normalized in tags), None)

    def affected_since(self, window: timedelta) -> dict[int, datetime]:
        """Return from where on each person's history may change: a window and a second before their earliest claim."""
        earliest: dict[int, datetime] = {}
        for claim in self.claims.values():
            if not claim.ignored and claim.at < earliest.get(claim.person_id, _NEVER):
                earliest[claim.person_id] = claim.at
        margin = window + timedelta(seconds=1)
        return {person_id: max(at, _EPOCH + margin) - margin for person_id, at in earliest.items()}

    def refetches_of(self, new_keys: Collection[bytes]) -> list[NewRefetch]:
        """Return the people to be read because of the deliveries with these keys: a repeated delivery asks for nothing again."""
        if len(new_keys) == len(self.deliveries):
            return list(self.refetches.values())
        asked_for = self._asked_for | {
            person_id
            for received in self.deliveries
            if received.delivery.key in new_keys and isinstance(received.delivery.content, StageEvent | RefetchEvent)
            for person_id in received.delivery.content.person_ids
        }
        return [refetch for person_id, refetch in self.refetches.items() if person_id in asked_for]

    def evidence(self, claim: Claim) -> str:
        """Return the JSON text for raw_payload: the event for this person alone, or the person as read, whose keys reports look for."""
        if claim.is_entry:
            return (
                f'{{"eventId": {_quoted(claim.event_id)}, "eventCreated": "{claim.at.isoformat()}", "event": "{STAGE_UPDATED}",'
                f' "resourceIds": [{claim.person_id}], "data": {{"stage": {_quoted(claim.stage.name)}}}}}'
            )
        facts = self.facts.get(claim.person_id)
        if facts is not None and (facts.reading.updated, facts.reading.stage) == (claim.at, claim.stage.name):
            return json.dumps(dict(facts.reading.payload))
        return json.dumps({"id": claim.person_id, "stage": claim.stage.name, "stageId": claim.stage.id, "updated": claim.at.isoformat()})


def _normalized_tag(tag: str) -> str:
    """Return a tag's name without case, spaces and hyphens, which are written differently from account to account."""
    return tag.casefold().replace(" ", "").replace("-", "")


def _merged(first: NewRefetch, second: NewRefetch) -> NewRefetch:
    """Merge two requests for one person in one batch as the database merges them (`recording/apply_changes.sql`)."""
    return replace(
        first, since=max(first.since, second.since), deleted=first.deleted or second.deleted, created=first.created or second.created
    )


def _widened(first: Claim, second: Claim) -> Claim:
    """Merge the same state read twice in one batch as the database merges claims (`recording/insert_claims.sql`)."""
    reads = [read_at for read_at in (first.first_read_at, first.read_at, second.read_at) if read_at is not None]
    watermark = None if first.watermark is None or second.watermark is None else min(first.watermark, second.watermark)
    return replace(first, read_at=max(reads), first_read_at=min(reads), watermark=watermark)
