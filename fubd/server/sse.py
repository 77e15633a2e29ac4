"""Server-sent events of recorded, corrected and removed changes.

One loop reads the table in id order, up to the id below which no row can appear any more, and appends what it finds to a log of limited
length. Each client reads that log at its own pace. So rows arrive in the order of their ids, whichever process recorded them, and
`Last-Event-ID` stands for everything sent before: rows up to an id, and corrections up to a number. A client that falls behind the start of
the log reads the tables instead. A client that stops reading is disconnected; it reconnects by itself and gets what it missed, corrections
of the last minute perhaps twice. Nothing ever waits for a client.
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
from fubd.ports import ChangeReader, Clock, Committed, ShownRow
from fubd.server.connections import NAME, Connection
from fubd.server.limits import ServerLimits
from fubd.server.throttle import ReadThrottle

RECORDED = "recorded"
CORRECTED = "corrected"
REMOVED = "removed"
HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    hdrs.CACHE_CONTROL: "no-store",
    # Asks proxies not to buffer the response.
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    hdrs.SERVER: NAME,
}
_HEARTBEAT = b": keep-alive\n\n"
_RECONNECT_DELAY = b"retry: 2000\n\n"
_NO_CLIENTS_SECONDS = 3600.0


class StreamPosition(NamedTuple):
    """What a client knows: the rows up to an id as corrected up to a number. None: no correction has to be sent again."""

    row_id: int
    correction: int | None = None


class _Event(NamedTuple):
    kind: str
    row_id: int
    correction: int
    data: bytes


def _event(kind: str, row: ShownRow, correction: int) -> _Event:
    # A correction has no event id: it would move the client's `Last-Event-ID` back to an old row.
    event_id = f"id: {row.id}-{correction}\n" if kind == RECORDED else ""
    # A column of type json keeps its line breaks, which would end the data line; between JSON tokens a space means the same.
    data = row.json.replace("\r", " ").replace("\n", " ")
    return _Event(kind, row.id, correction, f"{event_id}event: {kind}\ndata: {data}\n\n".encode())


def _removed(row_id: int, correction: int) -> _Event:
    """Return the event of a row that was merged into another, or forgotten."""
    return _Event(REMOVED, row_id, correction, f'event: {REMOVED}\ndata: {{"id":{row_id}}}\n\n'.encode())


class _Log:
    """The latest events, numbered since the process started. `end` is the number of the next event."""

    def __init__(self, size: int) -> None:
        self._events: deque[_Event] = deque(maxlen=size)
        self._notified = asyncio.Event()
        self.end = 0

    def append(self, events: Sequence[_Event]) -> None:
        """Add events and wake the waiting clients."""
        if events:
            self._events.extend(events)
            self.end += len(events)
            self.notify()

    def since(self, position: int) -> list[_Event] | None:
        """Return the events from a position on, or None if the log no longer has all of them."""
        missing = self.end - position
        if missing > len(self._events):
            return None
        return list(islice(self._events, len(self._events) - missing, None))

    def notify(self) -> None:
        """Wake every waiting client, also to let it find out that its connection has ended."""
        self._notified.set()
        self._notified = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        await self._notified.wait()


class _Corrections:
    """Remembers which corrections were sent.

    Their numbers are drawn before their transactions commit, so a correction may appear below the numbers already seen. `cursor`, from
    which they are read, therefore stays behind for longer than any transaction lasts.
    """

    def __init__(self, cursor: int, settle_seconds: float) -> None:
        self.cursor = cursor
        self._settle_seconds = settle_seconds
        self._seen: dict[int, float] = {}

    def unseen(self, found: Iterable[tuple[int, int]], now: float) -> list[int]:
        """Return the row ids of the corrections not seen before. `found`: number and row id, ascending; `now`: monotonic seconds."""
        new = [(number, row_id) for number, row_id in found if number not in self._seen]
        self._seen |= {number: now for number, _ in new}
        for number, seen in sorted(self._seen.items()):
            if now - seen < self._settle_seconds:
                break
            self.cursor = number
            del self._seen[number]
        return list(dict.fromkeys(row_id for _, row_id in new))


class EventStream:
    """Serves every open event stream from one loop that reads the table. `_last_id`: up to which id the log contains the table."""

    def __init__(self, changes: ChangeReader, throttle: ReadThrottle, clock: Clock, limits: ServerLimits) -> None:
        self._changes = changes
        self._throttle = throttle
        self._clock = clock
        self._limits = limits
        self._clients: set[Connection] = set()
        self._log = _Log(limits.stream_log_events)
        self._last_id: int | None = None
        self._started = asyncio.Event()
        self._corrections: _Corrections | None = None
        self._updated: dict[int, None] = {}
        self._wake = asyncio.Event()
        self._commits = 0
        self._closed = False

    @property
    def version(self) -> tuple[int, int]:
        """Return what differs once this process recorded something, or the loop found what another one recorded."""
        return self._commits, self._log.end

    def on_commit(self, committed: Committed) -> None:
        """Note a commit of this process. Other streams find new rows and corrections in the database; never waits."""
        self._commits += 1
        if self._clients:
            self._updated |= dict.fromkeys(committed.updated)
            self._wake.set()

    @property
    def client_count(self) -> int:
        """Return how many clients read the stream."""
        return len(self._clients)

    def close(self) -> None:
        """End every stream and accept no new one."""
        self._closed = True
        self._started.set()
        self._log.notify()

    # --- the loop that reads the table ---

    async def run(self, stop: asyncio.Event) -> None:
        """Append new rows and corrections to the log while there are clients, until `stop` is set."""
        while not stop.is_set():
            self._wake.clear()
            # While the table cannot be read, nothing is sent; afterwards, everything.
            with contextlib.suppress(Unavailable):
                if self._clients:
                    await self._read_table()
                else:
                    self._reset()
            await self._clock.pause(self._limits.stream_poll_seconds if self._clients else _NO_CLIENTS_SECONDS, self._wake, stop)

    def _reset(self) -> None:
        """Forget the position in the table: the next client starts with what is recorded from then on."""
        self._last_id, self._corrections = None, None
        self._started = asyncio.Event()
        self._updated.clear()

    async def _read_table(self) -> None:
        if self._last_id is None or self._corrections is None:
            self._corrections = _Corrections(await self._throttle.run(self._changes.last_correction_id), self._limits.stream_settle_seconds)
            self._last_id = await self._throttle.run(self._changes.safe_id)
            self._started.set()
        corrections = self._corrections
        safe_id, found = await self._throttle.run(self._changes.news, corrections.cursor, self._limits.stream_log_events)
        # Rows first: one that is read after its correction arrives as corrected.
        if safe_id > self._last_id:
            await self._read_new_rows(self._last_id, safe_id, corrections.cursor)
            # No row will appear between the last one and the safe id.
            self._last_id = max(self._last_id, safe_id)
        await self._send_updated(corrections, found)

    async def _read_new_rows(self, last_id: int, safe_id: int, correction: int) -> None:
        limit = self._limits.stream_page_rows
        while rows := await self._throttle.run(self._changes.page, last_id, limit, up_to=safe_id):
            self._last_id = last_id = rows[-1].id
            self._log.append([_event(RECORDED, row, correction) for row in rows])
            if len(rows) < limit:
                return

    async def _send_updated(self, corrections: _Corrections, found: Iterable[tuple[int, int]]) -> None:
        """Append the rows that were corrected: those of the corrections found, and those that this process committed."""
        self._updated |= dict.fromkeys(corrections.unseen(found, self._clock.monotonic()))
        if self._updated:
            updated, self._updated = self._updated, {}
            self._log.append(await self._events_of(list(updated), corrections.cursor))

    async def _events_of(self, row_ids: Sequence[int], correction: int) -> list[_Event]:
        """Return the events that say how corrected rows are now."""
        rows = await self._throttle.run(self._changes.by_ids, row_ids)
        removed = sorted(set(row_ids) - {row.id for row in rows})
        return [_event(CORRECTED, row, correction) for row in rows] + [_removed(row_id, correction) for row_id in removed]

    # --- one client ---

    async def handle(self, request: web.BaseRequest, after: StreamPosition | None) -> web.StreamResponse:
        """Stream what came after `after`, then new events. Without `after`, stream only new events."""
        connection = cast("Connection", request.protocol)
        if self._closed or len(self._clients) >= self._limits.streams or not connection.mark_streaming():
            # Not 503: the number of viewers says nothing about the health of the webhook route.
            return web.Response(status=429, text="too many streams\n", headers={hdrs.RETRY_AFTER: "5"})
        self._clients.add(connection)
        self._wake.set()
        connection.on_lost = self._log.notify
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()
        try:
            # Once the position is known, the client misses nothing. While the database is away, the response starts without it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.stream_open_timeout_seconds):
                    await self._started.wait()
            await response.prepare(request)
            await self._write(response, _RECONNECT_DELAY)
            await self._send_events(response, connection, after)
        except (ConnectionError, TimeoutError, Unavailable):
            # The client has gone, reads too slowly, or asks for rows that cannot be read now. It reconnects with its last event id.
            connection.abort()
        finally:
            connection.on_lost = None
            self._clients.discard(connection)
        return response

    async def _send_events(self, response: web.StreamResponse, connection: Connection, after: StreamPosition | None) -> None:
        while self._last_id is None or self._corrections is None:
            if self._has_ended(connection):
                return
            await self._wait_with_heartbeat(response, self._started.wait())
        position = self._log.end
        # The loop resets neither while there is a client.
        corrections = self._corrections
        last = StreamPosition(self._last_id, corrections.cursor)
        if after is not None:
            last = await self._send_from_tables(response, after, corrections.cursor)
        while not self._has_ended(connection):
            events = self._log.since(position)
            if events is None:
                position = self._log.end
                last = await self._send_from_tables(response, last, corrections.cursor)
            elif events:
                position += len(events)
                last = await self._send_from_log(response, events, last)
            else:
                await self._wait_with_heartbeat(response, self._log.wait())

    def _has_ended(self, connection: Connection) -> bool:
        return self._closed or connection.transport is None

    async def _wait_with_heartbeat(self, response: web.StreamResponse, happening: Awaitable[object]) -> None:
        """Wait, or write a heartbeat when the wait takes too long."""
        try:
            async with asyncio.timeout(self._limits.heartbeat_seconds):
                await happening
        except TimeoutError:
            await self._write(response, _HEARTBEAT)

    async def _send_from_log(self, response: web.StreamResponse, events: Sequence[_Event], last: StreamPosition) -> StreamPosition:
        """Write each row once, and corrections only of rows already sent: a later row arrives in its corrected form."""
        wanted = []
        for event in events:
            if (event.kind == RECORDED) == (event.row_id > last.row_id):
                wanted.append(event.data)
            last = StreamPosition(max(last.row_id, event.row_id) if event.kind == RECORDED else last.row_id, event.correction)
        if wanted:
            await self._write(response, b"".join(wanted))
        return last

    async def _send_from_tables(self, response: web.StreamResponse, last: StreamPosition, correction: int) -> StreamPosition:
        """Write the corrections of rows up to `last`, then the rows above it, which are as of the correction with this number or later."""
        await self._send_corrections(response, last)
        row_id = last.row_id
        while rows := await self._throttle.run(self._changes.page, row_id, self._limits.stream_page_rows):
            row_id = rows[-1].id
            await self._write(response, b"".join(_event(RECORDED, row, correction).data for row in rows))
        return StreamPosition(row_id, correction)

    async def _send_corrections(self, response: web.StreamResponse, last: StreamPosition) -> None:
        number, limit = last.correction, self._limits.stream_page_rows
        while number is not None:
            found = await self._throttle.run(self._changes.corrections, number, limit)
            row_ids = list(dict.fromkeys(row_id for _, row_id in found if row_id <= last.row_id))
            if row_ids:
                await self._write(response, b"".join(event.data for event in await self._events_of(row_ids, number)))
            number = found[-1][0] if len(found) == limit else None

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._limits.stream_write_timeout_seconds):
            await response.write(data)
