"""The HTTP server: faults, authentication and rate limits come before every handler, in this order."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Final

from aiohttp import web

from fubd.simulator.api import GLOBAL, NOT_FOUND, ApiRequest, ApiResponse, Handler, Route, read_json
from fubd.simulator.canned import CANNED_ANSWERS, EXPIRED
from fubd.simulator.clock import SimClock
from fubd.simulator.conditions import Conditions
from fubd.simulator.faults import ApiFault, Script
from fubd.simulator.keys import Keys
from fubd.simulator.oddities import Oddity
from fubd.simulator.rate_limits import RateLimitDecision, RateLimits
from fubd.simulator.registry import ApiError
from fubd.simulator.rng import Rng
from fubd.simulator.sightings import Sightings

ANY: Final = "*"
"""The endpoint name of a script that applies to every request."""

_BODY_LIMIT: Final = 10 * 1024 * 1024
_REQUESTS_KEPT: Final = 10_000
_FAULT_RETRY_AFTER_SECONDS: Final = 8
_JSON: Final = "application/json"
_DATE_SHIFTS: Final = {ApiFault.DATE_AHEAD: timedelta(hours=1), ApiFault.DATE_OLD: timedelta(days=-3)}

log = logging.getLogger("fubd.simulator")


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request as logged: `status` is 0 without an answer. `at` is the simulator's instant."""

    method: str
    endpoint: str
    target: str
    status: int
    fault: ApiFault | None
    at: datetime


class SimulatorServer:
    """Serves the API over HTTP."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        keys: Keys,
        limits: RateLimits,
        sightings: Sightings,
        clock: SimClock,
        conditions: Conditions,
        rng: Rng,
    ) -> None:
        self.requests: deque[LoggedRequest] = deque(maxlen=_REQUESTS_KEPT)
        self.calls: Counter[tuple[str, str, int]] = Counter()
        self._routes = tuple(routes)
        self._keys = keys
        self._limits = limits
        self._sightings = sightings
        self._clock = clock
        self._conditions = conditions
        self._rng = rng
        self._foreign_handlers: dict[str, dict[tuple[str, str], Handler]] = {}
        self._scripts: dict[str, Script[ApiFault]] = {}
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def serve_behind_key(self, key: str, routes: Iterable[Route] | None) -> None:
        """Let a key read another account by these routes; None for its own again."""
        if routes is None:
            self._foreign_handlers.pop(key, None)
        else:
            self._foreign_handlers[key] = {(route.method, route.path): route.handler for route in routes}

    def script(self, endpoint: str, *steps: ApiFault | None) -> None:
        """Set the faults of the next requests of an endpoint (or of any, `*`)."""
        self._scripts.setdefault(endpoint, Script()).add(*steps)

    async def start(self, host: str, port: int, control: web.Application | None) -> str:
        """Listen, and return the base URL. Raises OSError when the address is taken."""
        self._stopping.clear()
        app = web.Application(client_max_size=_BODY_LIMIT)
        for route in self._routes:
            app.router.add_route(route.method, f"/v1{route.path}", self._serve(route))
        unknown = Route("*", "/v1/{path:.*}", "unknown", GLOBAL, _unknown)
        app.router.add_route(unknown.method, unknown.path, self._serve(unknown))
        if control is not None:
            app.add_subapp("/control", control)
        # Cancelling the handler when its caller disconnects means that a hanging request costs nothing afterwards.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return f"http://{host}:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Stop listening and release hanging requests."""
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # --- one request --------------------------------------------------------------------------------------------------

    def _serve(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            fault = self._fault(route.name)
            status = 0
            try:
                response, status = await self._respond(request, route, raw, fault)
                return response
            finally:
                # Also when the caller disconnected during a hanging request.
                self.calls[request.method, route.name, status] += 1
                self.requests.append(LoggedRequest(request.method, route.name, request.path_qs, status, fault, self._clock.now()))
                log.info("%s %s -> %s%s", request.method, request.path_qs, status or "no answer", f" ({fault})" if fault else "")

        return serve

    async def _respond(self, request: web.Request, route: Route, raw: bytes, fault: ApiFault | None) -> tuple[web.StreamResponse, int]:
        if fault is ApiFault.HANG:
            await self._stopping.wait()
        if fault in (ApiFault.HANG, ApiFault.RESET):
            return self._abort(request), 0
        canned = None if fault is None else CANNED_ANSWERS.get(fault)
        if canned is not None:
            return self._response(canned.status, canned.body, dict(canned.headers), canned.content_type, fault), canned.status
        headers: dict[str, str] = {}
        try:
            answer = await self._answer(request, route, raw, fault, headers)
        except ApiError as error:
            headers |= error.headers
            answer = ApiResponse({"errorMessage": str(error)}, status=error.status)
        return await self._send(request, answer, headers, fault)

    async def _answer(self, request: web.Request, route: Route, raw: bytes, fault: ApiFault | None, headers: dict[str, str]) -> ApiResponse:
        """Return the handler's answer, and add the rate limit to the headers. Raises ApiError."""
        behaviour = self._conditions.behaviour
        caller = self._keys.authenticate(request.headers)
        if behaviour.account_expired:
            raise ApiError(HTTPStatus.FORBIDDEN, EXPIRED)
        if route.context is not None:
            bucket = caller.key if behaviour.limit_per_key else ""
            registered = caller.system_key is not None
            decision = self._limits.acquire(route.context, self._clock.monotonic(), registered=registered, bucket=bucket)
            headers |= decision.headers
            _raise_if_limited(decision, throttled=fault is ApiFault.THROTTLED)
        oddity = self._rng.choice(list(Oddity)) if fault is ApiFault.ODD_PERSON else None
        base = f"{request.scheme}://{request.host}/v1"
        api_request = ApiRequest(caller, request.query, dict(request.match_info), base, read_json(raw), oddity)
        foreign = self._foreign_handlers.get(caller.key)
        answer = foreign[route.method, route.path](api_request) if foreign else route.handler(api_request)
        if behaviour.answer_seconds:
            await self._clock.sleep(behaviour.answer_seconds)
        return replace(answer, shown_people=()) if foreign else answer

    async def _send(
        self, request: web.Request, answer: ApiResponse, headers: Mapping[str, str], fault: ApiFault | None
    ) -> tuple[web.StreamResponse, int]:
        body = answer.body(self._conditions.behaviour.arrays)
        if fault is ApiFault.CUT:
            return await self._send_half(request, answer.status, body, headers), answer.status
        if fault is ApiFault.TRUNCATED:
            body = body[: len(body) // 2]
        elif fault is not ApiFault.WRONG_TYPE:
            self._sightings.record_read(answer.shown_people, self._clock.now(), as_of=answer.as_of)
        content_type = "text/plain" if fault is ApiFault.WRONG_TYPE else _JSON
        return self._response(answer.status, body, headers, content_type if body else None, fault), answer.status

    def _fault(self, endpoint: str) -> ApiFault | None:
        for name in (endpoint, ANY):
            if name in self._scripts:
                scripted, fault = self._scripts[name].next()
                if scripted:
                    return fault
        return self._conditions.faults.draw_api(self._rng)

    def _response(
        self, status: int, body: bytes, headers: Mapping[str, str], content_type: str | None, fault: ApiFault | None
    ) -> web.Response:
        shown_headers = {**headers, "Date": self._date(fault)}
        return web.Response(status=status, body=body, headers=shown_headers, content_type=content_type)

    def _date(self, fault: ApiFault | None) -> str:
        """Return the simulator's time as a Date header, which some faults shift."""
        shift = _DATE_SHIFTS.get(fault, timedelta(0)) if fault else timedelta(0)
        return format_datetime(self._clock.now() + shift, usegmt=True)

    def _abort(self, request: web.Request) -> web.Response:
        """Abort the connection; the returned response is never sent."""
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _send_half(self, request: web.Request, status: int, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
        """Announce the whole body, send half of it, and close."""
        response = web.StreamResponse(status=status, headers={**headers, "Date": self._date(None), "Content-Type": _JSON})
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response


def _raise_if_limited(decision: RateLimitDecision, *, throttled: bool) -> None:
    """Raise ApiError 429 when the window is full, or when the fault says so."""
    if decision.allowed and not throttled:
        return
    wait = _FAULT_RETRY_AFTER_SECONDS if decision.allowed else decision.retry_after_seconds
    raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, "Rate limit exceeded. Please slow down.", {"Retry-After": str(wait)})


def _unknown(_request: ApiRequest) -> ApiResponse:
    raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
