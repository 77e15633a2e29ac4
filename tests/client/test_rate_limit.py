"""The rate limit, in virtual time, against the simulator's own sliding windows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fubd.client.rate_limit import MAX_IN_FLIGHT, RateLimiter
from fubd.errors import Unavailable
from fubd.metrics import Metrics
from fubd.simulator.rate_limits import RateLimits
from fubd.simulator.rng import Rng
from tests.support.virtual_time import VirtualClock, run_virtual

ENDPOINT = "GET people"


class Road:
    """A limiter, and a FUB at the other end of a road that takes its time."""

    def __init__(self, *, share: float, registered: bool = True) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics(CollectorRegistry())
        self.limiter = RateLimiter(share=share, max_wait_seconds=60.0, clock=self.clock, metrics=self.metrics)
        self.fub = RateLimits()
        self.registered = registered
        self.arrivals: list[float] = []
        self.least_remaining = 250

    async def call(self, *, out_seconds: float = 0.125, back_seconds: float = 0.125) -> None:
        """Make one call, which FUB counts when it arrives there."""
        window = self.limiter.window(ENDPOINT)
        sent_at = await window.acquire()
        try:
            await self.clock.pause(out_seconds)
            now = self.clock.monotonic()
            verdict = self.fub.acquire("global", now, registered=self.registered)
            self.arrivals.append(now)
            self.least_remaining = min(self.least_remaining, verdict.remaining)
            await self.clock.pause(back_seconds)
            self.limiter.update(ENDPOINT, sent_at, verdict.headers)
            if not verdict.allowed:
                window.close(verdict.retry_after_seconds)
        finally:
            window.release()

    async def sweep(self, calls: int, *, callers: int = 16, journey: Callable[[], float] = lambda: 0.125) -> float:
        """Make so many calls from so many callers side by side; gives the seconds it took."""
        began = self.clock.monotonic()
        todo = iter(range(calls))

        async def caller() -> None:
            for _ in todo:
                await self.call(out_seconds=journey(), back_seconds=journey())

        await asyncio.gather(*(caller() for _ in range(callers)))
        return self.clock.monotonic() - began

    def throttled_seconds(self) -> float:
        """Read the metric."""
        return self.metrics.registry.get_sample_value("fubd_api_throttled_seconds_total") or 0.0

    async def other_tools(self, requests_per_second: float, seconds: float) -> None:
        """Let the account's other tools use the same limit."""
        for _ in range(int(requests_per_second * seconds)):
            await self.clock.pause(1 / requests_per_second)
            assert self.fub.acquire("global", self.clock.monotonic(), registered=self.registered).allowed


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_a_sweep_reaches_the_allowed_rate(share: float) -> None:
    """2,000 calls of 250 ms keep within 5 % of our share of the limit, never pass it, and earn no 429."""
    road = Road(share=share)
    seconds = run_virtual(road.sweep(2_000))
    assert road.fub.refused == 0
    assert road.fub.peak() <= 250 * share
    assert 2_000 / seconds >= 0.95 * 25 * share
    assert len([at for at in road.arrivals if 20.0 <= at < 60.0]) / 4 >= 0.95 * 250 * share


@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.8, 1.0]))
def test_uneven_journeys(seed: int, share: float) -> None:
    """However long requests travel, FUB never counts more than our share in any of its windows."""
    road, dice = Road(share=share), Rng(seed)
    run_virtual(road.sweep(600, journey=lambda: dice.choice((0.001, 0.05, 0.4, 2.0, 9.0))))
    assert road.fub.refused == 0
    assert road.fub.peak() <= 250 * share


def test_before_any_answer() -> None:
    """The first answers are awaited under the limit of an unregistered system, and that is kept when FUB says so."""
    road = Road(share=0.8, registered=False)
    run_virtual(road.sweep(400))
    assert road.fub.refused == 0
    assert road.fub.peak() <= 100


def test_answers_without_rate_headers() -> None:
    """Where FUB tells nothing of its limit, ours is a share of the unregistered one."""
    road = Road(share=0.8)

    async def main() -> list[float]:
        sent: list[float] = []

        async def call() -> None:
            window = road.limiter.window(ENDPOINT)
            sent_at = await window.acquire()
            sent.append(sent_at)
            road.limiter.update(ENDPOINT, sent_at, {"X-RateLimit-Limit": "many", "X-RateLimit-Remaining": "-1", "X-RateLimit-Window": "0"})
            window.release()

        for _ in range(250):
            await call()
        return sent

    sent = run_virtual(main())
    assert [sum(1 for at in sent if at == start) for start in (0.0, 10.0, 20.0)] == [100, 100, 50]


@pytest.mark.parametrize(("others_per_second", "ours_per_window"), [(5.0, 150), (10.0, 100), (18.0, 20), (23.0, 1)])
def test_others_use_the_limit_too(others_per_second: float, ours_per_window: int) -> None:
    """What others use comes off our part, so that what remains is left to them; a last trickle of ours goes on."""
    road = Road(share=0.8)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            others = group.create_task(road.other_tools(others_per_second, 140))
            await road.clock.pause(20)
            ours = group.create_task(road.sweep(10_000))
            await others
            ours.cancel()

    run_virtual(main())
    steady = [at for at in road.arrivals if at >= 60]
    assert road.fub.refused == 0
    assert len(steady) / 8 == pytest.approx(ours_per_window, rel=0.15, abs=1)
    assert road.least_remaining >= min(50, 250 - others_per_second * 10) - MAX_IN_FLIGHT / 2


def test_others_stop() -> None:
    """Once others have stopped, our part is whole again within two windows."""
    road = Road(share=0.8)

    async def main() -> None:
        await road.other_tools(24.0, 30)
        await road.sweep(900)

    run_virtual(main())
    began = road.arrivals[0]
    assert sum(1 for at in road.arrivals if began + 20 <= at < began + 30) >= 190


def test_a_429_closes_the_context() -> None:
    """After a 429 nothing is sent before Retry-After has passed to the second, and then the queue goes on in its order."""
    road = Road(share=0.8)
    order: list[tuple[int, float]] = []

    async def caller(number: int) -> None:
        window = road.limiter.window(ENDPOINT)
        order.append((number, await window.acquire()))
        window.release()

    async def main() -> None:
        road.limiter.window(ENDPOINT).close(8.0)
        await asyncio.gather(*(caller(number) for number in range(16)))

    run_virtual(main())
    assert order == [(number, 8.0) for number in range(16)]
    assert road.throttled_seconds() == pytest.approx(8.0)


def test_a_429_while_waiting() -> None:
    """Who already waits for the limit when a 429 comes waits for that as well; the longer of two closures holds."""
    road = Road(share=0.8)

    async def main() -> float:
        window = road.limiter.window(ENDPOINT)
        window.close(3.0)
        waiting = asyncio.create_task(window.acquire())
        await road.clock.pause(2.0)
        window.close(10.0)
        window.close(1.0)
        return await waiting

    assert run_virtual(main()) == 12.0


def test_a_wish_beyond_the_patience() -> None:
    """A context closed for longer than we wait is refused at once with FUB's wish, to everyone, and open after it."""
    road = Road(share=0.8)

    async def main() -> tuple[list[float | None], float]:
        window = road.limiter.window(ENDPOINT)
        window.close(300.0)
        refused = await asyncio.gather(*(window.acquire() for _ in range(3)), return_exceptions=True)
        await road.clock.pause(299.0)
        wishes = [error.retry_after for error in refused if isinstance(error, Unavailable)]
        return wishes, await window.acquire()

    assert run_virtual(main()) == ([300.0, 300.0, 300.0], 300.0)


def test_contexts_do_not_share() -> None:
    """An endpoint that FUB counts apart has its own limit and its own closures."""
    road = Road(share=1.0)

    async def main() -> tuple[float, float]:
        first = road.limiter.window("POST notes")
        sent_at = await first.acquire()
        notes = road.limiter.update(
            "POST notes",
            sent_at,
            {"X-RateLimit-Context": "notes", "X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "9", "X-RateLimit-Window": "10"},
        )
        first.release()
        notes.close(30.0)
        return await road.limiter.window(ENDPOINT).acquire(), await road.limiter.window("POST notes").acquire()

    assert run_virtual(main()) == (0.0, 30.0)
    assert road.metrics.registry.get_sample_value("fubd_api_rate_limit_remaining", {"context": "notes"}) == 9


def test_contexts_are_bounded() -> None:
    """A FUB that names ever new contexts, or names that are none, makes neither memory nor metrics grow."""
    road = Road(share=1.0)

    async def main() -> None:
        for name in (*(f"context {number}" for number in range(100)), "x" * 500, "a\nb", "é"):
            sent_at = await road.limiter.window(name).acquire()
            road.limiter.update(name, sent_at, {"X-RateLimit-Context": name, "X-RateLimit-Remaining": "100"})
            road.limiter.window(name).release()

    run_virtual(main())
    told = [sample for family in road.metrics.registry.collect() for sample in family.samples if "context" in sample.labels]
    assert len(told) <= 17


def test_callers_are_served_in_their_order() -> None:
    """Waiting callers go in the order in which they came, those who gave up left out."""
    road = Road(share=0.8)
    order: list[int] = []

    async def caller(number: int) -> None:
        window = road.limiter.window(ENDPOINT)
        await window.acquire()
        order.append(number)
        window.release()

    async def main() -> None:
        tasks = [asyncio.create_task(caller(number)) for number in range(300)]
        await road.clock.pause(1.0)
        for number in (100, 150, 299):
            tasks[number].cancel()
        await asyncio.wait(tasks)

    run_virtual(main())
    assert order == [number for number in range(300) if number not in {100, 150, 299}]


def test_requests_under_way_are_bounded() -> None:
    """However many callers there are and however long FUB takes, only so many requests are under way at once."""
    road = Road(share=0.8)
    under_way = [0]

    async def caller() -> None:
        window = road.limiter.window(ENDPOINT)
        await window.acquire()
        under_way.append(under_way[-1] + 1)
        await road.clock.pause(30.0)
        under_way.append(under_way[-1] - 1)
        window.release()

    async def main() -> None:
        await asyncio.gather(*(caller() for _ in range(80)))

    run_virtual(main())
    assert max(under_way) == MAX_IN_FLIGHT
    assert all(abs(after - before) == 1 for before, after in pairwise(under_way))
