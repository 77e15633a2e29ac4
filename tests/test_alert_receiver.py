"""Alerts and heartbeats at receivers that take only what their service documents.

The receivers stand on loopback under the names of the services, so that what is sent is what the daemon would send there. Their rules are
those of the services' documentation, not the services themselves.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from pytest_aiohttp import AiohttpServer
from typing_extensions import override
from yarl import URL

from fubd.alert_receiver import SendFailed, in_dialect, new_session, send_alert, send_heartbeat

ALERT = {
    "text": "Ada & Bo <x> entered B.",
    "id": 7,
    "severity": "critical",
    "kind": "stage",
    "url": "https://app.followupboss.com/2/people/view/1",
}


async def _slack(request: web.Request) -> web.Response:
    """Incoming webhooks: JSON with a text. `&`, `<` and `>` are escaped."""
    body = await request.json()
    if not body.get("text"):
        return web.Response(status=400, text="no_text")
    raw = any(mark in body["text"] for mark in ("& ", "<", ">"))
    return web.Response(status=400, text="invalid_payload") if raw else web.Response(text="ok")


async def _google_chat(request: web.Request) -> web.Response:
    """Unknown keys are refused."""
    unknown = (await request.json()).keys() - {"text", "cards", "cardsV2", "thread"}
    return web.json_response({"error": {"message": f"Unknown name {unknown}"}} if unknown else {}, status=400 if unknown else 200)


async def _discord(request: web.Request) -> web.Response:
    """Execute webhook: content of at most 2,000 characters; /slack takes Slack's form."""
    if request.path.endswith("/slack"):
        return await _slack(request)
    content = (await request.json()).get("content", "")
    if not content:
        return web.json_response({"message": "Cannot send an empty message", "code": 50006}, status=400)
    return web.Response(status=204) if len(content) <= 2_000 else web.json_response({"content": ["too long"]}, status=400)


async def _teams(request: web.Request) -> web.Response:
    """The template of Teams posts each attachment, an adaptive card; without one the flow fails after it answered."""
    attachments = (await request.json()).get("attachments") or [{}]
    card = attachments[0].get("content", {})
    valid = attachments[0].get("contentType") == "application/vnd.microsoft.card.adaptive" and card.get("type") == "AdaptiveCard"
    return web.Response(status=202) if valid and card["body"][0]["text"] == ALERT["text"] else web.Response(status=400)


async def _telegram(request: web.Request) -> web.Response:
    """Parameters come from the address and the JSON; both are needed, and the text has at most 4,096 characters."""
    given = {**request.query, **(await request.json())}
    missing = next((name for name in ("chat_id", "text") if not given.get(name)), None)
    if missing or len(given["text"]) > 4_096:
        return web.json_response({"ok": False, "error_code": 400, "description": f"Bad Request: {missing} is empty"}, status=400)
    return web.json_response({"ok": True, "result": {}})


async def _ntfy(request: web.Request) -> web.Response:
    """JSON at the root needs a topic; at a topic the body itself is the message, unless a template picks from it."""
    body = await request.json()
    if request.path != "/":
        shown = body["text"] if request.query.get("message") == "{{.text}}" and "template" in request.query else await request.text()
    elif body.get("topic"):
        shown = body["message"]
    else:
        return web.json_response({"code": 40009, "error": "invalid request: topic invalid"}, status=400)
    return web.json_response({"event": "message", "message": shown})


async def _healthchecks(request: web.Request) -> web.Response:
    """A ping is a GET of the check's address; another address is answered 200, too."""
    return web.Response(text="OK" if request.path == "/5d3f9c1e-0001" else "OK (not found)")


async def _uptime_kuma(request: web.Request) -> web.Response:
    """A push is a GET with the monitor's token."""
    if request.path != "/api/push/Tok3nTok3n":
        return web.json_response({"ok": False, "msg": "Monitor not found or not active."}, status=404)
    return web.json_response({"ok": request.query.get("status") == "up"})


SERVICES: Mapping[str, Any] = {
    "hooks.slack.com": _slack,
    "chat.googleapis.com": _google_chat,
    "discord.com": _discord,
    "prod-1.westus.logic.azure.com": _teams,
    "default1.environment.api.powerplatform.com": _teams,
    "api.telegram.org": _telegram,
    "ntfy.sh": _ntfy,
    "ntfy.example": _ntfy,
    "mattermost.example": _slack,
    "hc-ping.com": _healthchecks,
    "kuma.example": _uptime_kuma,
}


class _Loopback(AbstractResolver):
    """Every name is this machine."""

    @override
    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    @override
    async def close(self) -> None:
        pass


class Services:
    """The services, and a session that finds them under their names."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._port = port
        self._session = session
        self.received: list[Any] = []

    def url(self, host: str, path: str) -> str:
        return f"http://{host}:{self._port}{path}"

    async def alert(self, host: str, path: str, **changed: object) -> str:
        return await send_alert(self._session, self.url(host, path), {**ALERT, **changed})

    async def heartbeat(self, host: str, path: str) -> str:
        return await send_heartbeat(self._session, self.url(host, path))


@pytest.fixture
async def services(aiohttp_server: AiohttpServer) -> AsyncIterator[Services]:
    """Run the services until the test ends."""

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            running.received.append(await request.json())
        response: web.Response = await SERVICES[str(request.url.host)](request)
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    port = (await aiohttp_server(app)).port
    assert port is not None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Loopback())) as session:
        running = Services(port, session)
        yield running


@pytest.mark.parametrize(
    ("host", "path", "answer"),
    [
        ("hooks.slack.com", "/services/T0/B0/x", "ok"),
        ("chat.googleapis.com", "/v1/spaces/A/messages?key=k&token=t", "{}"),
        ("discord.com", "/api/webhooks/1/x", ""),
        ("discord.com", "/api/webhooks/1/x?wait=false&thread_id=5", ""),
        ("prod-1.westus.logic.azure.com", "/workflows/1/triggers/manual/paths/invoke?sig=x", ""),
        ("default1.environment.api.powerplatform.com", "/powerautomate/automations/direct/workflows/1", ""),
        ("api.telegram.org", "/bot1:x/sendMessage?chat_id=-100", '{"ok": true, "result": {}}'),
        ("ntfy.sh", "/topic-1", '{"event": "message", "message": "Ada & Bo <x> entered B."}'),
        ("ntfy.example", "/topic-1?template=yes&message=%7B%7B.text%7D%7D", '{"event": "message", "message": "Ada & Bo <x> entered B."}'),
    ],
)
async def test_each_chat_tool_takes_an_alert(services: Services, host: str, path: str, answer: str) -> None:
    """In the form that it documents, with the address as the recipe says."""
    assert await services.alert(host, path) == answer


async def test_other_receivers_get_the_whole_document(services: Services) -> None:
    """A program of one's own, and tools that take Slack's form and ignore other keys."""
    assert await services.alert("mattermost.example", "/hooks/x", text="A B") == "ok"
    assert services.received == [{**ALERT, "text": "A B"}]


@pytest.mark.parametrize("host", ["notdiscord.com", "discord.com.example", "ntfy.sh.example", "slack.com", "127.0.0.1"])
def test_a_chat_tool_is_recognised_by_its_whole_name(host: str) -> None:
    """A name that is only alike is another's, and gets the whole document."""
    assert in_dialect(f"https://{host}/topic", ALERT) == (URL(f"https://{host}/topic"), ALERT)


async def test_a_long_text_is_cut_where_the_service_has_a_limit(services: Services) -> None:
    """With a mark at the end."""
    for host, path in (("discord.com", "/api/webhooks/1/x"), ("api.telegram.org", "/bot1:x/sendMessage?chat_id=1"), ("ntfy.sh", "/topic")):
        await services.alert(host, path, text="x" * 5_000)
    texts = [body.get("content") or body.get("text") or body.get("message") for body in services.received]
    assert texts == ["x" * 1_999 + "\u2026"] * 3


async def test_what_ntfy_gets_beside_the_text(services: Services) -> None:
    """The topic, a high priority for what is critical, and where a tap leads."""
    await services.alert("ntfy.sh", "/topic-1")
    assert services.received == [{"topic": "topic-1", "message": ALERT["text"], "priority": 4, "click": ALERT["url"]}]


async def test_discord_takes_the_form_of_slack_at_its_own_address(services: Services) -> None:
    """An address that ends in /slack keeps working."""
    assert await services.alert("discord.com", "/api/webhooks/1/x/slack", text="A B") == "ok"


async def test_each_monitor_takes_a_heartbeat(services: Services) -> None:
    """Its address as it is; a wrong one is refused, and the answer is shown without the token."""
    assert await services.heartbeat("hc-ping.com", "/5d3f9c1e-0001") == "OK"
    assert await services.heartbeat("kuma.example", "/api/push/Tok3nTok3n?status=up&msg=OK&ping=") == '{"ok": true}'
    with pytest.raises(SendFailed, match="it answers 404") as refused:
        await services.heartbeat("kuma.example", "/api/push/another1")
    assert refused.value.rejected
    assert "Monitor not found" in refused.value.answer
    with pytest.raises(SendFailed, match="it ignores it"):
        await services.heartbeat("hc-ping.com", "/5d3f9c1e-0002")


async def test_an_answer_is_shown_without_the_secrets_of_the_address(aiohttp_server: AiohttpServer) -> None:
    """On one line, of limited length."""

    async def echo(request: web.Request) -> web.Response:
        return web.Response(status=403, text=f"no\n{request.path_qs} " + "x" * 500)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    server = await aiohttp_server(app)
    async with new_session() as session:
        with pytest.raises(SendFailed) as refused:
            await send_alert(session, str(server.make_url("/hooks/hidden-token?key=hidden-key")), ALERT)
    assert refused.value.answer.startswith("no \u2026?key=\u2026 xxx")
    assert len(refused.value.answer) == 200
