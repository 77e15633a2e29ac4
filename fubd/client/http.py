"""Bring one answer home from Follow Up Boss: headers, bounds, attempts, and every exception of the network turned into ours.

What is tried again, at most five times within the patience: no connection, a lost one, a timeout, 5xx, 429, and answers that are not what
was asked for. What is not: a refusal (4xx), and a request that must not be done twice once it may have been done.

aiohttp by itself repeats an idempotent request once when a reused connection turns out dead, unseen by the limiter and by the metrics, with
no switch. A middleware sits around each sending and raises what aiohttp does not repeat; the repetition is then ours, at once and counted.

Redirects are never followed: the key would travel to wherever an answer says.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from yarl import URL

from fubd.client.clock_skew import Skew
from fubd.client.rate_limit import DEFAULT_RETRY_AFTER_SECONDS, MOST_IN_FLIGHT, Limiter, retry_after_seconds
from fubd.core.api import parse_error
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock

MOST_ATTEMPTS = 5
MOST_BODY_BYTES = 8 * 1024 * 1024
"""A page of 100 people with the fields we ask for is about 40 KB."""
FIRST_BACKOFF_SECONDS = 1.0
MOST_BACKOFF_SECONDS = 15.0
_DNS_CACHE_SECONDS = 60
_YEARS = range(1980, 2200)  # a Date outside is no clock

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask. `endpoint` is its name in the metrics; `idempotent` is False when doing it twice does harm."""

    endpoint: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: Mapping[str, str] | None = None
    idempotent: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `read_at` is at or before the moment FUB read what it tells, in FUB's time."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    read_at: datetime


class Retryable(Exception):
    """This attempt failed and another may not. The text says what happened, in words fit for a user.

    `arrived` is False when FUB surely did not act on it. `wish_seconds`: how long FUB asked us to wait. `held`: the limiter sees to
    the wait. `lost`: a connection died under it, which happens to any that is reused, so the first time nothing is waited for.
    """

    def __init__(
        self, what: str, *, arrived: bool = True, wish_seconds: float | None = None, held: bool = False, lost: bool = False
    ) -> None:
        super().__init__(what)
        self.arrived = arrived
        self.wish_seconds = wish_seconds
        self.held = held
        self.lost = lost


class _ConnectionLost(Exception):
    """A connection died under a request. Not aiohttp's own class, which aiohttp would repeat."""


@dataclass(slots=True)
class _RetryBudget:
    """What one call has cost so far: the time of its attempts and of the waits between, except for its turn under the rate limit."""

    total_timeout_seconds: float
    spent_seconds: float = 0.0

    def left_seconds(self) -> float:
        return max(0.0, self.total_timeout_seconds - self.spent_seconds)

    def is_over(self, state: RetryCallState) -> bool:
        return state.attempt_number >= MOST_ATTEMPTS or state.upcoming_sleep >= self.left_seconds()


class FubSession:
    """One session to one Follow Up Boss. An async context manager.

    `total_timeout_seconds` bounds one call over all its attempts, `attempt_timeout_seconds` one attempt to the last byte, and
    `connect_timeout_seconds` the making of a connection. Sockets live in real time, all other waiting in the clock's.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        system: str,
        system_key: str | None,
        share: float,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        connect_timeout_seconds: float,
        attempt_timeout_seconds: float,
        total_timeout_seconds: float,
    ) -> None:
        self._base = URL(base_url.rstrip("/"))
        self._headers = {
            "Authorization": f"Basic {b64encode(f'{api_key}:'.encode()).decode()}",
            "User-Agent": "fubd",
            "X-System": system,
        }
        if system_key is not None:
            self._headers["X-System-Key"] = system_key
        self._secrets = tuple(secret for secret in (api_key, system_key) if secret)
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._connect_timeout_seconds = connect_timeout_seconds
        self._attempt_timeout_seconds = attempt_timeout_seconds
        self._patience_seconds = total_timeout_seconds
        self._limiter = Limiter(share=share, total_timeout_seconds=total_timeout_seconds, clock=clock, metrics=metrics)
        self._session: aiohttp.ClientSession | None = None
        self.skew = Skew()
        self.calls_made = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=2 * MOST_IN_FLIGHT, ttl_dns_cache=_DNS_CACHE_SECONDS),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_once,),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, call: Request, read: Callable[[Response], _Value]) -> tuple[_Value, datetime]:
        """Give what `read` makes of the answer, and the answer's `read_at`.

        `read` may raise Malformed or Again, then the call is tried again, or Refused. Raises Refused, and Unavailable when no attempt
        succeeded.
        """
        effort = _RetryBudget(self._patience_seconds)

        async def sleep(seconds: float) -> None:
            effort.spent_seconds += seconds
            if seconds > 0:
                await self._clock.pause(seconds)

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Retryable) and (call.idempotent or not error.arrived)),
            wait=self._wait_seconds,
            stop=effort.is_over,
            sleep=sleep,
            reraise=True,
        )
        try:
            value: tuple[_Value, datetime] = await retrying(self._attempt, call, read, effort)
        except Retryable as error:
            attempts = retrying.statistics["attempt_number"]
            times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            raise Unavailable(f"Follow Up Boss did not answer: {error} after {times}", retry_after=error.wish_seconds) from None
        return value

    def _wait_seconds(self, state: RetryCallState) -> float:
        """Give the wait before the next attempt: truncated exponential backoff with jitter, on top of what FUB wished for."""
        error = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(error, Retryable) or error.held or (error.lost and state.attempt_number == 1):
            return 0.0
        longest = min(MOST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** (state.attempt_number - 1))
        return (error.wish_seconds or 0.0) + self._rng.uniform(longest / 2, longest)

    async def _attempt(self, call: Request, read: Callable[[Response], _Value], effort: _RetryBudget) -> tuple[_Value, datetime]:
        answer = await self._exchange(call, effort)
        try:
            value = read(answer)
        except Malformed as error:
            raise Retryable(f"an answer that cannot be used ({error})") from None
        return value, answer.read_at

    def limit_and_remaining(self) -> tuple[int | None, int | None]:
        """Give FUB's limit for reading people and what is left of it, as the last answer told; None where it told nothing."""
        return self._limiter.window("GET people").told

    async def _exchange(self, call: Request, effort: _RetryBudget) -> Response:
        """Send once, when the limit allows, and take the answer whole."""
        key = f"{call.method} {call.endpoint}"
        window = self._limiter.window(key)
        sent_at = await window.acquire()
        status = "error"
        self.calls_made += 1
        try:
            answer = await self._send(call, key, sent_at, effort)
            status = str(answer.status)
        except (aiohttp.ClientError, _ConnectionLost, OSError, EOFError, UnicodeError) as error:
            raise _again(error) from None
        finally:
            window.release()
            elapsed_seconds = self._clock.monotonic() - sent_at
            effort.spent_seconds += elapsed_seconds
            self._metrics.api_requests.labels(call.endpoint, status).inc()
            if status != "error":
                self._metrics.api_request_seconds.labels(call.endpoint).observe(elapsed_seconds)
        return answer

    async def _send(self, call: Request, key: str, sent_at: float, effort: _RetryBudget) -> Response:
        if self._session is None:
            raise RuntimeError("the connection is used outside its context")
        timeout = aiohttp.ClientTimeout(
            total=min(self._attempt_timeout_seconds, effort.left_seconds()), sock_connect=self._connect_timeout_seconds
        )
        url = self._base.joinpath(*call.path.split("/"))
        async with self._session.request(
            call.method, url, params=call.params, json=call.body, timeout=timeout, allow_redirects=False
        ) as response:
            read_at = self._date(response.status, response.headers, sent_at)
            window = self._limiter.learn(key, sent_at, response.headers)
            if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                closed_seconds = _closed_seconds(response.headers)
                window.close(closed_seconds)
                effort.spent_seconds += closed_seconds
            return Response(response.status, response.headers, await _body(response), read_at)

    def _date(self, status: int, headers: Mapping[str, str], sent_at: float) -> datetime:
        """Learn from the Date header, and give an instant of FUB's clock that is not after the moment of reading."""
        answered_at, ours = self._clock.monotonic(), self._clock.now()
        elapsed_seconds = answered_at - sent_at
        date = _parse_date(headers.get("Date"))
        if date is None:
            return self.skew.earliest(ours) - timedelta(seconds=elapsed_seconds)
        if status < HTTPStatus.MULTIPLE_CHOICES:  # what redirects, and what stands in for a broken server, may have another clock
            self.skew.learn(date=date, ours=ours, elapsed_seconds=elapsed_seconds, at=answered_at)
            self._metrics.clock_skew_seconds.set(self.skew.seconds())
        return date - timedelta(seconds=elapsed_seconds)

    def raise_for_status(self, answer: Response) -> bytes:
        """Give the body of a success. Raises Refused for what is final, Again for what may pass."""
        status = answer.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return answer.body
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise Retryable("429", arrived=False, wish_seconds=_closed_seconds(answer.headers), held=True)
        if status < HTTPStatus.BAD_REQUEST:
            raise Retryable(f"a redirect ({status}), which is never followed,")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY):
            raise Retryable(str(status), wish_seconds=retry_after_seconds(answer.headers))
        words = parse_error(answer.body) or "no reason given"
        for secret in self._secrets:
            words = words.replace(secret, "***")
        which = ", so it does not accept FUB_API_KEY" if status == HTTPStatus.UNAUTHORIZED else ""
        raise FubRefused(f"Follow Up Boss refused with {status}{which}: {words}", status=status)


async def _once(
    request: aiohttp.ClientRequest, handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
) -> aiohttp.ClientResponse:
    """Send once: hide from aiohttp the two errors after which it would send again by itself."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _ConnectionLost from error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise Retryable("an answer beyond any bound")
    return bytes(body)


_WORDS: tuple[tuple[type[Exception], str, bool], ...] = (
    # what was raised (the first that fits), what to call it, whether the request may have arrived
    (aiohttp.ClientConnectorDNSError, "its name could not be resolved", False),
    (UnicodeError, "its name could not be resolved", False),  # a label that no name has; the resolver raises it as it is
    (aiohttp.ClientConnectorCertificateError, "its certificate could not be verified", False),
    (aiohttp.ClientConnectorError, "no connection", False),
    (aiohttp.ConnectionTimeoutError, "no connection in time", False),
    (TimeoutError, "timed out", True),
    (_ConnectionLost, "connection lost", True),
    (aiohttp.ClientPayloadError, "an answer cut short", True),
    (aiohttp.ClientResponseError, "an answer that is not HTTP", True),
    (Exception, "connection lost", True),
)


def _again(error: Exception) -> Retryable:
    what, arrived = next((what, arrived) for kind, what, arrived in _WORDS if isinstance(error, kind))
    return Retryable(what, arrived=arrived, lost=isinstance(error, _ConnectionLost))


def _closed_seconds(headers: Mapping[str, str]) -> float:
    """Give how long a 429 closes its context."""
    return retry_after_seconds(headers) or DEFAULT_RETRY_AFTER_SECONDS


def _parse_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None or date.year not in _YEARS:
        return None
    return date.astimezone(UTC).replace(microsecond=0)
