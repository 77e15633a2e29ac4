"""The score: how well a table of stage changes matches the ground truth.

Rows are compared with the truth person by person: each row is paired with at most one true change of the same stage and a matching
time, as many pairs as possible; each kind of leftover has a name below.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from fubd.simulator.sightings import Sighting, Sightings
from fubd.simulator.truth import TrueChange, Truth

_WINDOW_SECONDS: Final = 300.0
_MAX_LAG: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """The part of a `stage_changes` row that the score reads; times are aware, naive ones are taken as UTC."""

    person_id: int
    stage_from: str | None
    stage_to: str
    changed_at: datetime
    changed_after: datetime | None
    received_at: datetime | None
    source: str

    @classmethod
    def of(cls, row: Mapping[str, object]) -> ScoredRow:
        """Read a mapping with the table's column names. Raises KeyError or TypeError if it is no such row."""
        changed_at = _aware(row["changed_at"])
        if changed_at is None:
            raise TypeError("changed_at is null")
        stage_from = row.get("stage_from")
        return cls(
            person_id=int(str(row["person_id"])),
            stage_from=None if stage_from is None else str(stage_from),
            stage_to=str(row["stage_to"]),
            changed_at=changed_at,
            changed_after=_aware(row.get("changed_after")),
            received_at=_aware(row.get("received_at")),
            source=str(row.get("source") or ""),
        )


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds from the true instant to `received_at`, over the captured rows of one source."""

    count: int
    median: float
    p95: float
    worst: float


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One difference between table and truth, with its person and stage."""

    kind: str
    person_id: int
    stage: str
    at: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class Score:
    """What became of the true changes, and what else the table holds.

    `changes` counts all that happened; `captured` those with a row. `lost_shown`: without a row although a source showed them, of which
    `lost_acknowledged` were answered 2xx. `lost_unseen`: no source showed them, or nothing distinguished them from no change.
    `doubled`: rows that repeat a captured change. `invented`: rows of something that never happened. `wrong_from`, `wrong_time`:
    captured, but with another stage before or another time. `chain_breaks`: rows whose stage_from is not the stage of the row before.
    `out_of_order`: neighbouring rows of a person whose times do not increase, or whose order is not the true one.
    """

    changes: int
    captured: int
    lost_shown: int
    lost_acknowledged: int
    lost_unseen: int
    doubled: int
    invented: int
    wrong_from: int
    wrong_time: int
    chain_breaks: int
    out_of_order: int
    delays: Mapping[str, Delays]
    discrepancies: tuple[Discrepancy, ...]

    @property
    def lost(self) -> int:
        """Changes without a row, shown or not."""
        return self.lost_shown + self.lost_unseen

    @property
    def is_perfect(self) -> bool:
        """Whether every change that could be known has exactly one correct row, and there are no other rows."""
        return not self.discrepancies

    def summary(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.changes} changes, {self.captured} captured, "
            f"{self.lost} lost ({self.lost_shown} although shown, {self.lost_unseen} unseen), "
            f"{self.doubled} doubled, {self.invented} invented, {self.wrong_from} wrong from, {self.wrong_time} wrong time, "
            f"{self.chain_breaks} chain breaks, {self.out_of_order} out of order"
        )


def score(
    truth: Truth,
    rows: Iterable[Mapping[str, object]],
    *,
    sightings: Sightings | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    window_seconds: float = _WINDOW_SECONDS,
) -> Score:
    """Compare a table with the truth.

    `rows` need person_id, stage_from, stage_to and changed_at; changed_after, received_at and source are optional. Without `sightings`
    every change counts as shown. `since` and `until` limit the true changes that are expected; rows of others are neither required nor
    wrong. `window_seconds`: the first known stage of a created person may be dated at `created` if they entered it within this time.
    """
    scorer = _Scorer(truth, sightings, since=since, until=until, window=timedelta(seconds=window_seconds), lag=_event_lag(truth, sightings))
    rows_of: dict[int, list[ScoredRow]] = {}
    for row in map(ScoredRow.of, rows):
        rows_of.setdefault(row.person_id, []).append(row)
    changes = truth.by_person()
    for person_id in sorted(rows_of.keys() | changes.keys()):
        scorer.person(changes.get(person_id, []), rows_of.get(person_id, []))
    return scorer.result()


@dataclass(slots=True)
class _Scorer:
    truth: Truth
    sightings: Sightings | None
    since: datetime | None
    until: datetime | None
    window: timedelta
    lag: timedelta
    counts: dict[str, int] = field(default_factory=dict)
    delays: dict[str, list[float]] = field(default_factory=dict)
    discrepancies: list[Discrepancy] = field(default_factory=list)

    def person(self, changes: Sequence[TrueChange], rows: Sequence[ScoredRow]) -> None:
        """Compare one person's rows with their true changes, in order."""
        rows = sorted(rows, key=lambda row: row.changed_at)
        match = self._match(changes, rows)
        self._match_by_stage(changes, rows, match)
        changes_of_rows = {index: number for number, index in match.items()}
        last: str | None = None
        for index, row in enumerate(rows):
            self._check_chain(rows, index)
            number = changes_of_rows.get(index)
            if number is not None and self._is_in_range(changes[number]):
                self._check_captured(changes, match, number, row)
            elif number is None:
                self._check_unmatched(changes, row, last)
            last = row.stage_to
        order = [changes_of_rows[index] for index in range(len(rows)) if index in changes_of_rows]
        for before, after in pairwise(order):
            if after < before:
                change = changes[after]
                self._report("out_of_order", change.person_id, change.stage_to, change.at, "recorded after a later change")
        self._check_lost(changes, match)

    # --- pairing ------------------------------------------------------------------------------------------------------

    def _match(self, changes: Sequence[TrueChange], rows: Sequence[ScoredRow]) -> dict[int, int]:
        """Return the largest set of pairs of change and row whose stage and time agree (augmenting paths)."""
        numbers_of = [self._candidates(changes, row) for row in rows]
        match: dict[int, int] = {}

        def settle(index: int, tried: set[int]) -> bool:
            for number in numbers_of[index]:
                if number not in tried:
                    tried.add(number)
                    if number not in match or settle(match[number], tried):
                        match[number] = index
                        return True
            return False

        for index in sorted(range(len(rows)), key=lambda index: (rows[index].changed_after is not None, index)):
            settle(index, set())
        return match

    def _candidates(self, changes: Sequence[TrueChange], row: ScoredRow) -> list[int]:
        """Return the changes a row can stand for, best first: those from the same stage, and later before earlier."""
        latest = _second(row.changed_at) + timedelta(seconds=1)
        if row.changed_after is not None:
            earliest = _second(row.changed_after)
        else:
            earliest = _second(row.changed_at)
            latest += self.window if row.stage_from is None else timedelta(0)
        low = bisect_left(changes, earliest - _MAX_LAG, key=lambda change: change.at)
        high = bisect_left(changes, latest, key=lambda change: change.at)
        candidates = [
            number for number in range(low, high) if self._is_same_stage(changes[number], row) and self._is_time_right(changes[number], row)
        ]
        return sorted(candidates, key=lambda number: (changes[number].stage_from != row.stage_from, -number))

    def _match_by_stage(self, changes: Sequence[TrueChange], rows: Sequence[ScoredRow], match: dict[int, int]) -> None:
        """Pair the rest by stage alone, nearest in time first: captured, at a wrong time."""
        taken = set(match.values())
        left = sorted(
            (abs(change.at - row.changed_at), number, index)
            for number, change in enumerate(changes)
            if number not in match
            for index, row in enumerate(rows)
            if index not in taken and self._is_same_stage(change, row)
        )
        for _, number, index in left:
            if number not in match and index not in taken:
                match[number] = index
                taken.add(index)

    def _is_same_stage(self, change: TrueChange, row: ScoredRow) -> bool:
        return self.truth.same_stage(change.stage_to, change.stage_to_id, row.stage_to)

    def _is_time_right(self, change: TrueChange, row: ScoredRow) -> bool:
        at, changed_at = _second(change.at), _second(row.changed_at)
        if row.changed_after is not None:
            return _second(row.changed_after) - self.lag <= at <= changed_at
        created = self.truth.created.get(change.person_id)
        if row.stage_from is None and created is not None and changed_at == _second(created):
            return at - changed_at <= self.window
        return changed_at in {at, *map(_second, self._sighting(change).reported)}

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_captured(self, changes: Sequence[TrueChange], match: Mapping[int, int], number: int, row: ScoredRow) -> None:
        change = changes[number]
        self._count("captured")
        if not self._is_time_right(change, row):
            self._report("wrong_time", change.person_id, change.stage_to, change.at, f"recorded at {row.changed_at.isoformat()}")
        if not self._is_from_right(changes, match, number, row):
            self._report(
                "wrong_from", change.person_id, change.stage_to, change.at, f"from {change.stage_from!r}; recorded {row.stage_from!r}"
            )
        if row.received_at is not None:
            self.delays.setdefault(row.source, []).append((row.received_at - change.at).total_seconds())

    def _is_from_right(self, changes: Sequence[TrueChange], match: Mapping[int, int], number: int, row: ScoredRow) -> bool:
        """Return whether stage_from is the stage before, or the last one that could be known if no source showed those between."""
        change = changes[number]
        if self.truth.same_stage(change.stage_from, change.stage_from_id, row.stage_from):
            return True
        before = number - 1
        while before >= 0 and before not in match and not self._is_shown(changes[before]):
            before -= 1
            if before < 0:
                break
            if self.truth.same_stage(changes[before].stage_to, changes[before].stage_to_id, row.stage_from):
                return True
        if before >= 0:
            return False
        person_id = change.person_id
        if row.stage_from is None:
            return person_id in self.truth.created or self.sightings is None or not self._sighting(changes[0]).previous_shown
        start = self.truth.start_stage(person_id)
        return start is not None and any(self.truth.same_stage(start, stage_id, row.stage_from) for stage_id in self.truth.names[start])

    def _check_lost(self, changes: Sequence[TrueChange], match: Mapping[int, int]) -> None:
        for number, change in enumerate(changes):
            if number in match or not self._is_in_range(change):
                continue
            if not self._is_shown(change) or self._is_indistinguishable(changes, match, number):
                self._count("lost_unseen")
                continue
            sighting = None if self.sightings is None else self._sighting(change)
            how = "delivered" if sighting is None or sighting.delivered_at else "readable"
            if sighting is None or sighting.acknowledged_at:
                self._count("lost_acknowledged")
            self._report("lost_shown", change.person_id, change.stage_to, change.at, f"from {change.stage_from!r}, {how}, no row")

    def _is_indistinguishable(self, changes: Sequence[TrueChange], match: Mapping[int, int], number: int) -> bool:
        """Return whether the change looks like none: it leads back to the last known stage with nothing shown between, or on to its name.

        The second happens when a stage is renamed and another one gets its old name: names are all that a webhook shows of a stage.
        """
        change = changes[number]
        if self.truth.same_stage(change.stage_from, change.stage_from_id, change.stage_to):
            return True
        before = number - 1
        if self.sightings is None:
            return False
        while before >= 0 and before not in match and not self._is_shown(changes[before]):
            before -= 1
        if before == number - 1:
            return False
        if before >= 0:
            return changes[before].stage_to_id == change.stage_to_id
        return changes[0].stage_from_id == change.stage_to_id

    def _check_unmatched(self, changes: Sequence[TrueChange], row: ScoredRow, last: str | None) -> None:
        entered = [change for change in changes if self._is_same_stage(change, row) and _second(change.at) <= _second(row.changed_at)]
        if entered:
            self._report("doubled", row.person_id, row.stage_to, row.changed_at, f"after {last!r}")
        else:
            self._report("invented", row.person_id, row.stage_to, row.changed_at, f"from {row.stage_from!r}")

    def _check_chain(self, rows: Sequence[ScoredRow], index: int) -> None:
        row = rows[index]
        if index == 0:
            return
        before = rows[index - 1]
        if row.stage_from != before.stage_to:
            self._report("chain_breaks", row.person_id, row.stage_to, row.changed_at, f"from {row.stage_from!r} after {before.stage_to!r}")
        if row.changed_at <= before.changed_at:
            self._report("out_of_order", row.person_id, row.stage_to, row.changed_at, "at the same time as the row before")

    def _is_in_range(self, change: TrueChange) -> bool:
        return (self.since is None or change.at >= self.since) and (self.until is None or change.at <= self.until)

    def _is_shown(self, change: TrueChange) -> bool:
        return self.sightings is None or self._sighting(change).is_shown

    def _sighting(self, change: TrueChange) -> Sighting:
        return Sighting() if self.sightings is None else self.sightings.of(change)

    def _count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def _report(self, kind: str, person_id: int, stage: str, at: datetime, detail: str) -> None:
        self._count(kind)
        self.discrepancies.append(Discrepancy(kind, person_id, stage, at, detail))

    def result(self) -> Score:
        """Return the score."""

        def count(kind: str) -> int:
            return self.counts.get(kind, 0)

        return Score(
            changes=sum(self._is_in_range(change) for change in self.truth.changes),
            captured=count("captured"),
            lost_shown=count("lost_shown"),
            lost_acknowledged=count("lost_acknowledged"),
            lost_unseen=count("lost_unseen"),
            doubled=count("doubled"),
            invented=count("invented"),
            wrong_from=count("wrong_from"),
            wrong_time=count("wrong_time"),
            chain_breaks=count("chain_breaks"),
            out_of_order=count("out_of_order"),
            delays={source: _delays(seconds) for source, seconds in sorted(self.delays.items())},
            discrepancies=tuple(self.discrepancies),
        )


def _event_lag(truth: Truth, sightings: Sightings | None) -> timedelta:
    """Return by how much the events trailed the changes at most: an entry dated late also bounds the row after it late."""
    if sightings is None:
        return timedelta(0)
    dated = ((change, sightings.of(change).reported) for change in truth.changes)
    return max((min(reported) - change.at for change, reported in dated if reported), default=timedelta(0))


def _delays(seconds: Sequence[float]) -> Delays:
    ordered = sorted(seconds)
    return Delays(len(ordered), ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)], ordered[-1])


def _second(instant: datetime) -> datetime:
    return instant.replace(microsecond=0)


def _aware(value: object) -> datetime | None:
    if value is None:
        return None
    instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
