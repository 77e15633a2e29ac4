"""The laws hold around rows of another writer: nothing of theirs is touched, and ours follow from all that stands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from fubd.core.reconcile import Claim, PersonHistory, Row, reconcile
from fubd.core.timeline import Stage

BEGINNING = datetime(2026, 1, 5, 10, tzinfo=UTC)
WINDOW = timedelta(seconds=300)
STAGES = ("A", "B", "C")

# Instants close to one another, so that ties and late datings meet; rows of theirs have fractions, and some tell no stage.
seconds = st.sampled_from((0, 1, 2, 60, 299, 301, 900))
foreign_rows = st.lists(st.tuples(st.sampled_from((*STAGES, "")), seconds, st.sampled_from((0, 250_000, 999_999))), max_size=4)
claims = st.lists(
    st.one_of(
        st.tuples(st.just("entry"), st.sampled_from(STAGES), seconds, st.just(0)),
        st.tuples(st.just("state"), st.sampled_from(STAGES), seconds, st.sampled_from((0, 1, 60, 400, 4_000))),
    ),
    max_size=5,
    unique=True,
)


class Table:
    """One person's rows and claims, as the database would hold them."""

    def __init__(self, foreign: Sequence[tuple[str, int, int]]) -> None:
        self.rows: dict[int, Row] = {}
        self.claims: list[Claim] = []
        self.merged: set[int] = set()
        for number, (stage, second, fraction) in enumerate(foreign, start=1):
            self.rows[number] = _row(number, stage, BEGINNING + timedelta(seconds=second, microseconds=fraction))
        self.foreign = dict(self.rows)
        self._next = 1_000

    def record(self, kind: str, stage: str, second: int, later: int) -> bool:
        """Take one claim in; tell whether anything was written."""
        at = BEGINNING + timedelta(seconds=second)
        channel, read_at = ("webhook", None) if kind == "entry" else ("polling", at + timedelta(seconds=later))
        known = next((claim for claim in self.claims if (claim.entry, claim.at, claim.stage.name) == (kind == "entry", at, stage)), None)
        if known is None:
            self._next += 1
            claim = Claim(self._next, self._next, kind == "entry", channel, at, Stage(stage), f"e{self._next}", at, read_at, None, None)
            self.claims.append(claim)
        elif read_at is not None and known.read_at is not None and read_at > known.read_at:
            claim = known._replace(read_at=read_at)
            self.claims[self.claims.index(known)] = claim
        else:
            return False
        return self.settle({claim.seq} if known is None else set())

    def settle(self, new: set[int]) -> bool:
        """Reconcile and write the difference."""
        difference = reconcile(PersonHistory(1, None, tuple(self.rows.values()), tuple(self.claims)), new, window=WINDOW, began=None)
        for made in difference.recorded:
            self._next += 1
            row = made.row if made.claim_to_relink is None else made.row._replace(id=self._next)
            if made.claim_to_relink is not None:
                self.claims = [claim._replace(row_id=row.id) if claim.seq == made.claim_to_relink else claim for claim in self.claims]
            assert row.id not in self.rows
            self.rows[row.id] = row
        for corrected in difference.corrected:
            assert not corrected.was.foreign
            self.rows[corrected.now.id] = corrected.now
        for merged in difference.merged:
            assert not merged.foreign
            del self.rows[merged.id]
        return bool(difference.recorded or difference.corrected or difference.merged)

    def in_order(self) -> list[Row]:
        """Give the rows as readers see them, without those that tell no stage."""
        return sorted((row for row in self.rows.values() if row.stage.name), key=lambda row: (row.changed_at, row.id))

    def history(self) -> list[tuple[str | None, str, datetime, datetime | None]]:
        """Give what of the rows the evidence decides."""
        return [(row.stage_from, row.stage.name, row.changed_at, row.changed_after) for row in self.in_order()]


def _row(number: int, stage: str, at: datetime) -> Row:
    return Row(number, None, Stage(stage), at, None, "polling", at, None, None, None, foreign=True)


@given(foreign_rows, claims)
def test_rows_of_others_stay_and_ours_follow_from_them(foreign: list[tuple[str, int, int]], told: list[tuple[str, str, int, int]]) -> None:
    """Each row of ours leaves the stage before it in the table's own order, and enters another; telling it all again changes nothing."""
    table = Table(foreign)
    for claim in told:
        table.record(*claim)
    assert {number: row for number, row in table.rows.items() if row.foreign} == table.foreign
    before: Row | None = None
    for row in table.in_order():
        if not row.foreign and before is not None:
            assert (row.stage_from, row.stage.name) == (before.stage.name, row.stage.name)
            assert row.stage.name != before.stage.name
            assert row.changed_at > before.changed_at
        before = row
    assert not table.settle(set())


@given(foreign_rows, claims, st.randoms(use_true_random=False))
def test_order_does_not_matter_beside_rows_of_others(
    foreign: list[tuple[str, int, int]], told: list[tuple[str, str, int, int]], chance: random.Random
) -> None:
    """The rows are a function of theirs and of what was told, but for what contradicts within one second: there arrival decides."""
    for kind in ("entry", "state"):
        ties = {(second, stage) for what, stage, second, _ in told if what == kind}
        assume(len({second for second, _ in ties}) == len(ties))
    one, other = Table(foreign), Table(foreign)
    shuffled = list(told)
    chance.shuffle(shuffled)
    for table, order in ((one, told), (other, shuffled)):
        for claim in order:
            table.record(*claim)
    assert one.history() == other.history()


@given(foreign_rows, claims, foreign_rows)
def test_rows_that_come_later_are_taken_in(
    foreign: list[tuple[str, int, int]], told: list[tuple[str, str, int, int]], later: list[tuple[str, int, int]]
) -> None:
    """What another writer adds after us is, once the person is settled again, as if it had stood there before."""
    one, other = Table([*foreign, *later]), Table(foreign)
    for claim in told:
        one.record(*claim)
        other.record(*claim)
    other.rows |= {number: row for number, row in one.foreign.items() if number > len(foreign)}
    other.settle(set())
    assert one.history() == other.history()
