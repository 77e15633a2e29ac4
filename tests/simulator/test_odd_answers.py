"""Answers that hit other integrations: malformed people, pages that lie about themselves, and answers of others than FUB."""

from __future__ import annotations

from datetime import timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from fubd.simulator import Account, Arrays, Behaviour, Faults, Oddity, SimClock, Simulator
from tests.simulator.conftest import NINE
from tests.simulator.http_client import HttpClient

EVERYONE: dict[str, str | int] = {"includeTrash": "true", "includeUnclaimed": "true", "limit": 100}


async def test_instants_without_a_zone(client: HttpClient, simulator: Simulator, account: Account) -> None:
    """With the switch the instants of people lack their `Z`, on lists and alone."""
    simulator.behaviour = Behaviour(instants_without_zone=True)
    person = (await client.get(f"people/{account.ids[0]}")).json
    assert all(len(person[key]) == len("2026-03-02T09:00:00") for key in ("created", "updated", "lastActivity"))
    assert not any(one["updated"].endswith("Z") for one in (await client.get("people")).json["people"])


@pytest.mark.parametrize("oddity", list(Oddity))
async def test_a_person_malformed_in_every_answer(client: HttpClient, simulator: Simulator, account: Account, oddity: Oddity) -> None:
    """One person is malformed wherever they are shown, the others are right, and nothing of that person counts as shown."""
    odd, *_ = ids = account.ids[:3]
    account.bulk_move(ids, "Past Client")
    simulator.conditions.oddities[odd] = oddity
    shown = (await client.get("people", id=",".join(map(str, ids)), fields="id,stage,updated", **EVERYONE)).json["people"]
    alone = (await client.get(f"people/{odd}", fields="id,stage,updated")).json
    assert [one["id"] for one in shown[:2]] == [ids[2], ids[1]]
    assert shown[2] == alone
    expected = {
        Oddity.NULL_STAGE: {"id": odd, "stage": None, "stageId": None, "updated": "2026-03-02T09:00:00Z"},
        Oddity.NULL_ELEMENT: None,
        Oddity.NO_ID: {"stage": "Past Client", "updated": "2026-03-02T09:00:00Z"},
        Oddity.ZERO_DATE: {"id": odd, "stage": "Past Client", "updated": "0000-00-00T00:00:00Z"},
    }
    assert alone == expected[oddity]
    unseen = [change.person_id for change in account.truth.changes if not simulator.sightings.of(change).is_shown]
    assert unseen == [odd]


async def test_one_odd_person_at_random(client: HttpClient, simulator: Simulator) -> None:
    """With the fault one person of a page is malformed, in different ways, and the others are right."""
    simulator.faults = Faults(odd_person=1.0)
    pages = [(await client.get("people", fields="id,stage,updated")).json["people"] for _ in range(30)]
    right = [[one for one in page if one and one.get("stage") and one.get("id") and one["updated"] > "2"] for page in pages]
    assert {len(page) for page in right} == {9}
    assert None in {page[5] if page[5] is None else "" for page in pages}


async def test_arrays_as_objects(client: HttpClient, simulator: Simulator, account: Account) -> None:
    """With the switch every array is an object with numeric keys, as PHP writes arrays with gaps; empty ones stay lists."""
    simulator.behaviour = Behaviour(arrays=Arrays.OBJECTS)
    account.edit(account.ids[-1], tags=["A", "B"])
    page = (await client.get("people", sort="-updated", limit=2, includeTrash="true", includeUnclaimed="true")).json
    assert list(page["people"]) == ["0", "1"]
    assert page["people"]["0"]["tags"] == {"0": "A", "1": "B"}
    assert page["people"]["0"]["addresses"] == []
    assert list((await client.get("stages", limit=2)).json["stages"]) == ["0", "1"]


async def test_null_arrays(client: HttpClient, simulator: Simulator, account: Account) -> None:
    """With the switch an empty array is null."""
    simulator.behaviour = Behaviour(arrays=Arrays.NULL_WHEN_EMPTY)
    person = (await client.get(f"people/{account.ids[0]}")).json
    assert person["addresses"] is None
    assert len(person["emails"]) == 1
    assert (await client.get("people", id=1)).json["people"] is None


async def test_a_total_of_the_page(client: HttpClient, simulator: Simulator) -> None:
    """With the switch `total` counts the people on the page, although more follow."""
    simulator.behaviour = Behaviour(total_counts_page=True)
    metadata = (await client.get("people", limit=7)).metadata
    assert metadata["total"] == 7
    assert metadata["nextLink"]


async def test_smaller_pages_than_asked_for(client: HttpClient, simulator: Simulator, account: Account) -> None:
    """With the switch a page has fewer people than asked for, says so, and the links still lead to everyone once."""
    simulator.behaviour = Behaviour(page_limit=37)
    reply = await client.get("people", **EVERYONE)
    ids = reply.ids
    assert (len(ids), reply.metadata["limit"]) == (37, 37)
    while reply.metadata["nextLink"]:
        reply = await client.get(reply.metadata["nextLink"])
        ids += reply.ids
    assert ids == list(reversed(account.ids))


async def test_next_is_refused(client: HttpClient, simulator: Simulator) -> None:
    """With the switch a page has a cursor, and using it is 400."""
    simulator.behaviour = Behaviour(next_refused=True)
    link = (await client.get("people")).metadata["nextLink"]
    assert (await client.get(link)).status == 400
    assert (await client.get("people", idLessThan=1200)).status == 200


async def test_one_field_is_refused(client: HttpClient, simulator: Simulator, account: Account) -> None:
    """With the switch asking for one custom field is 400, on lists and alone; asking for others is not."""
    simulator.behaviour = Behaviour(refused_field="customCampaignID")
    for path in ("people", f"people/{account.ids[0]}"):
        refused = await client.get(path, fields="id,customCampaignID")
        assert (refused.status, refused.json) == (400, {"errorMessage": "Invalid fields: customCampaignID."})
        assert (await client.get(path, fields="id,customPropertyState")).status == 200


async def test_one_parameter_is_refused(client: HttpClient, simulator: Simulator) -> None:
    """With the switch a list with this parameter is 400, any other is not."""
    simulator.behaviour = Behaviour(refused_parameter="sort")
    refused = await client.get("people", sort="-updated")
    assert (refused.status, refused.json) == (400, {"errorMessage": "Invalid parameter: sort."})
    assert (await client.get("people", limit=1)).status == 200


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body"),
    [
        ("error_in_200", 200, "application/json", '{"errorMessage": "An unexpected error occurred."}'),
        ("waf", 403, "text/html", "Request blocked"),
        ("expired", 403, "application/json", '{"errorMessage": "Your Follow Up Boss subscription has expired."}'),
        ("gateway_not_found", 404, "application/json", '{"message":"no Route matched with those values"}'),
        ("bad_request", 400, "application/json", '{"errorMessage": "Invalid request."}'),
        ("no_content", 204, "application/octet-stream", ""),
    ],
)
async def test_answers_that_do_not_come_from_the_api(
    url: str, simulator: Simulator, fault: str, status: int, content_type: str, body: str
) -> None:
    """A fault answers instead of the API, whatever was asked for, and nothing is changed by the request."""
    simulator.script("*", fault, fault)
    headers = {"Authorization": aiohttp.encode_basic_auth("test-api-key", "")}
    async with aiohttp.ClientSession(headers=headers) as session:
        for method in ("GET", "POST"):
            async with session.request(method, f"{url}/people") as response:
                assert (response.status, response.content_type) == (status, content_type)
                assert body in await response.text()
    assert not simulator.truth.changes


async def test_an_expired_account(client: HttpClient, simulator: Simulator) -> None:
    """With the switch every request is 403 in FUB's words until the account is paid for again."""
    simulator.behaviour = Behaviour(account_expired=True)
    for path in ("people", "identity", "webhooks"):
        refused = await client.get(path)
        assert (refused.status, refused.json) == (403, {"errorMessage": "Your Follow Up Boss subscription has expired."})
    simulator.behaviour = Behaviour()
    assert (await client.get("people")).status == 200


@pytest.mark.parametrize(("fault", "shift"), [("date_ahead", timedelta(hours=1)), ("date_old", timedelta(days=-3))])
async def test_a_wrong_date(client: HttpClient, simulator: Simulator, account: Account, fault: str, shift: timedelta) -> None:
    """One right answer has a Date an hour ahead or days old, the next one the right Date."""
    simulator.script("people", fault)
    wrong, right = await client.get("people"), await client.get("people")
    assert parsedate_to_datetime(wrong.headers["Date"]) == NINE + shift
    assert parsedate_to_datetime(right.headers["Date"]) == NINE
    assert wrong.ids == right.ids != []
    assert account.clock.now() == NINE


async def test_behaviour_changes_while_serving(account: Account, clock: SimClock) -> None:
    """A switch thrown during the run holds from the next request on."""
    del clock
    simulator = Simulator(account)
    async with simulator.running() as url, HttpClient(url) as client:
        assert (await client.get("people", limit=50)).metadata["limit"] == 50
        simulator.behaviour = Behaviour(page_limit=20)
        assert (await client.get("people", limit=50)).metadata["limit"] == 20
