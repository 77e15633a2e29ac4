"""The HTTP server in front of the exchange."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from fubd.simulator.exchange import Exchange, HttpAnswer, HttpRequest

_BODY_LIMIT: Final = 10 * 1024 * 1024
_PREFIX: Final = "/v1"


class SimulatorServer:
    """Serves the API over HTTP."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, control: web.Application | None) -> str:
        """Listen, and return the base URL. Raises OSError when the address is taken."""
        self._exchange.stopping.clear()
        app = web.Application(client_max_size=_BODY_LIMIT)
        app.router.add_route("*", _PREFIX + "/{path:.*}", self._serve)
        if control is not None:
            app.add_subapp("/control", control)
        # Cancelling the handler when its caller disconnects means that a hanging request costs nothing afterwards.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return f"http://{host}:{self._runner.addresses[0][1]}{_PREFIX}"

    async def stop(self) -> None:
        """Stop listening and release hanging requests."""
        self._exchange.stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        received = HttpRequest(
            method=request.method,
            path=request.path.removeprefix(_PREFIX),
            query=request.query,
            headers=request.headers,
            body=await request.read(),
            target=request.path_qs,
            base=f"{request.scheme}://{request.host}{_PREFIX}",
        )
        return await _send(request, await self._exchange.answer(received))


async def _send(request: web.Request, answer: HttpAnswer) -> web.StreamResponse:
    if answer.status == 0:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    if answer.is_cut:
        return await _send_half(request, answer)
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers), content_type=answer.content_type)


async def _send_half(request: web.Request, answer: HttpAnswer) -> web.StreamResponse:
    """Announce the whole body, send half of it, and close."""
    response = web.StreamResponse(status=answer.status, headers={**answer.headers, "Content-Type": str(answer.content_type)})
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
