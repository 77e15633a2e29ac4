"""How fast the whole daemon reads a whole account, how much memory that takes, and what a kill half-way costs.

`python -m tests.benchmarks.sweep [--people 202000] [--latency-ms 250]` starts a simulated account with this latency, an embedded Postgres
and `python -m fubd`, twice: once undisturbed, once killed half-way and restarted. The yardstick is the rate limit: the shortest time in
which the calls are possible at our share of it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from fubd.simulator import Behaviour
from fubd.store.embedded import temporary_server
from tests.poller.economy import PEOPLE
from tests.stack import Stack, running_stack
from tests.support.process import Process
from tests.support.waiting import eventually

LIMIT, SHARE, WINDOW_SECONDS, PAGE_SIZE = 250, 0.8, 10.0, 100
# The default intervals: only the sweep is measured.
USUAL = {
    "FUBD_POLL_INTERVAL": "1800",
    "FUBD_POLL_INTERVAL_WATCH": "300",
    "FUBD_POLL_INTERVAL_FAILOVER": "30",
    "FUBD_WEBHOOK_STALE_AFTER": "3600",
    "FUBD_POLL_STALE_AFTER": "2700",
    "FUBD_MISSED_AFTER": "120",
}


@dataclass(frozen=True, slots=True)
class SweepResult:
    """One first read of an account. `rss_mib`: the memory with a fifth read, and at the end; `peak`: calls in the fullest window."""

    people: int
    seconds: float
    calls: int
    refused: int
    peak: int
    rss_mib: tuple[float, float]
    went_on_from: int | None

    @property
    def minimum_seconds(self) -> float:
        """The shortest time within the limit: with 200 calls in any window, call 201 comes one window after the first, and so on."""
        return (ceil(self.people / PAGE_SIZE / (SHARE * LIMIT)) - 1) * WINDOW_SECONDS

    @property
    def share_of_memory(self) -> float:
        """The memory at the end over the memory with a fifth read."""
        return self.rss_mib[1] / self.rss_mib[0]


async def sweep(database: str, folder: Path, *, people: int, latency_seconds: float, killed: bool) -> SweepResult:
    """Let a daemon read an account for the first time; `killed`: with a SIGKILL half-way and a restart."""
    behaviour = Behaviour(answer_seconds=latency_seconds)
    async with running_stack(database, folder, people=people, behaviour=behaviour, forked=False) as stack:
        run = SweepRun(stack, people)
        went_on_from: int | None = None
        if killed:
            async with stack.daemon(**USUAL) as process:
                await run.wait_for_people(0.5)
                process.kill()
                await process.ended()
            (row,) = await stack.fetch("SELECT sweep_from_id FROM fubd.coverage")
            went_on_from = int(row["sweep_from_id"])
        async with stack.daemon(**USUAL) as process:
            early = 0.0
            if not killed:
                await run.wait_for_people(0.2)
                early = rss_mib(process)
            await run.wait_for_sweep()
            late = rss_mib(process)
        return SweepResult(
            people, await run.seconds(), run.calls(), run.refused(), stack.simulator.limits.peak(), (early or late, late), went_on_from
        )


class SweepRun:
    """Observes a first read from outside."""

    def __init__(self, stack: Stack, people: int) -> None:
        self._stack = stack
        self._people = people
        self._within_seconds = 120.0 + people / 400

    async def wait_for_people(self, share: float) -> None:
        """Wait until this share of the people is recorded."""

        async def read() -> bool:
            if not await self._is_migrated():
                return False
            (row,) = await self._stack.fetch("SELECT count(*) AS people FROM fubd.person")
            return int(row["people"]) >= share * self._people

        await eventually(read, self._within_seconds)

    async def wait_for_sweep(self) -> None:
        """Wait for the first complete sweep."""

        async def complete() -> bool:
            if not await self._is_migrated():
                return False
            rows = await self._stack.fetch("SELECT FROM fubd.poll_run WHERE kind = 'sweep' AND outcome = 'ok'")
            return bool(rows)

        await eventually(complete, self._within_seconds)

    async def _is_migrated(self) -> bool:
        (there,) = await self._stack.fetch("SELECT to_regclass('fubd.scrub') IS NOT NULL AS is_there")
        return bool(there["is_there"])

    async def seconds(self) -> float:
        """Return the duration of the last sweep."""
        (row,) = await self._stack.fetch(
            "SELECT extract(epoch FROM finished_at - started_at)::float8 AS seconds FROM fubd.poll_run"
            " WHERE kind = 'sweep' AND outcome = 'ok' ORDER BY id DESC LIMIT 1"
        )
        return float(row["seconds"])

    def calls(self) -> int:
        """Return how many pages of people were requested, by all processes."""
        return sum(count for (_, endpoint, _), count in self._stack.simulator.calls.items() if endpoint == "people")

    def refused(self) -> int:
        """Return how many requests were answered 429."""
        return sum(count for (_, _, status), count in self._stack.simulator.calls.items() if status == 429)


def rss_mib(process: Process) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) / 1024


async def _measure(people: int, latency_seconds: float) -> None:
    for killed in (False, True):
        with temporary_server() as database, tempfile.TemporaryDirectory() as folder:
            swept = await sweep(database, Path(folder), people=people, latency_seconds=latency_seconds, killed=killed)
        whole = f"{swept.seconds:.1f} s, {swept.seconds / max(swept.minimum_seconds, 0.1):.3f} of the least that the limit allows"
        memory = f"{swept.rss_mib[0]:.0f} MiB with a fifth read, {swept.rss_mib[1]:.0f} MiB at the end"
        sys.stdout.write(
            f"{people:,} people, {latency_seconds * 1000:g} ms an answer{', killed half-way' if killed else ''}:\n"
            f"  {f'went on from id {swept.went_on_from}; the rest took {swept.seconds:.1f} s' if killed else f'{whole}; {memory}'}\n"
            f"  {swept.calls:,} calls for {people / PAGE_SIZE:,.0f} pages,"
            f" at most {swept.peak} in a window of {LIMIT}, {swept.refused} answered 429\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sweep", description="How fast the daemon reads a whole account.")
    parser.add_argument("--people", type=int, default=PEOPLE, help=f"how many people the account holds (default {PEOPLE})")
    parser.add_argument("--latency-ms", type=float, default=250.0, help="how long each answer takes (default 250)")
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments.people, arguments.latency_ms / 1000))
