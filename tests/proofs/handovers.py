"""Lets one daemon take over from another, again and again: python -m tests.proofs.handovers [NUMBER].

Two daemons, one database, one address in front of both, as while a new version is deployed: the next is started, and as soon as it is
ready the one that leads is stopped, every fifth time killed, with a change on its way. They are forks of two processes
(`tests/proofs/killed.py`).
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import aiohttp

from fubd.store import embedded
from tests.proofs.crash import KILLED, PATIENCE_SECONDS, Kills, forks, is_ready, ready
from tests.stack import Stack, assert_perfect, running_stack
from tests.support.databases import Databases
from tests.support.waiting import eventually

_PEOPLE = 20
_KILLED_EVERY = 5
_SCORED_EVERY = 20
_CHUNK = 64 * 1024


class _Front:
    """Carries what comes to its port to the daemon at `port`, as the proxy of a platform does."""

    def __init__(self) -> None:
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen until the block ends; give the address."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.gather(_carry(reader, their_writer), _carry(their_reader, writer))
        writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def hand_over(databases: Databases, folder: Path, number: int) -> None:
    """Let the other daemon take over so many times while people move; nothing is lost or doubled, and one leads."""
    rng, killed, front = Random(7), 0, _Front()
    async with databases.empty() as database, front.listening() as address, AsyncExitStack() as stopped:
        stack = await stopped.enter_async_context(running_stack(database, folder, people=_PEOPLE))
        stack = replace(stack, environ={**stack.environ, "PUBLIC_URL": address})
        stacks = [stack, stack.second_instance()]
        starters = [await stopped.enter_async_context(forks(folder)) for _ in stacks]
        leading = AsyncExitStack()
        front.port = stack.port
        leader = await leading.enter_async_context(starters[0].run(environ=stack.environ, counting=False))
        await ready(stack, leader, Kills())
        for count in range(1, number + 1):
            own, following = stacks[count % 2], AsyncExitStack()
            follower = await following.enter_async_context(starters[count % 2].run(environ=own.environ, counting=False))
            await eventually(partial(is_ready, own, follower), PATIENCE_SECONDS)
            front.port = own.port
            stack.move_randomly(rng)
            leader.signal(signal.SIGKILL if count % _KILLED_EVERY == 0 else signal.SIGTERM)
            killed += await leader.ended() == KILLED
            await leading.aclose()
            await eventually(partial(_leads, own), PATIENCE_SECONDS)
            leader, leading = follower, following
            if count % _SCORED_EVERY == 0 or count == number:
                # Follow Up Boss sends what was refused again after a minute.
                stack.account.clock.speed = 20.0
                assert_perfect(await stack.final_score(PATIENCE_SECONDS))
                stack.account.clock.speed = 1.0
                await eventually(own.is_balanced, PATIENCE_SECONDS)
                sys.stdout.write(
                    f"{count}, {killed} of them by SIGKILL, {len(stack.account.truth.changes)} changes, none lost or doubled\n"
                )
                sys.stdout.flush()
        await leading.aclose()


async def _leads(stack: Stack) -> bool:
    with suppress(aiohttp.ClientError):
        return (await stack.metrics())["fubd_lease_held"] == 1
    return False


async def _main(number: int) -> None:
    with embedded.temporary_server() as server, tempfile.TemporaryDirectory() as name:
        databases = Databases(server)
        await hand_over(databases, Path(name), number)
        await databases.close()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000))
