"""Changes and webhooks that hit other integrations: repeated ids, other spellings, reused names, merges, rivals, foreign accounts."""

from __future__ import annotations

from datetime import datetime

import pytest

from fubd.simulator import Account, Behaviour, Merge, SimClock, Simulator, Spelling, score
from tests.simulator.conftest import NINE
from tests.simulator.http_client import HttpClient
from tests.simulator.receiver import WebhookReceiver

STAGES = {"Lead": 1, "Q&A": 1, "Überprüft": 1, "Nurture": 1, "Trash": 1}


def row(simulator: Simulator, **changes: object) -> list[dict[str, object]]:
    """Return a table with the right row of the only true change, but for what is given."""
    (change,) = simulator.truth.changes
    right = {"person_id": change.person_id, "stage_from": change.stage_from, "stage_to": change.stage_to, "changed_at": change.at}
    return [right | changes]


async def test_one_event_id_with_two_dates(simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str) -> None:
    """An event is sent again with the same id, a later eventCreated and a right signature; both dates count as reported."""
    del url
    simulator.subscribe("peopleStageUpdated", receiver.url)
    simulator.script_deliveries("redated")
    account.move(account.ids[0], "Past Client")
    await simulator.deliveries.drain()
    first, second = sorted(receiver.payloads("peopleStageUpdated"), key=lambda payload: str(payload["eventCreated"]))
    assert first["eventId"] == second["eventId"]
    assert datetime.fromisoformat(first["eventCreated"]) == NINE < datetime.fromisoformat(second["eventCreated"])
    assert all(got.is_genuine() for got in receiver.got)
    assert score(simulator.truth, row(simulator, changed_at=second["eventCreated"]), sightings=simulator.sightings).is_perfect


@pytest.mark.parametrize(
    ("spelling", "stage", "spelled"),
    [
        (Spelling.ENTITIES, "Q&A", "Q&amp;A"),
        (Spelling.BLANKS, "Nurture", " Nurture "),
        (Spelling.DECOMPOSED, "Überprüft", "U\u0308berpru\u0308ft"),
        (Spelling.UPPER_CASE, "Überprüft", "ÜBERPRÜFT"),
    ],
)
async def test_webhooks_spell_a_stage_differently(
    clock: SimClock, receiver: WebhookReceiver, spelling: Spelling, stage: str, spelled: str
) -> None:
    """The webhook spells the stage in another way than the API, and a row with either spelling is right."""
    account = Account(seed=7, people=30, clock=clock, stages=STAGES)
    simulator = Simulator(account, behaviour=Behaviour(stage_spelling=spelling))
    simulator.subscribe("peopleStageUpdated", receiver.url)
    person_id = next(one for one in account.ids if account.stage_of(one) != stage)
    async with simulator.running() as url, HttpClient(url) as client:
        account.move(person_id, stage)
        await simulator.deliveries.drain()
        assert (await client.get(f"people/{person_id}")).json["stage"] == stage
    assert receiver.payloads("peopleStageUpdated")[0]["data"] == {"stage": spelled}
    for name in (stage, spelled):
        assert score(simulator.truth, row(simulator, stage_to=name), sightings=simulator.sightings).is_perfect
    assert score(simulator.truth, row(simulator, stage_to="Trash"), sightings=simulator.sightings).invented == 1


async def test_ids_as_an_object(simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str) -> None:
    """With the switch a webhook's `resourceIds` are an object with numeric keys."""
    del url
    simulator.behaviour = Behaviour(event_ids_as_object=True)
    simulator.subscribe("peopleStageUpdated", receiver.url)
    account.bulk_move(account.ids[:2], "Past Client")
    await simulator.deliveries.drain()
    assert receiver.payloads("peopleStageUpdated")[0]["resourceIds"] == {"0": 1001, "1": 1002}


async def test_a_name_used_again(client: HttpClient, account: Account) -> None:
    """A stage's name can be used again after a rename or a deletion; the new stage has another id."""
    first = account.stage_id("Nurture")
    account.rename_stage("Nurture", "Nurture 2025")
    second = account.create_stage("Nurture")
    account.delete_stage("Nurture", "Lead")
    third = account.create_stage("Nurture")
    shown = {stage["id"]: stage["name"] for stage in (await client.get("stages", limit=100)).json["stages"]}
    assert len({first, second, third}) == 3
    assert (shown[first], shown[third]) == ("Nurture 2025", "Nurture")
    assert second not in shown


async def test_a_stage_moved_without_updated(client: HttpClient, simulator: Simulator, account: Account, clock: SimClock) -> None:
    """With the switch deleting a stage moves its people without moving `updated`, so that no incremental read finds them."""
    simulator.behaviour = Behaviour(stage_deletion_moves_updated=False)
    person_id = next(one for one in account.ids if account.stage_of(one) == "Nurture")
    before = (await client.get(f"people/{person_id}")).json
    clock.advance(60)
    moved = account.delete_stage("Nurture", "Lead")
    after = (await client.get(f"people/{person_id}")).json
    assert (before["stage"], after["stage"]) == ("Nurture", "Lead")
    assert before["updated"] == after["updated"]
    assert (await client.get("people", updatedAfter="2026-03-02T09:00:30Z", includeTrash="true")).ids == []
    assert len(account.truth.changes) == moved > 0


async def test_a_merge_trashes_the_losers(simulator: Simulator, account: Account, receiver: WebhookReceiver, client: HttpClient) -> None:
    """By default up to nine losers move to Trash, the winner keeps its stage, and a note is written; their stages are sent."""
    for name in ("peopleStageUpdated", "peopleUpdated", "notesCreated", "peopleDeleted"):
        simulator.subscribe(name, receiver.url)
    losers = [one for one in account.ids if account.stage_of(one) != "Trash"][:9]
    winner = account.ids[-1]
    stage = account.stage_of(winner)
    account.merge(losers, winner)
    await simulator.deliveries.drain()
    assert {(await client.get(f"people/{one}")).json["stage"] for one in losers} == {"Trash"}
    assert (await client.get(f"people/{winner}")).json["stage"] == stage
    assert [payload["resourceIds"] for payload in receiver.payloads("peopleStageUpdated")] == [losers]
    assert sorted(payload["resourceIds"] for payload in receiver.payloads("peopleUpdated")) == sorted([losers, [winner]])
    assert len(receiver.payloads("notesCreated")) == 1
    assert account.truth.merged == dict.fromkeys(losers, winner)
    assert [change.stage_to for change in account.truth.changes] == ["Trash"] * 9


async def test_a_merge_without_stage_webhooks(simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str) -> None:
    """With the switch the losers move to Trash without a peopleStageUpdated."""
    del url
    simulator.behaviour = Behaviour(merge_sends_stage=False)
    simulator.subscribe("peopleStageUpdated", receiver.url)
    loser = next(one for one in account.ids if account.stage_of(one) != "Trash")
    account.merge([loser], account.ids[-1])
    await simulator.deliveries.drain()
    assert receiver.got == []
    assert account.stage_of(loser) == "Trash"


@pytest.mark.parametrize("merge", [Merge.VANISHED, Merge.DELETED])
async def test_a_merge_lets_the_losers_vanish(client: HttpClient, simulator: Simulator, account: Account, merge: Merge) -> None:
    """With the switch the losing ids are 404 afterwards, and the truth knows the winner."""
    simulator.behaviour = Behaviour(merge=merge)
    loser, other, winner = account.ids[:3]
    account.merge([loser, other], winner)
    assert [(await client.get(f"people/{one}")).status for one in (loser, other, winner)] == [404, 404, 200]
    assert account.truth.merged == {loser: winner, other: winner}
    assert not account.truth.changes


def test_a_merge_needs_others_than_the_winner(account: Account) -> None:
    """No losers, the winner among them, or more than ten people in all are refused."""
    for losers in ([], [1001], list(range(1002, 1012))):
        with pytest.raises(ValueError, match="a merge takes 1 to 9 people"):
            account.merge(losers, 1001)


async def test_another_account_behind_the_key(client: HttpClient, simulator: Simulator, account: Account, clock: SimClock) -> None:
    """The same key suddenly reads another account with the same ids; what it shows counts as nothing, until the right one is back."""
    other = Account(seed=8, people=300, clock=clock)
    before = (await client.get("identity")).json["account"]["id"]
    account.move(account.ids[0], "Past Client")
    simulator.put_behind_key(other)
    assert (await client.get("identity")).json["account"]["id"] != before
    shown = (await client.get("people", includeTrash="true", includeUnclaimed="true", limit=100)).json["people"]
    assert [one["stage"] for one in shown] == [other.stage_of(one["id"]) for one in shown]
    await client.get(f"people/{account.ids[0]}")
    assert not simulator.sightings.of(account.truth.changes[0]).is_shown
    simulator.put_behind_key(None)
    assert (await client.get("identity")).json["account"]["id"] == before
    assert (await client.get(f"people/{account.ids[0]}")).json["stage"] == "Past Client"


async def test_two_deployments_of_one_system(
    client: HttpClient, simulator: Simulator, account: Account, receiver: WebhookReceiver, clock: SimClock
) -> None:
    """Another deployment points the system's webhooks at itself and keeps doing so for its rounds; ours can win them back after."""
    made = (await client.post("webhooks", {"event": "peopleStageUpdated", "url": receiver.url})).json
    rival = simulator.start_rival("https://rival.example.com/webhook/fub", every_seconds=60, rounds=3)
    for _ in range(2):
        assert (await client.get("webhooks")).json["webhooks"][0]["url"] == "https://rival.example.com/webhook/fub"
        await client.put(f"webhooks/{made['id']}", {"url": receiver.url})
        clock.advance(60)
    assert rival.corrections == 3
    await client.put(f"webhooks/{made['id']}", {"url": receiver.url})
    clock.advance(600)
    account.move(account.ids[0], "Past Client")
    await simulator.deliveries.drain()
    assert len(receiver.got) == 1
