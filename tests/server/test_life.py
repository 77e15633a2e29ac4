"""The beginning and the end of the listener."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.server.fakes import House, running, stage_event
from tests.server.senders import PATIENCE_SECONDS, connect, head, rest_of


async def test_it_listens_on_both_families(web: aiohttp.ClientSession) -> None:
    """Without a host, the same port answers on IPv4 and IPv6."""
    house = House()
    await house.server.start(port=0)
    try:
        for host in ("127.0.0.1", "[::1]"):
            async with web.get(f"http://{host}:{house.server.port}/healthz") as response:
                assert response.status == 200
    finally:
        await house.server.stop(within_seconds=1)


async def test_a_port_in_use_is_an_error() -> None:
    """Two cannot have the same one."""
    async with running() as house:
        with pytest.raises(OSError, match="in use"):
            await House().server.start(port=house.server.port, host="127.0.0.1")


async def test_what_was_accepted_is_finished_before_the_end() -> None:
    """Stopping takes no new connection, lets go of the idle, and waits for the delivery at hand."""
    async with running() as house:
        house.ingestor.gate.clear()
        body = stage_event()
        reader, writer = await connect(house)
        idle, other = await connect(house)
        writer.write(head(body, length=len(body)) + body)
        await house.ingestor.reached.wait()
        port = house.server.port
        stopping = asyncio.create_task(house.server.stop(within_seconds=PATIENCE_SECONDS))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", port)
        house.ingestor.gate.set()
        await stopping
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 200 ")
        assert await rest_of(idle) == b""
        writer.close()
        other.close()
        assert len(house.ingestor.kept) == 1


async def test_the_end_does_not_wait_longer_than_told(caplog: pytest.LogCaptureFixture) -> None:
    """A delivery that never ends is given up, and that is told."""
    async with running() as house:
        house.ingestor.gate.clear()
        body = stage_event()
        reader, writer = await connect(house)
        writer.write(head(body, length=len(body)) + body)
        await house.ingestor.reached.wait()
        async with asyncio.timeout(1):
            await house.server.stop(within_seconds=0.05)
        assert await rest_of(reader) == b""
        writer.close()
        house.ingestor.gate.set()
    assert "unanswered" in caplog.text
