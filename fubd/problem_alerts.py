"""Sends an alert to FUBD_ALERT_URL when a problem has held for a minute, and another when it is over.

They come from memory, not from the outbox, so that they are sent while the database is away. They are sent in order, each until the
receiver takes it. A problem that holds over a restart is sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from datetime import timedelta

from aiohttp import ClientSession

from fubd.alert_receiver import SendFailed, new_session, send_alert
from fubd.backoff import backoff_seconds
from fubd.core.problems import Problem, ProblemName
from fubd.core.text import format_duration
from fubd.log_once import LogOnce
from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.problems import Problems

_log = logging.getLogger("fubd.problem_alerts")

_LOOK_SECONDS = 1.0
# A problem that is over sooner wakes nobody.
_HELD_FOR = timedelta(seconds=60)
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 30.0
# Begins and ends alternate, so only a receiver that was away for days has more to come; the oldest then step aside.
_MAX_WAITING = 1_000


class ProblemAlerts:
    """Sends the begin and the end of problems to `url`."""

    def __init__(self, problems: Problems, clock: Clock, metrics: Metrics, *, url: str) -> None:
        self._problems = problems
        self._clock = clock
        self._metrics = metrics
        self._url = url
        self._announced: dict[ProblemName, Problem] = {}
        self._waiting: deque[Mapping[str, object]] = deque(maxlen=_MAX_WAITING)
        self._failures = 0
        self._failure_log = LogOnce(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`. Outages of the receiver are waited out."""
        async with new_session() as session:
            while not stop.is_set():
                self._notice()
                await self._clock.pause(await self._send_next(session), stop)

    def _notice(self) -> None:
        """Queue an alert for each problem that has held long enough, and for each announced one that is over."""
        now, current = self._clock.now(), {problem.name: problem for problem in self._problems.current()}
        for name, announced in list(self._announced.items()):
            if name not in current or current[name].since != announced.since:
                del self._announced[name]
                lasted = format_duration(max(0, round((now - announced.since).total_seconds())))
                self._waiting.append(_document(announced, "end", f"fubd: the problem {name} is over; it lasted {lasted}.", "info"))
        for name, problem in current.items():
            if name not in self._announced and now - problem.since >= _HELD_FOR:
                self._announced[name] = problem
                self._waiting.append(_document(problem, "begin", f"fubd: problem {name}. {problem.text}", "critical"))

    async def _send_next(self, session: ClientSession) -> float:
        """Send the oldest alert that waits. Return the seconds until the next look."""
        if not self._waiting:
            return _LOOK_SECONDS
        try:
            await send_alert(session, self._url, self._waiting[0])
        except SendFailed as error:
            self._metrics.alerts.labels("failed").inc()
            self._failure_log.warning(
                "The receiver of alerts (FUBD_ALERT_URL) does not take the begin or end of a problem: %s. It is tried again.", error
            )
            self._failures += 1
            delay = backoff_seconds(self._failures, first_seconds=_FIRST_BACKOFF_SECONDS, longest_seconds=_LONGEST_BACKOFF_SECONDS)
            return max(delay, error.retry_after_seconds)
        self._waiting.popleft()
        self._failures = 0
        self._metrics.alerts.labels("sent").inc()
        self._failure_log.resolved("The receiver of alerts takes the begin and end of problems again.")
        return 0.0


def _document(problem: Problem, event: str, text: str, severity: str) -> Mapping[str, object]:
    """Return the JSON that is posted: `text` for people, the rest for programs. A repeated alert has the same `id`."""
    since = problem.since.isoformat()
    return {
        "text": text,
        "id": f"{problem.name}-{since}-{event}",
        "severity": severity,
        "kind": "problem",
        "event": event,
        "problem": problem.name,
        "since": since,
    }
