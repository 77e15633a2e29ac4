"""Freshness as words, and the account of blind time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.core.freshness import (
    HEALTHY,
    POLLING_STALE,
    WEBHOOK_STALE,
    SubscriptionReport,
    SubscriptionsReport,
    SubscriptionStatus,
    blind_seconds,
    polling_status,
    watched_until,
    webhook_status,
)

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


@pytest.mark.parametrize(
    ("heard", "webhook", "polling"),
    [
        (None, WEBHOOK_STALE, POLLING_STALE),
        (NOON, HEALTHY, HEALTHY),
        (NOON - timedelta(seconds=3600), HEALTHY, HEALTHY),
        (NOON - timedelta(seconds=3600.5), WEBHOOK_STALE, POLLING_STALE),
        (NOON + timedelta(hours=5), HEALTHY, HEALTHY),
    ],
)
def test_a_source_is_healthy_until_its_silence_is_too_long(heard: datetime | None, webhook: str, polling: str) -> None:
    """Never heard is stale, the very edge is healthy, and a clock set back makes nothing stale."""
    assert webhook_status(heard, NOON, stale_after_seconds=3600.0) == webhook
    assert polling_status(heard, NOON, stale_after_seconds=3600.0) == polling


def test_webhooks_watch_until_their_silence_turns_stale() -> None:
    """A delivery vouches for the stale time, but for nothing once it is proven that webhooks fail."""
    assert _watched(NOON, None) == NOON + timedelta(hours=1)
    assert _watched(NOON, None, fail=True) is None


def test_polling_watches_until_a_poll_is_one_delay_late() -> None:
    """At 30 s a poll vouches for a minute, at half an hour for the stale time of polling and no more."""
    assert _watched(None, NOON) == NOON + timedelta(seconds=60)
    assert _watched(None, NOON, delay=1800.0) == NOON + timedelta(seconds=2700)


def test_the_longer_watch_counts() -> None:
    """With both sources heard, the later end holds."""
    assert _watched(NOON, NOON + timedelta(minutes=50), delay=1800.0) == NOON + timedelta(minutes=95)


@given(since=instants, until=instants, watched=st.none() | instants)
def test_blind_time_is_never_negative_and_never_more_than_passed(since: datetime, until: datetime, watched: datetime | None) -> None:
    """Between two instants, no more can be blind than lies between them."""
    blind = blind_seconds(since, until, watched)
    assert 0.0 <= blind <= max(0.0, (until - since).total_seconds())


@given(instants, seconds, seconds, st.none() | instants)
def test_blind_time_adds_up(since: datetime, first: float, second: float, watched: datetime | None) -> None:
    """Counted in two steps it is the same as counted in one."""
    middle = since + timedelta(seconds=first)
    end = middle + timedelta(seconds=second)
    whole = blind_seconds(since, end, watched)
    assert blind_seconds(since, middle, watched) + blind_seconds(middle, end, watched) == pytest.approx(whole, abs=1e-3)


def test_a_report_names_the_first_broken_webhook_in_words() -> None:
    """What was found broken and repaired is proof of the past only; a status that says nothing of FUB's registry is no proof."""
    repaired = SubscriptionReport("peopleStageUpdated", SubscriptionStatus.DISABLED, SubscriptionStatus.ACTIVE)
    unknown = SubscriptionReport("peopleCreated", SubscriptionStatus.NOT_OWNER, SubscriptionStatus.NOT_OWNER)
    report = SubscriptionsReport((unknown, repaired))
    assert report.was_broken == "the webhook for peopleStageUpdated is disabled in Follow Up Boss"
    assert report.is_broken is None
    assert report.statuses() == {"peopleCreated": "not_owner", "peopleStageUpdated": "active"}
