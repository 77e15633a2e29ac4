"""One event about very many people, the database far away: `python -m tests.benchmarks.burst [--people 10000] [--delay-ms 80]`.

The event is recorded twice with two stages: people who are new, then people who are known. Counted until its answer, at a proxy that delays
each round trip: round trips, bytes, and the CPU time of this process, which is the recorder and the proxy. Then what the open page's stream
reads until it has all rows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass

import asyncpg

from fubd.server import ServerLimits
from fubd.store import ChangeReader, migrate
from fubd.store.dsn import parse
from fubd.store.embedded import temporary_server
from tests.recorder import Recorder, running_recorder, webhook
from tests.support.proxy import Proxy


@dataclass(frozen=True, slots=True)
class _Cost:
    what: str
    round_trips: int
    mib: float
    cpu_seconds: float
    seconds: float

    def line(self) -> str:
        return f"| {self.what} | {self.round_trips} | {self.mib:.1f} | {self.cpu_seconds:.1f} | {self.seconds:.1f} |"


class _Meter:
    """Counts from when it is made."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._began = (proxy.round_trips, proxy.bytes, time.process_time(), time.monotonic())

    def cost(self, what: str) -> _Cost:
        round_trips, size, cpu, at = self._began
        proxy = self._proxy
        mib = (proxy.bytes - size) / 2**20
        return _Cost(what, proxy.round_trips - round_trips, mib, time.process_time() - cpu, time.monotonic() - at)


async def measure(database: str, *, people: int, delay_seconds: float) -> list[_Cost]:
    """Record the event for new and for known people, and read the rows."""
    costs = []
    async with Proxy(database) as proxy, running_recorder(proxy.dsn) as recorder:
        await recorder.record(webhook("first", "A", "08:00", (people + 1,)))
        proxy.delay_seconds = delay_seconds / 2
        for stage, time_of_day, what in (("B", "10:00", "new people"), ("C", "11:00", "known people")):
            meter = _Meter(proxy)
            await recorder.record(webhook(f"event {stage}", stage, time_of_day, tuple(range(1, people + 1))))
            costs.append(meter.cost(what))
        costs.append(await _read_rows(proxy, recorder))
    return costs


async def _read_rows(proxy: Proxy, recorder: Recorder) -> _Cost:
    reader, limit = ChangeReader(recorder.pool), ServerLimits().stream_page_rows
    meter, after, count = _Meter(proxy), 0, 0
    safe_id, _ = await reader.news(0, limit)
    while rows := await reader.page(after, limit, up_to=safe_id):
        after, count = rows[-1].id, count + len(rows)
    return meter.cost(f"the stream reads {count:,} rows")


async def _print(people: int, delay_seconds: float) -> None:
    with temporary_server() as database:
        connection = await asyncpg.connect(**parse(database).connect_arguments())
        await migrate(connection)
        await connection.close()
        costs = await measure(database, people=people, delay_seconds=delay_seconds)
    heading = f"| {people:,} people in one event | round trips | MiB | CPU, s | wall, s |\n|---|---|---|---|---|"
    sys.stdout.write("\n".join([heading, *(cost.line() for cost in costs), ""]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.burst", description="One event about very many people.")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--delay-ms", type=float, default=80.0)
    arguments = parser.parse_args()
    asyncio.run(_print(arguments.people, arguments.delay_ms / 1000))
