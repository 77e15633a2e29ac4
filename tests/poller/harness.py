"""A daemon's poller, refetcher and subscriptions over a fake account and a fake database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd.core.stored_state import ModeRecord
from fubd.core.subscriptions import Subscription
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.poller import PollContext, Poller, PollPolicy, Refetcher, UnreadPeople
from fubd.problems import Problems
from fubd.simulator.rng import Rng
from fubd.subscriptions import NoWebhookHosts, SubscriptionManager
from tests.poller.fake_database import FakeDatabase
from tests.poller.fake_fub import FakeAccount, FakeFubApi
from tests.support.virtual_time import EPOCH, VirtualClock, run_virtual, true_time

PUBLIC_URL = "https://fubd.example.net"


@dataclass
class PollerHarness:
    """An account with its people, and a daemon's polling parts over one database.

    `webhooks_arrive`: whether webhooks reach the daemon. `refetches`: whether each stage webhook also requests a refetch, for the names.
    """

    people: int = 500
    policy: PollPolicy = field(default_factory=PollPolicy)
    clock: VirtualClock = field(default_factory=VirtualClock)
    account: FakeAccount = field(default_factory=FakeAccount)
    webhooks_arrive: bool = True
    refetches: bool = False
    lease: LocalLease = field(default_factory=LocalLease)
    rng: Rng = field(default_factory=lambda: Rng(7))

    def __post_init__(self) -> None:
        for person_id in range(1, self.people + 1):
            self.account.add(person_id, updated=EPOCH - timedelta(days=1, seconds=person_id))
        self.api = FakeFubApi(self.account)
        self.database = FakeDatabase(clock=self.clock, keep_snapshots=False)
        self.announced: list[tuple[str, object]] = []
        self.stop = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.register_webhooks()
        self.build()

    def register_webhooks(self, status: str = "Active") -> None:
        """Register our webhooks with this status."""
        for number, event in enumerate(SUBSCRIBED_EVENTS, start=1):
            self.api.registry[number] = Subscription(number, event, f"{PUBLIC_URL}/webhook/fub", status)

    def build(self) -> None:
        """Build the daemon's parts over the same database, as a restart does."""
        self.metrics = Metrics(CollectorRegistry())
        self.problems = Problems(self.clock, self.metrics)
        unread = UnreadPeople(self.database, self.clock, self.metrics, self.problems)
        self.context = PollContext(self.api, self.database, self.database, self.clock, self.metrics, unread, self.policy)
        self.refetcher = Refetcher(self.context, lease=self.lease, refetch_requested=self.database.refetch_requested)
        self.poller = Poller(
            self.context,
            lease=self.lease,
            subscriptions=SubscriptionManager(
                self.api,
                self.metrics,
                Problems(self.clock, self.metrics),
                NoWebhookHosts(),
                self.clock,
                public_url=PUBLIC_URL,
                manage=True,
                lease=LocalLease(),
            ),
            problems=self.problems,
            webhook_recorded=self.database.webhook_recorded,
            jitter=self.rng.random,
            on_mode_change=self._on_mode_change,
        )

    def _on_mode_change(self, record: ModeRecord, evidence: Mapping[str, object]) -> None:
        self.announced.append((record.mode, evidence["missed"]))

    def start(self) -> None:
        """Start the loops."""
        self.stop = asyncio.Event()
        self.tasks = [asyncio.create_task(self.poller.run(self.stop)), asyncio.create_task(self.refetcher.run(self.stop))]

    async def end(self) -> None:
        """Stop the loops."""
        self.stop.set()
        await asyncio.gather(*self.tasks)

    async def restart(self) -> None:
        """Stop the loops, build the parts again and start them."""
        await self.end()
        self.build()
        self.start()

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.pause(seconds)

    def move(self, stage: str | None = None, *, person_id: int | None = None) -> int:
        """Move a person to another stage, by default a random one; FUB reports it when webhooks arrive. Return the person's id."""
        person_id = person_id or self.rng.choice(self.account.ids)
        current = self.account.people[person_id].stage
        stage = stage or self.rng.choice([name for name in ("Lead", "Nurture", "Offer", "Closed") if name != current])
        self.account.move(person_id, stage)
        subscribed = any(hook.event == "peopleStageUpdated" and hook.status == "Active" for hook in self.api.registry.values())
        if self.webhooks_arrive and subscribed:
            self.database.webhook(person_id, stage)
            if self.refetches:
                self.database.webhook(person_id, None)
        return person_id

    async def move_people(self, seconds: float, *, every_seconds: float) -> None:
        """Move one person every `every_seconds` for this long."""
        end = true_time() + timedelta(seconds=seconds)
        while true_time() < end:
            await self.wait(every_seconds)
            self.move()

    @property
    def modes(self) -> list[str]:
        """The stored modes, oldest first."""
        return [record.mode for record in self.database.modes]

    @property
    def coverage(self) -> datetime:
        """The stored coverage."""
        assert self.database.stored_coverage.watermark is not None
        return self.database.stored_coverage.watermark

    def unrecorded(self) -> list[int]:
        """Return people who moved before coverage and were not read since: there must be none."""
        latest = {person_id: at for person_id, _, at in self.account.moves if at < self.coverage}
        return [person_id for person_id, at in latest.items() if person_id not in self.account.deleted and not self._is_read(person_id, at)]

    def _is_read(self, person_id: int, at: datetime) -> bool:
        known = self.database.known.get(person_id)
        return known is not None and known.updated >= at.replace(microsecond=0)

    def mode_changes_counted(self) -> float:
        """Return how many changes of mode this process's metric counts."""
        return sum(self.sample("mode_changes_total", to=mode) for mode in ("starting", "steady", "watch", "failover", "recovering"))

    def sample(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(f"fubd_{name}", labels) or 0.0


def run_scenario(
    scenario: Callable[[PollerHarness], Awaitable[None]], *, people: int = 500, policy: PollPolicy | None = None, started: bool = True
) -> None:
    """Run a scenario in virtual time, by default after the first start; at its end everything before coverage must be recorded."""

    async def run() -> None:
        harness = PollerHarness(people=people, policy=policy or PollPolicy())
        if started:
            harness.start()
            await harness.wait(1)
        await scenario(harness)
        await harness.end()
        if harness.database.stored_coverage.watermark is not None:
            assert harness.unrecorded() == []

    run_virtual(run())
