"""Kills fubd at its awaits and checks what is left: python -m tests.proofs.crash [EVERY] kills at every await, or at every EVERYth."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from random import Random

from fubd.store import embedded
from tests.recorder import read, running_recorder, webhook
from tests.stack import Stack, assert_perfect, running_stack
from tests.store.adopting import connected
from tests.support import legacy_tables
from tests.support.databases import Databases
from tests.support.process import Process, python
from tests.support.waiting import eventually

_KILLED = -signal.SIGKILL
_PATIENCE_SECONDS = 120.0
_PEOPLE = 60
_MOVED = 5
# More than a command takes, and what the daemon takes until it polls, records some changes, and stops.
_MOST_STEPS = 5_000
_START_STEPS = 700
_WORK_STEPS = 400
_STOP_STEPS = 100


@asynccontextmanager
async def killed(steps: str, *arguments: str, environ: dict[str, str], folder: Path) -> AsyncIterator[Process]:
    """Run fubd until it kills itself."""
    async with python("-m", "tests.proofs.killed", steps, *arguments, environ=environ, folder=folder) as process:
        yield process


async def _kill_command(steps: Iterable[int], *arguments: str, database: str, folder: Path) -> AsyncIterator[None]:
    """Kill a command at each of these steps, until it ends before one; then run it to its end. Yields after each."""
    code = _KILLED
    for number in (*steps, 0):
        async with killed(str(number), *arguments, environ={"DATABASE_URL": database}, folder=folder) as process:
            code = await process.ended(_PATIENCE_SECONDS)
            assert code in {_KILLED, 0}, process.errors[-3:]
        yield
        if code == 0:
            break


async def kill_daemon(database: str, folder: Path, *, start: Iterable[int], work: Iterable[int], stop: Iterable[int]) -> None:
    """Kill the daemon at steps from its start, from changes in the account, and from SIGTERM; then compare the rows with the truth.

    Nobody is moved twice: a move between two polls, whose webhook met no daemon, would be seen only when it is sent again.
    """
    rng = Random(7)
    rounds = (*((steps, None) for steps in work), *((steps, signal.SIGTERM) for steps in stop))
    async with running_stack(database, folder, people=max(_PEOPLE, _MOVED * (len(rounds) + 1))) as stack:
        people = iter(rng.sample(list(stack.account.ids), len(stack.account.ids)))
        for steps in start:
            async with killed(str(steps), environ=stack.environ, folder=folder) as process:
                assert await process.ended(_PATIENCE_SECONDS) == _KILLED, process.errors[-3:]
        # Everybody has been read once: only then is a difference a change.
        async with stack.ready_daemon():
            pass
        for steps, then in rounds:
            async with killed(f"+{steps}", environ=stack.environ, folder=folder) as process:
                await process.answers(f"{stack.url}/readyz", within_seconds=_PATIENCE_SECONDS)
                process.signal(signal.SIGUSR1)
                for person in islice(people, _MOVED):
                    stack.move_randomly(rng, people=[person])
                if then is not None:
                    process.signal(then)
                assert await process.ended(_PATIENCE_SECONDS) in {_KILLED, 0}, process.errors[-3:]
        await _assert_all_is_there(stack, rng, list(islice(people, _MOVED)))


async def _assert_all_is_there(stack: Stack, rng: Random, people: list[int]) -> None:
    async with stack.daemon() as process:
        await process.answers(f"{stack.url}/readyz", within_seconds=_PATIENCE_SECONDS)
        for person in people:
            stack.move_randomly(rng, people=[person])
        assert_perfect(await stack.final_score(_PATIENCE_SECONDS))
        await eventually(stack.is_balanced, 30.0)


async def kill_adoption(database: str, folder: Path, *, steps: Iterable[int]) -> None:
    """Kill `adopt` at each of these steps, and then let it succeed. The rows are the same before and after each."""
    rows = "SELECT id, person_id, stage_from, stage_to, changed_at::text, raw_payload FROM public.stage_changes ORDER BY id"
    async with connected(database) as connection:
        before = await connection.fetch(rows)
        async for _ in _kill_command(steps, "adopt", "--yes", database=database, folder=folder):
            assert await connection.fetch(rows) == before
        assert await connection.fetchval("SELECT count(*) FROM fubd.adoption") == 1


async def kill_forgetting(database: str, folder: Path, *, steps: Iterable[int]) -> None:
    """Kill `forget` at each of these steps. The person's name is in the rows and in fubd's tables, or in neither."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), read("B", "10:00", "10:30"))
    names = []
    async with connected(database) as connection:
        async for _ in _kill_command(steps, "forget", "1", "--yes", database=database, folder=folder):
            found = await connection.fetch(
                "SELECT first_name FROM public.stage_changes UNION SELECT first_name FROM fubd.person"
                " UNION SELECT CASE WHEN EXISTS (SELECT FROM fubd.forgotten) THEN NULL ELSE 'Ada' END"
            )
            names.append({row["first_name"] for row in found})
    assert set(map(frozenset, names[:-1])) <= {frozenset({"Ada"}), frozenset({None})}
    assert names[-1] == {None}


async def _kill_everywhere(every: int) -> None:
    with embedded.temporary_server() as server, tempfile.TemporaryDirectory() as name:
        databases, folder = Databases(server), Path(name)
        async with databases.empty() as database:
            async with connected(database) as connection:
                await legacy_tables.make(connection, rows=50)
            await kill_adoption(database, folder, steps=range(1, _MOST_STEPS, every))
        async with databases.migrated() as database:
            await kill_forgetting(database, folder, steps=range(1, _MOST_STEPS, every))
        async with databases.empty() as database:
            await kill_daemon(
                database,
                folder,
                start=range(1, _START_STEPS, every),
                work=range(1, _WORK_STEPS, every),
                stop=range(1, _STOP_STEPS, every),
            )
        await databases.close()


if __name__ == "__main__":
    asyncio.run(_kill_everywhere(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
