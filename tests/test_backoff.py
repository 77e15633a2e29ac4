"""Delays between retries."""

from __future__ import annotations

from fubd.backoff import backoff_seconds


def test_each_delay_doubles_the_one_before_up_to_the_limit() -> None:
    """The first retry waits for the first delay."""
    delays = [backoff_seconds(attempt, first_seconds=0.5, longest_seconds=3.0) for attempt in range(1, 6)]
    assert delays == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_any_number_of_attempts_has_a_delay() -> None:
    """A daemon may fail for years; 2.0 ** 1024 would overflow."""
    assert backoff_seconds(10**9, first_seconds=0.5, longest_seconds=3.0) == 3.0
