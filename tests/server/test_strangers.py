"""What a stranger, who has neither the signing key nor the token, can move: no number that wakes people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fubd.clock import SystemClock
from fubd.core.problems import ProblemName
from fubd.failure_ratio import FailureRatio
from fubd.server import ServerLimits
from fubd.store import Pool, StatusReader
from fubd.store.dsn import parse
from tests.server.fakes import ServerUnderTest, running_server, stage_event
from tests.server.senders import MIB, exchange, head, post
from tests.support.documents import yaml_file

_RULES = Path(__file__).parents[2] / "deploy/prometheus/rules.yaml"
_SERIES = re.compile(r"fubd_\w+")


def critical_rules() -> dict[str, str]:
    """Return the expression of each critical alert, with those of the recorded series that it reads."""
    rules: list[dict[str, Any]] = [rule for group in yaml_file(_RULES)["groups"] for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    return {
        rule["alert"]: " ".join([rule["expr"], *(expr for name, expr in recorded.items() if name in rule["expr"])])
        for rule in rules
        if rule.get("labels", {}).get("severity") == "critical"
    }


def samples(server: ServerUnderTest) -> dict[tuple[str, str], float]:
    """Return every sample of the metrics."""
    return {(sample.name, str(sample.labels)): sample.value for family in server.metrics.registry.collect() for sample in family.samples}


async def act_as_a_stranger(server: ServerUnderTest) -> None:
    """Send what a stranger can send, to every route."""
    body = stage_event()
    for sent in (
        b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n",
        b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx",
        b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        head(b"another body", "Connection: close", length=len(body)) + body,
        head(b"", "Connection: close", length=MIB + 1) + b"x" * (MIB + 1),
        b"\x00\xff\r\n\r\n",
        *(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n".encode() for path in _PATHS),
    ):
        for _ in range(3):
            await exchange(server, sent)


_PATHS = ("/", "/health", "/metrics", "/readyz", "/healthz", "/api/changes", "/api/stream", "/nowhere", "/webhook/fub")


async def test_a_stranger_moves_no_critical_alert(web: aiohttp.ClientSession) -> None:
    """Whatever a stranger sends changes no series that a critical rule reads."""
    # On a busy machine the body of the genuine delivery may arrive much later than its head.
    async with running_server(limits=ServerLimits(body_timeout_seconds=0.5, small_body_timeout_seconds=0.5, linger_seconds=0.05)) as server:
        clock = SystemClock()
        ratio = FailureRatio(StatusReader(Pool(parse("postgresql://nobody:x@localhost:1/none")), instance="x"), clock, server.metrics)
        assert (await post(web, server, stage_event(event_id="genuine"))).status == 200
        ratio.update(server.webhook_handler.counts())
        before = samples(server)
        await act_as_a_stranger(server)
        ratio.update(server.webhook_handler.counts())
        after = samples(server)
        moved = {name for (name, labels), value in after.items() if str(value) != str(before.get((name, labels)))}
        assert "fubd_webhook_deliveries_total" in moved
        rules = critical_rules()
        assert len(rules) > 5
        assert {alert: read for alert, expr in rules.items() if (read := moved & set(_SERIES.findall(expr)))} == {}
        counts = server.webhook_handler.counts()
        assert (counts.answered - counts.outcomes, counts.failures, counts.new) == (0, 0, 1)


def problems(server: ServerUnderTest) -> list[ProblemName]:
    """Return the problems that hold."""
    return [each.name for each in server.problems.current()]


async def test_refused_deliveries_of_the_right_form_are_a_problem_until_one_is_verified(web: aiohttp.ClientSession) -> None:
    """A wrong key is named after three of them; a verified one ends it, and then imitations no longer begin it."""
    async with running_server() as server:
        for _ in range(3):
            assert problems(server) == []
            assert (await post(web, server, stage_event(), FUB_Signature="0" * 64)).status == 401
        assert problems(server) == [ProblemName.SIGNING_KEY_WRONG]
        assert (await post(web, server, stage_event())).status == 200
        for _ in range(5):
            await post(web, server, stage_event(), FUB_Signature="0" * 64)
        assert problems(server) == []


@pytest.mark.parametrize(("body", "signature"), [(stage_event(), "x"), (b"{}", "0" * 64), (b"hello", "0" * 64), (b"[" * 50_000, "0" * 64)])
async def test_other_requests_are_no_problem(web: aiohttp.ClientSession, body: bytes, signature: str) -> None:
    """A port scanner does not send what looks like a delivery."""
    async with running_server() as server:
        for _ in range(10):
            await post(web, server, body, FUB_Signature=signature)
        assert problems(server) == []
