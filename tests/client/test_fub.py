"""The requests of the FUB client and its parsed responses, also against the simulated account."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fubd.core.api import AccountIdentity
from fubd.core.subscriptions import Subscription, SubscriptionList
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import FubApi, PeopleQuery
from fubd.simulator import Account, ApiFault, Behaviour, SimClock, Simulator
from tests.client.fakes import API_KEY, PERSON, SYSTEM_KEY, SkippingClock, error_document, fake_fub, make_client, page, requests_counted

NINE = datetime(2031, 3, 2, 9, tzinfo=UTC)
HOOK: dict[str, object] = {"id": 3, "event": "peopleCreated", "url": "https://hooks.example.com/webhook/fub", "status": "Active"}
FIELDS = (
    "id,created,updated,firstName,lastName,name,stage,stageId,source,assignedTo,assignedUserId,tags,customCampaignID,customPropertyState"
)


@pytest.mark.parametrize(
    ("query", "params"),
    [
        (PeopleQuery(), {"limit": "100"}),
        (PeopleQuery(limit=10, sort="-updated", offset=200), {"limit": "10", "sort": "-updated", "offset": "200"}),
        (PeopleQuery(ids=(5,), limit=1), {"limit": "1", "id": "5"}),
        (PeopleQuery(id_greater_than=4, id_less_than=900), {"limit": "100", "idGreaterThan": "4", "idLessThan": "900"}),
        (
            PeopleQuery(
                updated_after=datetime(2031, 3, 2, 9, 0, 1, 999_999, tzinfo=timezone(timedelta(hours=2))), next="a+b/c==", offset=7
            ),
            {"limit": "100", "updatedAfter": "2031-03-02T07:00:01Z", "next": "a+b/c=="},
        ),
    ],
)
async def test_a_query_becomes_url_parameters(query: PeopleQuery, params: dict[str, str]) -> None:
    """Each query includes Trash and unclaimed people, and exactly the fields that are needed."""
    custom_fields = ("customCampaignID", "customPropertyState", "customCampaignID")
    async with fake_fub(page()) as (server, base), make_client(base, SkippingClock(), custom_fields=custom_fields) as client:
        await client.people(query)
    assert dict(server.requests[0].query) == {**params, "fields": FIELDS, "includeTrash": "true", "includeUnclaimed": "true"}


@pytest.mark.parametrize(
    "query",
    [
        PeopleQuery(limit=0),
        PeopleQuery(limit=101),
        PeopleQuery(ids=()),
        PeopleQuery(ids=(1, 2), limit=1),
        PeopleQuery(updated_after=NINE.replace(tzinfo=None)),
    ],
)
async def test_an_invalid_query_is_not_sent(query: PeopleQuery) -> None:
    """A query that would return everyone, or that FUB would silently misread, raises ValueError."""
    async with fake_fub(page()) as (server, base), make_client(base, SkippingClock()) as client:
        with pytest.raises(ValueError, match=r"limit|ids|time zone"):
            await client.people(query)
    assert server.requests == []


async def test_a_page_is_parsed() -> None:
    """A page has its readings, its ids, the unreadable people, the total and the token."""
    answer = page(PERSON | {"customCampaignID": "c-17"}, {"id": 6}, total="7", next="t")
    async with fake_fub(answer) as (_, base), make_client(base, SkippingClock()) as client:
        found = await client.people(PeopleQuery())
    assert (found.ids, found.unreadable, found.total, found.next) == ((5, 6), (6,), 7, "t")
    assert found.readings[0].fields == {"customCampaignID": "c-17"}
    assert found.read_at.tzinfo is UTC


async def test_one_person_is_read_by_id() -> None:
    """FUB's own 404 means that the person does not exist."""
    async with (
        fake_fub(web.json_response(PERSON), error_document(404, "Requested resource was not found.")) as (server, base),
        make_client(base, SkippingClock()) as client,
    ):
        reading, _ = await client.person(5)
        assert reading is not None
        assert reading.stage == "Lead"
        missing, read_at = await client.person(6)
        assert missing is None
        assert read_at <= datetime.now(UTC)
    assert [request.path for request in server.requests] == ["/v1/people/5", "/v1/people/6"]
    assert all("customCampaignID" in request.query["fields"] for request in server.requests)


@pytest.mark.parametrize(
    ("answer", "error", "requests"),
    [
        (web.Response(status=404), Unavailable, 5),
        (web.Response(status=404, text="<html>no such host</html>", content_type="text/html"), Unavailable, 5),
        (web.json_response({"message": "Not Found"}, status=404), Malformed, 2),
        (error_document(404, "no route"), Malformed, 2),
        (page(), Malformed, 2),
        (web.json_response(PERSON | {"id": 6}), Malformed, 2),
        (web.json_response(PERSON | {"stage": None}), Malformed, 2),
    ],
)
async def test_only_fubs_own_404_means_gone(answer: web.Response, error: type[Exception], requests: int) -> None:
    """A gateway's 404, the list in place of the person, another or an unusable person: an error, so no person is marked deleted."""
    async with fake_fub(answer) as (server, base), make_client(base, SkippingClock()) as client:
        with pytest.raises(error):
            await client.person(5)
    assert len(server.requests) == requests


async def test_a_refused_custom_field_is_left_out() -> None:
    """The field that FUB names, or all custom fields when it names none; the others go on being requested."""

    async def handle(request: web.Request) -> web.StreamResponse:
        bad = "customGone" in request.query["fields"]
        return error_document(400, "Invalid field: customGone") if bad else page(PERSON | {"customKept": "k"})

    async with fake_fub(handle) as (server, base), make_client(base, SkippingClock(), custom_fields=("customKept", "customGone")) as client:
        assert (await client.people(PeopleQuery())).readings[0].fields == {"customKept": "k"}
        await client.people(PeopleQuery())
    assert ["customGone" in request.query["fields"] for request in server.requests] == [True, False, False]


async def test_a_refused_standard_field_is_left_out() -> None:
    """A field that fubd can do without stops nobody: it is named in one warning, and no longer requested."""
    account = Account(seed=1, people=3, clock=SimClock(NINE))
    simulator = Simulator(account, api_key=API_KEY, system_key=SYSTEM_KEY, behaviour=Behaviour(refused_field="tags"))
    async with simulator.running() as base, make_client(base, SkippingClock()) as client:
        assert len((await client.people(PeopleQuery())).readings) == 3
        assert (await client.person(account.ids[0]))[0] is not None
        assert client.calls_made() == 3


@pytest.mark.parametrize("parameter", ["includeTrash", "includeUnclaimed", "fields"])
async def test_a_refused_parameter_that_lists_can_do_without_is_left_out(parameter: str) -> None:
    """It is named in one warning, and no longer sent."""
    account = Account(seed=1, people=3, clock=SimClock(NINE))
    simulator = Simulator(account, api_key=API_KEY, system_key=SYSTEM_KEY, behaviour=Behaviour(refused_parameter=parameter))
    async with simulator.running() as base, make_client(base, SkippingClock(), custom_fields=()) as client:
        assert len((await client.people(PeopleQuery())).readings) == 3
        assert len((await client.people(PeopleQuery(sort="-updated"))).readings) == 3
        assert client.calls_made() == 3
        simulator.behaviour = Behaviour(refused_parameter="sort")
        with pytest.raises(FubRefused, match="sort"):
            await client.people(PeopleQuery(sort="-updated"))


async def test_a_refused_field_that_is_needed_stays_refused() -> None:
    """Without its stage nothing can be said of a person."""
    async with (
        fake_fub(error_document(400, "Invalid fields: stage.")) as (_, base),
        make_client(base, SkippingClock(), custom_fields=()) as client,
    ):
        with pytest.raises(FubRefused, match=r"Invalid fields: stage$"):
            await client.people(PeopleQuery())


async def test_times_without_a_zone_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """They are taken as UTC."""
    async with fake_fub(page(PERSON | {"updated": "2021-02-03T04:05:04"})) as (_, base), make_client(base, SkippingClock()) as client:
        for _ in range(2):
            assert (await client.people(PeopleQuery())).readings[0].updated == datetime(2021, 2, 3, 4, 5, 4, tzinfo=UTC)
    assert [record.message for record in caplog.records if "UTC" in record.message] == [
        "Follow Up Boss sends times of people without a time zone; they are taken as UTC, as it documents them"
    ]


async def test_all_stages_are_read() -> None:
    """Stages are read to the end, even when FUB returns ten at a time whatever the limit."""
    stages = [{"id": number, "name": f"Stage {number}"} for number in range(1, 26)]

    async def ten_stages(request: web.Request) -> web.StreamResponse:
        offset = int(request.query["offset"])
        return web.json_response({"_metadata": {"total": "25"}, "stages": stages[offset : offset + 10]})

    async with fake_fub(ten_stages) as (server, base), make_client(base, SkippingClock()) as client:
        assert await client.stages() == {f"Stage {number}": number for number in range(1, 26)}
    assert [request.query["limit"] for request in server.requests] == ["100", "100", "100"]


@pytest.mark.parametrize(
    "answers",
    [
        [{"stages": [{"id": 1, "name": "Lead"}]}],
        [{"_metadata": {"total": 2, "next": "t"}, "stages": [{"id": 1, "name": "Lead"}]}, {"_metadata": {"total": 2}, "stages": []}],
        [{"_metadata": {"next": "t"}, "stages": []}],
    ],
)
async def test_a_collection_ends_with_a_short_or_empty_page(answers: list[object]) -> None:
    """Without a total a short page is the last, and an empty page always is."""
    async with fake_fub(*map(web.json_response, answers)) as (server, base), make_client(base, SkippingClock()) as client:
        await client.stages()
    assert len(server.requests) == len(answers)


async def test_an_endless_collection_is_abandoned() -> None:
    """When FUB repeats the same page without end, the call fails."""
    endless = web.json_response({"_metadata": {"total": 10**6}, "stages": [{"id": 1, "name": "Lead"}]})
    async with fake_fub(endless) as (_, base), make_client(base, SkippingClock()) as client:
        with pytest.raises(Unavailable, match="more than 20 pages of stages"):
            await client.stages()


async def test_webhooks_are_listed_created_and_updated() -> None:
    """Each request has exactly the given fields; a change that is answered without a body is made once."""
    async with (
        fake_fub(
            web.json_response({"webhooks": [HOOK, HOOK]}),
            web.json_response(HOOK, status=201),
            web.json_response(HOOK | {"status": "Disabled"}),
            web.json_response(HOOK),
            web.Response(status=204),
        ) as (server, base),
        make_client(base, SkippingClock()) as client,
    ):
        expected = Subscription(3, "peopleCreated", "https://hooks.example.com/webhook/fub", "Active")
        assert await client.subscriptions() == SubscriptionList((expected,))
        assert await client.subscribe("peopleCreated", expected.url) == expected
        assert await client.update_subscription(3, status="Disabled") == replace(expected, status="Disabled")
        assert await client.update_subscription(3, url=expected.url, status="Active") == expected
        assert await client.update_subscription(3, status="Active") is None
    assert [(request.method, request.path) for request in server.requests] == [
        ("GET", "/v1/webhooks"),
        ("POST", "/v1/webhooks"),
        *(("PUT", "/v1/webhooks/3"),) * 3,
    ]
    assert server.bodies[1:] == [
        {"event": "peopleCreated", "url": expected.url},
        {"status": "Disabled"},
        {"url": expected.url, "status": "Active"},
        {"status": "Active"},
    ]


async def test_a_key_without_access_to_webhooks_is_refused() -> None:
    """Only the owner's key may see webhooks; the caller gets FUB's own message."""
    answer = error_document(403, "Only the account owner may access webhooks.")
    async with fake_fub(answer) as (_, base), make_client(base, SkippingClock()) as client:
        with pytest.raises(FubRefused, match="Only the account owner may access webhooks") as caught:
            await client.subscriptions()
    assert caught.value.status == 403


async def test_the_identity_is_not_read_from_me() -> None:
    """The identity comes from the endpoint whose response does not contain the key."""
    metrics = Metrics(CollectorRegistry())
    async with (
        fake_fub(web.json_response({"account": {"id": 3}})) as (server, base),
        make_client(f"{base}/", SkippingClock(), metrics=metrics) as client,
    ):
        assert await client.identity() == AccountIdentity(3, None)
    assert [request.path for request in server.requests] == ["/v1/identity"]
    assert requests_counted(metrics) == {("identity", "200"): 1}


# --- The simulated account ------------------------------------------------------------------------------------------


def simulated(clock: SimClock, *, people: int, behaviour: Behaviour | None = None) -> Simulator:
    """Return an account of invented people, some in Trash or unclaimed, that accepts the client's keys."""
    account = Account(seed=11, people=people, clock=clock, gaps=0.05)
    return Simulator(account, behaviour=behaviour, api_key=API_KEY, system="fubd-test", system_key=SYSTEM_KEY)


async def read_everyone(api: FubApi) -> list[int]:
    """Return the ids of all people, read by the token."""
    ids: list[int] = []
    query = PeopleQuery()
    while True:
        found = await api.people(query)
        assert found.unreadable == ()
        ids += found.ids
        if found.next is None:
            assert found.total == len(ids)
            return ids
        query = PeopleQuery(next=found.next)


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(), Behaviour(total_as_text=True, next_absent_at_end=True, double_ampersand=True)],
    ids=["documented", "observed"],
)
async def test_everyone_in_the_simulated_account_is_read_once(behaviour: Behaviour) -> None:
    """Reading by the token returns every person once, Trash and unclaimed included, whatever faults occur."""
    clock = SimClock(NINE, speed=50.0)
    simulator = simulated(clock, people=1_200, behaviour=behaviour)
    faults = (ApiFault.SERVER_ERROR, ApiFault.BAD_GATEWAY, ApiFault.RESET, ApiFault.TRUNCATED, ApiFault.CUT, ApiFault.HTML)
    simulator.script("people", *(step for fault in faults for step in (fault, None)), ApiFault.WRONG_TYPE)
    async with simulator.running() as base, make_client(base, clock) as client:
        ids = await read_everyone(client)
        assert sorted(ids) == simulator.account.ids
        assert client.calls_made() == simulator.calls.total()
        simulator.account.trash(ids[0])
        reading, _ = await client.person(ids[0])
        again = await client.people(PeopleQuery(ids=(ids[0],)))
        assert reading is not None
        assert (reading.stage, reading.stage_id) == ("Trash", simulator.account.stage_id("Trash"))
        assert again.readings == (reading,)
        assert set(await client.stages()) == {stage.name for stage in simulator.account.stages}
        assert await client.identity()


async def test_a_429_is_waited_out() -> None:
    """A 429 although requests remain is waited out, and reading continues where it was."""
    clock = SimClock(NINE, speed=50.0)
    simulator = simulated(clock, people=300)
    simulator.script("people", None, ApiFault.THROTTLED)
    began = clock.monotonic()
    async with simulator.running() as base, make_client(base, clock) as client:
        assert sorted(await read_everyone(client)) == simulator.account.ids
    assert clock.monotonic() - began >= 8.0
    assert simulator.calls["GET", "people", 429] == 1


async def test_parallel_callers_stay_within_their_share() -> None:
    """Sixteen parallel callers stay within their share of every window over real sockets, and get no 429."""
    clock = SimClock(NINE, speed=20.0)
    simulator = simulated(clock, people=50)
    calls = iter(range(700))
    async with simulator.running() as base, make_client(base, clock, share=0.8) as client:

        async def caller() -> None:
            for _ in calls:
                await client.people(PeopleQuery(limit=1))

        await asyncio.gather(*(caller() for _ in range(16)))
    assert simulator.limits.refused == 0
    assert simulator.limits.peak("global") <= 200
    assert simulator.calls["GET", "people", 200] == 700


async def test_webhooks_in_the_simulated_account() -> None:
    """Our webhooks are created, listed and updated, and refused when both slots are taken."""
    clock = SimClock(NINE, speed=50.0)
    simulator = simulated(clock, people=5)
    async with simulator.running() as base, make_client(base, clock) as client:
        created = await client.subscribe("peopleStageUpdated", "https://hooks.example.com/webhook/fub")
        other = await client.subscribe("peopleStageUpdated", "https://hooks.example.com/other")
        assert await client.update_subscription(other.id, status="Disabled") == Subscription(other.id, other.event, other.url, "Disabled")
        assert {hook.id: hook.status for hook in (await client.subscriptions()).usable} == {created.id: "Active", other.id: "Disabled"}
        with pytest.raises(FubRefused) as caught:
            await client.subscribe("peopleStageUpdated", "https://hooks.example.com/third")
    assert caught.value.status == 400


async def test_a_wrong_local_clock_is_corrected() -> None:
    """With our clock an hour off, FUB's time is right all the same, and a reading is dated no later than it was made."""
    clock = SimClock(NINE, speed=1.0)
    simulator = simulated(clock, people=5)
    async with simulator.running() as base, make_client(base, clock.skewed(3600.0)) as client:
        found = await client.people(PeopleQuery())
        assert found.read_at <= clock.now()
        assert clock.now() - found.read_at < timedelta(seconds=2)
        assert client.skew_seconds() == pytest.approx(3600.0, abs=0.6)
        assert abs(client.fub_now() - clock.now()) < timedelta(seconds=0.7)
