"""How long recovery runs and audits take when the database is far away, as a ratio to the time that the API itself needs.

`python -m tests.benchmarks.far_database [--people 60000] [--changed 10000] [--delay-ms 80] [--latency-ms 250]` starts a simulated account
with this latency and an embedded Postgres behind a proxy that adds this delay to each round trip. It runs `--poll-only` with nothing
changed and with so many people changed, `--poll-only --full` and `audit`. The floor of pages in sequence is their number times the
latency, of a whole account it is the rate limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from fubd.simulator import Behaviour
from fubd.store.embedded import temporary_server
from tests.benchmarks.sweep import LIMIT, PAGE_SIZE, SHARE, WINDOW_SECONDS
from tests.commands.environment import Environment, environment
from tests.support.proxy import Proxy

_SLOWEST_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class FarRun:
    """One command: how long it took, and the shortest time in which the API answers its calls."""

    what: str
    seconds: float
    floor_seconds: float
    people: int

    def line(self) -> str:
        """Return the figures in words."""
        ratio = f"{self.seconds / self.floor_seconds:.2f} x" if self.floor_seconds else "-"
        return f"{self.what:<28}{self.seconds:>8.1f} s{self.floor_seconds:>8.1f} s{ratio:>9}{self.people:>10,} people"


def _floor_seconds(people: int, latency_seconds: float, *, in_parallel: bool) -> float:
    pages = ceil(people / PAGE_SIZE)
    if not in_parallel:
        return pages * latency_seconds
    return max((ceil(pages / (SHARE * LIMIT)) - 1) * WINDOW_SECONDS, latency_seconds)


async def _timed(here: Environment, what: str, *arguments: str, floor_seconds: float) -> FarRun:
    began = time.monotonic()
    async with here.running(*arguments, "--json") as process:
        code = await process.ended(_SLOWEST_SECONDS)
        seconds = time.monotonic() - began
        if code:
            raise RuntimeError(f"{what}: exit code {code}: {process.errors[-1:]}")
        document = json.loads(process.lines[-1])
    return FarRun(what, seconds, floor_seconds, document.get("people_read", document.get("people")))


async def measure(database: str, folder: Path, *, people: int, changed: int, delay_seconds: float, latency_seconds: float) -> list[FarRun]:
    """Run the commands one after the other and return how long each took."""
    async with Proxy(database) as proxy, environment(proxy.dsn, folder, people=people) as here:
        await _timed(here, "baseline", "--poll-only", floor_seconds=0.0)
        here.advance(3600.0)
        here.simulator.behaviour = Behaviour(answer_seconds=latency_seconds)
        proxy.delay_seconds = delay_seconds / 2
        whole_seconds = _floor_seconds(people, latency_seconds, in_parallel=True)
        results = [await _timed(here, "nothing changed", "--poll-only", floor_seconds=0.0)]
        here.account.bulk_move(here.account.ids[:changed], "Nurture")
        here.advance()
        changed_seconds = _floor_seconds(changed, latency_seconds, in_parallel=False)
        results.append(await _timed(here, f"{changed:,} changed", "--poll-only", floor_seconds=changed_seconds))
        results.append(await _timed(here, "--full", "--poll-only", "--full", floor_seconds=whole_seconds))
        results.append(await _timed(here, "audit", "audit", floor_seconds=whole_seconds))
        return results


async def _print(arguments: argparse.Namespace) -> None:
    with temporary_server() as database, tempfile.TemporaryDirectory() as folder:
        results = await measure(
            database,
            Path(folder),
            people=arguments.people,
            changed=arguments.changed,
            delay_seconds=arguments.delay_ms / 1000,
            latency_seconds=arguments.latency_ms / 1000,
        )
    heading = f"{arguments.people:,} people, {arguments.delay_ms:g} ms to the database, {arguments.latency_ms:g} ms an answer of the API"
    sys.stdout.write("\n".join([heading, *(result.line() for result in results), ""]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.far_database", description="Commands with the database far away.")
    parser.add_argument("--people", type=int, default=60_000, help="how many people the account holds (default 60,000)")
    parser.add_argument("--changed", type=int, default=10_000, help="how many of them change (default 10,000)")
    parser.add_argument("--delay-ms", type=float, default=80.0, help="a round trip to the database (default 80)")
    parser.add_argument("--latency-ms", type=float, default=250.0, help="how long each answer of the API takes (default 250)")
    asyncio.run(_print(parser.parse_args()))
