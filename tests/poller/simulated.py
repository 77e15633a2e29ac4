"""The poller over the simulated account, through the real client and real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from fubd.client import Credentials, FubClient, Timeouts
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.poller import PollContext, Poller, RecoveryResult, UnreadPeople, recover
from fubd.problems import Problems
from fubd.simulator import Account, Behaviour, Lags, SimClock, Simulator
from fubd.simulator.rng import Rng
from fubd.subscriptions import NoWebhookHosts, SubscriptionManager
from tests.poller.fake_database import FakeDatabase

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
PUBLIC_URL = "https://fubd.example.net"


@dataclass
class SimulatorHarness:
    """A simulated account, and the parts that read it."""

    account: Account
    simulator: Simulator
    database: FakeDatabase
    context: PollContext
    poller: Poller
    subscriptions: SubscriptionManager

    async def recover(self, *, full: bool = False) -> RecoveryResult:
        """Do one recovery run."""
        return await recover(self.context, full=full)

    def unrecorded(self) -> list[int]:
        """Return people who changed before coverage, still exist, and were not read since."""
        watermark = self.database.stored_coverage.watermark
        assert watermark is not None
        latest = {change.person_id: change.at for change in self.account.truth.changes if change.at < watermark}
        return [person_id for person_id, at in latest.items() if self.account.has(person_id) and not self._is_read(person_id, at)]

    def _is_read(self, person_id: int, at: datetime) -> bool:
        known = self.database.known.get(person_id)
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
) -> AsyncIterator[SimulatorHarness]:
    """Serve an account whose time runs `speed` times as fast as ours, and a poller whose clock is `ahead_seconds` ahead of it."""
    clock = SimClock(NINE, speed=speed)
    ours = clock.skewed(ahead_seconds)
    account = Account(seed=seed, people=people, clock=clock, gaps=0.3, lags=lags)
    simulator = Simulator(account, behaviour=behaviour)
    simulator.keys.add("agent-api-key", "agent")
    database, metrics = FakeDatabase(clock=ours), Metrics(CollectorRegistry())
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
            lease = LocalLease()
            subscriptions = SubscriptionManager(
                client, metrics, Problems(ours, metrics), NoWebhookHosts(), ours, public_url=PUBLIC_URL, manage=True, lease=lease
            )
            problems = Problems(ours, metrics)
            unread = UnreadPeople(database, ours, metrics, problems)
            context = PollContext(client, database, database, ours, metrics, unread)
            poller = Poller(
                context,
                lease=lease,
                subscriptions=subscriptions,
                problems=problems,
                webhook_recorded=database.webhook_recorded,
                jitter=Rng(seed + 5).random,
            )
            yield SimulatorHarness(account, simulator, database, context, poller, subscriptions)


async def change_people(account: Account, rng: Rng, *, times: int, every_seconds: float) -> None:
    """Move, edit, trash, delete and create people, one each `every_seconds`."""
    for _ in range(times):
        person_id = rng.choice(account.ids) if account.ids else account.create()
        match rng.randrange(6):
            case 0:
                account.delete(person_id)
            case 1:
                account.create()
            case 2:
                account.trash(person_id)
            case 3:
                account.edit(person_id, price=rng.randrange(1000))
            case _:
                account.move(person_id, rng.choice([stage.name for stage in account.stages]))
        await account.clock.pause(every_seconds)
