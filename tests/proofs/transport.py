"""The simulated account without sockets, so that time can be virtual: what aiohttp would carry, answer by answer."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from fubd.simulator.exchange import Exchange, HttpAnswer, HttpRequest

BASE_URL = "https://api.followupboss.example/v1"


@dataclass(frozen=True)
class _Content:
    answer: HttpAnswer

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Yield the body; a cut one ends with the error that aiohttp raises."""
        body = self.answer.body
        if self.answer.is_cut:
            yield body[: len(body) // 2]
            raise aiohttp.ClientPayloadError
        yield body


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: _Content


class MemoryTransport:
    """Satisfies `fubd.client.http.HttpTransport`."""

    def __init__(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        self._exchange = exchange
        self._headers = dict(headers)

    def request(
        self,
        method: str,
        url: URL,
        *,
        params: Mapping[str, str],
        json: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
        allow_redirects: bool,
    ) -> AbstractAsyncContextManager[_Answer]:
        """Exchange a request for its answer, within the timeout of virtual time."""
        del allow_redirects
        path = url.path.removeprefix("/v1")
        body = b"" if json is None else json_module.dumps(json).encode()
        return self._answered(HttpRequest(method, path, params, self._headers, body, path, BASE_URL), timeout.total)

    @asynccontextmanager
    async def _answered(self, request: HttpRequest, within_seconds: float | None) -> AsyncIterator[_Answer]:
        async with asyncio.timeout(within_seconds):
            answer = await self._exchange.answer(request)
            if answer.status == 0:
                raise aiohttp.ServerDisconnectedError
            yield _Answer(answer.status, CIMultiDict(answer.headers), _Content(answer))

    async def close(self) -> None:
        """There is nothing to close."""
