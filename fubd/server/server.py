"""The HTTP server: webhook routes, probes, metrics, and the status page.

It stands on aiohttp's low-level server. aiohttp's Application is left out on purpose: its middlewares, pattern router and expect handler
(which may answer 417) cost more for each delivery than all of our own work, and a table of exact paths is enough.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import cast

from aiohttp import hdrs, web

from fubd.core.vocabulary import WEBHOOK_ROUTES
from fubd.core.webhook import is_webhook_route
from fubd.metrics import Metrics
from fubd.server.connections import NAME, Connection, Connections
from fubd.server.limits import ServerLimits
from fubd.server.routes import ReadRoutes, method_not_allowed
from fubd.server.sse import EventStream
from fubd.server.webhook import WebhookHandler

_logger = logging.getLogger(__name__)


class HttpServer:
    """The daemon's HTTP server. It listens before the database answers; routes that need the database answer 503 until then."""

    def __init__(
        self,
        *,
        webhook_handler: WebhookHandler,
        read_routes: ReadRoutes,
        stream: EventStream,
        metrics: Metrics,
        limits: ServerLimits | None = None,
    ) -> None:
        self._webhook_handler = webhook_handler
        self._read_routes = read_routes
        self._audience = read_routes.audience()
        self._stream = stream
        self._metrics = metrics
        self._limits = limits or ServerLimits()
        self._connections: Connections | None = None
        self._listeners: list[asyncio.Server] = []

    async def start(self, *, port: int, host: str | None = None) -> None:
        """Listen on a host, or on IPv4 and (where the machine has it) IPv6. Port 0 takes a free one. Raises OSError."""
        self._connections = Connections(self._handle, self._limits, self._metrics)
        self._connections.close_overdue()
        loop = asyncio.get_running_loop()
        for sock in _sockets(host, port, self._limits.kernel_backlog):
            # Inherited by each connection: one read returns no more than this.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._limits.receive_bytes)
            self._listeners.append(await loop.create_server(self._connections, sock=sock, backlog=self._connections.at_once))
            # create_server accepts as many connections in a turn as its backlog says. What the kernel keeps meanwhile may be more: a
            # connection that it drops is tried again only after a second.
            sock.listen(self._limits.kernel_backlog)
        _logger.info(self._audience)

    @property
    def port(self) -> int:
        """Return the port the server listens on."""
        return int(self._listeners[0].sockets[0].getsockname()[1])

    async def stop(self, *, within_seconds: float) -> None:
        """Stop listening, finish the requests under way within a time limit, and close every connection."""
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
            _logger.warning("stopped with requests unanswered: they were not finished within %g s", within_seconds)
        await connections.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        connection.begin_request()
        try:
            # The hot path compares the path as sent, without unquoting; any other spelling is routed below.
            if request.raw_path in WEBHOOK_ROUTES and request.method == hdrs.METH_POST:
                response = await self._webhook_handler.handle(request)
            else:
                response = await self._route(request)
            response.headers.setdefault(hdrs.SERVER, NAME)
            if connection.is_used_up():
                response.force_close()
            # Written here, not after the handler returns: a client that does not read its response still counts as busy.
            await _write(request, response)
        finally:
            connection.end_request()
        return response

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        if not is_webhook_route(request.path):
            return await self._read_routes.handle(request)
        return await self._webhook_handler.handle(request) if request.method == hdrs.METH_POST else method_not_allowed(hdrs.METH_POST)


async def _write(request: web.BaseRequest, response: web.StreamResponse) -> None:
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        # The client has gone, so there is nothing left to send.
        cast("Connection", request.protocol).abort()


def _sockets(host: str | None, port: int, backlog: int) -> list[socket.socket]:
    """Bind one socket for IPv4 and one for IPv6. A machine without IPv6 is no error; a port in use on either is."""
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return [socket.create_server((host, port), family=family, backlog=backlog)]
    ipv4 = socket.create_server(("", port), backlog=backlog)
    try:
        # create_server sets IPV6_V6ONLY, so the two sockets do not claim the same addresses.
        ipv6 = socket.create_server(("", ipv4.getsockname()[1]), family=socket.AF_INET6, backlog=backlog)
    except OSError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            return [ipv4]
        ipv4.close()
        raise
    return [ipv4, ipv6]
