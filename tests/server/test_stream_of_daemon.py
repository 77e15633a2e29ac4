"""The event stream of the whole daemon, on a real table that other processes also write to."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from tests.recorder import running_recorder, webhook
from tests.server.senders import connect, until
from tests.stack import Stack, event, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


@asynccontextmanager
async def listening(stack: Stack, last_event_id: int | None = None, query: str = "") -> AsyncIterator[list[tuple[str, int]]]:
    """Read the stream until the block ends. Yields the events received so far: kind and row id."""
    events: list[tuple[str, int]] = []
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{stack.url}/api/stream{query}", headers=headers) as response,
    ):
        assert response.status == 200

        async def listen() -> None:
            kind = ""
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    events.append((kind, json.loads(value)["id"]))

        listener = asyncio.create_task(listen())
        try:
            yield events
        finally:
            listener.cancel()


async def _row_ids(stack: Stack) -> list[int]:
    return [row["id"] for row in await stack.fetch("SELECT id FROM public.stage_changes ORDER BY id")]


def _recorded(events: list[tuple[str, int]]) -> list[int]:
    return [row_id for kind, row_id in events if kind == "recorded"]


async def _expect(events: list[tuple[str, int]], row_ids: list[int]) -> None:
    """Wait for as many recorded rows, and compare them with those of the table."""
    await eventually(lambda: len(_recorded(events)) >= len(row_ids))
    assert _recorded(events) == row_ids


def _bodies(prefix: str, people: range) -> list[bytes]:
    """Return webhooks of people who are not in the account, so that no read adds an event."""
    at = datetime.now(UTC) - timedelta(hours=1)
    return [event(f"{prefix}-{person}", "Nurture", at, [person]) for person in people]


async def test_rows_of_any_process_are_sent_once_and_in_order(ready_stack: Stack) -> None:
    """Two daemons and a recorder write at the same time; each client gets every row once, by id, also one that connects later."""
    other = ready_stack.second_instance()
    other.environ["FUBD_MANAGE_WEBHOOKS"] = "false"
    async with AsyncExitStack() as opened:
        process = await opened.enter_async_context(other.daemon())
        await process.answers(f"{other.url}/readyz")
        recording = await opened.enter_async_context(running_recorder(ready_stack.database, instance="recovery"))
        listeners = [await opened.enter_async_context(listening(stack)) for stack in (ready_stack, other)]
        await asyncio.gather(
            *(ready_stack.post(body) for body in _bodies("one", range(900_001, 900_031))),
            *(other.post(body) for body in _bodies("two", range(900_031, 900_061))),
            *(recording.record(webhook(f"r-{person}", "Lead", "10:00", people=(person,))) for person in range(80_001, 80_031)),
        )
        listeners.append(await opened.enter_async_context(listening(ready_stack, query="?after=0")))
        row_ids = await _row_ids(ready_stack)
        assert len(row_ids) == 90
        for events in listeners:
            await _expect(events, row_ids)


async def test_a_correction_by_another_process_is_sent(ready_stack: Stack) -> None:
    """A late webhook, recorded by another instance before a row, corrects that row; clients here get both rows."""
    async with running_recorder(ready_stack.database, instance="another") as another, listening(ready_stack) as events:
        await another.record(webhook("c-2", "Offer", "10:05", people=(70_001,)))
        await eventually(lambda: events)
        await another.record(webhook("c-1", "Lead", "10:00", people=(70_001,)))
        first, second = await _row_ids(ready_stack)
        await eventually(lambda: len(events) == 3)
        assert sorted(events[1:]) == [("corrected", first), ("recorded", second)]


async def test_line_breaks_in_a_json_column_do_not_break_the_event(ready_stack: Stack) -> None:
    """A json column of an older table keeps line breaks; a row is still one line of data."""
    written = '{\n\r\n"event": \r1}'
    await ready_stack.fetch(f"ALTER TABLE public.stage_changes ADD COLUMN extra json DEFAULT '{written}'")
    async with listening(ready_stack) as events:
        assert (await ready_stack.post(_bodies("lines", range(900_001, 900_002))[0]))[0] == 200
        await _expect(events, await _row_ids(ready_stack))


async def test_a_stream_resumes_at_a_restarted_daemon(database: str, tmp_path: Path) -> None:
    """The daemon is killed and started again, with rows recorded before, between and after: `Last-Event-ID` brings each once."""
    async with running_stack(database, tmp_path) as stack:
        async with stack.ready_daemon() as process, listening(stack) as events:
            await asyncio.gather(*(stack.post(body) for body in _bodies("before", range(900_001, 900_011))))
            await _expect(events, await _row_ids(stack))
            process.kill()
        last = events[-1][1]
        async with running_recorder(database, instance="between") as between:
            await between.record(webhook("between", "Lead", "10:00", people=(70_001, 70_002)))
        async with stack.ready_daemon(), listening(stack, last_event_id=last) as more:
            await asyncio.gather(*(stack.post(body) for body in _bodies("after", range(900_011, 900_021))))
            row_ids = await _row_ids(stack)
            await _expect(more, [row_id for row_id in row_ids if row_id > last])
            assert _recorded(events) + _recorded(more) == row_ids


async def test_two_hundred_clients_that_do_not_read_do_not_slow_deliveries(ready_stack: Stack) -> None:
    """They request the stream from the beginning and read nothing; a delivery takes about as long as without them, in the same run."""
    numbers = itertools.count()

    async def seconds(deliveries: int) -> float:
        """Return the median time of deliveries, one after the other."""
        took = []
        for _ in range(deliveries):
            body = event(f"timed-{next(numbers)}", "Nurture", datetime.now(UTC) - timedelta(hours=2), [90_001 + next(numbers) % 100])
            began = time.perf_counter()
            assert (await ready_stack.post(body))[0] == 200
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    await seconds(20)
    alone = await seconds(80)
    stuck = [await connect(ready_stack) for _ in range(200)]
    for _, writer in stuck:
        writer.write(b"GET /api/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    statuses = [(await until(reader, b"\r\n"))[9:12] for reader, _ in stuck]
    # The number of streams is limited; the others are answered 429.
    assert {status: statuses.count(status) for status in statuses} == {b"200": 50, b"429": 150}
    with_clients = await seconds(80)
    for _, writer in stuck:
        writer.close()
    assert with_clients < 3 * max(alone, await seconds(40))
