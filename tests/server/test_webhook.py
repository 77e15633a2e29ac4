"""The webhook route over real sockets, with every kind of sender."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from fubd.core.observation import StageEvent
from fubd.core.vocabulary import WEBHOOK_ROUTES
from fubd.errors import Unavailable
from fubd.server import ServerLimits
from tests.server.fakes import KEY, NOW, ServerUnderTest, running_server, sign, stage_event
from tests.server.senders import MIB, PATIENCE_SECONDS, connect, exchange, head, post, rest_of, until
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    "path", [*WEBHOOK_ROUTES, "/webhook/fub?account=7", "/webhook/%66ub", "/webhook/fub/", "//webhook//fub/stage-change//"]
)
async def test_a_genuine_delivery_is_answered_200(server: ServerUnderTest, web: aiohttp.ClientSession, path: str) -> None:
    """Both routes accept it, also with a query, an escaped path or extra slashes, and it is decoded and counted."""
    body = stage_event()
    target = URL(f"{server.url}{path}", encoded=True)
    async with web.post(target, data=body, headers={"FUB-Signature": sign(body)}) as response:
        assert (response.status, await response.text()) == (200, "accepted")
    assert [type(each.content) for each in server.ingestor.kept] == [StageEvent]
    assert server.ingestor.kept[0].body == body
    assert (server.webhook_handler.answered, server.counted("accepted")) == (1, 1)
    assert server.is_balanced()


async def test_each_outcome_is_counted_under_its_name(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """A duplicate and a quarantined delivery are answered 200 like a new one, and counted separately."""
    for body in (stage_event(), stage_event(), b"not JSON"):
        assert (await post(web, server, body)).status == 200
    assert [server.counted(outcome) for outcome in ("accepted", "duplicate", "quarantined")] == [1, 1, 1]
    assert server.webhook_handler.answered == 3
    assert server.is_balanced()


@pytest.mark.parametrize("signature", [None, "", "0" * 64, sign(b"another body"), "ключ", sign(stage_event()).upper()])
async def test_a_forged_delivery_is_answered_401_and_kept_nowhere(
    web: aiohttp.ClientSession, signature: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a valid signature nothing reaches the ingestor or the log; it is only counted."""
    with caplog.at_level(logging.DEBUG, "fubd"):
        async with running_server() as server:
            caplog.clear()
            headers = {} if signature is None else {"FUB-Signature": signature}
            async with web.post(f"{server.url}{WEBHOOK_ROUTES[0]}", data=stage_event(), headers=headers) as response:
                assert response.status == 401
            assert server.ingestor.kept == []
            assert server.counted("forged") == 1
            assert server.is_balanced()
    assert caplog.records == []


async def test_both_keys_are_accepted_while_rotating(web: aiohttp.ClientSession) -> None:
    """A delivery signed with the previous key is also genuine."""
    async with running_server(keys=[b"newer", KEY]) as server:
        assert (await post(web, server, stage_event())).status == 200
        assert (await post(web, server, stage_event(7), FUB_Signature=sign(stage_event(7), b"newer"))).status == 200


async def test_a_body_of_the_largest_size_is_accepted(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """Exactly 1 MiB is not over 1 MiB."""
    assert (await post(web, server, b" " * MIB)).status == 200
    assert (await post(web, server, b" " * (MIB + 1))).status == 413
    assert server.is_balanced()


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_comes(server: ServerUnderTest) -> None:
    """The response comes although no byte of the body was sent."""
    reader, writer = await connect(server)
    writer.write(head(b"", length=MIB + 1))
    assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 413 ")
    writer.close()
    assert server.counted("too_large") == 1
    assert server.is_balanced()


async def test_a_body_without_declared_length_is_refused_once_it_is_too_long(server: ServerUnderTest) -> None:
    """Reading a chunked body stops at the limit, signed or not."""
    reader, writer = await connect(server)
    writer.write(head(b"", "Transfer-Encoding: chunked"))
    for _ in range(5):
        writer.write(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
    assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 413 ")
    writer.close()
    assert server.counted("too_large") == 1


async def test_a_body_in_pieces_is_accepted(server: ServerUnderTest) -> None:
    """Head and two chunks of the body arrive separately."""
    body = stage_event()
    reader, writer = await connect(server)
    for part in (
        head(body, "Transfer-Encoding: chunked"),
        b"5\r\n" + body[:5] + b"\r\n",
        b"%x\r\n" % (len(body) - 5) + body[5:] + b"\r\n",
    ):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")
    assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert len(server.ingestor.kept) == 1


async def test_a_large_body_ends_the_one_that_has_taken_longest(web: aiohttp.ClientSession) -> None:
    """Only so many are read at a time, and none of them can keep a new one out; usual deliveries do not count."""
    async with running_server(limits=ServerLimits(large_bodies=1)) as server:
        first, second = (stage_event(event_id=f"e-{each}") + b" " * (MIB // 2) for each in range(2))
        reader, writer = await connect(server)
        # With minimal buffers, bytes that were sent have been read by the server: the only place is taken.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(head(first, length=len(first)) + first[:-1])
        await writer.drain()
        assert (await post(web, server, stage_event(event_id="usual"))).status == 200
        assert (await post(web, server, second)).status == 200
        assert await rest_of(reader) == b""
        writer.close()
        assert len(server.ingestor.kept) == 2


async def test_a_body_that_does_not_arrive_is_answered_408() -> None:
    """The sender has a time limit for the whole body, then the connection is closed."""
    async with running_server(limits=ServerLimits(body_timeout_seconds=0.05, linger_seconds=0.05)) as server:
        reader, writer = await connect(server)
        writer.write(head(b"{}", length=2) + b"{")
        answer = await rest_of(reader)
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert server.counted("too_slow") == 1
        assert server.is_balanced()


async def test_an_incomplete_body_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A sender that disconnects in the middle of a body leaves no trace, and the next one is served."""
    async with running_server() as server:
        _, writer = await connect(server)
        writer.write(head(b"{}", length=2) + b"{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        body = stage_event()
        answer = await exchange(server, head(body, "Connection: close", length=len(body)) + body)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert (len(server.ingestor.kept), server.webhook_handler.answered) == (1, 1)
        assert server.is_balanced()
    assert caplog.records == []


@pytest.mark.parametrize(
    "framing",
    [
        head(b"", "Transfer-Encoding: chunked") + b"zz\r\n",
        head(b"", "Transfer-Encoding: chunked") + b"-1\r\nx\r\n",
        head(b"", "Transfer-Encoding: chunked") + b"1\r\nxx\r\n0\r\n\r\n",
        head(b"", "Transfer-Encoding: gibberish", length=3) + b"abc",
        head(b"", "Content-Length: -1"),
        head(b"", "Content-Length: 1", "Content-Length: 2") + b"ab",
        head(b"", "Content-Length: many"),
        b"POST /webhook/fub HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST " + b"/" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    ],
)
async def test_bytes_that_are_not_http_are_answered_400(framing: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Broken framing and too many headers are no delivery and are not logged."""
    async with running_server(limits=ServerLimits(linger_seconds=0.05)) as server:
        answer = await exchange(server, framing)
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert server.webhook_handler.answered == 0
    assert caplog.records == []


async def test_an_unavailable_ingestor_is_answered_503(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """`Retry-After` is the delay that the ingestor asks for, or the usual one."""
    server.ingestor.failure = Unavailable("the database is away")
    response = await post(web, server, stage_event())
    assert (response.status, response.headers["Retry-After"]) == (503, "30")
    server.ingestor.failure = Unavailable("the database is away", retry_after=6.2)
    assert (await post(web, server, stage_event())).headers["Retry-After"] == "7"
    assert server.counted("unavailable") == 2
    assert server.is_balanced()


async def test_a_slow_ingestor_is_answered_503_and_still_keeps_the_delivery(web: aiohttp.ClientSession) -> None:
    """The sender does not wait longer than promised, and the delivery is kept once the ingestor can."""
    async with running_server(limits=ServerLimits(ingest_timeout_seconds=0.05)) as server:
        server.ingestor.gate.clear()
        assert (await post(web, server, stage_event())).status == 503
        assert server.ingestor.kept == []
        # What waits holds the error; its traceback would hold the request, in memory that the bound of the buffer does not count.
        (answer,) = server.ingestor.answers
        assert (error := answer.exception()) is not None
        assert error.__traceback__ is None
        server.ingestor.gate.set()
        await eventually(lambda: len(server.ingestor.kept) == 1)


async def test_a_delivery_that_is_partly_recorded_is_waited_for(web: aiohttp.ClientSession) -> None:
    """One event about very many people takes several transactions: its sender waits longer, but not without end."""
    limits = ServerLimits(ingest_timeout_seconds=0.05, partly_recorded_timeout_seconds=60.0)
    async with running_server(limits=limits) as server:
        server.ingestor.gate.clear()
        server.ingestor.has_begun = True
        answer = asyncio.create_task(post(web, server, stage_event()))
        await server.ingestor.asked.wait()
        server.ingestor.gate.set()
        assert (await answer).status == 200
    async with running_server(limits=ServerLimits(ingest_timeout_seconds=0.05, partly_recorded_timeout_seconds=0.1)) as server:
        server.ingestor.gate.clear()
        server.ingestor.has_begun = True
        assert (await post(web, server, stage_event())).status == 503


async def test_a_date_header_of_days_ago_quarantines_nothing(web: aiohttp.ClientSession) -> None:
    """An event of now is not in the future because a machine in front of FUB has a clock that is behind."""
    async with running_server() as server:
        body = json.loads(stage_event())
        now = datetime.now(UTC).replace(microsecond=0)
        assert now - NOW > timedelta(days=1)
        response = await post(web, server, json.dumps({**body, "eventCreated": now.isoformat()}).encode())
        assert await response.text() == "accepted"


async def test_an_unexpected_error_is_logged_and_answered_503(
    server: ServerUnderTest, web: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was committed, so the sender has to retry; it is never answered 500."""
    server.ingestor.failure = ZeroDivisionError("a bug")
    assert (await post(web, server, stage_event())).status == 503
    (record,) = caplog.records
    assert record.getMessage().startswith("recording a delivery failed")
    assert server.is_balanced()


async def test_a_delivery_whose_sender_disconnected_is_still_kept(server: ServerUnderTest) -> None:
    """Once the whole body has arrived, it is recorded without its sender."""
    server.ingestor.gate.clear()
    body = stage_event()
    _, writer = await connect(server)
    writer.write(head(body, length=len(body)) + body)
    await server.ingestor.reached.wait()
    writer.transport.abort()
    server.ingestor.gate.set()
    await server.http.stop(within_seconds=PATIENCE_SECONDS)
    assert len(server.ingestor.kept) == 1
    assert server.is_balanced()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense", "gzip, gzip"])
@pytest.mark.parametrize("packed", [True, False])
async def test_a_body_is_verified_and_kept_as_received(
    server: ServerUnderTest, web: aiohttp.ClientSession, encoding: str, packed: bool
) -> None:
    """Whatever its Content-Encoding says, the received bytes are verified and kept."""
    body = gzip.compress(stage_event()) if packed else stage_event()
    assert (await post(web, server, body, Content_Encoding=encoding)).status == 200
    assert [each.body for each in server.ingestor.kept] == [body]


@pytest.mark.parametrize("kind", ["", "text/html", "application/x-www-form-urlencoded", "multipart/form-data", "a/b; charset=x", ";;=,"])
async def test_the_content_type_does_not_matter(server: ServerUnderTest, web: aiohttp.ClientSession, kind: str) -> None:
    """Only the bytes of the body count."""
    assert (await post(web, server, stage_event(), Content_Type=kind, Accept="image/png")).status == 200


async def test_a_sender_that_expects_100_continue_gets_it(server: ServerUnderTest) -> None:
    """The interim response comes before the body, and the final one after it."""
    body = stage_event()
    reader, writer = await connect(server)
    writer.write(head(body, "Expect: 100-Continue", length=len(body)))
    assert await until(reader, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("expectation", ["100-continue", "a miracle", "", "100-continue, 100-continue"])
async def test_any_other_expectation_is_ignored(server: ServerUnderTest, expectation: str) -> None:
    """The server never answers 417."""
    body = stage_event()
    answer = await exchange(server, head(body, f"Expect: {expectation}", "Connection: close", length=len(body)) + body)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", WEBHOOK_ROUTES)
async def test_the_webhook_route_accepts_only_post(server: ServerUnderTest, method: str, path: str) -> None:
    """Another method is 405 with an Allow header, and is no delivery."""
    answer = await exchange(server, f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: POST\r\n" in answer
    assert server.webhook_handler.answered == 0


@pytest.mark.parametrize("path", ["/nowhere", "/webhook", "/webhook/fub/x", "//nowhere", "/webs/x", "/%2e%2e/x", "/%ff"])
async def test_an_unknown_path_is_404(server: ServerUnderTest, path: str) -> None:
    """The answer is plain text, for any method."""
    for method in ("GET", "POST", "OPTIONS"):
        answer = await exchange(server, f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"text/plain" in answer


TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
LINES = st.tuples(
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PUT"]) | TOKENS,
    st.sampled_from(["/", "*", "/webhook/fub", "/health", "/metrics", "/api/changes?after=x", "http://a/webhook/fub", "//", "/%zz", "a:1"])
    | TOKENS,
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Accept", "Content-Length", "Transfer-Encoding", "Expect", "Connection", "Upgrade", "Range", "FUB-Signature"])
        | TOKENS,
        st.sampled_from(["chunked", "close", "upgrade", "websocket", "100-continue", "0", "3", "text/none", "gzip"])
        | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
    ),
    max_size=5,
)
REQUESTS = st.builds(
    lambda line, headers, body: (
        (
            f"{line[0]} {line[1]} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "Connection: close\r\n\r\n"
        ).encode("latin-1")
        + body
    ),
    LINES,
    HEADERS,
    st.binary(max_size=20) | st.just(b"3\r\nabc\r\n0\r\n\r\n"),
)


async def test_no_sender_can_cause_a_server_error(caplog: pytest.LogCaptureFixture) -> None:
    """Any request gets a status below 500 or no response, never 406 or 410, and nothing is logged for it."""
    loop = asyncio.get_running_loop()
    async with running_server(limits=ServerLimits(body_timeout_seconds=0.02, head_timeout_seconds=0.02, linger_seconds=0.02)) as server:

        @settings(max_examples=150)
        @given(REQUESTS | st.binary(max_size=200))
        def check(sent: bytes) -> None:
            answer = asyncio.run_coroutine_threadsafe(exchange(server, sent), loop).result(PATIENCE_SECONDS)
            statuses = [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
            assert all(status < 500 and status not in {406, 410} for status in statuses)

        await asyncio.to_thread(check)
        assert server.is_balanced()
    assert caplog.records == []
