"""A household in the small world: an account, a memory, and a daemon's poller, hints and subscriptions over both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd.core.subscriptions import Subscription
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.poller import Poller, PollPolicy
from fubd.simulator.rng import Rng
from fubd.subscriptions import SubscriptionManager
from tests.poller.fakes import EPOCH, Account, AccountFeed, Memory, VirtualClock, true_time

PUBLIC = "https://fubd.example.net"


@dataclass
class House:
    """An account with its people, and a daemon's poller, hints and subscriptions over one memory.

    `delivering`: whether webhooks get through. `asking`: whether who a webhook told of is also to be read, for the names of the row.
    """

    people: int = 500
    policy: PollPolicy = field(default_factory=PollPolicy)
    clock: VirtualClock = field(default_factory=VirtualClock)
    account: Account = field(default_factory=Account)
    delivering: bool = True
    asking: bool = False
    is_leader: bool = True
    dice: Rng = field(default_factory=lambda: Rng(7))

    def __post_init__(self) -> None:
        for person_id in range(1, self.people + 1):
            self.account.add(person_id, updated=EPOCH - timedelta(days=1, seconds=person_id))
        self.api = AccountFeed(self.account)
        self.memory = Memory(clock=self.clock, keep_snapshots=False)
        self.stop = asyncio.Event()
        self.poll_now = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.subscribe()
        self.start()

    def subscribe(self, status: str = "Active") -> None:
        for number, event in enumerate(SUBSCRIBED_EVENTS, start=1):
            self.api.registry[number] = Subscription(number, event, f"{PUBLIC}/webhook/fub", status)

    def start(self) -> None:
        """Build the parts anew over the same memory, as a restart does."""
        self.metrics = Metrics(CollectorRegistry())
        self.poller = Poller(
            api=self.api,
            ingestor=self.memory,
            state=self.memory,
            clock=self.clock,
            metrics=self.metrics,
            policy=self.policy,
            subscriptions=SubscriptionManager(self.api, self.metrics, public_url=PUBLIC, manage=True, lease=LocalLease()),
            jitter=self.dice.random,
            is_leader=lambda: self.is_leader,
            refetch_requested=self.memory.refetch_requested,
            poll_now=self.poll_now,
        )

    def run(self) -> None:
        self.stop = asyncio.Event()
        self.tasks = [asyncio.create_task(self.poller.run(self.stop)), asyncio.create_task(self.poller.run_refetches(self.stop))]

    async def end(self) -> None:
        self.stop.set()
        await asyncio.gather(*self.tasks)

    async def passes(self, seconds: float) -> None:
        await self.clock.pause(seconds)

    def move(self, stage: str | None = None, *, who: int | None = None) -> int:
        """Let somebody enter another stage; FUB tells it when webhooks get through."""
        person_id = who or self.dice.choice(self.account.ids)
        present = self.account.people[person_id].stage
        stage = stage or self.dice.choice([name for name in ("Lead", "Nurture", "Offer", "Closed") if name != present])
        self.account.move(person_id, stage)
        subscribed = any(hook.event == "peopleStageUpdated" and hook.status == "Active" for hook in self.api.registry.values())
        if self.delivering and subscribed:
            self.memory.webhook(person_id, stage)
            if self.asking:
                self.memory.webhook(person_id, None)
        return person_id

    async def lives(self, seconds: float, *, every: float) -> None:
        """Let people move, one each `every` seconds."""
        end = true_time() + timedelta(seconds=seconds)
        while true_time() < end:
            await self.passes(every)
            self.move()

    @property
    def modes(self) -> list[str]:
        return [record.mode for record in self.memory.modes]

    @property
    def coverage(self) -> datetime:
        assert self.memory.cover.watermark is not None
        return self.memory.cover.watermark

    def uncovered(self) -> list[int]:
        """Give people whose stage before coverage is not what was recorded: there must be none."""
        latest = {person_id: (stage, at) for person_id, stage, at in self.account.moves if at < self.coverage}
        return [
            person_id for person_id, (_, at) in latest.items() if person_id not in self.account.deleted and not self._seen(person_id, at)
        ]

    def _seen(self, person_id: int, at: datetime) -> bool:
        known = self.memory.known.get(person_id)
        return known is not None and known.updated >= at.replace(microsecond=0)

    def switches_counted(self) -> float:
        """Give how many switches this process's metric counts."""
        return sum(self.sample("mode_changes_total", to=mode) for mode in ("starting", "steady", "watch", "failover", "recovering"))

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"fubd_{name}", labels) or 0.0
