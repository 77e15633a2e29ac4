"""Sends alerts to FUBD_ALERT_URL: changes of mode, and people who enter a watched stage, many at once as one message.

An alert enters the outbox in the transaction that records its cause, and stays there until the receiver answers 2xx. So it is sent at least
once, whatever ends or fails; a receiver that must not act twice compares the `id`. The alerts of one person are sent in order: the next is
claimed only after the one before it was sent. The webhook route does not depend on any of this.

While the receiver is down, one alert at a time is tried, at growing intervals, until the receiver answers or the alert is days old. One
that the receiver rejects (4xx) is retried on its own and delays only the alerts of the same person.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp

from fubd.alert_receiver import SendFailed, new_session, send_alert
from fubd.backoff import backoff_seconds
from fubd.core.alerts import Alert
from fubd.core.text import format_count
from fubd.errors import Unavailable
from fubd.log_once import LogOnce
from fubd.metrics import Metrics
from fubd.ports import Clock, Outbox

_log = logging.getLogger("fubd.notifier")

# A claim nearly always finds nothing and costs one index probe; an alert has to be sent within two seconds.
_CLAIM_INTERVAL_SECONDS = 1.0
_MAX_CLAIMED = 40
_CONCURRENT_POSTS = 8
# The slowest batch takes 40 / 8 x 5 s. An alert not started by then is left to the instance that claims it next.
_CLAIM_SECONDS = 60.0
_START_WITHIN_SECONDS = 45.0
_DATABASE_RETRY_SECONDS = 3.0
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 30.0
_LONGEST_REJECTED_BACKOFF_SECONDS = 600.0
_GIVE_UP_AFTER_DAYS = 3.0


@dataclass(slots=True)
class _SentBatch:
    """The result of one batch. `sent`: the events that were accepted; `postponed`: the others, with the seconds until their next try.

    `is_down`: the receiver was down or busy for at least one; `retry_after_seconds`: the longest delay that it asked for.
    """

    sent: list[int] = field(default_factory=list)
    postponed: dict[int, float] = field(default_factory=dict)
    failures: int = 0
    is_down: bool = False
    retry_after_seconds: float = 0.0


class Notifier:
    """Sends the alerts of the outbox to `url`, as `write` puts them. Any number of instances may run on one database."""

    def __init__(self, outbox: Outbox, clock: Clock, metrics: Metrics, *, url: str, write: Callable[[Alert], Mapping[str, object]]) -> None:
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._url = url
        self._write = write
        self._unsettled: _SentBatch | None = None
        self._failed_batches = 0
        self._failure_log = LogOnce(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`. Outages of the receiver and of the database are waited out."""
        async with new_session() as session:
            while not stop.is_set():
                try:
                    wait = await self._send_batch(session, stop)
                except Unavailable:
                    # Other parts log the outage. What was sent is settled when the database is back.
                    wait = _DATABASE_RETRY_SECONDS
                await self._clock.pause(wait, stop)

    async def _send_batch(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> float:
        """Send the alerts that are due. Return the seconds until the next batch. Raises Unavailable."""
        await self._settle()
        alerts = await self._outbox.claim(1 if self._failed_batches else _MAX_CLAIMED, for_seconds=_CLAIM_SECONDS)
        if not alerts:
            return _CLAIM_INTERVAL_SECONDS
        result = self._unsettled = _SentBatch()
        started = self._clock.monotonic()
        slots = asyncio.Semaphore(_CONCURRENT_POSTS)

        async def send_in_turn(alert: Alert) -> None:
            async with slots:
                if stop.is_set() or self._clock.monotonic() - started > _START_WITHIN_SECONDS:
                    result.postponed.update(dict.fromkeys(alert.event_ids, 0.0))
                else:
                    await self._send(session, alert, result)

        await asyncio.gather(*(send_in_turn(alert) for alert in alerts))
        wait = self._wait_after(result)
        await self._settle()
        if result.failures:
            await self._give_up()
        return wait

    async def _send(self, session: aiohttp.ClientSession, alert: Alert, result: _SentBatch) -> None:
        try:
            await send_alert(session, self._url, self._write(alert))
        except SendFailed as error:
            self._metrics.alerts.labels("failed").inc()
            longest = _LONGEST_REJECTED_BACKOFF_SECONDS if error.rejected else _LONGEST_BACKOFF_SECONDS
            delay = max(_backoff_seconds(alert.attempts, longest), error.retry_after_seconds)
            result.postponed.update(dict.fromkeys(alert.event_ids, delay))
            result.failures += 1
            result.is_down |= not error.rejected
            result.retry_after_seconds = max(result.retry_after_seconds, error.retry_after_seconds)
            self._failure_log.warning("Alerts cannot be sent to FUBD_ALERT_URL: %s. They are kept and sent again.", error)
        else:
            self._metrics.alerts.labels("sent").inc()
            result.sent.extend(alert.event_ids)

    def _wait_after(self, result: _SentBatch) -> float:
        """Return the seconds until the next batch: none while alerts are accepted, a growing delay while the receiver is down."""
        if result.sent:
            self._failure_log.resolved("Alerts reach FUBD_ALERT_URL again.")
            self._failed_batches = 0
            return 0.0
        if not result.is_down:
            return _CLAIM_INTERVAL_SECONDS
        self._failed_batches += 1
        return max(_backoff_seconds(self._failed_batches, _LONGEST_BACKOFF_SECONDS), result.retry_after_seconds)

    async def _settle(self) -> None:
        """Save the result of the last batch. Raises Unavailable; the next batch then tries again."""
        if self._unsettled is not None:
            await self._outbox.settle(self._unsettled.sent, self._unsettled.postponed)
            self._unsettled = None

    async def _give_up(self) -> None:
        removed = await self._outbox.give_up(older_than_days=_GIVE_UP_AFTER_DAYS)
        if removed:
            self._metrics.alerts.labels("given_up").inc(removed)
            _log.warning(
                "Gave up %s that could not be sent to FUBD_ALERT_URL for %g days.", format_count(removed, "alert"), _GIVE_UP_AFTER_DAYS
            )


def _backoff_seconds(attempts: int, longest_seconds: float) -> float:
    return backoff_seconds(attempts, first_seconds=_FIRST_BACKOFF_SECONDS, longest_seconds=longest_seconds)
