"""The composition root: builds every part, hands each its neighbours, and runs them as one group until told to stop.

The order of life: listen first (the platform and Follow Up Boss may call at once), then wait for the database however long it takes, then
record, poll and keep the webhooks. The order of death is the reverse of the reading: the door closes and finishes what it accepted, the
recorder empties its queue, the lease is given back, the pool closes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from fubd import __version__
from fubd.components import Components, build_ingest, pacing_policy
from fubd.core.reconcile import NewRow, RowUpdate
from fubd.errors import Unavailable
from fubd.lease import Lease
from fubd.monitor import DeliveryCounts, Monitor, StaleAfter
from fubd.notifier import Notifier
from fubd.poller import Poller, PollPolicy
from fubd.server import ApiBudget, HttpServer
from fubd.store import SchemaRefused, migrate
from fubd.store.outbox import Outbox
from fubd.subscriptions import SubscriptionManager
from fubd.watchdog import Watchdog

_log = logging.getLogger("fubd")

# Together with the closing of the pool (1 s) these stay below the 10 s within which a stop is over, whatever the database does.
_DRAIN_SECONDS = 5.5
_LAST_WORK_SECONDS = 2.0
_LOOPS_END_SECONDS = 3.0
_FIRST_RETRY_SECONDS = 0.25
_LAST_RETRY_SECONDS = 5.0


async def open_database(components: Components, stop: asyncio.Event, *, told: Callable[[str | None], None] = lambda _: None) -> bool:
    """Wait until the database answers and its schema is ours; False when told to stop first. Raises SchemaRefused."""
    delay = _FIRST_RETRY_SECONDS
    said: str | None = None
    while not stop.is_set():
        try:
            async with components.pool.connection() as connection:
                await migrate(connection, columns=components.settings.columns)
            await components.maintenance.save_settings(
                {
                    "webhook_stale_after_seconds": components.settings.webhook_stale_after_seconds,
                    "poll_stale_after_seconds": components.settings.poll_stale_after_seconds,
                }
            )
            await components.status.mark_start()
        except Unavailable as error:
            reason = str(error)
            told(reason)
            if reason != said:
                _log.warning("waiting for the database: %s", reason)
                said = reason
            await components.clock.pause(delay, stop)
            delay = min(delay * 2, _LAST_RETRY_SECONDS)
        else:
            if said is not None:
                _log.info("the database answers")
            told(None)
            return True
    return False


class Daemon:
    """The whole, running. `host` None: FUBD_HOST, and without that every address of the machine."""

    def __init__(
        self, components: Components, *, host: str | None = None, port: int | None = None, poll_policy: PollPolicy | None = None
    ) -> None:
        settings, clock, metrics = components.settings, components.clock, components.metrics
        self._parts = components
        self._host = host if host is not None else settings.host
        self._port = settings.port if port is None else port
        self._ingest = build_ingest(components, on_commit=self._changed, on_new_delivery=self._on_new_delivery)
        self._lease = Lease(components.state, clock, metrics, holder=components.instance)
        self._stop = asyncio.Event()
        self._server_stopped = asyncio.Event()
        self._recording_stops = asyncio.Event()
        self.listening = asyncio.Event()
        self.subscriptions = SubscriptionManager(
            components.client, metrics, public_url=settings.public_url, manage=settings.manage_webhooks, lease=self._lease
        )
        self.poller = Poller(
            api=components.client,
            ingestor=self._ingest,
            state=components.state,
            clock=clock,
            metrics=metrics,
            policy=poll_policy or PollPolicy(pacing=pacing_policy(settings), scrub_batches=settings.scrub_batches),
            subscriptions=self.subscriptions,
            jitter=random.SystemRandom().random,
            is_leader=lambda: self._lease.held,
            refetch_requested=components.refetch_requested,
            poll_now=self._lease.gained,
            on_mode_change=lambda _record, _evidence: self.monitor.refresh_soon(),
        )
        self.notifier = None
        if settings.alert_url is not None:
            self.notifier = Notifier(Outbox(components.pool), clock, metrics, url=settings.alert_url.get_secret_value())
        self.monitor = Monitor(
            components.changes,
            components.status,
            components.maintenance,
            clock,
            metrics,
            stale_after=StaleAfter(settings.webhook_stale_after_seconds, settings.poll_stale_after_seconds),
            keep_days=settings.keep_deliveries_days,
            version=__version__,
            api=self._api_budget,
            answered=self._answered,
            stored_unanswered=lambda: self._ingest.stored_unanswered,
            pending=lambda: self._ingest.pending,
            failing=lambda: self._ingest.failing,
            mode=self.poller.shown,
            subscriptions=self.subscriptions.statuses,
            advice=self.subscriptions.advice,
        )
        keys = [key.get_secret_value().encode() for key in (settings.fub_system_key, settings.fub_system_key_previous) if key]
        self.server = HttpServer(
            ingestor=self._ingest,
            view=self.monitor,
            changes=components.changes,
            keys=keys,
            metrics=metrics,
            clock=clock,
            fub_now=components.client.fub_now,
            token=settings.metrics_token.get_secret_value() if settings.metrics_token else None,
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self.server.port

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Raises OSError when it cannot listen, SchemaRefused when the database is not ours to write."""
        self._stop = stop
        await self.server.start(host=self._host, port=self._port)
        self.listening.set()
        _log.info("listening on port %d", self.server.port)
        refused: list[SchemaRefused] = []
        _tune_gc()
        try:
            async with self._parts.client, asyncio.TaskGroup() as group:
                self._start(group, "watchdog", Watchdog().run, self._recording_stops)
                work = group.create_task(self._work(stop, refused), name="work")
                await stop.wait()
                await self.server.stop(within_seconds=_DRAIN_SECONDS)
                self._server_stopped.set()
                # Everybody has been answered. What is not stored by now was refused, and its sender comes again.
                await asyncio.wait([work], timeout=_LAST_WORK_SECONDS)
                work.cancel()
        finally:
            await self.server.stop(within_seconds=0.1)
            await self._parts.pool.close()
        if refused:
            raise refused[0]

    async def _work(self, stop: asyncio.Event, refused: list[SchemaRefused]) -> None:
        """Everything that needs the database: the recorder ends last, when nobody can hand anything in any more."""
        try:
            if await open_database(self._parts, stop, told=self.monitor.ready):
                async with asyncio.TaskGroup() as group:
                    self._start(group, "recorder", self._ingest.run, self._recording_stops)
                    await self._read(stop)
                    await self._server_stopped.wait()
                    self._recording_stops.set()
        except SchemaRefused as error:
            refused.append(error)
            stop.set()
        finally:
            self._recording_stops.set()

    async def _read(self, stop: asyncio.Event) -> None:
        """Poll, and show what is known, until told to stop; who does not end soon after, held up by an outage, is ended."""
        async with asyncio.TaskGroup() as group:
            loops = [
                self._start(group, "monitor", self.monitor.look, stop),
                self._start(group, "stream", self.server.run_stream, stop),
                self._start(group, "lease", self._lease.run, stop),
                self._start(group, "poller", self.poller.run, stop),
                self._start(group, "hints", self.poller.run_refetches, stop),
            ]
            if self.notifier is not None:
                loops.append(self._start(group, "notifier", self.notifier.run, stop))
            await stop.wait()
            self._ingest.reject_pending_reads()
            await asyncio.wait(loops, timeout=_LOOPS_END_SECONDS)
            for loop in loops:
                loop.cancel()

    def _start(
        self, group: asyncio.TaskGroup, name: str, loop: Callable[[asyncio.Event], Coroutine[Any, Any, None]], stop: asyncio.Event
    ) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await loop(stop)
                _check_stop_requested(name, stop)
            except Exception:
                # Cancellation alone would do, but a task group nested in a loop may swallow it together with an error of its own.
                self._stop.set()
                self._server_stopped.set()
                raise

        return group.create_task(guarded(), name=name)

    def _on_new_delivery(self, created: datetime) -> None:
        self.monitor.on_new_delivery(created)

    def _changed(self, _recorded: list[tuple[int, NewRow]], corrected: list[tuple[int, RowUpdate]]) -> None:
        # What was healed is noted in the database, where the streams of other instances find it too.
        self.server.on_commit(item.now.id for _, item in corrected if not item.healed)

    def _answered(self) -> DeliveryCounts:
        door = self.server.webhook_handler
        new = sum(door.outcomes[outcome] for outcome in ("accepted", "ignored", "quarantined"))
        # FUB sees a 401 only when our key is not its own; then nothing at all is taken, and that has an alert of its own.
        failures = sum(door.outcomes[outcome] for outcome in ("unavailable", "too_slow", "too_large"))
        return DeliveryCounts(door.answered, sum(door.outcomes.values()), new, failures, new + door.outcomes["duplicate"])

    def _api_budget(self) -> ApiBudget:
        limit, remaining = self._parts.client.limit_and_remaining()
        return ApiBudget(limit, remaining, 10.0, self._parts.settings.api_share, self._parts.client.calls_made())


def _check_stop_requested(name: str, stop: asyncio.Event) -> None:
    """A loop that returns early is as dead as one that raises, and far quieter."""
    if not stop.is_set():
        raise RuntimeError(f"the {name} loop ended by itself")


def _tune_gc() -> None:
    """Look for garbage less often.

    A delivery makes hundreds of objects, nearly all freed by counting; walking the young ones for every few hundred of them is waste.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
