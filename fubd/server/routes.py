"""The read-only routes: health, metrics, changes, and the status page with its own files."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest

from fubd.errors import Unavailable
from fubd.ports import ShownRow
from fubd.server.limits import Limits
from fubd.server.sse import HEADERS as STREAM_HEADERS
from fubd.server.sse import EventStream
from fubd.server.view import SPANS, View

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_FILES = Path(__file__).parent.parent / "web"
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_TYPES[".svg"] = "image/svg+xml"
_MAX_ID = 2**63 - 1
_MAX_DIGITS = 19
_PLAIN_HEADERS = {hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"}
_PAGE_HEADERS = {
    hdrs.CACHE_CONTROL: "no-cache",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class BadParameter(Exception):
    """A parameter is not what it must be; the message says what it must be."""


class ReadRoutes:
    """What those who only look may ask for. `files` are read once, when the server is built."""

    def __init__(self, *, view: View, stream: EventStream, registry: CollectorRegistry, token: str | None, limits: Limits) -> None:
        self._view = view
        self._stream = stream
        self._registry = registry
        self._token = None if token is None else token.encode()
        self._limits = limits
        self._files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in _FILES.iterdir() if path.suffix in _TYPES}

    def routes(self) -> dict[str, Handler]:
        """Give the handler of each path; each answers GET and HEAD."""
        guarded: dict[str, Handler] = {
            "/": self._page,
            "/health": self._health,
            "/metrics": self._metrics,
            "/api/changes": self._changes,
            "/api/overview": self._overview,
            "/api/stream": self._live,
        }
        guarded |= {f"/web/{name}": self._file for name in self._files}
        return {"/healthz": self._alive, "/readyz": self._ready} | {path: self._guard(handler) for path, handler in guarded.items()}

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: web.BaseRequest) -> web.StreamResponse:
            if not self._may_see(request.headers.get(hdrs.AUTHORIZATION, "")):
                headers = {hdrs.WWW_AUTHENTICATE: 'Basic realm="fubd", charset="UTF-8"'} | _PLAIN_HEADERS
                return web.Response(status=401, text="the metrics token is needed\n", headers=headers)
            try:
                return await handler(request)
            except BadParameter as fault:
                return _json({"error": str(fault)}, status=400)
            except Unavailable:
                response = _json({"error": "the database does not answer"}, status=503)
                response.headers[hdrs.RETRY_AFTER] = "5"
                return response

        return guarded

    def _may_see(self, authorization: str) -> bool:
        if self._token is None:
            return True
        scheme, _, credentials = authorization.partition(" ")
        given = credentials.strip().encode("utf-8", "surrogatepass")
        if scheme.lower() == "basic":
            try:
                given = b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return compare_digest(given, self._token)

    async def _alive(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _text("alive\n")

    async def _ready(self, _request: web.BaseRequest) -> web.StreamResponse:
        reason = self._view.unready()
        return _text("ready\n") if reason is None else _text(f"{reason}\n", status=503)

    async def _health(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _json(asdict(self._view.health()))

    async def _metrics(self, _request: web.BaseRequest) -> web.StreamResponse:
        # One form for every Accept: each scraper reads it, and a refusal would be a 406.
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: "text/plain; version=0.0.4; charset=utf-8"} | _PLAIN_HEADERS)

    async def _changes(self, request: web.BaseRequest) -> web.StreamResponse:
        after = _number(request, "after", least=0, default=0)
        limit = min(_number(request, "limit", least=1, default=self._limits.page_rows), self._limits.max_page_rows)
        rows = await self._view.changes(after, limit)
        return _document(f'{{"changes":{_listed(rows)},"next_after":{rows[-1].id if rows else after}}}')

    async def _overview(self, request: web.BaseRequest) -> web.StreamResponse:
        hours = _number(request, "hours", least=1, default=max(SPANS))
        if hours not in SPANS:
            raise BadParameter(f"hours must be one of {', '.join(map(str, SPANS))}")
        overview = await self._view.overview(hours)
        told = asdict(overview)
        del told["recent"]
        return _document(f'{_to_json(told)[:-1]},"recent":{_listed(overview.recent)}}}')

    async def _live(self, request: web.BaseRequest) -> web.StreamResponse:
        after = _number(request, "after", least=0, default=0) if "after" in request.query else None
        told = request.headers.get("Last-Event-ID", "")
        # A browser that comes back sends the header and the address it first used; the header is the newer of the two.
        if _is_number(told):
            after = int(told)
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=STREAM_HEADERS)
        return await self._stream.answer(request, after)

    async def _page(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._own_file("index.html")

    async def _file(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._own_file(request.path.removeprefix("/web/"))

    def _own_file(self, name: str) -> web.StreamResponse:
        body, content_type = self._files[name]
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type} | _PAGE_HEADERS)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= _MAX_ID


def _number(request: web.BaseRequest, name: str, *, least: int, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not _is_number(text) or int(text) < least:
        raise BadParameter(f"{name} must be a whole number of at least {least}")
    return int(text)


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, headers=_PLAIN_HEADERS)


def _json(value: object, status: int = 200) -> web.Response:
    return _document(_to_json(value), status)


def _to_json(value: object) -> str:
    return json.dumps(value, default=_instant, separators=(",", ":"))


def _instant(value: object) -> str:
    """Write an instant as ISO 8601 in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not for readers")


def _listed(rows: Sequence[ShownRow]) -> str:
    return f"[{','.join(row.json for row in rows)}]"


def _document(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, headers={hdrs.CONTENT_TYPE: "application/json"} | _PLAIN_HEADERS)
