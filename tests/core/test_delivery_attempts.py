from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fubd.core.delivery_attempts import Others, Tally, attempts_within, window_begins

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NOBODY = Others(0, 0, None)


def minutes(number: float) -> timedelta:
    """Give so many minutes."""
    return timedelta(minutes=number)


def test_attempts_follow_the_documented_table() -> None:
    """At once, then 1, 5, 5, 10 and 30 minutes after the one before; only those between the two instants."""
    attempts = list(attempts_within(NOON, NOON, NOON + minutes(60)))
    assert [(attempt - NOON) / minutes(1) for attempt in attempts] == [0, 1, 6, 11, 21, 51]
    assert list(attempts_within(NOON, NOON + minutes(1), NOON + minutes(11))) == [NOON + minutes(1), NOON + minutes(6)]
    assert list(attempts_within(NOON, NOON - minutes(9), NOON)) == []


def test_the_ratio_is_that_of_everybody() -> None:
    """Failed by all attempts, ours and those that other processes counted; 0 before the first."""
    tally = Tally()
    assert tally.ratio(NOON, NOBODY) == 0
    tally.add(NOON, failed=1, taken=2)
    assert tally.ratio(NOON, NOBODY) == 1 / 3
    assert tally.ratio(NOON, Others(2, 1, NOON)) == 1 / 2


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_what_is_older_than_the_window_is_forgotten(counted: list[tuple[int, int, int]]) -> None:
    """Whatever is counted in whatever order, the ratio is that of the hours in the window, and no other hour is held."""
    tally = Tally()
    for hours_ago, failed, taken in counted:
        tally.add(NOON - timedelta(hours=hours_ago), failed=failed, taken=taken)
    failed = sum(failed for hours_ago, failed, _ in counted if hours_ago <= 48)
    taken = sum(taken for hours_ago, _, taken in counted if hours_ago <= 48)
    assert tally.ratio(NOON, NOBODY) == (failed / (failed + taken) if failed else 0)
    assert all(hour.hour >= window_begins(NOON) for hour in tally.unkept(NOON))


def test_only_what_changed_is_kept_again() -> None:
    """What was kept is not offered again until it grows; the present hour always is, for it shows that we are here."""
    tally = Tally()
    tally.add(NOON - timedelta(hours=1), failed=1)
    hours = tally.unkept(NOON)
    assert [(hour.hour, hour.failed) for hour in hours] == [(NOON - timedelta(hours=1), 1), (NOON, 0)]
    assert tally.changed()
    tally.kept(hours)
    assert not tally.changed()
    tally.add(NOON, taken=1)
    assert [(hour.hour, hour.taken) for hour in tally.unkept(NOON)] == [(NOON, 1)]
