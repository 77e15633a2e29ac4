"""How the process ends when it is told to: whatever the database does, within ten seconds, and with everything it accepted answered."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from tests.stack import Stack, event, running_stack, sign
from tests.support.process import Process, python
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

_WITHIN_SECONDS = 10.0
_DELIVERIES = 40


class Sent:
    """Something sent on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, stack: Stack, data: bytes) -> Sent:
        """Send it."""
        sent = cls(*await asyncio.open_connection("127.0.0.1", stack.port))
        sent._writer.write(data)
        await sent._writer.drain()
        return sent

    async def status(self) -> int:
        """Wait for the answer and give its status; 0 when the connection ended without one."""
        line = b""
        with suppress(ConnectionError):
            line = await self._reader.readline()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        return int(line.split()[1]) if line else 0


async def _delivered(stack: Stack, number: int) -> Sent:
    """Send a whole delivery."""
    body = event(f"stop-{number}", "Nurture", datetime.now(UTC) - timedelta(hours=1), [number + 1])
    head = f"POST /webhook/fub HTTP/1.1\r\nHost: fubd\r\nFUB-Signature: {sign(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    return await Sent.to(stack, head.encode() + body)


async def _stopped(stack: Stack, process: Process, *signals: signal.Signals) -> list[int]:
    """Stop it under load, and give the answers to all that had arrived by then. It must be over in time, and with 0."""
    answers = [await _delivered(stack, number) for number in range(_DELIVERIES)]
    # What was sent before is read before this is answered.
    await stack.get("/health")
    loop = asyncio.get_running_loop()
    told_at = loop.time()
    for number in signals:
        process.signal(number)
    assert await process.ended(within_seconds=_WITHIN_SECONDS + 5.0) == 0
    assert loop.time() - told_at < _WITHIN_SECONDS
    assert process.errors == []
    return [await answer.status() for answer in answers]


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
async def test_it_ends_the_same_whatever_signal_and_however_often(
    database: str, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    """A second signal makes nothing worse: everything that had arrived is answered 200, and is there."""
    async with running_stack(database, tmp_path) as stack, stack.ready_daemon() as process:
        assert set(await _stopped(stack, process, *signals)) == {200}
        (kept,) = await stack.fetch("SELECT count(*) AS deliveries FROM fubd.delivery WHERE event_id LIKE 'stop-%'")
        assert kept["deliveries"] == _DELIVERIES


async def test_a_slow_database_is_waited_for(database: str, tmp_path: Path) -> None:
    """Every answer of the database 0.2 s late, somebody at the stream, a delivery half sent: what had arrived whole is answered 200."""
    async with (
        Proxy(database) as proxy,
        running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack,
        stack.ready_daemon() as process,
    ):
        async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/api/stream"):
            half = await Sent.to(stack, b'POST /webhook/fub HTTP/1.1\r\nHost: fubd\r\nContent-Length: 500\r\n\r\n{"half')
            proxy.delay_seconds = 0.1
            assert set(await _stopped(stack, process, signal.SIGTERM)) == {200}
            assert await half.status() == 0
            proxy.delay_seconds = 0.0
        (kept,) = await stack.fetch("SELECT count(*) AS deliveries FROM fubd.delivery WHERE event_id LIKE 'stop-%'")
        assert kept["deliveries"] == _DELIVERIES


@pytest.mark.parametrize("how", ["silent", "away"])
async def test_a_database_that_does_not_answer_holds_nothing_up(database: str, tmp_path: Path, how: str) -> None:
    """What had arrived is told to come again with 503, and the process ends in time; what it had answered 200 is there."""
    async with (
        Proxy(database) as proxy,
        running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack,
        stack.ready_daemon() as process,
    ):
        taken = [await _delivered(stack, number) for number in range(1_000, 1_010)]
        assert {await answer.status() for answer in taken} == {200}
        if how == "silent":
            proxy.blackhole = True
        else:
            await proxy.refuse()
            await proxy.cut()
        assert set(await _stopped(stack, process, signal.SIGTERM)) == {503}
        (kept,) = await stack.fetch("SELECT count(*) AS deliveries FROM fubd.delivery WHERE event_id LIKE 'stop-1___'")
        assert kept["deliveries"] == 10


# A thread that cannot be told to stop, as one that asks a name server which never answers.
_HELD_UP = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from fubd.__main__ import main
ThreadPoolExecutor().submit(time.sleep, 60)
sys.argv = ["fubd"]
sys.exit(main())
"""


async def test_a_name_server_that_never_answers_holds_nothing_up(database: str, tmp_path: Path) -> None:
    """Threads that wait for one are not waited for: the process ends in time, with 0 and its last line."""
    async with running_stack(database, tmp_path) as stack, python("-c", _HELD_UP, environ=stack.environ, folder=tmp_path) as process:
        await process.answers(f"{stack.url}/readyz")
        process.terminate()
        assert await process.ended(within_seconds=_WITHIN_SECONDS) == 0
        assert "stopped" in process.lines[-1]


@pytest.mark.parametrize("how", ["silent", "away"])
async def test_a_stop_before_the_database_ever_answered(database: str, tmp_path: Path, how: str) -> None:
    """Told to stop while it still waits for its first connection, it ends at once and with 0."""
    async with Proxy(database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack:
        if how == "silent":
            proxy.blackhole = True
        else:
            await proxy.refuse()
        async with stack.daemon() as process:
            await process.answers(f"{stack.url}/healthz")
            await eventually(lambda: how == "away" or proxy.connections > 0)
            process.terminate()
            assert await process.ended(within_seconds=_WITHIN_SECONDS) == 0
            assert process.errors == []
