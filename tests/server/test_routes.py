"""The probes, the health document, the metrics, the token, and the files of the status page."""

from __future__ import annotations

import base64
import dataclasses

import aiohttp
import pytest

from fubd.server import ServerLimits
from tests.server.fakes import ServerUnderTest, running_server, stage_event
from tests.server.senders import post


async def test_healthz_is_200_at_once_and_readyz_gives_a_reason(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """`/healthz` answers 200 at once; `/readyz` answers 200, or 503 with the reason."""
    for reason, status, text in (
        (None, 200, "ready\n"),
        ("the schema is from a newer version", 503, "the schema is from a newer version\n"),
    ):
        server.view.not_ready = reason
        async with web.get(f"{server.url}/healthz") as response:
            assert response.status == 200
        async with web.get(f"{server.url}/readyz", headers={"Host": "healthcheck.railway.app"}) as response:
            assert (response.status, await response.text()) == (status, text)


async def test_the_health_document_is_complete(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """It has every key, with instants in UTC or null, also while the database is away."""
    server.view.database_up = False
    async with web.get(f"{server.url}/health") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        document = await response.json()
    assert document == {
        "mode": "steady",
        "reason": "a webhook arrived 12 s ago, and the last poll found nothing missed",
        "poll_interval_seconds": 1800.0,
        "coverage": "2026-03-01T12:00:30Z",
        "sources": {
            "webhook": {
                "status": "HEALTHY",
                "last_heard": "2026-03-01T12:07:18Z",
                "last_change": "2026-03-01T12:07:16Z",
                "records_today": 31,
            },
            "polling": {"status": "HEALTHY", "last_heard": "2026-03-01T12:00:30Z", "last_change": None, "records_today": 2},
        },
        "subscriptions": {"peopleStageUpdated": "active", "peopleCreated": "active", "peopleDeleted": "active"},
        "completeness": {"ratio": 0.99987, "people": 202_113, "oldest": "2026-02-28T05:07:30Z"},
        "subscription_advice": {},
        "database": {"recording": False, "since": None},
        "account": {"id": None, "name": None},
        "problems": [],
        "as_of": None,
    }


@pytest.mark.parametrize("accept", ["*/*", "text/none", "application/openmetrics-text; version=1.0.0", ""])
async def test_the_metrics_have_one_format_for_every_client(server: ServerUnderTest, web: aiohttp.ClientSession, accept: str) -> None:
    """No Accept header leads to a 406."""
    await post(web, server, stage_event())
    async with web.get(f"{server.url}/metrics", headers={"Accept": accept}) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert 'fubd_webhook_deliveries_total{outcome="accepted"} 1.0\n' in await response.text()


async def test_strangers_get_the_open_texts_of_a_moment_ago(web: aiohttp.ClientSession) -> None:
    """Asking again and again costs little; this machine gets what is true now."""
    async with running_server(limits=ServerLimits(open_text_max_age_seconds=3600.0)) as server:

        async def mode(host: str) -> str:
            async with web.get(f"{server.url}/health", headers={"Host": host}) as response:
                return str((await response.json())["mode"])

        assert [await mode(host) for host in ("fubd.example", "localhost")] == ["steady", "steady"]
        server.view.document = dataclasses.replace(server.view.document, mode="failover")
        assert [await mode(host) for host in ("fubd.example", "localhost")] == ["steady", "failover"]


GUARDED = ["/", "/health", "/metrics", "/api/changes", "/api/overview", "/api/stream", "/web/status.js", "/web/status.css"]
TOKEN = "invented:tökén"


def basic(credentials: str) -> str:
    """Return the value of a Basic Authorization header."""
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize("path", GUARDED)
async def test_the_token_protects_what_shows_data(web: aiohttp.ClientSession, path: str) -> None:
    """It is accepted as a bearer token or as a password; anything else is 401, and makes a browser ask for it."""
    async with running_server(token=TOKEN) as server:
        for authorization, status in (
            (f"Bearer {TOKEN}", 200),
            (f"bearer {TOKEN}", 200),
            (basic(f":{TOKEN}"), 200),
            (basic(f"anyone:{TOKEN}"), 200),
            (None, 401),
            ("", 401),
            ("Bearer", 401),
            ("Bearer invented", 401),
            (f"Digest {TOKEN}", 401),
            (basic(TOKEN[:-1]), 401),
            ("Basic \xff", 401),
            ("Basic not base64", 401),
            (basic("anyone"), 401),
        ):
            headers = {} if authorization is None else {"Authorization": authorization}
            async with web.head(f"{server.url}{path}", headers=headers) as response:
                assert (authorization, response.status) == (authorization, status)
                assert status == 200 or response.headers["WWW-Authenticate"].startswith("Basic realm=")


async def test_the_probes_and_the_webhook_route_need_no_token(web: aiohttp.ClientSession) -> None:
    """The platform and Follow Up Boss do not have it."""
    async with running_server(token=TOKEN) as server:
        for path in ("/healthz", "/readyz"):
            async with web.get(f"{server.url}{path}") as response:
                assert response.status == 200
        assert (await post(web, server, stage_event())).status == 200


async def test_the_page_may_load_only_its_own_files(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """Its content security policy allows no inline script and no other host, and its files have their content types."""
    async with web.get(f"{server.url}/") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = response.headers["Content-Security-Policy"]
        assert (policy.split(";")[0], "unsafe" in policy) == ("default-src 'none'", False)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        text = await response.text()
    for name, kind in (("status.js", "text/javascript"), ("status.css", "text/css"), ("icon.svg", "image/svg+xml")):
        assert f'"/web/{name}"' in text
        async with web.get(f"{server.url}/web/{name}") as response:
            assert (response.status, response.content_type) == (200, kind)
