"""A problem begins once and ends once, with its time, its words and its metric."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from fubd.core.problems import ProblemName
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


def test_a_problem_is_logged_once_at_its_begin_and_once_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Repeated evidence changes the text alone; `since` stays that of the first evidence."""
    clock, metrics = _SteppedClock(), Metrics(CollectorRegistry())
    problems = Problems(clock, metrics)

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
