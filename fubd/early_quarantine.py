"""Records deliveries that were quarantined because of a wrong clock of ours, once Follow Up Boss's clock is known.

An event more than a day ahead is quarantined, by the later of Follow Up Boss's clock and ours. Until its API has answered once, only ours
is known; where that is days behind, genuine events seem to be of the future. So they are judged again, once in the life of each process,
when its clock is known. What is of the future even then stays for `replay`, as does all else in quarantine: an owner should see it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from fubd.core.text import format_count
from fubd.core.webhook import TOO_FAR_AHEAD, decode
from fubd.errors import Unavailable
from fubd.ports import Clock, Ingestor
from fubd.store.quarantine import Quarantine

_log = logging.getLogger("fubd.early_quarantine")

_LOOK_SECONDS = 5.0
# A delivery may have up to one MiB.
_PAGE_SIZE = 20


class EarlyQuarantine:
    """Judges them again. `latest_now`: the latest that Follow Up Boss's clock can show, None while it is unknown."""

    def __init__(self, quarantine: Quarantine, ingestor: Ingestor, clock: Clock, *, latest_now: Callable[[], datetime | None]) -> None:
        self._quarantine = quarantine
        self._ingestor = ingestor
        self._clock = clock
        self._latest_now = latest_now

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for the clock, judge them again, and wait for `stop`."""
        is_done = False
        while not stop.is_set():
            now = self._latest_now()
            if now is not None and not is_done:
                with suppress(Unavailable):
                    await self._judge_again(now)
                    is_done = True
            await self._clock.pause(3600.0 if is_done else _LOOK_SECONDS, stop)

    async def _judge_again(self, now: datetime) -> None:
        """Record those that are not too far ahead of `now`. Raises Unavailable; what was recorded until then stays so."""
        released = 0
        page = await self._quarantine.after(0, _PAGE_SIZE)
        while page:
            for stored in page:
                if stored.quarantine != TOO_FAR_AHEAD:
                    continue
                delivery = replace(decode(stored.body, fub_now=now), key=stored.key)
                if delivery.quarantine is None and delivery.content is not None:
                    await self._ingestor.submit(delivery)
                    released += await self._quarantine.release(delivery, asked_at=self._clock.now())
            page = await self._quarantine.after(page[-1].id, _PAGE_SIZE)
        if released:
            _log.info(
                "Recorded %s that seemed to be of the future while Follow Up Boss's clock was unknown", format_count(released, "delivery")
            )
