"""Limits on connections: how many there are, and how long each may take."""

from __future__ import annotations

import asyncio
import sys
import time

import aiohttp
import pytest

from fubd.server import ServerLimits
from fubd.server.open_files import Places, divide_places, places_within
from tests.server.fakes import ServerUnderTest, row, running_server, stage_event
from tests.server.senders import connect, exchange, head, post, rest_of, until
from tests.support.waiting import eventually


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


@pytest.mark.parametrize("target", ["GET /healthz", "GET /health", "GET /metrics", "GET /nowhere", "PUT /", "POST /webhook/fub"])
async def test_a_stranger_gets_few_answers_on_a_connection(target: str) -> None:
    """Hundreds of requests in one write are not answered one by one between the deliveries: the tenth answer ends the connection."""
    async with running_server() as server:
        answer = await exchange(server, f"{target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode() * 300)
        assert answer.count(b"HTTP/1.1 ") <= 10
        body = stage_event()
        known = head(body, length=len(body)) + body
        answer = await exchange(server, known * 30 + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 ") == 30


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
    async with running_server(limits=ServerLimits(response_timeout_seconds=1.0)) as server:
        server.view.table = [row(each, stage_to="x" * 20_000) for each in range(1, 1001)]
        _, writer = await asyncio.open_connection("127.0.0.1", server.http.port, limit=1024)
        writer.write(b"GET /api/changes?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: connections(server, "busy") == 1)
        await eventually(lambda: connections(server, "busy") == 0)
        writer.close()


async def test_readers_take_no_place_of_the_webhook_route(web: aiohttp.ClientSession) -> None:
    """An open page leaves the only other place to deliveries; a reader too many is answered 429."""
    async with running_server(limits=ServerLimits(connections=1, readers=2)) as server:
        streams = [await web.get(f"{server.url}/api/stream")]
        assert streams[0].status == 200
        assert (await web.get(f"{server.url}/api/stream")).status == 429
        assert (await post(web, server, stage_event())).status == 200
        streams[0].close()


def test_few_file_descriptors_are_divided_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """Start says how many connections fit, and how to get more."""
    places = divide_places(ServerLimits(connections=10**9))
    assert places.readers >= 2
    assert places.others >= 1
    assert "limit on open files leaves room for" in caplog.text


@pytest.mark.parametrize(
    ("open_files", "places"),
    [(4096, Places(100, 1000, 32)), (1024, Places(100, 812, 32)), (128, Places(15, 45, 10)), (64, Places(3, 9, 2)), (20, Places(2, 1, 1))],
)
def test_few_open_files_leave_most_places_to_deliveries(open_files: int, places: Places) -> None:
    """Accepting fewer connections in a turn leaves room for more of them."""
    assert places_within(open_files, ServerLimits()) == places


def connections(server: ServerUnderTest, state: str) -> float:
    """Return the gauge of the connections in a state."""
    return server.metrics.registry.get_sample_value("fubd_connections", {"state": state}) or 0.0


@pytest.mark.slow
async def test_five_thousand_unfinished_requests_keep_no_delivery_out() -> None:
    """Strangers open connections in waves, with a head and one byte of a body, or without reading the responses."""
    async with running_server() as server:
        strangers = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.server.strangers", str(server.port), "5000", "500", "400"
        )
        took: list[float] = []
        most = 0.0
        while strangers.returncode is None:
            body = stage_event(event_id=f"e-{len(took)}")
            started = time.monotonic()
            answer = await exchange(server, head(body, "Connection: close", length=len(body)) + body)
            took.append(time.monotonic() - started)
            assert answer.startswith(b"HTTP/1.1 200 ")
            most = max(most, connections(server, "reading"))
        assert await strangers.wait() == 0
        assert most >= 500
        # Before connections could be closed for new ones, no delivery was answered for ten seconds.
        assert sorted(took)[len(took) * 99 // 100] < 1.0
        assert server.is_balanced()
