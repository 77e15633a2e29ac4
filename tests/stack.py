"""A whole stack for a test: a simulated account, a database, and the real daemon process between them; all on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import asyncpg
from prometheus_client.parser import text_string_to_metric_families

from fubd.simulator import Account, Behaviour, Score, SimClock, Simulator, score
from fubd.store.dsn import parse
from tests.support.ports import free_port
from tests.support.process import Process, fubd
from tests.support.waiting import eventually

KEY = "invented-system-key"

STAGES = ("Lead", "ACQ - Qualified", "ACQ - Offers Made", "Nurture", "ACQ - Contract Sent")

# Seconds instead of minutes, in the same proportions as the defaults.
QUICK = {
    "FUBD_POLL_INTERVAL": "6",
    "FUBD_POLL_INTERVAL_WATCH": "2",
    "FUBD_POLL_INTERVAL_FAILOVER": "0.5",
    "FUBD_WEBHOOK_STALE_AFTER": "20",
    "FUBD_POLL_STALE_AFTER": "15",
    "FUBD_MISSED_AFTER": "1",
}
# A busy machine that starts many daemons at once takes most of a minute for the last of them.
_READY_WITHIN_SECONDS = 120.0


@dataclass
class Stack:
    """A simulated account, a database, and the settings of the daemon. `port` is the daemon's.

    `tampered`: the test changed the daemon's tables by hand, so the ledger and the chain are not checked at the end. `forked`: daemons are
    forks of a process that has imported fubd, which changes how much memory they have.
    """

    account: Account
    simulator: Simulator
    port: int
    environ: dict[str, str]
    database: str
    folder: Path
    tampered: bool = False
    forked: bool = True

    @property
    def url(self) -> str:
        """The base URL of the daemon."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def daemon(self, **more: str) -> AsyncIterator[Process]:
        """Run the daemon until the block ends. If it still runs then, its ledger and its chain gauges must be 0."""
        async with fubd(environ={**self.environ, **more}, folder=self.folder, forked=self.forked) as process:
            yield process
            if process.code is None and not self.tampered:
                await self._assert_invariants()

    async def _assert_invariants(self) -> None:
        # A daemon that does not listen yet, is suspended, or requires a token shows no metrics.
        with suppress(aiohttp.ClientError, TimeoutError, KeyError):
            async with asyncio.timeout(5.0):
                metrics = await self.metrics()
            # NaN: not measured yet.
            assert all(metrics[name] == 0 or isnan(metrics[name]) for name in ("fubd_ledger_imbalance", "fubd_chain_violations"))

    def second_instance(self) -> Stack:
        """Return the settings of a second instance on the same database: another port, everything else the same."""
        port = free_port()
        return replace(self, port=port, environ={**self.environ, "PORT": str(port)})

    @asynccontextmanager
    async def ready_daemon(self, **more: str) -> AsyncIterator[Process]:
        """Run the daemon until the block ends, which starts once the account was read and our webhooks are registered."""
        async with self.daemon(**more) as process:
            await process.answers(f"{self.url}/readyz", within_seconds=_READY_WITHIN_SECONDS)
            await eventually(self.is_covered, _READY_WITHIN_SECONDS)
            yield process

    async def is_covered(self) -> bool:
        """Return whether the account was read and our webhooks are registered."""
        health = await self.get("/health")
        return health["coverage"] is not None and "active" in health["subscriptions"].values()

    async def get(self, path: str) -> dict[str, Any]:
        """Return a JSON document of the daemon."""
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            document: dict[str, Any] = await answer.json()
            return document

    async def metrics(self) -> dict[str, float]:
        """Return the daemon's metrics: `name{label=value}` to value."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            answer.raise_for_status()
            text = await answer.text()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {sample.name + _labels(sample.labels): sample.value for sample in samples}

    async def post(self, body: bytes, *, signature: str | None = "", path: str = "/webhook/fub") -> tuple[int, Mapping[str, str]]:
        """Post a body to the webhook route, signed unless another signature (None: no header) is given. Return status and headers."""
        headers = {"Content-Type": "application/json"}
        if signature is not None:
            headers["FUB-Signature"] = signature or sign(body)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15.0)) as session,
            session.post(self.url + path, data=io.BytesIO(body), headers=headers) as answer,
        ):
            return answer.status, dict(answer.headers)

    async def is_balanced(self) -> bool:
        """Return whether the daemon is up and its invariants hold: the ledger and the chain gauges are 0."""
        metrics = await self.metrics()
        return (metrics["fubd_ledger_imbalance"], metrics["fubd_chain_violations"], metrics["fubd_db_up"]) == (0, 0, 1)

    async def has_mode(self, mode: str) -> bool:
        """Return whether the daemon is in this mode."""
        return bool((await self.get("/health"))["mode"] == mode)

    def move_randomly(self, rng: Random, count: int = 1, *, people: Sequence[int] | None = None) -> None:
        """Move people of the account to random other stages; with a high `count` several of them back and forth."""
        for _ in range(count):
            person = rng.choice(people or list(self.account.ids))
            self.account.move(person, rng.choice([stage for stage in STAGES if stage != self.account.stage_of(person)]))

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Run a statement on the database itself."""
        connection = await asyncpg.connect(**parse(self.database).connect_arguments())
        try:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *values)
            return rows
        finally:
            await connection.close()

    async def score(self) -> Score:
        """Compare the table with the simulator's truth."""
        rows = [dict(row) for row in await self.fetch("SELECT * FROM public.stage_changes")]
        return score(self.simulator.truth, rows, sightings=self.simulator.sightings)

    async def final_score(self, within_seconds: float = 60.0) -> Score:
        """Wait until no change is missing, and return the score; the score so far when the time is over.

        Two moves of one second, of which a webhook reported only one, are in order once a read after that second has shown the last.
        """

        async def complete() -> Score | None:
            found = await self.score()
            return found if found.captured == found.changes and not found.out_of_order else None

        try:
            return await eventually(complete, within_seconds)
        except AssertionError:
            return await self.score()


@asynccontextmanager
async def running_stack(
    database: str,
    folder: Path,
    *,
    people: int = 120,
    daemon_dsn: str | None = None,
    behaviour: Behaviour | None = None,
    forked: bool = True,
) -> AsyncIterator[Stack]:
    """Run a simulator and build a stack on a database. `daemon_dsn`: the URL the daemon uses instead, such as that of a proxy."""
    clock = SimClock(datetime.now(UTC))
    account = Account(seed=5, people=people, clock=clock)
    simulator = Simulator(account, api_key="invented-api-key", system_key=KEY, behaviour=behaviour or Behaviour())
    port = free_port()
    async with simulator.running() as api:
        environ = {
            **QUICK,
            "FUB_API_URL": api,
            "FUB_API_KEY": "invented-api-key",
            "FUB_SYSTEM_KEY": KEY,
            "DATABASE_URL": daemon_dsn or database,
            "PORT": str(port),
            "FUBD_HOST": "127.0.0.1",
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            # A test that runs at six is sent no other alert than at any other time.
            "FUBD_DAILY_SUMMARY": "off",
        }
        yield Stack(account, simulator, port, environ, database, folder, forked=forked)


def assert_perfect(found: Score) -> None:
    """Nothing is lost, doubled, invented, out of order, or dated wrongly."""
    assert found.is_perfect, found.discrepancies[:5]


def sign(body: bytes, key: str = KEY) -> str:
    """Sign a body as Follow Up Boss does."""
    return hmac.new(key.encode(), base64.b64encode(body), hashlib.sha256).hexdigest()


def event(event_id: str, stage: str, at: datetime, people: list[object], **more: object) -> bytes:
    """Write a peopleStageUpdated delivery."""
    content = {
        "eventId": event_id,
        "eventCreated": at.replace(microsecond=0).isoformat(),
        "event": "peopleStageUpdated",
        "resourceIds": people,
        "uri": "https://api.followupboss.com/v1/people?id=1",
        "data": {"stage": stage},
    }
    return json.dumps({**content, **more}).encode()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f"{name}={value}" for name, value in sorted(labels.items())) + "}"
