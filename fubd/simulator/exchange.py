"""One API request and its answer, without a transport: faults, authentication and rate limits come before every handler, in this order."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Final

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


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as received. `path` is below /v1, `target` as logged, `base` the URL of /v1 that the caller uses."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    target: str
    base: str


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer as sent; with status 0 the connection is reset instead. `is_cut`: half of the body, then the connection is closed."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    is_cut: bool = False


class Exchange:
    """Answers requests, and logs them."""

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
        self.stopping = asyncio.Event()
        self._routes = {(route.method, tuple(route.path.split("/"))): route for route in routes}
        self._keys = keys
        self._limits = limits
        self._sightings = sightings
        self._clock = clock
        self._conditions = conditions
        self._rng = rng
        self._foreign_handlers: dict[str, dict[tuple[str, str], Handler]] = {}
        self._scripts: dict[str, Script[ApiFault]] = {}

    def serve_behind_key(self, key: str, routes: Iterable[Route] | None) -> None:
        """Let a key read another account by these routes; None for its own again."""
        if routes is None:
            self._foreign_handlers.pop(key, None)
        else:
            self._foreign_handlers[key] = {(route.method, route.path): route.handler for route in routes}

    def script(self, endpoint: str, *steps: ApiFault | None) -> None:
        """Set the faults of the next requests of an endpoint (or of any, `*`)."""
        self._scripts.setdefault(endpoint, Script()).add(*steps)

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """Return the answer; a hanging request is answered when the simulator stops."""
        route, path = self._find(request)
        fault = self._fault(route.name)
        status = 0
        try:
            answer = await self._respond(request, route, path, fault)
            status = answer.status
            return answer
        finally:
            # Also when the caller disconnected during a hanging request.
            self.calls[request.method, route.name, status] += 1
            self.requests.append(LoggedRequest(request.method, route.name, request.target, status, fault, self._clock.now()))
            log.info("%s %s -> %s%s", request.method, request.target, status or "no answer", f" ({fault})" if fault else "")

    def _find(self, request: HttpRequest) -> tuple[Route, dict[str, str]]:
        """Return the route of a request, and the id in its path."""
        parts = tuple(request.path.split("/"))
        route = self._routes.get((request.method, parts))
        if route is not None:
            return route, {}
        route = self._routes.get((request.method, (*parts[:-1], "{id}")))
        return (route, {"id": parts[-1]}) if route is not None and parts[-1] else (_UNKNOWN, {})

    async def _respond(self, request: HttpRequest, route: Route, path: Mapping[str, str], fault: ApiFault | None) -> HttpAnswer:
        if fault is ApiFault.HANG:
            await self.stopping.wait()
        if fault in (ApiFault.HANG, ApiFault.RESET):
            return HttpAnswer(0)
        canned = None if fault is None else CANNED_ANSWERS.get(fault)
        if canned is not None:
            return HttpAnswer(canned.status, canned.body, {**dict(canned.headers), "Date": self._date(fault)}, canned.content_type)
        headers: dict[str, str] = {}
        try:
            answer = await self._handle(request, route, path, fault, headers)
        except ApiError as error:
            headers |= error.headers
            answer = ApiResponse({"errorMessage": str(error)}, status=error.status)
        return self._to_http(answer, headers, fault)

    async def _handle(
        self, request: HttpRequest, route: Route, path: Mapping[str, str], fault: ApiFault | None, headers: dict[str, str]
    ) -> ApiResponse:
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
        api_request = ApiRequest(caller, request.query, path, request.base, read_json(request.body), oddity)
        foreign = self._foreign_handlers.get(caller.key)
        answer = foreign[route.method, route.path](api_request) if foreign else route.handler(api_request)
        if behaviour.answer_seconds:
            await self._clock.sleep(behaviour.answer_seconds)
        return replace(answer, shown_people=()) if foreign else answer

    def _to_http(self, answer: ApiResponse, headers: Mapping[str, str], fault: ApiFault | None) -> HttpAnswer:
        body = answer.body(self._conditions.behaviour.arrays)
        if fault is ApiFault.CUT:
            return HttpAnswer(answer.status, body, {**headers, "Date": self._date(None)}, _JSON, is_cut=True)
        if fault is ApiFault.TRUNCATED:
            body = body[: len(body) // 2]
        elif fault is not ApiFault.WRONG_TYPE:
            self._sightings.record_read(answer.shown_people, self._clock.now(), as_of=answer.as_of)
        content_type = "text/plain" if fault is ApiFault.WRONG_TYPE else _JSON
        return HttpAnswer(answer.status, body, {**headers, "Date": self._date(fault)}, content_type if body else None)

    def _fault(self, endpoint: str) -> ApiFault | None:
        for name in (endpoint, ANY):
            if name in self._scripts:
                scripted, fault = self._scripts[name].next()
                if scripted:
                    return fault
        return self._conditions.faults.draw_api(self._rng)

    def _date(self, fault: ApiFault | None) -> str:
        """Return the simulator's time as a Date header, which some faults shift."""
        shift = _DATE_SHIFTS.get(fault, timedelta(0)) if fault else timedelta(0)
        return format_datetime(self._clock.now() + shift, usegmt=True)


def _raise_if_limited(decision: RateLimitDecision, *, throttled: bool) -> None:
    """Raise ApiError 429 when the window is full, or when the fault says so."""
    if decision.allowed and not throttled:
        return
    wait = _FAULT_RETRY_AFTER_SECONDS if decision.allowed else decision.retry_after_seconds
    raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, "Rate limit exceeded. Please slow down.", {"Retry-After": str(wait)})


def _not_found(_request: ApiRequest) -> ApiResponse:
    raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)


_UNKNOWN: Final = Route("*", "", "unknown", GLOBAL, _not_found)
