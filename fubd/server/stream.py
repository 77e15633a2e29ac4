"""The live feed: server-sent events to whoever listens, each behind a bounded queue of its own.

A reader too slow to keep up is cut off; it comes back by itself with `Last-Event-ID` and is told what it missed. Publishing never waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import cast

from aiohttp import hdrs, web

from fubd.ports import Unavailable
from fubd.server.connections import Connection
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
}
_HEARTBEAT = b": still here\n\n"
_OPENING = b"retry: 2000\n\n"


def to_json(value: object) -> str:
    """Write JSON; instants as ISO 8601 in UTC. A time without zone, in a table of the older scripts, holds UTC."""
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    # A column that somebody added may have any type; its text says more than an error.
    return str(value)


def _event(kind: str, row: Mapping[str, object]) -> tuple[int, bytes]:
    row_id = int(cast("int", row["id"]))
    # A correction bears no id: it would set the reader's place back to an old row.
    place = f"id: {row_id}\n" if kind == RECORDED else ""
    return row_id, f"{place}event: {kind}\ndata: {to_json(row)}\n\n".encode()


class _Listener:
    """One open stream. Its queue holds what is still to be written; None ends it."""

    def __init__(self, connection: Connection, size: int) -> None:
        self.queue: asyncio.Queue[tuple[str, int, bytes] | None] = asyncio.Queue(size)
        self._connection = connection

    def tell(self, item: tuple[str, int, bytes]) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self._connection.abort()

    def end(self) -> None:
        """Wake the writer so that it ends; what is still queued is let go."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Stream:
    """All open streams."""

    def __init__(self, view: View, limits: Limits) -> None:
        self._view = view
        self._limits = limits
        self._listeners: set[_Listener] = set()
        self._closed = False

    def publish(self, kind: str, row: Mapping[str, object]) -> None:
        """Tell every listener of a row (as `View.changes` gives it) that was `recorded` or `corrected`. Never waits."""
        if self._listeners:
            row_id, data = _event(kind, row)
            for listener in list(self._listeners):
                listener.tell((kind, row_id, data))

    def count(self) -> int:
        """Give how many listen."""
        return len(self._listeners)

    def close(self) -> None:
        """End every stream, and take no new one."""
        self._closed = True
        for listener in list(self._listeners):
            listener.end()

    async def answer(self, request: web.BaseRequest, after: int | None) -> web.StreamResponse:
        """Stream the rows after that id, then what comes; without an id only what comes."""
        if self._closed or len(self._listeners) >= self._limits.streams:
            # Not 503: the door's own health must not be judged by who watches.
            return web.Response(status=429, text="too many streams\n", headers={hdrs.RETRY_AFTER: "5"})
        connection = cast("Connection", request.protocol)
        listener = _Listener(connection, self._limits.stream_queue)
        self._listeners.add(listener)
        connection.on_lost = listener.end
        connection.stream()
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()
        try:
            await response.prepare(request)
            await self._write(response, _OPENING)
            told = 0 if after is None else await self._catch_up(response, after)
            await self._follow(response, listener, told)
        except (ConnectionError, TimeoutError, Unavailable):
            # Gone, too slow, or its past cannot be read now: it comes back and says where it was.
            connection.abort()
        finally:
            connection.on_lost = None
            self._listeners.discard(listener)
        return response

    async def _catch_up(self, response: web.StreamResponse, after: int) -> int:
        """Write what was recorded since; gives the last id told, up to which the queue brings nothing new."""
        most = self._limits.max_page_rows
        while True:
            async with asyncio.timeout(self._limits.view_seconds):
                rows = await self._view.changes(after, most)
            for row in rows:
                after, data = _event(RECORDED, row)
                await self._write(response, data)
            if len(rows) < most:
                return after

    async def _follow(self, response: web.StreamResponse, listener: _Listener, told: int) -> None:
        while True:
            try:
                async with asyncio.timeout(self._limits.heartbeat_seconds):
                    item = await listener.queue.get()
            except TimeoutError:
                await self._write(response, _HEARTBEAT)
                continue
            if item is None:
                return
            kind, row_id, data = item
            if kind != RECORDED or row_id > told:
                await self._write(response, data)

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._limits.stream_write_seconds):
            await response.write(data)
