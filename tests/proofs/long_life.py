"""Lets one daemon live with steady work and faults, and shows what it holds: python -m tests.proofs.long_life [MINUTES [MOVES_PER_SECOND]].

Every few seconds something fails: connections to the database are cut, or refused for a moment, a reply to COMMIT is lost, Follow Up Boss
answers 500, or strangers begin requests that they do not finish. Each line shows the daemon's memory, open descriptors and threads.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import median

from fubd.simulator import Faults, Score
from fubd.store import embedded
from tests.stack import Stack, running_stack
from tests.support.databases import Databases
from tests.support.proxy import Proxy

_PEOPLE = 2_000
_FAULT_SECONDS = 10.0
_SAMPLES = 20
_STRANGERS = 20


@dataclass(frozen=True, slots=True)
class _Held:
    mib: float
    descriptors: int
    threads: int


def _held(pid: int) -> _Held:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines())
    return _Held(int(status["VmRSS"].split()[0]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"]))


class _Faults:
    """One fault after the other."""

    def __init__(self, stack: Stack, proxy: Proxy) -> None:
        self._stack = stack
        self._proxy = proxy

    async def run(self) -> None:
        """Let them happen until cancelled."""
        kinds: list[Callable[[], Awaitable[None]]] = [self._proxy.cut, self._refuse, self._lose_reply, self._fail, self._begin_requests]
        for happen in cycle(kinds):
            await happen()
            await asyncio.sleep(_FAULT_SECONDS)

    async def _refuse(self) -> None:
        await self._proxy.refuse()
        try:
            await self._proxy.cut()
            await asyncio.sleep(2.0)
        finally:
            await self._proxy.accept()

    async def _lose_reply(self) -> None:
        self._proxy.lost_commit_replies = 1

    async def _fail(self) -> None:
        self._stack.simulator.faults = Faults(server_error=0.2)
        await asyncio.sleep(2.0)
        self._stack.simulator.faults = Faults()

    async def _begin_requests(self) -> None:
        for _ in range(_STRANGERS):
            _, writer = await asyncio.open_connection("127.0.0.1", self._stack.port)
            writer.write(b"POST /webhook/fub HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            await writer.drain()
            writer.close()


async def live(databases: Databases, folder: Path, *, minutes: float, per_second: float) -> None:
    """Print what the daemon holds while it lives. What was answered 200 is there, and nothing is doubled or invented."""
    rng, samples, moved = Random(7), list[_Held](), 0
    async with (
        databases.empty() as database,
        Proxy(database) as proxy,
        running_stack(database, folder, people=_PEOPLE, daemon_dsn=proxy.dsn, forked=False) as stack,
        stack.ready_daemon() as process,
        asyncio.TaskGroup() as group,
    ):
        failing = group.create_task(_Faults(stack, proxy).run())
        began, seconds = time.monotonic(), 60 * minutes
        while (passed := time.monotonic() - began) < seconds:
            stack.move_randomly(rng)
            moved += 1
            if passed >= len(samples) * seconds / _SAMPLES:
                samples.append(_held(process.pid))
                _print(f"{passed:.0f} s, {moved} moves: {samples[-1].mib:.1f} MiB, {samples[-1].descriptors}, {samples[-1].threads}")
            await asyncio.sleep(max(0.0, began + moved / per_second - time.monotonic()))
        failing.cancel()
        await asyncio.wait([failing])
        stack.simulator.faults = Faults()
        # Follow Up Boss sends what was refused again after a minute.
        stack.account.clock.speed = 20.0
        found = await stack.final_score(120.0)
        waiting = _waiting(stack, found)
    second, last = samples[_SAMPLES // 4 : _SAMPLES // 2], samples[-_SAMPLES // 4 :]
    grown = {name: median(getattr(one, name) for one in last) - median(getattr(one, name) for one in second) for name in _Held.__slots__}
    growth = ", ".join(f"{more:+.1f} {name}" for name, more in grown.items())
    _print(f"{moved} moves, {waiting} of them yet to be sent again, none lost or doubled; from the second quarter to the last: {growth}")


def _waiting(stack: Stack, found: Score) -> int:
    """Return how many changes Follow Up Boss still has to send again, within eight hours. Nothing else may be missing or wrong."""
    truth, sightings = stack.simulator.truth, stack.simulator.sightings
    missing = {(one.person_id, one.at) for one in found.discrepancies if one.kind.startswith("lost")}
    for one in found.discrepancies:
        changes = [change for change in truth.of(one.person_id) if change.at <= one.at]
        if one.kind == "wrong_from":
            assert (one.person_id, changes[-2].at) in missing, one
        else:
            assert (one.person_id, one.at) in missing, one
            assert sightings.of(changes[-1]).acknowledged_at is None, one
    return len(missing)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _main(minutes: float, per_second: float) -> None:
    with embedded.temporary_server() as server, tempfile.TemporaryDirectory() as name:
        databases = Databases(server)
        await live(databases, Path(name), minutes=minutes, per_second=per_second)
        await databases.close()


if __name__ == "__main__":
    asyncio.run(_main(*map(float, [*sys.argv[1:], *("10", "20")[len(sys.argv) - 1 :]])))
