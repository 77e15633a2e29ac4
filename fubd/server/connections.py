"""Limits on the number of connections and on the time each may spend in a state.

aiohttp limits neither the number of connections nor the time a request head may take, and its keep-alive timer does not notice a client
that stops reading. Here every connection is in one of four states, with the time it entered it, and a timer closes those that stay too
long. When no place is left, the connection that has waited longest without a request is closed for a new one: a client that opens
connections and sends nothing cannot lock out Follow Up Boss. A new connection is closed at once only when all others are being answered.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import cast

from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger
from typing_extensions import override

from fubd.server.limits import ServerLimits

NAME = "fubd"

_logger = logging.getLogger(__name__)
_CHECKS_PER_TIMEOUT = 4
_MAX_CHECK_INTERVAL_SECONDS = 1.0
_FLUSH_SECONDS = 0.2
_LOOP_TURNS_TO_START = 5
# File descriptors for the database, the FUB API, the standard streams, and asyncio itself.
_OTHER_DESCRIPTORS = 64


class _State(Enum):
    IDLE = auto()
    READING = auto()
    BUSY = auto()
    STREAMING = auto()


class Connection(web.RequestHandler):
    """One client connection. `on_lost` is called when it ends, so that a stream that waits for events notices."""

    __slots__ = ("_connections", "on_lost", "since", "state")

    def __init__(self, connections: Connections, loop: asyncio.AbstractEventLoop, limits: ServerLimits) -> None:
        super().__init__(
            connections,
            loop=loop,
            keepalive_timeout=limits.idle_timeout_seconds,
            access_log=_logger,
            access_log_class=_NoAccessLog,
            max_line_size=limits.head_line_bytes,
            max_field_size=limits.head_line_bytes,
            max_headers=limits.head_fields,
            lingering_time=limits.linger_seconds,
            read_bufsize=limits.receive_bytes,
            # The signature is verified over the bytes as received; and decompressing a body with a false encoding would end in a 500.
            auto_decompress=False,
        )
        self._connections = connections
        self.state = _State.READING
        self.since = 0.0
        self.on_lost: Callable[[], None] | None = None

    def mark_busy(self) -> None:
        """Note that a request head is complete and the response is under way."""
        self.state = _State.BUSY
        self.since = self._loop.time()

    def mark_streaming(self) -> None:
        """Note that the response lasts until one side ends it."""
        self.state = _State.STREAMING

    def mark_idle(self) -> None:
        """Note that the response was written."""
        self.state = _State.IDLE
        self.since = self._loop.time()
        self._connections.check_drained()

    def abort(self) -> None:
        """Close the connection at once. A running handler still finishes."""
        if self.transport is not None:
            self.transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.since = self._loop.time()
        if self._connections.add(self):
            super().connection_made(transport)
        else:
            cast("asyncio.Transport", transport).abort()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    @override
    def data_received(self, data: bytes) -> None:
        # aiohttp also calls this without data, when it resumes after a pause.
        if data and self.state is _State.IDLE:
            self.state = _State.READING
            self.since = self._loop.time()
        super().data_received(data)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # A request that cannot be parsed is the sender's fault: many of them must not fill the log.
        failed = status >= web.HTTPInternalServerError.status_code
        if failed:
            _logger.error("answering a request failed with an unexpected error", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("the response has already started")
        response = web.Response(status=status, text="internal server error\n" if failed else "bad request\n")
        response.headers[hdrs.SERVER] = NAME
        response.force_close()
        return response


class _NoAccessLog(AbstractAccessLogger):
    """Turns the access log off: a line for each request halves the throughput and adds nothing to the metrics."""

    @property
    @override
    def enabled(self) -> bool:
        return False

    @override
    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        return


class Connections(web.Server):
    """All open connections of the server."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: ServerLimits) -> None:
        super().__init__(handler, handler_cancellation=False)
        self._limits = limits
        self._capacity = _raise_open_file_limit(limits.connections, limits.backlog)
        # An ordered set: of connections that wait equally long, the first to arrive is closed first.
        self._open: dict[Connection, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None

    @override
    def __call__(self) -> Connection:
        return Connection(self, self._loop, self._limits)

    def add(self, connection: Connection) -> bool:
        """Add a connection, closing a waiting one if no place is left. Return False if all others are being answered."""
        if len(self._open) >= self._capacity:
            waiting = [each for each in self._open if each.state in {_State.IDLE, _State.READING}]
            if not waiting:
                return False
            oldest = min(waiting, key=lambda each: each.since)
            self.remove(oldest)
            oldest.abort()
        self._open[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """Remove a connection, if it is still there."""
        self._open.pop(connection, None)
        self.check_drained()

    def close_overdue(self) -> None:
        """Close the connections that have been in their state for too long, now and at regular intervals from now on."""
        limits = self._limits
        now = self._loop.time()
        for connection in list(self._open):
            timeout_seconds = {
                _State.READING: limits.head_timeout_seconds,
                _State.IDLE: limits.idle_timeout_seconds,
                _State.BUSY: limits.response_timeout_seconds,
            }.get(connection.state)
            if timeout_seconds is not None and now - connection.since > timeout_seconds:
                connection.abort()
        shortest = min(limits.head_timeout_seconds, limits.idle_timeout_seconds, limits.response_timeout_seconds)
        interval = min(_MAX_CHECK_INTERVAL_SECONDS, shortest / _CHECKS_PER_TIMEOUT)
        self._timer = self._loop.call_later(interval, self.close_overdue)

    def check_drained(self) -> None:
        """Let `drain` return once no request is being answered. Streams do not count."""
        if self._drained is not None and all(each.state is not _State.BUSY for each in self._open):
            self._drained.set()

    async def drain(self) -> None:
        """Close the idle connections, and wait until every request under way is answered."""
        self._drained = asyncio.Event()
        for _ in range(_LOOP_TURNS_TO_START):
            # Bytes that have arrived become a running handler within these turns of the event loop, one step in each.
            await asyncio.sleep(0)
        self.check_drained()
        self.pre_shutdown()
        await self._drained.wait()

    async def close(self) -> None:
        """Close every connection, whatever its state."""
        if self._timer is not None:
            self._timer.cancel()
        await self.shutdown(_FLUSH_SECONDS)


def _raise_open_file_limit(connections: int, backlog: int) -> int:
    """Raise the soft limit on open files as far as needed and allowed. Return how many connections fit into it."""
    # One turn of the event loop may accept a whole backlog on each of two sockets before any of them can be closed.
    spare = _OTHER_DESCRIPTORS + 2 * backlog
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + spare
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - spare))
