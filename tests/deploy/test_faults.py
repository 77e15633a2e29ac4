"""Each alert, by the real fault: a simulated account, the daemon as a process, its database, and a real Prometheus with our rules.

The rules' times are divided by 600, so that an hour lasts six seconds; the daemon's own times are made short by its settings. What takes
days is brought about in the database: what the daemon kept there is moved into the past, as if it had been kept so long ago. Each house is
a job of its own, so that many faults of many houses are watched by one Prometheus, side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import cycle
from pathlib import Path

from aiohttp import web

from fubd.core.pacing import Policy
from fubd.poller import PollPolicy
from fubd.simulator import Faults
from tests.deploy.scaled import scaled
from tests.deploy.test_rules import ALERTS, RULES
from tests.grafana.dashboards import without_data
from tests.grafana.prometheus import firing, prometheus, value
from tests.stack import Stack, running_stack
from tests.support.databases import Databases
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

_BY = 600
_SHORTEST_RANGE_SECONDS = 3.0
_RAISED_WITHIN_SECONDS = 60.0
# Long enough never to come in a test.
_NEVER = "900"
_PATIENT = {"FUBD_MISSED_AFTER": _NEVER, "FUBD_WEBHOOK_STALE_AFTER": _NEVER, "FUBD_POLL_STALE_AFTER": _NEVER}


@dataclass
class Watch:
    """What a Prometheus says of one house. `raised`: every alert that fired when it was waited for."""

    url: str
    job: str
    raised: set[str] = field(default_factory=set)

    async def shows(self, *alerts: str) -> None:
        """Wait until these alerts fire for this house, and no others."""

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

    async def quiet(self) -> None:
        """Wait until this house has been watched for some seconds, and nothing fires."""

        async def watched() -> bool:
            return await value(self.url, f'sum_over_time(up{{job="{self.job}"}}[4s])') >= 3

        await eventually(watched, _RAISED_WITHIN_SECONDS)
        await self.shows()


@dataclass
class Receiver:
    """Where alerts go; answers `status`."""

    url: str = ""
    status: int = HTTPStatus.OK

    async def post(self, _request: web.Request) -> web.Response:
        """Take an alert, or not."""
        return web.Response(status=self.status)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Serve a receiver until the block ends."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/", receiver.post)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def moves(built: Stack) -> Iterator[None]:
    """Move somebody at each step, each time somebody else."""
    stages = {person: cycle(("Nurture", "ACQ - Qualified")) for person in built.account.ids}
    for person in cycle(built.account.ids):
        while not built.account.move(person, next(stages[person])):
            pass
        yield


@asynccontextmanager
async def moving(built: Stack) -> AsyncIterator[None]:
    """Keep people moving, and their webhooks coming, until the block ends."""

    async def go_on() -> None:
        for _ in moves(built):
            await asyncio.sleep(0.3)

    async with _beside(go_on()):
        yield


@asynccontextmanager
async def forging(built: Stack) -> AsyncIterator[None]:
    """Keep sending what is signed wrongly until the block ends."""

    async def go_on() -> None:
        while True:
            assert (await built.post(b"{}", signature="0" * 64))[0] == HTTPStatus.UNAUTHORIZED

    async with _beside(go_on()):
        yield


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def heard(built: Stack, watch: Watch, *, times: int = 1) -> None:
    """Let webhooks arrive, and wait until nothing fires: all is well."""
    for _, _ in zip(range(times), moves(built), strict=False):
        await built.simulator.deliveries.drain()
    await eventually(lambda: built.fetch("SELECT FROM fubd.delivery"))
    await watch.quiet()


# --- The houses and their faults -------------------------------------------------------------------------------------


async def door(built: Stack, watch: Watch, _proxy: Proxy) -> None:
    """What comes to the door: unreadable deliveries, a wrong key, a spike of forgeries; and then fubd is gone."""
    async with built.ready_daemon(**_PATIENT) as process:
        await heard(built, watch)
        assert (await built.post(b"{}"))[0] == HTTPStatus.OK
        await watch.shows("FubdDeliveryQuarantined")
        await watch.shows("FubdQuarantineNotEmpty")
        await built.fetch("UPDATE fubd.delivery SET quarantine = NULL")
        await watch.quiet()
        built.simulator.faults = Faults(forged=1.0)
        for _, _ in zip(range(4), moves(built), strict=False):
            await built.simulator.deliveries.drain()
        built.simulator.faults = Faults()
        await watch.shows("FubdSigningKeyWrong")
        await watch.quiet()
        async with moving(built), forging(built):
            await watch.shows("FubdForgedDeliveries")
        process.kill()
        await process.ended()
        await watch.shows("FubdGone")


async def failover(built: Stack, watch: Watch, _proxy: Proxy) -> None:
    """Webhooks stop telling, and at last their subscription is disabled where fubd may not put it right."""
    for event in ("peopleStageUpdated", "peopleCreated", "peopleDeleted"):
        built.simulator.subscribe(event, f"{built.url}/webhook/fub")
    async with built.ready_daemon(FUBD_MANAGE_WEBHOOKS="false", FUBD_WEBHOOK_STALE_AFTER=_NEVER):
        await heard(built, watch, times=10)
        built.simulator.deliveries.kill()
        next(moves(built))
        await watch.shows("FubdFailoverEntered")
        await watch.shows("FubdFailoverEntered", "FubdFailoverLasting")
        built.simulator.registry.disable(built.simulator.registry.active("peopleStageUpdated")[0])
        await watch.shows("FubdFailoverEntered", "FubdFailoverLasting", "FubdSubscriptionInactive")
        await watch.shows_everywhere()


async def silence(built: Stack, watch: Watch, _proxy: Proxy) -> None:
    """Nothing happens any more: for a while, for a day, and somebody is verified no more for two months."""
    async with built.ready_daemon(FUBD_WEBHOOK_STALE_AFTER="8", FUBD_SCRUB_BATCHES="0"):
        await heard(built, watch)
        await watch.shows("FubdWebhookStale")
        await built.fetch("UPDATE fubd.delivery SET received_at = received_at - interval '1 day'")
        await watch.shows("FubdWebhookStale", "FubdWebhookSilentForADay")
        await built.fetch(
            "UPDATE fubd.person SET verified_at = now() - interval '60 days', scrub_after = now() - interval '60 days' WHERE id = $1",
            built.account.ids[-1],
        )
        await watch.shows("FubdWebhookStale", "FubdWebhookSilentForADay", "FubdCompletenessOld")


async def without_fub(built: Stack, watch: Watch, _proxy: Proxy) -> None:
    """The API fails; then webhooks fall silent too, and nobody watches."""
    quick = {"FUBD_POLL_INTERVAL": "6", "FUBD_POLL_INTERVAL_WATCH": "6", "FUBD_POLL_STALE_AFTER": "8", "FUBD_WEBHOOK_STALE_AFTER": "10"}
    async with built.ready_daemon(**quick):
        async with moving(built):
            await heard(built, watch)
            built.simulator.faults = Faults(server_error=1.0)
            await watch.shows("FubdPollingStale")
            await watch.shows("FubdPollingStale", "FubdCoverageOld")
        await watch.shows("FubdPollingStale", "FubdCoverageOld", "FubdWebhookStale", "FubdBlind")


async def refused(built: Stack, watch: Watch, _proxy: Proxy) -> None:
    """FUB's clock is another, its owner revokes the key, and a holder that died keeps the lease."""
    async with built.ready_daemon(**_PATIENT, FUBD_POLL_INTERVAL_WATCH="0.5"):
        await heard(built, watch)
        built.simulator.clock.shift(120)
        await watch.shows("FubdClockSkew")
        built.simulator.clock.shift(-120)
        await watch.quiet()
        built.simulator.keys.revoke("invented-api-key")
        await watch.shows("FubdKeyRefused")
        await built.fetch("UPDATE fubd.lease SET holder = 'dead', expires_at = now() + interval '1 hour'")
        await watch.shows("FubdLeaseNotHeld")


async def without_database(built: Stack, watch: Watch, proxy: Proxy) -> None:
    """The database is away while webhooks come; back again, one of those answered 200 is not in it."""
    async with built.ready_daemon(**_PATIENT, FUBD_POLL_INTERVAL="60", FUBD_POLL_INTERVAL_WATCH="60"):
        await heard(built, watch, times=60)
        await proxy.refuse()
        await proxy.cut()
        async with moving(built):
            await watch.shows("FubdDatabaseDown", "FubdWebhookFailureRatioRising")
            await watch.shows("FubdDatabaseDown", "FubdWebhookFailureRatioRising", "FubdWebhookFailureRatioHigh")
        await watch.shows("FubdDatabaseDown", "FubdWebhookFailureRatioHigh")
        await proxy.accept()
        await watch.shows("FubdWebhookFailureRatioHigh")
        built.tampered = True
        await built.fetch("DELETE FROM fubd.delivery WHERE id = (SELECT min(id) FROM fubd.delivery)")
        await watch.shows("FubdWebhookFailureRatioHigh", "FubdLedgerImbalance")


async def tampered(built: Stack, watch: Watch, _proxy: Proxy) -> None:
    """Something else writes into the table, both sources miss changes, and a row is changed by hand."""
    async with built.ready_daemon(**_PATIENT, FUBD_POLL_INTERVAL="12") as process:
        person, twice = built.account.ids[-2:]
        for stage in ("Nurture", "Lead"):
            built.account.move(twice, stage)
            await built.simulator.deliveries.drain()
        await heard(built, watch)
        await built.fetch(
            "INSERT INTO stage_changes (person_id, stage_from, stage_to, changed_at, received_at, source)"
            " VALUES ($1, NULL, $2, now(), now(), 'wh_peopleUpdated')",
            str(person),
            built.account.stage_of(person),
        )
        await watch.shows("FubdForeignRows")
        await watch.quiet()
        built.simulator.deliveries.kill()
        # Changes that FUB dates before what was read already: no poll asks for them, only re-reading everybody finds them.
        built.simulator.clock.shift(-300)
        for person in built.account.ids[10:20]:
            built.account.move(person, "Nurture")
        built.simulator.clock.shift(300)
        await watch.shows("FubdCompletenessLow")
        process.terminate()
        assert await process.ended() == 0
    built.tampered = True
    await built.fetch("UPDATE stage_changes SET stage_from = 'Trash' WHERE person_id = $1 AND stage_to = 'Lead'", str(twice))
    # The chain is looked at when it starts, and every minute.
    async with built.daemon(**_PATIENT):
        await watch.shows("FubdChainViolations")


async def unheard(built: Stack, watch: Watch, _proxy: Proxy) -> None:
    """No webhook ever comes; and when many do, those who are to be told cannot be reached."""
    async with receiving() as receiver, built.ready_daemon(**_PATIENT, FUBD_ALERT_URL=receiver.url, FUBD_ALERT_STAGES='["Nurture"]'):
        await watch.shows("FubdSourceNeverHeard")
        built.account.bulk_move(built.account.ids, "ACQ - Qualified")
        await watch.quiet()
        receiver.status = HTTPStatus.INTERNAL_SERVER_ERROR
        built.account.bulk_move(built.account.ids, "Nurture")
        # Refused for days: they are given up.
        await eventually(lambda: built.fetch("SELECT FROM fubd.alert"))
        await built.fetch("UPDATE fubd.alert SET made_at = made_at - interval '4 days'")
        await watch.shows("FubdAlertsUndelivered")


SCENARIOS: dict[str, Callable[[Stack, Watch, Proxy], Coroutine[None, None, None]]] = {
    "fubd": door,
    "failover": failover,
    "silence": silence,
    "without_fub": without_fub,
    "refused": refused,
    "without_database": without_database,
    "tampered": tampered,
    "unheard": unheard,
}


def _without_overlap(rules: str) -> str:
    """Coverage stays behind the poll that it tells of by a minute, which is no setting: here an age is that of the poll."""
    overlap = PollPolicy(pacing=Policy()).overlap_seconds
    assert rules.count("(fubd_coverage_timestamp_seconds > 0)") == 1
    return rules.replace("(fubd_coverage_timestamp_seconds > 0)", f"(fubd_coverage_timestamp_seconds + {overlap:g} > {overlap:g})")


async def test_every_alert_is_raised_by_its_fault(databases: Databases, tmp_path: Path) -> None:
    """All well raises nothing, each fault its own alert and no other, and none is left untried; every panel shows data of a failover."""
    async with AsyncExitStack() as stack:
        houses, proxies = {}, {}
        for job in SCENARIOS:
            database = await stack.enter_async_context(databases.migrated())
            proxies[job] = await stack.enter_async_context(Proxy(database))
            (tmp_path / job).mkdir()
            houses[job] = await stack.enter_async_context(running_stack(database, tmp_path / job, people=60, daemon_dsn=proxies[job].dsn))
        rules = scaled(_without_overlap(RULES.read_text()), by=_BY, shortest_range_seconds=_SHORTEST_RANGE_SECONDS)
        targets = {job: f"127.0.0.1:{built.port}" for job, built in houses.items()}
        url = await stack.enter_async_context(prometheus(tmp_path / "prometheus", targets=targets, rules=rules))
        watches = {job: Watch(url, job) for job in SCENARIOS}
        async with asyncio.TaskGroup() as group:
            for job, scenario in SCENARIOS.items():
                group.create_task(scenario(houses[job], watches[job], proxies[job]))
        assert set().union(*(watch.raised for watch in watches.values())) == {alert["alert"] for alert in ALERTS}
