"""The webhook door: bytes in, verdict out. 200 is said only once the delivery is committed.

Whatever a sender does ends in one line of the table below, or in a plain 400 where no request came about at all. Nothing is logged for a
request, and nothing of it is kept before its signature is proven.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from datetime import datetime

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from fubd.core.observation import Delivery
from fubd.core.vocabulary import DELIVERY_OUTCOMES
from fubd.core.webhook import decode, verify
from fubd.errors import InvalidSignature, Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock, DeliveryOutcome, Ingestor
from fubd.server.limits import Limits

_logger = logging.getLogger(__name__)
_SIGNATURE = "FUB-Signature"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class TooLarge(Exception):
    """The body is longer than any delivery."""


class TooSlow(Exception):
    """The body did not come in time."""


class IncompleteBody(Exception):
    """The body ended before its end, or its framing is not HTTP: there is no request to answer, and mostly nobody to answer to."""


# The table: error -> status and outcome. 406 and 410 must never be in it: for each of them FUB deletes the webhook.
_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    InvalidSignature: (401, "forged"),
    TooLarge: (413, "too_large"),
    TooSlow: (408, "too_slow"),
    Unavailable: (503, "unavailable"),
}
# After these two the rest of the body would be taken for the next request.
_CLOSING = frozenset({408, 413})


class WebhookHandler:
    """Admits deliveries to the inbox. The counts are plain numbers: another part holds them against the metrics and the database.

    `answered` and `answered_200` are counted where an answer leaves, `outcomes` where it is decided.
    """

    def __init__(
        self,
        *,
        ingestor: Ingestor,
        keys: Sequence[bytes],
        metrics: Metrics,
        clock: Clock,
        fub_now: Callable[[], datetime],
        limits: Limits,
    ) -> None:
        self.answered = 0
        self.answered_200 = 0
        self.outcomes = dict.fromkeys(DELIVERY_OUTCOMES, 0)
        self._ingestor = ingestor
        self._keys = tuple(keys)
        self._clock = clock
        self._fub_now = fub_now
        self._limits = limits
        self._large = asyncio.Semaphore(limits.large_bodies)
        self._counters = {outcome: metrics.webhook_deliveries.labels(outcome) for outcome in DELIVERY_OUTCOMES}
        self._ack_seconds = metrics.webhook_ack_seconds

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take one POST of a webhook route to its answer."""
        began = self._clock.monotonic()
        try:
            outcome = (await self._admit(request)).value
            response = web.Response(body=outcome.encode(), content_type="text/plain")
        except tuple(_REFUSALS) as error:
            outcome, response = self._refuse(error)
        except IncompleteBody:
            response = web.Response(status=400, text="the body broke off\n")
            response.force_close()
            return response
        self.outcomes[outcome] += 1
        self._counters[outcome].inc()
        self._ack_seconds.observe(self._clock.monotonic() - began)
        self.answered += 1
        if response.status == web.HTTPOk.status_code:
            self.answered_200 += 1
        return response

    def _refuse(self, error: Exception) -> tuple[str, web.Response]:
        status, outcome = next(row for kind, row in _REFUSALS.items() if isinstance(error, kind))
        response = web.Response(status=status, text=outcome)
        if isinstance(error, Unavailable):
            wish = error.retry_after or self._limits.retry_after_seconds
            response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(wish)))
        if status in _CLOSING:
            response.force_close()
        return outcome, response

    async def _admit(self, request: web.BaseRequest) -> DeliveryOutcome:
        content = request.content
        try:
            # Nearly always head and body came in one segment, and there is nothing to wait for.
            body = content.read_nowait(-1) if content.is_eof() else await self._read(request)
        except (ConnectionError, HttpProcessingError, web.RequestPayloadError) as error:
            raise IncompleteBody from error
        if len(body) > self._limits.body_bytes:
            raise TooLarge
        verify(body, request.headers.get(_SIGNATURE), self._keys)
        return await self._deliver(decode(body, fub_now=self._fub_now()))

    async def _read(self, request: web.BaseRequest) -> bytes:
        """Read a body that was not there with its head, but not much further than it may be long. Raises TooLarge and TooSlow."""
        most = self._limits.body_bytes
        if (request.content_length or 0) > most:
            raise TooLarge
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(_CONTINUE)
            # Not part of the answer, which must still count as unbegun.
            request.writer.output_size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await _read_up_to(request.content, self._limits.large_body_bytes)
                if len(body) > self._limits.large_body_bytes:
                    async with self._large:
                        body += await _read_up_to(request.content, most - len(body))
        except TimeoutError:
            raise TooSlow from None
        except RuntimeError as error:
            # How a read says that the connection was gone before it began.
            raise IncompleteBody from error
        return body

    async def _deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Hand it to the inbox, which goes on with it even when its sender is told to come again.

        A timer instead of a timeout around the wait: no task, no shield, and nothing that could be cancelled with the sender.
        """
        answer = self._ingestor.submit(delivery)
        timer = asyncio.get_running_loop().call_later(self._limits.deliver_seconds, _give_up, answer)
        try:
            return await answer
        except Unavailable:
            raise
        except Exception as error:
            # Nothing was committed, so that the sender must come again; it is not to blame, and a bug is told where it can be read.
            _logger.exception("a delivery could not be recorded")
            raise Unavailable("the delivery could not be recorded") from error
        finally:
            timer.cancel()


async def _read_up_to(content: StreamReader, most: int) -> bytes:
    """Read to the end, or until more than so many bytes have come."""
    chunks: list[bytes] = []
    size = 0
    while size <= most and (chunk := await content.readany()):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _give_up(answer: asyncio.Future[DeliveryOutcome]) -> None:
    if not answer.done():
        answer.set_exception(Unavailable("the inbox did not answer in time"))
