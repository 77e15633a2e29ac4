"""Webhook deliveries: signed, sent, retried on the documented schedule, with every fault on the way."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Final

import aiohttp

from fubd.simulator.behaviour import Arrays
from fubd.simulator.clock import SimClock
from fubd.simulator.conditions import Conditions
from fubd.simulator.events import WebhookEvent, encode, sign
from fubd.simulator.faults import DeliveryFault, Script
from fubd.simulator.oddities import write_arrays
from fubd.simulator.registry import ACTIVE, Registry, Webhook
from fubd.simulator.rng import Rng
from fubd.simulator.sightings import Sightings

RETRY_SECONDS: Final = (60.0, 300.0, 300.0, 600.0, 1800.0)
"""The documented wait before each of five retries (https://docs.followupboss.com/reference/webhooks-guide)."""
LONG_RETRY_SECONDS: Final = (*RETRY_SECONDS, *(3600.0,) * 7)
"""The same, then hourly for the documented eight hours."""
REDATED_SECONDS: Final = (1.0, 120.0)
"""By how much the eventCreated of a repeated event is later."""
DELETING_STATUSES: Final = frozenset({HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.GONE})

Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[int | None]]
"""Sends a body with headers to a URL; returns the status, None without an answer."""

_OUTBOX_LIMIT: Final = 1_000_000
_EVENTS_KEPT: Final = 100_000
_ATTEMPTS_KEPT: Final = 10_000
_IDS_LOGGED: Final = 3

log = logging.getLogger("fubd.simulator")


@dataclass(slots=True)
class _Delivery:
    """One event on its way to one webhook: the same bytes at every attempt."""

    event: WebhookEvent
    webhook: Webhook
    body: bytes
    signature: str | None
    genuine: bool
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery attempt, or what happened instead.

    `number` counts from 1; `status` is the receiver's, None without an answer; `outcome` is acknowledged, failed, lost or given up.
    """

    event_id: str
    event: str
    url: str
    number: int
    status: int | None
    outcome: str
    at: datetime


@dataclass(slots=True)
class Deliveries:
    """The queue of deliveries. Nothing is sent before `start`. `post` sends them; None for real HTTP."""

    registry: Registry
    conditions: Conditions
    clock: SimClock
    rng: Rng
    sightings: Sightings
    post: Post | None = None
    script: Script[DeliveryFault] = field(default_factory=Script)
    alive: bool = True
    attempts: deque[Attempt] = field(default_factory=lambda: deque(maxlen=_ATTEMPTS_KEPT))
    outcomes: Counter[str] = field(default_factory=Counter)
    events: OrderedDict[str, WebhookEvent] = field(default_factory=OrderedDict)
    _outbox: deque[_Delivery] = field(default_factory=deque)
    _deferred: deque[_Delivery] = field(default_factory=deque)
    _stalled: deque[_Delivery] = field(default_factory=deque)
    _late: int = 0
    _in_flight: int = 0
    _retrying: int = 0
    _holding: bool = False
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _workers: list[asyncio.Task[None]] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    # --- switches -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Stop sending webhooks without any error: from now on they are lost permanently."""
        self.alive = False

    def revive(self) -> None:
        """Send webhooks again, about what happens from now on."""
        self.alive = True

    def hold(self) -> None:
        """Stall everything: nothing is sent until `release`, and nothing is lost."""
        self._holding = True

    def release(self) -> None:
        """Send what was stalled, in order, before anything newer."""
        self._holding = False
        self._outbox.extendleft(reversed(self._stalled))
        self._stalled.clear()
        self._update_signals()

    # --- queueing -----------------------------------------------------------------------------------------------------

    def publish(self, event: WebhookEvent) -> None:
        """Queue the event for every active webhook of its name."""
        self.events[event.event_id] = event
        if len(self.events) > _EVENTS_KEPT:
            self.events.popitem(last=False)
        webhooks = self.registry.active(event.name)
        if not webhooks:
            return
        wait_seconds = (event.created - self.clock.now()).total_seconds()
        for webhook in webhooks:
            delivery = self._delivery(event, webhook)
            if wait_seconds > 0:
                self._delay(wait_seconds, partial(self._enqueue, delivery))
            else:
                self._enqueue(delivery)
        self._update_signals()

    def _delivery(self, event: WebhookEvent, webhook: Webhook) -> _Delivery:
        behaviour = self.conditions.behaviour
        payload = event.payload()
        if behaviour.event_ids_as_object:
            payload["resourceIds"] = write_arrays(payload["resourceIds"], Arrays.OBJECTS)
        body = encode(payload, php=behaviour.php_json)
        return _Delivery(event, webhook, body, sign(body, webhook.system_key), genuine=True)

    def _delay(self, seconds: float, act: Callable[[], None]) -> None:
        """Act after these simulated seconds; until then the delivery counts as late."""

        def on_due() -> None:
            self._late -= 1
            act()
            self._update_signals()

        self._late += 1
        self.clock.call_later(seconds, on_due)

    def _enqueue(self, delivery: _Delivery) -> None:
        if not self.alive or len(self._outbox) >= _OUTBOX_LIMIT:
            self._log_attempt(delivery, None, "lost")
            return
        scripted, fault = self.script.next()
        if not scripted:
            fault = self.conditions.faults.draw_delivery(self.rng)
        self._route(delivery, fault)

    def _route(self, delivery: _Delivery, fault: DeliveryFault | None) -> None:
        """Queue a delivery where its fault puts it."""
        if fault in (DeliveryFault.FORGED, DeliveryFault.UNSIGNED):
            delivery.genuine = False
            delivery.signature = sign(delivery.body, f"not {delivery.webhook.system_key}") if fault is DeliveryFault.FORGED else None
        match fault:
            case DeliveryFault.LOST:
                self._log_attempt(delivery, None, "lost")
            case DeliveryFault.DUPLICATE:
                self._outbox.extend((delivery, replace(delivery)))
            case DeliveryFault.LATE:
                self._delay(self.rng.uniform(*self.conditions.faults.late_seconds), partial(self._outbox.append, delivery))
            case DeliveryFault.REDATED:
                later = delivery.event.created + timedelta(seconds=self.rng.uniform(*REDATED_SECONDS))
                self._outbox.extend((delivery, self._delivery(replace(delivery.event, created=later), delivery.webhook)))
            case DeliveryFault.OUT_OF_ORDER:
                self._deferred.append(delivery)
            case DeliveryFault.STALLED:
                self._stalled.append(delivery)
            case _:
                (self._stalled if self._holding else self._outbox).append(delivery)

    def _on_retry_due(self, delivery: _Delivery) -> None:
        self._retrying -= 1
        self._outbox.append(delivery)
        self._update_signals()

    # --- sending ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start sending."""
        if self.post is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.conditions.behaviour.delivery_timeout_real_seconds),
                connector=aiohttp.TCPConnector(limit=self.conditions.behaviour.delivery_concurrency, keepalive_timeout=5.0),
                headers={"User-Agent": "FollowUpBoss-Webhooks (simulated)"},
            )
        self._workers = [asyncio.create_task(self._run_worker()) for _ in range(self.conditions.behaviour.delivery_concurrency)]
        self._update_signals()

    async def stop(self) -> None:
        """Stop sending; unsent deliveries stay in the queue."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def drain(self) -> None:
        """Wait until everything that can be sent now is sent or lost.

        Stalled, late and retried deliveries wait for `release` or for the clock; this does not wait for them.
        """
        self._update_signals()
        await self._idle.wait()

    async def drain_all(self) -> None:
        """Wait until nothing is left to send, late ones and retries included, so the clock must run. Stalled ones are not waited for."""
        self._update_signals()
        await self._quiet.wait()

    @property
    def pending(self) -> int:
        """The number of deliveries not finished: queued, late, deferred, in flight or to be retried."""
        return len(self._outbox) + len(self._deferred) + self._late + self._in_flight + self._retrying

    def _update_signals(self) -> None:
        """Set the three signals from the current state."""
        busy = bool(self._outbox or self._deferred or self._in_flight)
        for event, so in ((self._work, bool(self._outbox or self._deferred)), (self._idle, not busy), (self._quiet, self.pending == 0)):
            if so:
                event.set()
            else:
                event.clear()

    def _next_delivery(self) -> _Delivery | None:
        if self._outbox:
            return self._outbox.popleft()
        if self._deferred and self._in_flight == 0:
            return self._deferred.popleft()
        return None

    async def _run_worker(self) -> None:
        while True:
            await self._work.wait()
            delivery = self._next_delivery()
            if delivery is None:
                # A deferred delivery waits for those in flight: look again when one of them is done.
                self._work.clear()
                continue
            self._in_flight += 1
            try:
                await self._send(delivery)
            except asyncio.CancelledError:
                # Stopped during the request: whether it arrived is unknown, so it is sent again.
                self._outbox.appendleft(delivery)
                raise
            finally:
                self._in_flight -= 1
                self._update_signals()

    async def _send(self, delivery: _Delivery) -> None:
        webhook = delivery.webhook
        if webhook.deleted or webhook.status != ACTIVE:
            self._log_attempt(delivery, None, "lost")
            return
        delivery.attempts += 1
        status = await self._request(delivery)
        acknowledged = status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        if status is not None and delivery.genuine:
            event = delivery.event
            self.sightings.record_delivery(event.changes, self.clock.now(), acknowledged=acknowledged, created=event.created)
        self._log_attempt(delivery, status, "acknowledged" if acknowledged else "failed")
        self.registry.record_attempt(webhook, failed=not acknowledged)
        if acknowledged:
            return
        if status in DELETING_STATUSES:
            self.registry.delete(webhook)
            return
        delays = LONG_RETRY_SECONDS if self.conditions.behaviour.long_retries else RETRY_SECONDS
        if delivery.attempts <= len(delays):
            self._retrying += 1
            self.clock.call_later(delays[delivery.attempts - 1], lambda: self._on_retry_due(delivery))
        else:
            self._log_attempt(delivery, status, "given up")

    async def _request(self, delivery: _Delivery) -> int | None:
        headers = {"Content-Type": "application/json"}
        if delivery.signature is not None:
            headers["FUB-Signature"] = delivery.signature
        if self.post is not None:
            return await self.post(delivery.webhook.url, delivery.body, headers)
        if self._session is None:
            return None
        try:
            async with self._session.post(delivery.webhook.url, data=delivery.body, headers=headers, allow_redirects=False) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _log_attempt(self, delivery: _Delivery, status: int | None, outcome: str) -> None:
        self.outcomes[outcome] += 1
        event = delivery.event
        self.attempts.append(
            Attempt(event.event_id, event.name, delivery.webhook.url, delivery.attempts, status, outcome, self.clock.now())
        )
        log.info(
            "webhook %s %s -> %s: %s, attempt %d, %s",
            event.name, _short(event.ids), delivery.webhook.url, status or "no answer", delivery.attempts, outcome,
        )  # fmt: skip


def _short(ids: tuple[int, ...]) -> str:
    head = ", ".join(map(str, ids[:_IDS_LOGGED]))
    return f"[{head}]" if len(ids) <= _IDS_LOGGED else f"[{head}, … {len(ids)} ids]"
