from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from fubd.simulator import SimClock
from tests.simulator.conftest import NINE


def test_time_is_scaled_and_shifted() -> None:
    """Simulated time runs at the given speed, is continuous when the speed changes, and a shift moves only the wall clock."""
    real = iter([100.0, 101.0, 101.0, 101.0, 102.0, 102.0]).__next__
    clock = SimClock(NINE, speed=60.0, source=real)
    assert clock.monotonic() == 60.0
    clock.speed = 3600.0
    assert clock.monotonic() == 3660.0
    clock.shift(-30)
    assert (clock.now() - NINE).total_seconds() == 3630.0


def test_what_a_clock_refuses() -> None:
    """A naive start, a negative speed and a negative jump are refused."""
    with pytest.raises(ValueError, match="aware"):
        SimClock(NINE.replace(tzinfo=None))
    with pytest.raises(ValueError, match="backwards"):
        SimClock(NINE, speed=-1)
    clock = SimClock(NINE, speed=0)
    with pytest.raises(ValueError, match="backwards"):
        clock.speed = -1
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_timers_fire_once_in_order_and_not_when_cancelled(clock: SimClock) -> None:
    """Due timers fire in order, once; a cancelled timer does not fire."""
    fired: list[str] = []
    clock.call_later(20, lambda: fired.append("second"))
    clock.call_later(10, lambda: fired.append("first"))
    clock.call_later(15, lambda: fired.append("never")).cancel()
    clock.advance(9)
    assert fired == []
    clock.advance(11)
    clock.advance(100)
    assert fired == ["first", "second"]


async def test_run_for_steps_from_timer_to_timer(clock: SimClock) -> None:
    """Stepping fires each timer at its own instant, including those set on the way, and stops at the end."""
    fired: list[float] = []

    def fire() -> None:
        fired.append(clock.monotonic())
        clock.call_later(10, fire)

    async def settle() -> None:
        """There is nothing to wait for."""

    clock.call_later(10, fire)
    await clock.run_for(35, settle)
    assert fired == [10, 20, 30]
    assert clock.monotonic() == 35


async def test_sleepers_on_a_fast_clock() -> None:
    """On a fast clock an hour passes at once, and stopping the clock stops sleepers."""
    clock = SimClock(NINE, speed=3_600_000.0)
    await clock.sleep(3600)
    assert clock.monotonic() >= 3600
    clock.speed = 0
    sleeper = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    assert not sleeper.done()
    clock.advance(5)
    await sleeper


async def test_pause_ends_with_an_event_or_with_time(clock: SimClock) -> None:
    """A pause returns whether an event ended it; an event already set ends it at once."""
    event = asyncio.Event()
    pausing = asyncio.create_task(clock.pause(60, event))
    await asyncio.sleep(0)
    event.set()
    assert await pausing is True
    assert await clock.pause(60, event) is True
    pausing = asyncio.create_task(clock.skewed(7).pause(60, asyncio.Event()))
    for _ in range(3):
        await asyncio.sleep(0)
    clock.advance(60)
    assert await pausing is False


async def test_skewed_clock(clock: SimClock) -> None:
    """Another machine's clock runs along and shows its own error."""
    skewed = clock.skewed(-90)
    clock.advance(30)
    assert skewed.now() == datetime(2026, 3, 2, 8, 59, tzinfo=UTC)
    assert skewed.monotonic() == 30
    sleeper = asyncio.create_task(skewed.sleep(1))
    await asyncio.sleep(0)
    clock.advance(1)
    await sleeper
