"""Start and stop of the server."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.server.fakes import ServerUnderTest, running_server, stage_event
from tests.server.senders import PATIENCE_SECONDS, connect, head, rest_of


async def test_it_listens_on_ipv4_and_ipv6(web: aiohttp.ClientSession) -> None:
    """Without a host, the same port answers on both."""
    server = ServerUnderTest()
    await server.http.start(port=0)
    try:
        for host in ("127.0.0.1", "[::1]"):
            async with web.get(f"http://{host}:{server.port}/healthz") as response:
                assert response.status == 200
    finally:
        await server.http.stop(within_seconds=1)


async def test_a_port_in_use_is_an_error(server: ServerUnderTest) -> None:
    """Two servers cannot have the same port."""
    with pytest.raises(OSError, match="in use"):
        await ServerUnderTest().http.start(port=server.port, host="127.0.0.1")


async def test_stopping_finishes_the_requests_under_way(server: ServerUnderTest) -> None:
    """It accepts no new connection, closes the idle ones, and waits for the delivery under way."""
    server.ingestor.gate.clear()
    body = stage_event()
    reader, writer = await connect(server)
    idle, other = await connect(server)
    writer.write(head(body, length=len(body)) + body)
    await server.ingestor.reached.wait()
    port = server.port
    stopping = asyncio.create_task(server.http.stop(within_seconds=PATIENCE_SECONDS))
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", port)
    server.ingestor.gate.set()
    await stopping
    assert (await rest_of(reader)).startswith(b"HTTP/1.1 200 ")
    assert await rest_of(idle) == b""
    writer.close()
    other.close()
    assert len(server.ingestor.kept) == 1


async def test_stopping_waits_no_longer_than_its_time_limit(caplog: pytest.LogCaptureFixture) -> None:
    """A request that does not finish is aborted, with a warning in the log."""
    async with running_server() as server:
        server.ingestor.gate.clear()
        body = stage_event()
        reader, writer = await connect(server)
        writer.write(head(body, length=len(body)) + body)
        await server.ingestor.reached.wait()
        async with asyncio.timeout(5.0):
            await server.http.stop(within_seconds=0.05)
        assert await rest_of(reader) == b""
        writer.close()
        server.ingestor.gate.set()
    assert "unanswered" in caplog.text
