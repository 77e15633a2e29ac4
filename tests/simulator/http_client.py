"""A plain HTTP client for the simulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A response; `json` is empty if the body is."""

    status: int
    headers: Mapping[str, str]
    json: dict[str, Any]

    @property
    def ids(self) -> list[int]:
        """The ids of the people on the page."""
        return [person["id"] for person in self.json["people"]]

    @property
    def metadata(self) -> dict[str, Any]:
        """The page's `_metadata`."""
        metadata: dict[str, Any] = self.json["_metadata"]
        return metadata


class HttpClient:
    """Sends requests with one key; a `system_key` of None makes it an unregistered system."""

    def __init__(self, url: str, *, key: str = "test-api-key", system_key: str | None = "test-system-key") -> None:
        self.url = url
        headers = {"Authorization": aiohttp.encode_basic_auth(key, "")} if key else {}
        if system_key is not None:
            headers |= {"X-System": "fubd", "X-System-Key": system_key}
        self._session = aiohttp.ClientSession(headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str | int) -> HttpReply:
        """Send a GET for a path below the base URL, or for an absolute link."""
        return await self._request("GET", path, query, None)

    async def post(self, path: str, body: object) -> HttpReply:
        """Send JSON by POST."""
        return await self._request("POST", path, {}, body)

    async def put(self, path: str, body: object, **query: str | int) -> HttpReply:
        """Send JSON by PUT."""
        return await self._request("PUT", path, query, body)

    async def delete(self, path: str, body: object = None) -> HttpReply:
        """Send a DELETE."""
        return await self._request("DELETE", path, {}, body)

    async def _request(self, method: str, path: str, query: Mapping[str, str | int], body: object) -> HttpReply:
        target = path if path.startswith("http") else f"{self.url}/{path}"
        async with self._session.request(method, target, params=query or None, json=body) as response:
            raw = await response.read()
            return HttpReply(response.status, dict(response.headers), json.loads(raw) if raw else {})
