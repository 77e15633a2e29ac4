"""Kills fubd at its awaits and checks what is left: python -m tests.proofs.crash [EVERY [PHASE ...]].

The phases are adopt, forget, start, work, stop and commits. It is killed at every await, or at every EVERYth. The awaits of each phase are
found by running it once; then it is run again for each, and killed there (`tests/proofs/killed.py`). In the phase `commits` a thousand
replies to COMMIT are lost instead, or one EVERYth of a thousand.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Self

import aiohttp

from fubd.store import embedded
from tests.recorder import read, running_recorder, webhook
from tests.stack import Stack, assert_perfect, running_stack
from tests.store.adopting import connected
from tests.support import legacy_tables
from tests.support.databases import Databases
from tests.support.process import Process, python
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

KILLED = -signal.SIGKILL
PATIENCE_SECONDS = 120.0
# An await that depends on chance may not come again. It is tried again, then by its last line alone.
_REACHED_WITHIN_SECONDS = 30.0
_TRIES = 4
_PEOPLE = 20
# Of replies to COMMIT.
_LOST = 1_000
_LOST_TOGETHER = 100
_MOVED = 3


@dataclass(frozen=True, slots=True)
class _Scheduled:
    """Seconds of the thread of the event loop."""

    computed: float
    waited: float


class Run:
    """A run of fubd in a fork."""

    def __init__(self, process: Process, pid: int, first_line: int) -> None:
        self._process = process
        self._pid = pid
        self._first_line = first_line

    @property
    def awaits(self) -> list[str]:
        """The awaits that it met, in the order in which they were met first."""
        return [line.removeprefix("await ") for line in self._lines if line.startswith("await ")]

    @property
    def _lines(self) -> list[str]:
        return self._process.lines[self._first_line :]

    def scheduled(self) -> _Scheduled:
        """How long it has computed and waited for a core."""
        computed, waited, _ = Path(f"/proc/{self._pid}/schedstat").read_text("ascii").split()
        return _Scheduled(int(computed) / 1e9, int(waited) / 1e9)

    @property
    def errors(self) -> list[str]:
        """Its last lines on stderr."""
        return self._process.errors[-5:]

    @property
    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return next((int(line.removeprefix("exit ")) for line in self._lines if line.startswith("exit ")), None)

    async def ended(self, within_seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the end, and return the exit code."""
        await eventually(lambda: self.code is not None, within_seconds)
        assert self.code is not None
        return self.code

    def signal(self, number: int) -> None:
        """Send a signal."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    async def is_killed(self) -> bool:
        """Wait until it killed itself. False: it ended before, or did not come to that await; then it is stopped."""
        with suppress(AssertionError):
            await self.ended(_REACHED_WITHIN_SECONDS)
        self.signal(signal.SIGTERM)
        code = await self.ended()
        assert code in {KILLED, 0}, self.errors
        return code == KILLED


class Forks:
    """Runs fubd, one run at a time, in forks of a process that has imported it."""

    def __init__(self, process: Process, folder: Path) -> None:
        self._process = process
        self._folder = folder

    @asynccontextmanager
    async def run(
        self, *arguments: str, environ: Mapping[str, str], kill_at: int | str | None = None, counting: bool = True
    ) -> AsyncIterator[Run]:
        """Run fubd until the block ends."""
        first = len(self._process.lines)
        order = {"arguments": arguments, "environ": environ, "folder": str(self._folder), "kill_at": kill_at, "counting": counting}
        self._process.write_line(json.dumps(order))
        line = await eventually(lambda: next((line for line in self._process.lines[first:] if line.startswith("pid ")), None))
        run = Run(self._process, int(line.removeprefix("pid ")), first)
        try:
            yield run
        finally:
            run.signal(signal.SIGKILL)
            await run.ended()


@asynccontextmanager
async def forks(folder: Path) -> AsyncIterator[Forks]:
    """Start the process that forks."""
    async with python("-m", "tests.proofs.killed", folder=folder, has_input=True) as process:
        yield Forks(process, folder)


@dataclass(frozen=True, slots=True)
class _Start:
    """How long a start took until it was ready, and what of it the event loop computed or waited for a core."""

    seconds: float
    scheduled: _Scheduled

    @property
    def own_seconds(self) -> float:
        """What a machine with a free core would have needed, but for the database and the account, which waited for cores as well."""
        return self.seconds - self.scheduled.waited


@dataclass(slots=True)
class Kills:
    """How often a phase was killed. `by_line`: at the last line of an await, not at the whole of it; `missed`: what did not come again."""

    awaits: list[str] = field(default_factory=list)
    killed: int = 0
    by_line: int = 0
    missed: list[str] = field(default_factory=list)
    starts: list[_Start] = field(default_factory=list)

    def describe(self, phase: str) -> str:
        """Return the counts in a line, and one for each await that was missed."""
        line = f"{phase}: killed at {self.killed} of {len(self.awaits)} awaits, {self.by_line} of them by the last line"
        if self.starts:
            slowest = max(self.starts, key=lambda start: start.own_seconds)
            line += (
                f"; {len(self.starts)} starts, ready with at most {max(start.scheduled.computed for start in self.starts):.2f} s of CPU,"
                f" the slowest after {slowest.own_seconds:.1f} s, and {slowest.scheduled.waited:.1f} s for a core"
            )
        return "\n  ".join([line, *(f"missed: {name}" for name in self.missed)])

    async def kill(self, every: int, run_to: Callable[[str | None], Awaitable[tuple[list[str], bool]]]) -> Self:
        """Run once to find the awaits, then until it was killed at each, also at those that only a later run meets, or at every so many.

        `run_to` returns the awaits that were met, and whether it was killed.
        """
        met, _ = await run_to(None)
        self.awaits = met[::every]
        for name in self.awaits:
            for kill_at in (*(name,) * (_TRIES // 2), *(name.rpartition(" ")[2],) * (_TRIES // 2)):
                met, is_killed = await run_to(kill_at)
                if every == 1:
                    self.awaits += [another for another in met if another not in self.awaits]
                if is_killed:
                    self.killed += 1
                    self.by_line += kill_at != name
                    break
            else:
                self.missed.append(name)
        return self


# --- commands ---------------------------------------------------------------------------------------------------------


async def kill_adoption(databases: Databases, starter: Forks, every: int) -> Kills:
    """Kill `adopt` at its awaits, and let it succeed after each. Rows are the same before and after."""
    rows = "SELECT id, person_id, stage_from, stage_to, changed_at::text, raw_payload FROM public.stage_changes ORDER BY id"

    async def adopt(kill_at: str | None) -> tuple[list[str], bool]:
        async with databases.empty() as database, connected(database) as connection:
            await legacy_tables.make(connection, rows=10)
            before = await connection.fetch(rows)
            async with starter.run("adopt", "--yes", environ={"DATABASE_URL": database}, kill_at=kill_at) as run:
                is_killed = await run.is_killed()
            assert await connection.fetch(rows) == before
            if is_killed:
                async with starter.run("adopt", "--yes", environ={"DATABASE_URL": database}) as again:
                    assert await again.ended() == 0, again.errors
            assert await connection.fetch(rows) == before
            assert await connection.fetchval("SELECT count(*) FROM fubd.adoption") == 1
            return run.awaits, is_killed

    return await Kills().kill(every, adopt)


async def kill_forgetting(databases: Databases, starter: Forks, every: int) -> Kills:
    """Kill `forget` at its awaits. The person's name is in the rows and in fubd's tables, or in neither; the next attempt succeeds."""
    names = (
        "SELECT first_name FROM public.stage_changes UNION SELECT first_name FROM fubd.person"
        " UNION SELECT CASE WHEN EXISTS (SELECT FROM fubd.forgotten) THEN NULL ELSE 'Ada' END"
    )

    async def forget(kill_at: str | None) -> tuple[list[str], bool]:
        async with databases.migrated() as database, connected(database) as connection:
            async with running_recorder(database) as recorder:
                await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), read("B", "10:00", "10:30"))
            async with starter.run("forget", "1", "--yes", environ={"DATABASE_URL": database}, kill_at=kill_at) as run:
                is_killed = await run.is_killed()
            assert {row["first_name"] for row in await connection.fetch(names)} in ({"Ada"}, {None})
            if is_killed:
                async with starter.run("forget", "1", "--yes", environ={"DATABASE_URL": database}) as again:
                    assert await again.ended() == 0, again.errors
            assert {row["first_name"] for row in await connection.fetch(names)} == {None}
            return run.awaits, is_killed

    return await Kills().kill(every, forget)


# --- the daemon -------------------------------------------------------------------------------------------------------


async def ready(stack: Stack, run: Run, kills: Kills) -> None:
    """Wait until the daemon is ready, note how long that took, and wait until it has read the account and registered our webhooks."""
    began = time.monotonic()
    await eventually(partial(is_ready, stack, run), PATIENCE_SECONDS)
    kills.starts.append(_Start(time.monotonic() - began, run.scheduled()))
    await eventually(stack.is_covered, PATIENCE_SECONDS)


async def is_ready(stack: Stack, run: Run) -> bool:
    """Return whether the daemon is ready. It must not have ended."""
    assert run.code is None, run.errors
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/readyz") as answer:
            return answer.status == HTTPStatus.OK
    return False


async def kill_start(databases: Databases, starter: Forks, folder: Path, every: int) -> Kills:
    """Kill the daemon at the awaits of its first start: migration, registration of webhooks, the first read; then it must work."""
    kills = Kills()

    async def start(kill_at: str | None) -> tuple[list[str], bool]:
        awaits, is_killed = list[str](), False
        async with databases.empty() as database, running_stack(database, folder, people=_PEOPLE) as stack:
            async with starter.run(environ=stack.environ, kill_at=kill_at, counting=kill_at is not None) as run:
                if kill_at is not None:
                    is_killed = await run.is_killed()
                    awaits = run.awaits
            async with starter.run(environ=stack.environ, counting=kill_at is None) as run:
                await ready(stack, run, kills)
                awaits = awaits or run.awaits
                stack.move_randomly(Random(7), people=[stack.account.ids[0]])
                assert_perfect(await stack.final_score(PATIENCE_SECONDS))
                run.signal(signal.SIGTERM)
                assert await run.ended() == 0, run.errors
            return awaits, is_killed

    return await kills.kill(every, start)


async def kill_work(databases: Databases, starter: Forks, folder: Path, every: int, *, stop: bool) -> Kills:
    """Kill the daemon at the awaits that follow changes and a disabled webhook, or those of its stop with changes on their way.

    Nobody is moved twice: a move between two polls, whose webhook met no daemon, would be seen only when it is sent again.
    """
    rng, kills = Random(7), Kills()
    async with databases.empty() as database, running_stack(database, folder, people=2_000) as stack:
        people = rng.sample(list(stack.account.ids), len(stack.account.ids))

        async def work(kill_at: str | None) -> tuple[list[str], bool]:
            async with starter.run(environ=stack.environ, kill_at=kill_at, counting=False) as run:
                await ready(stack, run, kills)
                run.signal(signal.SIGUSR1)
                for _ in range(_MOVED):
                    stack.move_randomly(rng, people=[people.pop()])
                if stop:
                    run.signal(signal.SIGTERM)
                else:
                    stack.simulator.registry.disable(stack.simulator.registry.all()[0])
                if kill_at is not None:
                    is_killed = await run.is_killed()
                    return run.awaits, is_killed
                if not stop:
                    await asyncio.sleep(_REACHED_WITHIN_SECONDS)
                    run.signal(signal.SIGTERM)
                assert await run.ended() == 0, run.errors
                return run.awaits, False

        await kills.kill(every, work)
        async with starter.run(environ=stack.environ) as run:
            await ready(stack, run, kills)
            assert_perfect(await stack.final_score(PATIENCE_SECONDS))
            await eventually(stack.is_balanced)
        return kills


async def lose_replies(databases: Databases, starter: Forks, folder: Path, number: int) -> str:
    """Lose the reply to a COMMIT so many times while people move; nothing is lost or doubled."""
    rng = Random(7)
    async with (
        databases.empty() as database,
        Proxy(database) as proxy,
        running_stack(database, folder, people=_PEOPLE, daemon_dsn=proxy.dsn) as stack,
        starter.run(environ=stack.environ, counting=False) as run,
    ):
        await ready(stack, run, Kills())
        for lost in range(1, number + 1):
            proxy.lost_commit_replies = 1
            stack.move_randomly(rng)
            await eventually(lambda: proxy.lost_commit_replies == 0, PATIENCE_SECONDS)
            if lost % _LOST_TOGETHER == 0 or lost == number:
                # Follow Up Boss sends what was refused again after a minute; after ten that fail it would disable the webhooks.
                stack.account.clock.speed = 20.0
                assert_perfect(await stack.final_score(PATIENCE_SECONDS))
                stack.account.clock.speed = 1.0
        await eventually(stack.is_balanced)
        return f"commits: {number} replies lost, {len(stack.account.truth.changes)} changes, none lost or doubled"


async def _kill_everywhere(every: int, phases: Sequence[str]) -> None:
    with embedded.temporary_server() as server, tempfile.TemporaryDirectory() as name:
        databases, folder = Databases(server), Path(name)
        async with forks(folder) as starter:
            phase: dict[str, Callable[[], Awaitable[Kills]]] = {
                "adopt": partial(kill_adoption, databases, starter, every),
                "forget": partial(kill_forgetting, databases, starter, every),
                "start": partial(kill_start, databases, starter, folder, every),
                "work": partial(kill_work, databases, starter, folder, every, stop=False),
                "stop": partial(kill_work, databases, starter, folder, every, stop=True),
            }
            for one in phases or (*phase, "commits"):
                line = (
                    (await phase[one]()).describe(one) if one in phase else await lose_replies(databases, starter, folder, _LOST // every)
                )
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
        await databases.close()


if __name__ == "__main__":
    asyncio.run(_kill_everywhere(int(sys.argv[1]) if len(sys.argv) > 1 else 1, sys.argv[2:]))
