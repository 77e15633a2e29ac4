"""The live feed of the whole daemon, on a real table that others write to as well."""

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

from tests.recorder import recorder, webhook
from tests.server.senders import connect, until
from tests.stack import House, event, house
from tests.support.waiting import eventually


@asynccontextmanager
async def listening(built: House, place: int | None = None, query: str = "") -> AsyncIterator[list[tuple[str, int]]]:
    """Listen until the block ends: what was told so far, kind and id."""
    told: list[tuple[str, int]] = []
    headers = {} if place is None else {"Last-Event-ID": str(place)}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{built.url}/api/stream{query}", headers=headers) as response,
    ):
        assert response.status == 200

        async def listen() -> None:
            kind = ""
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    told.append((kind, json.loads(value)["id"]))

        listener = asyncio.create_task(listen())
        try:
            yield told
        finally:
            listener.cancel()


async def _made(built: House) -> list[int]:
    return [row["id"] for row in await built.fetch("SELECT id FROM public.stage_changes ORDER BY id")]


def _recorded(told: list[tuple[str, int]]) -> list[int]:
    return [row_id for kind, row_id in told if kind == "recorded"]


async def _hears(told: list[tuple[str, int]], made: list[int]) -> None:
    """Wait until so many rows were told, and hold them against those made."""
    await eventually(lambda: len(_recorded(told)) >= len(made))
    assert _recorded(told) == made


def _bodies(prefix: str, people: range) -> list[bytes]:
    """Tell of people whom the account does not know, so that no read adds to what is told."""
    at = datetime.now(UTC) - timedelta(hours=1)
    return [event(f"{prefix}-{person}", "Nurture", at, [person]) for person in people]


async def test_what_any_process_records_is_told_once_and_in_order(shared: House) -> None:
    """Two daemons and a recorder beside them write at once; each listener has every row once, by id, also one who came late."""
    other = shared.beside()
    other.environ["FUBD_MANAGE_WEBHOOKS"] = "false"
    async with AsyncExitStack() as opened:
        process = await opened.enter_async_context(other.daemon())
        await process.answers(f"{other.url}/readyz")
        recording = await opened.enter_async_context(recorder(shared.database, instance="recovery"))
        listeners = [await opened.enter_async_context(listening(built)) for built in (shared, other)]
        await asyncio.gather(
            *(shared.post(body) for body in _bodies("one", range(900_001, 900_031))),
            *(other.post(body) for body in _bodies("two", range(900_031, 900_061))),
            *(recording.record(webhook(f"r-{person}", "Lead", "10:00", people=(person,))) for person in range(80_001, 80_031)),
        )
        listeners.append(await opened.enter_async_context(listening(shared, query="?after=0")))
        made = await _made(shared)
        assert len(made) == 90
        for told in listeners:
            await _hears(told, made)


async def test_a_correction_by_another_process_is_told(shared: House) -> None:
    """A late webhook that lands before a row, taken by another instance, corrects it; who listens here is told of both rows."""
    async with recorder(shared.database, instance="another") as another, listening(shared) as told:
        await another.record(webhook("c-2", "Offer", "10:05", people=(70_001,)))
        await eventually(lambda: told)
        await another.record(webhook("c-1", "Lead", "10:00", people=(70_001,)))
        first, second = await _made(shared)
        await eventually(lambda: len(told) == 3)
        assert sorted(told[1:]) == [("corrected", first), ("recorded", second)]


async def test_a_column_with_lines_of_its_own_stays_in_its_event(shared: House) -> None:
    """An older table may keep JSON as it was written, over several lines; a row is one line of data all the same."""
    written = '{\n\r\n"event": \r1}'
    await shared.fetch(f"ALTER TABLE public.stage_changes ADD COLUMN told json DEFAULT '{written}'")
    async with listening(shared) as told:
        assert (await shared.post(_bodies("lines", range(900_001, 900_002))[0]))[0] == 200
        await _hears(told, await _made(shared))


async def test_a_stream_goes_on_where_it_broke_when_the_daemon_is_new(database: str, tmp_path: Path) -> None:
    """Killed and started again, with rows recorded before, between and after: `Last-Event-ID` brings each once."""
    async with house(database, tmp_path) as built:
        async with built.ready() as process, listening(built) as told:
            await asyncio.gather(*(built.post(body) for body in _bodies("before", range(900_001, 900_011))))
            await _hears(told, await _made(built))
            process.kill()
        last = told[-1][1]
        async with recorder(database, instance="between") as between:
            await between.record(webhook("between", "Lead", "10:00", people=(70_001, 70_002)))
        async with built.ready(), listening(built, place=last) as more:
            await asyncio.gather(*(built.post(body) for body in _bodies("after", range(900_011, 900_021))))
            made = await _made(built)
            await _hears(more, [row_id for row_id in made if row_id > last])
            assert _recorded(told) + _recorded(more) == made


async def test_two_hundred_readers_who_do_not_read_do_not_slow_the_door(shared: House) -> None:
    """They ask for the stream from the beginning and take nothing; a delivery takes about as long as without them, in the same run."""
    numbers = itertools.count()

    async def seconds(deliveries: int) -> float:
        """Give the median of so many, one after the other."""
        took = []
        for _ in range(deliveries):
            body = event(f"timed-{next(numbers)}", "Nurture", datetime.now(UTC) - timedelta(hours=2), [90_001 + next(numbers) % 100])
            began = time.perf_counter()
            assert (await shared.post(body))[0] == 200
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    await seconds(20)
    alone = await seconds(80)
    stuck = [await connect(shared) for _ in range(200)]
    for _, writer in stuck:
        writer.write(b"GET /api/stream?after=0 HTTP/1.1\r\nHost: a\r\n\r\n")
    statuses = [(await until(reader, b"\r\n"))[9:12] for reader, _ in stuck]
    # Their number is bounded; the others are asked to come later.
    assert {status: statuses.count(status) for status in statuses} == {b"200": 50, b"429": 150}
    beside = await seconds(80)
    for _, writer in stuck:
        writer.close()
    assert beside < 3 * max(alone, await seconds(40))
