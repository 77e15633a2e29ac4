"""Delays between retries."""

from __future__ import annotations

import math

import pytest

from fubd.backoff import MAX_RETRY_AFTER_SECONDS, backoff_seconds, parse_retry_after


def test_each_delay_doubles_the_one_before_up_to_the_limit() -> None:
    """The first retry waits for the first delay."""
    delays = [backoff_seconds(attempt, first_seconds=0.5, longest_seconds=3.0) for attempt in range(1, 6)]
    assert delays == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_any_number_of_attempts_has_a_delay() -> None:
    """A daemon may fail for years; 2.0 ** 1024 would overflow."""
    assert backoff_seconds(10**9, first_seconds=0.5, longest_seconds=3.0) == 3.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("0", None),
        ("nan", None),
        ("inf", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("8", 8.0),
        (" 8 ", 8.0),
        ("0.2", 1.0),
        ("86400", MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_retry_after_is_a_bounded_number_of_seconds(header: str | None, seconds: float | None) -> None:
    """Anything but a positive number gives None."""
    found = parse_retry_after({} if header is None else {"Retry-After": header})
    assert found == seconds
    assert found is None or math.isfinite(found)


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 -0000", None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "today", None),
    ],
)
def test_retry_after_may_be_an_instant_of_the_sender(retry_after: str, date: str, seconds: float | None) -> None:
    """It is compared with the sender's own clock."""
    assert parse_retry_after({"Retry-After": retry_after, "Date": date}) == seconds
