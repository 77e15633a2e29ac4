"""Who may read what: personal data only with the token, or on this machine when no token is set.

A loopback peer alone proves nothing: a proxy on this machine forwards the requests of others, and a page of another host can make a browser
send requests here under its own name (https://owasp.org/www-community/attacks/DNS_Rebinding). So the Host header must name a loopback host,
and no header that a proxy adds may be there.
"""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from hmac import compare_digest
from typing import cast

from aiohttp import BasicAuth, HttpVersion11, hdrs, web

from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.server.limits import ServerLimits

VARIABLE = "FUBD_METRICS_TOKEN"
_TOKEN_REQUIRED = f"a token is required: send {VARIABLE} as a bearer token or as a Basic password\n"
_LOCAL_ONLY = f"this answers only the machine that fubd runs on: set {VARIABLE} to open it to clients that send that token\n"
# Names by which proxies, tunnels and platforms say that they pass a request on: of the client or host that it came from, and their own.
_PROXY_HEADER = re.compile(
    r"""via | client | .*(forward|prox).* | .*ips? | (.*-)?addr(ess)? | .+-(host|scheme|proto|protocol|port)(-.*)? | front-end-https
    | (x-)?(original|originating|real|remote|client|true-client|cluster|connecting|request-start|envoy|railway|amzn?|azure|appengine|arr
    | cf|cdn|fly|fastly|ngrok|akamai|vercel|nf|netlify|render|rndr|heroku|tailscale|localtunnel|pagekite|traefik|haproxy|nginx|varnish
    | caddy|google|goog|cloud|sucuri|ali|eo|iinfo|edge|ingress|gateway|ssl|surrogate|early)(-.*)?""",
    re.VERBOSE,
)
# Stricter than a parser of URLs, which also takes what nobody but an attacker writes into a Host header.
_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]+))(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_MINUTE_SECONDS = 60.0


def page_audience(*, token_set: bool) -> str:
    """Return in one sentence who can read the status page and the changes."""
    if token_set:
        return f"The status page and /api answer every client that sends {VARIABLE}."
    return f"The status page and /api answer only this machine; set {VARIABLE} to open them."


class AccessControl:
    """Decides which requests to the read-only routes are answered. `token`: FUBD_METRICS_TOKEN."""

    def __init__(self, *, token: str | None, metrics: Metrics, clock: Clock, limits: ServerLimits) -> None:
        self._token = None if token is None else token.encode()
        self._metrics = metrics
        self._clock = clock
        self._delay_seconds = limits.refusal_delay_seconds
        self._recent_guesses: deque[float] = deque(maxlen=limits.guesses_per_minute)

    @property
    def token_set(self) -> bool:
        """Return whether a token is required."""
        return self._token is not None

    async def refusal(self, request: web.BaseRequest, *, is_personal: bool) -> web.Response | None:
        """Return the response to a request that is refused, None for one that may be answered.

        The right token is always accepted at once. After too many wrong ones within a minute, the response to a wrong one is delayed.
        """
        if self._token is None:
            return None if not is_personal or is_local(request) else self._refuse(_LOCAL_ONLY)
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        if _has_token(authorization, self._token):
            return None
        if authorization:
            await self._delay_guess()
        response = self._refuse(_TOKEN_REQUIRED)
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="fubd", charset="UTF-8"'
        return response

    def _refuse(self, text: str) -> web.Response:
        self._metrics.http_refused.inc()
        headers = {hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(status=401, text=text, headers=headers)

    async def _delay_guess(self) -> None:
        now, recent = self._clock.monotonic(), self._recent_guesses
        is_frequent = len(recent) == recent.maxlen and now - recent[0] < _MINUTE_SECONDS
        recent.append(now)
        if is_frequent:
            await self._clock.pause(self._delay_seconds)


def is_local(request: web.BaseRequest) -> bool:
    """Return whether a request comes from this machine, by its peer and its Host, and passed no proxy.

    A target in absolute form ("GET http://host/") is sent to proxies only and counts before the Host, so it is not local. Neither is
    HTTP/1.0: no browser speaks it, but nginx as a proxy does, and by default it also names the Host that it passes to and adds no header
    (https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_http_version).
    """
    hosts = request.headers.getall(hdrs.HOST, [])
    return (
        request.transport is not None
        and _is_loopback_address(str(cast("tuple[object, ...]", request.transport.get_extra_info("peername") or ("",))[0]))
        and request.version >= HttpVersion11
        and request.raw_path.startswith("/")
        and len(hosts) == 1
        and _is_loopback_host(hosts[0])
        and not any(_PROXY_HEADER.fullmatch(name.lower().replace("_", "-")) for name in request.headers)
    )


def _is_loopback_host(host: str) -> bool:
    named = _HOST.fullmatch(host)
    name = named["address"] or named["name"].lower() if named else ""
    return name == "localhost" or _is_loopback_address(name)


def _is_loopback_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _has_token(authorization: str, token: bytes) -> bool:
    scheme, _, credentials = authorization.partition(" ")
    given = credentials.strip()
    if scheme.lower() == "basic":
        try:
            given = BasicAuth.decode(authorization, encoding="utf-8").password
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return compare_digest(given.encode("utf-8", "surrogateescape"), token)
