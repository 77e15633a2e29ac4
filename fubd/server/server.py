"""The listener: the webhook door, the probes, the metrics, and the status page.

aiohttp's low-level server stands underneath. Its application object is left out on purpose: middlewares, a router of patterns and an expect
handler that may answer 417 cost more for each delivery than the whole of our own work, and a table of exact paths is all there is to route.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import cast

from aiohttp import hdrs, web

from fubd.core.vocabulary import WEBHOOK_ROUTES
from fubd.metrics import Metrics
from fubd.ports import Clock, Ingestor
from fubd.server.connections import NAME, Connection, Connections
from fubd.server.limits import Limits
from fubd.server.routes import ReadRoutes
from fubd.server.sse import EventStream
from fubd.server.view import ThrottledView, View
from fubd.server.webhook import WebhookHandler

_logger = logging.getLogger(__name__)
_DOOR_PATHS = frozenset(WEBHOOK_ROUTES)
_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


class Server:
    """The HTTP side of the daemon. It listens before the database answers, and says so where it matters.

    `keys` are tried in turn against a signature. `fub_now` is FUB's clock, `clock` ours. `token`, when set, is wanted by all that shows
    data. `door` bears the plain counts of deliveries.
    """

    def __init__(
        self,
        *,
        ingestor: Ingestor,
        view: View,
        keys: Sequence[bytes],
        metrics: Metrics,
        clock: Clock,
        fub_now: Callable[[], datetime],
        token: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self.door = WebhookHandler(ingestor=ingestor, keys=keys, metrics=metrics, clock=clock, fub_now=fub_now, limits=self._limits)
        bounded = ThrottledView(view, self._limits)
        self._stream = EventStream(bounded, clock, self._limits)
        self._pages = ReadRoutes(view=bounded, stream=self._stream, registry=metrics.registry, token=token, limits=self._limits).routes()
        self._connections: Connections | None = None
        self._listeners: list[asyncio.Server] = []

    async def start(self, *, port: int, host: str | None = None) -> None:
        """Listen; without a host on IPv4 and, where the machine has it, IPv6. Port 0 takes a free one. Raises OSError."""
        self._connections = Connections(self._answer, self._limits)
        self._connections.watch()
        loop = asyncio.get_running_loop()
        for sock in _sockets(host, port, self._limits.backlog):
            # Inherited by each connection: one read brings no more than that.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._limits.receive_bytes)
            self._listeners.append(await loop.create_server(self._connections, sock=sock, backlog=self._limits.backlog))

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._listeners[0].sockets[0].getsockname()[1])

    @property
    def streams(self) -> int:
        """How many readers listen to the live feed."""
        return self._stream.count()

    async def stop(self, *, within_seconds: float) -> None:
        """Accept nothing more, finish what was accepted, and end the rest when the time is over."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._connections is None:
            return
        connections, self._connections = self._connections, None
        self._stream.close()
        try:
            async with asyncio.timeout(within_seconds):
                await connections.drain()
        except TimeoutError:
            _logger.warning("stopped with requests unanswered: the time to finish them is over")
        await connections.close()

    def changed(self, row_ids: Iterable[int] = ()) -> None:
        """Tell those who listen live that something was committed, and which standing rows it changed without noting a correction."""
        self._stream.changed(row_ids)

    async def follow(self, stop: asyncio.Event) -> None:
        """Follow the table for those who listen live, until told to stop."""
        await self._stream.follow(stop)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        connection.begin()
        try:
            # The path as sent, to spare the hot path the unquoting; what is written otherwise takes the longer way.
            if request.raw_path in _DOOR_PATHS and request.method == hdrs.METH_POST:
                response = await self.door.answer(request)
            else:
                response = await self._route(request)
            response.headers.setdefault(hdrs.SERVER, NAME)
            # Written here and not after the handler, so that a reader who does not take it is seen as still being answered.
            await _write(request, response)
        finally:
            connection.end()
        return response

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path in _DOOR_PATHS:
            return await self.door.answer(request) if request.method == hdrs.METH_POST else _wrong_method(hdrs.METH_POST)
        handler = self._pages.get(path)
        if handler is None:
            return web.Response(status=404, text="not found\n")
        if request.method not in _READS:
            return _wrong_method("GET, HEAD")
        return await handler(request)


async def _write(request: web.BaseRequest, response: web.StreamResponse) -> None:
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        # Its reader is gone: nothing is left to do, and nobody to tell.
        cast("Connection", request.protocol).abort()


def _wrong_method(allowed: str) -> web.Response:
    return web.Response(status=405, text="method not allowed\n", headers={hdrs.ALLOW: allowed})


def _sockets(host: str | None, port: int, backlog: int) -> list[socket.socket]:
    """Bind one socket for each family. A machine without IPv6 is no error; a port in use is, on either."""
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return [socket.create_server((host, port), family=family, backlog=backlog)]
    first = socket.create_server(("", port), backlog=backlog)
    try:
        # IPV6_V6ONLY is set, so that the two do not claim the same addresses.
        second = socket.create_server(("", first.getsockname()[1]), family=socket.AF_INET6, backlog=backlog)
    except OSError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            return [first]
        first.close()
        raise
    return [first, second]
