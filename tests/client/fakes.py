"""Servers on loopback that behave as Follow Up Boss may, and a clock that does not wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiohttp import web
from prometheus_client import CollectorRegistry

from fubd.client import Credentials, FubClient, Timeouts
from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.simulator.rng import Rng

API_KEY = "fka_invented-key"
SYSTEM_KEY = "invented-system-key"
PERSON: dict[str, object] = {"id": 5, "stage": "Lead", "updated": "2021-02-03T04:05:04Z"}
RATE = {"X-RateLimit-Limit": "250", "X-RateLimit-Remaining": "240", "X-RateLimit-Window": "10", "X-RateLimit-Context": "global"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ConnectionHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class SkippingClock:
    """Runs as the machine's clock, and jumps ahead instead of waiting. `pauses` are the waits requested, in seconds."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.skipped_seconds = 0.0

    def now(self) -> datetime:
        """Return the wall clock."""
        return datetime.now(UTC) + timedelta(seconds=self.skipped_seconds)

    def monotonic(self) -> float:
        """Return seconds that never decrease."""
        return time.monotonic() + self.skipped_seconds

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Jump ahead, unless an event is set."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn  # let other tasks run, as they would during a real wait
        if any(event.is_set() for event in events):
            return True
        self.pauses.append(seconds)
        self.skipped_seconds += seconds
        return False


def page(*people: object, **metadata: object) -> web.Response:
    """Return a page of people, by default of one."""
    body = {"_metadata": {"collection": "people", **metadata}, "people": list(people or (PERSON,))}
    return web.json_response(body, headers=RATE)


def error_document(status: int, message: str) -> web.Response:
    """Return FUB's error document."""
    return web.json_response({"errorMessage": message}, status=status, headers=RATE)


@dataclass
class FakeFub:
    """A server that sends its responses in order, and then repeats the last one. `requests` are those received."""

    responses: list[Handler | web.Response] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[object] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Return the next response; a prepared one is copied each time."""
        self.requests.append(request)
        body = await request.read()
        self.bodies.append(json.loads(body) if body else None)
        following = self.responses[min(len(self.requests), len(self.responses)) - 1]
        if not isinstance(following, web.Response):
            return await following(request)
        assert isinstance(following.body, bytes | None)
        return web.Response(body=following.body, status=following.status, headers=following.headers.copy())


@asynccontextmanager
async def fake_fub(*responses: Handler | web.Response) -> AsyncIterator[tuple[FakeFub, str]]:
    """Serve these responses on any path; yield the server and its base URL."""
    server = FakeFub(list(responses))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(handle: ConnectionHandler) -> AsyncIterator[str]:
    """Serve raw bytes: `handle` owns each connection; yield the base URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client hung up
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(connected(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def make_client(
    base_url: str,
    clock: Clock,
    *,
    metrics: Metrics | None = None,
    system_key: str | None = SYSTEM_KEY,
    share: float = 0.8,
    attempt_timeout_seconds: float = 5.0,
    total_timeout_seconds: float = 60.0,
    custom_fields: tuple[str, ...] = ("customCampaignID",),
) -> FubClient:
    """Return a client of a server on loopback, not yet entered."""
    return FubClient(
        base_url=base_url,
        credentials=Credentials(API_KEY, "fubd-test", system_key),
        custom_fields=custom_fields,
        share=share,
        clock=clock,
        metrics=metrics or Metrics(CollectorRegistry()),
        rng=Rng(1),
        timeouts=Timeouts(attempt_seconds=attempt_timeout_seconds, total_seconds=total_timeout_seconds),
    )


def requests_counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return `api_requests_total` by endpoint and status, without zeros."""
    return {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "fubd_api_requests_total" and sample.value
    }
