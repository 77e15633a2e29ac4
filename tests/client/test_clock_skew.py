"""FUB's clock by its Date header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.client.clock_skew import ClockSkew
from fubd.simulator.rng import Rng

NOON = datetime(2031, 5, 6, 12, 0, 0, tzinfo=UTC)


def learn(skew: ClockSkew, *, true_seconds: float, sent_at: float, out_seconds: float, back_seconds: float) -> None:
    """Let an answer come in from a FUB whose clock is `true_seconds` behind ours."""
    fub = NOON + timedelta(seconds=sent_at + out_seconds - true_seconds)
    answered_at = sent_at + out_seconds + back_seconds
    skew.update(
        date=fub.replace(microsecond=0),
        received_at=NOON + timedelta(seconds=answered_at),
        elapsed_seconds=out_seconds + back_seconds,
        monotonic=answered_at,
    )


def test_before_the_first_answer() -> None:
    """Nothing known means no skew."""
    skew = ClockSkew()
    assert skew.seconds() == 0
    assert skew.fub_now(NOON) == NOON


def test_the_first_answer() -> None:
    """One answer is taken for the middle of its second, at the middle of its journey."""
    skew = ClockSkew()
    skew.update(date=NOON, received_at=NOON + timedelta(seconds=40.7), elapsed_seconds=0.4, monotonic=1.0)
    assert skew.seconds() == pytest.approx(40.5 - 0.5)
    assert skew.fub_now(NOON) == NOON - timedelta(seconds=40)


@pytest.mark.parametrize("true_seconds", [-3600.3, -0.4, 0.0, 0.25, 17.9])
def test_many_answers(true_seconds: float) -> None:
    """After some answers the estimate is closer than the header's second, and no longer moves with it."""
    skew, dice = ClockSkew(), Rng(7)
    told: list[float] = []
    for number in range(200):
        learn(skew, true_seconds=true_seconds, sent_at=number * 1.37, out_seconds=dice.uniform(0.02, 0.1), back_seconds=0.05)
        told.append(skew.seconds())
    late = told[50:]
    assert max(abs(seconds - true_seconds) for seconds in late) < 0.1
    assert max(late) - min(late) < 0.1


def test_our_clock_is_set() -> None:
    """When a clock is set, the first answer after it counts and the old ones no longer do."""
    skew = ClockSkew()
    for number in range(50):
        learn(skew, true_seconds=0.0, sent_at=number * 1.37, out_seconds=0.05, back_seconds=0.05)
    learn(skew, true_seconds=90.0, sent_at=100.0, out_seconds=0.05, back_seconds=0.05)
    assert skew.seconds() == pytest.approx(90.0, abs=0.6)


def test_clocks_that_drift() -> None:
    """A drift within a crystal's is followed over days of answers half an hour apart."""
    skew, drift = ClockSkew(), 60e-6
    for number in range(200):
        at = number * 1800.0
        learn(skew, true_seconds=drift * at, sent_at=at + number * 0.173, out_seconds=0.05, back_seconds=0.05)
    assert skew.seconds() == pytest.approx(drift * 199 * 1800.0, abs=0.6)


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0, 2000), st.floats(0, 30), st.floats(0, 30)), min_size=1, max_size=30),
)
def test_the_earliest_is_never_late(true_seconds: float, answers: list[tuple[float, float, float]]) -> None:
    """Whatever the journeys, FUB's clock is never earlier than the earliest given, up to what a microsecond loses."""
    skew, sent_at = ClockSkew(), 0.0
    for gap, out_seconds, back_seconds in answers:
        sent_at += gap
        learn(skew, true_seconds=true_seconds, sent_at=sent_at, out_seconds=out_seconds, back_seconds=back_seconds)
        ours = NOON + timedelta(seconds=sent_at + out_seconds + back_seconds)
        truth = ours - timedelta(seconds=true_seconds)
        assert skew.earliest_fub_now(ours) <= truth + timedelta(microseconds=10)
