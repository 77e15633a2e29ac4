"""The poller over the simulated account, through the real client and real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from fubd.client import Credentials, FubClient, Timeouts
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.poller import Poller, PollPolicy
from fubd.simulator import Account, Behaviour, Lags, SimClock, Simulator
from fubd.simulator.rng import Rng
from fubd.subscriptions import SubscriptionManager
from tests.poller.fakes import Memory

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
PUBLIC = "https://fubd.example.net"


@dataclass
class World:
    account: Account
    simulator: Simulator
    memory: Memory
    poller: Poller
    subscriptions: SubscriptionManager
    client: FubClient

    def unrecorded(self) -> list[int]:
        """Give people who changed before coverage, are still there, and whose reading is older than that change."""
        reached = self.memory.cover.watermark
        assert reached is not None
        latest = {change.person_id: change.at for change in self.account.truth.changes if change.at < reached}
        return [person_id for person_id, at in latest.items() if self.account.has(person_id) and not self._seen(person_id, at)]

    def _seen(self, person_id: int, at: datetime) -> bool:
        known = self.memory.known.get(person_id)
        return known is not None and known.updated >= at.replace(microsecond=0)


@asynccontextmanager
async def simulated(
    *,
    people: int = 1200,
    behaviour: Behaviour | None = None,
    speed: float = 900.0,
    lags: Lags | None = None,
    api_key: str = "test-api-key",
    seed: int = 11,
    ahead_seconds: float = 0.0,
) -> AsyncIterator[World]:
    """Serve an account in whose time a second takes 1/`speed`, and a poller that reads it; its own clock is `ahead_seconds`."""
    clock = SimClock(NINE, speed=speed)
    ours = clock.skewed(ahead_seconds)
    account = Account(seed=seed, people=people, clock=clock, gaps=0.3, lags=lags)
    simulator = Simulator(account, behaviour=behaviour)
    simulator.keys.add("agent-api-key", "agent")
    memory, metrics = Memory(clock=ours), Metrics(CollectorRegistry())
    async with simulator.running() as url:
        client = FubClient(
            base_url=url,
            credentials=Credentials(api_key, "fubd", "test-system-key"),
            custom_fields=(),
            share=0.8,
            clock=ours,
            metrics=metrics,
            rng=Rng(seed + 3),
            timeouts=Timeouts(attempt_seconds=3600.0, total_seconds=36000.0),
        )
        async with client:
            subscriptions = SubscriptionManager(client, metrics, public_url=PUBLIC, manage=True, lease=LocalLease())
            poller = Poller(
                api=client,
                ingestor=memory,
                state=memory,
                clock=ours,
                metrics=metrics,
                policy=PollPolicy(),
                subscriptions=subscriptions,
                jitter=Rng(seed + 5).random,
                is_leader=lambda: True,
                refetch_requested=memory.refetch_requested,
                poll_now=asyncio.Event(),
            )
            yield World(account, simulator, memory, poller, subscriptions, client)


async def stir(account: Account, dice: Rng, *, times: int, every_seconds: float) -> None:
    """Let people move, be edited, trashed, deleted and created."""
    for _ in range(times):
        person_id = dice.choice(account.ids) if account.ids else account.create()
        match dice.randrange(6):
            case 0:
                account.delete(person_id)
            case 1:
                account.create()
            case 2:
                account.trash(person_id)
            case 3:
                account.edit(person_id, price=dice.randrange(1000))
            case _:
                account.move(person_id, dice.choice([stage.name for stage in account.stages]))
        await account.clock.pause(every_seconds)
