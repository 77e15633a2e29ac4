"""The keeper of our webhook subscriptions, against a registry in every state."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fubd.core.subscriptions import Subscription, SubscriptionsReport
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.errors import FubRefused, Unavailable
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.subscriptions import SubscriptionManager
from tests.poller.fakes import Account, AccountFeed, live

PUBLIC = "https://fubd.example.net"
OURS = f"{PUBLIC}/webhook/fub"
OLDER = f"{PUBLIC}/webhook/fub/stage-change"
STAGE = "peopleStageUpdated"


def _registry(*hooks: tuple[str, str, str]) -> AccountFeed:
    """Make a registry of (event, url, status), ids from 1."""
    feed = AccountFeed(Account())
    feed.registry = {number: Subscription(number, *hook) for number, hook in enumerate(hooks, start=1)}
    return feed


def _all_ours(url: str = OURS, status: str = "Active") -> list[tuple[str, str, str]]:
    return [(event, url, status) for event in SUBSCRIBED_EVENTS]


def _keeper(feed: AccountFeed, *, public_url: str | None = PUBLIC, manage: bool = True) -> tuple[SubscriptionManager, Metrics]:
    metrics = Metrics(CollectorRegistry())
    return SubscriptionManager(feed, metrics, public_url=public_url, manage=manage, lease=LocalLease()), metrics


def _check(feed: AccountFeed, *, public_url: str | None = PUBLIC, manage: bool = True) -> SubscriptionsReport:
    return live(_keeper(feed, public_url=public_url, manage=manage)[0].check())


def _hooks(feed: AccountFeed, event: str = STAGE) -> list[tuple[str, str]]:
    return [(hook.url, hook.status) for hook in feed.registry.values() if hook.event == event]


def test_nothing_there_is_created_at_the_first_look() -> None:
    """On a fresh system all three are created at the public address, reported as found missing and now active."""
    feed = _registry()
    report = _check(feed)
    assert {hook.event: (hook.url, hook.status) for hook in feed.registry.values()} == dict.fromkeys(SUBSCRIBED_EVENTS, (OURS, "Active"))
    assert report.was_broken is not None
    assert report.is_broken is None
    assert report.statuses() == dict.fromkeys(SUBSCRIBED_EVENTS, "active")


def test_who_has_lost_the_turn_since_the_look_changes_nothing() -> None:
    """Stopped between the look and the change, and gone on when another instance has long made it: no second subscription."""
    feed = _registry()
    keeper = SubscriptionManager(feed, Metrics(CollectorRegistry()), public_url=PUBLIC, manage=True, lease=LocalLease(held=False))
    report = live(keeper.check())
    assert (feed.writes, report.statuses()) == (0, dict.fromkeys(SUBSCRIBED_EVENTS, "missing"))


@pytest.mark.parametrize(
    "url", [OURS, OLDER, "https://FUBD.example.net:443/webhook/fub", f"{OURS}?account=7", f"{PUBLIC}/webhook/fub/stage-change"]
)
def test_what_is_in_force_is_left_alone(url: str) -> None:
    """An active subscription to either of our routes at the public address needs nothing, however it is spelled."""
    feed = _registry(*_all_ours(url))
    report = _check(feed)
    assert (feed.writes, report.was_broken) == (0, None)


@pytest.mark.parametrize(
    ("url", "status", "found"),
    [
        (OURS, "Disabled", "disabled"),
        (OLDER, "Disabled", "disabled"),
        ("https://legacy_tables.example.org/webhook/fub/stage-change", "Active", "elsewhere"),
        ("https://legacy_tables.example.org/webhook/fub", "Disabled", "elsewhere"),
        ("http://fubd.example.net/webhook/fub", "Active", "elsewhere"),
        ("https://fubd.example.net:8443/webhook/fub", "Active", "elsewhere"),
        (f"{OURS}/", "Active", "elsewhere"),
        (OURS.replace("/webhook", "//webhook"), "Active", "elsewhere"),
    ],
)
def test_what_is_ours_and_wrong_is_put_right(url: str, status: str, found: str) -> None:
    """A disabled one is activated, one that leads elsewhere is corrected; no second one is made."""
    feed = _registry((STAGE, url, status))
    report = _check(feed)
    assert [event.found.value for event in report.events if event.event == STAGE] == [found]
    assert [event.now.value for event in report.events if event.event == STAGE] == ["active"]
    assert len(_hooks(feed)) == 1
    corrected, now = _hooks(feed)[0]
    assert now == "Active"
    assert corrected in (OURS, OLDER)


def test_without_leave_the_keeper_only_tells() -> None:
    """With management off nothing is written, and what is broken stays proof."""
    feed = _registry((STAGE, OURS, "Disabled"))
    report = _check(feed, manage=False)
    assert feed.writes == 0
    assert report.was_broken == report.is_broken == f"the webhook for {STAGE} is disabled in Follow Up Boss"


def test_without_a_public_url_the_keeper_only_tells() -> None:
    """Where nobody knows how FUB reaches us, nothing is written, nothing is proof, and the advice names the variable."""
    feed = _registry((STAGE, "https://legacy_tables.example.org/webhook/fub", "Disabled"))
    report = _check(feed, public_url=None)
    assert (feed.writes, report.was_broken) == (0, None)
    assert {event.now.value for event in report.events} == {"unmanaged"}
    assert all("PUBLIC_URL" in (event.advice or "") for event in report.events)


def test_two_strangers_leave_no_room() -> None:
    """With both places taken by others nothing is written, they stay as they are, and the owner is told what to do."""
    strangers = [(STAGE, "https://crm.example.org/in", "Active"), (STAGE, "https://zap.example.org/hook", "Disabled")]
    feed = _registry(*strangers)
    report = _check(feed)
    stage = next(event for event in report.events if event.event == STAGE)
    assert stage.now.value == "slots_taken"
    assert "remove one" in (stage.advice or "")
    assert _hooks(feed) == [(url, status) for _, url, status in strangers]
    assert report.is_broken is not None


def test_of_two_of_ours_the_right_one_is_kept() -> None:
    """Beside an active subscription at the public address, an older one of ours elsewhere is left as it is."""
    feed = _registry((STAGE, "https://legacy_tables.example.org/webhook/fub", "Active"), (STAGE, OURS, "Active"))
    report = _check(feed)
    assert _hooks(feed) == [("https://legacy_tables.example.org/webhook/fub", "Active"), (OURS, "Active")]
    assert report.statuses()[STAGE] == "active"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ((STAGE, OURS, "Active"), "webhook 4 brings every delivery a second time: remove it in Follow Up Boss"),
        ((STAGE, OLDER, "Active"), "webhook 4 brings every delivery a second time: remove it in Follow Up Boss"),
        (
            (STAGE, "https://legacy_tables.example.org/webhook/fub?token=hidden", "Active"),
            "webhook 4 of this system leads to legacy_tables.example.org: remove it in Follow Up Boss, unless fubd runs there too",
        ),
        ((STAGE, OURS, "Disabled"), None),
    ],
    ids=["same address", "older route", "elsewhere", "disabled"],
)
def test_two_of_ours_are_told_and_left(second: tuple[str, str, str], said: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """The event is active and neither is touched; the owner is told once which to remove, and no more once it is gone."""
    caplog.set_level(logging.INFO, "fubd.subscriptions")
    feed = _registry(*_all_ours(), second)
    keeper, metrics = _keeper(feed)

    async def story() -> None:
        for _ in range(5):
            report = await keeper.check()
            assert (report.was_broken, report.statuses()) == (None, dict.fromkeys(SUBSCRIBED_EVENTS, "active"))
        assert keeper.advice() == ({} if said is None else {STAGE: said})
        assert feed.writes == 0
        assert metrics.registry.get_sample_value("fubd_webhook_subscription_active", {"event": STAGE}) == 1
        assert [record.levelname for record in caplog.records] == ([] if said is None else ["WARNING"])
        del feed.registry[4]
        await keeper.check()
        await keeper.check()
        assert keeper.advice() == {}
        assert len(caplog.records) == (0 if said is None else 2)

    live(story())


def test_of_two_of_ours_elsewhere_one_is_corrected_and_the_other_told() -> None:
    """Both lead to an older deployment: the first is corrected, the other stays as it is and is named."""
    older = "https://legacy_tables.example.org/webhook/fub"
    feed = _registry((STAGE, older, "Active"), (STAGE, older, "Active"))
    report = _check(feed)
    assert _hooks(feed) == [(OURS, "Active"), (older, "Active")]
    advice = next(event.advice for event in report.events if event.event == STAGE)
    assert advice is not None
    assert "webhook 2 of this system leads to legacy_tables.example.org" in advice


def test_a_key_that_may_not_look_is_no_proof() -> None:
    """A 403 is told as the key's fault; it proves nothing of the webhooks."""
    feed = _registry()
    feed.refusals["webhooks"] = FubRefused("Only the account owner may access webhooks.", status=403)
    report = _check(feed)
    assert {event.now.value for event in report.events} == {"not_owner"}
    assert report.was_broken is None
    assert all("owner" in (event.advice or "") for event in report.events)


def test_an_outage_of_fub_is_no_proof() -> None:
    """When FUB does not answer, nothing is known and nothing is raised."""
    feed = _registry()
    feed.outage = Unavailable("FUB answered 503 to every try")
    report = _check(feed)
    assert {event.now.value for event in report.events} == {"unknown"}
    assert report.was_broken is None


def test_a_refused_repair_is_told_with_fubs_words() -> None:
    """When FUB refuses to create one, the report stays as found and carries what FUB said."""
    feed = _registry()
    feed.refusals["subscribe"] = FubRefused("The url is not reachable.", status=400)
    report = _check(feed)
    assert report.is_broken is not None
    assert all("not reachable" in (event.advice or "") for event in report.events)


def test_the_gauge_shows_what_is_in_force() -> None:
    """1 for a subscription in force at our address, also after a repair; 0 for one disabled, elsewhere or missing."""

    def gauges(feed: AccountFeed, *, manage: bool) -> set[float | None]:
        keeper, metrics = _keeper(feed, manage=manage)
        live(keeper.check())
        return {metrics.registry.get_sample_value("fubd_webhook_subscription_active", {"event": event}) for event in SUBSCRIBED_EVENTS}

    assert gauges(_registry(*_all_ours()), manage=False) == {1.0}
    assert gauges(_registry(*_all_ours(status="Disabled")), manage=False) == {0.0}
    assert gauges(_registry(*_all_ours("https://legacy_tables.example.org/webhook/fub")), manage=False) == {0.0}
    assert gauges(_registry(), manage=False) == {0.0}
    assert gauges(_registry(), manage=True) == {1.0}


def test_a_problem_is_said_once_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    """Ten looks at the same trouble of all events make one line; its end makes another, and its return a third."""
    caplog.set_level(logging.INFO, "fubd.subscriptions")
    feed = _registry(*_all_ours(status="Disabled"))
    keeper, _ = _keeper(feed, manage=False)

    async def story() -> None:
        for _ in range(10):
            await keeper.check()
        assert len(caplog.records) == 1
        for hook in list(feed.registry.values()):
            await feed.update_subscription(hook.id, status="Active")
        for _ in range(10):
            await keeper.check()
        assert len(caplog.records) == 2
        for hook in list(feed.registry.values()):
            await feed.update_subscription(hook.id, status="Disabled")
        await keeper.check()
        assert len(caplog.records) == 3

    live(story())


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("slots", "others hold both places"), ("owner", "use the owner's FUB_API_KEY"), ("public", "set PUBLIC_URL")],
)
def test_what_only_the_owner_can_mend_is_said_in_one_line(trouble: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """Both places taken by others, a key that is not the owner's, no public URL: one warning with the remedy, which `/health` shows too."""
    caplog.set_level(logging.INFO, "fubd.subscriptions")
    strangers = [(event, f"https://crm.example.org/{place}", "Active") for event in SUBSCRIBED_EVENTS for place in (1, 2)]
    feed = _registry(*(strangers if trouble == "slots" else ()))
    if trouble == "owner":
        feed.refusals["webhooks"] = FubRefused("Only the account owner may access webhooks.", status=403)
    keeper, metrics = _keeper(feed, public_url=None if trouble == "public" else PUBLIC)

    async def story() -> None:
        for _ in range(20):
            await keeper.check()

    live(story())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert words in caplog.records[0].message
    assert all(event in caplog.records[0].message for event in SUBSCRIBED_EVENTS)
    assert set(keeper.advice()) == set(SUBSCRIBED_EVENTS)
    assert all(words in advice for advice in keeper.advice().values())
    assert metrics.registry.get_sample_value("fubd_webhook_subscription_active", {"event": STAGE}) == 0
    assert feed.writes == 0


urls = st.sampled_from(
    [
        OURS,
        OLDER,
        "https://legacy_tables.example.org/webhook/fub",
        "https://crm.example.org/in",
        "https://fubd.example.net/other",
        "https://[broken/webhook/fub",
        "https://fubd.example.net:port/webhook/fub",
        "",
    ]
)
hooks = st.tuples(st.sampled_from([*SUBSCRIBED_EVENTS, "notesCreated"]), urls, st.sampled_from(["Active", "Disabled"]))
_STRANGE = ("/in", "/other", "[broken/webhook/fub", "", ":port/webhook/fub")


@given(st.lists(hooks, max_size=8), st.booleans(), st.sampled_from([PUBLIC, f"{PUBLIC}/", None]))
def test_foreign_hooks_are_never_touched(registered: list[tuple[str, str, str]], manage: bool, public_url: str | None) -> None:
    """In every state of the registry, what is not ours stays as it is, nothing is removed, and a second look changes nothing more."""
    feed = _registry(*registered)
    before = dict(feed.registry)
    keeper, _ = _keeper(feed, public_url=public_url, manage=manage)
    live(keeper.check())
    for number, hook in before.items():
        if hook.event == "notesCreated" or any(hook.url.endswith(strange) for strange in _STRANGE if strange) or not hook.url:
            assert feed.registry[number] == hook
    assert before.keys() <= feed.registry.keys()
    if not manage or public_url is None:
        assert feed.registry == before
    after, writes = dict(feed.registry), feed.writes
    live(keeper.check())
    assert (feed.registry, feed.writes) == (after, writes)
