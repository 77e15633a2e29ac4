"""Limits on the number of connections and on the time each may spend in a state.

aiohttp limits neither the number of connections nor the time a request head may take, and its keep-alive timer does not notice a client
that stops reading. Here every connection is in one of four states, with the time it entered it, and a timer closes those that stay too
long. A sender is unknown until its delivery is verified, or its token is: until then its connection waits, whether it sends its request
slowly or reads its response slowly. Nothing is parsed and no task is started before its first request is complete. When no place is left,
the connection that has waited longest is closed for a new one: a client that opens connections cannot lock out Follow Up Boss. A new
connection is closed at once only when all others are being answered for known senders. Readers have places of their own. A connection ends
after some requests of unknown senders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial
from typing import cast

from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger
from typing_extensions import override

from fubd.core.vocabulary import CONNECTION_STATES
from fubd.metrics import Metrics
from fubd.server.first_request import FirstRequest
from fubd.server.limits import ServerLimits
from fubd.server.open_files import divide_places

NAME = "fubd"

_logger = logging.getLogger(__name__)
_CHECKS_PER_TIMEOUT = 4
_MAX_CHECK_INTERVAL_SECONDS = 1.0
_FLUSH_SECONDS = 0.2
_LOOP_TURNS_TO_START = 5
_EVICTION_LOG_SECONDS = 60.0
# A thousand answers in one turn of the event loop would hold up the deliveries.
_BODIES_GIVEN_UP_AT_ONCE = 50
_NEXT_BODIES_SECONDS = 0.1


class _State(Enum):
    IDLE = auto()
    READING = auto()
    BUSY = auto()
    STREAMING = auto()


_STATE_LABELS = {_State.IDLE: "idle", _State.READING: "reading", _State.BUSY: "busy", _State.STREAMING: "busy"}


class Connection(web.RequestHandler):
    """One client connection. `on_lost` is called when it ends, so that a stream that waits for events notices.

    `is_answering`: a request head is complete and its response is not written yet. `is_body_overdue`: the body of the first request did not
    arrive in time.
    """

    __slots__ = (
        "_connections",
        "_first_request",
        "_socket",
        "_unknown_requests",
        "is_answering",
        "is_body_overdue",
        "on_lost",
        "since",
        "state",
    )

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
        self._socket: asyncio.Transport | None = None
        self._first_request: FirstRequest | None = FirstRequest(limits.receive_bytes)
        self._unknown_requests = 0
        self.is_body_overdue = False
        self.state = _State.READING
        self.since = 0.0
        self.is_answering = False
        self.on_lost: Callable[[], None] | None = None

    def begin_request(self) -> None:
        """Note that a request head is complete. The sender is still unknown: the connection may be closed for a new one."""
        self.is_answering = True
        self.since = self._loop.time()

    def mark_verified(self) -> None:
        """Note that the sender of the request is known: the connection is no longer closed for a new one."""
        self._connections.enter(self, _State.BUSY)

    def is_used_up(self) -> bool:
        """Count an answered request of an unknown sender. Return whether no further one is to be answered.

        Thousands of requests in one write would be parsed and answered between the steps of every delivery.
        """
        if self.state in {_State.READING, _State.IDLE}:
            self._unknown_requests += 1
        return self._unknown_requests >= self._connections.unknown_requests

    def mark_reader(self) -> bool:
        """Take a place for a known reader, until the response is written. Return False if none is left."""
        return self._connections.admit_reader(self)

    def mark_streaming(self) -> bool:
        """Note that the response of a reader lasts until one side ends it. Return False if too many readers have such a response."""
        return self._connections.admit_stream(self)

    def end_request(self) -> None:
        """Note that the response was written."""
        self.is_answering = False
        self.since = self._loop.time()
        self._connections.release_reader(self)
        self._connections.enter(self, _State.IDLE)
        self._connections.check_drained()

    def abort(self) -> None:
        """Close the connection at once. A running handler still finishes."""
        if self._socket is not None:
            self._socket.abort()

    @property
    def lacks_only_its_body(self) -> bool:
        """Return whether the body of the first request is missing, in whole or in part."""
        return self._first_request is not None and self._first_request.lacks_only_its_body

    def give_up_body(self) -> None:
        """Answer a first request without its body."""
        self.is_body_overdue = True
        self._parse_first_request()

    def _parse_first_request(self) -> None:
        """Begin what aiohttp does for a connection, with the bytes received so far."""
        first_request, self._first_request = self._first_request, None
        if first_request is not None and self._socket is not None:
            super().connection_made(self._socket)
            super().data_received(first_request.received)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.since = self._loop.time()
        self._socket = cast("asyncio.Transport", transport)
        if not self._connections.add(self):
            self.abort()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._socket = None
        self._connections.remove(self)
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    @override
    def data_received(self, data: bytes) -> None:
        if self._first_request is not None:
            if self._first_request.add(data):
                self._parse_first_request()
            return
        # aiohttp also calls this without data, when it resumes after a pause.
        if data and self.state is _State.IDLE:
            self.since = self._loop.time()
            self._connections.enter(self, _State.READING)
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

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: ServerLimits, metrics: Metrics) -> None:
        super().__init__(handler, handler_cancellation=False)
        self._limits = limits
        self.unknown_requests = limits.unknown_requests
        self._places = divide_places(limits)
        self._open: set[Connection] = set()
        # An ordered set of those that may be closed for a new one: the first has waited longest.
        self._waiting: dict[Connection, None] = {}
        self._readers: set[Connection] = set()
        self._evicted = 0
        self._eviction_log_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None
        for label in CONNECTION_STATES:
            metrics.connections.labels(label).set_function(partial(self._count, label))

    @override
    def __call__(self) -> Connection:
        return Connection(self, self._loop, self._limits)

    @property
    def at_once(self) -> int:
        """How many connections a turn of the event loop may accept."""
        return self._places.at_once

    def add(self, connection: Connection) -> bool:
        """Add a connection, closing a waiting one if no place is left. Return False if all others are being answered."""
        if len(self._open) - len(self._readers) >= self._places.others:
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return False
            self._evicted += 1
            self.remove(oldest)
            oldest.abort()
        self._open.add(connection)
        self._waiting[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """Remove a connection, if it is still there."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self._readers.discard(connection)
        self.check_drained()

    def enter(self, connection: Connection, state: _State) -> None:
        """Note that a connection enters a state, at the end of those that wait if it is one of them."""
        connection.state = state
        self._waiting.pop(connection, None)
        if connection in self._open and state in {_State.IDLE, _State.READING}:
            self._waiting[connection] = None

    def admit_reader(self, connection: Connection) -> bool:
        """Give a connection a reader's place. Return False if none is left."""
        if len(self._readers) >= self._places.readers:
            return False
        if connection in self._open:
            self._readers.add(connection)
        self.enter(connection, _State.BUSY)
        return True

    def admit_stream(self, connection: Connection) -> bool:
        """Let a reader's response last. Return False if half of the readers' places are taken so: pages also have to load."""
        if 2 * sum(each.state is _State.STREAMING for each in self._readers) >= self._places.readers:
            return False
        self.enter(connection, _State.STREAMING)
        return True

    def release_reader(self, connection: Connection) -> None:
        """Take the reader's place back, if the connection has one."""
        self._readers.discard(connection)

    def _count(self, label: str) -> int:
        return sum(_STATE_LABELS[each.state] == label for each in self._open)

    def close_overdue(self) -> None:
        """Close the connections that have been in their state for too long, now and at regular intervals from now on."""
        limits = self._limits
        now = self._loop.time()
        given_up = 0
        for connection in list(self._open):
            if connection.lacks_only_its_body:
                if now - connection.since > limits.small_body_timeout_seconds and given_up < _BODIES_GIVEN_UP_AT_ONCE:
                    given_up += 1
                    connection.give_up_body()
                continue
            timeout_seconds = {_State.READING: limits.head_timeout_seconds, _State.IDLE: limits.idle_timeout_seconds}.get(connection.state)
            if connection.is_answering:
                timeout_seconds = None if connection.state is _State.STREAMING else limits.response_timeout_seconds
            if timeout_seconds is not None and now - connection.since > timeout_seconds:
                connection.abort()
        self._log_evictions(now)
        shortest = min(
            limits.head_timeout_seconds,
            limits.small_body_timeout_seconds,
            limits.idle_timeout_seconds,
            limits.response_timeout_seconds,
        )
        interval = min(_MAX_CHECK_INTERVAL_SECONDS, shortest / _CHECKS_PER_TIMEOUT)
        if given_up == _BODIES_GIVEN_UP_AT_ONCE:
            interval = min(interval, _NEXT_BODIES_SECONDS)
        self._timer = self._loop.call_later(interval, self.close_overdue)

    def _log_evictions(self, now: float) -> None:
        if self._evicted and now >= self._eviction_log_due:
            _logger.warning(
                "all %d connections for other clients were in use: closed the %d that had waited longest. Deliveries are still accepted; "
                "a client opens connections and does not finish its requests",
                self._places.others,
                self._evicted,
            )
            self._evicted, self._eviction_log_due = 0, now + _EVICTION_LOG_SECONDS

    def check_drained(self) -> None:
        """Let `drain` return once no request is being answered. Streams do not count."""
        if self._drained is not None and not any(each.is_answering and each.state is not _State.STREAMING for each in self._open):
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
        for connection in list(self._open):
            if not connection.connected:
                connection.abort()
        await self.shutdown(_FLUSH_SECONDS)
