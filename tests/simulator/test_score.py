from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.simulator import Account, Score, Sightings, SimClock, score
from tests.simulator.conftest import NINE

Table = list[dict[str, Any]]


class History:
    """Four people, some changes, and the correct table."""

    def __init__(self) -> None:
        self.clock = SimClock(NINE, speed=0.0)
        self.account = Account(seed=5, people=50, clock=self.clock)
        self.sightings = Sightings(self.account.truth)
        self.sightings.record_read(self.account.ids, NINE)

    def move(self, person_id: int, stage: str, *, after: float = 600.0, delivered: bool = True, read: bool = False) -> None:
        """Move a person after some seconds; a webhook reports it, a read shows it, or neither."""
        self.clock.advance(after)
        assert self.account.move(person_id, stage)
        if delivered:
            self.sightings.record_delivery(self.account.truth.changes[-1:], self.clock.now(), acknowledged=True, created=self.clock.now())
        if read:
            self.sightings.record_read([person_id], self.clock.now())

    def table(self) -> Table:
        """Return the correct rows."""
        return [
            {
                "person_id": str(change.person_id),
                "stage_from": change.stage_from,
                "stage_to": change.stage_to,
                "changed_at": change.at.replace(microsecond=0),
                "changed_after": None,
                "received_at": change.at + timedelta(seconds=2),
                "source": "webhook",
            }
            for change in self.account.truth.changes
        ]

    def score(self, table: Table) -> Score:
        """Score a table against everything that was shown."""
        return score(self.account.truth, table, sightings=self.sightings)


@pytest.fixture
def history() -> History:
    """Return one person who moves back and forth within seconds, and another who advances."""
    history = History()
    for stage in ("Nurture", "Past Client", "Nurture", "Past Client"):
        history.move(1001, stage, after=4)
    for stage in ("ACQ - Offers Made", "ACQ - Contract Sent", "ACQ - Under Contract"):
        history.move(1002, stage)
    return history


def faulty(score: Score) -> dict[str, int]:
    """Return the non-zero counts of what is wrong."""
    names = ("lost_shown", "lost_unseen", "doubled", "invented", "wrong_from", "wrong_time", "chain_breaks", "out_of_order")
    return {name: getattr(score, name) for name in names if getattr(score, name)}


def test_the_right_table_is_perfect(history: History) -> None:
    """A table with every change once, at its second and from the right stage, has no discrepancy, in any order of its rows."""
    table = list(reversed(history.table()))
    result = history.score(table)
    assert result.is_perfect
    assert (result.changes, result.captured, result.lost) == (7, 7, 0)
    assert result.delays["webhook"].worst == 2.0
    assert result.summary().startswith("7 changes, 7 captured, 0 lost (0 although shown, 0 unseen), 0 doubled, 0 invented")


def test_a_missing_row_is_lost(history: History) -> None:
    """A change without a row is lost although shown, and the next row's stage_from does not match its neighbour."""
    table = history.table()
    del table[5]
    result = history.score(table)
    assert faulty(result) == {"lost_shown": 1, "chain_breaks": 1}
    assert result.lost_acknowledged == 1
    assert not result.is_perfect


def test_a_row_twice_is_doubled(history: History) -> None:
    """A change recorded twice is doubled, at any later time, also if the rows after it continue the chain."""
    table = history.table()
    table.append(table[4] | {"changed_at": table[4]["changed_at"] + timedelta(seconds=90), "stage_from": "ACQ - Offers Made"})
    assert faulty(history.score(table)) == {"doubled": 1}
    table[-1]["stage_from"] = table[4]["stage_from"]
    assert faulty(history.score(table)) == {"doubled": 1, "chain_breaks": 1}


def test_a_row_of_nothing_is_invented(history: History) -> None:
    """A row of a stage never entered is invented: a stage of first sight, an unknown person, or a stage before it was entered."""
    start = history.account.truth.start_stage(1003)
    first_sight = history.table()[0] | {"person_id": 1003, "stage_from": None, "stage_to": start}
    assert faulty(history.score([*history.table(), first_sight])) == {"invented": 1}
    unknown = first_sight | {"person_id": 424242}
    assert faulty(history.score([*history.table(), unknown])) == {"invented": 1}
    early = history.table()[4] | {"changed_at": NINE - timedelta(days=1)}
    assert history.score([*history.table(), early]).invented == 1


def test_another_stage_before_is_wrong(history: History) -> None:
    """A stage_from that is not the stage before is wrong; null too, if the stage before had been shown."""
    table = history.table()
    table[5]["stage_from"] = "Lead"
    assert faulty(history.score(table)) == {"wrong_from": 1, "chain_breaks": 1}
    table = history.table()
    table[4]["stage_from"] = None
    assert faulty(history.score(table)) == {"wrong_from": 1}


def test_null_before_is_right_for_a_person_never_read() -> None:
    """The first row of a person never read before may have no stage_from."""
    history = History()
    history.sightings = Sightings(history.account.truth)
    history.move(1001, "Nurture")
    table = history.table()
    table[0]["stage_from"] = None
    assert history.score(table).is_perfect


@pytest.mark.parametrize("seconds", [-30, -1, 1, 45])
def test_another_time_is_wrong(history: History, seconds: int) -> None:
    """An exact time in another second than the change is wrong, early or late."""
    table = history.table()
    table[6]["changed_at"] += timedelta(seconds=seconds)
    assert faulty(history.score(table)) == {"wrong_time": 1}


def test_bounds_are_right_when_the_change_lies_between(history: History) -> None:
    """A row with changed_after is right if the change lies between its bounds (their own seconds included), and wrong outside."""
    at = history.table()[6]["changed_at"]
    for after, until, fault in ((-60, 0, {}), (0, 30, {}), (0, 0, {}), (5, 30, {"wrong_time": 1}), (-60, -5, {"wrong_time": 1})):
        table = history.table()
        table[6] |= {"changed_after": at + timedelta(seconds=after), "changed_at": at + timedelta(seconds=until), "source": "polling"}
        assert faulty(history.score(table)) == fault


def test_microseconds_keep_the_order_of_one_second() -> None:
    """Changes of one second may be recorded by microseconds of that second, but not at the same instant."""
    history = History()
    history.move(1001, "Nurture")
    history.move(1001, "Past Client", after=0.2)
    table = history.table()
    assert faulty(history.score(table)) == {"out_of_order": 1}
    table[1]["changed_at"] += timedelta(microseconds=1)
    assert history.score(table).is_perfect


def test_swapped_rows_are_out_of_order() -> None:
    """Rows in another order than the changes are found, also within one second."""
    history = History()
    history.move(1001, "Nurture")
    history.move(1001, "Past Client", after=0.2)
    start, at = history.account.truth.start_stage(1001), history.table()[0]["changed_at"]
    swapped = [
        history.table()[1] | {"stage_from": start, "changed_at": at},
        history.table()[0] | {"stage_from": "Past Client", "changed_at": at + timedelta(microseconds=1)},
    ]
    assert faulty(history.score(swapped)) == {"out_of_order": 1, "wrong_from": 2}


def test_changes_that_no_source_showed_are_lost_unseen() -> None:
    """Changes that no source showed are lost unseen; the next row may come from the last known stage, but not from null."""
    history = History()
    start = history.account.truth.start_stage(1001)
    history.move(1001, "Nurture", delivered=False)
    history.move(1001, "Past Client")
    table = history.table()[1:]
    assert faulty(history.score(table)) == {"lost_unseen": 1}
    table[0]["stage_from"] = start
    assert faulty(history.score(table)) == {"lost_unseen": 1}
    table[0]["stage_from"] = "Lead" if start != "Lead" else "Trash"
    assert faulty(history.score(table)) == {"lost_unseen": 1, "wrong_from": 1}


def test_a_read_counts_as_shown() -> None:
    """A change shown only by a read is captured by a polling row, and lost although shown without one."""
    history = History()
    history.move(1001, "Nurture", delivered=False, read=True)
    assert faulty(history.score([])) == {"lost_shown": 1}
    assert history.score([]).lost_acknowledged == 0
    assert history.score([]).discrepancies[0].detail.endswith("readable, no row")


def test_a_return_with_nothing_seen_between_is_no_loss() -> None:
    """A return to the last known stage with nothing shown between looks like no change, so it is lost unseen."""
    history = History()
    start = history.account.truth.start_stage(1001)
    assert start is not None
    history.move(1001, "Nurture", delivered=False)
    history.move(1001, start, delivered=False, read=True)
    assert faulty(history.score([])) == {"lost_unseen": 2}
    history.move(1001, "Past Client")
    history.move(1001, "Nurture", delivered=False)
    history.move(1001, "Past Client")
    table = history.table()[2:3]
    table[0]["stage_from"] = start
    assert faulty(history.score(table)) == {"lost_unseen": 4}


def test_a_created_person() -> None:
    """A created person enters the first stage from null; first known a little later, they may be dated at their creation."""
    history = History()
    person_id = history.account.create()
    history.clock.advance(30)
    history.move(person_id, "Nurture", after=0, delivered=False, read=True)
    assert history.score(history.table()).is_perfect
    known = history.table()[1] | {"stage_from": None, "changed_at": NINE}
    assert faulty(history.score([known])) == {"lost_unseen": 1}
    assert faulty(score(history.account.truth, [known], sightings=history.sightings, window_seconds=10)) == {
        "lost_unseen": 1,
        "wrong_time": 1,
    }


def test_a_renamed_stage_is_the_same() -> None:
    """A stage recorded by an older or newer name is the same stage."""
    history = History()
    history.move(1001, "Nurture")
    history.account.rename_stage("Nurture", "Long Nurture")
    history.move(1001, "Past Client")
    table = history.table()
    table[1]["stage_from"] = "Nurture"
    assert history.score(table).is_perfect


def test_without_sightings_every_change_counts_as_shown(history: History) -> None:
    """Without sightings every missing change counts as lost although shown."""
    result = score(history.account.truth, [])
    assert faulty(result) == {"lost_shown": 7}


def test_only_a_period_is_scored(history: History) -> None:
    """Changes outside the requested time are not required, and rows that record them are not wrong."""
    changes = history.account.truth.changes
    result = score(history.account.truth, history.table()[4:], sightings=history.sightings, since=changes[4].at, until=changes[5].at)
    assert (result.changes, result.captured, faulty(result)) == (2, 2, {})


def test_delays_by_source(history: History) -> None:
    """Delays are given per source: the count, the median, the 95th percentile and the worst, in seconds."""
    table = history.table()
    table[6] |= {"source": "polling", "received_at": table[6]["received_at"] + timedelta(seconds=100)}
    delays = history.score(table).delays
    assert (delays["webhook"].count, delays["webhook"].median) == (6, 2.0)
    assert (delays["polling"].count, delays["polling"].worst) == (1, 102.0)


def test_a_row_without_a_time_is_no_row() -> None:
    """A row without changed_at is refused; times may be strings, and naive ones are UTC."""
    history = History()
    history.move(1001, "Nurture")
    row = history.table()[0]
    with pytest.raises(TypeError):
        history.score([row | {"changed_at": None}])
    text = row | {"changed_at": datetime.isoformat(row["changed_at"].replace(tzinfo=None))}
    assert history.score([text]).is_perfect


@given(
    steps=st.lists(
        st.tuples(
            st.integers(1001, 1004),
            st.sampled_from(["Nurture", "Past Client", "ACQ - Offers Made"]),
            st.sampled_from([0.0, 0.3, 1.0, 40.0]),
        ),
        min_size=1,
        max_size=25,
    ),
    data=st.data(),
)
def test_any_correct_table_is_perfect_and_one_row_less_or_more_is_not(steps: list[tuple[int, str, float]], data: st.DataObject) -> None:
    """For any history the correct table is perfect; without one of its rows, or with one repeated, it is not."""
    history = History()
    for person_id, stage, after in steps:
        if history.account.stage_of(person_id) != stage:
            history.move(person_id, stage, after=after)
    table = history.table()
    for place, row in enumerate(table):
        row["changed_at"] += timedelta(microseconds=place)
    assert history.score(table).is_perfect
    if table:
        place = data.draw(st.integers(0, len(table) - 1))
        assert history.score(table[:place] + table[place + 1 :]).lost_shown == 1
        twice = history.score([*table, table[place] | {"changed_at": table[place]["changed_at"] + timedelta(days=1)}])
        assert (twice.doubled, twice.captured) == (1, len(table))


@given(
    steps=st.lists(
        st.tuples(
            st.integers(1001, 1002), st.sampled_from(["Nurture", "Past Client"]), st.sampled_from([0.0, 0.7, 2.0]), st.floats(0.0, 3.0)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_table_dated_by_trailing_events_is_perfect(steps: list[tuple[int, str, float, float]]) -> None:
    """For any history whose events trail by up to three seconds, in order, the table dated by the events is perfect."""
    history = History()
    table = []
    created = NINE
    for number, (person_id, stage, after, lag) in enumerate(steps):
        if history.account.stage_of(person_id) != stage:
            history.move(person_id, stage, after=after, delivered=False)
            created = max(created, history.clock.now() + timedelta(seconds=lag))
            history.sightings.record_delivery(history.account.truth.changes[-1:], created, acknowledged=True, created=created)
            table.append(history.table()[-1] | {"changed_at": created.replace(microsecond=number)})
    assert history.score(table).is_perfect, history.score(table).discrepancies
