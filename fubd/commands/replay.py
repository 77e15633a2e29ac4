"""`python -m fubd replay`: take up again what was kept aside because this or an older version could not read it."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from fubd.commands.console import Screen
from fubd.commands.session import Impatient, configured, opened, recording
from fubd.components import Components
from fubd.core.observation import RefetchEvent, StageEvent
from fubd.core.text import format_count
from fubd.core.webhook import decode
from fubd.poller import Progress
from fubd.ports import Committed
from fubd.settings import Settings
from fubd.store.quarantine import Quarantine, Quarantined

# A delivery may be a mebibyte.
_AT_ONCE = 20


def run(_args: argparse.Namespace) -> int:
    """Process the quarantined deliveries again; 0 when none remains, 1 when some do."""
    settings = configured()
    return asyncio.run(_replay(settings, Screen()))


async def _replay(settings: Settings, screen: Screen) -> int:
    replay = _Replay()
    async with opened(settings, writing=True) as components, recording(components, on_commit=replay.on_commit) as ingestor:
        with screen.warnings(), screen.progress() as show:
            await replay.run(components, ingestor, show)
        replay.show(screen)
        return 1 if replay.remain else 0


@dataclass(slots=True)
class _Replay:
    understood: int = 0
    recorded: int = 0
    corrected: int = 0
    remain: Counter[str] = field(default_factory=Counter)

    async def run(self, components: Components, ingestor: Impatient, show: Callable[[Progress], None]) -> None:
        """Go through the quarantine once, in the order of arrival."""
        quarantine = Quarantine(components.pool)
        total = await quarantine.count()
        page = await quarantine.after(0, _AT_ONCE)
        while page:
            await self._take_up(quarantine, page, ingestor, now=components.clock.now())
            show(Progress("replay", self.understood + self.remain.total(), total, self.recorded, 0, None))
            page = await quarantine.after(page[-1].id, _AT_ONCE)

    async def _take_up(self, quarantine: Quarantine, page: Sequence[Quarantined], ingestor: Impatient, *, now: datetime) -> None:
        # Under the key it is kept by each stays the same delivery: its claims come in, and no second row of it.
        deliveries = [replace(decode(one.body, fub_now=now), key=one.key) for one in page]
        await asyncio.gather(*(ingestor.deliver(one) for one in deliveries if isinstance(one.content, StageEvent | RefetchEvent)))
        for one, delivery in zip(page, deliveries, strict=True):
            if delivery.quarantine is not None:
                self.remain[delivery.quarantine] += 1
            elif await quarantine.release(delivery, asked_at=now):
                self.understood += 1
            else:
                self.remain[one.quarantine] += 1

    def on_commit(self, committed: Committed) -> None:
        """Count what a commit recorded and corrected."""
        self.recorded += len(committed.recorded)
        self.corrected += len(committed.corrected)

    def show(self, screen: Screen) -> None:
        """Print what became of them."""
        for reason, number in self.remain.most_common():
            screen.say(f"{format_count(number, 'delivery')} still kept aside: {reason}")
        if self.recorded or self.corrected:
            screen.say(f"{format_count(self.recorded, 'change')} recorded, {format_count(self.corrected, 'row')} corrected")
        total = self.understood + self.remain.total()
        style = "bold yellow" if self.remain else "bold green"
        screen.say(f"replayed {format_count(total, 'delivery')}: {self.understood:,} understood, {self.remain.total():,} remain", style)
