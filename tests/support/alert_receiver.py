"""A receiver of alerts that answers what the test says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Receiver:
    """A chat tool. `answers`: the status of the next posts, 200 afterwards; `posts`: every post; `accepted`: those answered 200."""

    url: str = ""
    answers: deque[int] = field(default_factory=deque)
    posts: list[dict[str, Any]] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    redirects_followed: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, request: web.Request) -> web.Response:
        alert = await request.json()
        self.posts.append(alert)
        await self.open.wait()
        status = self.answers.popleft() if self.answers else 200
        if status == 200:
            self.accepted.append(alert)
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    async def redirected(self, _request: web.Request) -> web.Response:
        self.redirects_followed += 1
        return web.Response()


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Run a receiver until the block ends."""
    receiver = Receiver()
    receiver.open.set()
    app = web.Application()
    app.router.add_post("/hook", receiver.post)
    app.router.add_route("*", "/elsewhere", receiver.redirected)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()
