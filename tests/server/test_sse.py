"""The live feed."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from fubd.server import Limits
from tests.server.fakes import row, running, stage_event
from tests.server.senders import PATIENCE_SECONDS, post, until
from tests.support.waiting import eventually


class Listener:
    """Reads one stream event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def block(self) -> dict[str, str]:
        """Give the next block: field to value; a comment under the empty name. Empty at the end."""
        fields: dict[str, str] = {}
        async for line in self._content:
            if line == b"\n":
                return fields
            name, _, value = line.decode().rstrip("\n").partition(":")
            fields[name] = value.strip()
        return fields

    async def event(self) -> tuple[str, str | None, int]:
        """Give kind, place and row id of the next event."""
        while True:
            block = await self.block()
            if "event" in block:
                return block["event"], block.get("id"), json.loads(block["data"])["id"]
            assert block


async def test_the_stream_tells_what_is_recorded_and_what_is_corrected(web: aiohttp.ClientSession) -> None:
    """A new row comes with its id as the reader's place, a correction without one, so that it never sets the place back."""
    async with running() as house:
        house.view.table = [row(3)]
        response = await web.get(f"{house.url}/api/stream")
        assert response.content_type == "text/event-stream"
        listener = Listener(response)
        assert await listener.block() == {"retry": "2000"}
        house.record(row(8))
        assert await listener.event() == ("recorded", "8", 8)
        house.correct(row(3, stage_to="Closed"))
        assert await listener.event() == ("corrected", None, 3)
        house.correct(row(3, confirmed_by="polling"), noted=False)
        assert await listener.event() == ("corrected", None, 3)
        house.record(row(9))
        assert await listener.event() == ("recorded", "9", 9)


@pytest.mark.parametrize(
    ("query", "place", "expected"),
    [
        ("", "1497", [1498, 1499, 1500]),
        ("?after=1497", None, [1498, 1499, 1500]),
        ("?after=3", "1498", [1499, 1500]),
        ("?after=1499", "x", [1500]),
    ],
)
async def test_a_stream_is_resumed_where_it_broke(web: aiohttp.ClientSession, query: str, place: str | None, expected: list[int]) -> None:
    """What was recorded since the last id comes first, then what happens now, each row once."""
    async with running() as house:
        house.view.table = [row(each) for each in range(1, 1501)]
        headers = {} if place is None else {"Last-Event-ID": place}
        async with web.get(f"{house.url}/api/stream{query}", headers=headers) as response:
            listener = Listener(response)
            assert [(await listener.event())[2] for _ in expected] == expected
            house.record(row(1501))
            assert (await listener.event())[2] == 1501


async def test_a_long_past_is_told_page_by_page(web: aiohttp.ClientSession) -> None:
    """A reader may have been away for more than one page."""
    async with running(limits=Limits(stream_page_rows=100)) as house:
        house.view.table = [row(each) for each in range(1, 301)]
        async with web.get(f"{house.url}/api/stream?after=0") as response:
            listener = Listener(response)
            assert [(await listener.event())[2] for _ in range(300)] == list(range(1, 301))


async def test_a_quiet_stream_has_a_heartbeat(web: aiohttp.ClientSession) -> None:
    """A comment now and then keeps proxies from closing it."""
    async with running(limits=Limits(heartbeat_seconds=0.02)) as house, web.get(f"{house.url}/api/stream") as response:
        listener = Listener(response)
        await listener.block()
        assert await listener.block() == {"": "still here"}


async def test_what_another_process_does_is_told(web: aiohttp.ClientSession) -> None:
    """Rows and corrections that nobody here knows of are noticed in the table, each once, also one noted under a lower number later."""
    async with running(limits=Limits(stream_look_seconds=0.02)) as house:
        house.view.table = [row(each) for each in range(1, 4)]
        async with web.get(f"{house.url}/api/stream") as response:
            listener = Listener(response)
            house.view.table.append(row(4))
            assert await listener.event() == ("recorded", "4", 4)
            house.view.noted.append((7, 2))
            assert await listener.event() == ("corrected", None, 2)
            house.view.noted.append((5, 1))
            assert await listener.event() == ("corrected", None, 1)
            asked = house.view.asked
            await eventually(lambda: house.view.asked > asked + 4)
            house.view.table.append(row(5))
            assert await listener.event() == ("recorded", "5", 5)


async def test_the_correction_of_a_row_still_to_come_is_not_told(web: aiohttp.ClientSession) -> None:
    """A row that was corrected before it could be told is told once, as it is then."""
    async with running(limits=Limits(stream_look_seconds=0.02)) as house, web.get(f"{house.url}/api/stream") as response:
        listener = Listener(response)
        house.server.changed([9])
        house.view.noted.append((1, 9))
        asked = house.view.asked
        await eventually(lambda: house.view.asked > asked + 4)
        house.view.table.append(row(9))
        house.record(row(10))
        assert [await listener.event() for _ in range(2)] == [("recorded", "9", 9), ("recorded", "10", 10)]


async def test_who_falls_behind_reads_the_table(web: aiohttp.ClientSession) -> None:
    """More at once than the log holds is told all the same, in order, each row once."""
    async with running(limits=Limits(stream_log=10, stream_page_rows=7)) as house:
        house.view.table = [row(1)]
        async with web.get(f"{house.url}/api/stream") as response:
            listener = Listener(response)
            await listener.block()
            for each in range(2, 400):
                house.record(row(each))
            assert [(await listener.event())[2] for _ in range(2, 400)] == list(range(2, 400))


async def test_a_stream_without_a_database_opens_and_goes_on_when_it_is_there(web: aiohttp.ClientSession) -> None:
    """It is open though nothing can be read, and tells what is recorded later."""
    async with running(limits=Limits(stream_begin_seconds=0.02, stream_look_seconds=0.02, heartbeat_seconds=0.05)) as house:
        house.view.database_up = False
        async with web.get(f"{house.url}/api/stream") as response:
            listener = Listener(response)
            assert [await listener.block() for _ in range(2)] == [{"retry": "2000"}, {"": "still here"}]
            house.view.database_up = True
            asked = house.view.asked
            await eventually(lambda: house.view.asked > asked + 4)
            house.record(row(1))
            assert await listener.event() == ("recorded", "1", 1)


async def test_a_value_that_cannot_be_shown_ends_nothing(web: aiohttp.ClientSession) -> None:
    """A column of somebody else's raises when it is read: pages answer 503, and the feed goes on once it no longer does."""
    async with running(limits=Limits(stream_look_seconds=0.02)) as house, web.get(f"{house.url}/api/stream") as response:
        house.view.untold = True
        asked = house.view.asked
        await eventually(lambda: house.view.asked > asked + 4)
        async with web.get(f"{house.url}/api/changes") as page:
            assert page.status == 503
        house.view.untold = False
        house.record(row(1))
        assert await Listener(response).event() == ("recorded", "1", 1)


async def test_nobody_asks_the_database_while_nobody_listens(web: aiohttp.ClientSession) -> None:
    """The table is followed for listeners only; who comes after a pause is told only what comes then."""
    async with running(limits=Limits(stream_look_seconds=0.02)) as house:
        async with web.get(f"{house.url}/api/stream") as response:
            await Listener(response).block()
        await eventually(lambda: house.server.streams == 0)
        asked = house.view.asked
        for each in range(1, 51):
            house.record(row(each))
            await asyncio.sleep(0)
        assert house.view.asked <= asked + 3
        async with web.get(f"{house.url}/api/stream") as response:
            house.record(row(51))
            assert await Listener(response).event() == ("recorded", "51", 51)


async def test_a_slow_reader_is_dropped_and_the_door_does_not_notice(web: aiohttp.ClientSession) -> None:
    """Nobody waits for a reader who does not read; that one is cut off."""
    async with running(limits=Limits(stream_write_seconds=0.1)) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port, limit=1024)
        writer.write(b"GET /api/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(reader, b"retry")
        recorded = 0
        while house.server.streams:
            recorded += 1
            house.record(row(recorded, stage_to="x" * 100_000))
            assert (await post(web, house, stage_event())).status == 200
        writer.close()


async def test_the_number_of_streams_is_bounded(web: aiohttp.ClientSession) -> None:
    """One too many is asked to come later, and a place is free again as soon as a reader leaves."""
    async with running(limits=Limits(streams=1)) as house:
        first = await web.get(f"{house.url}/api/stream")
        async with web.get(f"{house.url}/api/stream") as second:
            assert second.status == 429
        first.close()
        statuses = [429]
        while statuses[-1] == 429:
            async with web.get(f"{house.url}/api/stream") as third:
                statuses.append(third.status)
        assert statuses[-1] == 200


async def test_streams_end_when_the_server_stops(web: aiohttp.ClientSession) -> None:
    """They do not hold up the end, and the reader sees a clean one."""
    async with running() as house, web.get(f"{house.url}/api/stream") as response:
        listener = Listener(response)
        await listener.block()
        async with asyncio.timeout(0.5):
            await house.server.stop(within_seconds=PATIENCE_SECONDS)
        assert await listener.block() == {}


async def test_a_stream_whose_past_cannot_be_read_ends(web: aiohttp.ClientSession) -> None:
    """Its reader comes back by itself, and misses nothing."""
    async with running() as house, web.get(f"{house.url}/api/stream") as another:
        await Listener(another).block()
        house.view.database_up = False
        async with web.get(f"{house.url}/api/stream?after=7") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
