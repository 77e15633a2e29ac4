"""The status of a source, and the time in which no source watched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.core.freshness import blind_seconds, source_status, watched_until
from fubd.core.vocabulary import HEALTHY, STALE

NOON = datetime(2031, 3, 3, 12, 0, tzinfo=UTC)
seconds = st.floats(0.001, 1e6)
instants = st.floats(-1e6, 1e6).map(lambda offset: NOON + timedelta(seconds=offset))


def _watched(webhook: datetime | None, polled: datetime | None, *, fail: bool = False, delay: float = 30.0) -> datetime | None:
    return watched_until(
        webhook,
        polled,
        webhooks_fail=fail,
        poll_delay_seconds=delay,
        webhook_stale_after_seconds=3600.0,
        poll_stale_after_seconds=2700.0,
    )


@pytest.mark.parametrize("source", ["webhook", "polling"])
@pytest.mark.parametrize(
    ("heard", "healthy"),
    [
        (None, False),
        (NOON, True),
        (NOON - timedelta(seconds=3600), True),
        (NOON - timedelta(seconds=3600.5), False),
        (NOON + timedelta(hours=5), True),
    ],
)
def test_a_source_is_healthy_until_its_silence_is_too_long(source: str, heard: datetime | None, *, healthy: bool) -> None:
    """Never heard is stale, exactly the stale time is healthy, and a clock that was set back makes nothing stale."""
    assert source_status(source, heard, NOON, stale_after_seconds=3600.0, fails=False) == (HEALTHY if healthy else STALE[source])
    assert source_status(source, heard, NOON, stale_after_seconds=3600.0, fails=True) == STALE[source]


def test_webhooks_watch_until_their_silence_turns_stale() -> None:
    """A delivery counts for the stale time, but not at all once it is proven that webhooks fail."""
    assert _watched(NOON, None) == NOON + timedelta(hours=1)
    assert _watched(NOON, None, fail=True) is None


def test_polling_watches_until_a_poll_is_one_delay_late() -> None:
    """Polling every 30 s watches for a minute after a poll; every half hour, for the stale time of polling and no more."""
    assert _watched(None, NOON) == NOON + timedelta(seconds=60)
    assert _watched(None, NOON, delay=1800.0) == NOON + timedelta(seconds=2700)


def test_the_later_end_counts() -> None:
    """With both sources heard, the source that watches longer decides."""
    assert _watched(NOON, NOON + timedelta(minutes=50), delay=1800.0) == NOON + timedelta(minutes=95)


@given(since=instants, until=instants, watched=st.none() | instants)
def test_blind_time_is_between_zero_and_the_time_that_passed(since: datetime, until: datetime, watched: datetime | None) -> None:
    """Blind time between two instants is part of the time between them."""
    blind = blind_seconds(since, until, watched)
    assert 0.0 <= blind <= max(0.0, (until - since).total_seconds())


@given(instants, seconds, seconds, st.none() | instants)
def test_blind_time_adds_up(since: datetime, first: float, second: float, watched: datetime | None) -> None:
    """Counted in two steps it is the same as counted in one."""
    middle = since + timedelta(seconds=first)
    end = middle + timedelta(seconds=second)
    whole = blind_seconds(since, end, watched)
    assert blind_seconds(since, middle, watched) + blind_seconds(middle, end, watched) == pytest.approx(whole, abs=1e-3)
