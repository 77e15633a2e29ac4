"""The event stream."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from fubd.ports import Committed
from fubd.server import ServerLimits
from tests.server.fakes import ServerUnderTest, row, running_server, stage_event
from tests.server.senders import PATIENCE_SECONDS, post, until
from tests.support.waiting import eventually


class Listener:
    """Reads one stream, event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def block(self) -> dict[str, str]:
        """Return the next block: field to value, a comment under the empty name. Empty at the end."""
        fields: dict[str, str] = {}
        async for line in self._content:
            if line == b"\n":
                return fields
            name, _, value = line.decode().rstrip("\n").partition(":")
            fields[name] = value.strip()
        return fields

    async def event(self) -> tuple[str, str | None, int]:
        """Return kind, event id and row id of the next event."""
        while True:
            block = await self.block()
            if "event" in block:
                return block["event"], block.get("id"), json.loads(block["data"])["id"]
            assert block


async def test_recorded_and_corrected_rows_are_sent(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """A new row has its id and the number of a correction as event id. A correction has none: it would move `Last-Event-ID` back."""
    server.view.table = [row(3)]
    async with web.get(f"{server.url}/api/stream") as response:
        assert response.content_type == "text/event-stream"
        listener = Listener(response)
        assert await listener.block() == {"retry": "2000"}
        server.record(row(8))
        assert await listener.event() == ("recorded", "8-0", 8)
        server.correct(row(3, stage_to="Closed"))
        assert await listener.event() == ("corrected", None, 3)
        server.correct(row(3, confirmed_by="polling"), noted=False)
        assert await listener.event() == ("corrected", None, 3)
        server.record(row(9))
        assert await listener.event() == ("recorded", "9-0", 9)


async def test_a_removed_row_is_sent_by_its_id(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """A row that was merged into another one is no longer in the table."""
    server.view.table = [row(3), row(4)]
    async with web.get(f"{server.url}/api/stream") as response:
        listener = Listener(response)
        server.record(row(8))
        assert await listener.event() == ("recorded", "8-0", 8)
        del server.view.table[0]
        server.view.corrected.append((1, 3))
        server.record(row(9))
        assert sorted([await listener.event() for _ in range(2)]) == [("recorded", "9-0", 9), ("removed", None, 3)]


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        ("", "1497", [1498, 1499, 1500]),
        ("?after=1497", None, [1498, 1499, 1500]),
        ("?after=3", "1498", [1499, 1500]),
        ("?after=1499", "x", [1500]),
        ("?after=1499", "1497-x", [1500]),
        ("?after=1499", "1497-0", [1498, 1499, 1500]),
    ],
)
async def test_a_stream_resumes_after_the_last_id(
    server: ServerUnderTest, web: aiohttp.ClientSession, query: str, header: str | None, expected: list[int]
) -> None:
    """Rows recorded since come first, then new ones, each row once."""
    server.view.table = [row(each) for each in range(1, 1501)]
    headers = {} if header is None else {"Last-Event-ID": header}
    async with web.get(f"{server.url}/api/stream{query}", headers=headers) as response:
        listener = Listener(response)
        assert [(await listener.event())[2] for _ in expected] == expected
        server.record(row(1501))
        assert (await listener.event())[2] == 1501


async def test_corrections_while_a_client_was_away_are_sent_when_it_resumes(web: aiohttp.ClientSession) -> None:
    """Of the rows that it knows, those corrected or removed come first, page by page; the others come as they are."""
    async with running_server(limits=ServerLimits(stream_page_rows=2)) as server:
        server.view.table = [row(each) for each in (1, 2, 4, 5, 6)]
        server.view.corrected = [(7, 1), (8, 3), (9, 2), (11, 6), (12, 2)]
        async with web.get(f"{server.url}/api/stream", headers={"Last-Event-ID": "4-7"}) as response:
            listener = Listener(response)
            events = [await listener.event() for _ in range(5)]
        # One correction may be sent twice: each page is read by itself.
        assert events == [
            ("corrected", None, 2),
            ("removed", None, 3),
            ("corrected", None, 2),
            ("recorded", "5-12", 5),
            ("recorded", "6-12", 6),
        ]


async def test_many_past_rows_are_sent_page_by_page(web: aiohttp.ClientSession) -> None:
    """A client may have missed more than one page."""
    async with running_server(limits=ServerLimits(stream_page_rows=100)) as server:
        server.view.table = [row(each) for each in range(1, 301)]
        async with web.get(f"{server.url}/api/stream?after=0") as response:
            listener = Listener(response)
            assert [(await listener.event())[2] for _ in range(300)] == list(range(1, 301))


async def test_a_quiet_stream_has_a_heartbeat(web: aiohttp.ClientSession) -> None:
    """A comment at intervals keeps proxies from closing it."""
    async with running_server(limits=ServerLimits(heartbeat_seconds=0.02)) as server, web.get(f"{server.url}/api/stream") as response:
        listener = Listener(response)
        await listener.block()
        assert await listener.block() == {"": "keep-alive"}


async def test_rows_and_corrections_of_other_processes_are_sent(web: aiohttp.ClientSession) -> None:
    """They are found in the table, each once, also a correction that appears later with a lower id."""
    async with running_server(limits=ServerLimits(stream_poll_seconds=0.02)) as server:
        server.view.table = [row(each) for each in range(1, 4)]
        async with web.get(f"{server.url}/api/stream") as response:
            listener = Listener(response)
            server.view.table.append(row(4))
            assert await listener.event() == ("recorded", "4-0", 4)
            server.view.corrected.append((7, 2))
            assert await listener.event() == ("corrected", None, 2)
            server.view.corrected.append((5, 1))
            assert await listener.event() == ("corrected", None, 1)
            reads = server.view.reads
            await eventually(lambda: server.view.reads > reads + 4)
            server.view.table.append(row(5))
            assert await listener.event() == ("recorded", "5-0", 5)


async def test_the_correction_of_a_row_not_sent_yet_is_left_out(web: aiohttp.ClientSession) -> None:
    """A row that was corrected before it was sent is sent once, in its corrected form."""
    async with running_server(limits=ServerLimits(stream_poll_seconds=0.02)) as server, web.get(f"{server.url}/api/stream") as response:
        listener = Listener(response)
        server.stream.on_commit(Committed(updated=[9]))
        server.view.corrected.append((1, 9))
        reads = server.view.reads
        await eventually(lambda: server.view.reads > reads + 4)
        server.view.table.append(row(9))
        server.record(row(10))
        assert [await listener.event() for _ in range(2)] == [("recorded", "9-0", 9), ("recorded", "10-0", 10)]


async def test_a_client_that_falls_behind_gets_rows_from_the_table(web: aiohttp.ClientSession) -> None:
    """More rows at once than the log holds are still sent in order, each once."""
    async with running_server(limits=ServerLimits(stream_log_events=10, stream_page_rows=7)) as server:
        server.view.table = [row(1)]
        async with web.get(f"{server.url}/api/stream") as response:
            listener = Listener(response)
            await listener.block()
            for each in range(2, 400):
                server.record(row(each))
            assert [(await listener.event())[2] for _ in range(2, 400)] == list(range(2, 400))


async def test_a_stream_opens_while_the_database_is_away(web: aiohttp.ClientSession) -> None:
    """It sends heartbeats, and then the rows recorded once the database is back."""
    async with running_server(
        limits=ServerLimits(stream_open_timeout_seconds=0.02, stream_poll_seconds=0.02, heartbeat_seconds=0.05)
    ) as server:
        server.view.database_up = False
        async with web.get(f"{server.url}/api/stream") as response:
            listener = Listener(response)
            assert [await listener.block() for _ in range(2)] == [{"retry": "2000"}, {"": "keep-alive"}]
            server.view.database_up = True
            reads = server.view.reads
            await eventually(lambda: server.view.reads > reads + 4)
            server.record(row(1))
            assert await listener.event() == ("recorded", "1-0", 1)


async def test_a_value_that_cannot_be_shown_does_not_end_the_stream(web: aiohttp.ClientSession) -> None:
    """A value in another writer's column cannot be read: pages answer 503, and the stream continues once it is gone."""
    async with running_server(limits=ServerLimits(stream_poll_seconds=0.02)) as server, web.get(f"{server.url}/api/stream") as response:
        server.view.unreadable = True
        reads = server.view.reads
        await eventually(lambda: server.view.reads > reads + 4)
        async with web.get(f"{server.url}/api/changes") as page:
            assert page.status == 503
        server.view.unreadable = False
        server.record(row(1))
        assert await Listener(response).event() == ("recorded", "1-0", 1)


async def test_the_database_is_not_read_while_there_are_no_clients(web: aiohttp.ClientSession) -> None:
    """A client that comes after a pause gets only the rows recorded from then on."""
    async with running_server(limits=ServerLimits(stream_poll_seconds=0.02)) as server:
        async with web.get(f"{server.url}/api/stream") as response:
            await Listener(response).block()
        await eventually(lambda: server.stream.client_count == 0)
        reads = server.view.reads
        for each in range(1, 51):
            server.record(row(each))
            await asyncio.sleep(0)
        assert server.view.reads <= reads + 3
        async with web.get(f"{server.url}/api/stream") as response:
            server.record(row(51))
            assert await Listener(response).event() == ("recorded", "51-0", 51)


async def test_a_client_that_does_not_read_is_disconnected(web: aiohttp.ClientSession) -> None:
    """Deliveries are recorded without waiting for it."""
    async with running_server(limits=ServerLimits(stream_write_timeout_seconds=0.1)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http.port, limit=1024)
        writer.write(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(reader, b"retry")
        recorded = 0
        while server.stream.client_count:
            recorded += 1
            server.record(row(recorded, stage_to="x" * 100_000))
            assert (await post(web, server, stage_event())).status == 200
        writer.close()


async def test_the_number_of_streams_is_bounded(web: aiohttp.ClientSession) -> None:
    """One too many is answered 429, and a place is free as soon as a client leaves."""
    async with running_server(limits=ServerLimits(streams=1)) as server:
        first = await web.get(f"{server.url}/api/stream")
        async with web.get(f"{server.url}/api/stream") as second:
            assert second.status == 429
        first.close()
        statuses = [429]
        while statuses[-1] == 429:
            async with web.get(f"{server.url}/api/stream") as third:
                statuses.append(third.status)
        assert statuses[-1] == 200


async def test_streams_end_when_the_server_stops(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """They do not delay the stop, and they end cleanly."""
    async with web.get(f"{server.url}/api/stream") as response:
        listener = Listener(response)
        await listener.block()
        async with asyncio.timeout(5.0):
            await server.http.stop(within_seconds=PATIENCE_SECONDS)
        assert await listener.block() == {}


async def test_a_stream_ends_when_its_past_rows_cannot_be_read(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """Its client reconnects by itself, and misses nothing."""
    async with web.get(f"{server.url}/api/stream") as another:
        await Listener(another).block()
        server.view.database_up = False
        async with web.get(f"{server.url}/api/stream?after=7") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
