"""Send one request to Follow Up Boss: headers, limits, retries, and every network exception turned into one of ours.

Retried, at most five attempts within the total timeout: no connection, a lost connection, a timeout, 5xx, 429, and responses that are not
what was requested. Not retried: a refusal (4xx), a non-idempotent request once FUB may have processed it, and a JSON document that cannot
be used and came a second time with the same bytes. FUB recommends truncated exponential backoff with jitter for 5xx
(https://docs.followupboss.com/reference/error-responses).

aiohttp itself resends an idempotent request once when a reused connection turns out to be dead. That resend has no switch and bypasses
the rate limiter and the metrics. A middleware around each send therefore raises an exception that aiohttp does not resend after; the
retry is then ours, immediate and counted.

Redirects are never followed: the API key would go to whatever host a response names.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Protocol, Self, TypeVar

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from yarl import URL

from fubd.backoff import backoff_seconds, parse_retry_after
from fubd.client.clock_skew import ClockSkew
from fubd.client.rate_limit import DEFAULT_RETRY_AFTER_SECONDS, MAX_IN_FLIGHT, RateLimiter
from fubd.core.api import is_owner_only, parse_error
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock

MAX_ATTEMPTS = 5
MAX_BODY_BYTES = 32 * 1024 * 1024
"""A page of 100 people with the fields that fubd requests is about 40 KB. One odd field of many megabytes must not hide the others."""
FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 15.0
_DNS_CACHE_SECONDS = 60
_PLAUSIBLE_YEARS = range(1980, 2200)  # a Date outside these years is not a clock

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What identifies us to FUB in every request. With `system_key` None the X-System-Key header is not sent."""

    api_key: str = field(repr=False)
    system: str
    system_key: str | None = field(repr=False)

    def headers(self) -> dict[str, str]:
        """Return the request headers: Basic authentication with the key as user and a blank password, and the registered system."""
        basic = b64encode(f"{self.api_key}:".encode()).decode()
        system = {} if self.system_key is None else {"X-System-Key": self.system_key}
        return {"Authorization": f"Basic {basic}", "X-System": self.system, **system}

    def redact(self, text: str) -> str:
        """Return the text with both keys replaced by asterisks."""
        for secret in (self.api_key, self.system_key):
            if secret:
                text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits in seconds: of the TCP connection, of one attempt up to the last byte, and of one request over all its attempts.

    The total excludes the wait for the rate limit. Socket timeouts use real time, all other waits the injected clock.
    """

    connect_seconds: float = 10.0
    attempt_seconds: float = 30.0
    total_seconds: float = 60.0


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Request:
    """One API request. `endpoint` is its label in the metrics; `idempotent` is False when processing it twice does harm."""

    endpoint: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: Mapping[str, str] | None = None
    idempotent: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response. `read_at` (FUB's clock) is at or before the moment when FUB read the data it returned."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    read_at: datetime


class IncomingBody(Protocol):
    """The body of an answer as it arrives."""

    def iter_any(self) -> AsyncIterator[bytes]:
        """Yield the bytes received so far, until the end."""


class IncomingResponse(Protocol):
    """An answer whose head has arrived, as aiohttp shows it."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by name in any case."""

    @property
    def content(self) -> IncomingBody:
        """The body."""


class HttpTransport(Protocol):
    """Sends requests as aiohttp's session does, and raises what it raises."""

    def request(
        self,
        method: str,
        url: URL,
        *,
        params: Mapping[str, str],
        json: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
        allow_redirects: bool,
    ) -> AbstractAsyncContextManager[IncomingResponse]:
        """Send a request; the answer is read inside the context."""

    async def close(self) -> None:
        """Close all connections."""


class Retryable(Exception):
    """This attempt failed and another may succeed. The text says what happened, in words for the user.

    `processed`: FUB may have acted on the request. `retry_after_seconds`: the delay that FUB asked for. `throttled`: the rate limiter
    enforces that delay. `connection_lost`: any reused connection may die, so the first retry after that is immediate.
    """

    def __init__(
        self,
        what: str,
        *,
        processed: bool = True,
        retry_after_seconds: float | None = None,
        throttled: bool = False,
        connection_lost: bool = False,
    ) -> None:
        super().__init__(what)
        self.processed = processed
        self.retry_after_seconds = retry_after_seconds
        self.throttled = throttled
        self.connection_lost = connection_lost


class _ConnectionLost(Exception):
    """A connection died during a request. Not aiohttp's own class, after which aiohttp would resend."""


@dataclass(slots=True)
class _RetryBudget:
    """The time that one request has spent on attempts and on the waits between them, excluding the wait for the rate limit."""

    total_seconds: float
    spent_seconds: float = 0.0
    unusable_body: bytes | None = None

    def left_seconds(self) -> float:
        return max(0.0, self.total_seconds - self.spent_seconds)

    def is_exhausted(self, state: RetryCallState) -> bool:
        return state.attempt_number >= MAX_ATTEMPTS or state.upcoming_sleep >= self.left_seconds()


def open_connections(headers: Mapping[str, str]) -> HttpTransport:
    """Return a transport over real connections that sends these headers with each request."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=2 * MAX_IN_FLIGHT, ttl_dns_cache=_DNS_CACHE_SECONDS),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_prevent_resend,),
    )


class FubSession:
    """An HTTP session to one Follow Up Boss account; an async context manager. `open_transport` is given the headers of each request."""

    def __init__(
        self,
        *,
        base_url: str,
        credentials: Credentials,
        share: float,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        timeouts: Timeouts,
        open_transport: Callable[[Mapping[str, str]], HttpTransport],
    ) -> None:
        self._base = URL(base_url.rstrip("/"))
        self._credentials = credentials
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._timeouts = timeouts
        self._limiter = RateLimiter(share=share, max_wait_seconds=timeouts.total_seconds, clock=clock, metrics=metrics)
        self._open_transport = open_transport
        self._transport: HttpTransport | None = None
        self.skew = ClockSkew()
        self.calls_made = 0

    async def __aenter__(self) -> Self:
        self._transport = self._open_transport({"User-Agent": "fubd", **self._credentials.headers()})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    async def request(self, request: Request, parse: Callable[[Response], _Value]) -> tuple[_Value, datetime]:
        """Send the request; return the parsed response and its `read_at`.

        `parse` raises Malformed or Retryable to have the request retried, FubRefused to end it. Raises FubRefused, Malformed when FUB sends
        the same unusable document again, and Unavailable when no attempt succeeded.
        """
        budget = _RetryBudget(self._timeouts.total_seconds)

        async def sleep(seconds: float) -> None:
            budget.spent_seconds += seconds
            if seconds > 0:
                await self._clock.pause(seconds)

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Retryable) and (request.idempotent or not error.processed)),
            wait=self._retry_delay_seconds,
            stop=budget.is_exhausted,
            sleep=sleep,
            reraise=True,
        )
        try:
            result: tuple[_Value, datetime] = await retrying(self._attempt, request, parse, budget)
        except Retryable as error:
            attempts = retrying.statistics["attempt_number"]
            times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            raise Unavailable(f"Follow Up Boss did not answer: {error} after {times}", retry_after=error.retry_after_seconds) from None
        return result

    def _retry_delay_seconds(self, state: RetryCallState) -> float:
        """Return the wait before the next attempt: exponential backoff with jitter, added to the delay that FUB asked for."""
        error = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(error, Retryable) or error.throttled or (error.connection_lost and state.attempt_number == 1):
            return 0.0
        longest = backoff_seconds(state.attempt_number, first_seconds=FIRST_BACKOFF_SECONDS, longest_seconds=MAX_BACKOFF_SECONDS)
        return (error.retry_after_seconds or 0.0) + self._rng.uniform(longest / 2, longest)

    async def _attempt(self, request: Request, parse: Callable[[Response], _Value], budget: _RetryBudget) -> tuple[_Value, datetime]:
        response = await self._send_when_allowed(request, budget)
        try:
            value = parse(response)
        except Malformed as error:
            reason = self._credentials.redact(str(error))
            is_document = parse_error(response.body) is not None
            if is_document and response.body == budget.unusable_body:
                raise Malformed(f"Follow Up Boss sent an answer that cannot be used, twice the same: {reason}") from None
            budget.unusable_body = response.body
            raise Retryable(f"an answer that cannot be used ({reason})") from None
        return value, response.read_at

    def limit_and_remaining(self) -> tuple[int | None, int | None]:
        """Return FUB's limit for reading people and what remains of it, from the last response; None where it gave none."""
        return self._limiter.window("GET people").limit_and_remaining

    async def _send_when_allowed(self, request: Request, budget: _RetryBudget) -> Response:
        """Wait for the rate limit, then send once."""
        key = f"{request.method} {request.endpoint}"
        window = self._limiter.window(key)
        sent_at = await window.acquire()
        status = "error"
        self.calls_made += 1
        try:
            response = await self._send(request, key, sent_at, budget)
            status = str(response.status)
        except (aiohttp.ClientError, _ConnectionLost, OSError, EOFError, UnicodeError) as error:
            raise _to_retryable(error) from None
        finally:
            window.release()
            elapsed_seconds = self._clock.monotonic() - sent_at
            budget.spent_seconds += elapsed_seconds
            self._metrics.api_requests.labels(request.endpoint, status).inc()
            if status != "error":
                self._metrics.api_request_seconds.labels(request.endpoint).observe(elapsed_seconds)
        return response

    async def _send(self, request: Request, key: str, sent_at: float, budget: _RetryBudget) -> Response:
        if self._transport is None:
            raise RuntimeError("FubSession is used outside its context")
        timeout = aiohttp.ClientTimeout(
            total=min(self._timeouts.attempt_seconds, budget.left_seconds()), sock_connect=self._timeouts.connect_seconds
        )
        url = self._base.joinpath(*request.path.split("/"))
        async with self._transport.request(
            request.method, url, params=request.params, json=request.body, timeout=timeout, allow_redirects=False
        ) as response:
            read_at = self._read_at(response.status, response.headers, sent_at)
            window = self._limiter.update(key, sent_at, response.headers)
            if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                closed_seconds = _closed_seconds(response.headers)
                window.close(closed_seconds)
                budget.spent_seconds += closed_seconds
            return Response(response.status, response.headers, await _read_body(response), read_at)

    def _read_at(self, status: int, headers: Mapping[str, str], sent_at: float) -> datetime:
        """Return an instant of FUB's clock that is not after the moment of reading; update the clock skew from the Date header."""
        monotonic, now = self._clock.monotonic(), self._clock.now()
        elapsed_seconds = monotonic - sent_at
        date = _parse_date(headers.get("Date"))
        if date is None:
            return self.skew.earliest_fub_now(now) - timedelta(seconds=elapsed_seconds)
        if status < HTTPStatus.MULTIPLE_CHOICES:  # redirects and error pages may come from a proxy with another clock
            self.skew.update(date=date, received_at=now, elapsed_seconds=elapsed_seconds, monotonic=monotonic)
            self._metrics.clock_skew_seconds.set(self.skew.seconds())
        # A Date that runs ahead of what other responses showed is not believed: coverage would pass what was read.
        return min(date, self.skew.earliest_fub_now(now)) - timedelta(seconds=elapsed_seconds)

    def raise_for_status(self, response: Response) -> bytes:
        """Return the body of a 2xx response. Raises FubRefused for a final status, Retryable for a temporary one."""
        status = response.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return response.body
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise Retryable("429", processed=False, retry_after_seconds=_closed_seconds(response.headers), throttled=True)
        if status < HTTPStatus.BAD_REQUEST:
            raise Retryable(f"a redirect ({status}), which is never followed,")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY):
            raise Retryable(str(status), retry_after_seconds=parse_retry_after(response.headers))
        said = parse_error(response.body)
        foreign = "an answer that is not Follow Up Boss's own, perhaps of a firewall in between"
        reason = self._credentials.redact(foreign if said is None else said.rstrip(" .") or "no reason given")
        which = ", so it does not accept FUB_API_KEY" if status == HTTPStatus.UNAUTHORIZED else ""
        text = f"Follow Up Boss refused with {status}{which}: {reason}"
        raise FubRefused(text, status=status, owner_only=is_owner_only(response.body), is_foreign=said is None)


async def _prevent_resend(
    request: aiohttp.ClientRequest, handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
) -> aiohttp.ClientResponse:
    """Hide from aiohttp the two errors after which it would resend by itself."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _ConnectionLost from error


async def _read_body(response: IncomingResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Retryable(f"an answer larger than {MAX_BODY_BYTES // 1024**2} MiB")
    return bytes(body)


_NETWORK_ERRORS: tuple[tuple[type[Exception], str, bool], ...] = (
    # exception (the first match counts), its description, whether FUB may have processed the request
    (aiohttp.ClientConnectorDNSError, "its name could not be resolved", False),
    (UnicodeError, "its name could not be resolved", False),  # an invalid label; the resolver does not wrap this error
    (aiohttp.ClientConnectorCertificateError, "its certificate could not be verified", False),
    (aiohttp.ClientConnectorError, "no connection", False),
    (aiohttp.ConnectionTimeoutError, "no connection in time", False),
    (TimeoutError, "timed out", True),
    (_ConnectionLost, "connection lost", True),
    (aiohttp.ClientPayloadError, "an answer cut short", True),
    (aiohttp.ClientResponseError, "an answer that is not HTTP", True),
    (Exception, "connection lost", True),
)


def _to_retryable(error: Exception) -> Retryable:
    what, processed = next((what, processed) for kind, what, processed in _NETWORK_ERRORS if isinstance(error, kind))
    return Retryable(what, processed=processed, connection_lost=isinstance(error, _ConnectionLost))


def _closed_seconds(headers: Mapping[str, str]) -> float:
    """Return how long a 429 closes its context."""
    return parse_retry_after(headers) or DEFAULT_RETRY_AFTER_SECONDS


def _parse_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None or date.year not in _PLAUSIBLE_YEARS:
        return None
    return date.astimezone(UTC).replace(microsecond=0)
