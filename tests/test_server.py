"""The server over real sockets: the door under every kind of sender, the probes, the read-only routes and the live feed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import logging
from collections.abc import AsyncIterator
from typing import cast

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from fubd.core.observation import StageEvent
from fubd.ports import Unavailable
from fubd.server import CORRECTED, RECORDED, WEBHOOK_PATHS, Limits
from tests.support.waiting import eventually
from tests.web.parts import KEY, House, row, running, sign, stage_event

MIB = 1024 * 1024
PATIENCE_SECONDS = 5.0


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client that asks for nothing by itself."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        yield session


async def post(web: aiohttp.ClientSession, house: House, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    """Post a body to the door, signed."""
    signed = {"FUB-Signature": sign(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with web.post(f"{house.url}{WEBHOOK_PATHS[0]}", data=io.BytesIO(body), headers=signed) as response:
        await response.read()
        return response


async def connect(house: House) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection."""
    return await asyncio.open_connection("127.0.0.1", house.server.port)


def head(body: bytes, *more: str, length: int | None = None, path: str = WEBHOOK_PATHS[0]) -> bytes:
    """Write the head of a signed POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"FUB-Signature: {sign(body)}", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Read until the other side closes, however it does so."""
    read = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while part := await reader.read(65536):
                read += part
        except ConnectionResetError:
            pass
    return read


async def exchange(house: House, sent: bytes) -> bytes:
    """Send bytes, stop sending, and give what comes back."""
    reader, writer = await connect(house)
    writer.write(sent)
    answer = await rest_of(reader)
    writer.close()
    return answer


async def until(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    """Read up to a mark."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await reader.readuntil(mark)


def balanced(house: House) -> bool:
    """Tell whether every answer is in exactly one outcome, in the plain counts as in the metrics."""
    door = house.server.door
    outcomes = sum(door.outcomes.values())
    counted = sum(house.counted(outcome) for outcome in door.outcomes)
    return door.answered == outcomes == counted == house.acknowledged()


# --- The door ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*WEBHOOK_PATHS, f"{WEBHOOK_PATHS[0]}?account=7", "/webhook/%66ub"])
async def test_a_genuine_delivery_is_answered_200_once_kept(web: aiohttp.ClientSession, path: str) -> None:
    """Both routes take it, also with a query or an odd spelling, and it is decoded and counted."""
    async with running() as house:
        body = stage_event()
        target = URL(f"{house.url}{path}", encoded=True)
        async with web.post(target, data=body, headers={"FUB-Signature": sign(body)}) as response:
            assert (response.status, await response.text()) == (200, "accepted")
        assert [type(each.told) for each in house.inbox.kept] == [StageEvent]
        assert house.inbox.kept[0].body == body
        assert (house.server.door.answered_200, house.counted("accepted")) == (1, 1)
        assert balanced(house)


async def test_each_outcome_is_counted_under_its_name(web: aiohttp.ClientSession) -> None:
    """A duplicate and a quarantined delivery are answered 200 like a new one, and told apart in the counts."""
    async with running() as house:
        for body in (stage_event(), stage_event(), b"not JSON"):
            assert (await post(web, house, body)).status == 200
        assert [house.counted(outcome) for outcome in ("accepted", "duplicate", "quarantined")] == [1, 1, 1]
        assert house.server.door.answered_200 == 3
        assert balanced(house)


@pytest.mark.parametrize("signature", [None, "", "0" * 64, sign(b"another body"), "ключ", sign(stage_event()).upper()])
async def test_a_forged_delivery_is_answered_401_and_kept_nowhere(
    web: aiohttp.ClientSession, signature: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the right signature nothing reaches the inbox or the log; it is only counted."""
    with caplog.at_level(logging.DEBUG, "fubd"):
        async with running() as house:
            headers = {} if signature is None else {"FUB-Signature": signature}
            async with web.post(f"{house.url}{WEBHOOK_PATHS[0]}", data=stage_event(), headers=headers) as response:
                assert response.status == 401
            assert house.inbox.kept == []
            assert house.counted("forged") == 1
            assert balanced(house)
    assert caplog.records == []


async def test_both_keys_open_the_door_while_rotating(web: aiohttp.ClientSession) -> None:
    """A delivery signed with the previous key is genuine as well."""
    async with running(keys=[b"newer", KEY]) as house:
        assert (await post(web, house, stage_event())).status == 200
        assert (await post(web, house, stage_event(7), FUB_Signature=sign(stage_event(7), b"newer"))).status == 200


async def test_a_body_of_the_largest_size_is_taken(web: aiohttp.ClientSession) -> None:
    """Exactly 1 MiB is not over 1 MiB."""
    async with running() as house:
        assert (await post(web, house, b" " * MIB)).status == 200
        assert (await post(web, house, b" " * (MIB + 1))).status == 413
        assert balanced(house)


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_comes() -> None:
    """The answer comes though no byte of the body was sent."""
    async with running() as house:
        reader, writer = await connect(house)
        writer.write(head(b"", length=MIB + 1))
        assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 413 ")
        writer.close()
        assert house.counted("too_large") == 1
        assert balanced(house)


async def test_a_body_without_declared_length_is_refused_once_it_is_too_long() -> None:
    """Reading a chunked body stops at the limit, signed or not."""
    async with running() as house:
        reader, writer = await connect(house)
        writer.write(head(b"", "Transfer-Encoding: chunked"))
        for _ in range(5):
            writer.write(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
        assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 413 ")
        writer.close()
        assert house.counted("too_large") == 1


async def test_a_body_that_comes_in_pieces_is_taken() -> None:
    """Head, and the body in two chunks, each on its own."""
    async with running() as house:
        body = stage_event()
        reader, writer = await connect(house)
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
        assert len(house.inbox.kept) == 1


async def test_a_body_that_does_not_come_is_answered_408() -> None:
    """The sender has so many seconds for the whole body, then the connection ends."""
    async with running(limits=Limits(body_seconds=0.05, linger_seconds=0.05)) as house:
        reader, writer = await connect(house)
        writer.write(head(b"{}", length=2) + b"{")
        answer = await rest_of(reader)
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert house.counted("too_slow") == 1
        assert balanced(house)


async def test_a_body_that_breaks_off_is_counted_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """A sender that hangs up in the middle leaves no trace, and the next one is served."""
    async with running() as house:
        _, writer = await connect(house)
        writer.write(head(b"{}", length=2) + b"{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        body = stage_event()
        answer = await exchange(house, head(body, "Connection: close", length=len(body)) + body)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert (len(house.inbox.kept), house.server.door.answered) == (1, 1)
        assert balanced(house)
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
async def test_what_is_not_http_is_a_bad_request(framing: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Broken framing and floods of headers are answered 400, in silence, and are no delivery."""
    async with running(limits=Limits(linger_seconds=0.05)) as house:
        answer = await exchange(house, framing)
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert house.server.door.answered == 0
    assert caplog.records == []


async def test_an_unavailable_inbox_is_answered_503(web: aiohttp.ClientSession) -> None:
    """The sender is asked to come again: at a moment the inbox wishes, or at a usual one."""
    async with running() as house:
        house.inbox.failure = Unavailable("the database is away")
        response = await post(web, house, stage_event())
        assert (response.status, response.headers["Retry-After"]) == (503, "30")
        house.inbox.failure = Unavailable("the database is away", retry_after=6.2)
        assert (await post(web, house, stage_event())).headers["Retry-After"] == "7"
        assert house.counted("unavailable") == 2
        assert balanced(house)


async def test_a_silent_inbox_is_answered_503_and_goes_on(web: aiohttp.ClientSession) -> None:
    """The sender does not wait longer than promised, and the delivery is kept all the same once the inbox can."""
    async with running(limits=Limits(deliver_seconds=0.05)) as house:
        house.inbox.gate.clear()
        assert (await post(web, house, stage_event())).status == 503
        assert house.inbox.kept == []
        house.inbox.gate.set()
        await eventually(lambda: len(house.inbox.kept) == 1)


async def test_a_bug_behind_the_door_is_told_in_the_log_and_answered_503(
    web: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was committed, so the sender must come again; the sender is never told 500."""
    async with running() as house:
        house.inbox.failure = ZeroDivisionError("a bug")
        assert (await post(web, house, stage_event())).status == 503
        assert [record.getMessage() for record in caplog.records] == ["a delivery could not be recorded"]
        assert balanced(house)


async def test_a_delivery_whose_sender_hung_up_is_still_kept() -> None:
    """Once the whole body is here, nobody has to wait for it to be recorded."""
    async with running() as house:
        house.inbox.gate.clear()
        body = stage_event()
        _, writer = await connect(house)
        writer.write(head(body, length=len(body)) + body)
        await house.inbox.reached.wait()
        writer.transport.abort()
        house.inbox.gate.set()
        await house.server.stop(within_seconds=PATIENCE_SECONDS)
        assert len(house.inbox.kept) == 1
        assert balanced(house)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense", "gzip, gzip"])
@pytest.mark.parametrize("packed", [True, False])
async def test_a_body_is_taken_as_it_came(web: aiohttp.ClientSession, encoding: str, packed: bool) -> None:
    """Whatever its encoding claims, the received bytes are what is verified and kept."""
    async with running() as house:
        body = gzip.compress(stage_event()) if packed else stage_event()
        assert (await post(web, house, body, Content_Encoding=encoding)).status == 200
        assert [each.body for each in house.inbox.kept] == [body]


@pytest.mark.parametrize("kind", ["", "text/html", "application/x-www-form-urlencoded", "multipart/form-data", "a/b; charset=x", ";;=,"])
async def test_the_content_type_does_not_matter(web: aiohttp.ClientSession, kind: str) -> None:
    """Only the body's bytes count."""
    async with running() as house:
        assert (await post(web, house, stage_event(), Content_Type=kind, Accept="image/png")).status == 200


async def test_a_sender_who_asks_first_is_told_to_go_on() -> None:
    """`Expect: 100-continue` is answered before the body, and the answer follows."""
    async with running() as house:
        body = stage_event()
        reader, writer = await connect(house)
        writer.write(head(body, "Expect: 100-Continue", length=len(body)))
        assert await until(reader, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("expectation", ["100-continue", "a miracle", "", "100-continue, 100-continue"])
async def test_an_odd_expectation_is_no_error(expectation: str) -> None:
    """What else is expected is not our business: no 417."""
    async with running() as house:
        body = stage_event()
        answer = await exchange(house, head(body, f"Expect: {expectation}", "Connection: close", length=len(body)) + body)
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", WEBHOOK_PATHS)
async def test_the_door_takes_only_post(method: str, path: str) -> None:
    """Another method is 405 with the right one named, and is no delivery."""
    async with running() as house:
        answer = await exchange(house, f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nAllow: POST\r\n" in answer
        assert house.server.door.answered == 0


@pytest.mark.parametrize(
    "path", ["/nowhere", "/webhook", "/webhook/fub/", "//webhook/fub", "/web/", "/web/../server.py", "/web/%2e%2e/x", "/%ff"]
)
async def test_an_unknown_path_is_404(path: str) -> None:
    """For any method, in plain text."""
    async with running() as house:
        for method in ("GET", "POST", "OPTIONS"):
            answer = await exchange(house, f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
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
    """Any request at all is answered below 500 or not at all, never 406 or 410, and nothing is logged for it."""
    loop = asyncio.get_running_loop()
    async with running(limits=Limits(body_seconds=0.02, head_seconds=0.02, linger_seconds=0.02)) as house:

        @settings(max_examples=150, deadline=None)
        @given(REQUESTS | st.binary(max_size=200))
        def check(sent: bytes) -> None:
            answer = asyncio.run_coroutine_threadsafe(exchange(house, sent), loop).result(PATIENCE_SECONDS)
            statuses = [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
            assert all(status < 500 and status not in {406, 410} for status in statuses)

        await asyncio.to_thread(check)
        assert balanced(house)
    assert caplog.records == []


# --- Connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\n"])
async def test_a_head_that_is_never_finished_ends_the_connection(begun: bytes) -> None:
    """A connection has so many seconds to say what it wants."""
    async with running(limits=Limits(head_seconds=0.05)) as house:
        assert await exchange(house, begun) == b""


async def test_a_second_head_has_as_little_time_as_the_first() -> None:
    """After an answer the connection may rest, but not dribble."""
    async with running(limits=Limits(head_seconds=0.05)) as house:
        reader, writer = await connect(house)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(reader, b"alive\n")
        writer.write(b"GET /hea")
        assert await rest_of(reader) == b""
        writer.close()


async def test_an_idle_connection_is_let_go() -> None:
    """Keep-alive has an end."""
    async with running(limits=Limits(idle_seconds=0.05)) as house:
        answer = await exchange(house, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_the_longest_waiting_makes_room_when_the_house_is_full(web: aiohttp.ClientSession) -> None:
    """Those who open connections and say nothing cannot lock out the sender of a delivery."""
    async with running(limits=Limits(connections=3)) as house:
        silent = [await connect(house) for _ in range(3)]
        assert (await post(web, house, stage_event())).status == 200
        assert await rest_of(silent[0][0]) == b""
        for _, writer in silent:
            writer.close()


async def test_a_house_at_work_takes_nobody_in() -> None:
    """When every connection is being answered, a new one is closed at once, and those at work are not disturbed."""
    async with running(limits=Limits(connections=2)) as house:
        house.inbox.gate.clear()
        body = stage_event()
        busy = [await connect(house) for _ in range(2)]
        for _, writer in busy:
            house.inbox.reached.clear()
            writer.write(head(body, length=len(body)) + body)
            await house.inbox.reached.wait()
        assert await exchange(house, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        house.inbox.gate.set()
        for reader, writer in busy:
            assert (await until(reader, b"\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_a_reader_who_takes_no_answer_is_given_up() -> None:
    """A page larger than the buffers, never read, does not hold its connection for ever."""
    async with running(limits=Limits(connections=1, answer_seconds=0.1)) as house:
        house.view.rows = [row(each, stage_to="x" * 20_000) for each in range(1, 1001)]
        _, writer = await asyncio.open_connection("127.0.0.1", house.server.port, limit=1024)
        writer.write(b"GET /api/changes?limit=1000 HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            # While it holds the only place, the next one is closed at once.
            while not answer:
                answer = await exchange(house, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()


# --- Beginning and end ------------------------------------------------------------------------------------------------


async def test_it_listens_on_both_families(web: aiohttp.ClientSession) -> None:
    """Without a host, the same port answers on IPv4 and IPv6."""
    house = House()
    await house.server.start(port=0)
    try:
        for host in ("127.0.0.1", "[::1]"):
            async with web.get(f"http://{host}:{house.server.port}/healthz") as response:
                assert response.status == 200
    finally:
        await house.server.stop(within_seconds=1)


async def test_a_port_in_use_is_an_error() -> None:
    """Two cannot have the same one."""
    async with running() as house:
        with pytest.raises(OSError, match="in use"):
            await House().server.start(port=house.server.port, host="127.0.0.1")


async def test_what_was_accepted_is_finished_before_the_end() -> None:
    """Stopping takes no new connection, lets go of the idle, and waits for the delivery at hand."""
    async with running() as house:
        house.inbox.gate.clear()
        body = stage_event()
        reader, writer = await connect(house)
        idle, other = await connect(house)
        writer.write(head(body, length=len(body)) + body)
        await house.inbox.reached.wait()
        port = house.server.port
        stopping = asyncio.create_task(house.server.stop(within_seconds=PATIENCE_SECONDS))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", port)
        house.inbox.gate.set()
        await stopping
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 200 ")
        assert await rest_of(idle) == b""
        writer.close()
        other.close()
        assert len(house.inbox.kept) == 1


async def test_the_end_does_not_wait_longer_than_told(caplog: pytest.LogCaptureFixture) -> None:
    """A delivery that never ends is given up, and that is told."""
    async with running() as house:
        house.inbox.gate.clear()
        body = stage_event()
        reader, writer = await connect(house)
        writer.write(head(body, length=len(body)) + body)
        await house.inbox.reached.wait()
        async with asyncio.timeout(1):
            await house.server.stop(within_seconds=0.05)
        assert await rest_of(reader) == b""
        writer.close()
        house.inbox.gate.set()
    assert "unanswered" in caplog.text


# --- Probes, health and metrics ---------------------------------------------------------------------------------------


async def test_the_probes_tell_life_from_readiness(web: aiohttp.ClientSession) -> None:
    """It is alive at once, and ready when nothing speaks against it, else with the reason."""
    async with running() as house:
        for reason, status, text in (
            (None, 200, "ready\n"),
            ("the schema is from a newer version", 503, "the schema is from a newer version\n"),
        ):
            house.view.reason_unready = reason
            async with web.get(f"{house.url}/healthz") as response:
                assert response.status == 200
            async with web.get(f"{house.url}/readyz", headers={"Host": "healthcheck.railway.app"}) as response:
                assert (response.status, await response.text()) == (status, text)


async def test_the_health_document_has_its_shape(web: aiohttp.ClientSession) -> None:
    """Every key of it is there, instants in UTC or null, whether or not the database answers."""
    async with running() as house:
        house.view.database_up = False
        async with web.get(f"{house.url}/health") as response:
            assert (response.status, response.content_type) == (200, "application/json")
            document = await response.json()
        assert document == {
            "mode": "steady",
            "reason": "a webhook arrived 12 s ago, and the last poll found nothing missed",
            "poll_interval_seconds": 1800.0,
            "coverage": "2026-03-01T12:00:30Z",
            "sources": {
                "webhook": {
                    "status": "HEALTHY",
                    "last_heard": "2026-03-01T12:07:18Z",
                    "last_change": "2026-03-01T12:07:16Z",
                    "records_today": 31,
                },
                "polling": {"status": "HEALTHY", "last_heard": "2026-03-01T12:00:30Z", "last_change": None, "records_today": 2},
            },
            "subscriptions": {"peopleStageUpdated": "Active", "peopleCreated": "Active", "peopleDeleted": "Active"},
            "completeness": {"ratio": 0.99987, "people": 202_113, "oldest": "2026-02-28T05:07:30Z"},
        }


@pytest.mark.parametrize("accept", ["*/*", "text/none", "application/openmetrics-text; version=1.0.0", ""])
async def test_the_metrics_have_one_form_for_every_reader(web: aiohttp.ClientSession, accept: str) -> None:
    """Nothing that a scraper asks for makes a 406."""
    async with running() as house:
        await post(web, house, stage_event())
        async with web.get(f"{house.url}/metrics", headers={"Accept": accept}) as response:
            assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert 'fubd_webhook_deliveries_total{outcome="accepted"} 1.0\n' in await response.text()


GUARDED = ["/", "/health", "/metrics", "/api/changes", "/api/overview", "/api/stream", "/web/status.js", "/web/status.css"]
TOKEN = "invented:tökén"


def basic(credentials: str) -> str:
    """Write a Basic authorization."""
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize("path", GUARDED)
async def test_the_token_guards_what_shows_data(web: aiohttp.ClientSession, path: str) -> None:
    """As a bearer token or as a password it opens; anything else is 401, and a browser is made to ask."""
    async with running(token=TOKEN) as house:
        for authorization, status in (
            (f"Bearer {TOKEN}", 200),
            (f"bearer {TOKEN}", 200),
            (basic(f":{TOKEN}"), 200),
            (basic(f"anyone:{TOKEN}"), 200),
            (None, 401),
            ("", 401),
            ("Bearer", 401),
            ("Bearer invented", 401),
            (f"Digest {TOKEN}", 401),
            (basic(TOKEN[:-1]), 401),
            ("Basic \xff", 401),
            ("Basic not base64", 401),
            (basic("anyone"), 401),
        ):
            headers = {} if authorization is None else {"Authorization": authorization}
            async with web.head(f"{house.url}{path}", headers=headers) as response:
                assert (authorization, response.status) == (authorization, status)
                assert status == 200 or response.headers["WWW-Authenticate"].startswith("Basic realm=")


async def test_the_token_does_not_guard_probes_and_the_door(web: aiohttp.ClientSession) -> None:
    """The platform and Follow Up Boss do not know it."""
    async with running(token=TOKEN) as house:
        for path in ("/healthz", "/readyz"):
            async with web.get(f"{house.url}{path}") as response:
                assert response.status == 200
        assert (await post(web, house, stage_event())).status == 200


# --- Changes ----------------------------------------------------------------------------------------------------------


async def read_json(web: aiohttp.ClientSession, url: str) -> tuple[int, dict[str, object]]:
    """Get a JSON document."""
    async with web.get(url) as response:
        assert response.content_type == "application/json"
        return response.status, cast("dict[str, object]", await response.json())


async def test_changes_are_paged_by_id(web: aiohttp.ClientSession) -> None:
    """A reader who follows `next_after` sees every row once, ascending, and keeps its place at the end."""
    async with running() as house:
        house.view.rows = [row(each) for each in range(1, 251)]
        seen: list[object] = []
        after: object = 0
        pages: list[int] = []
        while not pages or pages[-1]:
            status, page = await read_json(web, f"{house.url}/api/changes?after={after}")
            assert status == 200
            rows = cast("list[dict[str, object]]", page["changes"])
            pages.append(len(rows))
            seen += [each["id"] for each in rows]
            after = page["next_after"]
        assert seen == list(range(1, 251))
        assert (pages, after) == ([100, 100, 50, 0], 250)


async def test_a_change_is_shown_with_all_its_columns(web: aiohttp.ClientSession) -> None:
    """Instants in UTC, also of a column without zone; a value of an unknown type as text."""
    async with running() as house:
        told = row(7, changed_at=house.view.day.now.replace(tzinfo=None), strange=2 + 3j, day=house.view.day.now.date())
        house.view.rows = [told]
        _, page = await read_json(web, f"{house.url}/api/changes")
        shown = cast("list[dict[str, object]]", page["changes"])[0]
        assert set(shown) == set(told)
        assert (shown["changed_at"], shown["strange"], shown["day"]) == ("2026-03-01T12:07:30Z", "(2+3j)", "2026-03-01")


@pytest.mark.parametrize("limit", [1, 1000, 1001, 10**9])
async def test_a_page_has_at_most_a_thousand_rows(web: aiohttp.ClientSession, limit: int) -> None:
    """A larger wish is cut, not refused."""
    async with running() as house:
        house.view.rows = [row(each) for each in range(1, 1101)]
        _, page = await read_json(web, f"{house.url}/api/changes?limit={limit}")
        assert len(cast("list[object]", page["changes"])) == min(limit, 1000)


@pytest.mark.parametrize(
    "query", ["after=", "after=-1", "after=x", "after=1.5", "after=%D9%A3", f"after={2**63}", "limit=0", "limit=", "limit=x"]
)
@pytest.mark.parametrize("path", ["/api/changes", "/api/stream"])
async def test_a_bad_number_is_told(web: aiohttp.ClientSession, path: str, query: str) -> None:
    """400, with a JSON error that says what is wanted."""
    if path == "/api/stream" and query.startswith("limit"):
        path = "/api/changes"
    async with running() as house:
        status, answer = await read_json(web, f"{house.url}{path}?{query}")
        assert status == 400
        assert "must be a whole number" in str(answer["error"])


async def test_a_database_that_is_away_is_told(web: aiohttp.ClientSession) -> None:
    """503 for what needs it, also when it says nothing at all for too long."""
    async with running(limits=Limits(view_seconds=0.05)) as house:
        house.view.database_up = False
        for path in ("/api/changes", "/api/overview"):
            status, answer = await read_json(web, f"{house.url}{path}")
            assert (status, answer) == (503, {"error": "the database does not answer"})
        house.view.database_up = True
        house.view.gate.clear()
        for path in ("/api/changes", "/api/overview"):
            assert (await read_json(web, f"{house.url}{path}"))[0] == 503


# --- The live feed ----------------------------------------------------------------------------------------------------


class Listener:
    """Reads one stream event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def block(self) -> dict[str, str]:
        """Give the next block: field to value; a comment under the empty name. Empty at the end."""
        fields: dict[str, str] = {}
        async for line in self._content:
            if line == b"\n":
                return fields
            name, _, value = line.decode().rstrip("\n").partition(":")
            fields[name] = value.strip()
        return fields

    async def event(self) -> tuple[str, str | None, int]:
        """Give kind, place and row id of the next event."""
        while True:
            block = await self.block()
            if "event" in block:
                return block["event"], block.get("id"), json.loads(block["data"])["id"]
            assert block


async def test_the_stream_tells_what_is_recorded_and_what_is_corrected(web: aiohttp.ClientSession) -> None:
    """A new row comes with its id as the reader's place, a correction without one, so that it never sets the place back."""
    async with running() as house, web.get(f"{house.url}/api/stream") as response:
        assert response.content_type == "text/event-stream"
        listener = Listener(response)
        assert await listener.block() == {"retry": "2000"}
        house.server.publish(RECORDED, row(8))
        house.server.publish(CORRECTED, row(3))
        house.server.publish(RECORDED, row(9))
        assert [await listener.event() for _ in range(3)] == [("recorded", "8", 8), ("corrected", None, 3), ("recorded", "9", 9)]


@pytest.mark.parametrize(
    ("query", "place", "expected"),
    [
        ("", "1497", [1498, 1499, 1500]),
        ("?after=1497", None, [1498, 1499, 1500]),
        ("?after=3", "1498", [1499, 1500]),
        ("?after=1499", "x", [1500]),
    ],
)
async def test_a_stream_is_resumed_where_it_broke(web: aiohttp.ClientSession, query: str, place: str | None, expected: list[int]) -> None:
    """What was recorded since the last id comes first, then what happens now, each row once."""
    async with running() as house:
        house.view.rows = [row(each) for each in range(1, 1501)]
        headers = {} if place is None else {"Last-Event-ID": place}
        async with web.get(f"{house.url}/api/stream{query}", headers=headers) as response:
            listener = Listener(response)
            assert [(await listener.event())[2] for _ in expected] == expected
            # The last of them was committed while the past was read, and so is told twice to the server.
            house.server.publish(RECORDED, row(1500))
            house.server.publish(RECORDED, row(1501))
            assert (await listener.event())[2] == 1501


async def test_a_long_past_is_told_page_by_page(web: aiohttp.ClientSession) -> None:
    """A reader may have been away for more than one page."""
    async with running(limits=Limits(max_page_rows=100)) as house:
        house.view.rows = [row(each) for each in range(1, 301)]
        async with web.get(f"{house.url}/api/stream?after=0") as response:
            listener = Listener(response)
            assert [(await listener.event())[2] for _ in range(300)] == list(range(1, 301))


async def test_a_quiet_stream_has_a_heartbeat(web: aiohttp.ClientSession) -> None:
    """A comment now and then keeps proxies from closing it."""
    async with running(limits=Limits(heartbeat_seconds=0.02)) as house, web.get(f"{house.url}/api/stream") as response:
        listener = Listener(response)
        await listener.block()
        assert await listener.block() == {"": "still here"}


async def test_a_slow_reader_is_dropped_and_the_door_does_not_notice(web: aiohttp.ClientSession) -> None:
    """Publishing never waits for a reader who does not read; that one is cut off."""
    async with running(limits=Limits(stream_queue=10, stream_write_seconds=0.1)) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port, limit=1024)
        writer.write(b"GET /api/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(reader, b"retry")
        while house.server.streams:
            house.server.publish(RECORDED, row(1, stage_to="x" * 100_000))
            assert (await post(web, house, stage_event())).status == 200
        writer.close()


async def test_the_number_of_streams_is_bounded(web: aiohttp.ClientSession) -> None:
    """One too many is asked to come later, and a place is free again as soon as a reader leaves."""
    async with running(limits=Limits(streams=1)) as house:
        first = await web.get(f"{house.url}/api/stream")
        async with web.get(f"{house.url}/api/stream") as second:
            assert second.status == 429
        first.close()
        statuses = [429]
        while statuses[-1] == 429:
            async with web.get(f"{house.url}/api/stream") as third:
                statuses.append(third.status)
        assert statuses[-1] == 200


async def test_streams_end_when_the_server_stops(web: aiohttp.ClientSession) -> None:
    """They do not hold up the end, and the reader sees a clean one."""
    async with running() as house, web.get(f"{house.url}/api/stream") as response:
        listener = Listener(response)
        await listener.block()
        async with asyncio.timeout(0.5):
            await house.server.stop(within_seconds=PATIENCE_SECONDS)
        assert await listener.block() == {}


async def test_a_stream_whose_past_cannot_be_read_ends(web: aiohttp.ClientSession) -> None:
    """Its reader comes back by itself, and misses nothing."""
    async with running() as house:
        house.view.database_up = False
        async with web.get(f"{house.url}/api/stream?after=7") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


# --- The page's own files ---------------------------------------------------------------------------------------------


async def test_the_page_may_load_only_its_own(web: aiohttp.ClientSession) -> None:
    """Its policy allows no inline script and no foreign host, and the files it names are there with their types."""
    async with running() as house:
        async with web.get(f"{house.url}/") as response:
            assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
            policy = response.headers["Content-Security-Policy"]
            assert (policy.split(";")[0], "unsafe" in policy) == ("default-src 'none'", False)
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            text = await response.text()
        for name, kind in (("status.js", "text/javascript"), ("status.css", "text/css"), ("icon.svg", "image/svg+xml")):
            assert f'"/web/{name}"' in text
            async with web.get(f"{house.url}/web/{name}") as response:
                assert (response.status, response.content_type) == (200, kind)
