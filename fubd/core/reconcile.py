"""Which row belongs to which change: the difference between the history that the claims amount to and the rows that stand.

A row keeps its id for ever: it belongs to the change that the claim which first made it belongs to. So a correction updates it; two rows
become one only when what made them turns out to be one change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from fubd.core.timeline import Change, Entry, History, Stage, Start, State, fold

# Taken from the id of a foreign row it gives a seq before every claim's, and keeps the order of such rows among themselves.
_FOREIGN = 2**63


class Claim(NamedTuple):
    """A claim as it is kept. `at`: eventCreated of an entry, `updated` of a state. `row_id`: the row that it makes or would make."""

    seq: int
    row_id: int
    entry: bool
    channel: str
    at: datetime
    stage: Stage
    event_id: str
    received_at: datetime
    read_at: datetime | None
    covered: datetime | None
    created: datetime | None


class Row(NamedTuple):
    """A row of stage_changes.

    `foreign`: no claim stands behind it, another writer made it; it is taken as it is and never touched. Where it tells no stage, the name
    of its stage is empty.
    """

    id: int
    stage_from: str | None
    stage: Stage
    changed_at: datetime
    changed_after: datetime | None
    source: str
    received_at: datetime
    confirmed_by: str | None
    confirmed_at: datetime | None
    event_id: str | None
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class PersonHistory:
    """What stands near new claims of one person: the last settled row before them, the rows after it, and every claim after it.

    `announced`: a webhook told that they were created.
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
    """A row to be brought in line."""

    was: Row
    now: Row
    dated_by: Claim | None

    @property
    def healed(self) -> bool:
        """Tell whether the change itself was corrected, not only confirmed."""
        return self.was[1:5] != self.now[1:5]

    @property
    def confirms(self) -> bool:
        """Tell whether the other source has now seen it too."""
        return self.was.confirmed_by is None and self.now.confirmed_by is not None


@dataclass(frozen=True, slots=True)
class Difference:
    """What to write for one person. `merged`: rows that turned out to be part of another. `repeats`: new claims that told a stage again."""

    recorded: tuple[NewRow, ...] = ()
    corrected: tuple[RowUpdate, ...] = ()
    merged: tuple[Row, ...] = ()
    repeats: int = 0


def reconcile(near: PersonHistory, new: frozenset[int] | set[int], *, window: timedelta, began: datetime | None) -> Difference:
    """Fold the claims and compare with the rows. `new`: the seqs that are new in this transaction."""
    claims = {claim.seq: claim for claim in near.claims}
    history = derive(near, window=window, began=began)
    recorded: list[NewRow] = []
    corrected: list[RowUpdate] = []
    taken: set[int] = set()
    for change, row in paired(near, history):
        if row is None:
            recorded.append(_record(change, claims, new, announced=near.announced))
            continue
        taken.add(row.id)
        if row.foreign:
            continue
        now = _corrected(row, change, claims)
        if now != row:
            corrected.append(RowUpdate(row, now, claims.get(change.dated_by.seq)))
    if near.start is not None and not near.start.foreign:
        # What agreed with the start before has had its say; an older visit to the same stage must not confirm this one.
        confirmed = _confirmed(near.start, tuple(seq for seq in history.at_start if seq in new), claims)
        if confirmed != near.start:
            corrected.append(RowUpdate(near.start, confirmed, None))
    # A row is judged by the claims that made it: without them it stays.
    judged = {claim.row_id for claim in near.claims}
    merged = tuple(row for row in near.rows if row.id not in taken and not row.foreign and row.id in judged)
    repeats = sum(seq in new for change in history.changes for seq in change.repeated_by)
    repeats += sum(seq in new for seq in history.repeated_at_start)
    return Difference(tuple(recorded), tuple(corrected), merged, repeats)


def derive(near: PersonHistory, *, window: timedelta, began: datetime | None) -> History:
    """Fold what stands near into a history; rows of other writers take part as what happened. A negative seq in it is such a row's."""
    foreign = sorted((row for row in near.rows if row.foreign), key=lambda row: (row.changed_at, row.id))
    entries = [Entry(claim.seq, claim.at, claim.stage) for claim in near.claims if claim.entry]
    entries += [Entry(row.id - _FOREIGN, row.changed_at, row.stage) for row in foreign if row.stage.name]
    states = [_state(claim, foreign, window) for claim in near.claims if not claim.entry]
    start = None if near.start is None else Start(near.start.stage, near.start.changed_at)
    return fold(entries, states, start, window=window, began=began)


def paired(near: PersonHistory, history: History) -> list[tuple[Change, Row | None]]:
    """Give each change with the row that stands for it, None where there is none yet."""
    claims = {claim.seq: claim for claim in near.claims}
    rows = {row.id: row for row in near.rows}
    taken: set[int] = set()
    pairs = []
    for change in history.changes:
        row = _row_of(change, claims, rows, taken)
        if row is not None:
            taken.add(row.id)
        pairs.append((change, row))
    return pairs


def _state(claim: Claim, foreign: list[Row], window: timedelta) -> State:
    """Give a read its place among foreign rows, whose instant is often that of their writer's learning, long after the change itself.

    The read saw what stood in FUB until `read_at`. So it speaks of the time after the last foreign row before that instant: at once when
    it shows that row's stage, else only when it is later than the row by the window (a replica may lag).
    """
    read_at = max(claim.at, claim.read_at or claim.at)
    before = [row for row in foreign if row.changed_at <= read_at]
    if before and not before[-1].stage.same(claim.stage):
        before = [row for row in before if row.changed_at <= read_at - window]
    updated = max(claim.at, before[-1].changed_at) if before else claim.at
    return State(claim.seq, updated, read_at, claim.stage, claim.covered, claim.created)


def _row_of(change: Change, claims: dict[int, Claim], rows: dict[int, Row], taken: set[int]) -> Row | None:
    if not rows:
        return None
    for seq in sorted((*change.claims, *change.repeated_by)):
        row = rows.get(seq + _FOREIGN if seq < 0 else claims[seq].row_id)
        if row is not None and row.id not in taken:
            return row
    return None


def _record(change: Change, claims: dict[int, Claim], new: frozenset[int] | set[int], *, announced: bool) -> NewRow:
    told = sorted(change.claims)
    first = claims[told[0]]
    fresh = min((seq for seq in (*told, *change.repeated_by) if seq in new), default=None)
    dated_by = change.dated_by
    row = Row(
        id=fresh or 0,
        stage_from=change.stage_from,
        stage=change.stage,
        changed_at=change.changed_at,
        changed_after=change.changed_after,
        source=_source_of(first, change, announced=announced),
        received_at=first.received_at,
        confirmed_by=None,
        confirmed_at=None,
        event_id=claims[dated_by.seq].event_id if isinstance(dated_by, Entry) else None,
    )
    return NewRow(_confirmed(row, change.claims, claims), claims[dated_by.seq], None if fresh is not None else told[0])


def _corrected(row: Row, change: Change, claims: dict[int, Claim]) -> Row:
    # Who saw it first stays as it was written: later claims cannot have been earlier.
    now = row._replace(
        stage_from=change.stage_from,
        stage=change.stage if change.stage.name != row.stage.name else row.stage,
        changed_at=change.changed_at,
        changed_after=change.changed_after,
        event_id=claims[change.dated_by.seq].event_id if isinstance(change.dated_by, Entry) else None,
        confirmed_by=None,
        confirmed_at=None,
    )
    return _confirmed(now, change.claims, claims)


def _source_of(claim: Claim, change: Change, *, announced: bool) -> str:
    """Say which source told of a change first, by its first claim.

    A webhook that names no stage tells of a newcomer all the same, even where a poll comes before the read that it prompts. Any other
    change that such a read shows was told by no webhook: it was found by reading, as a poll finds it.
    """
    if claim.entry:
        return claim.channel
    return "webhook" if change.stage_from is None and (announced or claim.channel == "webhook") else "polling"


def _confirmed(row: Row, told: tuple[int, ...], claims: dict[int, Claim]) -> Row:
    if row.confirmed_by is not None:
        return row
    for seq in sorted(told):
        claim = claims.get(seq)
        # A read that a webhook prompted is no second look of the other source, but at a newcomer, of whom the webhook told.
        if claim is not None and claim.channel != row.source and (claim.entry or claim.channel == "polling" or row.stage_from is None):
            return row._replace(confirmed_by=claim.channel, confirmed_at=claim.received_at)
    return row
