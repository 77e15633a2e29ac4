"""The simulator: an account behind a real HTTP server that sends real webhooks."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from fubd.simulator.account import Account
from fubd.simulator.account_api import AccountApi
from fubd.simulator.account_events import AccountEvent
from fubd.simulator.api import Route
from fubd.simulator.behaviour import Behaviour
from fubd.simulator.deliveries import Deliveries, Post
from fubd.simulator.events import EventFactory
from fubd.simulator.exchange import Exchange, LoggedRequest
from fubd.simulator.faults import ApiFault, DeliveryFault, Faults
from fubd.simulator.keys import Keys
from fubd.simulator.people_api import PeopleApi
from fubd.simulator.rate_limits import RateLimits
from fubd.simulator.registry import Registry, Webhook
from fubd.simulator.rival import RivalDeployment
from fubd.simulator.rng import Rng
from fubd.simulator.server import SimulatorServer
from fubd.simulator.sightings import Sightings
from fubd.simulator.webhooks_api import WebhooksApi

_CHANGES_LOGGED: Final = 3

log = logging.getLogger("fubd.simulator")


class Simulator:
    """Serves one account over HTTP.

    `api_key` is the owner's; `keys` takes more keys and systems. `system_key` is the X-System-Key of the system named `system` and
    signs its webhooks. `behaviour` and `faults` may be replaced at any time. `post` sends the webhooks, by default by real HTTP; without
    HTTP at all, call `exchange.answer` for the API and start `deliveries`.
    """

    def __init__(
        self,
        account: Account,
        *,
        faults: Faults | None = None,
        behaviour: Behaviour | None = None,
        api_key: str = "test-api-key",
        system: str = "fubd",
        system_key: str = "test-system-key",
        post: Post | None = None,
    ) -> None:
        self.account = account
        self.clock = account.clock
        self.truth = account.truth
        self.conditions = account.conditions
        self.behaviour = behaviour or Behaviour()
        self.faults = faults or Faults()
        self.sightings = Sightings(account.truth)
        self.limits = RateLimits()
        self.keys = Keys(account)
        self.api_key = api_key
        self.keys.add(api_key, "owner")
        self.keys.register(system, system_key)
        self.system_key = system_key
        self.registry = Registry(self.conditions, account.clock.timestamp)
        self.deliveries = Deliveries(
            registry=self.registry,
            conditions=self.conditions,
            clock=account.clock,
            rng=Rng(account.seed + 1),
            sightings=self.sightings,
            post=post,
        )
        self.exchange = Exchange(
            self._routes(account),
            keys=self.keys,
            limits=self.limits,
            sightings=self.sightings,
            clock=account.clock,
            conditions=self.conditions,
            rng=Rng(account.seed + 2),
        )
        self._server = SimulatorServer(self.exchange)
        self._event_factory = EventFactory(self.conditions, Rng(account.seed + 3))
        account.listeners.append(self._on_account_event)

    # --- behaviour and faults -----------------------------------------------------------------------------------------

    @property
    def behaviour(self) -> Behaviour:
        """The behaviour from now on."""
        return self.conditions.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self.conditions.behaviour = behaviour

    @property
    def faults(self) -> Faults:
        """The faults from now on."""
        return self.conditions.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.conditions.faults = faults

    def script(self, endpoint: str, *steps: ApiFault | str | None) -> None:
        """Set the faults of the next requests of an endpoint, in order; None lets one pass without faults.

        Endpoints: people (the list and creation), person, stages, identity, users, webhooks, webhookEvents, events, notes, or `*` for any.
        """
        self.exchange.script(endpoint, *(None if step is None else ApiFault(step) for step in steps))

    def script_deliveries(self, *steps: DeliveryFault | str | None) -> None:
        """Set the faults of the next deliveries, in order, one per event and webhook; None lets one pass without faults."""
        self.deliveries.script.add(*(None if step is None else DeliveryFault(step) for step in steps))

    def put_behind_key(self, account: Account | None) -> None:
        """Let the owner's key read another account from now on, under the same conditions; None for the right one again."""
        self.exchange.serve_behind_key(self.api_key, None if account is None else self._routes(account))

    def start_rival(self, url: str, *, every_seconds: float = 60.0, rounds: int = 1) -> RivalDeployment:
        """Start a second deployment of the same system, which claims the webhooks for this URL."""
        rival = RivalDeployment(self.registry, self.clock, system_key=self.system_key, url=url)
        rival.start(every_seconds=every_seconds, rounds=rounds)
        return rival

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def requests(self) -> deque[LoggedRequest]:
        """The last requests, oldest first."""
        return self.exchange.requests

    @property
    def calls(self) -> Counter[tuple[str, str, int]]:
        """The number of requests by method, endpoint and status (0: no answer)."""
        return self.exchange.calls

    def subscribe(self, event: str, url: str, *, system_key: str | None = None) -> Webhook:
        """Register a webhook without an HTTP request. Raises ApiError as the API would."""
        return self.registry.add(event, url, system_key or self.system_key)

    # --- running ------------------------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, control: web.Application | None = None) -> str:
        """Start serving and sending, and return the base URL, which ends in /v1. `control` is served under /control.

        Raises OSError when the port is taken.
        """
        base = await self._server.start(host, port, control)
        self._event_factory.base = base
        await self.deliveries.start()
        return base

    async def stop(self) -> None:
        """Stop serving and sending."""
        await self.deliveries.stop()
        await self._server.stop()

    @asynccontextmanager
    async def running(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve inside the block; yields the base URL, which ends in /v1."""
        base = await self.start(host, port)
        try:
            yield base
        finally:
            await self.stop()

    def _routes(self, account: Account) -> list[Route]:
        return [
            *PeopleApi(account, self.conditions, Rng(account.seed + 4)).routes(),
            *AccountApi(account, self.conditions, self.limits).routes(),
            *WebhooksApi(self.registry, self.deliveries, self.conditions).routes(),
        ]

    def _on_account_event(self, event: AccountEvent) -> None:
        for change in event.changes[:_CHANGES_LOGGED]:
            log.info("person %d: %s -> %s, by %s", change.person_id, change.stage_from, change.stage_to, change.actor)
        if len(event.changes) > _CHANGES_LOGGED:
            log.info("and %d more -> %s", len(event.changes) - _CHANGES_LOGGED, event.stage)
        for webhook_event in self._event_factory.events(event):
            self.deliveries.publish(webhook_event)
