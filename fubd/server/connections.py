"""Who may hold a connection, and for how long.

aiohttp bounds neither the number of connections nor the time a request head may take, and its keep-alive timer does not see a reader
who takes no answer. Here every connection is in one of four states, with the moment it entered it, and a sweep ends those that stay too
long. When the house is full, the connection that has waited longest without a request makes room: a sender who opens
connections and says nothing can thus not lock out Follow Up Boss. Only when all are at work is the new one closed.
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

from fubd.server.limits import Limits

NAME = "fubd"

_logger = logging.getLogger(__name__)
_SWEEPS_PER_LIMIT = 4
_LONGEST_SWEEP_SECONDS = 1.0
_FLUSH_SECONDS = 0.2
_ROUNDS_TO_BEGIN = 5
# Descriptors for the database, the FUB API, the standard streams, and what asyncio holds.
_OTHER_DESCRIPTORS = 64


class _State(Enum):
    IDLE = auto()
    HEAD = auto()
    BUSY = auto()
    STREAM = auto()


class Connection(web.RequestHandler):
    """One connection. `on_lost` is called when it ends, for a stream that waits for something else."""

    __slots__ = ("_house", "on_lost", "since", "state")

    def __init__(self, house: Connections, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        super().__init__(
            house,
            loop=loop,
            keepalive_timeout=limits.idle_seconds,
            access_log=_logger,
            access_log_class=_NoAccessLog,
            max_line_size=limits.head_line_bytes,
            max_field_size=limits.head_line_bytes,
            max_headers=limits.head_fields,
            lingering_time=limits.linger_seconds,
            read_bufsize=limits.receive_bytes,
            # A body is verified as it came; and unpacking one that lies about itself would be a 500.
            auto_decompress=False,
        )
        self._house = house
        self.state = _State.HEAD
        self.since = 0.0
        self.on_lost: Callable[[], None] | None = None

    def begin(self) -> None:
        """Note that a request's head is complete and its answer under way."""
        self.state = _State.BUSY
        self.since = self._loop.time()

    def stream(self) -> None:
        """Note that the answer goes on until one side ends it."""
        self.state = _State.STREAM

    def end(self) -> None:
        """Note that the answer is given."""
        self.state = _State.IDLE
        self.since = self._loop.time()
        self._house.settle()

    def abort(self) -> None:
        """End it at once; a handler at work finishes what it does."""
        if self.transport is not None:
            self.transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.since = self._loop.time()
        if self._house.admit(self):
            super().connection_made(transport)
        else:
            cast("asyncio.Transport", transport).abort()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._house.forget(self)
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    @override
    def data_received(self, data: bytes) -> None:
        # aiohttp calls this with nothing, too, when it goes on after a pause.
        if data and self.state is _State.IDLE:
            self.state = _State.HEAD
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
        # What cannot be parsed is the sender's doing: a flood of it must not become a flood of log lines.
        failed = status >= web.HTTPInternalServerError.status_code
        if failed:
            _logger.error("a request could not be answered", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer has begun, and no other can be given")
        refusal = web.Response(status=status, text="it failed\n" if failed else "bad request\n")
        refusal.headers[hdrs.SERVER] = NAME
        refusal.force_close()
        return refusal


class _NoAccessLog(AbstractAccessLogger):
    """A line for each request halves the throughput, and says nothing the metrics do not."""

    @property
    @override
    def enabled(self) -> bool:
        return False

    @override
    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        return


class Connections(web.Server):
    """All connections of the server."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: Limits) -> None:
        super().__init__(handler, handler_cancellation=False)
        self._limits = limits
        self._most = _allow_descriptors(limits.connections, limits.backlog)
        # Insertion order is the order of arrival.
        self._open: dict[Connection, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Event | None = None

    @override
    def __call__(self) -> Connection:
        return Connection(self, self._loop, self._limits)

    def admit(self, connection: Connection) -> bool:
        """Take the connection in, making room if need be; False when there is none."""
        if len(self._open) >= self._most:
            waiting = [each for each in self._open if each.state in {_State.IDLE, _State.HEAD}]
            if not waiting:
                return False
            longest = min(waiting, key=lambda each: each.since)
            self.forget(longest)
            longest.abort()
        self._open[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        """Count it no longer; harmless when it is not known."""
        self._open.pop(connection, None)
        self.settle()

    def watch(self) -> None:
        """Sweep now, and from now on."""
        limits = self._limits
        now = self._loop.time()
        for connection in list(self._open):
            longest = {
                _State.HEAD: limits.head_seconds,
                _State.IDLE: limits.idle_seconds,
                _State.BUSY: limits.answer_seconds,
            }.get(connection.state)
            if longest is not None and now - connection.since > longest:
                connection.abort()
        shortest = min(limits.head_seconds, limits.idle_seconds, limits.answer_seconds)
        pause = min(_LONGEST_SWEEP_SECONDS, shortest / _SWEEPS_PER_LIMIT)
        self._sweeper = self._loop.call_later(pause, self.watch)

    def count(self) -> int:
        """Give how many connections are open."""
        return len(self._open)

    def settle(self) -> None:
        """Tell the one who waits in `drain`, if any, once no request is being answered; a stream counts for none."""
        if self._quiet is not None and all(each.state is not _State.BUSY for each in self._open):
            self._quiet.set()

    async def drain(self) -> None:
        """Let go of those who wait, and wait until every request at hand is answered."""
        self._quiet = asyncio.Event()
        for _ in range(_ROUNDS_TO_BEGIN):
            # What has arrived is read, parsed and begun, one step in each round of the loop.
            await asyncio.sleep(0)
        self.settle()
        self.pre_shutdown()
        await self._quiet.wait()

    async def close(self) -> None:
        """End every connection, whatever it does."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self.shutdown(_FLUSH_SECONDS)


def _allow_descriptors(connections: int, backlog: int) -> int:
    """Raise the soft limit on open files as far as needed and allowed; give how many connections fit."""
    # One round of the loop may accept a whole backlog on each of two sockets before it can refuse any.
    spare = _OTHER_DESCRIPTORS + 2 * backlog
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + spare
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - spare))
