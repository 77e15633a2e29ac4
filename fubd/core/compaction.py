"""Which reads of a person say nothing any more, so that what is kept grows with a person's moves and not with how often they are read.

A read is superseded when it only agrees with a stay in a stage that other claims begin and end, or that other reads show for longer. Claims
that may still come do not need it: an event that is sent again is younger than `before`, and `updated` never goes back. Then the history is
derived without the read and compared, and the read stays unless both are equal. What confirmed a row is stored in the row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fubd.core.history import History
from fubd.core.reads import second_of
from fubd.core.reconcile import Claim, PersonHistory, derive_history, reconcile

# How often one person's history is derived again, at most: what is left then stays.
_COMPARISONS = 12


def superseded_reads(person: PersonHistory, *, before: datetime, window: timedelta, began: datetime | None) -> list[int]:
    """Return the seqs of the reads without which every row is the same, now and with all evidence from `before` (FUB's clock) on.

    `person`: with every row and claim, from the first on. Claims that arrived lately must not be dated before `before`.
    """
    comparison = _Comparison(person, window, began)
    return sorted(comparison.removable(_candidates(person, comparison.history, before), frozenset()))


class _Comparison:
    """Compares a person's history with the one that remains without some of the claims, a limited number of times."""

    def __init__(self, person: PersonHistory, window: timedelta, began: datetime | None) -> None:
        self._person = person
        self._window = window
        self._began = began
        self._left = _COMPARISONS
        self.history = derive_history(person, window=window, began=began)
        self._difference = reconcile(person, frozenset(), window=window, began=began)

    def removable(self, candidates: Sequence[int], removed: frozenset[int]) -> frozenset[int]:
        """Return those of the candidates that can go after those `removed`: all of them, or what can go of each half."""
        if not candidates or not self._left:
            return frozenset()
        if self._is_same_without(removed.union(candidates)):
            return frozenset(candidates)
        if len(candidates) == 1:
            return frozenset()
        half = len(candidates) // 2
        first = self.removable(candidates[:half], removed)
        return first | self.removable(candidates[half:], removed | first)

    def _is_same_without(self, seqs: frozenset[int]) -> bool:
        """Return whether everything that the claims amount to is the same, but for the list of those that go."""
        self._left -= 1
        person = replace(self._person, claims=tuple(claim for claim in self._person.claims if claim.seq not in seqs))
        changes = tuple(replace(change, claims=_except(change.claims, seqs)) for change in self.history.changes)
        expected = replace(self.history, changes=changes, at_start=_except(self.history.at_start, seqs))
        return (
            derive_history(person, window=self._window, began=self._began) == expected
            and reconcile(person, frozenset(), window=self._window, began=self._began) == self._difference
        )


def _except(seqs: Sequence[int], without: frozenset[int]) -> tuple[int, ...]:
    return tuple(seq for seq in seqs if seq not in without)


@dataclass(frozen=True, slots=True)
class _Stay:
    """A stay in one stage, from `since` until the next change. `agreeing`: reads that show its stage as the claim does that begins it."""

    since: datetime
    until: datetime | None
    agreeing: tuple[Claim, ...]


def _stays(history: History, claims: Mapping[int, Claim]) -> Iterator[_Stay]:
    """Return the stays that a claim of ours begins, the first sight's too."""
    ends = [*(change.changed_at for change in history.changes), None]
    sighted = [claims[seq] for seq in history.at_start]
    if sighted:
        first = min(sighted, key=lambda claim: (claim.at, claim.seq))
        yield _Stay(first.at, ends[0], _agreeing(first, sighted))
    for change, until in zip(history.changes, ends[1:], strict=True):
        if change.dated_by.seq in claims:
            seen = [claims[seq] for seq in change.claims if seq in claims]
            yield _Stay(second_of(change.changed_at), until, _agreeing(claims[change.dated_by.seq], seen))


def _agreeing(first: Claim, seen: Iterable[Claim]) -> tuple[Claim, ...]:
    return tuple(claim for claim in seen if not claim.is_entry and claim.seq != first.seq and claim.stage == first.stage)


def _candidates(person: PersonHistory, history: History, before: datetime) -> list[int]:
    """Return the reads that only agree with a stay that is over, or in which a later read that stays shows the stage for longer.

    A later read may still show a change at the last `updated`, which is then dated by what is known to have held before.
    """
    last_updated = max((claim.at for claim in person.claims if not claim.is_entry), default=before)
    needed = _Needed.by(person)
    found: list[Claim] = []
    for stay in _stays(history, {claim.seq: claim for claim in person.claims}):
        is_over = stay.until is not None and stay.until < min(before, last_updated)
        held_until = stay.since
        for read in sorted(stay.agreeing, key=lambda claim: (claim.at, claim.seq), reverse=True):
            is_within = stay.since <= read.at < last_updated and _last_read(read) < min(before, stay.until or before)
            if is_within and (is_over or _last_read(read) <= held_until) and not needed.includes(read):
                found.append(read)
            else:
                held_until = max([held_until, *(held for held in (read.at, _last_read(read)) if held < last_updated)])
    return [claim.seq for claim in sorted(found, key=lambda claim: (claim.at, claim.seq))]


def _last_read(claim: Claim) -> datetime:
    """Return until when a read showed its stage."""
    return max(claim.at, claim.read_at or claim.at)


@dataclass(frozen=True, slots=True)
class _Needed:
    """What makes a read needed for another reason.

    `row_ids`: of rows, which belong to the claims that made them. `disputed`: seconds for which two stages were reported. `without_id`:
    stages that an event named before their id was known, which a read shows.
    """

    row_ids: frozenset[int]
    disputed: frozenset[datetime]
    without_id: frozenset[str]

    @classmethod
    def by(cls, person: PersonHistory) -> _Needed:
        reported = {(second_of(claim.at), claim.stage) for claim in person.claims}
        reported |= {(second_of(row.changed_at), row.stage) for row in person.rows if row.foreign}
        counts = Counter(second for second, _ in reported)
        return cls(
            frozenset(row.id for row in person.rows),
            frozenset(second for second, count in counts.items() if count > 1),
            frozenset(claim.stage.name.casefold() for claim in person.claims if claim.is_entry and claim.stage.id is None),
        )

    def includes(self, read: Claim) -> bool:
        """Return whether the read is needed."""
        names_id = read.stage.id is not None and read.stage.name.casefold() in self.without_id
        return read.row_id in self.row_ids or second_of(read.at) in self.disputed or names_id
