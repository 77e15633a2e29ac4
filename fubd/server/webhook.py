"""The webhook route: reads, verifies and decodes a delivery, and answers 200 only once it is committed.

Whatever a sender does ends in one row of the table below, or in a plain 400 where no request came about. Nothing of a request is logged or
kept before its signature is verified.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import cast

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from fubd.core.observation import Delivery
from fubd.core.vocabulary import DELIVERY_OUTCOMES, DeliveryOutcome
from fubd.core.webhook import decode, verify
from fubd.errors import InvalidSignature, Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock, Ingestor
from fubd.problems import Problems
from fubd.server.connections import Connection
from fubd.server.limits import ServerLimits
from fubd.server.signing import SigningKeyCheck

_logger = logging.getLogger(__name__)
_SIGNATURE_HEADER = "FUB-Signature"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class TooLarge(Exception):
    """The body is larger than the limit."""


class TooSlow(Exception):
    """The body did not arrive in time."""


class IncompleteBody(Exception):
    """The body broke off, or its framing is not HTTP. There is no request to answer, and usually no sender left."""


# Error -> status and outcome. 406 and 410 must never be in it: FUB deletes a webhook that answers so
# (https://docs.followupboss.com/reference/webhooks-guide).
_ERRORS: dict[type[Exception], tuple[int, str]] = {
    InvalidSignature: (401, "forged"),
    TooLarge: (413, "too_large"),
    TooSlow: (408, "too_slow"),
    Unavailable: (503, "unavailable"),
}
# After these two, the rest of the body would be parsed as the next request.
_CLOSING_STATUSES = frozenset({408, 413})


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Counts of webhook requests: those answered, the sum of their outcomes, and the deliveries answered 200 that were new.

    `failures`: answers that FUB counts as a failed attempt of its own; `accepted`: those it counts as accepted.
    """

    answered: int = 0
    outcomes: int = 0
    new: int = 0
    failures: int = 0
    accepted: int = 0


class WebhookHandler:
    """Passes deliveries to the ingestor. The monitor compares the two plain counts with the metrics and the database.

    `answered` is counted where a response leaves, `outcomes` where it is decided.
    """

    def __init__(
        self,
        *,
        ingestor: Ingestor,
        keys: Sequence[bytes],
        metrics: Metrics,
        problems: Problems,
        clock: Clock,
        fub_now: Callable[[], datetime],
        limits: ServerLimits,
    ) -> None:
        self.answered = 0
        self.outcomes = dict.fromkeys(DELIVERY_OUTCOMES, 0)
        self._ingestor = ingestor
        self._keys = tuple(keys)
        self._signing_key = SigningKeyCheck(problems, clock)
        self._clock = clock
        self._fub_now = fub_now
        self._limits = limits
        self._large_bodies: dict[Connection, None] = {}
        self._counters = {outcome: metrics.webhook_deliveries.labels(outcome) for outcome in DELIVERY_OUTCOMES}
        self._ack_seconds = metrics.webhook_ack_seconds

    def counts(self) -> DeliveryCounts:
        """Return the counts so far."""
        new = sum(self.outcomes[outcome] for outcome in ("accepted", "ignored", "quarantined"))
        # Only what was verified counts as FUB's attempt: anybody can send a body that is too large, or none.
        return DeliveryCounts(
            self.answered, sum(self.outcomes.values()), new, self.outcomes["unavailable"], new + self.outcomes["duplicate"]
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one POST to a webhook route."""
        started = self._clock.monotonic()
        try:
            outcome = (await self._receive(request)).value
            response = web.Response(body=outcome.encode(), content_type="text/plain")
        except tuple(_ERRORS) as error:
            outcome, response = self._error_response(error)
            # A delivery that still waits keeps its error, whose traceback would keep the request: many times its bytes.
            error.__traceback__ = None
        except IncompleteBody:
            response = web.Response(status=400, text="the body is incomplete\n")
            response.force_close()
            return response
        self.outcomes[outcome] += 1
        self._counters[outcome].inc()
        self._ack_seconds.observe(self._clock.monotonic() - started)
        self.answered += 1
        return response

    def _error_response(self, error: Exception) -> tuple[str, web.Response]:
        status, outcome = next(row for kind, row in _ERRORS.items() if isinstance(error, kind))
        response = web.Response(status=status, text=outcome)
        if isinstance(error, Unavailable):
            retry_after_seconds = error.retry_after or self._limits.retry_after_seconds
            response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(retry_after_seconds)))
        if status in _CLOSING_STATUSES:
            response.force_close()
        return outcome, response

    async def _receive(self, request: web.BaseRequest) -> DeliveryOutcome:
        content = request.content
        try:
            # Head and body nearly always arrive in one segment: then there is nothing to wait for.
            body = content.read_nowait(-1) if content.is_eof() else await self._read_body(request)
        except (ConnectionError, HttpProcessingError, web.RequestPayloadError) as error:
            raise IncompleteBody from error
        if len(body) > self._limits.body_bytes:
            raise TooLarge
        self._verify(body, request.headers.get(_SIGNATURE_HEADER))
        cast("Connection", request.protocol).mark_verified()
        return await self._ingest(decode(body, fub_now=self._latest_now()))

    def _latest_now(self) -> datetime:
        """Return the later of FUB's clock and ours: a clock that is behind must not turn an event into one of the future."""
        return max(self._fub_now(), self._clock.now())

    def _verify(self, body: bytes, signature: str | None) -> None:
        try:
            verify(body, signature, self._keys)
        except InvalidSignature:
            self._signing_key.on_refused(body, signature, fub_now=self._latest_now())
            raise
        self._signing_key.on_verified()

    async def _read_body(self, request: web.BaseRequest) -> bytes:
        """Read a body that did not arrive with its head, up to slightly over the limit. Raises TooLarge and TooSlow."""
        limit = self._limits.body_bytes
        if (request.content_length or 0) > limit:
            raise TooLarge
        if cast("Connection", request.protocol).is_body_overdue:
            raise TooSlow
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(_CONTINUE)
            # aiohttp must not take this for the beginning of the response.
            request.writer.output_size = 0
        is_small = request.content_length is not None and request.content_length <= self._limits.receive_bytes
        timeout_seconds = self._limits.small_body_timeout_seconds if is_small else self._limits.body_timeout_seconds
        try:
            async with asyncio.timeout(timeout_seconds):
                body = await _read_up_to(request.content, self._limits.large_body_bytes)
                if len(body) > self._limits.large_body_bytes:
                    with self._reading_large_body(cast("Connection", request.protocol)):
                        body += await _read_up_to(request.content, limit - len(body))
        except TimeoutError:
            raise TooSlow from None
        except RuntimeError as error:
            # aiohttp raises this when the connection was closed before the read started.
            raise IncompleteBody from error
        return body

    @contextmanager
    def _reading_large_body(self, connection: Connection) -> Iterator[None]:
        """Count a large body while it is read. When there are too many, the one that has taken longest is ended."""
        if len(self._large_bodies) >= self._limits.large_bodies:
            oldest = next(iter(self._large_bodies))
            del self._large_bodies[oldest]
            oldest.abort()
        self._large_bodies[connection] = None
        try:
            yield
        finally:
            self._large_bodies.pop(connection, None)

    async def _ingest(self, delivery: Delivery) -> DeliveryOutcome:
        """Submit the delivery and wait for its commit. Raises Unavailable; the ingestor keeps the delivery even after a timeout.

        A timer instead of a timeout around the wait: no task, no shield, and nothing that a lost connection could cancel.
        """
        answer = self._ingestor.submit(delivery)
        timer = asyncio.get_running_loop().call_later(self._limits.ingest_timeout_seconds, self._expire, delivery, answer)
        try:
            return await answer
        except Unavailable:
            raise
        except Exception as error:
            # Nothing was committed, so the sender has to retry. The sender is not at fault: this is a bug of ours, shown in the log.
            _logger.exception("recording a delivery failed with an unexpected error; answered 503 so that Follow Up Boss retries it")
            raise Unavailable("the delivery could not be recorded") from error
        finally:
            timer.cancel()

    def _expire(self, delivery: Delivery, answer: asyncio.Future[DeliveryOutcome], *, is_last: bool = False) -> None:
        """Stop waiting, unless the delivery is being recorded part by part: that may take longer, but FUB waits no more than 10 s."""
        if answer.done():
            return
        if is_last or not self._ingestor.is_partly_recorded(delivery):
            answer.set_exception(Unavailable("the delivery was not committed in time"))
            return
        remaining_seconds = self._limits.partly_recorded_timeout_seconds - self._limits.ingest_timeout_seconds
        asyncio.get_running_loop().call_later(remaining_seconds, partial(self._expire, delivery, answer, is_last=True))


async def _read_up_to(content: StreamReader, limit: int) -> bytes:
    """Read to the end of the body, or until more than `limit` bytes were read."""
    chunks: list[bytes] = []
    size = 0
    while size <= limit and (chunk := await content.readany()):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)
