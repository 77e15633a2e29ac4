"""What an idle daemon costs: `python -m tests.benchmarks.idle [--people 200000] [--minutes 10]` prints a table, scaled to an hour.

It lets a daemon at default settings read a simulated account of 1,000, puts further people into the database as if they had been read too,
starts the daemon again, and observes it twice: alone, and while a page is open, as the page's script asks. `statements`: what the daemon
sent, each statement of a script counted. CPU of the database: of all processes of its server, which has nothing else to do. On a loaded
machine the times are longer; the counts are the same everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg

from fubd.store.dsn import parse
from fubd.store.embedded import temporary_server
from tests.benchmarks.sweep import USUAL, SweepRun, rss_mib
from tests.stack import Stack, running_stack
from tests.support.proxy import Proxy

_HOUR_SECONDS = 3600.0
_READ_PEOPLE = 1_000
# As if they had been read a moment ago, so that none of them is verified again meanwhile.
_ADD_PEOPLE = (
    """
    INSERT INTO fubd.person (id, stage, created, updated, verified_at, scrub_after, first_name, last_name)
    SELECT 1000000000 + g, 'Lead', now() - interval '1 year', now() - interval '1 day', now(), now() + interval '1 day', 'Ada', 'Example'
    FROM generate_series(1, $1) g
    """,
    """
    INSERT INTO fubd.claim (person_id, at, kind, channel, stage, seq, received_at, read_at, first_read_at)
    SELECT p.id, p.updated, 'state', 'polling', p.stage, nextval(pg_get_serial_sequence('public.stage_changes', 'id')), now(), now(), now()
    FROM fubd.person p WHERE p.id > 1000000000 AND $1 > 0
    """,
)
# As in fubd/web/status.js.
_OVERVIEW_SECONDS, _HEALTH_SECONDS = 30.0, 5.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What an hour costs."""

    what: str
    statements: float
    round_trips: float
    database_cpu_seconds: float

    def line(self) -> str:
        """Return the row of the table."""
        return f"| {self.what} | {self.statements:,.0f} | {self.round_trips:,.0f} | {self.database_cpu_seconds:.1f} |"


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and of its children, those that have ended included."""
    return sum(_own_cpu_seconds(int(entry.name), root) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _own_cpu_seconds(pid: int, root: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        if root in {pid, int(fields[1])}:
            return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_SECOND
    return 0.0


async def observe(what: str, proxy: Proxy, postmaster: int, seconds: float) -> IdleCost:
    """Observe for so long; return the cost of an hour."""
    statements, round_trips, cpu = proxy.statements, proxy.round_trips, cpu_seconds(postmaster)
    await asyncio.sleep(seconds)
    scale = _HOUR_SECONDS / seconds
    return IdleCost(
        what,
        (proxy.statements - statements) * scale,
        (proxy.round_trips - round_trips) * scale,
        (cpu_seconds(postmaster) - cpu) * scale,
    )


@asynccontextmanager
async def open_page(url: str) -> AsyncIterator[None]:
    """Ask for what an open page asks for until the block ends."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def follow() -> None:
            async with session.get(f"{url}/api/stream?after=0") as stream:
                async for _ in stream.content:
                    pass

        async def repeat(path: str, seconds: float) -> None:
            while True:
                async with session.get(url + path) as answer:
                    await answer.read()
                await asyncio.sleep(seconds)

        asking = [
            asyncio.create_task(follow()),
            asyncio.create_task(repeat("/api/overview?hours=24", _OVERVIEW_SECONDS)),
            asyncio.create_task(repeat("/health", _HEALTH_SECONDS)),
        ]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


def help_cpu_seconds() -> float:
    """Return the CPU time of `python -m fubd --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "fubd", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def _print(people: int, minutes: float) -> None:
    sys.stdout.write(f"`--help`: {help_cpu_seconds():.2f} s of CPU\n")
    with tempfile.TemporaryDirectory() as folder, temporary_server() as database:
        read = min(people, _READ_PEOPLE)
        async with (
            Proxy(database) as proxy,
            running_stack(database, Path(folder), people=read, daemon_dsn=proxy.dsn, forked=False) as stack,
        ):
            async with stack.daemon(**USUAL):
                await SweepRun(stack, read).wait_for_sweep()
            connection = await asyncpg.connect(**parse(database).connect_arguments())
            for statement in _ADD_PEOPLE:
                await connection.execute(statement, people - read, timeout=600)
            await connection.execute("VACUUM ANALYZE", timeout=600)
            await connection.close()
            await _print_idle(stack, proxy, minutes)


async def _print_idle(stack: Stack, proxy: Proxy, minutes: float) -> None:
    began = time.monotonic()
    async with stack.daemon(**USUAL) as process:
        (row,) = await stack.fetch("SELECT pg_read_file('postmaster.pid', 0, 20) AS text")
        postmaster = int(row["text"].split()[0])
        await process.answers(f"{stack.url}/readyz")
        sys.stdout.write(f"start to /readyz: {time.monotonic() - began:.2f} s\n")
        # The first poll belongs to the start.
        await asyncio.sleep(60.0)
        costs = [await observe("alone", proxy, postmaster, minutes * 60.0)]
        async with open_page(stack.url):
            await asyncio.sleep(5.0)
            costs.append(await observe("with the page open", proxy, postmaster, minutes * 60.0))
        rss = rss_mib(process)
    heading = "| an hour | statements | round trips | CPU of the database, s |\n|---|---|---|---|"
    sys.stdout.write("\n".join([heading, *(cost.line() for cost in costs), "", f"memory: {rss:.0f} MiB", ""]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.idle", description="What an idle daemon costs.")
    parser.add_argument("--people", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    asyncio.run(_print(arguments.people, arguments.minutes))
