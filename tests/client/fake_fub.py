"""Servers on loopback that play Follow Up Boss on a bad day, and a clock that does not wait."""

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
PERSON: dict[str, object] = {"id": 5, "stage": "Lead", "updated": "2031-02-03T04:05:04Z"}
RATE = {"X-RateLimit-Limit": "250", "X-RateLimit-Remaining": "240", "X-RateLimit-Window": "10", "X-RateLimit-Context": "global"}

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
Speaking = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class HastyClock:
    """Ticks as the machine does, and jumps ahead instead of waiting. `pauses` are the waits that were asked for, in seconds."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.skipped_seconds = 0.0

    def now(self) -> datetime:
        """Give the wall clock."""
        return datetime.now(UTC) + timedelta(seconds=self.skipped_seconds)

    def monotonic(self) -> float:
        """Give seconds that only grow."""
        return time.monotonic() + self.skipped_seconds

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Jump ahead, unless an event is set."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn  # others go on meanwhile, as they would while we wait
        if any(event.is_set() for event in events):
            return True
        self.pauses.append(seconds)
        self.skipped_seconds += seconds
        return False


def page(*people: object, **metadata: object) -> web.Response:
    """Answer with a page of people, by default of the one."""
    body = {"_metadata": {"collection": "people", **metadata}, "people": list(people or (PERSON,))}
    return web.json_response(body, headers=RATE)


def refusal(status: int, message: str) -> web.Response:
    """Answer with FUB's error document."""
    return web.json_response({"errorMessage": message}, status=status, headers=RATE)


@dataclass
class Played:
    """A server that gives its answers in order, then the last one for ever. `asked` are the requests as they came."""

    answers: list[Answering | web.Response] = field(default_factory=list)
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[object] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Give the next answer; a made one is given anew each time."""
        self.asked.append(request)
        told = await request.read()
        self.bodies.append(json.loads(told) if told else None)
        following = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if not isinstance(following, web.Response):
            return await following(request)
        assert isinstance(following.body, bytes | None)
        return web.Response(body=following.body, status=following.status, headers=following.headers.copy())


@asynccontextmanager
async def played(*answers: Answering | web.Response) -> AsyncIterator[tuple[Played, str]]:
    """Serve these answers on any path; gives the server and its base URL."""
    server = Played(list(answers))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def spoken(speak: Speaking) -> AsyncIterator[str]:
    """Serve raw bytes: `speak` has each connection to itself; gives the base URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client hung up
        finally:
            writer.close()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(connected(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def client_of(
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
    """Make a client of a server on loopback, not yet entered."""
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
    """Read `api_requests_total` by endpoint and status, zeros left out."""
    return {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "fubd_api_requests_total" and sample.value
    }
