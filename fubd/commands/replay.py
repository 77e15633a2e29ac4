"""`python -m fubd replay`: processes quarantined deliveries again, which an older version could not read."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from fubd.commands.console import Console
from fubd.commands.recording import TimeLimitedIngest, open_components, run_ingest, verify_account
from fubd.commands.session import load_settings
from fubd.components import Components
from fubd.core.observation import RefetchEvent, StageEvent
from fubd.core.text import format_count
from fubd.core.webhook import decode
from fubd.errors import Unavailable
from fubd.poller import Progress
from fubd.ports import Committed
from fubd.settings import Settings
from fubd.store.quarantine import Quarantine, Quarantined

# A delivery may have up to one MiB.
# One delivery that the database refuses must not hold up the others for as long as an outage would.
_TIMEOUT_SECONDS = 15.0
_PAGE_SIZE = 20


def run(_args: argparse.Namespace) -> int:
    """Process the quarantined deliveries again; 0 when none remains, 1 when some do."""
    settings = load_settings()
    return asyncio.run(_run(settings, Console()))


async def _run(settings: Settings, console: Console) -> int:
    replay = _Replay()
    async with (
        open_components(settings, migrated=True) as components,
        run_ingest(components, on_commit=replay.on_commit, timeout_seconds=_TIMEOUT_SECONDS) as ingest,
    ):
        with console.show_warnings(), console.show_progress() as show:
            await verify_account(components)
            await replay.run(components, ingest, show)
        replay.print(console)
        return 1 if replay.remaining else 0


@dataclass(slots=True)
class _Replay:
    """One pass through the quarantine. `remaining`: deliveries still unreadable, counted by reason."""

    understood: int = 0
    recorded: int = 0
    corrected: int = 0
    remaining: Counter[str] = field(default_factory=Counter)

    async def run(self, components: Components, ingest: TimeLimitedIngest, show: Callable[[Progress], None]) -> None:
        """Process every quarantined delivery once, in the order of arrival."""
        quarantine = Quarantine(components.pool)
        total = await quarantine.count()
        page = await quarantine.after(0, _PAGE_SIZE)
        while page:
            asked_at = components.clock.now()
            await self._process(quarantine, page, ingest, latest_now=max(components.client.fub_now(), asked_at), asked_at=asked_at)
            show(Progress("replay", self.understood + self.remaining.total(), total, self.recorded, 0, None))
            page = await quarantine.after(page[-1].id, _PAGE_SIZE)

    async def _process(
        self, quarantine: Quarantine, page: Sequence[Quarantined], ingest: TimeLimitedIngest, *, latest_now: datetime, asked_at: datetime
    ) -> None:
        # With the key under which it is stored, each stays the same delivery: its claims are added, and no second delivery.
        deliveries = [replace(decode(stored.body, fub_now=latest_now), key=stored.key) for stored in page]
        usable = [one for one in deliveries if isinstance(one.content, StageEvent | RefetchEvent)]
        outcomes = await asyncio.gather(*(ingest.deliver(one) for one in usable), return_exceptions=True)
        failures = {one.key: outcome for one, outcome in zip(usable, outcomes, strict=True) if isinstance(outcome, BaseException)}
        for failure in failures.values():
            if not isinstance(failure, Unavailable):
                raise failure
        for stored, delivery in zip(page, deliveries, strict=True):
            if stored.key in failures:
                self.remaining[str(failures[stored.key])] += 1
            elif delivery.quarantine is not None:
                self.remaining[delivery.quarantine] += 1
            elif await quarantine.release(delivery, asked_at=asked_at):
                self.understood += 1
            else:
                self.remaining[stored.quarantine] += 1

    def on_commit(self, committed: Committed) -> None:
        """Count the rows that a commit inserted and corrected."""
        self.recorded += len(committed.recorded)
        self.corrected += len(committed.corrected)

    def print(self, console: Console) -> None:
        """Print the result."""
        for reason, number in self.remaining.most_common():
            console.print(f"{format_count(number, 'delivery')} still quarantined: {reason}")
        if self.recorded or self.corrected:
            console.print(f"{format_count(self.recorded, 'change')} recorded, {format_count(self.corrected, 'row')} corrected")
        total = self.understood + self.remaining.total()
        result = f"replayed {format_count(total, 'delivery')}: {self.understood:,} understood, {self.remaining.total():,} remain"
        console.print(result, "bold yellow" if self.remaining else "bold green")
