"""The answers that faults give instead of the API's, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from fubd.simulator.faults import ApiFault
from fubd.simulator.keys import UNAUTHORIZED

EXPIRED: Final = "Your Follow Up Boss subscription has expired."
"""Documented is the 403 (https://docs.followupboss.com/reference/error-responses); the words are assumed."""
NO_ACCESS: Final = "You do not have access to this API endpoint"
"""FUB's own words (observed)."""

_AUTHENTICATE: Final = (("WWW-Authenticate", 'Basic realm="Follow Up Boss API"'),)


@dataclass(frozen=True, slots=True)
class CannedAnswer:
    """A whole answer, but for its Date."""

    status: int
    body: bytes
    content_type: str | None = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def _error(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> CannedAnswer:
    return CannedAnswer(status, json.dumps({"errorMessage": message}).encode(), headers=headers)


def _page(status: int, title: str) -> CannedAnswer:
    return CannedAnswer(
        status, f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>".encode(), "text/html"
    )


CANNED_ANSWERS: Final[Mapping[ApiFault, CannedAnswer]] = MappingProxyType(
    {
        ApiFault.SERVER_ERROR: _error(HTTPStatus.INTERNAL_SERVER_ERROR, "An unexpected error occurred."),
        ApiFault.BAD_GATEWAY: _page(HTTPStatus.BAD_GATEWAY, "We'll be right back"),
        ApiFault.HTML: _page(HTTPStatus.OK, "We'll be right back"),
        ApiFault.FORBIDDEN: _error(HTTPStatus.FORBIDDEN, NO_ACCESS),
        ApiFault.UNAUTHORIZED: _error(HTTPStatus.UNAUTHORIZED, UNAUTHORIZED, _AUTHENTICATE),
        ApiFault.BAD_REQUEST: _error(HTTPStatus.BAD_REQUEST, "Invalid request."),
        ApiFault.EXPIRED: _error(HTTPStatus.FORBIDDEN, EXPIRED),
        ApiFault.WAF: _page(HTTPStatus.FORBIDDEN, "Request blocked"),
        ApiFault.GATEWAY_NOT_FOUND: CannedAnswer(HTTPStatus.NOT_FOUND, b'{"message":"no Route matched with those values"}'),
        ApiFault.ERROR_IN_200: _error(HTTPStatus.OK, "An unexpected error occurred."),
        ApiFault.NO_CONTENT: CannedAnswer(HTTPStatus.NO_CONTENT, b"", None),
    }
)
