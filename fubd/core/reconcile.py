"""Compare the history that the claims amount to with the rows that stand, and say what to write.

A row keeps its id as long as it exists: it belongs to the change of the claim that first made it. So a correction updates the row; two rows
become one only when the claims that made them turn out to be one change.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from fubd.core.history import LAG, Change, Entry, History, Stage, Start, State
from fubd.core.timeline import fold

# Subtracted from the id of a foreign row, it gives a seq before that of every claim, and keeps the order of such rows among themselves.
_FOREIGN = 2**63


class ClaimKind(StrEnum):
    """What a claim says: that a stage was entered, or that it held."""

    ENTRY = "entry"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one source said about one person's stage.

    `at`: eventCreated of an entry, `updated` of a state. `received_at` is our clock's, every other instant FUB's. `read_at`,
    `first_read_at`, `watermark` and `created` are those of a state (see `timeline.State`). `ignored`: kept, but it makes no row. `seq`
    numbers claims in the order of arrival, and `row_id` is the row that it makes or would make; both are 0 until it is stored.
    """

    seq: int = 0
    row_id: int = 0
    person_id: int
    kind: str
    channel: str
    at: datetime
    stage: Stage
    event_id: str = ""
    received_at: datetime
    read_at: datetime | None = None
    first_read_at: datetime | None = None
    watermark: datetime | None = None
    created: datetime | None = None
    ignored: bool = False

    @property
    def key(self) -> Hashable:
        """Return the identity of the claim: a second claim with the same key is the same claim."""
        return (self.person_id, self.at, self.kind, self.channel, self.event_id, self.stage.name.casefold())

    @property
    def is_entry(self) -> bool:
        """Return whether a stage was entered, rather than seen to hold."""
        return self.kind == ClaimKind.ENTRY


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of stage_changes.

    `foreign`: no claim stands behind it, another writer made it; it is taken as it is and never changed. Where such a row names no usable
    stage, `stage.name` is empty.
    """

    id: int
    person_id: int
    stage_from: str | None
    stage: Stage
    changed_at: datetime
    changed_after: datetime | None
    source: str
    received_at: datetime
    confirmed_by: str | None = None
    confirmed_at: datetime | None = None
    event_id: str | None = None
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class PersonHistory:
    """What stands near new claims of one person: the last settled row before them, the rows after it, and every claim after it.

    `announced`: a webhook reported that the person was created.
    """

    person_id: int
    start: Row | None
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    announced: bool = False


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to insert.

    `claim_to_relink`: the seq of the older claim that makes it, when no new claim does; then `row.id` is 0 and is drawn later.
    """

    row: Row
    dated_by: Claim
    claim_to_relink: int | None


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """A row to be updated from `was` to `now`."""

    was: Row
    now: Row
    dated_by: Claim | None

    @property
    def is_correction(self) -> bool:
        """Return whether the change itself was corrected, not only confirmed."""
        return any(
            (
                self.was.stage_from != self.now.stage_from,
                self.was.stage != self.now.stage,
                self.was.changed_at != self.now.changed_at,
                self.was.changed_after != self.now.changed_after,
            )
        )

    @property
    def is_confirmation(self) -> bool:
        """Return whether the other source has now seen it too."""
        return self.was.confirmed_by is None and self.now.confirmed_by is not None


@dataclass(frozen=True, slots=True)
class Difference:
    """What to write for one person.

    `merged`: rows that turned out to be part of another. `repeats`: how many new claims reported a stage again, the step between unseen.
    """

    inserts: tuple[NewRow, ...] = ()
    updates: tuple[RowUpdate, ...] = ()
    merged: tuple[Row, ...] = ()
    repeats: int = 0


def reconcile(person: PersonHistory, new: AbstractSet[int], *, window: timedelta, began: datetime | None) -> Difference:
    """Fold the claims and compare the history with the rows. `new`: the seqs of the claims that this transaction added."""
    claims = {claim.seq: claim for claim in person.claims}
    history = derive_history(person, window=window, began=began)
    inserts: list[NewRow] = []
    updates: list[RowUpdate] = []
    matched: set[int] = set()
    for change, row in pair_with_rows(person, history):
        if row is None:
            inserts.append(_new_row(person, change, claims, new))
            continue
        matched.add(row.id)
        if row.foreign:
            continue
        now = _updated(row, change, claims)
        if now != row:
            updates.append(RowUpdate(row, now, claims.get(change.dated_by.seq)))
    if person.start is not None and not person.start.foreign:
        # Only new claims may confirm the start: an older claim may be of an earlier visit to the same stage.
        confirmed = _with_confirmation(person.start, tuple(seq for seq in history.at_start if seq in new), claims)
        if confirmed != person.start:
            updates.append(RowUpdate(person.start, confirmed, None))
    # A row is judged by the claims that made it: where they are not loaded, it stays.
    judged = {claim.row_id for claim in person.claims}
    merged = tuple(row for row in person.rows if row.id not in matched and not row.foreign and row.id in judged)
    repeats = sum(seq in new for change in history.changes for seq in change.repeated_by)
    repeats += sum(seq in new for seq in history.repeated_at_start)
    return Difference(tuple(inserts), tuple(updates), merged, repeats)


def derive_history(person: PersonHistory, *, window: timedelta, began: datetime | None) -> History:
    """Fold the claims of a person. Rows of other writers count as entries; a negative seq in the history is such a row's."""
    foreign = sorted((row for row in person.rows if row.foreign), key=lambda row: (row.changed_at, row.id))
    entries = _entries([claim for claim in person.claims if claim.is_entry])
    entries += [Entry(row.id - _FOREIGN, row.changed_at, row.stage) for row in foreign if row.stage.name]
    states = [_state(claim, foreign, window) for claim in person.claims if not claim.is_entry]
    start = None if person.start is None else Start(person.start.stage, person.start.changed_at)
    return fold(entries, states, start, window=window, began=began)


def pair_with_rows(person: PersonHistory, history: History) -> list[tuple[Change, Row | None]]:
    """Return each change with the row that stands for it, None where there is none yet."""
    claims = {claim.seq: claim for claim in person.claims}
    rows = {row.id: row for row in person.rows}
    pairs: list[tuple[Change, Row | None]] = []
    for change in history.changes:
        row = _find_row(change, claims, rows)
        if row is not None:
            del rows[row.id]
        pairs.append((change, row))
    return pairs


def _entries(claims: Iterable[Claim]) -> list[Entry]:
    """Return the entries that the claims report: claims of one event are one entry, the earliest."""
    events: dict[Hashable, list[Claim]] = {}
    for claim in claims:
        events.setdefault((claim.event_id, claim.stage.name) if claim.event_id else claim.seq, []).append(claim)
    entries = []
    for same in events.values():
        earliest, *resent = sorted(same, key=lambda claim: (claim.at, claim.seq))
        entries.append(Entry(earliest.seq, earliest.at, earliest.stage, tuple(claim.seq for claim in resent)))
    return entries


def _state(claim: Claim, foreign: list[Row], window: timedelta) -> State:
    """Return the state that a read claims, placed among foreign rows.

    Such a row is often dated by when its writer learned of the change, long after the change itself. The read saw what stood in FUB until
    `read_at`, so it is about the time after the last foreign row before that instant: at once when it shows that row's stage, else only
    when it is later than the row by the window (a replica may lag).
    """
    read_at = max(claim.at, claim.read_at or claim.at)
    before = [row for row in foreign if row.changed_at <= read_at]
    if before and not before[-1].stage.is_same(claim.stage):
        before = [row for row in before if row.changed_at <= read_at - window]
    updated = max(claim.at, before[-1].changed_at) if before else claim.at
    return State(
        seq=claim.seq,
        updated=updated,
        # The answer may come from a replica: what it shows is certain only until a little earlier.
        read_at=max(updated, read_at - LAG),
        stage=claim.stage,
        watermark=claim.watermark,
        created=claim.created,
        first_read_at=max(updated, claim.first_read_at or read_at),
        answered_at=max(updated, read_at),
    )


def _find_row(change: Change, claims: Mapping[int, Claim], rows: Mapping[int, Row]) -> Row | None:
    if not rows:
        return None
    row_ids = (seq + _FOREIGN if seq < 0 else claims[seq].row_id for seq in sorted((*change.claims, *change.repeated_by)))
    return next((rows[row_id] for row_id in row_ids if row_id in rows), None)


def _new_row(person: PersonHistory, change: Change, claims: Mapping[int, Claim], new: AbstractSet[int]) -> NewRow:
    first = claims[min(change.claims)]
    new_seq = min((seq for seq in (*change.claims, *change.repeated_by) if seq in new), default=None)
    row = Row(
        id=new_seq or 0,
        person_id=person.person_id,
        stage_from=change.stage_from,
        stage=change.stage,
        changed_at=change.changed_at,
        changed_after=change.changed_after,
        source=_source_of(first, change, announced=person.announced),
        received_at=first.received_at,
        event_id=_event_id(change, claims),
    )
    row = _with_confirmation(row, change.claims, claims)
    return NewRow(row, claims[change.dated_by.seq], None if new_seq is not None else first.seq)


def _updated(row: Row, change: Change, claims: Mapping[int, Claim]) -> Row:
    """Return the row as the change has it. `source` and `received_at` stay: later claims cannot have been first.

    What confirmed it stays, too, where that claim is not kept any more (see `compaction`).
    """
    is_confirmed_by_claim = any((claim.channel, claim.received_at) == (row.confirmed_by, row.confirmed_at) for claim in claims.values())
    now = replace(
        row,
        stage_from=change.stage_from,
        stage=change.stage if change.stage.name != row.stage.name else row.stage,
        changed_at=change.changed_at,
        changed_after=change.changed_after,
        event_id=_event_id(change, claims),
        confirmed_by=None if is_confirmed_by_claim else row.confirmed_by,
        confirmed_at=None if is_confirmed_by_claim else row.confirmed_at,
    )
    return _with_confirmation(now, change.claims, claims)


def _event_id(change: Change, claims: Mapping[int, Claim]) -> str | None:
    return claims[change.dated_by.seq].event_id if isinstance(change.dated_by, Entry) else None


def _source_of(first: Claim, change: Change, *, announced: bool) -> str:
    """Return which source reported a change first, by its first claim.

    A webhook that names no stage reports a newcomer all the same, even where a poll precedes the read that the webhook prompts. Any other
    change that such a read shows was reported by no webhook: it was found by reading, as a poll finds it.
    """
    if first.is_entry:
        return first.channel
    return "webhook" if change.stage_from is None and (announced or first.channel == "webhook") else "polling"


def _with_confirmation(row: Row, seqs: tuple[int, ...], claims: Mapping[int, Claim]) -> Row:
    if row.confirmed_by is not None:
        return row
    for seq in sorted(seqs):
        claim = claims.get(seq)
        if claim is not None and _confirms(claim, row):
            return replace(row, confirmed_by=claim.channel, confirmed_at=claim.received_at)
    return row


def _confirms(claim: Claim, row: Row) -> bool:
    """Return whether the claim is the other source's. A read that a webhook prompted is not, except of a new person, reported by it."""
    return claim.channel != row.source and (claim.is_entry or claim.channel == "polling" or row.stage_from is None)
