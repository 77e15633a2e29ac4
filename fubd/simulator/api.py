"""What all endpoints share: requests, responses, routes and small lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from fubd.simulator.behaviour import Arrays
from fubd.simulator.keys import Caller
from fubd.simulator.oddities import Oddity, write_arrays
from fubd.simulator.query import parse_paging
from fubd.simulator.registry import ApiError

NOT_FOUND: Final = "Requested resource was not found."
GLOBAL: Final = "global"
"""The rate limit context of most endpoints."""


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The answer of a handler. `shown_people` are those whose stage it shows, at the instant `as_of` if it lags."""

    payload: object
    status: int = HTTPStatus.OK
    shown_people: tuple[int, ...] = ()
    as_of: datetime | None = None

    def body(self, arrays: Arrays) -> bytes:
        """Return the JSON as sent; nothing for 204."""
        if self.status == HTTPStatus.NO_CONTENT:
            return b""
        return json.dumps(write_arrays(self.payload, arrays), separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A parsed request: the caller, parameters and JSON body, and the simulator's own URL. `oddity` malforms one person of the answer."""

    caller: Caller
    query: Mapping[str, str]
    path: Mapping[str, str]
    base: str
    body: Mapping[str, object] = field(default_factory=dict)
    oddity: Oddity | None = None


Handler = Callable[[ApiRequest], ApiResponse]


@dataclass(frozen=True, slots=True)
class Route:
    """A route. `name` identifies it in fault scripts and in the request log; `context` is its rate limit, None for unlimited."""

    method: str
    path: str
    name: str
    context: str | None
    handler: Handler


def list_response(
    request: ApiRequest, collection: str, items: Iterable[Mapping[str, object]], *, sorts: Sequence[str], text_total: bool = False
) -> ApiResponse:
    """Return one page of a small list, by offset."""
    every = list(items)
    sort = request.query.get("sort", "")
    if sort.lstrip("-") in sorts:
        every.sort(key=lambda item: _sortable(item[sort.lstrip("-")]), reverse=sort.startswith("-"))
    page = parse_paging(request.query)
    following = page.offset + page.limit
    total = len(every)
    link = f"{request.base}/{collection}?{urlencode({'limit': page.limit, 'offset': following})}" if following < total else None
    metadata = {
        "collection": collection,
        "offset": page.offset,
        "limit": page.limit,
        "total": str(total) if text_total else total,
        "next": None,
        "nextLink": link,
    }
    return ApiResponse({"_metadata": metadata, collection: every[page.offset : following]})


def read_json(raw: bytes) -> dict[str, object]:
    """Parse a request's JSON object; an empty body is an empty object. Raises ApiError 400."""
    if not raw:
        return {}
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid JSON in the request body.") from error
    if not isinstance(value, dict):
        raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid JSON in the request body.")
    return value


def _sortable(value: object) -> tuple[int, str]:
    return (value, "") if isinstance(value, int) else (0, str(value))
