"""The read-only routes: probes, health, metrics, changes, and the status page with its files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest

from fubd.core.explanation import explain, report_to_json
from fubd.core.vocabulary import SOURCES
from fubd.errors import TableRefused, Unavailable
from fubd.ports import ChangeFilter, ChangeReader, PeopleReader, ShownRow
from fubd.server.access import AccessControl, is_local, page_audience
from fubd.server.connections import Connection
from fubd.server.limits import ServerLimits
from fubd.server.sse import HEADERS as STREAM_HEADERS
from fubd.server.sse import EventStream, StreamPosition
from fubd.server.throttle import ReadThrottle
from fubd.server.view import SPANS, StatusView

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_READ_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_PERSONAL_FOLDERS = ("/api/", "/web/")
_WEB_FOLDER = Path(__file__).parent.parent / "web"
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_MAX_ID = 2**63 - 1
_MAX_DIGITS = 19
_MAX_TEXT_CHARS = 500
_MAX_PEOPLE_FOUND = 20
_CROSS_ORIGIN = {"Cross-Origin-Resource-Policy": "same-origin"}
_DATA_HEADERS = {hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"} | _CROSS_ORIGIN
_PAGE_HEADERS = _CROSS_ORIGIN | {
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
    """A query parameter is invalid; the message says what is accepted."""


class _RecentText:
    """A text that costs more than answering a delivery: unknown clients get it as it was a moment ago."""

    def __init__(self, render: Callable[[], str], max_age_seconds: float) -> None:
        self._render = render
        self._max_age_seconds = max_age_seconds
        self._text = ""
        self._rendered_at = 0.0

    def get(self, *, is_known: bool) -> str:
        """Return it as it is now, or for unknown clients as it was at most `max_age_seconds` ago."""
        now = asyncio.get_running_loop().time()
        if is_known or not self._text or now - self._rendered_at >= self._max_age_seconds:
            self._text, self._rendered_at = self._render(), now
        return self._text


class ReadRoutes:
    """Handles the read-only routes. The files of the status page are read once, at construction."""

    def __init__(
        self,
        *,
        view: StatusView,
        changes: ChangeReader,
        people: PeopleReader,
        dedup_window: timedelta,
        throttle: ReadThrottle,
        stream: EventStream,
        registry: CollectorRegistry,
        access: AccessControl,
        limits: ServerLimits,
    ) -> None:
        self._view = view
        self._changes = changes
        self._people = people
        self._dedup_window = dedup_window
        self._throttle = throttle
        self._stream = stream
        self._access = access
        self._limits = limits
        self._metrics_text = _RecentText(lambda: generate_latest(registry).decode(), limits.open_text_max_age_seconds)
        self._health_text = _RecentText(lambda: _to_json(asdict(view.health())), limits.open_text_max_age_seconds)
        self._files = {
            path.name: (path.read_bytes(), _CONTENT_TYPES[path.suffix]) for path in _WEB_FOLDER.iterdir() if path.suffix in _CONTENT_TYPES
        }
        self._handlers = self._make_handlers()
        self._unknown_page = self._guard(_not_found, is_personal=True)

    def audience(self) -> str:
        """Return in one sentence who can read the status page."""
        return page_audience(token_set=self._access.token_set)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request to any path but those of the webhooks."""
        path = request.path
        handler = self._handlers.get(path) or (self._unknown_page if path.startswith(_PERSONAL_FOLDERS) else _not_found)
        return await handler(request)

    def _make_handlers(self) -> dict[str, Handler]:
        """Return the handler of each path. Each answers GET and HEAD."""
        personal: dict[str, Handler] = {
            "/": self._index,
            "/api/changes": self._changes_page,
            "/api/overview": self._overview,
            "/api/stream": self._changes_stream,
            "/api/recent": self._recent,
            "/api/people": self._find_people,
            "/api/person": self._person,
        }
        personal |= {f"/web/{name}": self._web_file for name in self._files}
        impersonal: dict[str, Handler] = {"/health": self._health, "/metrics": self._metrics}
        return (
            {path: _read_only(handler) for path, handler in (("/healthz", self._healthz), ("/readyz", self._readyz))}
            | {path: self._guard(_read_only(handler), is_personal=True) for path, handler in personal.items()}
            | {path: self._guard(_read_only(handler), is_personal=False) for path, handler in impersonal.items()}
        )

    def _guard(self, handler: Handler, *, is_personal: bool) -> Handler:
        async def guarded(request: web.BaseRequest) -> web.StreamResponse:
            if (refusal := await self._access.refusal(request, is_personal=is_personal)) is not None:
                return refusal
            is_known = is_personal or self._access.token_set
            if is_known and not cast("Connection", request.protocol).mark_reader():
                # Not 503: the number of readers says nothing about the webhook route.
                return _text("too many readers\n", status=429)
            try:
                return await handler(request)
            except BadParameter as error:
                return _json({"error": str(error)}, status=400)
            except Unavailable as error:
                # What the table lacks is named by the problem that it is.
                is_table = isinstance(error, TableRefused)
                cause = "the table stage_changes cannot be read as it is now" if is_table else "the database does not answer"
                response = _json({"error": cause}, status=503)
                response.headers[hdrs.RETRY_AFTER] = "5"
                return response

        return guarded

    async def _healthz(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _text("alive\n")

    async def _readyz(self, _request: web.BaseRequest) -> web.StreamResponse:
        reason = self._view.not_ready_reason()
        return _text("ready\n") if reason is None else _text(f"{reason}\n", status=503)

    async def _health(self, request: web.BaseRequest) -> web.StreamResponse:
        return _json_response(self._health_text.get(is_known=self._is_known(request)))

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        # One format whatever Accept says: every scraper reads it, and a refusal would be a 406.
        body = self._metrics_text.get(is_known=self._is_known(request))
        return web.Response(text=body, headers={hdrs.CONTENT_TYPE: "text/plain; version=0.0.4; charset=utf-8"} | _DATA_HEADERS)

    def _is_known(self, request: web.BaseRequest) -> bool:
        return self._access.token_set or is_local(request)

    async def _changes_page(self, request: web.BaseRequest) -> web.StreamResponse:
        after = _int_parameter(request, "after", minimum=0, default=0)
        limit = min(_int_parameter(request, "limit", minimum=1, default=self._limits.page_rows), self._limits.max_page_rows)
        rows = await self._throttle.run(self._changes.page, after, limit)
        return _json_response(f'{{"changes":{_json_array(rows)},"next_after":{rows[-1].id if rows else after}}}')

    async def _recent(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with changes newest first, older than row `before`, into a stage, of an agent, of a source."""
        query = request.query
        before = _int_parameter(request, "before", minimum=0, default=0) or None
        limit = min(_int_parameter(request, "limit", minimum=1, default=self._limits.page_rows), self._limits.max_page_rows)
        if query.get("source") not in {None, *SOURCES}:
            raise BadParameter(f"source must be one of {', '.join(SOURCES)}")
        chosen = ChangeFilter(*(_text_parameter(request, name) for name in ("stage", "agent", "source")))
        rows = await self._throttle.run(self._changes.filtered, chosen, before=before, limit=limit)
        return _json_response(f'{{"changes":{_json_array(rows)},"next_before":{rows[-1].id if len(rows) == limit else "null"}}}')

    async def _find_people(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with the people whose name contains `q`, or whose id it is."""
        text = (_text_parameter(request, "q") or "").strip()
        if not text:
            raise BadParameter("q must be a part of a name, or an id")
        found = await self._throttle.run(self._people.find_by_name, text, _MAX_PEOPLE_FOUND)
        if _is_int64(text) and (evidence := await self._throttle.run(self._people.evidence, int(text))) is not None:
            found = [evidence.person, *found]
        return _json({"people": [asdict(person) for person in found]})

    async def _person(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with a person's rows and their evidence, as `fubd explain --json` prints them."""
        person_id = _int_parameter(request, "id", minimum=1, default=0)
        evidence = await self._throttle.run(self._people.evidence, person_id)
        if evidence is None:
            return _json({"error": "nobody with this id is known"}, status=404)
        return _json(report_to_json(explain(evidence, window=self._dedup_window), limit=self._limits.page_rows))

    async def _overview(self, request: web.BaseRequest) -> web.StreamResponse:
        hours = _int_parameter(request, "hours", minimum=1, default=max(SPANS))
        if hours not in SPANS:
            raise BadParameter(f"hours must be one of {', '.join(map(str, SPANS))}")
        overview = await self._throttle.run(self._view.overview, hours)
        fields = asdict(overview)
        del fields["recent"]
        return _json_response(f'{_to_json(fields)[:-1]},"recent":{_json_array(overview.recent)}}}')

    async def _changes_stream(self, request: web.BaseRequest) -> web.StreamResponse:
        after = StreamPosition(_int_parameter(request, "after", minimum=0, default=0)) if "after" in request.query else None
        # A browser that reconnects repeats its first address and adds the header: the header is the newer of the two.
        after = _stream_position(request.headers.get("Last-Event-ID", "")) or after
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=STREAM_HEADERS)
        return await self._stream.handle(request, after)

    async def _index(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._web_response("index.html")

    async def _web_file(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._web_response(request.path.removeprefix("/web/"))

    def _web_response(self, name: str) -> web.StreamResponse:
        body, content_type = self._files[name]
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type} | _PAGE_HEADERS)


def method_not_allowed(allowed: str) -> web.Response:
    """Return the response to a method that a path does not take."""
    return web.Response(status=405, text="method not allowed\n", headers={hdrs.ALLOW: allowed})


def _read_only(handler: Handler) -> Handler:
    async def read_only(request: web.BaseRequest) -> web.StreamResponse:
        return await handler(request) if request.method in _READ_METHODS else method_not_allowed("GET, HEAD")

    return read_only


async def _not_found(_request: web.BaseRequest) -> web.StreamResponse:
    return _text("not found\n", status=404)


def _is_int64(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= _MAX_ID


def _stream_position(event_id: str) -> StreamPosition | None:
    """Return the position that an event id names: a row's id, or `ROW-CORRECTION`; None for anything else."""
    row_id, _, correction = event_id.partition("-")
    if not _is_int64(row_id) or not _is_int64(correction or "0"):
        return None
    return StreamPosition(int(row_id), int(correction) if correction else None)


def _int_parameter(request: web.BaseRequest, name: str, *, minimum: int, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not _is_int64(text) or int(text) < minimum:
        raise BadParameter(f"{name} must be a whole number of at least {minimum}")
    return int(text)


def _text_parameter(request: web.BaseRequest, name: str) -> str | None:
    """Return a parameter's text, None where it is missing or empty. PostgreSQL has no text with a NUL."""
    text = request.query.get(name) or None
    if text is not None and ("\0" in text or len(text) > _MAX_TEXT_CHARS or (not text.isascii() and _has_lone_surrogate(text))):
        raise BadParameter(f"{name} must be a text of at most {_MAX_TEXT_CHARS} characters")
    return text


def _has_lone_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, headers=_DATA_HEADERS)


def _json(value: object, status: int = 200) -> web.Response:
    return _json_response(_to_json(value), status)


def _to_json(value: object) -> str:
    return json.dumps(value, default=_format_instant, separators=(",", ":"))


def _format_instant(value: object) -> str:
    """Format an instant as ISO 8601 in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def _json_array(rows: Sequence[ShownRow]) -> str:
    return f"[{','.join(row.json for row in rows)}]"


def _json_response(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, headers={hdrs.CONTENT_TYPE: "application/json"} | _DATA_HEADERS)
