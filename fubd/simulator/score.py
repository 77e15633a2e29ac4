"""How well a table of stage changes tells what really changes.

Rows are compared with the truth one person at a time: each row is paired with at most one true change of the same stage whose time it
can mean, as many pairs as candidates; what is left over on either side has a name below.
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


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """What the score reads of one row of `stage_changes`; times are aware, naive ones are taken as UTC."""

    person_id: int
    stage_from: str | None
    stage_to: str
    changed_at: datetime
    changed_after: datetime | None
    received_at: datetime | None
    source: str

    @classmethod
    def of(cls, row: Mapping[str, object]) -> ScoredRow:
        """Read a mapping with the table's column names. Raises KeyError or TypeError for one that is no row."""
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
    """One thing wrong, in words, with the person and the stage it is about."""

    kind: str
    person_id: int
    stage: str
    at: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class Score:
    """What became of the true changes, and what the table says beyond them.

    `changes` are all that changes; `captured` those with a row. `lost_shown`: without a row although some source showed them, of these
    `lost_acknowledged` had been answered 2xx. `lost_unseen`: nobody could have sightings them, or could have told them from what was there.
    `doubled`: rows that tell a captured change again. `invented`: rows of something that never changes. `wrong_from`, `wrong_time`:
    captured, but with another stage before or another time. `chain_breaks`: rows whose stage_from is not the row before.
    `out_of_order`: neighbouring rows of a person whose times do not grow, or which stand in another order than what changes.
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
        """Changes without a row, sightings or not."""
        return self.lost_shown + self.lost_unseen

    @property
    def is_perfect(self) -> bool:
        """Whether everything that could be known is told once, rightly, and nothing else."""
        return not self.discrepancies

    def summary(self) -> str:
        """Give the counts in one line."""
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

    `rows` need person_id, stage_from, stage_to, changed_at; changed_after, received_at and source as far as there are. Without `sightings`
    every change counts as shown. `since` and `until` bound the true changes that are asked for; what lies outside is neither missed
    nor held against a row that tells it. `window_seconds`: someone created may stand in their first known stage from `created` on when
    they entered it within this.
    """
    scorer = _Scorer(truth, sightings, since=since, until=until, window=timedelta(seconds=window_seconds))
    told: dict[int, list[ScoredRow]] = {}
    for row in map(ScoredRow.of, rows):
        told.setdefault(row.person_id, []).append(row)
    changes = truth.by_person()
    for person_id in sorted(told.keys() | changes.keys()):
        scorer.person(changes.get(person_id, []), told.get(person_id, []))
    return scorer.result()


@dataclass(slots=True)
class _Scorer:
    truth: Truth
    sightings: Sightings | None
    since: datetime | None
    until: datetime | None
    window: timedelta
    counts: dict[str, int] = field(default_factory=dict)
    delays: dict[str, list[float]] = field(default_factory=dict)
    discrepancies: list[Discrepancy] = field(default_factory=list)

    def person(self, changes: Sequence[TrueChange], told: Sequence[ScoredRow]) -> None:
        """Judge one person's rows by what changes to them, in order."""
        rows = sorted(told, key=lambda row: row.changed_at)
        match = self._match(changes, rows)
        self._match_by_stage(changes, rows, match)
        changes_of_rows = {place: number for number, place in match.items()}
        last: str | None = None
        for place, row in enumerate(rows):
            self._check_chain(rows, place)
            number = changes_of_rows.get(place)
            if number is not None and self._is_in_range(changes[number]):
                self._check_captured(changes, match, number, row)
            elif number is None:
                self._check_unmatched(changes, row, last)
            last = row.stage_to
        order = [changes_of_rows[place] for place in range(len(rows)) if place in changes_of_rows]
        for before, after in pairwise(order):
            if after < before:
                change = changes[after]
                self._report("out_of_order", change.person_id, change.stage_to, change.at, "stands after what came later")
        self._check_lost(changes, match)

    # --- pairing ------------------------------------------------------------------------------------------------------

    def _match(self, changes: Sequence[TrueChange], rows: Sequence[ScoredRow]) -> dict[int, int]:
        """Give the most pairs of change and row whose stage and time agree (augmenting paths)."""
        numbers_of = [self._candidates(changes, row) for row in rows]
        match: dict[int, int] = {}

        def settle(place: int, tried: set[int]) -> bool:
            for number in numbers_of[place]:
                if number not in tried:
                    tried.add(number)
                    if number not in match or settle(match[number], tried):
                        match[number] = place
                        return True
            return False

        for place in sorted(range(len(rows)), key=lambda place: (rows[place].changed_after is not None, place)):
            settle(place, set())
        return match

    def _candidates(self, changes: Sequence[TrueChange], row: ScoredRow) -> list[int]:
        """Give the changes a row can mean, likeliest first: that come from the same stage, and later before earlier."""
        latest = _second(row.changed_at) + timedelta(seconds=1)
        if row.changed_after is not None:
            earliest = _second(row.changed_after)
        else:
            earliest = _second(row.changed_at)
            latest += self.window if row.stage_from is None else timedelta(0)
        low = bisect_left(changes, earliest, key=lambda change: change.at)
        high = bisect_left(changes, latest, key=lambda change: change.at)
        candidates = [
            number for number in range(low, high) if self._is_same_stage(changes[number], row) and self._is_time_right(changes[number], row)
        ]
        return sorted(candidates, key=lambda number: (changes[number].stage_from != row.stage_from, -number))

    def _match_by_stage(self, changes: Sequence[TrueChange], rows: Sequence[ScoredRow], match: dict[int, int]) -> None:
        """Pair what is left by stage alone, nearest in time first: captured, at a wrong time."""
        taken = set(match.values())
        left = sorted(
            (abs(change.at - row.changed_at), number, place)
            for number, change in enumerate(changes)
            if number not in match
            for place, row in enumerate(rows)
            if place not in taken and self._is_same_stage(change, row)
        )
        for _, number, place in left:
            if number not in match and place not in taken:
                match[number] = place
                taken.add(place)

    def _is_same_stage(self, change: TrueChange, row: ScoredRow) -> bool:
        return self.truth.same_stage(change.stage_to, change.stage_to_id, row.stage_to)

    def _is_time_right(self, change: TrueChange, row: ScoredRow) -> bool:
        at, changed_at = _second(change.at), _second(row.changed_at)
        if row.changed_after is not None:
            return _second(row.changed_after) <= at <= changed_at
        created = self.truth.created.get(change.person_id)
        if row.stage_from is None and created is not None and changed_at == _second(created):
            return at - changed_at <= self.window
        return at == changed_at

    # --- judging ------------------------------------------------------------------------------------------------------

    def _check_captured(self, changes: Sequence[TrueChange], match: Mapping[int, int], number: int, row: ScoredRow) -> None:
        change = changes[number]
        self._count("captured")
        if not self._is_time_right(change, row):
            self._report("wrong_time", change.person_id, change.stage_to, change.at, f"told at {row.changed_at.isoformat()}")
        if not self._is_from_right(changes, match, number, row):
            self._report("wrong_from", change.person_id, change.stage_to, change.at, f"from {change.stage_from!r}, told {row.stage_from!r}")
        if row.received_at is not None:
            self.delays.setdefault(row.source, []).append((row.received_at - change.at).total_seconds())

    def _is_from_right(self, changes: Sequence[TrueChange], match: Mapping[int, int], number: int, row: ScoredRow) -> bool:
        """Say whether stage_from is the stage before, or the last one that could be known when those between were sightings by nobody."""
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
        return start is not None and bool(self.truth.names.get(row.stage_from, set()) & self.truth.names[start])

    def _check_lost(self, changes: Sequence[TrueChange], match: Mapping[int, int]) -> None:
        for number, change in enumerate(changes):
            if number in match or not self._is_in_range(change):
                continue
            if not self._is_shown(change) or self._is_indistinguishable(changes, match, number):
                self._count("lost_unseen")
                continue
            sighting = None if self.sightings is None else self._sighting(change)
            how = "told" if sighting is None or sighting.delivered_at else "readable"
            if sighting is None or sighting.acknowledged_at:
                self._count("lost_acknowledged")
            self._report("lost_shown", change.person_id, change.stage_to, change.at, f"from {change.stage_from!r}, {how}, no row")

    def _is_indistinguishable(self, changes: Sequence[TrueChange], match: Mapping[int, int], number: int) -> bool:
        """Say whether the change leads back to the stage last known, all between unseen: then nothing tells it from no change."""
        change = changes[number]
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

    def _check_chain(self, rows: Sequence[ScoredRow], place: int) -> None:
        row = rows[place]
        if place == 0:
            return
        before = rows[place - 1]
        if row.stage_from != before.stage_to:
            self._report("chain_breaks", row.person_id, row.stage_to, row.changed_at, f"from {row.stage_from!r} after {before.stage_to!r}")
        if row.changed_at <= before.changed_at:
            self._report("out_of_order", row.person_id, row.stage_to, row.changed_at, "at the time of the row before")

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
        """Give the score."""

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
