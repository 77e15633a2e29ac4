from __future__ import annotations

from email.utils import parsedate_to_datetime

import aiohttp

from fubd.simulator import Account, Behaviour, Faults, SimClock, Simulator
from tests.simulator.conftest import NINE
from tests.simulator.http_client import HttpClient


async def test_without_a_key_is_401(url: str) -> None:
    """A request without a key is 401 with the observed text and header, and without rate limit headers."""
    async with HttpClient(url, key="") as anonymous:
        reply = await anonymous.get("people")
    assert reply.status == 401
    assert reply.json["errorMessage"].startswith("Authentication is required. Use Basic HTTP Authentication")
    assert reply.headers["WWW-Authenticate"] == 'Basic realm="Follow Up Boss API"'
    assert not any(name.startswith("X-RateLimit") for name in reply.headers)


async def test_wrong_credentials(url: str, simulator: Simulator) -> None:
    """An unknown or revoked key, a password, and broken base64 are refused; a bearer token is accepted."""
    simulator.keys.add("second-key", "admin")
    simulator.keys.revoke("second-key")
    for header in (aiohttp.encode_basic_auth("second-key", ""), aiohttp.encode_basic_auth("test-api-key", "x"), "Basic %%%", "Digest x"):
        async with aiohttp.request("GET", f"{url}/identity", headers={"Authorization": header}) as response:
            assert response.status == 401
    async with aiohttp.request("GET", f"{url}/identity", headers={"Authorization": "Bearer test-api-key"}) as response:
        assert response.status == 200


async def test_webhooks_need_the_owners_key(url: str, simulator: Simulator) -> None:
    """Webhook endpoints refuse keys of other users than the owner, and unregistered systems."""
    simulator.keys.add("admin-key", "admin")
    async with HttpClient(url, key="admin-key") as admin, HttpClient(url, system_key=None) as unregistered:
        refused = await admin.get("webhooks")
        assert (refused.status, refused.json) == (403, {"errorMessage": "Only the account owner may access webhooks."})
        assert (await unregistered.get("webhooks")).status == 403
        assert (await admin.get("people")).status == 200


async def test_rate_limit(url: str, client: HttpClient, clock: SimClock, simulator: Simulator) -> None:
    """A registered system has 250 requests in any ten seconds, others 125; then 429 says how long to wait, and has no effect."""
    simulator.limits.consume("global", clock.monotonic(), 240)
    replies = [await client.get("identity") for _ in range(11)]
    assert [reply.status for reply in replies] == [200] * 10 + [429]
    assert replies[0].headers["X-RateLimit-Limit"] == "250"
    assert [reply.headers["X-RateLimit-Remaining"] for reply in replies[-3:]] == ["1", "0", "0"]
    assert replies[0].headers["X-RateLimit-Context"] == "global"
    assert replies[0].headers["X-RateLimit-Window"] == "10"
    assert "X-RateLimit-Reset" not in replies[0].headers
    assert replies[-1].headers["Retry-After"] == "10"
    clock.advance(10)
    assert (await client.get("identity")).status == 200
    clock.advance(10)
    async with HttpClient(url, system_key=None) as unregistered:
        assert (await unregistered.get("identity")).headers["X-RateLimit-Limit"] == "125"


async def test_window_slides(client: HttpClient, clock: SimClock, simulator: Simulator) -> None:
    """Requests become possible as old ones leave the window, not at the end of an interval."""
    simulator.limits.consume("global", clock.monotonic(), 200)
    clock.advance(6)
    simulator.limits.consume("global", clock.monotonic(), 50)
    refused = await client.get("identity")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "4")
    clock.advance(4)
    assert (await client.get("identity")).headers["X-RateLimit-Remaining"] == "199"


async def test_contexts_are_apart(client: HttpClient, account: Account) -> None:
    """Events, notes and updates of people have their own limits; posting events has none."""
    person_id = account.ids[0]
    assert (await client.get("events")).headers["X-RateLimit-Limit"] == "20"
    assert (await client.put(f"people/{person_id}", {"price": 1})).headers["X-RateLimit-Limit"] == "25"
    noted = [await client.post("notes", {"personId": person_id}) for _ in range(11)]
    assert [reply.status for reply in noted] == [201] * 10 + [429]
    assert "X-RateLimit-Limit" not in (await client.post("events", {})).headers
    assert (await client.get("people")).headers["X-RateLimit-Remaining"] == "249"


async def test_limit_per_key(account: Account) -> None:
    """With the switch each key has its own window instead of sharing the account's."""
    simulator = Simulator(account, behaviour=Behaviour(limit_per_key=True))
    simulator.keys.add("second-key", "admin")
    async with simulator.running() as url, HttpClient(url) as first, HttpClient(url, key="second-key") as second:
        await first.get("people")
        assert (await second.get("people")).headers["X-RateLimit-Remaining"] == "249"
        assert simulator.limits.peak(bucket="second-key") == 1


async def test_throttled_although_room_remains(client: HttpClient, simulator: Simulator) -> None:
    """A 429 can come although the headers say that requests remain."""
    simulator.script("people", "throttled")
    reply = await client.get("people")
    assert (reply.status, reply.headers["Retry-After"]) == (429, "8")
    assert int(reply.headers["X-RateLimit-Remaining"]) > 0


async def test_date_is_the_simulators(client: HttpClient, clock: SimClock) -> None:
    """The Date header shows the simulator's clock, shifted or not, on errors too."""
    assert parsedate_to_datetime((await client.get("people")).headers["Date"]) == NINE
    clock.shift(-90)
    late = parsedate_to_datetime((await client.get("nowhere")).headers["Date"])
    assert (NINE - late).total_seconds() == 90


async def test_faults_by_script_come_in_order_and_to_their_endpoint(client: HttpClient, simulator: Simulator) -> None:
    """Scripted faults apply to the next requests of their endpoint, in order, before random ones."""
    simulator.script("people", "server_error", None, "forbidden")
    simulator.faults = Faults(server_error=1.0)
    assert (await client.get("stages")).status == 500
    statuses = [(await client.get("people")).status for _ in range(4)]
    assert statuses == [500, 200, 403, 500]
    assert simulator.calls["GET", "people", 200] == 1


async def test_broken_answers(client: HttpClient, url: str, simulator: Simulator) -> None:
    """An answer can be half its JSON, of the wrong type, an HTML page with 200 or 502, reset or cut off."""
    results: list[str] = []
    simulator.script("people", "truncated", "wrong_type", "html", "bad_gateway", "reset", "cut")
    headers = {"Authorization": aiohttp.encode_basic_auth("test-api-key", "")}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=0.2)) as session:
        for _ in range(6):
            try:
                # A POST, since aiohttp itself retries an idempotent request whose connection is reset.
                async with session.get(f"{url}/people") if len(results) != 4 else session.post(f"{url}/people") as response:
                    body = await response.read()
                    results.append(f"{response.status} {response.content_type} {'whole' if body.endswith((b'}', b'>')) else 'half'}")
            except aiohttp.ClientError as error:
                results.append(type(error).__name__)
    assert results[:4] == ["200 application/json half", "200 text/plain whole", "200 text/html whole", "502 text/html whole"]
    assert results[4:] == ["ServerDisconnectedError", "ClientPayloadError"]
    assert (await client.get("people")).status == 200


async def test_hang(url: str, simulator: Simulator) -> None:
    """A request can hang until the caller gives up; it is then counted as unanswered."""
    simulator.script("*", "hang")
    headers = {"Authorization": aiohttp.encode_basic_auth("test-api-key", "")}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=0.1)) as session:
        try:
            async with session.get(f"{url}/identity"):
                answered = True
        except TimeoutError:
            answered = False
    assert not answered


async def test_what_a_broken_answer_showed_counts_as_unseen(client: HttpClient, simulator: Simulator, account: Account) -> None:
    """Only a complete answer counts as having shown the stages in it, and only if the stage was requested."""
    person_id = account.ids[-1]
    account.move(person_id, "Nurture")
    change = account.truth.changes[0]
    simulator.script("people", "truncated", "html", "server_error")
    for _ in range(3):
        async with aiohttp.request("GET", f"{client.url}/people", headers={"Authorization": "Bearer test-api-key"}) as response:
            await response.read()
    await client.get("people", fields="id,name")
    assert not simulator.sightings.of(change).is_shown
    await client.get("people", fields="id,stage")
    assert simulator.sightings.of(change).read_at == NINE
