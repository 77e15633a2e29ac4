"""A webhook receiver with scripted answers that keeps what it received."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from fubd.simulator import sign


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """One request as received."""

    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> dict[str, Any]:
        """The JSON of the body."""
        payload: dict[str, Any] = json.loads(self.body)
        return payload

    def is_genuine(self, key: str = "test-system-key") -> bool:
        """Return whether the signature is right."""
        return self.headers.get("FUB-Signature") == sign(self.body, key)


@dataclass
class WebhookReceiver:
    """Answers with `statuses` one after the other, then with `always`."""

    got: list[ReceivedWebhook] = field(default_factory=list)
    statuses: deque[int] = field(default_factory=deque)
    always: int = 200
    url: str = ""
    _runner: web.AppRunner | None = None
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def start(self) -> None:
        """Listen on a free port on loopback."""
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.got.append(ReceivedWebhook(dict(request.headers), await request.read()))
        async with self._more:
            self._more.notify_all()
        return web.Response(status=self.statuses.popleft() if self.statuses else self.always)

    async def wait_for(self, number: int) -> None:
        """Wait until this many requests arrived."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.got) >= number)

    def payloads(self, event: str) -> list[dict[str, Any]]:
        """Return the payloads of one kind of event, in order of arrival."""
        return [got.payload for got in self.got if got.payload["event"] == event]
