"""Reports problems: to the database, where they outlive the process, and to FUBD_ALERT_URL when one has held for a minute and when it ends.

An alert enters the outbox in the transaction that saves what it reports, so it keeps its place before the alerts that follow, and neither a
restart nor a receiver that is down loses it or repeats it. While the database is away alerts are sent from memory, in order, each until the
receiver takes it, and the problems are saved afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo

from aiohttp import ClientSession

from fubd.alert_receiver import SendFailed, new_session, send_alert
from fubd.backoff import backoff_seconds
from fubd.core.alerts import with_delay
from fubd.core.problems import Problem, ProblemName
from fubd.core.text import format_duration
from fubd.errors import Unavailable
from fubd.log_once import LogOnce
from fubd.metrics import Metrics
from fubd.ports import Clock, Lease, ProblemStore
from fubd.problems import Problems

_log = logging.getLogger("fubd.problem_reports")

_LOOK_SECONDS = 1.0
_DATABASE_RETRY_SECONDS = 3.0
_REPORT_SECONDS = 60.0
# A database that does not answer must not delay the stop.
_LAST_SAVE_SECONDS = 2.0
# A problem that is over sooner wakes nobody.
_HELD_FOR = timedelta(seconds=60)
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 30.0
# Begins and ends alternate, so only a receiver that was away for days has more to come; the oldest then step aside.
_MAX_WAITING = 1_000
_OUTAGE_BEFORE = "Nothing was recorded: the process before this one was killed, or ended while it could not use the database."


class ProblemReports:
    """Reports the problems to `store`, and their begin and end to `url`; None: no alerts. `zone`: of the times in them.

    An instance that becomes the leader continues what the one before reported of polling and subscriptions.
    """

    def __init__(
        self, problems: Problems, store: ProblemStore, lease: Lease, clock: Clock, metrics: Metrics, *, url: str | None, zone: tzinfo = UTC
    ) -> None:
        self._problems = problems
        self._store = store
        self._lease = lease
        self._leads = False
        self._clock = clock
        self._metrics = metrics
        self._url = url
        self._zone = zone
        self._announced: dict[ProblemName, Problem] = {}
        self._waiting: deque[Mapping[str, object]] = deque(maxlen=_MAX_WAITING)
        # What the database holds; None while that is unknown.
        self._saved: dict[ProblemName, Problem] | None = None
        self._save_again_at = clock.monotonic()
        self._retry_at = clock.monotonic()
        self._failures = 0
        self._failure_log = LogOnce(_log)
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Continue the problems that other processes reported. Until then nothing is saved. Raises Unavailable."""
        loaded = [*await self._store.load(), *await self._load_outage()]
        self._problems.inherit(loaded)
        self._announced |= {problem.name: problem for problem in loaded if problem.announced}
        self._saved = (self._saved or {}) | {problem.name: problem for problem in loaded}

    async def _load_outage(self) -> list[Problem]:
        """Return that nothing was recorded, if the process before this one may have sent an alert of it and not of its end."""
        ran_until = await self._store.unfinished_run()
        if ran_until is None or self._clock.now() - ran_until < _HELD_FOR:
            return []
        return [Problem(ProblemName.NOT_RECORDING, ran_until, _OUTAGE_BEFORE, announced=True)]

    async def run(self, stop: asyncio.Event) -> None:
        """Report until `stop`, and save then what changed last. Outages of the receiver and of the database are waited out."""
        async with new_session() as session:
            while not stop.is_set():
                async with self._turn:
                    self._notice()
                    wait_seconds = _LOOK_SECONDS if await self._save() else await self._send_next(session)
                await self._clock.pause(wait_seconds, stop)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SAVE_SECONDS), self._turn:
                self._notice()
                await self._save()

    async def announce_at_once(self, name: ProblemName, *, within_seconds: float) -> None:
        """Send the alert of a problem that ends the process, without the wait of a minute; give up after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds), self._turn, new_session() as session:
                self._notice(at_once=name)
                while self._waiting:
                    await self._clock.pause(await self._send_next(session))
                await self._save()

    def _notice(self, *, at_once: ProblemName | None = None) -> None:
        """Queue an alert for each problem that has held long enough, and for each announced one that is over."""
        if self._url is None:
            return
        now, current = self._clock.now(), {problem.name: problem for problem in self._problems.current()}
        for name, announced in list(self._announced.items()):
            if name not in current or not current[name].announced:
                del self._announced[name]
                lasted = format_duration(max(0, round((now - announced.since).total_seconds())))
                self._waiting.append(_document(announced, "end", f"fubd: the problem {name} is over; it lasted {lasted}.", "info", now))
        for name, problem in current.items():
            if problem.announced:
                self._announced.setdefault(name, problem)
            elif name == at_once or now - problem.since >= _HELD_FOR:
                self._problems.mark_announced(name)
                self._announced[name] = problem
                self._waiting.append(_document(problem, "begin", f"fubd: problem {name}. {problem.text}", "critical", now))

    async def _save(self) -> bool:
        """Save what changed, and what waits to the outbox; report what holds every minute. Return whether nothing waits in memory."""
        now, current = self._clock.monotonic(), {problem.name: problem for problem in self._problems.current()}
        if self._saved is None or now < self._retry_at:
            return not self._waiting
        is_due = current != self._saved or self._waiting or self._lease.held != self._leads or (current and now >= self._save_again_at)
        if not is_due:
            return True
        try:
            await self._store.save(list(current.values()), ended=self._saved.keys() - current.keys(), alerts=list(self._waiting))
            self._saved, self._save_again_at = current, now + _REPORT_SECONDS
            self._waiting.clear()
            if self._lease.held and not self._leads:
                await self.load()
            self._leads = self._lease.held
        except Unavailable:
            self._retry_at = self._clock.monotonic() + _DATABASE_RETRY_SECONDS
        return not self._waiting

    async def _send_next(self, session: ClientSession) -> float:
        """Send the oldest alert that waits. Return the seconds until the next look."""
        if self._url is None or not self._waiting:
            return _LOOK_SECONDS
        try:
            await send_alert(session, self._url, with_delay(self._waiting[0], zone=self._zone, now=self._clock.now()))
        except SendFailed as error:
            self._metrics.alerts.labels("failed").inc()
            self._failure_log.warning(
                "The begin or end of a problem cannot be sent to FUBD_ALERT_URL: %s. It is kept and sent again.", error
            )
            self._failures += 1
            delay = backoff_seconds(self._failures, first_seconds=_FIRST_BACKOFF_SECONDS, longest_seconds=_LONGEST_BACKOFF_SECONDS)
            return max(delay, error.retry_after_seconds)
        self._waiting.popleft()
        self._failures = 0
        self._metrics.alerts.labels("sent").inc()
        self._failure_log.resolved("The begin and end of problems reach FUBD_ALERT_URL again.")
        return 0.0


def _document(problem: Problem, event: str, text: str, severity: str, at: datetime) -> Mapping[str, object]:
    """Return the JSON that is posted: `text` for people, the rest for programs. A repeated alert has the same `id`. `at`: when it arose."""
    since = problem.since.isoformat()
    return {
        "text": text,
        "id": f"{problem.name}-{since}-{event}",
        "severity": severity,
        "kind": "problem",
        "event": event,
        "problem": problem.name,
        "since": since,
        "at": at.isoformat(),
    }
