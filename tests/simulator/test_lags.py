"""Follow Up Boss has two clocks and several copies of its data: events, replicas, indexes and registries that trail."""

from __future__ import annotations

from datetime import datetime, timedelta

from fubd.simulator import Account, Behaviour, SimClock, Simulator, score
from tests.simulator.http_client import HttpClient
from tests.simulator.receiver import WebhookReceiver


async def test_events_trail_the_change_in_order(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """`eventCreated` is up to three seconds behind `updated`; events are sent then, in the order of the changes."""
    del url
    simulator.behaviour = Behaviour(event_lag_seconds=3.0)
    simulator.subscribe("peopleStageUpdated", receiver.url)
    for stage in ("Nurture", "Past Client", "Nurture", "Past Client"):
        account.move(account.ids[0], stage)
        clock.advance(0.5)
    assert simulator.deliveries.pending > 0
    await clock.run_for(10, simulator.deliveries.drain)
    assert [payload["data"]["stage"] for payload in receiver.payloads("peopleStageUpdated")] == ["Nurture", "Past Client"] * 2
    created = [datetime.fromisoformat(payload["eventCreated"]) for payload in receiver.payloads("peopleStageUpdated")]
    lags = [at - change.at for at, change in zip(created, account.truth.changes, strict=True)]
    assert created == sorted(created)
    assert timedelta(seconds=1) < max(lags) <= timedelta(seconds=3)
    assert simulator.deliveries.pending == 0


async def test_a_row_dated_by_a_trailing_event_is_right(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """A row may be dated by the change itself or by its event; another second is wrong, and one row per change is enough."""
    del url
    simulator.behaviour = Behaviour(event_lag_seconds=3.0)
    simulator.subscribe("peopleStageUpdated", receiver.url)
    account.move(account.ids[0], "Nurture")
    await clock.run_for(10, simulator.deliveries.drain)
    (change,) = account.truth.changes
    (payload,) = receiver.payloads("peopleStageUpdated")
    row = {"person_id": change.person_id, "stage_from": change.stage_from, "stage_to": "Nurture", "changed_at": payload["eventCreated"]}
    right, by_change = (score(simulator.truth, [one], sightings=simulator.sightings) for one in (row, row | {"changed_at": change.at}))
    wrong = score(simulator.truth, [row | {"changed_at": change.at + timedelta(seconds=20)}], sightings=simulator.sightings)
    assert right.is_perfect
    assert by_change.is_perfect
    assert wrong.wrong_time == 1


async def test_reads_come_from_a_replica_that_trails(client: HttpClient, simulator: Simulator, account: Account, clock: SimClock) -> None:
    """For up to three seconds a read may show a person before a move, an edit, a creation or a deletion; then it shows them all."""
    moved, edited, deleted = account.ids[10:13]
    before = account.stage_of(moved)
    clock.advance(100)
    simulator.behaviour = Behaviour(replica_lag_seconds=3.0)
    account.move(moved, "Past Client")
    account.edit(edited, firstName="Ilse")
    account.delete(deleted)
    fresh = account.create()
    clock.advance(1.5)
    stages = {(await client.get(f"people/{moved}")).json["stage"] for _ in range(30)}
    names = {(await client.get(f"people/{edited}")).json["firstName"] for _ in range(30)}
    lists = {tuple((await client.get("people", id=f"{deleted},{fresh}", includeTrash="true")).ids) for _ in range(30)}
    assert stages == {before, "Past Client"}
    assert len(names) == 2
    assert lists == {(fresh,), (deleted,)}
    clock.advance(1.5)
    assert {(await client.get(f"people/{moved}")).json["stage"] for _ in range(10)} == {"Past Client"}
    assert account.stage_of(moved) == "Past Client"


async def test_a_trailing_read_shows_no_newer_change(client: HttpClient, simulator: Simulator, account: Account, clock: SimClock) -> None:
    """A change counts as shown only by a read that contains it."""
    person_id = account.ids[10]
    clock.advance(100)
    account.move(person_id, "Past Client" if account.stage_of(person_id) != "Past Client" else "Nurture")
    clock.advance(1)
    simulator.behaviour = Behaviour(list_lag_seconds=120.0)
    await client.get("people", idGreaterThan=person_id - 1, idLessThan=person_id + 1, includeTrash="true", includeUnclaimed="true")
    assert not simulator.sightings.of(account.truth.changes[0]).is_shown
    clock.advance(120)
    await client.get("people", idGreaterThan=person_id - 1, idLessThan=person_id + 1, includeTrash="true", includeUnclaimed="true")
    assert simulator.sightings.of(account.truth.changes[0]).is_shown


async def test_the_index_behind_the_lists_trails(client: HttpClient, simulator: Simulator, account: Account, clock: SimClock) -> None:
    """A list may miss a change for up to two minutes and never goes back behind what it showed; a read by id shows it at once."""
    person_id = account.ids[10]
    clock.advance(200)
    simulator.behaviour = Behaviour(list_lag_seconds=120.0)
    account.edit(person_id, price=1)
    since = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (await client.get(f"people/{person_id}")).json["price"] == 1
    assert (await client.get("people", id=person_id, includeTrash="true", includeUnclaimed="true")).json["people"][0]["price"] == 1
    seen = []
    for _ in range(40):
        clock.advance(4)
        listed = await client.get("people", sort="-updated", limit=1, includeTrash="true", includeUnclaimed="true")
        seen.append(listed.json["people"][0]["updated"] >= since)
    assert seen == sorted(seen)
    assert set(seen) == {False, True}
    assert all(seen[30:])


async def test_the_list_of_webhooks_trails(client: HttpClient, simulator: Simulator, receiver: WebhookReceiver, clock: SimClock) -> None:
    """A webhook is listed some seconds after its creation and still after its deletion, but is read by its id at once."""
    simulator.behaviour = Behaviour(registry_lag_seconds=5.0)
    made = (await client.post("webhooks", {"event": "peopleStageUpdated", "url": receiver.url})).json
    assert (await client.get("webhooks")).json["webhooks"] == []
    assert (await client.get(f"webhooks/{made['id']}")).json == made
    clock.advance(5)
    assert (await client.get("webhooks")).json["webhooks"] == [made]
    await client.delete(f"webhooks/{made['id']}")
    assert (await client.get("webhooks")).json["webhooks"] == [made]
    clock.advance(5)
    assert (await client.get("webhooks")).json["webhooks"] == []
