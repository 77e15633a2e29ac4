"""The subscription manager, against registered webhooks in every state."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.core.subscriptions import SubscriptionsReport
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.errors import FubRefused, Unavailable
from fubd.metrics import Metrics
from fubd.subscriptions import SubscriptionManager
from tests.managed_subscriptions import OLD_HOST, OLDER, OTHER, OURS, PUBLIC, STAGE, Managed, account_with, all_ours, registered_for
from tests.poller.fake_fub import FakeFubApi
from tests.support.virtual_time import run_virtual


def _manager(api: FakeFubApi, *, public_url: str | None = PUBLIC, manage: bool = True) -> tuple[SubscriptionManager, Metrics]:
    managed = Managed(api, public_url=public_url, manage=manage)
    return managed.manager, managed.metrics


def _check(api: FakeFubApi, *, public_url: str | None = PUBLIC, manage: bool = True) -> SubscriptionsReport:
    return run_virtual(_manager(api, public_url=public_url, manage=manage)[0].check())


def test_missing_subscriptions_are_created_by_the_first_check() -> None:
    """All three are created at the public address, and reported as found missing and now active."""
    api = account_with()
    report = _check(api)
    assert {hook.event: (hook.url, hook.status) for hook in api.registry.values()} == dict.fromkeys(SUBSCRIBED_EVENTS, (OURS, "Active"))
    assert report.was_broken is not None
    assert report.is_broken is None
    assert report.statuses() == dict.fromkeys(SUBSCRIBED_EVENTS, "active")


def test_without_the_lease_nothing_is_changed() -> None:
    """A process suspended between listing and repair creates no second subscription after another instance made the repair."""
    api = account_with()
    report = run_virtual(Managed(api, held=False).manager.check())
    assert (api.writes, report.statuses()) == (0, dict.fromkeys(SUBSCRIBED_EVENTS, "missing"))


@pytest.mark.parametrize(
    "url", [OURS, OLDER, "https://FUBD.example.net:443/webhook/fub", f"{OURS}?account=7", f"{PUBLIC}/webhook/fub/stage-change"]
)
def test_an_active_correct_subscription_is_left_alone(url: str) -> None:
    """An active subscription to either of our routes at the public address needs no repair, however its URL is spelled."""
    api = account_with(*all_ours(url))
    report = _check(api)
    assert (api.writes, report.was_broken) == (0, None)


@pytest.mark.parametrize(
    ("url", "status", "found"),
    [
        (OURS, "Disabled", "disabled"),
        (OLDER, "Disabled", "disabled"),
        ("https://older.example.org/webhook/fub/stage-change", "Active", "elsewhere"),
        ("https://older.example.org/webhook/fub", "Disabled", "elsewhere"),
        ("http://fubd.example.net/webhook/fub", "Active", "elsewhere"),
        ("https://fubd.example.net:8443/webhook/fub", "Active", "elsewhere"),
        (f"{OURS}/", "Active", "elsewhere"),
        (OURS.replace("/webhook", "//webhook"), "Active", "elsewhere"),
    ],
)
def test_a_wrong_subscription_of_ours_is_repaired(url: str, status: str, found: str) -> None:
    """A disabled one is activated, one that points elsewhere is corrected; no second one is created."""
    api = account_with((STAGE, url, status))
    report = _check(api)
    assert [event.found.value for event in report.events if event.event == STAGE] == [found]
    assert [event.now.value for event in report.events if event.event == STAGE] == ["active"]
    assert len(registered_for(api)) == 1
    corrected, now = registered_for(api)[0]
    assert now == "Active"
    assert corrected in (OURS, OLDER)


def test_without_permission_problems_are_only_reported() -> None:
    """With FUBD_MANAGE_WEBHOOKS=false nothing is changed, and a broken subscription is reported as broken."""
    api = account_with((STAGE, OURS, "Disabled"))
    report = _check(api, manage=False)
    assert api.writes == 0
    assert report.was_broken == report.is_broken == f"the webhook for {STAGE} is disabled in Follow Up Boss"


def test_without_a_public_url_nothing_is_changed_or_proven() -> None:
    """Without PUBLIC_URL nothing is changed, nothing counts as broken, and the advice names the variable."""
    api = account_with((STAGE, "https://older.example.org/webhook/fub", "Disabled"))
    report = _check(api, public_url=None)
    assert (api.writes, report.was_broken) == (0, None)
    assert {event.now.value for event in report.events} == {"unmanaged"}
    assert all("PUBLIC_URL" in (event.advice or "") for event in report.events)


def test_slots_taken_by_other_programs_are_reported() -> None:
    """With both places taken by other programs nothing is changed, and the advice says what the owner can do."""
    foreign = [(STAGE, "https://crm.example.org/in", "Active"), (STAGE, "https://zap.example.org/hook", "Disabled")]
    api = account_with(*foreign)
    report = _check(api)
    stage = next(event for event in report.events if event.event == STAGE)
    assert stage.now.value == "slots_taken"
    assert "remove one" in (stage.advice or "")
    assert registered_for(api) == [(url, status) for _, url, status in foreign]
    assert report.is_broken is not None


def test_of_two_of_ours_the_correct_one_counts() -> None:
    """With an active subscription at the public address, an older one of ours at another address is left alone."""
    api = account_with((STAGE, "https://older.example.org/webhook/fub", "Active"), (STAGE, OURS, "Active"))
    report = _check(api)
    assert registered_for(api) == [("https://older.example.org/webhook/fub", "Active"), (OURS, "Active")]
    assert report.statuses()[STAGE] == "active"


@pytest.mark.parametrize(
    ("second", "advice"),
    [
        ((STAGE, OURS, "Active"), "webhook 4 sends every delivery a second time: remove it in Follow Up Boss"),
        ((STAGE, OLDER, "Active"), "webhook 4 sends every delivery a second time: remove it in Follow Up Boss"),
        (
            (STAGE, "https://older.example.org/webhook/fub?token=hidden", "Active"),
            "webhook 4 of this system points to older.example.org: remove it in Follow Up Boss, unless fubd runs there too",
        ),
        ((STAGE, OURS, "Disabled"), None),
    ],
    ids=["same address", "older route", "elsewhere", "disabled"],
)
def test_a_duplicate_is_reported_and_left_alone(second: tuple[str, str, str], advice: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """The event is active and neither is changed; one warning says which to remove, and one line when it was removed."""
    caplog.set_level(logging.INFO, "fubd.subscriptions")
    api = account_with(*all_ours(), second)
    manager, metrics = _manager(api)

    async def story() -> None:
        for _ in range(5):
            report = await manager.check()
            assert (report.was_broken, report.statuses()) == (None, dict.fromkeys(SUBSCRIBED_EVENTS, "active"))
        assert manager.advice() == ({} if advice is None else {STAGE: advice})
        assert api.writes == 0
        assert metrics.registry.get_sample_value("fubd_webhook_subscription_active", {"event": STAGE}) == 1
        assert [record.levelname for record in caplog.records] == ([] if advice is None else ["WARNING"])
        del api.registry[4]
        await manager.check()
        await manager.check()
        assert manager.advice() == {}
        assert len(caplog.records) == (0 if advice is None else 2)

    run_virtual(story())


def test_of_two_at_another_address_one_is_corrected_and_the_other_reported() -> None:
    """Both point to an older deployment: the first is corrected, the other is left alone and named in the advice."""
    older = "https://older.example.org/webhook/fub"
    api = account_with((STAGE, older, "Active"), (STAGE, older, "Active"))
    report = _check(api)
    assert registered_for(api) == [(OURS, "Active"), (older, "Active")]
    advice = next(event.advice for event in report.events if event.event == STAGE)
    assert advice is not None
    assert "webhook 2 of this system points to older.example.org" in advice


def test_a_key_without_access_proves_nothing() -> None:
    """A 403 is reported as a problem of the key, not of the webhooks."""
    api = account_with()
    api.refusals["webhooks"] = FubRefused("Only the account owner may access webhooks.", status=403, owner_only=True)
    report = _check(api)
    assert {event.now.value for event in report.events} == {"not_owner"}
    assert report.was_broken is None
    assert all("owner" in (event.advice or "") for event in report.events)


def test_an_outage_of_fub_proves_nothing() -> None:
    """When FUB does not answer, every status is unknown and nothing is raised."""
    api = account_with()
    api.outage = Unavailable("FUB answered 503 to every try")
    report = _check(api)
    assert {event.now.value for event in report.events} == {"unknown"}
    assert report.was_broken is None


def test_a_refused_repair_is_reported_with_the_text_of_fub() -> None:
    """When FUB refuses to create a webhook, report and problem contain what FUB said; the problem ends with the repair."""
    api = account_with()
    managed = Managed(api)
    api.refusals["subscribe"] = FubRefused("The url is not reachable.", status=400)
    report = run_virtual(managed.manager.check())
    assert report.is_broken is not None
    assert all("not reachable" in (event.advice or "") for event in report.events)
    (problem,) = managed.problems.current()
    assert (problem.name, "not reachable" in problem.text) == ("subscriptions_blocked", True)
    del api.refusals["subscribe"]
    assert run_virtual(managed.manager.check()).is_broken is None
    assert managed.problems.current() == ()


def test_the_gauge_is_1_for_an_active_correct_subscription() -> None:
    """1 also after a repair; 0 for a subscription that is disabled, points elsewhere or is missing."""

    def gauges(api: FakeFubApi, *, manage: bool) -> set[float | None]:
        manager, metrics = _manager(api, manage=manage)
        run_virtual(manager.check())
        return {metrics.registry.get_sample_value("fubd_webhook_subscription_active", {"event": event}) for event in SUBSCRIBED_EVENTS}

    assert gauges(account_with(*all_ours()), manage=False) == {1.0}
    assert gauges(account_with(*all_ours(status="Disabled")), manage=False) == {0.0}
    assert gauges(account_with(*all_ours("https://older.example.org/webhook/fub")), manage=False) == {0.0}
    assert gauges(account_with(), manage=False) == {0.0}
    assert gauges(account_with(), manage=True) == {1.0}


def test_a_problem_is_logged_once_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    """Ten checks with the same problem for all events log one line; its end logs another, and its return a third."""
    caplog.set_level(logging.INFO, "fubd.subscriptions")
    api = account_with(*all_ours(status="Disabled"))
    manager, _ = _manager(api, manage=False)

    async def story() -> None:
        for _ in range(10):
            await manager.check()
        assert len(caplog.records) == 1
        for hook in list(api.registry.values()):
            await api.update_subscription(hook.id, status="Active")
        for _ in range(10):
            await manager.check()
        assert len(caplog.records) == 2
        for hook in list(api.registry.values()):
            await api.update_subscription(hook.id, status="Disabled")
        await manager.check()
        assert len(caplog.records) == 3

    run_virtual(story())


@pytest.mark.parametrize(
    ("problem", "words"),
    [("slots", "others hold both places"), ("owner", "use the owner's FUB_API_KEY"), ("public", "set PUBLIC_URL")],
)
def test_what_only_the_owner_can_fix_is_one_warning(problem: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """Both places taken, a key that is not the owner's, no public URL: one warning with the remedy, which `/health` shows too."""
    caplog.set_level(logging.INFO, "fubd.subscriptions")
    foreign = [(event, f"https://crm.example.org/{place}", "Active") for event in SUBSCRIBED_EVENTS for place in (1, 2)]
    api = account_with(*(foreign if problem == "slots" else ()))
    if problem == "owner":
        api.refusals["webhooks"] = FubRefused("Only the account owner may access webhooks.", status=403, owner_only=True)
    manager, metrics = _manager(api, public_url=None if problem == "public" else PUBLIC)

    async def story() -> None:
        for _ in range(20):
            await manager.check()

    run_virtual(story())
    (record,) = [record for record in caplog.records if record.name == "fubd.subscriptions"]
    assert record.levelname == "WARNING"
    assert words in record.message
    assert all(event in record.message for event in SUBSCRIBED_EVENTS)
    assert set(manager.advice()) == set(SUBSCRIBED_EVENTS)
    assert all(words in advice for advice in manager.advice().values())
    active = metrics.registry.get_sample_value("fubd_webhook_subscription_active", {"event": STAGE})
    assert str(active) == ("nan" if problem == "owner" else "0.0")
    assert api.writes == 0


def test_an_active_webhook_of_another_deployment_is_left_alone_while_a_place_is_free() -> None:
    """Two deployments of one system share the two places of each event, and neither changes the other's."""
    api = account_with((STAGE, OTHER, "Active"))
    managed = Managed(api)
    report = run_virtual(managed.manager.check())
    assert registered_for(api) == [(OTHER, "Active"), (OURS, "Active")]
    assert report.statuses()[STAGE] == "active"
    assert managed.hosts.hosts == {OLD_HOST, "fubd.example.net"}


@pytest.mark.parametrize(
    "hooks",
    [[(STAGE, OTHER, "Disabled")], [(STAGE, OTHER, "Active"), (STAGE, "https://crm.example.org/in", "Active")]],
    ids=["disabled", "both places in use"],
)
def test_a_webhook_of_another_deployment_is_taken_over_when_it_fails_or_no_place_is_free(hooks: list[tuple[str, str, str]]) -> None:
    """A disabled one delivers to nobody; with both places in use there is no other way to be heard."""
    api = account_with(*hooks)
    assert run_virtual(Managed(api).manager.check()).statuses()[STAGE] == "active"
    assert (OURS, "Active") in registered_for(api)
    assert (OTHER, "Active") not in registered_for(api)


def test_who_takes_our_webhook_back_twice_is_reported_and_not_fought() -> None:
    """Two corrections, then none: the problem names the other host, and ends once the webhook is ours again or disabled."""
    other = "https://other.example.org/webhook/fub"
    api = account_with(*all_ours())
    stage = next(number for number, hook in api.registry.items() if hook.event == STAGE)
    managed = Managed(api, hosts=("other.example.org",))

    async def story() -> None:
        for _ in range(6):
            await api.update_subscription(stage, url=other)
            await managed.clock.pause(300.0)
            await managed.manager.check()
        (problem,) = managed.problems.current()
        assert problem.name == "subscriptions_contested"
        assert "other.example.org" in problem.text
        assert "other.example.org" in managed.manager.advice()[STAGE]
        assert registered_for(api) == [(other, "Active")]
        await api.update_subscription(stage, url=OURS)
        await managed.manager.check()
        assert managed.problems.current() == ()
        await api.update_subscription(stage, url=other)
        await managed.manager.check()
        await api.update_subscription(stage, status="Disabled")
        await managed.manager.check()
        assert (registered_for(api), managed.problems.current()) == ([(OURS, "Active")], ())

    before = api.writes
    run_virtual(story())
    assert api.writes - before - 9 == 3


def test_a_registration_that_fub_lists_late_is_not_made_twice() -> None:
    """FUB's list shows a new webhook only seconds later; until then the check counts it as made."""
    api = account_with()
    managed = Managed(api)

    async def story() -> None:
        await managed.manager.check()
        listed, api.registry = api.registry, {}
        await managed.clock.pause(20.0)
        unlisted = await managed.manager.check()
        assert unlisted.statuses() == dict.fromkeys(SUBSCRIBED_EVENTS, "active")
        assert {report.advice for report in unlisted.events} == {None}
        assert api.registry == {}
        api.registry = listed
        assert (await managed.manager.check()).was_broken is None

    run_virtual(story())
    assert len(api.registry) == len(SUBSCRIBED_EVENTS)


def test_a_refusal_in_other_words_is_not_blamed_on_the_key() -> None:
    """An expired account or a firewall is shown as it is; only FUB's own words mean that the key is not the owner's."""
    api = account_with()
    api.refusals["webhooks"] = FubRefused("Your subscription has expired.", status=403)
    report = _check(api)
    assert {event.now.value for event in report.events} == {"unknown"}
    assert all("expired" in (event.advice or "") for event in report.events)


urls = st.sampled_from(
    [
        OURS,
        OLDER,
        "https://older.example.org/webhook/fub",
        "https://crm.example.org/in",
        "https://fubd.example.net/other",
        "https://[broken/webhook/fub",
        "https://fubd.example.net:port/webhook/fub",
        "",
    ]
)
hooks = st.tuples(st.sampled_from([*SUBSCRIBED_EVENTS, "notesCreated"]), urls, st.sampled_from(["Active", "Disabled"]))
_FOREIGN_URLS = ("/in", "/other", "[broken/webhook/fub", "", ":port/webhook/fub")


@given(st.lists(hooks, max_size=8), st.booleans(), st.sampled_from([PUBLIC, f"{PUBLIC}/", None]))
def test_foreign_subscriptions_are_never_changed(registered: list[tuple[str, str, str]], manage: bool, public_url: str | None) -> None:
    """Whatever is registered: foreign subscriptions stay as they are, none is removed, and a second check changes nothing."""
    api = account_with(*registered)
    before = dict(api.registry)
    manager, _ = _manager(api, public_url=public_url, manage=manage)
    run_virtual(manager.check())
    for number, hook in before.items():
        if hook.event == "notesCreated" or any(hook.url.endswith(foreign) for foreign in _FOREIGN_URLS if foreign) or not hook.url:
            assert api.registry[number] == hook
    assert before.keys() <= api.registry.keys()
    if not manage or public_url is None:
        assert api.registry == before
    after, writes = dict(api.registry), api.writes
    run_virtual(manager.check())
    assert (api.registry, api.writes) == (after, writes)
