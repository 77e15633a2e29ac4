"""The life cycle of the daemon: start, run, stop.

Start: listen first, because the platform and Follow Up Boss may call at once; then wait for the database, however long that takes; then
record, poll and maintain the webhook subscriptions. Stop: the loops that read end first; the server finishes the requests it accepted; the
recorder empties its queue; the lease is released; the pool closes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fubd.backoff import backoff_seconds
from fubd.components import DaemonComponents
from fubd.core.problems import ProblemName
from fubd.errors import AccountMismatch, Unavailable
from fubd.log_once import LogOnce
from fubd.store import SchemaRefused, migrate

_log = logging.getLogger("fubd")

# With the closing of the pool (1 s) these stay below 10 s, after which the platform kills the process.
_DRAIN_SECONDS = 5.5
_RECORD_REST_SECONDS = 2.0
_LOOPS_END_SECONDS = 3.0
_ANNOUNCE_SECONDS = 5.0
_FIRST_RETRY_SECONDS = 0.25
_LONGEST_RETRY_SECONDS = 5.0

Loop = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


class Daemon:
    """The running daemon. `listening` is set once it accepts connections."""

    def __init__(self, parts: DaemonComponents) -> None:
        self._parts = parts
        self._shared = parts.shared
        self._stop = asyncio.Event()
        self._server_stopped = asyncio.Event()
        self._stop_recording = asyncio.Event()
        self._refusal: SchemaRefused | AccountMismatch | None = None
        self.listening = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Raises OSError when it cannot listen; SchemaRefused, AccountMismatch: not with this database."""
        self._stop = stop
        server, settings = self._parts.server, self._shared.settings
        await server.start(host=settings.host, port=settings.port)
        self.listening.set()
        _log.info("listening on port %d", server.port)
        _tune_gc()
        try:
            async with self._shared.client, asyncio.TaskGroup() as group:
                self._start(group, "watchdog", self._parts.watchdog.run, self._stop_recording)
                # Before the database answers: that it does not is one of the problems.
                self._start(group, "problem reports", self._parts.problem_reports.run, stop)
                work = group.create_task(self._run_with_database(), name="work")
                await stop.wait()
                await server.stop(within_seconds=_DRAIN_SECONDS)
                self._server_stopped.set()
                # Every request has its answer. What is not stored by then was refused, and its sender sends it again.
                await asyncio.wait([work], timeout=_RECORD_REST_SECONDS)
                work.cancel()
        finally:
            await server.stop(within_seconds=0.1)
            await self._shared.pool.close()
        if self._refusal is not None:
            raise self._refusal

    async def _run_with_database(self) -> None:
        """Run everything that needs the database. The recorder ends last, after the server, which hands it deliveries."""
        try:
            if await self._open_database():
                async with asyncio.TaskGroup() as group:
                    self._start(group, "recorder", self._parts.ingest.run, self._stop_recording)
                    await self._run_loops()
                    await self._server_stopped.wait()
                    self._stop_recording.set()
        except SchemaRefused as error:
            self._refusal = error
            self._stop.set()
        finally:
            self._stop_recording.set()

    async def _open_database(self) -> bool:
        """Wait until the database answers, and migrate it. Return False when stopped before. Raises SchemaRefused."""
        problem, attempt = LogOnce(_log), 0
        while not self._stop.is_set():
            try:
                await self._prepare_database()
            except Unavailable as error:
                self._parts.monitor.set_database_error(error)
                problem.warning("waiting for the database: %s", error)
                attempt += 1
                delay = backoff_seconds(attempt, first_seconds=_FIRST_RETRY_SECONDS, longest_seconds=_LONGEST_RETRY_SECONDS)
                await self._shared.clock.pause(delay, self._stop)
            else:
                problem.resolved("the database answers")
                self._parts.monitor.set_database_error(None)
                return True
        return False

    async def _prepare_database(self) -> None:
        settings = self._shared.settings
        async with self._shared.pool.connection() as connection:
            await migrate(connection, columns=settings.columns)
        await self._shared.maintenance.save_settings(
            {
                "webhook_stale_after_seconds": settings.webhook_stale_after_seconds,
                "poll_stale_after_seconds": settings.poll_stale_after_seconds,
            },
            time_zone=settings.timezone,
        )
        await self._shared.status.mark_start()
        await self._parts.problem_reports.load()

    async def _run_loops(self) -> None:
        """Run the loops that read and show until `stop`. A loop that an outage holds up is cancelled soon after."""
        parts = self._parts
        loops: dict[str, Loop] = {
            "lease": parts.lease.run,
            "readers": self._run_readers,
            "monitor": parts.monitor.run,
            "running time": parts.running_time.run,
            "retention": parts.retention.run,
            "stream": parts.stream.run,
        }
        if parts.notifier is not None:
            loops["notifier"] = parts.notifier.run
        if parts.daily_summary is not None:
            loops["daily summary"] = parts.daily_summary.run
        if parts.heartbeat is not None:
            loops["heartbeat"] = parts.heartbeat.run
        async with asyncio.TaskGroup() as group:
            tasks = [self._start(group, name, loop, self._stop) for name, loop in loops.items()]
            await self._stop.wait()
            parts.ingest.reject_pending_reads()
            await asyncio.wait(tasks, timeout=_LOOPS_END_SECONDS)
            for task in tasks:
                task.cancel()

    async def _run_readers(self, stop: asyncio.Event) -> None:
        """Run the loops that read Follow Up Boss, unless the API key is known to be of another account; then the daemon ends."""
        parts = self._parts
        try:
            await self._verify_account()
        except AccountMismatch as error:
            await self._refuse(error)
            return
        async with asyncio.TaskGroup() as group:
            self._start(group, "account", self._ending_on_mismatch(self._shared.account.run), stop)
            self._start(group, "poller", self._ending_on_mismatch(parts.poller.run), stop)
            self._start(group, "refetcher", parts.refetcher.run, stop)
            self._start(group, "stage list", parts.stage_list.run, stop)
            self._start(group, "early quarantine", parts.early_quarantine.run, stop)

    def _ending_on_mismatch(self, loop: Loop) -> Loop:
        async def run(stop: asyncio.Event) -> None:
            try:
                await loop(stop)
            except AccountMismatch as error:
                await self._refuse(error)

        return run

    async def _refuse(self, error: AccountMismatch) -> None:
        """End the daemon; the alert about it goes out first."""
        self._refusal = error
        await self._parts.problem_reports.announce_at_once(ProblemName.ACCOUNT_MISMATCH, within_seconds=_ANNOUNCE_SECONDS)
        self._stop.set()

    async def _verify_account(self) -> None:
        """Verify the account as soon as the database answers, unless stopped before. Raises AccountMismatch."""
        while not self._stop.is_set():
            try:
                await self._shared.account.verify()
            except Unavailable:
                await self._shared.clock.pause(_LONGEST_RETRY_SECONDS, self._stop)
            else:
                break

    def _start(self, group: asyncio.TaskGroup, name: str, loop: Loop, stop: asyncio.Event) -> asyncio.Task[None]:
        """Start a loop. When it fails, or ends before `stop`, the whole daemon ends: a missing loop would go unnoticed."""

        async def guarded() -> None:
            try:
                await loop(stop)
                _check_stop_requested(name, stop)
            except Exception:
                # Cancellation by the group is not enough: a task group inside a loop may replace it with an error of its own.
                self._stop.set()
                self._server_stopped.set()
                raise

        return group.create_task(guarded(), name=name)


def _check_stop_requested(name: str, stop: asyncio.Event) -> None:
    if not stop.is_set():
        raise RuntimeError(f"the {name} loop ended by itself")


def _tune_gc() -> None:
    """Collect garbage less often: a delivery creates hundreds of objects, and reference counting frees nearly all of them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
