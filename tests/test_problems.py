"""A problem begins once and ends once, with its time, its words and its metric."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry

from fubd.core.problems import Problem, ProblemName
from fubd.metrics import Metrics
from fubd.problems import Problems

START = datetime(2026, 3, 2, 9, tzinfo=UTC)


class _SteppedClock:
    def __init__(self) -> None:
        self.instant = START

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return (self.instant - START).total_seconds()

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        self.instant += timedelta(seconds=seconds)
        return any(event.is_set() for event in events)


def test_an_inherited_problem_holds_until_there_is_evidence() -> None:
    """It keeps the time of its begin; evidence of this process decides it, and one that holds already is joined with it."""
    clock, metrics = _SteppedClock(), Metrics(CollectorRegistry())
    problems = Problems(clock, metrics)
    problems.begin(ProblemName.QUARANTINE, "2 deliveries")
    earlier = START - timedelta(days=1)
    stored = [Problem(name, earlier, "as stored", announced=True) for name in (ProblemName.KEY_REFUSED, ProblemName.QUARANTINE)]
    problems.inherit(stored)
    assert problems.current() == (stored[0], Problem(ProblemName.QUARANTINE, earlier, "2 deliveries", announced=True))
    assert problems.undecided(ProblemName.QUARANTINE) is None
    assert problems.undecided(ProblemName.KEY_REFUSED) == stored[0]
    assert metrics.registry.get_sample_value("fubd_problem", {"problem": "key_refused"}) == 1
    problems.begin(ProblemName.KEY_REFUSED, "401 again")
    assert problems.undecided(ProblemName.KEY_REFUSED) is None
    assert problems.current()[0] == Problem(ProblemName.KEY_REFUSED, earlier, "401 again", announced=True)


def test_a_problem_is_logged_once_at_its_begin_and_once_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Repeated evidence changes the text alone; `since` stays that of the first evidence, and is logged in the office's time."""
    clock, metrics = _SteppedClock(), Metrics(CollectorRegistry())
    problems = Problems(clock, metrics, zone=ZoneInfo("America/Chicago"))

    def exported() -> float | None:
        return metrics.registry.get_sample_value("fubd_problem", {"problem": "key_refused"})

    with caplog.at_level(logging.INFO, "fubd.problems"):
        assert exported() == 0
        problems.begin(ProblemName.KEY_REFUSED, "FUB refused the API key: create a new one")
        clock.instant += timedelta(seconds=30)
        problems.begin(ProblemName.KEY_REFUSED, "FUB refused the API key twice")
        (problem,) = problems.current()
        assert (problem.since, problem.text, exported()) == (START, "FUB refused the API key twice", 1)
        problems.end(ProblemName.KEY_REFUSED)
        problems.end(ProblemName.KEY_REFUSED)
    assert (problems.current(), exported()) == ((), 0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[1] == "Problem key_refused is over; it began at 2026-03-02 03:00:00 CST."


def test_recording_that_fails_on_and_off_is_one_problem(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk takes some statements: the problem keeps its begin, and ends when it has not been reported for half a minute."""
    clock = _SteppedClock()
    problems = Problems(clock, Metrics(CollectorRegistry()))
    with caplog.at_level(logging.INFO, "fubd.problems"):
        for _ in range(20):
            problems.begin(ProblemName.NOT_RECORDING, "the disk is full")
            clock.instant += timedelta(seconds=3)
            problems.end(ProblemName.NOT_RECORDING)
            clock.instant += timedelta(seconds=3)
        assert [problem.since for problem in problems.current()] == [START]
        clock.instant += timedelta(seconds=30)
        problems.end(ProblemName.NOT_RECORDING)
        assert problems.current() == ()
        clock.instant += timedelta(seconds=60)
        problems.begin(ProblemName.NOT_RECORDING, "the disk is full")
        assert [problem.since for problem in problems.current()] == [clock.instant]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING", "INFO", "WARNING"]
