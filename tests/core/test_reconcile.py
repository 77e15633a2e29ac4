"""The laws hold next to rows of another writer: none of theirs is changed, and ours follow from everything that stands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from fubd.core.history import Stage
from fubd.core.reconcile import Claim, PersonHistory, Row, reconcile

BEGINNING = datetime(2026, 1, 5, 10, tzinfo=UTC)
WINDOW = timedelta(seconds=300)
STAGES = ("A", "B", "C")


class Foreign(NamedTuple):
    """A row of another writer: its stage ("" for none) and its instant."""

    stage: str
    second: int
    microsecond: int


class Evidence(NamedTuple):
    """An entry or a state; a state was read so many seconds after its second."""

    kind: str
    stage: str
    second: int
    read_later: int = 0


# Instants close to one another, so that ties and late datings meet; foreign rows have fractions, and some name no stage.
seconds = st.sampled_from((0, 1, 2, 60, 299, 301, 900))
stages = st.sampled_from(STAGES)
foreign_rows = st.lists(st.builds(Foreign, st.sampled_from((*STAGES, "")), seconds, st.sampled_from((0, 250_000, 999_999))), max_size=4)
entries = st.builds(Evidence, st.just("entry"), stages, seconds)
states = st.builds(Evidence, st.just("state"), stages, seconds, st.sampled_from((0, 1, 60, 400, 4_000)))
evidence = st.lists(st.one_of(entries, states), max_size=5, unique=True)


def without_contradictions(drawn: list[Evidence]) -> list[Evidence]:
    """Return the evidence with one stage for each kind and second: where two contradict within a second, the order of arrival decides."""
    stage_of: dict[tuple[str, int], str] = {}
    consistent = (one._replace(stage=stage_of.setdefault((one.kind, one.second), one.stage)) for one in drawn)
    return list(dict.fromkeys(consistent))


class Table:
    """One person's rows and claims, as the database would hold them."""

    def __init__(self, foreign: Sequence[Foreign]) -> None:
        self.rows = {number: _foreign_row(number, row) for number, row in enumerate(foreign, start=1)}
        self.foreign = dict(self.rows)
        self.claims: list[Claim] = []
        self._last_id = 1_000

    def record(self, one: Evidence) -> None:
        """Record a claim."""
        at = BEGINNING + timedelta(seconds=one.second)
        channel, read_at = ("webhook", None) if one.kind == "entry" else ("polling", at + timedelta(seconds=one.read_later))
        known = next((claim for claim in self.claims if (claim.kind, claim.at, claim.stage.name) == (one.kind, at, one.stage)), None)
        if known is None:
            self._last_id += 1
            claim = Claim(
                seq=self._last_id,
                row_id=self._last_id,
                person_id=1,
                kind=one.kind,
                channel=channel,
                at=at,
                stage=Stage(one.stage),
                event_id=f"e{self._last_id}",
                received_at=at,
                read_at=read_at,
            )
            self.claims.append(claim)
            self.settle({claim.seq})
        elif read_at is not None and known.read_at is not None and read_at > known.read_at:
            self.claims[self.claims.index(known)] = replace(known, read_at=read_at)
            self.settle(set())

    def settle(self, new: set[int]) -> bool:
        """Reconcile and write the difference; return whether there was one."""
        difference = reconcile(PersonHistory(1, None, tuple(self.rows.values()), tuple(self.claims)), new, window=WINDOW, began=None)
        for inserted in difference.inserts:
            self._last_id += 1
            row = inserted.row
            if inserted.claim_to_relink is not None:
                row = replace(row, id=self._last_id)
                self.claims = [replace(claim, row_id=row.id) if claim.seq == inserted.claim_to_relink else claim for claim in self.claims]
            assert row.id not in self.rows
            self.rows[row.id] = row
        for update in difference.updates:
            assert not update.was.foreign
            self.rows[update.now.id] = update.now
        for merged in difference.merged:
            assert not merged.foreign
            del self.rows[merged.id]
        return bool(difference.inserts or difference.updates or difference.merged)

    def in_order(self) -> list[Row]:
        """Return the rows as readers see them, without those that name no stage."""
        return sorted((row for row in self.rows.values() if row.stage.name), key=lambda row: (row.changed_at, row.id))

    def history(self) -> list[tuple[str | None, str, datetime, datetime | None]]:
        """Return the part of the rows that the evidence decides."""
        return [(row.stage_from, row.stage.name, row.changed_at, row.changed_after) for row in self.in_order()]


def _foreign_row(number: int, row: Foreign) -> Row:
    at = BEGINNING + timedelta(seconds=row.second, microseconds=row.microsecond)
    return Row(
        id=number,
        person_id=1,
        stage_from=None,
        stage=Stage(row.stage),
        changed_at=at,
        changed_after=None,
        source="polling",
        received_at=at,
        foreign=True,
    )


@given(foreign_rows, evidence)
def test_rows_of_others_stay_and_ours_follow_from_them(foreign: list[Foreign], recorded: list[Evidence]) -> None:
    """Each row of ours leaves the stage before it in the table's own order and enters another; settling again changes nothing."""
    table = Table(foreign)
    for one in recorded:
        table.record(one)
    assert {number: row for number, row in table.rows.items() if row.foreign} == table.foreign
    before: Row | None = None
    for row in table.in_order():
        if not row.foreign and before is not None:
            assert row.stage_from == before.stage.name
            assert row.stage.name != before.stage.name
            assert row.changed_at > before.changed_at
        before = row
    assert not table.settle(set())


@given(foreign_rows, evidence.map(without_contradictions), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(foreign: list[Foreign], recorded: list[Evidence], rng: random.Random) -> None:
    """The rows are a function of the foreign rows and the evidence, except for what contradicts itself within one second."""
    one, other = Table(foreign), Table(foreign)
    for table, order in ((one, recorded), (other, rng.sample(recorded, len(recorded)))):
        for claim in order:
            table.record(claim)
    assert one.history() == other.history()


@given(foreign_rows, evidence, foreign_rows)
def test_rows_that_another_writer_adds_later_count_as_if_they_had_stood_before(
    foreign: list[Foreign], recorded: list[Evidence], later: list[Foreign]
) -> None:
    """Once the person is settled again, the table is the same as if all rows of the other writer had been there first."""
    one, other = Table([*foreign, *later]), Table(foreign)
    for claim in recorded:
        one.record(claim)
        other.record(claim)
    other.rows |= {number: row for number, row in one.foreign.items() if number > len(foreign)}
    other.settle(set())
    assert one.history() == other.history()


def test_a_read_is_placed_by_when_it_was_made_among_rows_of_another_writer() -> None:
    """Such a row is dated late: a read long after it that shows another stage is about the time after it, an earlier read is not."""
    for read_later, expected in ((4_000, ["A", "C", "B"]), (60, ["A", "B", "C"])):
        table = Table([Foreign("A", 0, 0), Foreign("C", 900, 0)])
        table.record(Evidence("state", "B", 60, read_later))
        assert [row.stage.name for row in table.in_order()] == expected
