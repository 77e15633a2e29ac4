"""Who may hold a connection, and for how long."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from fubd.server import Limits
from tests.server.fakes import row, running, stage_event
from tests.server.senders import PATIENCE_SECONDS, connect, exchange, head, post, rest_of, until


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\n"])
async def test_a_head_that_is_never_finished_ends_the_connection(begun: bytes) -> None:
    """A connection has so many seconds to say what it wants."""
    async with running(limits=Limits(head_seconds=0.05)) as house:
        assert await exchange(house, begun) == b""


async def test_a_second_head_has_as_little_time_as_the_first() -> None:
    """After an answer the connection may rest, but not dribble."""
    async with running(limits=Limits(head_seconds=0.05)) as house:
        reader, writer = await connect(house)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(reader, b"alive\n")
        writer.write(b"GET /hea")
        assert await rest_of(reader) == b""
        writer.close()


async def test_an_idle_connection_is_let_go() -> None:
    """Keep-alive has an end."""
    async with running(limits=Limits(idle_seconds=0.05)) as house:
        answer = await exchange(house, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_the_longest_waiting_makes_room_when_the_house_is_full(web: aiohttp.ClientSession) -> None:
    """Those who open connections and say nothing cannot lock out the sender of a delivery."""
    async with running(limits=Limits(connections=3)) as house:
        silent = [await connect(house) for _ in range(3)]
        assert (await post(web, house, stage_event())).status == 200
        assert await rest_of(silent[0][0]) == b""
        for _, writer in silent:
            writer.close()


async def test_a_house_at_work_takes_nobody_in() -> None:
    """When every connection is being answered, a new one is closed at once, and those at work are not disturbed."""
    async with running(limits=Limits(connections=2)) as house:
        house.ingestor.gate.clear()
        body = stage_event()
        busy = [await connect(house) for _ in range(2)]
        for _, writer in busy:
            house.ingestor.reached.clear()
            writer.write(head(body, length=len(body)) + body)
            await house.ingestor.reached.wait()
        assert await exchange(house, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        house.ingestor.gate.set()
        for reader, writer in busy:
            assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_a_reader_who_takes_no_answer_is_given_up() -> None:
    """A page larger than the buffers, never read, does not hold its connection for ever."""
    async with running(limits=Limits(connections=1, answer_seconds=0.1)) as house:
        house.view.table = [row(each, stage_to="x" * 20_000) for each in range(1, 1001)]
        _, writer = await asyncio.open_connection("127.0.0.1", house.server.port, limit=1024)
        writer.write(b"GET /api/changes?limit=1000 HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            # While it holds the only place, the next one is closed at once.
            while not answer:
                answer = await exchange(house, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()
