"""Each alert, by the real fault: a simulated account, the daemon as a process, its database, and a real Prometheus with our rules.

The rules' times are divided by 600, so that an hour lasts six seconds; settings shorten the daemon's own times. For what takes days, the
test moves instants in the database into the past. Each daemon is a Prometheus job of its own, so that one Prometheus watches the faults of
many daemons at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import cycle
from pathlib import Path

import pytest

from fubd.core.pacing import Policy
from fubd.poller import PollPolicy
from fubd.simulator import Faults, Oddity
from tests.deploy.scaled import scaled
from tests.deploy.test_rules import ALERTS, RULES
from tests.grafana.dashboards import without_data
from tests.grafana.prometheus import firing, prometheus, value
from tests.stack import Stack, running_stack
from tests.support.alert_receiver import receiving
from tests.support.databases import Databases
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

_BY = 600
_SHORTEST_RANGE_SECONDS = 3.0
_RAISED_WITHIN_SECONDS = 60.0
# Longer than any test.
_NEVER = "900"
_PATIENT = {"FUBD_MISSED_AFTER": _NEVER, "FUBD_WEBHOOK_STALE_AFTER": _NEVER, "FUBD_POLL_STALE_AFTER": _NEVER}


@dataclass
class Watch:
    """What Prometheus reports about one daemon. `raised`: every alert that was expected and fired."""

    url: str
    job: str
    raised: set[str] = field(default_factory=set)

    async def shows(self, *alerts: str) -> None:
        """Wait until these alerts fire for this daemon, and no others."""

        async def exactly() -> bool:
            found = await firing(self.url, job=self.job)
            assert found == set(alerts), f"{self.job}: {sorted(found)} instead of {sorted(alerts)}"
            return True

        await eventually(exactly, _RAISED_WITHIN_SECONDS)
        self.raised |= set(alerts)

    async def shows_everywhere(self) -> None:
        """Wait until every panel of the dashboard shows data of the last minutes."""

        async def all_show() -> bool:
            assert await without_data(self.url, rate_interval="4s", shown_seconds=120.0) == []
            return True

        await eventually(all_show, _RAISED_WITHIN_SECONDS)

    async def shows_nothing(self) -> None:
        """Wait until this daemon was scraped for some seconds and no alert fires."""

        async def watched() -> bool:
            return await value(self.url, f'sum_over_time(up{{job="{self.job}"}}[4s])') >= 3

        await eventually(watched, _RAISED_WITHIN_SECONDS)
        await self.shows()


def moves(stack: Stack) -> Iterator[None]:
    """Move one person at each step, a different one each time."""
    stages = {person: cycle(("Nurture", "ACQ - Qualified")) for person in stack.account.ids}
    for person in cycle(stack.account.ids):
        while not stack.account.move(person, next(stages[person])):
            pass
        yield


@asynccontextmanager
async def moving(stack: Stack) -> AsyncIterator[None]:
    """Move people, so that webhooks arrive, until the block ends."""

    async def go_on() -> None:
        for _ in moves(stack):
            await asyncio.sleep(0.3)

    async with _in_background(go_on()):
        yield


@asynccontextmanager
async def forging(stack: Stack) -> AsyncIterator[None]:
    """Send deliveries with a wrong signature until the block ends."""

    async def go_on() -> None:
        while True:
            assert (await stack.post(b"{}", signature="0" * 64))[0] == HTTPStatus.UNAUTHORIZED
            # The alert needs seven a second.
            await asyncio.sleep(0.01)

    async with _in_background(go_on()):
        yield


@asynccontextmanager
async def _in_background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def receive_webhooks(stack: Stack, watch: Watch, *, times: int = 1) -> None:
    """Let webhooks arrive, and wait until no alert fires."""
    for _, _ in zip(range(times), moves(stack), strict=False):
        await stack.simulator.deliveries.drain()
    await eventually(lambda: stack.fetch("SELECT FROM fubd.delivery"))
    await watch.shows_nothing()


# --- The daemons and their faults ------------------------------------------------------------------------------------


async def webhook_route(stack: Stack, watch: Watch, _proxy: Proxy) -> None:
    """Unreadable deliveries, a wrong key, a spike of forged requests; then fubd is killed."""
    async with stack.ready_daemon(**_PATIENT) as process:
        await receive_webhooks(stack, watch)
        assert (await stack.post(b"{}"))[0] == HTTPStatus.OK
        await watch.shows("FubdDeliveryQuarantined")
        await watch.shows("FubdQuarantineNotEmpty")
        await stack.fetch("UPDATE fubd.delivery SET quarantine = NULL")
        await watch.shows_nothing()
        stack.simulator.faults = Faults(forged=1.0)
        for _, _ in zip(range(4), moves(stack), strict=False):
            await stack.simulator.deliveries.drain()
        stack.simulator.faults = Faults()
        await watch.shows("FubdSigningKeyWrong")
        await watch.shows_nothing()
        async with moving(stack), forging(stack):
            await watch.shows("FubdForgedDeliveries")
        process.kill()
        await process.ended()
        await watch.shows("FubdGone")


async def failover(stack: Stack, watch: Watch, _proxy: Proxy) -> None:
    """Webhooks no longer arrive; then their subscription is disabled, and fubd is not allowed to repair it."""
    for event in ("peopleStageUpdated", "peopleCreated", "peopleDeleted"):
        stack.simulator.subscribe(event, f"{stack.url}/webhook/fub")
    async with stack.ready_daemon(FUBD_MANAGE_WEBHOOKS="false", FUBD_WEBHOOK_STALE_AFTER=_NEVER):
        await receive_webhooks(stack, watch, times=10)
        stack.simulator.deliveries.kill()
        next(moves(stack))
        await watch.shows("FubdFailoverEntered")
        await watch.shows("FubdFailoverEntered", "FubdFailoverLasting")
        stack.simulator.registry.disable(stack.simulator.registry.active("peopleStageUpdated")[0])
        await watch.shows("FubdFailoverEntered", "FubdFailoverLasting", "FubdSubscriptionInactive")
        await watch.shows_everywhere()


async def silence(stack: Stack, watch: Watch, _proxy: Proxy) -> None:
    """Nothing happens for a while, then for a day; one person was not verified for two months."""
    async with stack.ready_daemon(FUBD_WEBHOOK_STALE_AFTER="8", FUBD_SCRUB_BATCHES="0"):
        await receive_webhooks(stack, watch)
        await watch.shows("FubdWebhookStale")
        await stack.fetch("UPDATE fubd.delivery SET received_at = received_at - interval '1 day'")
        await watch.shows("FubdWebhookStale", "FubdWebhookSilentForADay")
        await stack.fetch(
            "UPDATE fubd.person SET verified_at = now() - interval '60 days', scrub_after = now() - interval '60 days' WHERE id = $1",
            stack.account.ids[-1],
        )
        await watch.shows("FubdWebhookStale", "FubdWebhookSilentForADay", "FubdCompletenessOld")


async def without_fub(stack: Stack, watch: Watch, _proxy: Proxy) -> None:
    """The API fails; then webhooks are silent too, and no source works."""
    quick = {"FUBD_POLL_INTERVAL": "6", "FUBD_POLL_INTERVAL_WATCH": "6", "FUBD_POLL_STALE_AFTER": "8", "FUBD_WEBHOOK_STALE_AFTER": "10"}
    async with stack.ready_daemon(**quick):
        async with moving(stack):
            await receive_webhooks(stack, watch)
            stack.simulator.faults = Faults(server_error=1.0)
            await watch.shows("FubdPollingStale")
            await watch.shows("FubdPollingStale", "FubdCoverageOld")
        await watch.shows("FubdPollingStale", "FubdCoverageOld", "FubdWebhookStale", "FubdBlind")


async def refused(stack: Stack, watch: Watch, _proxy: Proxy) -> None:
    """FUB's clock differs, a person has no stage, the table refuses rows, the key is revoked, and a dead instance holds the lease."""
    async with stack.ready_daemon(**_PATIENT, FUBD_POLL_INTERVAL_WATCH="0.5"):
        await receive_webhooks(stack, watch)
        stack.simulator.clock.shift(120)
        await watch.shows("FubdClockSkew")
        stack.simulator.clock.shift(-120)
        await watch.shows_nothing()
        odd = stack.account.ids[-1]
        stack.simulator.conditions.oddities[odd] = Oddity.NULL_STAGE
        await watch.shows("FubdProblem")
        stack.simulator.conditions.oddities.clear()
        stack.account.move(odd, "Nurture")
        await watch.shows_nothing()
        await stack.fetch("ALTER TABLE public.stage_changes ADD note text NOT NULL DEFAULT ''")
        await stack.fetch("ALTER TABLE public.stage_changes ALTER note DROP DEFAULT")
        await watch.shows("FubdNotRecording")
        await stack.fetch("ALTER TABLE public.stage_changes DROP note")
        await watch.shows_nothing()
        stack.simulator.keys.revoke("invented-api-key")
        await watch.shows("FubdKeyRefused")
        stack.simulator.keys.add("invented-api-key")
        await watch.shows_nothing()
        await stack.fetch("UPDATE fubd.lease SET holder = 'dead', expires_at = now() + interval '1 hour'")
        await watch.shows("FubdLeaseNotHeld")


async def without_database(stack: Stack, watch: Watch, proxy: Proxy) -> None:
    """The database is down while webhooks arrive; later a delivery that was answered 200 is missing."""
    async with stack.ready_daemon(**_PATIENT, FUBD_POLL_INTERVAL="60", FUBD_POLL_INTERVAL_WATCH="60"):
        await receive_webhooks(stack, watch, times=60)
        await proxy.refuse()
        await proxy.cut()
        async with moving(stack):
            await watch.shows("FubdDatabaseDown", "FubdWebhookFailureRatioRising")
            await watch.shows("FubdDatabaseDown", "FubdWebhookFailureRatioRising", "FubdWebhookFailureRatioHigh")
        await watch.shows("FubdDatabaseDown", "FubdWebhookFailureRatioHigh")
        await proxy.accept()
        await watch.shows("FubdWebhookFailureRatioHigh")
        stack.tampered = True
        await stack.fetch("DELETE FROM fubd.delivery WHERE id = (SELECT min(id) FROM fubd.delivery)")
        await watch.shows("FubdWebhookFailureRatioHigh", "FubdLedgerImbalance")


async def tampered(stack: Stack, watch: Watch, _proxy: Proxy) -> None:
    """Another program writes into the table, both sources miss changes, and a row is changed by hand."""
    async with stack.ready_daemon(**_PATIENT, FUBD_POLL_INTERVAL="12") as process:
        person, twice = stack.account.ids[-2:]
        for stage in ("Nurture", "Lead"):
            stack.account.move(twice, stage)
            await stack.simulator.deliveries.drain()
        await receive_webhooks(stack, watch)
        await stack.fetch(
            "INSERT INTO stage_changes (person_id, stage_from, stage_to, changed_at, received_at, source)"
            " VALUES ($1, NULL, $2, now(), now(), 'wh_peopleUpdated')",
            str(person),
            stack.account.stage_of(person),
        )
        await watch.shows("FubdForeignRows")
        await watch.shows_nothing()
        stack.simulator.deliveries.kill()
        # FUB dates these changes before everything that a poll looks back at: only the scrub finds them.
        stack.simulator.clock.shift(-1_200)
        for person in stack.account.ids[10:20]:
            stack.account.move(person, "Nurture")
        stack.simulator.clock.shift(1_200)
        await watch.shows("FubdCompletenessLow")
        process.terminate()
        assert await process.ended() == 0
    stack.tampered = True
    await stack.fetch("UPDATE stage_changes SET stage_from = 'Trash' WHERE person_id = $1 AND stage_to = 'Lead'", str(twice))
    # The chain is checked at the start and every minute.
    async with stack.daemon(**_PATIENT):
        await watch.shows("FubdChainViolations")


async def never_heard(stack: Stack, watch: Watch, _proxy: Proxy) -> None:
    """No webhook ever arrives; when many do, the receiver of alerts refuses them."""
    async with receiving() as receiver, stack.ready_daemon(**_PATIENT, FUBD_ALERT_URL=receiver.url, FUBD_ALERT_STAGES='["Nurture"]'):
        await watch.shows("FubdSourceNeverHeard")
        stack.account.bulk_move(stack.account.ids, "ACQ - Qualified")
        await watch.shows_nothing()
        receiver.answers.extend([HTTPStatus.INTERNAL_SERVER_ERROR] * 1_000)
        stack.account.bulk_move(stack.account.ids, "Nurture")
        # Refused for days: fubd gives up.
        await eventually(lambda: stack.fetch("SELECT FROM fubd.alert"))
        await stack.fetch("UPDATE fubd.alert SET made_at = made_at - interval '4 days'")
        await watch.shows("FubdAlertsUndelivered")


SCENARIOS: dict[str, Callable[[Stack, Watch, Proxy], Coroutine[None, None, None]]] = {
    "fubd": webhook_route,
    "failover": failover,
    "silence": silence,
    "without_fub": without_fub,
    "refused": refused,
    "without_database": without_database,
    "tampered": tampered,
    "never_heard": never_heard,
}


def _without_overlap(rules: str) -> str:
    """Add the overlap of a minute, which is not a setting, to coverage, so that its age is that of the poll."""
    overlap = PollPolicy(pacing=Policy()).overlap_seconds
    assert rules.count("(fubd_coverage_timestamp_seconds > 0)") == 1
    return rules.replace("(fubd_coverage_timestamp_seconds > 0)", f"(fubd_coverage_timestamp_seconds + {overlap:g} > {overlap:g})")


async def test_every_alert_is_raised_by_its_fault(databases: Databases, tmp_path: Path) -> None:
    """A healthy daemon raises nothing, each fault its own alert and no other; every alert is tried; every panel shows data."""
    async with AsyncExitStack() as exit_stack:
        stacks, proxies = {}, {}
        for job in SCENARIOS:
            database = await exit_stack.enter_async_context(databases.migrated())
            proxies[job] = await exit_stack.enter_async_context(Proxy(database))
            (tmp_path / job).mkdir()
            stacks[job] = await exit_stack.enter_async_context(
                running_stack(database, tmp_path / job, people=60, daemon_dsn=proxies[job].dsn)
            )
        rules = scaled(_without_overlap(RULES.read_text()), by=_BY, shortest_range_seconds=_SHORTEST_RANGE_SECONDS)
        targets = {job: f"127.0.0.1:{stack.port}" for job, stack in stacks.items()}
        url = await exit_stack.enter_async_context(prometheus(tmp_path / "prometheus", targets=targets, rules=rules))
        watches = {job: Watch(url, job) for job in SCENARIOS}
        async with asyncio.TaskGroup() as group:
            for job, scenario in SCENARIOS.items():
                group.create_task(scenario(stacks[job], watches[job], proxies[job]))
        assert set().union(*(watch.raised for watch in watches.values())) == {alert["alert"] for alert in ALERTS}
