"""Calls FUBD_HEARTBEAT_URL after each complete poll while recording works.

Silence there means that fubd, its database or its polling is down.
"""

from __future__ import annotations

import asyncio
import logging

from aiohttp import ClientSession

from fubd.alert_receiver import SendFailed, new_session, send_heartbeat
from fubd.log_once import LogOnce
from fubd.monitor import Monitor
from fubd.ports import Clock

_log = logging.getLogger("fubd.heartbeat")

_LOOK_SECONDS = 1.0


class Heartbeat:
    """Calls `url`. One that fails is not repeated: the next poll brings the next, and the service expects gaps."""

    def __init__(self, monitor: Monitor, clock: Clock, *, url: str) -> None:
        self._monitor = monitor
        self._clock = clock
        self._url = url
        self._failure_log = LogOnce(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Call until `stop`. The poll that was the last one at the start was reported by the process before."""
        while self._monitor.summary is None:
            if await self._clock.pause(_LOOK_SECONDS, stop):
                return
        reported = self._monitor.summary.polling_heard
        async with new_session() as session:
            while not await self._clock.pause(_LOOK_SECONDS, stop):
                heard = self._monitor.summary.polling_heard
                if heard != reported and self._monitor.not_ready_reason() is None:
                    reported = heard
                    await self._call(session)

    async def _call(self, session: ClientSession) -> None:
        try:
            await send_heartbeat(session, self._url)
        except SendFailed as error:
            self._failure_log.warning("Heartbeats cannot be sent to FUBD_HEARTBEAT_URL: %s.", error)
        else:
            self._failure_log.resolved("Heartbeats reach FUBD_HEARTBEAT_URL again.")
