"""Several daemons on one database behind a round robin: `python -m tests.benchmarks.instances [--seconds 6] [--connections 64]`.

It runs one daemon and then four, on a fresh database each time, behind a loopback proxy that gives each connection to the next daemon.
Every delivery is sent twice, one right after the other, so that two daemons often have the same one at the same moment. It prints a table:
answers a second, deliveries that were accepted (answered 200 as new) or answered as duplicates, those lost (accepted more often than
stored) or doubled (stored twice, or with two claims of one event for a person), rows that do not follow from the row before, and how many
daemons hold the lease. The daemons, the database and the sender share the cores of one machine, so the ratio is no measure of several
machines; the counts hold everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg

from fubd.store.dsn import parse
from fubd.store.embedded import temporary_server
from tests.benchmarks.webhook_throughput import daemon_environment, load, server, write_deliveries
from tests.support.databases import url_of
from tests.support.ports import free_port

_CHUNK = 64 * 1024
_ANSWERED = re.compile(r'^fubd_webhook_deliveries_total\{outcome="(accepted|duplicate)"\} (\S+)$', re.MULTILINE)
_HELD = re.compile(r"^fubd_lease_held (\S+)$", re.MULTILINE)
_COUNTS = """
SELECT
    (SELECT count(*) FROM fubd.delivery) AS stored,
    (SELECT count(*) - count(DISTINCT d.event_id) FROM fubd.delivery d)
        + (SELECT count(*) - count(DISTINCT (c.person_id, c.event_id)) FROM fubd.claim c) AS doubled,
    (
        SELECT count(*) FROM (
            SELECT c.stage_from, c.stage_to, lag(c.stage_to) OVER (PARTITION BY c.person_id ORDER BY c.changed_at, c.id) AS before
            FROM public.stage_changes c
        ) r WHERE r.stage_from IS DISTINCT FROM r.before OR r.stage_to = r.before
    ) AS broken
"""


@dataclass(frozen=True, slots=True)
class InstancesResult:
    """What so many daemons did with one load."""

    daemons: int
    per_second: float
    accepted: int
    duplicates: int
    failed: int
    lost: int
    doubled: int
    broken: int
    leaders: int

    def line(self) -> str:
        """Return the row of the table."""
        answers = (f"{self.per_second:,.0f}", self.accepted, self.duplicates, self.failed)
        figures = (self.daemons, *answers, self.lost, self.doubled, self.broken, self.leaders)
        return f"| {' | '.join(map(str, figures))} |"


@asynccontextmanager
async def round_robin(ports: Sequence[int]) -> AsyncIterator[int]:
    """Listen on a loopback port, which is yielded, and carry each connection to the next of these ports."""
    upstreams = itertools.cycle(ports)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", next(upstreams))
        await asyncio.gather(carry(reader, upstream_writer), carry(upstream_reader, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


async def measure(dsn: str, deliveries: Path, *, daemons: int, connections: int, seconds: int) -> InstancesResult:
    """Run so many daemons on an empty database, load them, and compare what they answered with what is stored."""
    ports = [free_port() for _ in range(daemons)]
    async with AsyncExitStack() as stack:
        for port in ports:
            await stack.enter_async_context(server(["-m", "fubd"], daemon_environment(dsn, port), f"http://127.0.0.1:{port}/readyz"))
        port = await stack.enter_async_context(round_robin(ports))
        result = await load("fubd", port, deliveries, connections=connections, seconds=seconds)
        pages = [await _metrics(port) for port in ports]
    connection = await asyncpg.connect(**parse(dsn).connect_arguments())
    try:
        row = await connection.fetchrow(_COUNTS)
    finally:
        await connection.close()
    counts: Counter[str] = Counter()
    for outcome, value in (found for page in pages for found in _ANSWERED.findall(page)):
        counts[outcome] += round(float(value))
    return InstancesResult(
        daemons=daemons,
        per_second=result.per_second,
        accepted=counts["accepted"],
        duplicates=counts["duplicate"],
        failed=result.failed,
        lost=max(0, counts["accepted"] - row["stored"]),
        doubled=row["doubled"],
        broken=row["broken"],
        leaders=sum(float(value) == 1 for page in pages for value in _HELD.findall(page)),
    )


async def _metrics(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        return await response.text()


def write_twice(path: Path, count: int) -> None:
    """Write signed deliveries, each of them twice."""
    write_deliveries(path, count, random.Random(7))
    lines = path.read_text(encoding="ascii").splitlines(keepends=True)
    path.write_text("".join(line * 2 for line in lines), encoding="ascii")


async def _main(arguments: argparse.Namespace) -> None:
    results = []
    with tempfile.TemporaryDirectory() as folder, temporary_server(durable=True) as dsn:
        deliveries = Path(folder) / "deliveries"
        write_twice(deliveries, 10_000 * arguments.seconds)
        connection = await asyncpg.connect(**parse(dsn).connect_arguments())
        for daemons in (1, 4):
            await connection.execute(f"CREATE DATABASE daemons_{daemons}")
            database = url_of(parse(dsn), database=f"daemons_{daemons}")
            results.append(
                await measure(database, deliveries, daemons=daemons, connections=arguments.connections, seconds=arguments.seconds)
            )
        await connection.close()
    columns = ("daemons", "a second", "accepted", "duplicates", "failed", "lost", "doubled", "broken rows", "leaders")
    heading = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    ratio = f"four daemons / one: {results[1].per_second / results[0].per_second:.2f}"
    sys.stdout.write("\n".join([heading, *(result.line() for result in results), "", ratio, ""]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.instances", description="Several daemons on one database.")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=64)
    asyncio.run(_main(parser.parse_args()))
