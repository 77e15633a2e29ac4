from __future__ import annotations

import base64
import json
from urllib.parse import urlsplit

import pytest

from fubd.simulator import Account, Behaviour, Lags, SimClock, Simulator, UpdatedAfter
from fubd.simulator.query import decode_next, encode_next, parse_instant
from tests.simulator.conftest import NINE
from tests.simulator.http_client import HttpClient


async def test_list_default(client: HttpClient, account: Account) -> None:
    """A list shows ten people, newest id first, with a token that decodes to the last id and a link to the simulator itself."""
    reply = await client.get("people")
    shown = [person_id for person_id in reversed(account.ids) if account.person(person_id)["stage"] != "Trash"]
    assert reply.status == 200
    assert len(reply.ids) == 10
    assert reply.ids == sorted(reply.ids, reverse=True)
    assert set(reply.ids) <= set(shown)
    decoded = json.loads(base64.b64decode(reply.metadata["next"] + "=" * (-len(reply.metadata["next"]) % 4)))
    assert decoded == {"sinceId": reply.ids[-1]}
    assert urlsplit(reply.metadata["nextLink"]).netloc == urlsplit(client.url).netloc


def test_documented_tokens_are_read() -> None:
    """The documented sample token is the simulator's own; an unreadable one is ignored."""
    assert encode_next(105) == "eyJzaW5jZUlkIjoxMDV9"
    assert decode_next("eyJzaW5jZUlkIjoxMDV9") == 105
    assert decode_next("nonsense") is None
    assert parse_instant("2026-03-02 09:00:00") == parse_instant("2026-03-02T09:00:00Z") == int(NINE.timestamp())
    assert parse_instant("yesterday") is None


async def test_walk_by_links_reads_everyone_once(client: HttpClient, account: Account) -> None:
    """Following nextLink to its end reads everyone exactly once, and the link keeps the filters."""
    reply = await client.get("people", limit=70, includeTrash="true", includeUnclaimed="true", fields="id,stage")
    ids = reply.ids
    while reply.metadata["nextLink"] is not None:
        reply = await client.get(reply.metadata["nextLink"])
        ids += reply.ids
    assert ids == list(reversed(account.ids))
    assert reply.metadata["total"] == len(account)
    assert all(person.keys() == {"id", "stage"} for person in reply.json["people"])


async def test_limit_is_at_most_a_hundred(client: HttpClient) -> None:
    """A limit above 100 gives 100, and an unreadable one the default."""
    assert len((await client.get("people", limit=5000)).ids) == 100
    assert len((await client.get("people", limit="many")).ids) == 10


async def test_deep_offset_is_refused(client: HttpClient) -> None:
    """An offset of 2000 is answered 400 with the observed text; 1999 is not."""
    refused = await client.get("people", offset=2000)
    assert refused.status == 400
    assert refused.json == {"errorMessage": "Deep pagination disabled, use 'nextLink' url"}
    assert (await client.get("people", offset=1999)).status == 200


async def test_offset_pages_drift(client: HttpClient, account: Account) -> None:
    """Offset pages over -updated repeat a person when another one is updated in between, and have no cursor."""
    first = await client.get("people", sort="-updated", limit=5)
    last = next(person_id for person_id in account.ids if person_id not in first.ids and account.stage_of(person_id) != "Trash")
    account.edit(last, price=1)
    second = await client.get("people", sort="-updated", limit=5, offset=5)
    assert first.metadata["next"] is None
    assert second.ids[0] == first.ids[-1]


async def test_updated_moves_with_any_edit_but_not_with_a_note(client: HttpClient, account: Account, clock: SimClock) -> None:
    """Any edit of the person moves `updated`, in whole seconds with a Z; a note does not."""
    person_id = account.ids[0]
    before = (await client.get(f"people/{person_id}")).json["updated"]
    clock.advance(10.4)
    assert (await client.post("notes", {"personId": person_id, "body": "called"})).status == 201
    assert (await client.get(f"people/{person_id}")).json["updated"] == before
    account.edit(person_id, price=70_000)
    assert (await client.get(f"people/{person_id}")).json["updated"] == "2026-03-02T09:00:10Z"


async def test_trash_is_hidden_from_lists(client: HttpClient, account: Account) -> None:
    """A trashed person is on no list, not even by id, unless requested; `/people/:id` always shows them."""
    person_id = account.ids[5]
    account.trash(person_id)
    assert (await client.get("people", id=person_id)).metadata["total"] == 0
    assert (await client.get("people", id=person_id, includeTrash="true")).ids == [person_id]
    assert (await client.get(f"people/{person_id}")).json["stage"] == "Trash"


async def test_unclaimed_are_hidden_from_lists(client: HttpClient, account: Account) -> None:
    """An unclaimed person is listed only with includeUnclaimed, and one also in Trash only with both parameters."""
    person_id = account.create(claimed=False)
    assert (await client.get("people", id=person_id)).ids == []
    assert (await client.get("people", id=person_id, includeUnclaimed="true")).ids == [person_id]
    account.trash(person_id)
    assert (await client.get("people", id=person_id, includeUnclaimed="true")).ids == []
    assert (await client.get("people", id=person_id, includeUnclaimed="true", includeTrash="true")).ids == [person_id]


async def test_filters(client: HttpClient, account: Account, clock: SimClock) -> None:
    """People are found by ids, id bounds, stage name, dates, tags, name and email; unknown parameters are ignored."""
    clock.advance(5)
    one, two, three = account.ids[20:23]
    account.bulk_move([one, two, three], "Nurture")
    everyone: dict[str, str | int] = {"includeTrash": "true", "includeUnclaimed": "true", "limit": 100}
    assert sorted((await client.get("people", ids=f"{one},{three},999999", **everyone)).ids) == [one, three]
    bounded = await client.get("people", idGreaterThan=one, idLessThan=three + 1, sort="id", **everyone)
    assert bounded.ids == [two, three]
    in_stage = await client.get("people", stage="Nurture", **everyone)
    assert {one, two, three} <= set(in_stage.ids)
    assert {person["stage"] for person in in_stage.json["people"]} == {"Nurture"}
    assert (await client.get("people", stage="Nurture", page=2, **everyone)).ids == in_stage.ids
    fresh = account.create(fields={"firstName": "Zebulon", "emails": [{"value": "zeb@example.com"}], "tags": ["Rare"]})
    assert (await client.get("people", createdAfter="2026-03-02T09:00:00Z")).ids == [fresh]
    assert fresh not in (await client.get("people", createdBefore="2026-03-02T09:00:00Z", limit=100)).ids
    for key, value in (("tags", "rare,none"), ("name", "zebul"), ("email", "zeb@example.com")):
        assert (await client.get("people", **{key: value})).ids == [fresh]


@pytest.mark.parametrize(
    ("switch", "expected"),
    [(UpdatedAfter.WORKS, "new"), (UpdatedAfter.NOTHING, "none"), (UpdatedAfter.IGNORED, "all")],
)
async def test_updated_after_switch(account: Account, clock: SimClock, switch: UpdatedAfter, expected: str) -> None:
    """`updatedAfter` filters, gives total 0 without an error, or is ignored, depending on the switch."""
    simulator = Simulator(account, behaviour=Behaviour(updated_after=switch))
    clock.advance(60)
    account.edit(account.ids[7], price=1)
    async with simulator.running() as url, HttpClient(url) as client:
        reply = await client.get("people", updatedAfter="2026-03-02T09:00:30Z", includeTrash="true", includeUnclaimed="true")
    everyone = {"new": [account.ids[7]], "none": [], "all": list(reversed(account.ids))[:10]}
    assert reply.ids == everyone[expected]
    assert reply.metadata["total"] == {"new": 1, "none": 0, "all": 300}[expected]


async def test_updated_bounds_page_by_token(client: HttpClient, account: Account, clock: SimClock) -> None:
    """People updated within bounds can be walked by token; the bounds themselves are exclusive."""
    clock.advance(60)
    moved = account.ids[30:37]
    for person_id in moved:
        account.edit(person_id, price=2)
    window = {
        "updatedAfter": "2026-03-02T09:00:59Z",
        "updatedBefore": "2026-03-02T09:01:01Z",
        "includeTrash": "true",
        "includeUnclaimed": "true",
    }
    first = await client.get("people", limit=4, **window)
    rest = await client.get("people", limit=4, next=first.metadata["next"], **window)
    assert first.ids + rest.ids == sorted(moved, reverse=True)
    assert rest.metadata["nextLink"] is None
    assert (await client.get("people", **{**window, "updatedAfter": "2026-03-02T09:01:00Z"})).ids == []


async def test_fields(client: HttpClient, account: Account) -> None:
    """Custom fields come only on request, by name or all; the id always comes; keys are in FUB's order."""
    person_id = account.ids[0]
    plain = (await client.get(f"people/{person_id}")).json
    assert list(plain)[:5] == ["id", "created", "updated", "createdVia", "lastActivity"]
    assert "tags" in plain
    assert not any(key.startswith("custom") for key in plain)
    assert {"customCampaignID", "lastSentText"} <= (await client.get(f"people/{person_id}", fields="allFields")).json.keys()
    assert (await client.get(f"people/{person_id}", fields="stage,customCampaignID")).json.keys() == {"id", "stage", "customCampaignID"}
    only_custom = (await client.get(f"people/{person_id}", fields="allCustom")).json
    assert all(key == "id" or key.startswith("custom") for key in only_custom)


async def test_undefined_is_the_list(client: HttpClient) -> None:
    """`/people/undefined` answers with the unfiltered list (observed)."""
    assert (await client.get("people/undefined")).ids == (await client.get("people")).ids


async def test_unknown_is_404(client: HttpClient) -> None:
    """An unused id and an unknown path are 404 with the observed text."""
    for path in ("people/999999", "nowhere", "webhooks/77"):
        reply = await client.get(path)
        assert (reply.status, reply.json) == (404, {"errorMessage": "Requested resource was not found."})


async def test_writes(client: HttpClient, account: Account) -> None:
    """A person is created and changed over the API; an id in the body is refused, tags are replaced or merged."""
    made = await client.post("people", {"firstName": "Ilse", "lastName": "Tarnwick", "stage": "Nurture", "tags": ["A"]})
    assert made.status == 201
    person_id = made.json["id"]
    refused = await client.put(f"people/{person_id}", {"id": person_id, "stage": "Lead"})
    assert (refused.status, refused.json) == (400, {"errorMessage": "Invalid fields in the request body: id."})
    assert (await client.put(f"people/{person_id}", {"tags": ["B"]}, mergeTags="true")).json["tags"] == ["A", "B"]
    assert (await client.put(f"people/{person_id}", {"tags": ["C"]})).json["tags"] == ["C"]
    changed = await client.put(f"people/{person_id}", {"stageId": account.stage_id("ACQ - Qualified")})
    assert changed.json["stage"] == "ACQ - Qualified"
    assert [change.stage_to for change in account.truth.of(person_id)] == ["Nurture", "ACQ - Qualified"]
    assert (await client.put(f"people/{person_id}", {"stage": "Nowhere"})).status == 400


async def test_delete(client: HttpClient, account: Account) -> None:
    """A deleted person is 404 afterwards and no longer counts."""
    person_id, before = account.ids[9], len(account)
    reply = await client.delete(f"people/{person_id}")
    assert (reply.status, reply.json) == (200, {})
    assert (await client.get(f"people/{person_id}")).status == 404
    assert len(account) == before - 1


async def test_creation_and_deletion_lags(clock: SimClock) -> None:
    """With lags set, a new person is unreadable for a while, and a deleted one stays readable, until the clock has passed."""
    account = Account(seed=7, people=20, clock=clock, lags=Lags(readable=3, deleted=5))
    async with Simulator(account).running() as url, HttpClient(url) as client:
        fresh = account.create()
        old = account.ids[0]
        account.delete(old)
        assert (await client.get(f"people/{fresh}")).status == 404
        assert (await client.get("people", id=fresh)).ids == []
        assert (await client.get(f"people/{old}")).status == 200
        clock.advance(6)
        assert (await client.get(f"people/{fresh}")).status == 200
        assert (await client.get(f"people/{old}")).status == 404


async def test_inbound_event_takes_out_of_trash(client: HttpClient, account: Account, clock: SimClock) -> None:
    """A lead event moves a trashed person out of Trash eleven seconds later; the actor is no user."""
    person_id = account.ids[3]
    account.trash(person_id)
    reply = await client.post("events", {"type": "Registration", "person": {"emails": [{"value": f"person{person_id}@example.com"}]}})
    assert reply.status == 200
    clock.advance(10)
    assert account.stage_of(person_id) == "Trash"
    clock.advance(1)
    assert account.stage_of(person_id) == "Lead"
    assert list(account.truth.of(person_id))[-1].actor == "server"


async def test_text_switches(account: Account) -> None:
    """With the switches the total is a string, links hold a doubled ampersand, and the last page has no `next`."""
    behaviour = Behaviour(total_as_text=True, double_ampersand=True, next_absent_at_end=True)
    async with Simulator(account, behaviour=behaviour).running() as url, HttpClient(url) as client:
        reply = await client.get("people", limit=100, fields="id")
        assert reply.metadata["total"] == str(reply.metadata["total"])
        assert "&&next=" in reply.metadata["nextLink"]
        while "nextLink" in reply.metadata:
            reply = await client.get(reply.metadata["nextLink"])
        assert "next" not in reply.metadata


async def test_agent_sees_only_their_own(simulator: Simulator, account: Account, url: str) -> None:
    """An agent's key shows only people assigned to that agent; a reassigned person disappears."""
    simulator.keys.add("agent-key", user_id=4)
    async with HttpClient(url, key="agent-key") as agent:
        reply = await agent.get("people", limit=100, includeTrash="true", includeUnclaimed="true")
        assert reply.metadata["total"] == sum(account.person(person_id)["assignedUserId"] == 4 for person_id in account.ids)
        mine = reply.ids[0]
        account.edit(mine, assignedUserId=5)
        assert (await agent.get(f"people/{mine}")).status == 404


async def test_stages(client: HttpClient, account: Account) -> None:
    """The default of ten stages hides others; a rename keeps the id; a deletion requires a stage for its people."""
    assert len((await client.get("stages")).json["stages"]) == 10
    stages = {stage["name"]: stage for stage in (await client.get("stages", limit=100)).json["stages"]}
    assert len(stages) == 18
    assert stages["Nurture"]["peopleCount"] == sum(account.stage_of(person_id) == "Nurture" for person_id in account.ids)
    nurture = stages["Nurture"]["id"]
    assert (await client.put(f"stages/{nurture}", {"name": "Long Nurture"})).json["id"] == nurture
    assert (await client.put(f"stages/{stages['Trash']['id']}", {"name": "Bin"})).status == 400
    assert not account.truth.changes
    assert (await client.delete(f"stages/{nurture}")).status == 400
    assert (await client.delete(f"stages/{nurture}", {"assignStageId": stages["Past Client"]["id"]})).status == 200
    assert len(account.truth.changes) == stages["Nurture"]["peopleCount"]
    assert (await client.get(f"stages/{nurture}")).status == 404


async def test_identity_and_the_rest(client: HttpClient) -> None:
    """The identity is nested without an id of its own, and small collections keep their oddities."""
    identity = (await client.get("identity")).json
    assert identity.keys() == {"user", "account"}
    assert identity["account"]["owner"]["name"] == identity["user"]["name"]
    fields = (await client.get("customFields")).json
    assert fields["_metadata"]["collection"] == "customfields"
    assert fields["_metadata"]["total"] == "3"
    assert len((await client.get("users")).json["users"]) == 6
    assert (await client.get("rateLimit/limits")).status == (await client.get("rateLimit/usage")).status == 200


async def test_sort_by_name(client: HttpClient) -> None:
    """Other sorts work, and an unknown one is ignored."""
    names = [person["name"] for person in (await client.get("people", sort="name", limit=50)).json["people"]]
    assert names == sorted(names)
    assert (await client.get("people", sort="shoeSize")).ids == (await client.get("people")).ids
