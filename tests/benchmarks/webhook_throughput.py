"""How many durable deliveries per second the webhook route takes, with two yardsticks in the same run.

`python -m tests.benchmarks.webhook_throughput [--seconds 6] [--connections 64 256] [--delay-ms 20]` needs `wrk` and the extra `test`. It
starts the real daemon on an embedded Postgres with fsync on, a bare aiohttp route that only verifies the signature, and a collector that
handles each delivery on its own connection; then the last two again with a network delay to the database. Every delivery is another event
of another second; half of the people are known. It prints ratios; absolute figures depend on the machine and its load.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg

from fubd.store.dsn import parse
from fubd.store.embedded import temporary_server
from tests.benchmarks.collectors import KEY
from tests.support.ports import free_port
from tests.support.programs import require_program
from tests.support.proxy import Proxy

_HERE = Path(__file__).parent
_STAGES = ("Lead", "Nurture", "ACQ - Qualified", "ACQ - Offers Made", "ACQ - Contract Sent", "Closed")
_PEOPLE = 20_000


@dataclass(frozen=True)
class Result:
    """The result of one load run."""

    name: str
    connections: int
    per_second: float
    p99_ms: float
    failed: int


def write_deliveries(path: Path, count: int, rng: random.Random) -> None:
    """Write signed deliveries, one per line: signature, body. One stage event each, seconds apart, random people."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=30)
    with path.open("w", encoding="ascii") as file:
        for number in range(count):
            person = rng.randrange(1, _PEOPLE)
            body = json.dumps(
                {
                    "eventId": str(uuid.UUID(int=rng.getrandbits(128))),
                    "eventCreated": (start + timedelta(seconds=number)).isoformat(),
                    "event": "peopleStageUpdated",
                    "resourceIds": [person],
                    "uri": f"https:\\/\\/api.followupboss.com\\/v1\\/people?id={person}",
                    "data": {"stage": rng.choice(_STAGES)},
                }
            )
            signature = hmac.new(KEY, base64.b64encode(body.encode()), hashlib.sha256).hexdigest()
            file.write(f"{signature} {body}\n")


async def load(name: str, port: int, deliveries: Path, *, connections: int, seconds: int) -> Result:
    """Load one server with wrk and parse its script's report."""
    script, url = str(_HERE / "deliveries.lua"), f"http://127.0.0.1:{port}"
    arguments = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, url)
    process = await asyncio.create_subprocess_exec(
        require_program("wrk"), *arguments, env={**os.environ, "DELIVERIES": str(deliveries)}, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    line = next(line for line in output.decode().splitlines() if line.startswith("RESULT"))
    requests, microseconds, bad_status, bad_socket, p99 = (int(part) for part in line.split()[1:])
    return Result(name, connections, requests / (microseconds / 1e6), p99 / 1000, bad_status + bad_socket)


@asynccontextmanager
async def server(arguments: list[str], environment: dict[str, str], url: str) -> AsyncIterator[None]:
    """Run one server as a process until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while True:
                try:
                    async with session.get(url) as response:
                        if response.status != 503:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0)
        yield
    finally:
        process.terminate()
        await process.wait()


def daemon_environment(dsn: str, port: int) -> dict[str, str]:
    """Return the settings of a daemon whose webhook route alone is measured."""
    return {
        "DATABASE_URL": dsn,
        "PORT": str(port),
        "FUBD_HOST": "127.0.0.1",
        "FUB_API_KEY": "benchmark-key",
        "FUB_SYSTEM_KEY": KEY.decode(),
        # Nothing listens there: only the webhook route is measured.
        "FUB_API_URL": "http://127.0.0.1:9/v1",
        "FUBD_MANAGE_WEBHOOKS": "false",
    }


async def measure(kind: str, dsn: str, deliveries: Path, connections: int, seconds: int) -> Result:
    """Measure one kind of server against one database."""
    port = free_port()
    if kind == "fubd":
        arguments, environment = ["-m", "fubd"], daemon_environment(dsn, port)
        url = f"http://127.0.0.1:{port}/readyz"
    else:
        arguments, environment = ["-m", "tests.benchmarks.collectors", kind, str(port)], {"DATABASE_URL": dsn}
        url = f"http://127.0.0.1:{port}/webhook/fub"
    async with server(arguments, environment, url):
        result = await load(kind, port, deliveries, connections=connections, seconds=seconds)
    if kind == "fubd":
        await _check_durable(dsn, result, seconds)
    return result


async def _check_durable(dsn: str, result: Result, seconds: int) -> None:
    """Check that what was answered is in the database; otherwise the figure means nothing."""
    connection = await asyncpg.connect(**parse(dsn).connect_arguments())
    try:
        stored = await connection.fetchval("SELECT count(*) FROM fubd.delivery")
        assert stored >= result.per_second * seconds * 0.95 or result.failed, (
            f"{stored} stored for {result.per_second * seconds:.0f} answered"
        )
        await connection.execute("DROP SCHEMA fubd CASCADE; DROP TABLE public.stage_changes CASCADE")
    finally:
        await connection.close()


async def main() -> None:
    """Run all measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--delay-ms", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, temporary_server(durable=True) as dsn:
        deliveries = Path(folder) / "deliveries"
        write_deliveries(deliveries, 20_000 * arguments.seconds, random.Random(7))
        results: dict[tuple[str, str, int], Result] = {}
        for connections in arguments.connections:
            for kind in ("bare", "fubd", "single"):
                results["near", kind, connections] = await measure(kind, dsn, deliveries, connections, arguments.seconds)
                _say("near", results["near", kind, connections])
        async with Proxy(dsn) as proxy:
            proxy.delay_seconds = arguments.delay_ms / 2000
            for connections, kind in itertools.product(arguments.connections, ("fubd", "single")):
                results["far", kind, connections] = await measure(kind, proxy.dsn, deliveries, connections, arguments.seconds)
                _say("far", results["far", kind, connections])
    for connections in arguments.connections:
        near = {kind: results["near", kind, connections].per_second for kind in ("bare", "fubd", "single")}
        far = {kind: results["far", kind, connections].per_second for kind in ("fubd", "single")}
        _print(
            f"{connections:4d} connections: fubd / bare {near['fubd'] / near['bare']:.2f},"
            f" fubd / one by one {near['fubd'] / near['single']:.1f},"
            f" {arguments.delay_ms:g} ms away fubd / one by one {far['fubd'] / far['single']:.1f}"
        )


def _say(where: str, result: Result) -> None:
    _print(
        f"{where:5s} {result.name:7s} {result.connections:4d} connections {result.per_second:9.0f}/s"
        f"  p99 {result.p99_ms:8.1f} ms  failed {result.failed}"
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
