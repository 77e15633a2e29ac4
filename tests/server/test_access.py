"""Who may read what: the token, and without one only this machine."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.server.fakes import ServerUnderTest, running_server
from tests.server.senders import exchange

PERSONAL = ["/", "/api/changes", "/api/overview", "/api/stream", "/web/status.js"]
UNKNOWN = ["/api/", "/api/nothing", "/web/", "/web/nothing.js", "/web/%2e%2e/server.py"]
IMPERSONAL = ["/health", "/metrics", "/healthz", "/readyz"]
TOKEN = "invented-token-of-32-characters!"


def refused(server: ServerUnderTest) -> float:
    """Return how many requests were counted as refused."""
    return server.metrics.registry.get_sample_value("fubd_http_refused_total") or 0.0


@pytest.mark.parametrize("path", PERSONAL)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8:8080", "[::1]:80", "LOCALHOST:1"])
async def test_without_a_token_this_machine_sees_the_page(
    server: ServerUnderTest, web: aiohttp.ClientSession, path: str, host: str
) -> None:
    """A loopback peer that names a loopback host is answered."""
    async with web.head(f"{server.url}{path}", headers={"Host": host}) as response:
        assert response.status == 200


FOREIGN = [
    {"Host": "fubd.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost.evil.example:80"},
    {"Host": "10.0.0.1"},
    {"Host": "[::2]"},
    {"Host": ""},
    {"Host": "localhost@evil.example"},
    {"Host": "evil.example@localhost"},
    {"Host": "localhost#evil.example"},
    {"Host": "localhost/evil.example"},
    {"Host": "localhost?evil.example"},
    {"Host": "localhost\\evil.example"},
    *(
        {"Host": "localhost", name: value}
        for name, value in (
            ("Forwarded", "for=1.2.3.4"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("x-forwarded-host", "localhost"),
            ("X-Forwarded-Anything", ""),
            ("X-Real-IP", "1.2.3.4"),
            ("Via", "1.1 proxy"),
            ("CF-Connecting-IP", "1.2.3.4"),
            ("CF-Ray", "1"),
            ("True-Client-IP", "1.2.3.4"),
            ("X-Envoy-External-Address", "1.2.3.4"),
            ("X-Railway-Edge", "1"),
            ("Fly-Client-IP", "1.2.3.4"),
            ("Forwarded-For", "1.2.3.4"),
            ("X_Forwarded_For", "1.2.3.4"),
            ("X-Originating-IP", "1.2.3.4"),
            ("X-Remote-Addr", "1.2.3.4"),
            ("X-Host", "fubd.example"),
            ("X-HTTP-Host-Override", "fubd.example"),
            ("WL-Proxy-Client-IP", "1.2.3.4"),
            ("X-Vercel-Id", "1"),
            ("Tailscale-User-Login", "a@b.example"),
            ("Localtunnel-Agent-Ips", "[]"),
        )
    ),
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_without_a_token_nobody_else_does(server: ServerUnderTest, web: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    """Another Host (a page that rebinds its name) or the sign of a proxy is refused; what holds no personal data stays open."""
    for path in PERSONAL:
        async with web.get(f"{server.url}{path}", headers=headers) as response:
            assert (path, response.status) == (path, 401)
            assert "set FUBD_METRICS_TOKEN to open it" in await response.text()
    assert refused(server) == len(PERSONAL)
    for path in IMPERSONAL:
        async with web.get(f"{server.url}{path}", headers=headers) as response:
            assert (path, response.status) == (path, 200)


# What a browser and usual programs send to this machine.
DIRECT = {
    "User-Agent": "Mozilla/5.0", "Accept": "*/*", "Accept-Encoding": "gzip, deflate, br", "Accept-Language": "en",
    "Cache-Control": "no-cache", "Pragma": "no-cache", "Referer": "http://localhost/", "Origin": "http://localhost", "Cookie": "a=b",
    "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Ch-Ua-Platform": '"Windows"', "Upgrade-Insecure-Requests": "1",
    "DNT": "1", "Priority": "u=1", "Range": "bytes=0-5", "If-None-Match": "x", "Last-Event-ID": "7", "TE": "trailers",
    "X-Requested-With": "XMLHttpRequest", "X-Request-Id": "1", "Traceparent": "00-1-2-01", "X-Grafana-Org-Id": "1",
    "X-Prometheus-Scrape-Timeout-Seconds": "10", "Content-Type": "application/json", "Authorization": "Bearer x",
}  # fmt: skip


async def test_the_headers_of_usual_clients_are_no_sign_of_a_proxy(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """A browser, curl, Grafana and Prometheus on this machine are answered."""
    async with web.get(f"{server.url}/", headers=DIRECT) as response:
        assert response.status == 200


async def test_unknown_paths_of_the_page_are_refused_like_known_ones(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """Only who may read the page learns what is there, and which methods it takes."""
    for path in UNKNOWN:
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
            sent = f"{method} {path} HTTP/1.1\r\nHost: {{}}\r\nConnection: close\r\n\r\n"
            assert (path, (await exchange(server, sent.format("fubd.example").encode())).split(b" ")[1]) == (path, b"401")
            assert (path, (await exchange(server, sent.format("localhost").encode())).split(b" ")[1]) == (path, b"404")
    for path in PERSONAL:
        for host, status in (("fubd.example", 401), ("localhost", 405)):
            async with web.post(f"{server.url}{path}", headers={"Host": host}) as response:
                assert (path, response.status) == (path, status)


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: evil.example\r\n"])
async def test_a_missing_or_second_host_is_refused(server: ServerUnderTest, hosts: str) -> None:
    """Only one Host can be judged."""
    answer = await exchange(server, f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in {b"400", b"401"}


async def test_a_request_line_that_names_another_host_is_refused(server: ServerUnderTest) -> None:
    """A target in absolute form counts before the Host header (https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2)."""
    answer = await exchange(server, b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] == b"401"


@pytest.mark.parametrize(("version", "status"), [("1.0", b"401"), ("1.1", b"200")])
async def test_a_request_of_a_proxy_that_adds_no_header_is_refused(server: ServerUnderTest, version: str, status: bytes) -> None:
    """By default nginx passes HTTP/1.0 on, with the Host of the address it passes to."""
    request = f"GET / HTTP/{version}\r\nHost: {server.url.removeprefix('http://')}\r\nConnection: close\r\n\r\n"
    assert (await exchange(server, request.encode())).split(b" ")[1] == status


async def test_the_token_opens_the_page_behind_any_proxy(web: aiohttp.ClientSession) -> None:
    """With a token it does not matter where a request comes from; without it this machine is refused as well."""
    async with running_server(token=TOKEN) as server:
        for path in (*PERSONAL, "/health", "/metrics"):
            for headers, status in (
                ({"Host": "fubd.example", "X-Forwarded-For": "1.2.3.4", "Authorization": f"Bearer {TOKEN}"}, 200),
                ({"Host": "localhost"}, 401),
            ):
                async with web.head(f"{server.url}{path}", headers=headers) as response:
                    assert (path, response.status) == (path, status)


async def test_guesses_are_slowed_and_the_right_token_is_not(web: aiohttp.ClientSession) -> None:
    """After ten wrong tokens the next answers are late; the right token is accepted meanwhile."""
    async with running_server(token=TOKEN) as server:
        for _ in range(10):
            async with web.get(f"{server.url}/health", headers={"Authorization": "Bearer wrong"}) as response:
                assert response.status == 401
        guess = await exchange_later(server)
        async with web.get(f"{server.url}/health", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200
        assert not guess.done()
        assert (await guess).startswith(b"HTTP/1.1 401 ")
        assert refused(server) == 11


async def exchange_later(server: ServerUnderTest) -> asyncio.Task[bytes]:
    """Send a wrong token, and return the task that waits for the answer."""
    sent = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer wrong\r\n\r\n"
    return asyncio.create_task(exchange(server, sent))
