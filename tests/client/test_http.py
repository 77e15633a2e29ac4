"""Requests to servers that misbehave in every way, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from socket import SO_LINGER, SOL_SOCKET

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fubd.client.http import MAX_ATTEMPTS, MAX_BODY_BYTES
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import PeopleQuery
from fubd.simulator.rng import Rng
from tests.client.fakes import (
    API_KEY,
    PERSON,
    RATE,
    SYSTEM_KEY,
    Handler,
    SkippingClock,
    error_document,
    fake_fub,
    make_client,
    page,
    raw_server,
    requests_counted,
)

ONE = PeopleQuery(ids=(5,))
GOOD = json.dumps({"people": [PERSON]}).encode()
HTML = web.Response(text="<!DOCTYPE html><html><body>We'll be right back</body></html>", content_type="text/html")


async def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection without a response."""
    assert request.transport is not None
    request.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


async def cut(request: web.Request) -> web.StreamResponse:
    """Announce a longer body than is sent."""
    response = web.StreamResponse(headers={"Content-Length": str(len(GOOD) + 100), **RATE})
    await response.prepare(request)
    await response.write(GOOD)
    assert request.transport is not None
    request.transport.abort()
    return response


async def hang(_request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


async def drip(request: web.Request) -> web.StreamResponse:
    """Send one byte at a time, without end."""
    response = web.StreamResponse(headers=RATE)
    await response.prepare(request)
    never = asyncio.ensure_future(asyncio.Event().wait())
    try:
        while True:
            await response.write(b" ")
            await asyncio.wait([never], timeout=0.01)
    finally:
        never.cancel()


async def flood(request: web.Request) -> web.StreamResponse:
    """Send without end."""
    response = web.StreamResponse(headers=RATE)
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


def zipped(body: bytes) -> web.Response:
    """Return the bytes as gzip content."""
    return web.Response(body=body, headers={"Content-Encoding": "gzip", **RATE})


@pytest.mark.parametrize("system_key", [SYSTEM_KEY, None])
async def test_every_request_carries_the_credentials(system_key: str | None) -> None:
    """Each request has the key with a blank password and the system; without a system key that header is absent."""
    async with fake_fub(page()) as (server, base), make_client(base, SkippingClock(), system_key=system_key) as client:
        await client.people(ONE)
    (request,) = server.requests
    assert b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode() == f"{API_KEY}:"
    assert request.headers["X-System"] == "fubd-test"
    assert request.headers.get("X-System-Key") == system_key
    assert request.path == "/v1/people"


TEMPORARY = [
    pytest.param(web.Response(status=500), "500", id="500"),
    pytest.param(web.Response(status=503, text="busy"), "503", id="503"),
    pytest.param(web.Response(status=502, text="<html>", content_type="text/html"), "502", id="502 as a page"),
    pytest.param(web.Response(status=408), "408", id="408"),
    pytest.param(web.Response(status=302, headers={"Location": "/v1/people"}), "a redirect (302), which is never followed,", id="redirect"),
    pytest.param(HTML, "an answer that cannot be used (the answer is not JSON)", id="HTML"),
    pytest.param(web.Response(body=GOOD[:-9]), "an answer that cannot be used (the answer is not JSON)", id="truncated"),
    pytest.param(web.Response(status=204), "an answer that cannot be used (the answer is not JSON)", id="empty"),
    pytest.param(web.json_response([PERSON]), "an answer that cannot be used (the answer is not a JSON object)", id="list"),
    pytest.param(zipped(b"\x1f\x8bjunk"), "an answer cut short", id="gzip junk"),
    pytest.param(zipped(gzip.compress(GOOD)[:-12]), "an answer that cannot be used (the answer is not JSON)", id="gzip cut"),
    pytest.param(zipped(gzip.compress(b" " * (MAX_BODY_BYTES + 1))), "an answer larger than 32 MiB", id="gzip bomb"),
    pytest.param(flood, "an answer larger than 32 MiB", id="flood"),
    pytest.param(cut, "an answer cut short", id="cut"),
    pytest.param(reset, "connection lost", id="reset"),
    pytest.param(hang, "timed out", id="hang"),
    pytest.param(drip, "timed out", id="drip"),
]


@pytest.mark.parametrize(("bad", "_what"), TEMPORARY)
async def test_a_bad_response_is_retried(bad: Handler | web.Response, _what: str) -> None:
    """After one bad response of any kind the good one is returned, after a short wait, and both are counted."""
    clock, metrics = SkippingClock(), Metrics(CollectorRegistry())
    async with (
        fake_fub(bad, page(PERSON | {"id": "5"})) as (server, base),
        make_client(base, clock, metrics=metrics, attempt_timeout_seconds=1.0 if bad in {hang, drip} else 30.0) as client,
    ):
        found = await client.people(ONE)
        assert found.ids == (5,)
        assert len(server.requests) == client.calls_made() == sum(requests_counted(metrics).values()) == 2
    assert clock.pauses == ([] if bad is reset else [pytest.approx(0.75, abs=0.25)])


@pytest.mark.parametrize(("bad", "what"), TEMPORARY)
async def test_only_bad_responses_end_as_unavailable(bad: Handler | web.Response, what: str) -> None:
    """The call ends after five attempts with growing waits, with one clear line and no secret."""
    clock = SkippingClock()
    async with (
        fake_fub(bad) as (server, base),
        make_client(base, clock, attempt_timeout_seconds=0.5 if bad in {hang, drip} else 30.0) as client,
    ):
        with pytest.raises(Unavailable) as caught:
            await client.people(ONE)
    assert str(caught.value) == f"Follow Up Boss did not answer: {what} after 5 attempts"
    assert caught.value.__cause__ is None
    assert len(server.requests) == MAX_ATTEMPTS
    waits = [1.0, 2.0, 4.0, 8.0][4 - len(clock.pauses) :]
    assert clock.pauses == [pytest.approx(longest * 0.75, abs=longest * 0.25) for longest in waits]


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (web.json_response(PERSON), "the answer is not a page of people"),
        (page(PERSON | {"id": 6}), "the page holds only people who were not requested"),
        (error_document(200, f"Your key {API_KEY} has expired"), r"says: Your key \*\*\* has expired"),
    ],
)
async def test_the_same_unusable_document_is_requested_only_twice(answer: web.Response, what: str) -> None:
    """It is what FUB has to say: the reader can go on without it."""
    async with fake_fub(answer) as (server, base), make_client(base, SkippingClock()) as client:
        with pytest.raises(Malformed, match=what):
            await client.people(ONE)
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 415, 422])
async def test_a_refusal_is_final(status: int) -> None:
    """A refusal is not retried, and gives FUB's reason in one bounded line without secrets. A 400 may be about our custom fields."""
    message = f"No\r\nkey {API_KEY} of {SYSTEM_KEY}: " + "x" * 900
    async with fake_fub(error_document(status, message)) as (server, base), make_client(base, SkippingClock()) as client:
        with pytest.raises(FubRefused) as caught:
            await client.people(ONE)
    assert caught.value.status == status
    which = ", so it does not accept FUB_API_KEY" if status == 401 else ""
    assert str(caught.value).startswith(f"Follow Up Boss refused with {status}{which}: No key *** of ***: xxx")
    assert len(str(caught.value)) < 300
    assert len(server.requests) == (2 if status == 400 else 1)


@pytest.mark.parametrize("answer", [web.Response(status=403), web.Response(status=401, text="no"), web.Response(status=404, text="<html>")])
async def test_a_refusal_without_a_reason(answer: web.Response) -> None:
    """A refusal in an unknown form is a refusal all the same."""
    async with fake_fub(answer) as (server, base), make_client(base, SkippingClock()) as client:
        with pytest.raises(FubRefused, match="perhaps of a firewall") as caught:
            await client.stages()
    assert caught.value.is_foreign
    assert len(server.requests) == 1


@pytest.mark.parametrize(("retry_after", "seconds"), [("8", 8.0), ("33", 33.0), (None, 10.0), ("soon", 10.0), ("-1", 10.0)])
async def test_a_429_is_obeyed_to_the_second(retry_after: str | None, seconds: float) -> None:
    """After a 429 nothing is sent before Retry-After has passed, even when requests remain; without a usable value, for ten seconds."""
    clock, metrics = SkippingClock(), Metrics(CollectorRegistry())
    throttled = web.json_response({}, status=429, headers=RATE if retry_after is None else {**RATE, "Retry-After": retry_after})
    async with fake_fub(throttled, page()) as (server, base), make_client(base, clock, metrics=metrics) as client:
        await client.people(ONE)
    assert len(server.requests) == 2
    assert seconds - 1 < sum(clock.pauses) <= seconds
    assert metrics.registry.get_sample_value("fubd_api_throttled_seconds_total") == pytest.approx(seconds, abs=1.0)
    assert requests_counted(metrics) == {("people", "429"): 1, ("people", "200"): 1}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_beyond_the_total_timeout_ends_the_call(status: int) -> None:
    """When FUB asks for more time than a call may take, the call ends at once and reports the delay."""
    clock = SkippingClock()
    answer = web.json_response({}, status=status, headers={**RATE, "Retry-After": "300"})
    async with fake_fub(answer) as (server, base), make_client(base, clock) as client:
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await client.people(ONE)
            assert caught.value.retry_after == pytest.approx(300.0, abs=1.0)
    assert clock.pauses == []
    assert len(server.requests) == (1 if status == 429 else 2)


async def test_endless_429s_end_the_call() -> None:
    """When FUB only throttles, the call ends within the total timeout and reports the last delay."""
    clock = SkippingClock()
    async with fake_fub(web.Response(status=429, headers={"Retry-After": "25"})) as (server, base), make_client(base, clock) as client:
        with pytest.raises(Unavailable, match="429 after 3 attempts") as caught:
            await client.people(ONE)
    assert caught.value.retry_after == 25.0
    assert len(server.requests) == 3
    assert clock.skipped_seconds <= 60.0


async def test_the_total_timeout_limits_a_call() -> None:
    """However many attempts are left, a call does not exceed its total timeout: the last attempt gets what is left of it."""
    clock = SkippingClock()
    async with fake_fub(hang) as (server, base), make_client(base, clock, attempt_timeout_seconds=1.0, total_timeout_seconds=1.5) as client:
        with pytest.raises(Unavailable, match=r"timed out after 1 attempt$"):
            await client.people(ONE)
    assert len(server.requests) == 1
    assert clock.pauses == []


async def test_a_redirect_is_not_followed() -> None:
    """The target of a redirect gets no request, and so never sees the key."""
    async with (
        fake_fub(page()) as (elsewhere, other),
        fake_fub(web.Response(status=307, headers={"Location": f"{other}/people"})) as (_, base),
        make_client(base, SkippingClock()) as client,
    ):
        with pytest.raises(Unavailable):
            await client.people(ONE)
    assert elsewhere.requests == []


async def test_a_dead_reused_connection_is_retried_at_once() -> None:
    """A kept connection that FUB has closed costs one more request, without a wait, and each is counted."""
    received: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        received.append(1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
        await reader.readuntil(b"\r\n\r\n")
        received.append(1)  # then close without a response

    clock, metrics = SkippingClock(), Metrics(CollectorRegistry())
    async with raw_server(handle) as base, make_client(base, clock, metrics=metrics) as client:
        for _ in range(3):
            await client.people(ONE)
        assert len(received) == client.calls_made() == sum(requests_counted(metrics).values()) == 5
    assert clock.pauses == []
    assert requests_counted(metrics) == {("people", "200"): 3, ("people", "error"): 2}


@pytest.mark.parametrize("bad", [reset, cut, web.Response(status=500), HTML, hang])
async def test_a_non_idempotent_request_is_not_repeated(bad: Handler | web.Response) -> None:
    """A webhook that may have been created is not created again: the caller gets Unavailable."""
    async with (
        fake_fub(bad, web.json_response({}, status=500)) as (server, base),
        make_client(base, SkippingClock(), attempt_timeout_seconds=1.0) as client,
    ):
        with pytest.raises(Unavailable, match=r"after 1 attempt$"):
            await client.subscribe("peopleCreated", "https://hooks.example.com/webhook/fub")
    assert len(server.requests) == 1


async def test_a_throttled_non_idempotent_request_is_retried() -> None:
    """A webhook that was certainly not created, because FUB answered 429, is retried."""
    url = "https://hooks.example.com/webhook/fub"
    webhook = {"id": 3, "event": "peopleCreated", "url": url, "status": "Active"}
    throttled = web.Response(status=429, headers={"Retry-After": "1"})
    async with fake_fub(throttled, web.json_response(webhook, status=201)) as (server, base), make_client(base, SkippingClock()) as client:
        assert (await client.subscribe("peopleCreated", url)).id == 3
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("base_url", "what"),
    [
        ("http://127.0.0.1:1/v1", "no connection"),
        ("https://127.0.0.1:1/v1", "no connection"),
        (f"http://{'a' * 64}.invalid/v1", "its name could not be resolved"),
    ],
)
async def test_an_unreachable_server_is_retried(base_url: str, what: str) -> None:
    """Without a listener or a resolvable name the request is retried, a non-idempotent one too."""
    metrics = Metrics(CollectorRegistry())
    async with make_client(base_url, SkippingClock(), metrics=metrics) as client:
        with pytest.raises(Unavailable, match=f"{what} after 5 attempts"):
            await client.people(ONE)
        with pytest.raises(Unavailable, match=f"{what} after 5 attempts"):
            await client.subscribe("peopleCreated", "https://hooks.example.com/webhook/fub")
    assert requests_counted(metrics) == {("people", "error"): 5, ("webhooks", "error"): 5}


async def test_a_server_without_tls_is_unavailable() -> None:
    """A server without TLS where TLS is expected counts as no connection."""
    async with fake_fub(page()) as (_, base), make_client(base.replace("http:", "https:"), SkippingClock()) as client:
        with pytest.raises(Unavailable, match="no connection after 5 attempts"):
            await client.people(ONE)


JUNK = [
    b"",
    b"\r\n\r\n",
    b"220 smtp.example.com ESMTP\r\n",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"HTTP/9.9 1000 What\r\n\r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nBad\x00Header: 1\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nDate: \xff\xfe\r\nX-RateLimit-Limit: \xd9\xa3\r\nX-RateLimit-Context: \x07\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=\xff\r\nContent-Length: 2\r\n\r\n[]",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 300 Choices\r\nLocation: ://\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 999 Enough\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 429 Wait\r\nRetry-After: \xc2\xb2\r\nContent-Length: 0\r\n\r\n",
    *(Rng(number).randbytes(300) for number in range(5)),
    *(b"HTTP/1.1 200 OK\r\n" + Rng(number).randbytes(300) + b"\r\n\r\n{}" for number in range(5)),
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
async def test_invalid_http_ends_as_unavailable(junk: bytes) -> None:
    """Whatever bytes come back, the call raises Unavailable, or Malformed for a document, and nothing else."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(junk)
        await writer.drain()

    async with raw_server(handle) as base, make_client(base, SkippingClock(), attempt_timeout_seconds=0.2) as client:
        with pytest.raises((Unavailable, Malformed), match=r"^Follow Up Boss (did not answer: |sent an answer that cannot be used)"):
            await client.people(ONE)


async def test_a_cancelled_call_releases_its_place() -> None:
    """A cancelled call ends as cancelled, releases its place in the rate limit, and is counted."""
    metrics, arrived = Metrics(CollectorRegistry()), asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse:
        arrived.set()
        return await hang(request)

    async with fake_fub(*([hold] * 40), page()) as (_, base), make_client(base, SkippingClock(), metrics=metrics) as client:
        for _ in range(40):
            arrived.clear()
            task = asyncio.create_task(client.people(ONE))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await client.people(ONE)
    assert requests_counted(metrics) == {("people", "error"): 40, ("people", "200"): 1}


async def test_parallel_callers_get_their_own_responses() -> None:
    """Parallel calls are not mixed up."""

    async def echo(request: web.Request) -> web.StreamResponse:
        return page(PERSON | {"id": int(request.query["id"])})

    async with fake_fub(echo) as (_, base), make_client(base, SkippingClock()) as client:
        pages = await asyncio.gather(*(client.people(PeopleQuery(ids=(number,))) for number in range(1, 81)))
    assert [found.ids for found in pages] == [(number,) for number in range(1, 81)]


async def test_fubs_clock_is_estimated() -> None:
    """`read_at` is no later than FUB's clock when it read, FUB's clock is ours minus the skew, and the gauge shows the skew."""
    ahead = timedelta(hours=-3, seconds=17)
    dates: list[datetime] = []

    async def answer(_request: web.Request) -> web.StreamResponse:
        dates.append(datetime.now(UTC) + ahead)
        response = page()
        response.headers["Date"] = format_datetime(dates[-1], usegmt=True)
        return response

    clock, metrics = SkippingClock(), Metrics(CollectorRegistry())
    async with fake_fub(answer) as (_, base), make_client(base, clock, metrics=metrics) as client:
        assert client.skew_seconds() == 0
        assert abs(client.fub_now() - clock.now()) < timedelta(seconds=1)
        for _ in range(3):
            read_at = (await client.people(ONE)).read_at
            assert dates[-1] - timedelta(seconds=2) < read_at <= dates[-1]
        assert client.skew_seconds() == pytest.approx(-ahead.total_seconds(), abs=0.6)
        assert abs(client.fub_now() - (datetime.now(UTC) + ahead)) < timedelta(seconds=1)
        assert metrics.registry.get_sample_value("fubd_clock_skew_seconds") == client.skew_seconds()


@pytest.mark.parametrize("junk", [None, "", "yesterday", "Thu, 99 Jan 2031 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "-0000"])
async def test_without_a_date_the_last_skew_is_used(junk: str | None) -> None:
    """Without a usable Date header, `read_at` is still no later than the true time."""
    ahead = timedelta(hours=5)
    dates: list[datetime] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = f"Date: {format_datetime(datetime.now(UTC) + ahead, usegmt=True)}\r\n"
        while True:
            await reader.readuntil(b"\r\n\r\n")
            dates.append(datetime.now(UTC) + ahead)
            writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (line.encode(), len(GOOD)) + GOOD)
            line = "" if junk is None else f"Date: {junk}\r\n"

    async with raw_server(handle) as base, make_client(base, SkippingClock()) as client:
        for _ in range(3):
            read_at = (await client.people(ONE)).read_at
            assert dates[-1] - timedelta(seconds=2) < read_at <= dates[-1]
        assert client.skew_seconds() == pytest.approx(-ahead.total_seconds(), abs=0.6)


async def test_the_duration_of_a_call_is_measured() -> None:
    """Each complete response is in the histogram of its endpoint; a lost one is not, because its duration means nothing."""
    metrics = Metrics(CollectorRegistry())
    async with fake_fub(reset, page()) as (_, base), make_client(base, SkippingClock(), metrics=metrics) as client:
        await client.people(ONE)
    assert metrics.registry.get_sample_value("fubd_api_request_seconds_count", {"endpoint": "people"}) == 1
    assert metrics.registry.get_sample_value("fubd_api_rate_limit_remaining", {"context": "global"}) == 240
