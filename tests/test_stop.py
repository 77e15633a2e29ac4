"""Stopping the process: within ten seconds whatever the database does, with every accepted delivery answered."""

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

pytestmark = pytest.mark.slow

_STOP_SECONDS = 10.0
_DELIVERIES = 40


class SentRequest:
    """A request on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def send(cls, stack: Stack, data: bytes) -> SentRequest:
        """Open a connection and send the bytes."""
        request = cls(*await asyncio.open_connection("127.0.0.1", stack.port))
        request._writer.write(data)
        await request._writer.drain()
        return request

    async def status(self) -> int:
        """Wait for the response and return its status; 0 when the connection ended without one."""
        line = b""
        with suppress(ConnectionError):
            line = await self._reader.readline()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        return int(line.split()[1]) if line else 0


async def _send_delivery(stack: Stack, number: int) -> SentRequest:
    """Send a complete delivery."""
    body = event(f"stop-{number}", "Nurture", datetime.now(UTC) - timedelta(hours=1), [number + 1])
    head = f"POST /webhook/fub HTTP/1.1\r\nHost: fubd\r\nFUB-Signature: {sign(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    return await SentRequest.send(stack, head.encode() + body)


async def _stop_under_load(stack: Stack, process: Process, *signals: signal.Signals) -> list[int]:
    """Stop the process under load, in time and with exit code 0. Return the status of every delivery that had arrived."""
    answers = [await _send_delivery(stack, number) for number in range(_DELIVERIES)]
    # The deliveries sent before are read before this is answered.
    await stack.get("/health")
    loop = asyncio.get_running_loop()
    stopped_at = loop.time()
    for number in signals:
        process.signal(number)
    assert await process.ended(within_seconds=_STOP_SECONDS + 5.0) == 0
    assert loop.time() - stopped_at < _STOP_SECONDS
    assert process.errors == []
    return [await answer.status() for answer in answers]


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
async def test_any_signal_stops_it_cleanly_however_often(database: str, tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    """A second signal has no effect: every delivery that had arrived is answered 200 and stored."""
    async with running_stack(database, tmp_path) as stack, stack.ready_daemon() as process:
        assert set(await _stop_under_load(stack, process, *signals)) == {200}
        (row,) = await stack.fetch("SELECT count(*) AS deliveries FROM fubd.delivery WHERE event_id LIKE 'stop-%'")
        assert row["deliveries"] == _DELIVERIES


async def test_a_slow_database_is_waited_for(database: str, tmp_path: Path) -> None:
    """The database answers 0.2 s late, a stream is open, a delivery is half sent: every complete delivery is answered 200."""
    async with (
        Proxy(database) as proxy,
        running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack,
        stack.ready_daemon() as process,
    ):
        async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/api/stream"):
            half = await SentRequest.send(stack, b'POST /webhook/fub HTTP/1.1\r\nHost: fubd\r\nContent-Length: 500\r\n\r\n{"half')
            proxy.delay_seconds = 0.1
            assert set(await _stop_under_load(stack, process, signal.SIGTERM)) == {200}
            # Closed with the server, or refused before because the rest of the body did not come.
            assert await half.status() in {0, 408}
            proxy.delay_seconds = 0.0
        (row,) = await stack.fetch("SELECT count(*) AS deliveries FROM fubd.delivery WHERE event_id LIKE 'stop-%'")
        assert row["deliveries"] == _DELIVERIES


@pytest.mark.parametrize("how", ["silent", "refused"])
async def test_a_database_that_does_not_answer_does_not_delay_the_stop(database: str, tmp_path: Path, how: str) -> None:
    """Deliveries that had arrived are answered 503, the process ends in time, and what was answered 200 is stored."""
    async with (
        Proxy(database) as proxy,
        running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack,
        stack.ready_daemon() as process,
    ):
        accepted = [await _send_delivery(stack, number) for number in range(1_000, 1_010)]
        assert {await answer.status() for answer in accepted} == {200}
        if how == "silent":
            proxy.blackhole = True
        else:
            await proxy.refuse()
            await proxy.cut()
        assert set(await _stop_under_load(stack, process, signal.SIGTERM)) == {503}
        (row,) = await stack.fetch("SELECT count(*) AS deliveries FROM fubd.delivery WHERE event_id LIKE 'stop-1___'")
        assert row["deliveries"] == 10


# A thread that cannot be cancelled, like one that asks a name server which never answers.
_DAEMON_WITH_A_STUCK_THREAD = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from fubd.__main__ import main
ThreadPoolExecutor().submit(time.sleep, 60)
sys.argv = ["fubd"]
sys.exit(main())
"""


async def test_a_stuck_thread_does_not_delay_the_stop(database: str, tmp_path: Path) -> None:
    """The process ends in time, with exit code 0 and its last log line."""
    async with (
        running_stack(database, tmp_path) as stack,
        python("-c", _DAEMON_WITH_A_STUCK_THREAD, environ=stack.environ, folder=tmp_path) as process,
    ):
        await process.answers(f"{stack.url}/readyz")
        process.terminate()
        assert await process.ended(within_seconds=_STOP_SECONDS) == 0
        assert "stopped" in process.lines[-1]


@pytest.mark.parametrize("how", ["silent", "refused"])
async def test_a_stop_before_the_database_has_answered(database: str, tmp_path: Path, how: str) -> None:
    """Stopped while it waits for its first connection, the process ends at once with exit code 0."""
    async with Proxy(database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack:
        if how == "silent":
            proxy.blackhole = True
        else:
            await proxy.refuse()
        async with stack.daemon() as process:
            await process.answers(f"{stack.url}/healthz")
            await eventually(lambda: how == "refused" or proxy.connections > 0)
            process.terminate()
            assert await process.ended(within_seconds=_STOP_SECONDS) == 0
            assert process.errors == []
