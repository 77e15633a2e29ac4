"""Webhooks on their way: signed, sent, retried on the documented schedule, and whatever can befall them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from typing import Final

import aiohttp

from fubd.simulator.clock import SimClock
from fubd.simulator.dice import Dice
from fubd.simulator.events import Event, encode, sign
from fubd.simulator.faults import Behaviour, DeliveryFault, Faults, Script
from fubd.simulator.registry import ACTIVE, Hook, Registry
from fubd.simulator.seen import Seen

RETRY_SECONDS: Final = (60.0, 300.0, 300.0, 600.0, 1800.0)
"""The documented table: the wait before each of five retries."""
LONG_RETRY_SECONDS: Final = (*RETRY_SECONDS, *(3600.0,) * 7)
"""The same, going on hourly within the documented eight hours."""
DELETING_STATUSES: Final = frozenset({HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.GONE})

_OUTBOX_LIMIT: Final = 1_000_000
_EVENTS_KEPT: Final = 100_000
_ATTEMPTS_KEPT: Final = 10_000
_IDS_LOGGED: Final = 3

log = logging.getLogger("fubd.simulator")


@dataclass(slots=True)
class _Parcel:
    """One event on its way to one hook: the same bytes at every attempt."""

    event: Event
    hook: Hook
    body: bytes
    signature: str | None
    genuine: bool
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a delivery, or what befell it instead.

    `number` counts from 1; `status` is the receiver's, null when none came; `outcome` is acknowledged, failed, refused, lost or stalled.
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
    """The outbox. Give it a session by `start`; until then everything waits."""

    registry: Registry
    behaviour: Behaviour
    faults: Faults
    clock: SimClock
    dice: Dice
    seen: Seen
    script: Script[DeliveryFault] = field(default_factory=Script)
    alive: bool = True
    attempts: deque[Attempt] = field(default_factory=lambda: deque(maxlen=_ATTEMPTS_KEPT))
    outcomes: Counter[str] = field(default_factory=Counter)
    events: OrderedDict[str, Event] = field(default_factory=OrderedDict)
    _outbox: deque[_Parcel] = field(default_factory=deque)
    _aside: deque[_Parcel] = field(default_factory=deque)
    _stalled: deque[_Parcel] = field(default_factory=deque)
    _late: int = 0
    _under_way: int = 0
    _retrying: int = 0
    _held: bool = False
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _workers: list[asyncio.Task[None]] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    # --- switches -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """From now on no webhook is sent, and nobody is told so: what happens meanwhile is lost for good."""
        self.alive = False

    def revive(self) -> None:
        """Send webhooks again, of what happens from now on."""
        self.alive = True

    def hold(self) -> None:
        """Stall everything: nothing is sent until `release`, and nothing is lost."""
        self._held = True

    def release(self) -> None:
        """Send what was stalled, in its order, before anything newer."""
        self._held = False
        self._outbox.extendleft(reversed(self._stalled))
        self._stalled.clear()
        self._wake()

    # --- in -----------------------------------------------------------------------------------------------------------

    def publish(self, event: Event) -> None:
        """Tell every active hook of the event."""
        self.events[event.event_id] = event
        if len(self.events) > _EVENTS_KEPT:
            self.events.popitem(last=False)
        hooks = self.registry.active(event.name)
        if not hooks:
            return
        body = encode(event.payload(), php=self.behaviour.php_json)
        for hook in hooks:
            self._post(_Parcel(event, hook, body, sign(body, hook.system_key), genuine=True))
        self._wake()

    def _post(self, parcel: _Parcel) -> None:
        if not self.alive or len(self._outbox) >= _OUTBOX_LIMIT:
            self._note(parcel, None, "lost")
            return
        scripted, fault = self.script.next()
        if not scripted:
            fault = self.faults.delivery(self.dice)
        self._place(parcel, fault)

    def _place(self, parcel: _Parcel, fault: DeliveryFault | None) -> None:
        """Put a parcel where its fault sends it."""
        if fault in (DeliveryFault.FORGED, DeliveryFault.UNSIGNED):
            parcel.genuine = False
            parcel.signature = sign(parcel.body, f"not {parcel.hook.system_key}") if fault is DeliveryFault.FORGED else None
        match fault:
            case DeliveryFault.LOST:
                self._note(parcel, None, "lost")
            case DeliveryFault.DUPLICATE:
                self._outbox.extend((parcel, replace(parcel)))
            case DeliveryFault.LATE:
                self._late += 1
                self.clock.call_later(self.dice.uniform(*self.faults.late_seconds), lambda: self._arrive(parcel))
            case DeliveryFault.OUT_OF_ORDER:
                self._aside.append(parcel)
            case DeliveryFault.STALLED:
                self._stalled.append(parcel)
            case _:
                (self._stalled if self._held else self._outbox).append(parcel)

    def _arrive(self, parcel: _Parcel) -> None:
        self._late -= 1
        self._outbox.append(parcel)
        self._wake()

    def _again(self, parcel: _Parcel) -> None:
        self._retrying -= 1
        self._outbox.append(parcel)
        self._wake()

    # --- out ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin sending."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self.behaviour.delivery_timeout_real_seconds),
            connector=aiohttp.TCPConnector(limit=self.behaviour.delivery_concurrency, keepalive_timeout=5.0),
            headers={"User-Agent": "FollowUpBoss-Webhooks (simulated)"},
        )
        self._workers = [asyncio.create_task(self._send_for_ever()) for _ in range(self.behaviour.delivery_concurrency)]
        self._wake()

    async def stop(self) -> None:
        """Stop sending; what was not sent stays in the outbox."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def drained(self) -> None:
        """Wait until everything that could be sent now was, or is lost.

        What is stalled, late or to be retried waits for `release` or for the clock, and is not waited for.
        """
        self._wake()
        await self._idle.wait()

    async def settled(self) -> None:
        """Wait until nothing is left to send, the late and the retries included, so the clock must run; the stalled are not waited for."""
        self._wake()
        await self._quiet.wait()

    @property
    def pending(self) -> int:
        """How many deliveries are not through: waiting, late, set aside, under way or to be retried."""
        return len(self._outbox) + len(self._aside) + self._late + self._under_way + self._retrying

    def _wake(self) -> None:
        """Set the three signals to what is so."""
        busy = bool(self._outbox or self._aside or self._under_way)
        for event, so in ((self._work, bool(self._outbox or self._aside)), (self._idle, not busy), (self._quiet, self.pending == 0)):
            if so:
                event.set()
            else:
                event.clear()

    def _take(self) -> _Parcel | None:
        if self._outbox:
            return self._outbox.popleft()
        if self._aside and self._under_way == 0:
            return self._aside.popleft()
        return None

    async def _send_for_ever(self) -> None:
        while True:
            await self._work.wait()
            parcel = self._take()
            if parcel is None:
                # Something lies aside until those under way are through: look again when one of them is.
                self._work.clear()
                continue
            self._under_way += 1
            try:
                await self._send(parcel)
            except asyncio.CancelledError:
                # Stopped meanwhile: whether it arrived is unknown, so it is sent again.
                self._outbox.appendleft(parcel)
                raise
            finally:
                self._under_way -= 1
                self._wake()

    async def _send(self, parcel: _Parcel) -> None:
        hook = parcel.hook
        if hook.deleted or hook.status != ACTIVE:
            self._note(parcel, None, "lost")
            return
        parcel.attempts += 1
        status = await self._request(parcel)
        acknowledged = status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        if status is not None and parcel.genuine:
            self.seen.told(parcel.event.changes, self.clock.now(), acknowledged=acknowledged)
        self._note(parcel, status, "acknowledged" if acknowledged else "failed")
        self.registry.attempted(hook, failed=not acknowledged)
        if acknowledged:
            return
        if status in DELETING_STATUSES:
            self.registry.delete(hook)
            return
        delays = LONG_RETRY_SECONDS if self.behaviour.long_retries else RETRY_SECONDS
        if parcel.attempts <= len(delays):
            self._retrying += 1
            self.clock.call_later(delays[parcel.attempts - 1], lambda: self._again(parcel))
        else:
            self._note(parcel, status, "given up")

    async def _request(self, parcel: _Parcel) -> int | None:
        if self._session is None:
            return None
        headers = {"Content-Type": "application/json"}
        if parcel.signature is not None:
            headers["FUB-Signature"] = parcel.signature
        try:
            async with self._session.post(parcel.hook.url, data=parcel.body, headers=headers, allow_redirects=False) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _note(self, parcel: _Parcel, status: int | None, outcome: str) -> None:
        self.outcomes[outcome] += 1
        event = parcel.event
        self.attempts.append(Attempt(event.event_id, event.name, parcel.hook.url, parcel.attempts, status, outcome, self.clock.now()))
        log.info(
            "webhook %s %s -> %s: %s, attempt %d, %s",
            event.name, _short(event.ids), parcel.hook.url, status or "no answer", parcel.attempts, outcome,
        )  # fmt: skip


def _short(ids: tuple[int, ...]) -> str:
    head = ", ".join(map(str, ids[:_IDS_LOGGED]))
    return f"[{head}]" if len(ids) <= _IDS_LOGGED else f"[{head}, … {len(ids)} in all]"
