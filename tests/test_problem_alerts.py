"""Alerts of problems: sent from memory after a minute and at the end, in order, each until the receiver takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from fubd.clock import SystemClock
from fubd.core.problems import ProblemName
from fubd.metrics import Metrics
from fubd.problem_alerts import ProblemAlerts
from fubd.problems import Problems
from tests.support.alert_receiver import Receiver, receiving
from tests.support.waiting import eventually

_AWAY = "the database is away"


@asynccontextmanager
async def alerting(receiver: Receiver) -> AsyncIterator[Problems]:
    """Send the alerts of problems until the block ends; a second lasts a hundredth."""
    clock, metrics, stop = SystemClock(100.0), Metrics(CollectorRegistry()), asyncio.Event()
    problems = Problems(clock, metrics)
    async with asyncio.TaskGroup() as group:
        group.create_task(ProblemAlerts(problems, clock, metrics, url=receiver.url).run(stop))
        try:
            yield problems
        finally:
            stop.set()


async def test_begin_and_end_are_sent_without_a_database() -> None:
    """The begin says what happened and what to do, after a minute; the end says how long it lasted. Both name the same problem."""
    async with receiving() as receiver, alerting(receiver) as problems:
        problems.begin(ProblemName.NOT_RECORDING, _AWAY)
        await eventually(lambda: receiver.accepted)
        problems.end(ProblemName.NOT_RECORDING)
        await eventually(lambda: len(receiver.accepted) == 2)
    begin, end = receiver.accepted
    assert (begin["event"], begin["problem"], begin["severity"]) == ("begin", "not_recording", "critical")
    assert _AWAY in begin["text"]
    assert (end["event"], end["since"]) == ("end", begin["since"])
    assert "is over; it lasted " in end["text"]


async def test_a_problem_that_is_over_within_a_minute_is_not_sent() -> None:
    """A deploy or a restart of the database wakes nobody; the problem after it is sent."""
    async with receiving() as receiver, alerting(receiver) as problems:
        problems.begin(ProblemName.NOT_RECORDING, _AWAY)
        problems.end(ProblemName.NOT_RECORDING)
        problems.begin(ProblemName.QUARANTINE, "1 delivery")
        await eventually(lambda: receiver.accepted)
    assert [post["problem"] for post in receiver.accepted] == ["quarantine"]


async def test_a_receiver_that_is_down_gets_them_later_in_order() -> None:
    """Each is repeated with the same id until it is taken, and nothing overtakes it."""
    async with receiving() as receiver, alerting(receiver) as problems:
        receiver.answers.extend([503, 503])
        problems.begin(ProblemName.KEY_REFUSED, "401")
        await eventually(lambda: receiver.posts)
        problems.end(ProblemName.KEY_REFUSED)
        await eventually(lambda: len(receiver.accepted) == 2)
    assert [post["event"] for post in receiver.accepted] == ["begin", "end"]
    assert len({post["id"] for post in receiver.posts}) == 2
