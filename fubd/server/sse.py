"""The live feed: server-sent events to whoever listens.

One part follows the table by id, as far as no row can appear between the others any more, and puts what it finds into a log of bounded
length; each listener walks along the log at its own pace. So rows come in the order of their ids, whichever process recorded them, and
`Last-Event-ID` stands for all that was told before. Who falls behind the beginning of the log reads the table instead; who takes nothing
for too long is cut off, comes back by itself, and is told what it missed. Nobody ever waits for a listener.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple, cast

from aiohttp import hdrs, web

from fubd.errors import Unavailable
from fubd.ports import Clock, ShownRow
from fubd.server.connections import NAME, Connection
from fubd.server.limits import Limits
from fubd.server.view import View

RECORDED = "recorded"
CORRECTED = "corrected"
HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    hdrs.CACHE_CONTROL: "no-store",
    # Asks proxies not to gather what should arrive at once.
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    hdrs.SERVER: NAME,
}
_HEARTBEAT = b": still here\n\n"
_OPENING = b"retry: 2000\n\n"
_ASLEEP_SECONDS = 3600.0


class _Event(NamedTuple):
    kind: str
    row_id: int
    data: bytes


def _event(kind: str, row: ShownRow) -> _Event:
    # A correction bears no id: it would set the reader's place back to an old row.
    place = f"id: {row.id}\n" if kind == RECORDED else ""
    # A column of type json is shown as it was written; between its parts a line's end is as good as a space.
    data = row.json.replace("\r", " ").replace("\n", " ")
    return _Event(kind, row.id, f"{place}event: {kind}\ndata: {data}\n\n".encode())


class _Log:
    """The last events, numbered from the first that ever was. `end` is the number of the next."""

    def __init__(self, size: int) -> None:
        self._events: deque[_Event] = deque(maxlen=size)
        self._stirred = asyncio.Event()
        self.end = 0

    def put(self, events: Sequence[_Event]) -> None:
        """Add events, and wake who waits for them."""
        if events:
            self._events.extend(events)
            self.end += len(events)
            self.stir()

    def after(self, place: int) -> list[_Event] | None:
        """Give the events from that number on; None when they are not all there any more."""
        missing = self.end - place
        if missing > len(self._events):
            return None
        return list(islice(self._events, len(self._events) - missing, None))

    def stir(self) -> None:
        """Wake everybody, if only to look whether they are still wanted."""
        self._stirred.set()
        self._stirred = asyncio.Event()

    async def stirring(self) -> None:
        """Wait until something happens."""
        await self._stirred.wait()


class _Corrections:
    """Which corrections were told already.

    They are noted under numbers that are drawn before the commit as well, and one may appear below those that were seen: so the mark
    from which they are looked at stays behind for longer than a transaction may take.
    """

    def __init__(self, mark: int, settle_seconds: float) -> None:
        self.mark = mark
        self._settle_seconds = settle_seconds
        self._seen: dict[int, float] = {}

    def fresh(self, found: Iterable[tuple[int, int]], now: float) -> list[int]:
        """Give the rows whose correction was not seen before. `found`: number and row of each, ascending; `now` on a steady clock."""
        told = {row_id: None for number, row_id in found if number not in self._seen}
        self._seen |= {number: now for number, _ in found if number not in self._seen}
        for number, seen in sorted(self._seen.items()):
            if now - seen < self._settle_seconds:
                break
            self.mark = number
            del self._seen[number]
        return list(told)


class EventStream:
    """All open streams, and the part that follows the table for them. `told`: up to which id the log knows the table."""

    def __init__(self, view: View, clock: Clock, limits: Limits) -> None:
        self._view = view
        self._clock = clock
        self._limits = limits
        self._listeners: set[Connection] = set()
        self._log = _Log(limits.stream_log)
        self._told: int | None = None
        self._begun = asyncio.Event()
        self._corrections: _Corrections | None = None
        self._changed: dict[int, None] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def changed(self, row_ids: Iterable[int] = ()) -> None:
        """Note that this process has committed something, and which standing rows it changed without noting a correction. Never waits."""
        if self._listeners:
            self._changed |= dict.fromkeys(row_ids)
            self._wake.set()

    def count(self) -> int:
        """Give how many listen."""
        return len(self._listeners)

    def close(self) -> None:
        """End every stream, and take no new one."""
        self._closed = True
        self._begun.set()
        self._log.stir()

    # --- following the table ---

    async def follow(self, stop: asyncio.Event) -> None:
        """Read what is new, whoever recorded it, while anybody listens; until told to stop."""
        while not stop.is_set():
            self._wake.clear()
            try:
                if self._listeners:
                    await self._look()
                else:
                    self._rest()
            except Unavailable:
                # Nobody is told anything until the table can be read, and then everything.
                pass
            await self._clock.pause(self._limits.stream_look_seconds if self._listeners else _ASLEEP_SECONDS, self._wake, stop)

    def _rest(self) -> None:
        """Nobody listens: who comes next begins anew."""
        self._told, self._corrections = None, None
        self._begun = asyncio.Event()
        self._changed.clear()

    async def _look(self) -> None:
        if self._told is None or self._corrections is None:
            self._corrections = _Corrections(await self._view.last_correction(), self._limits.stream_settle_seconds)
            self._told = await self._view.settled()
            self._begun.set()
        await self._look_for_rows(self._told)
        await self._look_for_corrections(self._corrections)

    async def _look_for_rows(self, told: int) -> None:
        most = self._limits.stream_page_rows
        while rows := await self._view.changes(told, most):
            self._told = told = rows[-1].id
            self._log.put([_event(RECORDED, row) for row in rows])
            if len(rows) < most:
                return

    async def _look_for_corrections(self, corrections: _Corrections) -> None:
        noted = await self._view.corrections(corrections.mark, self._limits.stream_log)
        self._changed |= dict.fromkeys(corrections.fresh(noted, self._clock.monotonic()))
        if self._changed:
            changed, self._changed = self._changed, {}
            self._log.put([_event(CORRECTED, row) for row in await self._view.rows(list(changed))])

    # --- one listener ---

    async def answer(self, request: web.BaseRequest, after: int | None) -> web.StreamResponse:
        """Stream the rows after that id, then what comes; without an id only what comes."""
        if self._closed or len(self._listeners) >= self._limits.streams:
            # Not 503: the door's own health must not be judged by who watches.
            return web.Response(status=429, text="too many streams\n", headers={hdrs.RETRY_AFTER: "5"})
        connection = cast("Connection", request.protocol)
        self._listeners.add(connection)
        self._wake.set()
        connection.on_lost = self._log.stir
        connection.stream()
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()
        try:
            # What is recorded after the answer has begun is told; while the database is away, the answer begins nevertheless.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.stream_begin_seconds):
                    await self._begun.wait()
            await response.prepare(request)
            await self._write(response, _OPENING)
            await self._tell(response, connection, after)
        except (ConnectionError, TimeoutError, Unavailable):
            # Gone, too slow, or its past cannot be read now: it comes back and says where it was.
            connection.abort()
        finally:
            connection.on_lost = None
            self._listeners.discard(connection)
        return response

    async def _tell(self, response: web.StreamResponse, connection: Connection, after: int | None) -> None:
        while self._told is None:
            if self._ended(connection):
                return
            await self._wait(response, self._begun.wait())
        place = self._log.end
        told = self._told if after is None else await self._catch_up(response, after)
        while not self._ended(connection):
            events = self._log.after(place)
            if events is None:
                place = self._log.end
                told = await self._catch_up(response, told)
            elif events:
                place += len(events)
                told = await self._pass_on(response, events, told)
            else:
                await self._wait(response, self._log.stirring())

    def _ended(self, connection: Connection) -> bool:
        return self._closed or connection.transport is None

    async def _wait(self, response: web.StreamResponse, happening: Awaitable[object]) -> None:
        """Wait, but say now and then that we are still here."""
        try:
            async with asyncio.timeout(self._limits.heartbeat_seconds):
                await happening
        except TimeoutError:
            await self._write(response, _HEARTBEAT)

    async def _pass_on(self, response: web.StreamResponse, events: Sequence[_Event], told: int) -> int:
        """Write events; a row once, and the correction only of a row that was told: one still to come comes as it is then."""
        wanted = []
        for event in events:
            if (event.kind == RECORDED) == (event.row_id > told):
                wanted.append(event.data)
                told = max(told, event.row_id)
        if wanted:
            await self._write(response, b"".join(wanted))
        return told

    async def _catch_up(self, response: web.StreamResponse, told: int) -> int:
        """Write what the table holds after that id; gives the last id told."""
        while rows := await self._view.changes(told, self._limits.stream_page_rows):
            told = rows[-1].id
            await self._write(response, b"".join(_event(RECORDED, row).data for row in rows))
        return told

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._limits.stream_write_seconds):
            await response.write(data)
