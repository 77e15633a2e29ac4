"""The recording transaction in memory, with the tables that it writes: what `fubd/sql/recording` does, statement by statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from fubd.core.batch import NewRefetch, PersonFacts, ReceivedDelivery
from fubd.core.history import LAG, TRAILING, Stage
from fubd.core.reconcile import Claim, NewRow, PersonHistory, Row
from fubd.core.stored_state import Coverage
from fubd.core.vocabulary import STAGE_UPDATED
from fubd.ports import ChangeSet, InsertedEvidence

NEVER = datetime.min.replace(tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclass(slots=True)
class Person:
    stage: str | None = None
    updated: datetime | None = None
    verified_at: datetime | None = None
    scrub_after: datetime = NEVER
    gone_at: datetime | None = None
    announced: bool = False
    claims: dict[object, Claim] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)


@dataclass(slots=True)
class RefetchRequest:
    """A refetch request."""

    since: datetime
    asked_at: datetime
    not_before: datetime = NEVER
    attempts: int = 0
    deleted: bool = False


class Tables:
    """The tables."""

    def __init__(self) -> None:
        self.people: dict[int, Person] = {}
        self.stage_ids: dict[str, int] = {}
        self.former_stages: dict[tuple[str, int], datetime] = {}
        self.deliveries: dict[bytes, datetime] = {}
        self.unconfirmed: dict[int, datetime] = {}
        self.requests: dict[int, RefetchRequest] = {}
        self.stored_coverage = Coverage(None, None, None, None)
        self.webhook_heard: datetime | None = None
        self.stage_webhook_heard: datetime | None = None
        self._last_id = 0

    def next_id(self) -> int:
        """Draw an id: claims and rows share one sequence."""
        self._last_id += 1
        return self._last_id

    def named(self, claim: Claim) -> Claim:
        """Return the claim; a webhook may write a stage in another case than people have it."""
        name = claim.stage.name
        if not claim.is_entry or name in self.stage_ids:
            return claim
        same = [known for known in self.stage_ids if known.lower() == name.lower()]
        return replace(claim, stage=replace(claim.stage, name=min(same, default=name)))

    def stage_id(self, claim: Claim) -> int | None:
        """Return the id that the claim's stage had then, as far as that is known."""
        former = [
            (until, stage_id) for (name, stage_id), until in self.former_stages.items() if name == claim.stage.name and until > claim.at
        ]
        return claim.stage.id if claim.stage.id is not None else min(former)[1] if former else self.stage_ids.get(claim.stage.name)

    def name_stage(self, name: str, stage_id: int, read_at: datetime) -> None:
        """Learn the id of a stage's name."""
        known = self.stage_ids.get(name, stage_id)
        if known != stage_id:
            self.former_stages[name, known] = read_at
        self.stage_ids[name] = stage_id

    def insert_deliveries(self, deliveries: Sequence[ReceivedDelivery]) -> frozenset[bytes]:
        """Store deliveries; return which are new."""
        new = set()
        for received in deliveries:
            if received.delivery.key in self.deliveries:
                continue
            new.add(received.delivery.key)
            self.deliveries[received.delivery.key] = received.received_at
            self.webhook_heard = received.received_at
            if received.delivery.event == STAGE_UPDATED:
                self.stage_webhook_heard = received.received_at
        return frozenset(new)

    def answer_request(self, person_id: int, read_at: datetime) -> None:
        """Drop the refetch request that this read answers."""
        request = self.requests.get(person_id)
        if request is not None and read_at >= request.since:
            del self.requests[person_id]

    def add_request(self, refetch: NewRefetch) -> None:
        """Add a refetch request, or renew it."""
        if refetch.created:
            person = self.people[refetch.person_id]
            person.announced = True
            for row in person.rows.values():
                if row.stage_from is None:
                    self.unconfirmed.pop(row.id, None)
        known = self.requests.get(refetch.person_id)
        if known is None:
            self.requests[refetch.person_id] = RefetchRequest(refetch.since, refetch.asked_at, deleted=refetch.deleted)
            return
        known.since, known.not_before, known.deleted = max(known.since, refetch.since), NEVER, known.deleted or refetch.deleted


class MemoryTransaction:
    """One transaction. Nothing else runs between its steps, and it fails only before the first or after the last."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def insert_claims(
        self, deliveries: Sequence[ReceivedDelivery], claims: Collection[Claim], people: Collection[int], since: Mapping[int, datetime]
    ) -> InsertedEvidence:
        """Store deliveries and claims (recording/insert_claims.sql)."""
        tables = self._tables
        new_deliveries = tables.insert_deliveries(deliveries)
        for person_id in people:
            tables.people.setdefault(person_id, Person())
        added, widened = set[int](), set[int]()
        for given in map(tables.named, claims):
            known_claims = tables.people[given.person_id].claims
            claim = _with_stay(given, known_claims.values())
            known = known_claims.get(claim.key)
            if known is None:
                if not claim.is_entry or not _is_resent(claim, known_claims.values()):
                    seq = tables.next_id()
                    stage = Stage(claim.stage.name, tables.stage_id(claim))
                    known_claims[claim.key] = replace(claim, seq=seq, row_id=seq, stage=stage)
                    added.add(seq)
            elif not claim.is_entry:
                wider = _widened(known, claim)
                if wider != known:
                    known_claims[claim.key] = wider
                    widened.add(known.seq)
        upserted = frozenset(added | widened)
        histories = [_history(person_id, tables.people[person_id], at, tables.stage_ids) for person_id, at in since.items() if upserted]
        read_before = frozenset(person_id for person_id in people if tables.people[person_id].updated is not None)
        return InsertedEvidence(new_deliveries, frozenset(added), upserted, read_before, tables.stored_coverage.began, histories)

    async def commit(self, facts: Sequence[PersonFacts], changes: ChangeSet | None) -> None:
        """Store people as read and write the difference."""
        self._upsert_people(facts)
        if changes is not None:
            self._apply_changes(changes)

    def _upsert_people(self, facts: Sequence[PersonFacts]) -> None:
        """Store people as read (recording/upsert_people.sql)."""
        for fact in facts:
            reading, read_at = fact.reading, fact.read_at
            person = self._tables.people[reading.person_id]
            if reading.stage_id is not None:
                self._tables.name_stage(reading.stage, reading.stage_id, read_at)
            if person.updated is None or (reading.updated, read_at) >= (person.updated, person.verified_at or NEVER):
                person.stage, person.updated, person.gone_at = reading.stage, reading.updated, None
                person.verified_at = person.scrub_after = max(person.verified_at or read_at, read_at)
            else:
                person.scrub_after = max(person.scrub_after, read_at)
            self._tables.answer_request(reading.person_id, read_at)

    def _apply_changes(self, change_set: ChangeSet) -> None:
        """Write the difference (recording/apply_changes.sql)."""
        tables = self._tables
        for row in change_set.merged:
            del tables.people[row.person_id].rows[row.id]
            tables.unconfirmed.pop(row.id, None)
        for update in change_set.updates:
            tables.people[update.now.person_id].rows[update.now.id] = update.now
            if update.now.confirmed_by == "webhook":
                tables.unconfirmed.pop(update.now.id, None)
        for new in change_set.inserts:
            self._insert(new)
        for refetch in change_set.refetches:
            tables.add_request(refetch)

    def _insert(self, new: NewRow) -> None:
        tables, row = self._tables, new.row
        person = tables.people[row.person_id]
        if new.claim_to_relink is not None:
            row = replace(row, id=tables.next_id())
            (key,) = [key for key, claim in person.claims.items() if claim.seq == new.claim_to_relink]
            person.claims[key] = replace(person.claims[key], row_id=row.id)
        assert row.id not in person.rows
        person.rows[row.id] = row
        began = tables.stored_coverage.began
        is_ours_to_miss = row.source == "polling" and row.confirmed_by is None and row.stage.name != "Trash"
        if is_ours_to_miss and row.changed_at >= (began or NEVER):
            tables.unconfirmed.setdefault(row.id, row.changed_at)


def _with_stay(claim: Claim, known: Collection[Claim]) -> Claim:
    """Return the claim; a state that is read again after another stage is another stay, although `updated` is the same (fubd.stay_id)."""
    if claim.is_entry or claim.first_read_at is None:
        return claim
    reads = [(one.first_read_at, one) for one in known if one.first_read_at is not None and not one.is_entry and one.at == claim.at]
    others = [first for first, one in reads if one.stage.name != claim.stage.name]
    others += [
        one.at for one in known if one.is_entry and not one.ignored and one.at > claim.at + LAG and one.stage.name != claim.stage.name
    ]
    left = max((since for since in others if since < claim.first_read_at - TRAILING), default=None)
    if left is None:
        return claim
    own = [(first, one.event_id) for first, one in reads if one.channel == claim.channel and one.stage.name == claim.stage.name]
    stays = sorted(stay for stay in own if stay[0] > left)
    if stays:
        return replace(claim, event_id=stays[0][1])
    return replace(claim, event_id=f"read {int(claim.first_read_at.timestamp())}") if any(not stay for _, stay in own) else claim


def _is_resent(claim: Claim, known: Collection[Claim]) -> bool:
    """Return whether the same event came with an earlier instant."""
    return any(one.is_entry and (one.event_id, one.stage.name) == (claim.event_id, claim.stage.name) and one.at < claim.at for one in known)


def _widened(known: Claim, again: Claim) -> Claim:
    assert known.read_at is not None
    assert known.first_read_at is not None
    assert again.read_at is not None
    assert again.first_read_at is not None
    watermark = None if known.watermark is None or again.watermark is None else min(known.watermark, again.watermark)
    return replace(
        known,
        read_at=max(known.read_at, again.read_at),
        first_read_at=min(known.first_read_at, again.first_read_at),
        watermark=watermark,
    )


def _history(person_id: int, person: Person, since: datetime, stage_ids: Mapping[str, int]) -> PersonHistory:
    rows_before = sorted(
        (row for row in person.rows.values() if row.changed_at < since), key=lambda row: (row.changed_at, row.id), reverse=True
    )
    start = next((row for row in rows_before if _is_settled(row, person)), None)
    claims = [claim for claim in person.claims.values() if not claim.ignored]
    if start is None:
        return PersonHistory(person_id, None, tuple(person.rows.values()), tuple(claims), person.announced)
    second = start.changed_at.replace(microsecond=0)
    near = [
        claim
        for claim in claims
        if claim.at >= second and (claim.at > start.changed_at or (not claim.is_entry and claim.stage.name == start.stage.name))
    ]
    rows = tuple(row for row in person.rows.values() if row.changed_at > start.changed_at)
    start = replace(start, stage=Stage(start.stage.name, _stage_id_then(start, claims, stage_ids)))
    return PersonHistory(person_id, start, rows, tuple(near), person.announced)


def _stage_id_then(row: Row, claims: Sequence[Claim], stage_ids: Mapping[str, int]) -> int | None:
    """Return the id that the row's stage had when it was entered."""
    since = row.changed_at.replace(microsecond=0) - LAG
    shown = [claim for claim in claims if claim.at >= since and claim.stage.name == row.stage.name and claim.stage.id is not None]
    shown.sort(key=lambda claim: (claim.is_entry or claim.at > row.changed_at + LAG, claim.at))
    return shown[0].stage.id if shown else stage_ids.get(row.stage.name)


def _is_settled(row: Row, person: Person) -> bool:
    """Return whether no claim that came or may come can still move the row."""
    second = row.changed_at.replace(microsecond=0)
    return (
        not _is_before_unmoved(row, person)
        and not _is_after_claim_of_later_row(row, person)
        and not any(
            claim.at >= second
            and (
                (claim.row_id == row.id and claim.at >= row.changed_at + _SECOND)
                or (
                    row.changed_after is not None
                    and claim.is_entry
                    and claim.stage.name == row.stage.name
                    and claim.at < row.changed_at + _DAY
                )
                or (claim.at < second + _SECOND and claim.stage.name != row.stage.name and not claim.ignored)
            )
            for claim in person.claims.values()
        )
    )


def _is_after_claim_of_later_row(row: Row, person: Person) -> bool:
    """Return whether the read that made a later row is dated before this one."""
    return any(
        not claim.is_entry
        and row.changed_at - _DAY < claim.at < row.changed_at
        and claim.row_id in person.rows
        and person.rows[claim.row_id].changed_at > row.changed_at
        for claim in person.claims.values()
    )


def _is_before_unmoved(row: Row, person: Person) -> bool:
    """Return whether a read shows another stage later although `updated` is from before the row."""
    older = [claim for claim in person.claims.values() if not claim.is_entry and claim.at < row.changed_at]
    return any(
        claim.read_at is not None
        and claim.read_at > row.changed_at
        and (claim.stage.name != row.stage.name or any(one.at == claim.at and one.stage.name != claim.stage.name for one in older))
        for claim in older
    )
