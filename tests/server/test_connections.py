"""Limits on connections: how many there are, and how long each may take."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from fubd.server import ServerLimits
from tests.server.fakes import row, running_server, stage_event
from tests.server.senders import PATIENCE_SECONDS, connect, exchange, head, post, rest_of, until


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\n"])
async def test_an_unfinished_head_ends_the_connection(begun: bytes) -> None:
    """A connection has a limited time to send a request head."""
    async with running_server(limits=ServerLimits(head_timeout_seconds=0.05)) as server:
        assert await exchange(server, begun) == b""


async def test_the_head_of_a_second_request_has_the_same_time_limit() -> None:
    """After a response the connection may be idle, but not send a head slowly."""
    async with running_server(limits=ServerLimits(head_timeout_seconds=0.05)) as server:
        reader, writer = await connect(server)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(reader, b"alive\n")
        writer.write(b"GET /hea")
        assert await rest_of(reader) == b""
        writer.close()


async def test_an_idle_connection_is_closed() -> None:
    """Keep-alive is limited."""
    async with running_server(limits=ServerLimits(idle_timeout_seconds=0.05)) as server:
        answer = await exchange(server, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_the_longest_waiting_connection_is_closed_for_a_new_one(web: aiohttp.ClientSession) -> None:
    """Clients that open connections and send nothing cannot lock out the sender of a delivery."""
    async with running_server(limits=ServerLimits(connections=3)) as server:
        silent = [await connect(server) for _ in range(3)]
        assert (await post(web, server, stage_event())).status == 200
        assert await rest_of(silent[0][0]) == b""
        for _, writer in silent:
            writer.close()


async def test_no_connection_is_accepted_while_all_are_busy() -> None:
    """While every connection is being answered, a new one is closed at once, and the busy ones are not disturbed."""
    async with running_server(limits=ServerLimits(connections=2)) as server:
        server.ingestor.gate.clear()
        body = stage_event()
        busy = [await connect(server) for _ in range(2)]
        for _, writer in busy:
            server.ingestor.reached.clear()
            writer.write(head(body, length=len(body)) + body)
            await server.ingestor.reached.wait()
        assert await exchange(server, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        server.ingestor.gate.set()
        for reader, writer in busy:
            assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_a_client_that_does_not_read_its_response_is_disconnected() -> None:
    """A response larger than the buffers, never read, does not keep its connection open without limit."""
    async with running_server(limits=ServerLimits(connections=1, response_timeout_seconds=0.1)) as server:
        server.view.table = [row(each, stage_to="x" * 20_000) for each in range(1, 1001)]
        _, writer = await asyncio.open_connection("127.0.0.1", server.http.port, limit=1024)
        writer.write(b"GET /api/changes?limit=1000 HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            # While it has the only place, every other connection is closed at once.
            while not answer:
                answer = await exchange(server, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()
