"""A subscription manager with a fake account, its registered webhooks, and a clock."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from fubd.core.subscriptions import Subscription
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.problems import Problems
from fubd.subscriptions import SubscriptionManager
from tests.poller.fake_fub import FakeAccount, FakeFubApi
from tests.support.virtual_time import VirtualClock

PUBLIC = "https://fubd.example.net"
OURS = f"{PUBLIC}/webhook/fub"
OLDER = f"{PUBLIC}/webhook/fub/stage-change"
STAGE = "peopleStageUpdated"
OLD_HOST = "older.example.org"
OTHER = "https://other.example.org/webhook/fub"


def account_with(*hooks: tuple[str, str, str]) -> FakeFubApi:
    """Return an account with these webhooks: event, url, status; ids from 1."""
    api = FakeFubApi(FakeAccount())
    api.registry = {number: Subscription(number, *hook) for number, hook in enumerate(hooks, start=1)}
    return api


def all_ours(url: str = OURS, status: str = "Active") -> list[tuple[str, str, str]]:
    """Return a webhook for each of our events: event, url, status."""
    return [(event, url, status) for event in SUBSCRIBED_EVENTS]


class Hosts:
    """The hosts that the database had."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = set(hosts)

    async def webhook_hosts(self) -> frozenset[str]:
        return frozenset(self.hosts)

    async def remember_webhook_host(self, host: str) -> None:
        self.hosts.add(host)


class Managed:
    """A manager of an account's webhooks, with its clock, its metrics and its problems."""

    def __init__(
        self,
        api: FakeFubApi,
        *,
        public_url: str | None = PUBLIC,
        manage: bool = True,
        held: bool = True,
        hosts: tuple[str, ...] = (OLD_HOST,),
    ) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics(CollectorRegistry())
        self.problems = Problems(self.clock, self.metrics)
        self.hosts = Hosts(*hosts)
        self.manager = SubscriptionManager(
            api,
            self.metrics,
            self.problems,
            self.hosts,
            self.clock,
            public_url=public_url,
            manage=manage,
            lease=LocalLease(held=held),
        )


def registered_for(api: FakeFubApi, event: str = STAGE) -> list[tuple[str, str]]:
    """Return the URL and the status of each webhook registered for the event."""
    return [(hook.url, hook.status) for hook in api.registry.values() if hook.event == event]
