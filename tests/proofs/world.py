"""A simulated account and the parts of the daemon, without sockets and without Postgres, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from prometheus_client import CollectorRegistry

from fubd.client import Credentials, FubClient
from fubd.core.batch import RecordingRules
from fubd.core.observation import Delivery, Snapshot
from fubd.core.pacing import Policy
from fubd.core.problems import ProblemName
from fubd.core.vocabulary import DeliveryOutcome
from fubd.core.webhook import decode, is_webhook_route, verify
from fubd.errors import InvalidSignature, Unavailable
from fubd.ingest import Ingest
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.poller import PollContext, Poller, PollPolicy, Refetcher, UnreadPeople
from fubd.ports import SnapshotResult
from fubd.problems import Problems
from fubd.simulator import Account, SimClock, Simulator, TrueChange
from fubd.simulator.account import TRASH
from fubd.simulator.rng import Rng
from fubd.subscriptions import SubscriptionManager
from tests.proofs.memory_store import MemoryStore
from tests.proofs.transport import BASE_URL, MemoryTransport
from tests.support.virtual_time import EPOCH, VirtualClock

PUBLIC_URL = "https://fubd.example.net"
WINDOW = timedelta(seconds=300)
_INGEST_TIMEOUT_SECONDS = 5.0
# A list may trail behind a move by so much.
_SETTLED_AFTER = timedelta(minutes=15)
_API_KEY = "invented-api-key"
_SYSTEM_KEY = "invented-system-key"
_AWAY = Unavailable("the database is away")


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """What a seed decides of the daemon. `ahead_seconds`: by how much our clock is ahead."""

    people: int = 30
    ahead_seconds: float = 0.0
    policy: PollPolicy = field(default_factory=PollPolicy)


class _Process:
    """The parts of one run of the daemon."""

    def __init__(self, world: World) -> None:
        clock, store, settings = world.clock, world.store, world.settings
        metrics = Metrics(CollectorRegistry())
        self.problems = Problems(clock, metrics)
        self.stop = asyncio.Event()
        refetch_requested, webhook_recorded = asyncio.Event(), asyncio.Event()
        self.client = FubClient(
            base_url=BASE_URL,
            credentials=Credentials(_API_KEY, "fubd", _SYSTEM_KEY),
            custom_fields=("customCampaignID",),
            share=0.8,
            clock=clock,
            metrics=metrics,
            rng=Rng(world.rng.getrandbits(32)),
            open_transport=lambda headers: MemoryTransport(world.simulator.exchange, headers),
        )
        self.ingest = Ingest(
            store,
            clock,
            metrics,
            self.problems,
            rules=RecordingRules(WINDOW),
            skew_seconds=self.client.skew_seconds,
            refetch_requested=refetch_requested,
            on_new_delivery=lambda _created: webhook_recorded.set(),
        )
        lease = LocalLease()
        unread = UnreadPeople(store, clock, metrics, self.problems)
        context = PollContext(self.client, _Journal(self.ingest, world.journal), store, clock, metrics, unread, settings.policy)
        subscriptions = SubscriptionManager(
            self.client, metrics, self.problems, store, clock, public_url=PUBLIC_URL, manage=True, lease=lease
        )
        self.poller = Poller(
            context,
            lease=lease,
            subscriptions=subscriptions,
            problems=self.problems,
            webhook_recorded=webhook_recorded,
            jitter=Rng(world.rng.getrandbits(32)).random,
        )
        self.refetcher = Refetcher(context, lease=lease, refetch_requested=refetch_requested)

    async def run(self) -> None:
        """Run all parts until they are cancelled. An error of one is a bug and ends the run."""
        async with self.client, asyncio.TaskGroup() as group:
            for part in (self.ingest, self.poller, self.refetcher):
                group.create_task(part.run(self.stop))


@dataclass(frozen=True, slots=True)
class _Journal:
    """Keeps the readings that were recorded."""

    ingest: Ingest
    journal: list[Delivery | Snapshot]

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Record readings, and keep them once they are committed."""
        result = await self.ingest.observe(snapshot)
        self.journal.append(snapshot)
        return result


class World:
    """An account, a database, and a daemon that can be killed and started again."""

    def __init__(self, seed: int, settings: WorldSettings) -> None:
        self.settings = settings
        self.rng = Rng(seed)
        sim_clock = SimClock(EPOCH, source=asyncio.get_running_loop().time)
        self.account = Account(seed=seed, people=settings.people, clock=sim_clock, gaps=0.2)
        self.simulator = Simulator(self.account, api_key=_API_KEY, system_key=_SYSTEM_KEY, post=self._post)
        self.simulator.keys.add("agent-api-key", "agent")
        self.clock = VirtualClock(offset=timedelta(seconds=settings.ahead_seconds))
        self.store = MemoryStore(self.clock, on_advance=self._check_coverage, on_round=self.check_completeness)
        self.violations: list[str] = []
        # What was answered as recorded, in that order.
        self.journal: list[Delivery | Snapshot] = []
        # When something of ours was away: what only a source showed then may be lost.
        self.disturbed: list[tuple[datetime, datetime]] = []
        # When the key saw only a part of the account.
        self.is_blind: Callable[[datetime], bool] = lambda _at: False
        # How many of the true changes coverage has passed.
        self._checked = 0
        # How often completeness was stated.
        self.rounds = 0
        # Whether deleting a stage does not move `updated` of its people.
        self.hides_deleted_stages = False
        self._process: _Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.up_since: datetime | None = None

    @property
    def process(self) -> _Process:
        """The daemon that runs."""
        assert self._process is not None
        return self._process

    def has_anybody_in(self, stage: str) -> bool:
        """Return whether somebody is in this stage now."""
        return any(self.account.stage_of(person_id) == stage for person_id in self.account.ids)

    def problems(self) -> list[ProblemName]:
        """Return the problems that the daemon names now."""
        return [problem.name for problem in self.process.problems.current()]

    # --- the daemon ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon."""
        self._process = _Process(self)
        self.up_since = self.account.clock.now()
        self._task = asyncio.create_task(self._process.run())

    async def kill(self) -> None:
        """End the daemon at this instant."""
        task, self._task, self._process, self.up_since = self._task, None, None, None
        if task is None:
            return
        if not task.done():
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def restart_after(self, seconds: float) -> None:
        """Kill the daemon, and start it again after these seconds."""
        began = self.account.clock.now()
        await self.kill()
        await self.clock.pause(seconds)
        self.start()
        self.disturbed.append((began, self.account.clock.now()))

    async def lose_database(self, seconds: float) -> None:
        """Take the database away for these seconds."""
        began = self.account.clock.now()
        self.store.outage = _AWAY
        await self.clock.pause(seconds)
        self.store.outage = None
        self.disturbed.append((began, self.account.clock.now()))

    async def lose_replies(self, number: float) -> None:
        """Lose the replies to so many next transactions."""
        self.store.lost_replies += int(number)

    # --- the webhook route --------------------------------------------------------------------------------------------

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """Answer a delivery as the webhook route does; None where nobody listens."""
        process = self._process
        if process is None or not url.startswith(PUBLIC_URL) or not is_webhook_route(url.removeprefix(PUBLIC_URL)):
            return None
        try:
            verify(body, headers.get("FUB-Signature"), [_SYSTEM_KEY.encode()])
        except InvalidSignature:
            return 401
        delivery = decode(body, fub_now=process.client.fub_now())
        answer = process.ingest.submit(delivery)
        timer = asyncio.get_running_loop().call_later(_INGEST_TIMEOUT_SECONDS, _expire, answer)
        try:
            await answer
        except Unavailable:
            return 503 if process is self._process else None
        finally:
            timer.cancel()
        self.journal.append(delivery)
        return 200

    # --- the law of coverage ------------------------------------------------------------------------------------------

    def _check_coverage(self, watermark: datetime) -> None:
        """Note everybody who changed before the new coverage without any evidence as new being recorded."""
        latest: dict[int, TrueChange] = {}
        behind = timedelta(seconds=self.simulator.behaviour.list_lag_seconds + self.simulator.behaviour.replica_lag_seconds)
        for change in islice(self.account.truth.changes, self._checked, None):
            if change.at >= watermark - behind:
                break
            latest[change.person_id] = change
            self._checked += 1
        for change in latest.values():
            if not self.store.knows(change.person_id, change.at.replace(microsecond=0)) and self._is_listed(change):
                self.violations.append(f"coverage: {watermark} passes {change}")

    # --- the law of completeness --------------------------------------------------------------------------------------

    def check_completeness(self, mismatched: int) -> None:
        """Note when more people are in another stage than recorded than a round of the scrub says."""
        changes = self.account.truth.by_person()
        wrong = [person_id for person_id in self.store.people if self._is_wrong(person_id, changes.get(person_id, []))]
        self.rounds += 1
        if len(wrong) > mismatched:
            self.violations.append(f"completeness: {mismatched} people did not match, but {wrong} are wrong at {self.account.clock.now()}")

    def _is_wrong(self, person_id: int, changes: Sequence[TrueChange]) -> bool:
        """Return whether a person who has not moved since they were verified, or shortly before, is in another stage than recorded."""
        person, here, truth = self.store.people[person_id], self.store.stage_of(person_id), self.account.truth
        stage, stage_id = (changes[-1].stage_to, changes[-1].stage_to_id) if changes else (truth.start_stage(person_id), None)
        if person.gone_at is not None or person.verified_at is None or here is None:
            return False
        moved_at = max([here.since, *(change.at for change in changes[-1:])])
        return moved_at < person.verified_at - _SETTLED_AFTER and not truth.same_stage(stage, stage_id, here.stage.name)

    def is_silent(self, person_id: int, at: datetime) -> bool:
        """Return whether the change did not move `updated`. Then no poll lists it, and an unread edit before seems to be its time."""
        return self.hides_deleted_stages and any(
            change.actor == "server" and change.at == at for change in self.account.truth.of(person_id)
        )

    def _is_listed(self, change: TrueChange) -> bool:
        """Return whether a poll can be expected to show the change: the person is there, readable, and on the lists by `updated`."""
        behaviour, person_id = self.simulator.behaviour, change.person_id
        hides_trash = behaviour.lists_hide_trash or behaviour.refused_parameter == "includeTrash"
        is_hidden = hides_trash and TRASH in {one.stage_to for one in self.account.truth.of(person_id)}
        is_odd = person_id in self.simulator.conditions.oddities or self.store.is_unread(person_id)
        return self.account.has(person_id) and not (is_hidden or is_odd or self.is_silent(person_id, change.at) or self.is_blind(change.at))


def _expire(answer: asyncio.Future[DeliveryOutcome]) -> None:
    if not answer.done():
        answer.set_exception(Unavailable("not committed in time"))


def policy(*, slowness: float, failover_seconds: float, scrub_batches: int) -> PollPolicy:
    """Return the default policy with its intervals `slowness` times as long, and this one in failover."""
    usual = Policy()
    pacing = Policy(
        poll_interval_seconds=slowness * usual.poll_interval_seconds,
        watch_interval_seconds=min(slowness**2 * usual.watch_interval_seconds, slowness * usual.poll_interval_seconds / 2),
        failover_interval_seconds=failover_seconds,
        webhook_stale_after_seconds=slowness * usual.webhook_stale_after_seconds,
        poll_stale_after_seconds=slowness * usual.poll_stale_after_seconds,
    )
    return PollPolicy(pacing=pacing, scrub_batches=scrub_batches, refetch_batch_seconds=slowness * PollPolicy().refetch_batch_seconds)
