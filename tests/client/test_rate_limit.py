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


class Harness:
    """A rate limiter, and a FUB whose requests and responses take time to travel."""

    def __init__(self, *, share: float, registered: bool = True) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics(CollectorRegistry())
        self.limiter = RateLimiter(share=share, max_wait_seconds=60.0, clock=self.clock, metrics=self.metrics)
        self.fub = RateLimits()
        self.registered = registered
        self.arrivals: list[float] = []
        self.least_remaining = 250

    async def call(self, *, out_seconds: float = 0.125, back_seconds: float = 0.125) -> None:
        """Make one call; FUB counts it on arrival."""
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

    async def sweep(self, calls: int, *, callers: int = 16, travel_seconds: Callable[[], float] = lambda: 0.125) -> float:
        """Make these calls from parallel callers; return the seconds it took."""
        began = self.clock.monotonic()
        todo = iter(range(calls))

        async def caller() -> None:
            for _ in todo:
                await self.call(out_seconds=travel_seconds(), back_seconds=travel_seconds())

        await asyncio.gather(*(caller() for _ in range(callers)))
        return self.clock.monotonic() - began

    def throttled_seconds(self) -> float:
        """Return the metric."""
        return self.metrics.registry.get_sample_value("fubd_api_throttled_seconds_total") or 0.0

    async def other_tools(self, requests_per_second: float, seconds: float) -> None:
        """Make requests of the account's other tools."""
        for _ in range(int(requests_per_second * seconds)):
            await self.clock.pause(1 / requests_per_second)
            assert self.fub.acquire("global", self.clock.monotonic(), registered=self.registered).allowed


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_a_sweep_reaches_the_allowed_rate(share: float) -> None:
    """2,000 calls of 250 ms reach at least 95 % of our share of the limit, never exceed it, and get no 429."""
    harness = Harness(share=share)
    seconds = run_virtual(harness.sweep(2_000))
    assert harness.fub.refused == 0
    assert harness.fub.peak() <= 250 * share
    assert 2_000 / seconds >= 0.95 * 25 * share
    assert len([at for at in harness.arrivals if 20.0 <= at < 60.0]) / 4 >= 0.95 * 250 * share


@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.8, 1.0]))
def test_uneven_travel_times_never_exceed_our_share(seed: int, share: float) -> None:
    """However long requests travel, FUB never counts more than our share in any window."""
    harness, dice = Harness(share=share), Rng(seed)
    run_virtual(harness.sweep(400, travel_seconds=lambda: dice.choice((0.001, 0.05, 0.4, 2.0, 9.0))))
    assert harness.fub.refused == 0
    assert harness.fub.peak() <= 250 * share


def test_the_limit_before_any_response_is_that_of_an_unregistered_system() -> None:
    """The first requests use the limit of an unregistered system, and go on so when FUB reports it."""
    harness = Harness(share=0.8, registered=False)
    run_virtual(harness.sweep(400))
    assert harness.fub.refused == 0
    assert harness.fub.peak() <= 100


def test_without_rate_limit_headers_the_default_limit_applies() -> None:
    """When FUB reports no usable limit, ours is a share of the unregistered one."""
    harness = Harness(share=0.8)

    async def main() -> list[float]:
        sent: list[float] = []

        async def call() -> None:
            window = harness.limiter.window(ENDPOINT)
            sent_at = await window.acquire()
            sent.append(sent_at)
            harness.limiter.update(ENDPOINT, sent_at, {"X-RateLimit-Limit": "x", "X-RateLimit-Remaining": "-1", "X-RateLimit-Window": "0"})
            window.release()

        for _ in range(250):
            await call()
        return sent

    sent = run_virtual(main())
    assert [sum(1 for at in sent if at == start) for start in (0.0, 10.0, 20.0)] == [100, 100, 50]


@pytest.mark.parametrize(("others_per_second", "ours_per_window"), [(5.0, 150), (10.0, 100), (18.0, 20), (23.0, 1)])
def test_requests_of_other_tools_reduce_ours(others_per_second: float, ours_per_window: int) -> None:
    """What others use is subtracted from our share; one request per window is always allowed."""
    harness = Harness(share=0.8)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            others = group.create_task(harness.other_tools(others_per_second, 140))
            await harness.clock.pause(20)
            ours = group.create_task(harness.sweep(10_000))
            await others
            ours.cancel()

    run_virtual(main())
    steady = [at for at in harness.arrivals if at >= 60]
    assert harness.fub.refused == 0
    assert len(steady) / 8 == pytest.approx(ours_per_window, rel=0.15, abs=1)
    assert harness.least_remaining >= min(50, 250 - others_per_second * 10) - MAX_IN_FLIGHT / 2


def test_our_share_recovers_when_other_tools_stop() -> None:
    """After others have stopped, our share is complete again within two windows."""
    harness = Harness(share=0.8)

    async def main() -> None:
        await harness.other_tools(24.0, 30)
        await harness.sweep(900)

    run_virtual(main())
    began = harness.arrivals[0]
    assert sum(1 for at in harness.arrivals if began + 20 <= at < began + 30) >= 190


def test_a_429_closes_the_context() -> None:
    """After a 429 nothing is sent until Retry-After has passed, and then the queue continues in its order."""
    harness = Harness(share=0.8)
    order: list[tuple[int, float]] = []

    async def caller(number: int) -> None:
        window = harness.limiter.window(ENDPOINT)
        order.append((number, await window.acquire()))
        window.release()

    async def main() -> None:
        harness.limiter.window(ENDPOINT).close(8.0)
        await asyncio.gather(*(caller(number) for number in range(16)))

    run_virtual(main())
    assert order == [(number, 8.0) for number in range(16)]
    assert harness.throttled_seconds() == pytest.approx(8.0)


def test_a_429_also_delays_waiting_callers() -> None:
    """A caller that already waits also waits for the 429; the longer of two closures counts."""
    harness = Harness(share=0.8)

    async def main() -> float:
        window = harness.limiter.window(ENDPOINT)
        window.close(3.0)
        waiting = asyncio.create_task(window.acquire())
        await harness.clock.pause(2.0)
        window.close(10.0)
        window.close(1.0)
        return await waiting

    assert run_virtual(main()) == 12.0


def test_a_long_closure_is_refused_at_once() -> None:
    """While a context is closed for longer than the maximum wait, every caller gets Unavailable; afterwards it is open."""
    harness = Harness(share=0.8)

    async def main() -> tuple[list[float | None], float]:
        window = harness.limiter.window(ENDPOINT)
        window.close(300.0)
        refused = await asyncio.gather(*(window.acquire() for _ in range(3)), return_exceptions=True)
        await harness.clock.pause(299.0)
        delays = [error.retry_after for error in refused if isinstance(error, Unavailable)]
        return delays, await window.acquire()

    assert run_virtual(main()) == ([300.0, 300.0, 300.0], 300.0)


def test_contexts_do_not_share() -> None:
    """An endpoint that FUB counts separately has its own limit and its own closures."""
    harness = Harness(share=1.0)

    async def main() -> tuple[float, float]:
        first = harness.limiter.window("POST notes")
        sent_at = await first.acquire()
        notes = harness.limiter.update(
            "POST notes",
            sent_at,
            {"X-RateLimit-Context": "notes", "X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "9", "X-RateLimit-Window": "10"},
        )
        first.release()
        notes.close(30.0)
        return await harness.limiter.window(ENDPOINT).acquire(), await harness.limiter.window("POST notes").acquire()

    assert run_virtual(main()) == (0.0, 30.0)
    assert harness.metrics.registry.get_sample_value("fubd_api_rate_limit_remaining", {"context": "notes"}) == 9


def test_contexts_are_bounded() -> None:
    """Ever new or invalid context names from FUB make neither memory nor metrics grow."""
    harness = Harness(share=1.0)

    async def main() -> None:
        for name in (*(f"context {number}" for number in range(100)), "x" * 500, "a\nb", "é"):
            sent_at = await harness.limiter.window(name).acquire()
            harness.limiter.update(name, sent_at, {"X-RateLimit-Context": name, "X-RateLimit-Remaining": "100"})
            harness.limiter.window(name).release()

    run_virtual(main())
    samples = [sample for family in harness.metrics.registry.collect() for sample in family.samples if "context" in sample.labels]
    assert len(samples) <= 17


def test_callers_are_served_in_their_order() -> None:
    """Waiting callers proceed in the order of arrival, without those that were cancelled."""
    harness = Harness(share=0.8)
    order: list[int] = []

    async def caller(number: int) -> None:
        window = harness.limiter.window(ENDPOINT)
        await window.acquire()
        order.append(number)
        window.release()

    async def main() -> None:
        tasks = [asyncio.create_task(caller(number)) for number in range(300)]
        await harness.clock.pause(1.0)
        for number in (100, 150, 299):
            tasks[number].cancel()
        await asyncio.wait(tasks)

    run_virtual(main())
    assert order == [number for number in range(300) if number not in {100, 150, 299}]


def test_requests_in_flight_are_bounded() -> None:
    """However many callers there are and however long FUB takes, the number of requests in flight has a limit."""
    harness = Harness(share=0.8)
    in_flight = [0]

    async def caller() -> None:
        window = harness.limiter.window(ENDPOINT)
        await window.acquire()
        in_flight.append(in_flight[-1] + 1)
        await harness.clock.pause(30.0)
        in_flight.append(in_flight[-1] - 1)
        window.release()

    async def main() -> None:
        await asyncio.gather(*(caller() for _ in range(80)))

    run_virtual(main())
    assert max(in_flight) == MAX_IN_FLIGHT
    assert all(abs(after - before) == 1 for before, after in pairwise(in_flight))
