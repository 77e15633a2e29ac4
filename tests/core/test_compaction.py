"""Reads that say nothing any more can go: the rows are the same without them, whatever else is reported afterwards."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.core.compaction import superseded_reads
from fubd.core.history import Stage
from fubd.core.reconcile import Claim, PersonHistory, reconcile
from tests.support.examples import examples

BEGINNING = datetime.fromisoformat("2026-01-05T10:00:00+00:00")
WINDOW = timedelta(seconds=300)
EDGE = 20_000
STAGES = (Stage("A", 1), Stage("B", 2), Stage("C"), Stage("A", 3), Stage("B2", 2))


def instant(second: int) -> datetime:
    """Return an instant so many seconds after the beginning."""
    return BEGINNING + timedelta(seconds=second)


def entered(stage: Stage, second: int) -> Claim:
    """Return what a webhook reports."""
    when = instant(second)
    return Claim(person_id=1, kind="entry", channel="webhook", at=when, stage=stage, event_id=f"{stage.name}{second}", received_at=when)


def shown(stage: Stage, updated: int, read: int, watermark: int | None = None, created: int | None = None) -> Claim:
    """Return what a poll reads."""
    return Claim(
        person_id=1,
        kind="state",
        channel="polling",
        at=instant(updated),
        stage=stage,
        received_at=instant(read),
        read_at=instant(read),
        first_read_at=instant(read),
        watermark=None if watermark is None else instant(watermark),
        created=None if created is None else instant(created),
    )


class Recorded:
    """A person's rows and claims, as the database would hold them."""

    def __init__(self) -> None:
        self.person = PersonHistory(1, None, (), ())
        self._last_seq = 0

    def record(self, reported: Claim) -> None:
        """Record one claim; the same state read again holds for longer."""
        known = next((claim for claim in self.person.claims if claim.key == reported.key), None)
        if known is None:
            self._last_seq += 1
            claims = (*self.person.claims, replace(reported, seq=self._last_seq, row_id=self._last_seq))
            self._settle(claims, frozenset({self._last_seq}))
        elif reported.read_at is not None and known.read_at is not None and reported.read_at > known.read_at:
            longer = replace(known, read_at=reported.read_at)
            self._settle(tuple(longer if claim is known else claim for claim in self.person.claims), frozenset())

    def settle(self) -> None:
        """Compare the rows with the claims once more."""
        self._settle(self.person.claims, frozenset())

    def _settle(self, claims: tuple[Claim, ...], new: frozenset[int]) -> None:
        person = replace(self.person, claims=claims)
        difference = reconcile(person, new, window=WINDOW, began=BEGINNING)
        rows = {row.id: row for row in person.rows}
        for inserted in difference.inserts:
            row = inserted.row
            if inserted.claim_to_relink is not None:
                self._last_seq += 1
                row = replace(row, id=self._last_seq)
                claims = tuple(replace(claim, row_id=row.id) if claim.seq == inserted.claim_to_relink else claim for claim in claims)
            rows[row.id] = row
        rows |= {update.now.id: update.now for update in difference.updates}
        for merged in difference.merged:
            del rows[merged.id]
        self.person = replace(person, rows=tuple(rows.values()), claims=claims)

    def compact(self, before: int) -> int:
        """Remove the reads that are superseded; return how many."""
        seqs = superseded_reads(self.person, before=instant(before), window=WINDOW, began=BEGINNING)
        self.person = replace(self.person, claims=tuple(claim for claim in self.person.claims if claim.seq not in seqs))
        return len(seqs)


# Seconds close together, so that ties and both edges of the window are frequent.
seconds = st.sampled_from((*range(9), 60, 61, 62, 299, 300, 301, 302, 601, 900, 1_200, 1_201, 2_000, 5_000))
stages = st.sampled_from(STAGES)
entries = st.builds(entered, stages, seconds)
reads = st.builds(
    lambda stage, updated, later, gap, age: shown(
        stage, updated, updated + later, None if gap is None else updated - gap, None if age is None else updated - age
    ),
    stages,
    seconds,
    st.sampled_from((0, 1, 2, 60, 301, 1_200, 3_000)),
    st.sampled_from((None, None, 1, 300)),
    st.sampled_from((None, None, 1, 301, 9_000)),
)
any_claims = st.lists(entries | reads, min_size=1, max_size=14)


def moved(claim: Claim, by: int) -> Claim:
    """Return the claim so many seconds later."""
    delta = timedelta(seconds=by)
    instants = ("at", "received_at", "read_at", "first_read_at", "watermark")
    return replace(claim, **{name: value + delta for name in instants if (value := getattr(claim, name)) is not None})


@st.composite
def later_claims(draw: st.DrawFn, earlier: list[Claim]) -> list[Claim]:
    """Draw what may be reported from the edge on: events of that time, and reads, also of people who were not edited since."""
    later = [moved(claim, EDGE) for claim in draw(any_claims)]
    last_read = max((claim.at for claim in earlier if not claim.is_entry), default=None)
    if last_read is not None and draw(st.booleans()):
        for number in range(draw(st.integers(1, 3))):
            later.insert(
                draw(st.integers(0, len(later))),
                replace(
                    shown(draw(stages), 0, EDGE + 1_000 * number), at=last_read + timedelta(seconds=draw(st.sampled_from((0, 0, 1, 300))))
                ),
            )
    return later


def life(rng: Random, first: int, last: int, updated: int) -> list[Claim]:
    """Return what a person's moves and edits leave, in the order of arrival: events, some of them lost, late or trailing, and reads.

    `updated`: of the last edit before `first`.
    """
    reported: list[tuple[int, Claim]] = []
    second, stage = first, STAGES[0]
    while second < last:
        if rng.random() < 0.5:
            stage, updated = rng.choice(STAGES), second
            if rng.random() < 0.8:
                reported.append((second + rng.choice((0, 1, 60, 4_000)), entered(stage, second + rng.choice((0, 0, 0, 1, 3, -1)))))
        elif rng.random() < 0.9:
            updated = second
        for _ in range(rng.choice((0, 1, 1, 2))):
            read = second + rng.choice((0, 1, 3, 60, 900, 1_800))
            reported.append((read, shown(stage, updated, read, rng.choice((None, None, second - 600)), rng.choice((None, -90_000, -1)))))
        second += rng.choice((1, 2, 60, 300, 900, 1_000, 2_000))
    return [claim for _, claim in sorted(reported, key=lambda one: one[0])]


def lives(rng: Random, *, end: int) -> tuple[list[Claim], list[Claim]]:
    """Return what is reported of a person before the edge, and from it on."""
    earlier = life(rng, 0, end, 0)
    last = max((claim.at for claim in earlier if not claim.is_entry), default=BEGINNING)
    return earlier, life(rng, EDGE, EDGE + 3_000, int((last - BEGINNING).total_seconds()))


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Claim], list[Claim]]:
    """Draw any evidence from before the edge, with ties and contradictions, and any from after it."""
    earlier = draw(any_claims)
    return earlier, draw(later_claims(earlier))


def assert_compaction_changes_nothing(earlier: list[Claim], later: list[Claim]) -> int:
    """Record both, once with a compaction between and after them; return how many reads went."""
    whole = Recorded()
    for claim in earlier:
        whole.record(claim)
    compacted = copy(whole)
    removed = compacted.compact(EDGE)
    for claim in later:
        whole.record(claim)
        compacted.record(claim)
        assert compacted.person.rows == whole.person.rows
    removed += compacted.compact(3 * EDGE)
    compacted.settle()
    whole.settle()
    assert compacted.person.rows == whole.person.rows
    return removed


@examples(0.5)
@given(stories())
def test_no_evidence_makes_other_rows_without_superseded_reads(story: tuple[list[Claim], list[Claim]]) -> None:
    """Rows, with what confirmed them, are those of someone whose claims all stayed, after each later claim; so it is when done twice."""
    assert_compaction_changes_nothing(*story)


@examples(0.5)
@given(st.integers(0, 2**32))
def test_no_life_has_other_rows_without_superseded_reads(seed: int) -> None:
    """The same, for what a person's moves and edits leave."""
    assert_compaction_changes_nothing(*lives(Random(seed), end=6_000))


def test_what_is_kept_of_a_person_grows_with_the_moves_alone() -> None:
    """Of a stay that is over, its event stays; of the last one, the two newest reads, too; and the first read of all."""
    person = Recorded()
    for number in range(10):
        person.record(shown(STAGES[0], 100 * number, 100 * number + 1))
    for number in range(1, 5):
        stage = STAGES[number % 2]
        person.record(entered(stage, 2_000 * number))
        for edit in range(10):
            person.record(shown(stage, 2_000 * number + 100 * edit + 1, 2_000 * number + 100 * edit + 3))
    assert len(person.person.claims) == 54
    rows = person.person.rows
    assert person.compact(EDGE) == 47
    assert person.compact(EDGE) == 0
    assert person.person.rows == rows


@pytest.mark.parametrize(
    "late", [entered(STAGES[1], 8_100), shown(STAGES[1], 7_900, EDGE)], ids=["a late event", "a change that moved nothing"]
)
def test_the_newest_reads_stay(late: Claim) -> None:
    """What may still be corrected keeps its evidence: reads made since the edge, and those of the last `updated`."""
    person = Recorded()
    for reported in (
        shown(STAGES[0], 0, 60),
        entered(STAGES[2], 1_000),
        *(shown(STAGES[2], 1_000 + 300 * n, 1_100 + 300 * n) for n in range(24)),
    ):
        person.record(reported)
    whole = copy(person)
    assert person.compact(5_000) == 13
    person.record(late)
    whole.record(late)
    assert person.person.rows == whole.person.rows
