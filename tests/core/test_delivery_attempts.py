"""The share of FUB's delivery attempts that failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fubd.core.delivery_attempts import AttemptCounts, HourCount, OtherProcesses, attempt_times, window_start

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NO_OTHERS = OtherProcesses(0, 0, None)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def test_attempts_follow_the_documented_schedule() -> None:
    """At once, then 1, 5, 5, 10 and 30 minutes after the one before; only those between the two instants."""
    attempts = list(attempt_times(NOON, NOON, NOON + HOUR))
    assert [(attempt - NOON) / MINUTE for attempt in attempts] == [0, 1, 6, 11, 21, 51]
    assert list(attempt_times(NOON, NOON + MINUTE, NOON + 11 * MINUTE)) == [NOON + MINUTE, NOON + 6 * MINUTE]
    assert list(attempt_times(NOON, NOON - 9 * MINUTE, NOON)) == []


def test_the_ratio_counts_every_process() -> None:
    """Failed attempts over all attempts, ours and those that other processes counted; 0 before the first."""
    attempts = AttemptCounts()
    assert attempts.failure_ratio(NOON, NO_OTHERS) == 0
    attempts.add(NOON, failed=1, accepted=2)
    assert attempts.failure_ratio(NOON, NO_OTHERS) == 1 / 3
    assert attempts.failure_ratio(NOON, OtherProcesses(2, 1, NOON)) == 1 / 2


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_attempts_older_than_the_window_are_dropped(counted: list[tuple[int, int, int]]) -> None:
    """In whatever order attempts are counted, the ratio is that of the hours in the window, and no other hour is held."""
    attempts = AttemptCounts()
    for hours_ago, failed, accepted in counted:
        attempts.add(NOON - hours_ago * HOUR, failed=failed, accepted=accepted)
    failed = sum(failed for hours_ago, failed, _ in counted if hours_ago <= 48)
    accepted = sum(accepted for hours_ago, _, accepted in counted if hours_ago <= 48)
    assert attempts.failure_ratio(NOON, NO_OTHERS) == (failed / (failed + accepted) if failed else 0)
    assert all(count.hour >= window_start(NOON) for count in attempts.unsaved(NOON))


def test_only_hours_that_changed_are_saved_again() -> None:
    """A saved hour is not returned again until it grows; the present hour always is, because it shows that this process runs."""
    attempts = AttemptCounts()
    attempts.add(NOON - HOUR, failed=1)
    counts = attempts.unsaved(NOON)
    assert counts == [HourCount(NOON - HOUR, failed=1, accepted=0), HourCount(NOON, failed=0, accepted=0)]
    assert attempts.has_unsaved()
    attempts.mark_saved(counts)
    assert not attempts.has_unsaved()
    attempts.add(NOON, accepted=1)
    assert attempts.unsaved(NOON) == [HourCount(NOON, failed=0, accepted=1)]
