"""The estimate of FUB's clock from its Date header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.client.clock_skew import ClockSkew
from fubd.simulator.rng import Rng

NOON = datetime(2031, 5, 6, 12, 0, 0, tzinfo=UTC)


def update(skew: ClockSkew, *, true_seconds: float, sent_at: float, out_seconds: float, back_seconds: float) -> None:
    """Update the skew by a response of a FUB whose clock is `true_seconds` behind ours."""
    fub = NOON + timedelta(seconds=sent_at + out_seconds - true_seconds)
    answered_at = sent_at + out_seconds + back_seconds
    skew.update(
        date=fub.replace(microsecond=0),
        received_at=NOON + timedelta(seconds=answered_at),
        elapsed_seconds=out_seconds + back_seconds,
        monotonic=answered_at,
    )


def test_no_skew_before_the_first_response() -> None:
    """Without a response the skew is 0."""
    skew = ClockSkew()
    assert skew.seconds() == 0
    assert skew.fub_now(NOON) == NOON


def test_the_first_response_sets_the_estimate() -> None:
    """The estimate is the middle of the header's second, at the middle of the round trip."""
    skew = ClockSkew()
    skew.update(date=NOON, received_at=NOON + timedelta(seconds=40.7), elapsed_seconds=0.4, monotonic=1.0)
    assert skew.seconds() == pytest.approx(40.5 - 0.5)
    assert skew.fub_now(NOON) == NOON - timedelta(seconds=40)


@pytest.mark.parametrize("true_seconds", [-3600.3, -0.4, 0.0, 0.25, 17.9])
def test_many_responses_narrow_the_estimate(true_seconds: float) -> None:
    """After some responses the estimate is better than the header's second, and no longer moves with it."""
    skew, dice = ClockSkew(), Rng(7)
    estimates: list[float] = []
    for number in range(200):
        update(skew, true_seconds=true_seconds, sent_at=number * 1.37, out_seconds=dice.uniform(0.02, 0.1), back_seconds=0.05)
        estimates.append(skew.seconds())
    late = estimates[50:]
    assert max(abs(seconds - true_seconds) for seconds in late) < 0.1
    assert max(late) - min(late) < 0.1


def test_a_clock_that_was_set_replaces_the_bounds() -> None:
    """After a clock was set, the next two responses agree on it and count."""
    skew = ClockSkew()
    for number in range(50):
        update(skew, true_seconds=0.0, sent_at=number * 1.37, out_seconds=0.05, back_seconds=0.05)
    for sent_at in (100.0, 101.0):
        update(skew, true_seconds=90.0, sent_at=sent_at, out_seconds=0.05, back_seconds=0.05)
    assert skew.seconds() == pytest.approx(90.0, abs=0.6)


@pytest.mark.parametrize("wrong_seconds", [-3600.0, 3600.0, 259200.0])
def test_one_response_with_a_wrong_date_changes_nothing(wrong_seconds: float) -> None:
    """Nor do several that contradict each other as well."""
    skew = ClockSkew()
    for number in range(50):
        update(skew, true_seconds=0.0, sent_at=number * 1.37, out_seconds=0.05, back_seconds=0.05)
        update(skew, true_seconds=wrong_seconds + 10 * number, sent_at=number * 1.37 + 0.5, out_seconds=0.05, back_seconds=0.05)
    assert skew.seconds() == pytest.approx(0.0, abs=0.6)


def test_a_slow_drift_is_followed() -> None:
    """A drift as slow as a crystal's is followed over days of responses half an hour apart."""
    skew, drift = ClockSkew(), 60e-6
    for number in range(200):
        at = number * 1800.0
        update(skew, true_seconds=drift * at, sent_at=at + number * 0.173, out_seconds=0.05, back_seconds=0.05)
    assert skew.seconds() == pytest.approx(drift * 199 * 1800.0, abs=0.6)


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0, 2000), st.floats(0, 30), st.floats(0, 30)), min_size=1, max_size=30),
)
def test_the_earliest_fub_now_is_never_too_late(true_seconds: float, responses: list[tuple[float, float, float]]) -> None:
    """Whatever the travel times, FUB's clock is never behind the earliest value, except for rounding to microseconds."""
    skew, sent_at = ClockSkew(), 0.0
    for gap, out_seconds, back_seconds in responses:
        sent_at += gap
        update(skew, true_seconds=true_seconds, sent_at=sent_at, out_seconds=out_seconds, back_seconds=back_seconds)
        ours = NOON + timedelta(seconds=sent_at + out_seconds + back_seconds)
        truth = ours - timedelta(seconds=true_seconds)
        assert skew.earliest_fub_now(ours) <= truth + timedelta(microseconds=10)
