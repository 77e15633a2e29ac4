"""Raw requests to the whole daemon: what it answers, counts and keeps."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.server.senders import MIB, connect, exchange, rest_of, until
from tests.stack import Stack, event, running_stack, sign
from tests.support.databases import Databases
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outside(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Return a running daemon, shared by all tests of this file."""
    async with databases.migrated() as url, running_stack(url, tmp_path_factory.mktemp("daemon")) as stack, stack.ready_daemon():
        yield stack


def post(body: bytes, *fields: str, path: str = "/webhook/fub", signature: str | bytes | None = "", version: str = "1.1") -> bytes:
    """Return a whole POST, signed unless another signature (or None for none) is given."""
    lines = [f"POST {path} HTTP/{version}", "Host: here", "Connection: close", f"Content-Length: {len(body)}", *fields]
    if signature is not None:
        lines.append("FUB-Signature: " + (signature.decode("latin-1") if isinstance(signature, bytes) else signature or sign(body)))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def stage_event(number: int | str, people: object = (7,), **more: object) -> bytes:
    """Return a stage event, a different one for each number, with some fields replaced."""
    body = json.loads(event(f"outside-{number}", "Nurture", datetime.now(UTC) - timedelta(hours=1), []))
    return json.dumps(body | {"resourceIds": people} | more).encode()


def without(body: bytes, name: str) -> bytes:
    """Return the document without one field."""
    return json.dumps({key: value for key, value in json.loads(body).items() if key != name}).encode()


def ago(seconds: float, pattern: str = "{}") -> str:
    """Return an instant in the past, formatted."""
    return pattern.format((datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S"))


class Case(NamedTuple):
    """The bytes sent, the expected status, and the outcome it is counted under."""

    sent: bytes
    status: int
    outcome: str | None


SIGNED = stage_event("signatures")
GENUINE = sign(SIGNED)
ACCEPTED = {
    "in the usual form": post(stage_event(1)),
    "on the older route": post(stage_event(2), path="/webhook/fub/stage-change"),
    "with a query": post(stage_event(3), path="/webhook/fub?from=somewhere&x"),
    "with an absolute address": post(stage_event(4), path="http://elsewhere.example/webhook/fub"),
    "in HTTP/1.0": post(stage_event(5), version="1.0"),
    "with Accept headers that nothing satisfies": post(
        stage_event(6), "Accept: image/x-none;q=0", "Accept-Encoding: identity;q=0, *;q=0", "Accept-Charset: klingon"
    ),
    "with one id three times": post(stage_event(7, [11, "11", 11])),
    "with ids as text": post(stage_event(8, ["12", "0013"])),
    "with unknown keys": post(stage_event(9, extra={"deep": [1, {"er": None}]}, data={"stage": "Nurture", "x": 1})),
    "with a fraction of a second": post(stage_event(10, eventCreated=ago(60, "{}.123456Z"))),
    "from another zone": post(stage_event(11, eventCreated=ago(-5.5 * 3600, "{}+05:30"))),
    "without a T": post(stage_event(12, eventCreated=ago(60, "{}+00:00").replace("T", " "))),
    "of long ago": post(stage_event(13, eventCreated="1999-12-31T23:59:59+00:00")),
    "half a day ahead": post(stage_event(14, eventCreated=ago(-12 * 3600, "{}+00:00"))),
    "with another content type": post(stage_event(15), "Content-Type: text/html; charset=utf-16"),
    "with cookies and credentials": post(stage_event(16), "Cookie: a=b", "Authorization: Basic AAAA"),
    "with a stage in another script": post(stage_event(17, data={"stage": "见过面 🏡"})),
}
QUARANTINED = {
    "nothing": b"",
    "white space": b" \r\n\t ",
    "a NUL": b"\0" * 100,
    "no UTF-8": stage_event(20)[:-2] + b"\xff\xfe}",
    "UTF-16": stage_event(21).decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + stage_event(22),
    "compressed": gzip.compress(stage_event(23)),
    "a list": b"[1, 2]",
    "a number too large": b'{"event": 1e400}',
    "a number of 5,000 digits": b'{"event": ' + b"9" * 5000 + b"}",
    "NaN": b'{"event": NaN}',
    "nested 100,000 deep": b'{"event":' * 100_000,
    "lists 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "a key twice": stage_event(24)[:-1] + b', "event": "peopleStageUpdated"}',
    "the first half": stage_event(25)[: len(stage_event(25)) // 2],
    "no event name": without(stage_event(26), "event"),
    "an event name of white space": stage_event(27, event="  "),
    "an event name that is a number": stage_event(28, event=7),
    "an event name with a NUL": stage_event(29, event="people\0StageUpdated"),
    "no ids": without(stage_event(30), "resourceIds"),
    "ids that are none": stage_event(31, []),
    "ids that are null": stage_event(32, None),
    "an id and no list": stage_event(33, 7),
    "the id 0": stage_event(34, [0]),
    "a negative id": stage_event(35, [-1]),
    "an id beyond 63 bits": stage_event(36, [2**63]),
    "a text that begins like an id": stage_event(37, ["12abc"]),
    "an id that is true": stage_event(38, [True]),
    "an id that is null": stage_event(39, [None]),
    "an id with a point": stage_event(40, [1.0]),
    "an id in a list": stage_event(41, [[7]]),
    "an id in other digits": stage_event(42, ["٣"]),
    "an id beyond numbers": stage_event(43).replace(b"[7]", b"[1e400]"),
    "no stage": stage_event(44, data={}),
    "no data": without(stage_event(45), "data"),
    "data that are a list": stage_event(46, data=["Nurture"]),
    "a stage of white space": stage_event(47, data={"stage": " "}),
    "a stage of 100,000 characters": stage_event(48, data={"stage": "x" * 100_000}),
    "half a character in the stage": stage_event(49).replace(b'"Nurture"', rb'"\ud83c"'),
    "no instant": without(stage_event(50), "eventCreated"),
    "an instant that is null": stage_event(51, eventCreated=None),
    "an instant without a zone": stage_event(52, eventCreated=ago(60)),
    "an instant that is a number": stage_event(53, eventCreated=1_750_000_000),
    "an unreadable instant": stage_event(54, eventCreated="yesterday"),
    "the 30th of February": stage_event(55, eventCreated="2026-02-30T10:00:00+00:00"),
    "an instant two days ahead": stage_event(56, eventCreated=ago(-2 * 86_400, "{}+00:00")),
    "an instant of the year 9999": stage_event(57, eventCreated="9999-12-31T23:59:59-12:00"),
}
REFUSED = {
    "without a signature": (post(SIGNED, signature=None), 401, "forged"),
    "with an empty one": (post(SIGNED, "FUB-Signature:", signature=None), 401, "forged"),
    "in upper case": (post(SIGNED, signature=GENUINE.upper()), 401, "forged"),
    "with a name before it": (post(SIGNED, signature=f"sha256={GENUINE}"), 401, "forged"),
    "cut short": (post(SIGNED, signature=GENUINE[:-1]), 401, "forged"),
    "one too long": (post(SIGNED, signature=GENUINE + "0"), 401, "forged"),
    "of another body": (post(SIGNED, signature=sign(SIGNED + b" ")), 401, "forged"),
    "with another key": (post(SIGNED, signature=sign(SIGNED, "another")), 401, "forged"),
    "in no alphabet": (post(SIGNED, signature=b"\xff\xfe" * 32), 401, "forged"),
    "a wrong one before the right one": (post(SIGNED, f"FUB-Signature: {'0' * 64}"), 401, "forged"),
    "over 1 MiB": (post(b"x" * (MIB + 1)), 413, "too_large"),
    "over 1 MiB and forged": (post(b"x" * (MIB + 1), signature="0" * 64), 413, "too_large"),
    "over 1 MiB in chunks, unsigned": (
        b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"40000\r\n" + b"x" * 0x40000 + b"\r\n") * 5,
        413,
        "too_large",
    ),
    "over 1 MiB, with Expect": (
        b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999999999\r\n\r\n",
        413,
        "too_large",
    ),
}
CASES = (
    {f"a delivery {name}": Case(sent, 200, "accepted") for name, sent in ACCEPTED.items()}
    | {f"quarantined: {name}": Case(post(body), 200, "quarantined") for name, body in QUARANTINED.items()}
    | {f"refused: {name}": Case(*case) for name, case in REFUSED.items()}
    | {
        "of an unused kind": Case(post(stage_event(60, event="dealsUpdated")), 200, "ignored"),
        "of an unused kind and with invalid ids": Case(post(stage_event(61, ["x"], event="notesCreated")), 200, "ignored"),
        "a refetch request": Case(post(stage_event(62, event="peopleUpdated", data=None)), 200, "accepted"),
        "33 KB of headers": Case(post(stage_event(63), *(f"X-{number}: {'y' * 3000}" for number in range(11))), 200, "accepted"),
        "one header of 33 KB": Case(post(stage_event(64), "X: " + "y" * 33_000), 400, None),
        "a NUL in a header": Case(post(stage_event(65), "X: a\0b"), 400, None),
        "two lengths": Case(post(stage_event(66), "Content-Length: 3"), 400, None),
        "a length and chunks": Case(post(stage_event(67), "Transfer-Encoding: chunked"), 400, None),
    }
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_each_delivery_is_answered_and_counted(outside: Stack, case: Case) -> None:
    """It gets one status, and is counted once under one outcome and once in the histogram. A refused one is not stored."""
    before, kept = await outside.metrics(), await _kept(outside)
    reader, writer = await connect(outside)
    writer.write(case.sent)
    assert int((await until(reader, b"\r\n")).split(b" ", 2)[1]) == case.status
    writer.close()
    after = await outside.metrics()
    changed = {
        name.partition("=")[2].rstrip("}"): after[name] - before[name]
        for name in after
        if name.startswith("fubd_webhook_deliveries_total") and after[name] != before[name]
    }
    assert changed == ({case.outcome: 1.0} if case.outcome else {})
    assert after["fubd_webhook_ack_seconds_count"] - before["fubd_webhook_ack_seconds_count"] == len(changed)
    assert await _kept(outside) - kept == int(case.status == 200)


async def _kept(outside: Stack) -> int:
    (row,) = await outside.fetch("SELECT count(*) AS kept FROM fubd.delivery WHERE event_id IS NULL OR event_id LIKE 'outside-%'")
    return int(row["kept"])


PATHS = ["/", "/health", "/healthz", "/readyz", "/metrics", "/api/changes", "/api/overview", "/api/stream", "/webhook/fub", "/nowhere"]


@pytest.mark.parametrize("path", PATHS)
async def test_no_request_is_answered_406_or_410_or_500(outside: Stack, path: str) -> None:
    """For any method, path and headers the status is 200, 400, 401, 404 or 405, and never one for which FUB deletes a webhook."""
    headers = (
        "Accept: application/x-none\r\nAccept-Encoding: *;q=0\r\nAccept-Language: tlh\r\nRange: bytes=9-1\r\nIf-Match: x\r\nUpgrade: h2c"
    )
    for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "brew"):
        for variant in (path, f"{path}/", f"/{path}", f"{path}?a=%zz&limit=1", f"{path}%00", f"{path};x", path.upper()):
            answer = await exchange(outside, f"{method} {variant} HTTP/1.1\r\nHost: a\r\n{headers}\r\nConnection: close\r\n\r\n".encode())
            # A request line that is not HTTP is answered 400.
            assert int(answer.split(b" ", 2)[1]) in {200, 400, 401, 404, 405}, (method, variant, answer)


async def test_pipelined_requests_are_each_answered(outside: Stack) -> None:
    """Three deliveries in one write get three answers, and each is recorded."""
    sent = b"".join(post(stage_event(f"pipe-{number}")).replace(b"Connection: close\r\n", b"") for number in range(3))
    answer = await exchange(outside, sent + b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 4
    (row,) = await outside.fetch("SELECT count(*) AS kept FROM fubd.delivery WHERE event_id LIKE 'outside-pipe-%'")
    assert row["kept"] == 3


async def test_a_slow_body_is_answered_408(outside: Stack) -> None:
    """After 10 s, a body that arrives a byte a second is refused, 200 at the same time; genuine deliveries are answered in between."""
    before = await outside.metrics()
    loop = asyncio.get_running_loop()
    began = loop.time()
    slow = [await connect(outside) for _ in range(200)]
    silent = [await connect(outside) for _ in range(20)]
    for _, writer in slow:
        writer.write(post(stage_event("slow"))[:-20])
    for _, writer in silent:
        writer.write(b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nX: ")
    answers = asyncio.gather(*(rest_of(reader, within_seconds=30.0) for reader, _ in (*slow, *silent)))
    while not answers.done():
        for _, writer in slow[:50]:
            if not writer.is_closing():
                writer.write(b" ")
        served = await exchange(outside, post(stage_event(f"between-{loop.time()}")))
        assert served.startswith(b"HTTP/1.1 200 ")
        await asyncio.wait([answers], timeout=1.0)
    took = loop.time() - began
    slow_answers, silent_answers = (await answers)[:200], (await answers)[200:]
    assert {answer[:13] for answer in slow_answers} == {b"HTTP/1.1 408 "}
    assert set(silent_answers) == {b""}
    assert took > 9.0
    for _, writer in (*slow, *silent):
        writer.close()

    async def counted() -> bool:
        after = await outside.metrics()
        name = "fubd_webhook_deliveries_total{outcome=too_slow}"
        return after[name] - before[name] == 200

    await eventually(counted)


async def test_the_ledger_imbalance_is_0_after_all_tests(outside: Stack) -> None:
    """Answers, outcomes and stored deliveries agree."""

    async def balanced() -> bool:
        return (await outside.metrics())["fubd_ledger_imbalance"] == 0

    await eventually(balanced, 45.0)
