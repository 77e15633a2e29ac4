"""Fidelity checked with the published Follow Up Boss client, which does not know this simulator."""

from __future__ import annotations

import asyncio

import pytest
from follow_up_boss.client import FollowUpBossApiClient, FollowUpBossApiException
from follow_up_boss.identity import Identity
from follow_up_boss.pagination import SmartPaginator
from follow_up_boss.people import People
from follow_up_boss.stages import Stages
from follow_up_boss.webhook_events import WebhookEvents
from follow_up_boss.webhook_utils import extract_person_id_from_payload, get_event_name
from follow_up_boss.webhooks import Webhooks

from fubd.simulator import Account, Simulator
from tests.simulator.receiver import WebhookReceiver

ENDPOINTS = {
    "people": lambda client: People(client).list_people(),
    "webhooks": lambda client: Webhooks(client).list_webhooks(),
    "identity": lambda client: Identity(client).get_identity(),
}


def foreign(url: str, key: str = "test-api-key") -> FollowUpBossApiClient:
    """Return the published client, pointed at the simulator."""
    return FollowUpBossApiClient(api_key=key, base_url=url, x_system="fubd", x_system_key="test-system-key")


async def test_lists_pages_and_reads(url: str, account: Account) -> None:
    """The published client lists people, follows the links to the end, reads one person, the identity and the stages."""

    def use() -> tuple[list[int], dict[str, object], list[str], str]:
        client = foreign(url)
        people = People(client)
        page = people.list_people({"limit": 100, "fields": "id"})
        ids = [person["id"] for person in page["people"]]
        while page["_metadata"].get("nextLink"):
            page = people.list_people_next(page["_metadata"]["nextLink"])
            ids += [person["id"] for person in page["people"]]
        one = people.retrieve_person(ids[0])
        stages = [stage["name"] for stage in Stages(client).list_stages(limit=100)["stages"]]
        return ids, one, stages, Identity(client).get_identity()["user"]["name"]

    ids, one, stages, user = await asyncio.to_thread(use)
    hidden = [person_id for person_id in account.ids if account.stage_of(person_id) == "Trash" or not account.person(person_id)["claimed"]]
    assert ids == sorted(set(account.ids) - set(hidden), reverse=True)
    assert one["id"] == ids[0]
    assert set(stages) == {stage.name for stage in account.stages}
    assert user == account.users[0].name


async def test_paginates_by_itself(url: str, account: Account) -> None:
    """The published client's own paginator finds the same people."""
    everyone = {"includeTrash": "true", "includeUnclaimed": "true"}
    found = await asyncio.to_thread(lambda: SmartPaginator(foreign(url), "people", everyone).paginate_all())
    assert {person["id"] for person in found} == set(account.ids)


async def test_writes_and_limits(url: str, account: Account) -> None:
    """The published client creates, changes and deletes a person, and reads the rate limit from the headers."""

    def use() -> tuple[int, int, dict[str, int] | None]:
        client = foreign(url)
        people = People(client)
        made = people.create_person({"firstName": "Ilse", "stage": "Lead"})
        people.update_person(made["id"], {"stage": "Nurture"})
        people.add_tags(made["id"], ["Found"])
        limit = client.get_last_rate_limit()
        people.delete_person(made["id"])
        with pytest.raises(FollowUpBossApiException) as caught:
            people.retrieve_person(made["id"])
        return made["id"], caught.value.status_code, limit

    person_id, status, limit = await asyncio.to_thread(use)
    assert status == 404
    assert limit is not None
    assert limit["limit"] == 25
    assert [change.stage_to for change in account.truth.of(person_id)] == ["Lead", "Nurture"]


async def test_manages_webhooks(url: str, simulator: Simulator, account: Account, receiver: WebhookReceiver) -> None:
    """The published client registers a webhook, understands its delivery, fetches the event again and deletes the webhook."""

    def register() -> int:
        hooks = Webhooks(foreign(url))
        made = hooks.create_webhook(receiver.url, ["peopleStageUpdated"])
        assert [hook["id"] for hook in hooks.list_webhooks()["webhooks"]] == [made["id"]]
        assert hooks.retrieve_webhook(made["id"])["status"] == "Active"
        return int(made["id"])

    hook_id = await asyncio.to_thread(register)
    account.move(account.ids[2], "Past Client")
    await simulator.deliveries.drain()
    payload = receiver.got[0].payload

    def understand() -> tuple[int | None, str, object]:
        client = foreign(url)
        event = WebhookEvents(client).retrieve_webhook_event(payload["eventId"])
        Webhooks(client).delete_webhook(hook_id)
        return extract_person_id_from_payload(payload, client), get_event_name(payload), event["id"]

    assert await asyncio.to_thread(understand) == (account.ids[2], "peopleStageUpdated", payload["eventId"])
    assert simulator.registry.all() == []


async def test_errors_are_understood(url: str, simulator: Simulator) -> None:
    """The published client sees 401, 403, 429 and 500 as what they are."""
    simulator.keys.add("admin-key", "admin")
    simulator.script("identity", "server_error", "throttled")

    def statuses() -> list[int | None]:
        found = []
        for key, endpoint in (("wrong", "people"), ("admin-key", "webhooks"), ("test-api-key", "identity"), ("test-api-key", "identity")):
            with pytest.raises(FollowUpBossApiException) as caught:
                ENDPOINTS[endpoint](foreign(url, key))
            found.append(caught.value.status_code)
        return found

    assert await asyncio.to_thread(statuses) == [401, 403, 500, 429]
