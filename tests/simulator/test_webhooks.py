from __future__ import annotations

import json

import pytest

from fubd.simulator import Account, Behaviour, DeliveryFault, Faults, Merge, SimClock, Simulator, encode, sign
from fubd.simulator.deliveries import LONG_RETRY_SECONDS, RETRY_SECONDS
from fubd.simulator.registry import DISABLED, ApiError
from tests.simulator.conftest import NINE
from tests.simulator.http_client import HttpClient
from tests.simulator.receiver import WebhookReceiver

DOCUMENTED = {
    "eventId": "e0ac086a-879a-4d8b-869a-fe53151e34f4",
    "eventCreated": "2019-07-01T17:12:32+00:00",
    "event": "peopleStageUpdated",
    "resourceIds": [40942],
    "uri": "https://api.followupboss.com/v1/people?id=40942",
    "data": {"stage": "Free Trial"},
}


def test_signature_vectors() -> None:
    """The documented example body has the signatures that independent clients compute, with PHP escapes or plain."""
    assert sign(b"abc", "k") == "808192444828def5a2dd68a30f99093bcfece97532fe688e527b27c36376d848"
    assert sign(encode(DOCUMENTED), "test-system-key") == "ad695fd8559c745c512b3086a4bd9990f1ba19fb4fd32939fef9a60444d8ee9c"
    assert sign(encode(DOCUMENTED, php=False), "test-system-key") == "1e4141eb7517aa4582f749272d29a30c7d678fac4760edbb15dbe40137f6f0d9"
    assert encode({"a": "Zoë/x"}) == b'{"a":"Zo\\u00eb\\/x"}'
    assert encode({"a": "Zoë/x"}, php=False) == '{"a":"Zoë/x"}'.encode()


async def test_registry_over_http(client: HttpClient, receiver: WebhookReceiver) -> None:
    """A webhook is created with 201, read, listed, changed and deleted; missing or unknown values are 400, unknown ids 404."""
    made = await client.post("webhooks", {"event": "peopleStageUpdated", "url": receiver.url})
    assert (made.status, made.json) == (201, {"id": 1, "status": "Active", "event": "peopleStageUpdated", "url": receiver.url})
    assert (await client.get("webhooks/1")).json == made.json
    assert (await client.put("webhooks/1", {"status": "Disabled"})).json["status"] == "Disabled"
    assert (await client.get("webhooks", status="Active")).json["webhooks"] == []
    assert (await client.get("webhooks", event="peopleStageUpdated")).metadata["total"] == 1
    for body in ({"event": "peopleStageUpdated"}, {"event": "peopleJumped", "url": receiver.url}, {"url": receiver.url}):
        assert (await client.post("webhooks", body)).status == 400
    assert (await client.put("webhooks/1", {"status": "Asleep"})).status == 400
    assert (await client.delete("webhooks/1")).status == 200
    assert (await client.get("webhooks/1")).status == 404
    assert (await client.get("webhooks/one")).status == 404


async def test_two_per_event_and_system(simulator: Simulator, receiver: WebhookReceiver, url: str) -> None:
    """A system cannot have a third webhook of one event; another system has its own slots and sees only its own webhooks."""
    simulator.keys.register("other", "other-key")
    simulator.subscribe("peopleCreated", receiver.url)
    simulator.subscribe("peopleCreated", receiver.url)
    async with HttpClient(url) as ours, HttpClient(url, system_key="other-key") as other:
        assert (await ours.post("webhooks", {"event": "peopleCreated", "url": receiver.url})).status == 400
        assert (await other.post("webhooks", {"event": "peopleCreated", "url": receiver.url})).status == 201
        assert [webhook["id"] for webhook in (await ours.get("webhooks")).json["webhooks"]] == [1, 2]
        assert (await other.get("webhooks/1")).status == 404


@pytest.mark.parametrize("url", ["http://example.com/hook", "ftp://127.0.0.1/hook", "hook", "http://10.0.0.1/hook"])
def test_https_only(simulator: Simulator, url: str) -> None:
    """A callback must be https; plain http is accepted only on loopback, and with the switch off not even there."""
    with pytest.raises(ApiError):
        simulator.subscribe("peopleCreated", url)
    simulator.subscribe("peopleCreated", "https://example.com/hook")
    simulator.subscribe("peopleCreated", "http://[::1]:80/hook")


def test_no_loopback_http(account: Account) -> None:
    """With the switch off, plain http is refused on loopback too."""
    with pytest.raises(ApiError):
        Simulator(account, behaviour=Behaviour(loopback_http=False)).subscribe("peopleCreated", "http://localhost/hook")


async def test_a_stage_change_sends_two_events(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """A move sends peopleStageUpdated with only the new stage's name, and peopleUpdated; each has its own eventId and signature."""
    for event in ("peopleStageUpdated", "peopleUpdated"):
        simulator.subscribe(event, receiver.url)
    clock.advance(0.9)
    account.move(account.ids[0], "ACQ - Offers Made")
    await simulator.deliveries.drain()
    payload = {got.payload["event"]: got.payload for got in receiver.got}
    stage, updated = payload["peopleStageUpdated"], payload["peopleUpdated"]
    assert stage.pop("eventId") != updated.pop("eventId")
    common = {"eventCreated": "2026-03-02T09:00:00+00:00", "resourceIds": [1001], "uri": f"{url}/people?id=1001"}
    assert stage == common | {"event": "peopleStageUpdated", "data": {"stage": "ACQ - Offers Made"}}
    assert updated == common | {"event": "peopleUpdated"}
    assert all(got.is_genuine() and b"\\/" in got.body for got in receiver.got)
    assert not account.move(1001, "ACQ - Offers Made")


async def test_events_of_other_changes(simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str) -> None:
    """Creation, lead flow, edit, tags, deletion, merge, note and rename send the documented events; a rename moves no person."""
    del url
    names = ("peopleCreated", "peopleUpdated", "peopleDeleted", "peopleTagsCreated", "peopleStageUpdated", "stageUpdated", "notesCreated")
    for name in names:
        simulator.subscribe(name, receiver.url)

    async def delivered_events() -> list[str]:
        await simulator.deliveries.drain()
        events = sorted(got.payload["event"] for got in receiver.got)
        receiver.got.clear()
        return events

    fresh = account.create()
    assert await delivered_events() == ["peopleCreated"]
    account.create(via="lead_flow")
    assert await delivered_events() == ["peopleCreated", "peopleUpdated"]
    account.edit(fresh, tags=["New", "Old"])
    await simulator.deliveries.drain()
    assert receiver.payloads("peopleTagsCreated")[0]["data"] == {"tags": ["New", "Old"]}
    assert await delivered_events() == ["peopleTagsCreated", "peopleUpdated"]
    account.note(fresh)
    assert await delivered_events() == ["notesCreated"]
    account.rename_stage("Nurture", "Long Nurture")
    assert await delivered_events() == ["stageUpdated"]
    account.delete(fresh)
    await simulator.deliveries.drain()
    gone = receiver.payloads("peopleDeleted")[0]
    assert (gone["uri"], gone["resourceIds"]) == (None, [fresh])
    assert await delivered_events() == ["peopleDeleted"]
    account.merge(account.ids[:1], account.ids[1])
    assert await delivered_events() == ["notesCreated", "peopleStageUpdated", "peopleUpdated", "peopleUpdated"]


async def test_switches_of_events(account: Account, receiver: WebhookReceiver) -> None:
    """With the switches a creation sends its stage, a merge deletes the loser, bodies are plain and stage deletions send no stages."""
    behaviour = Behaviour(creation_sends_stage=True, merge=Merge.DELETED, php_json=False, stage_deletion_sends_stage=False)
    simulator = Simulator(account, behaviour=behaviour)
    for name in ("peopleStageUpdated", "peopleDeleted"):
        simulator.subscribe(name, receiver.url)
    async with simulator.running():
        account.create(stage="Nurture")
        account.merge(account.ids[:1], account.ids[1])
        account.delete_stage("Past Client", "Lead")
        await simulator.deliveries.drain()
    assert [payload["data"]["stage"] for payload in receiver.payloads("peopleStageUpdated")] == ["Nurture"]
    assert [payload["resourceIds"] for payload in receiver.payloads("peopleDeleted")] == [[1001]]
    assert all(b"\\/" not in got.body and got.is_genuine() for got in receiver.got)


async def test_bulk_in_one_event_or_split(account: Account, receiver: WebhookReceiver) -> None:
    """A bulk change is one event with all its ids, or with the switches several, with separate eventIds or a shared one."""
    ids = account.ids[:250]
    for behaviour, sizes, event_ids in (
        (Behaviour(), [250], 1),
        (Behaviour(ids_per_event=100), [100, 100, 50], 3),
        (Behaviour(ids_per_event=100, split_shares_event_id=True), [100, 100, 50], 1),
    ):
        simulator = Simulator(Account(seed=7, people=300, clock=account.clock), behaviour=behaviour)
        simulator.subscribe("peopleStageUpdated", receiver.url)
        async with simulator.running():
            moved = simulator.account.bulk_move(ids, "ACQ - Contract Sent")
            await simulator.deliveries.drain()
        payload = sorted((got.payload for got in receiver.got), key=lambda payload: -len(payload["resourceIds"]))
        assert sum(len(payload["resourceIds"]) for payload in payload) == moved
        assert [len(payload["resourceIds"]) for payload in payload][:-1] == sizes[:-1]
        assert len({payload["eventId"] for payload in payload}) == event_ids
        receiver.got.clear()


async def test_retries_keep_the_documented_schedule(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """A failing receiver gets six attempts, after 60, 300, 300, 600 and 1800 seconds, with the same bytes; then FUB gives up."""
    del url
    simulator.subscribe("peopleStageUpdated", receiver.url)
    receiver.always = 500
    account.move(account.ids[0], "Nurture")
    await simulator.deliveries.drain()
    await clock.run_for(4 * 3600, simulator.deliveries.drain)
    waits = [(attempt.at - NINE).total_seconds() for attempt in simulator.deliveries.attempts if attempt.outcome == "failed"]
    assert waits == [0, 60, 360, 660, 1260, 3060]
    assert sum(RETRY_SECONDS) == 3060
    assert len({got.body for got in receiver.got}) == 1
    assert simulator.deliveries.outcomes["given up"] == 1
    assert simulator.deliveries.pending == 0


async def test_long_retries(account: Account, receiver: WebhookReceiver, clock: SimClock) -> None:
    """With the switch retries continue for eight hours, which the guide also states."""
    simulator = Simulator(account, behaviour=Behaviour(long_retries=True))
    simulator.subscribe("peopleStageUpdated", receiver.url)
    receiver.always = 500
    async with simulator.running():
        account.move(account.ids[0], "Nurture")
        await simulator.deliveries.drain()
        await clock.run_for(9 * 3600, simulator.deliveries.drain)
    assert len(receiver.got) == 1 + len(LONG_RETRY_SECONDS)
    assert 7 * 3600 < sum(LONG_RETRY_SECONDS) <= 8 * 3600


async def test_an_acknowledged_retry_is_the_last(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """A redirect is a failure and is not followed; the acknowledged retry is the last, with the old stage and eventId."""
    del url
    simulator.subscribe("peopleStageUpdated", receiver.url)
    receiver.statuses.extend([302, 503])
    account.move(account.ids[0], "Nurture")
    await simulator.deliveries.drain()
    account.move(account.ids[0], "Lead")
    await clock.run_for(7200, simulator.deliveries.drain)
    stages = [payload["data"]["stage"] for payload in receiver.payloads("peopleStageUpdated")]
    assert stages == ["Nurture", "Lead", "Nurture", "Lead"]
    assert len({got.payload["eventId"] for got in receiver.got}) == 2
    sightings = [simulator.sightings.of(change) for change in account.truth.changes]
    assert all(sighting.delivered_at == NINE and sighting.acknowledged_at is not None for sighting in sightings)


@pytest.mark.parametrize("status", [406, 410])
async def test_406_and_410_delete_the_webhook(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, client: HttpClient, status: int
) -> None:
    """Answering 406 or 410 deletes the webhook."""
    simulator.subscribe("peopleStageUpdated", receiver.url)
    receiver.always = status
    account.move(account.ids[0], "Nurture")
    await simulator.deliveries.drain()
    assert (await client.get("webhooks")).json["webhooks"] == []
    account.move(account.ids[0], "Lead")
    await simulator.deliveries.drain()
    assert len(receiver.got) == 1


async def test_a_dead_receiver_is_retried(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """An unreachable receiver is a failure like any other, and nothing was shown."""
    del url
    simulator.subscribe("peopleStageUpdated", receiver.url)
    await receiver.stop()
    account.move(account.ids[0], "Nurture")
    await simulator.deliveries.drain()
    await clock.run_for(60, simulator.deliveries.drain)
    assert simulator.deliveries.outcomes["failed"] == 2
    assert not simulator.sightings.of(account.truth.changes[0]).is_shown


async def test_a_slow_receiver_fails(account: Account, clock: SimClock) -> None:
    """A receiver that does not answer in time has failed; the timeout is in real seconds."""
    del clock
    simulator = Simulator(account, behaviour=Behaviour(delivery_timeout_real_seconds=0.05))
    other = Simulator(Account(seed=1, people=1, clock=account.clock))
    async with simulator.running(), other.running() as slow:
        other.script("*", "hang")
        simulator.subscribe("peopleStageUpdated", f"{slow}/events")
        account.move(account.ids[0], "Nurture")
        await simulator.deliveries.drain()
    assert [attempt.status for attempt in simulator.deliveries.attempts] == [None]


async def test_failing_for_too_long_disables_the_webhook(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """More than half failing over 48 hours without recovery within a week disables the webhook; reactivation replays nothing."""
    del url
    webhook = simulator.subscribe("peopleStageUpdated", receiver.url)
    receiver.always = 500
    stages = ["Nurture", "Lead"]
    for hour in range(9 * 24 + 2):
        account.move(account.ids[0], stages[hour % 2])
        await simulator.deliveries.drain()
        if hour == 9 * 24 - 2:
            assert webhook.status == "Active"
            assert webhook.failure_ratio(clock.timestamp()) == 1.0
        clock.advance(3600)
    assert webhook.status == DISABLED
    receiver.got.clear()
    receiver.always = 200
    account.move(account.ids[0], "Past Client")
    simulator.registry.update(webhook, status="Active")
    await clock.run_for(8 * 3600, simulator.deliveries.drain)
    assert receiver.got == []
    account.move(account.ids[0], "Nurture")
    await simulator.deliveries.drain()
    assert len(receiver.got) == 1


async def test_recovery_keeps_the_webhook(
    simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock
) -> None:
    """A webhook that fails for three days and then recovers stays active."""
    del url
    webhook = simulator.subscribe("peopleStageUpdated", receiver.url)
    for hour in range(14 * 24):
        receiver.always = 500 if hour < 72 else 200
        if hour % 4 == 0:
            account.move(account.ids[0], ["Nurture", "Lead"][hour // 4 % 2])
            await simulator.deliveries.drain()
        clock.advance(3600)
    assert webhook.status == "Active"
    assert webhook.failing_since is None


async def test_killed_webhooks_are_lost(simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str) -> None:
    """Killed webhooks are lost without an error; after reviving, new ones are sent."""
    del url
    simulator.subscribe("peopleStageUpdated", receiver.url)
    simulator.deliveries.kill()
    account.move(account.ids[0], "Nurture")
    simulator.deliveries.revive()
    account.move(account.ids[0], "Lead")
    await simulator.deliveries.drain()
    assert [payload["data"]["stage"] for payload in receiver.payloads("peopleStageUpdated")] == ["Lead"]
    assert [simulator.sightings.of(change).is_shown for change in account.truth.changes] == [False, True]


async def test_stopped_and_started_again(simulator: Simulator, account: Account, receiver: WebhookReceiver) -> None:
    """Events during a stop of the service are sent after the restart; the registry and the account are unchanged."""
    base = await simulator.start()
    simulator.subscribe("peopleStageUpdated", receiver.url)
    await simulator.stop()
    account.move(account.ids[0], "Past Client")
    again = await simulator.start(port=int(base.rsplit(":", 1)[1].removesuffix("/v1")))
    await simulator.deliveries.drain()
    await simulator.stop()
    assert again == base
    assert [payload["resourceIds"] for payload in receiver.payloads("peopleStageUpdated")] == [[account.ids[0]]]


async def test_scripted_delivery_faults(simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str) -> None:
    """Scripted deliveries are duplicated, overtaken, forged, unsigned or lost; a forged one shows nothing."""
    del url
    simulator.subscribe("peopleStageUpdated", receiver.url)
    names = ["Nurture", "Lead", "Past Client", "ACQ - Qualified", "ACQ - Closed Won", "ACQ - New Lead"]
    simulator.script_deliveries("duplicate", "out_of_order", None, "forged", "unsigned", DeliveryFault.LOST)
    for name in names:
        assert account.move(account.ids[0], name) or name == account.stage_of(account.ids[0])
    await simulator.deliveries.drain()
    stages = [(webhook.payload["data"]["stage"], webhook.is_genuine()) for webhook in receiver.got]
    assert stages[-1] == (names[1], True)
    assert sorted(stages[:-1]) == sorted([(names[0], True), (names[0], True), (names[2], True), (names[3], False), (names[4], False)])
    assert [simulator.sightings.of(change).is_shown for change in account.truth.changes] == [True, True, True, False, False, False]


async def test_late_and_stalled(simulator: Simulator, account: Account, receiver: WebhookReceiver, url: str, clock: SimClock) -> None:
    """A late delivery comes within its range, older than the person's stage by then; stalled and held ones come when released."""
    del url
    simulator.subscribe("peopleStageUpdated", receiver.url)
    simulator.faults = Faults(late_seconds=(100.0, 200.0))
    simulator.script_deliveries("late", None, "stalled")
    for name in ("Nurture", "Past Client", "Lead"):
        account.move(account.ids[0], name)
    await clock.run_for(99, simulator.deliveries.drain)
    assert [payload["data"]["stage"] for payload in receiver.payloads("peopleStageUpdated")] == ["Past Client"]
    await clock.run_for(101, simulator.deliveries.drain)
    assert [payload["data"]["stage"] for payload in receiver.payloads("peopleStageUpdated")] == ["Past Client", "Nurture"]
    simulator.deliveries.hold()
    account.move(account.ids[0], "ACQ - Qualified")
    await simulator.deliveries.drain()
    assert len(receiver.got) == 2
    simulator.deliveries.release()
    await simulator.deliveries.drain_all()
    assert sorted(payload["data"]["stage"] for payload in receiver.payloads("peopleStageUpdated")[2:]) == ["ACQ - Qualified", "Lead"]


async def test_random_faults_depend_on_the_seed(receiver: WebhookReceiver) -> None:
    """The same seed loses the same deliveries; another seed loses others."""

    async def delivered_ids(seed: int) -> list[int]:
        account = Account(seed=seed, people=100, clock=SimClock(NINE, speed=0.0))
        simulator = Simulator(account, faults=Faults(lost=0.5))
        simulator.subscribe("peopleUpdated", receiver.url)
        async with simulator.running():
            for person_id in account.ids[:40]:
                account.edit(person_id, price=1)
            await simulator.deliveries.drain()
        ids = sorted(got.payload["resourceIds"][0] for got in receiver.got)
        receiver.got.clear()
        return ids

    first = await delivered_ids(3)
    assert 5 < len(first) < 35
    assert await delivered_ids(3) == first
    assert await delivered_ids(4) != first


async def test_webhook_events(account: Account, receiver: WebhookReceiver) -> None:
    """A past event is read by its eventId, called `id`, with `data` only by the switch; unknown ones are 404; there is no list."""
    for kept in (False, True):
        simulator = Simulator(account, behaviour=Behaviour(event_data_kept=kept))
        simulator.subscribe("peopleStageUpdated", receiver.url)
        async with simulator.running() as url, HttpClient(url) as client:
            assert account.move(account.ids[0], "Past Client" if kept else "ACQ - Contract Sent")
            await simulator.deliveries.drain()
            payload = json.loads(receiver.got[-1].body)
            record = (await client.get(f"webhookEvents/{payload['eventId']}")).json
            assert record["id"] == payload["eventId"]
            assert ("data" in record) is kept
            assert "eventId" not in record
            assert (await client.get("webhookEvents/00000000-0000-4000-8000-000000000000")).status == 404
            assert (await client.get("webhookEvents")).status == 404
