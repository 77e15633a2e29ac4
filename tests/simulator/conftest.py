"""A small account at a fixed instant behind a real server, a client with the owner's key, and a webhook receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from fubd.simulator import Account, SimClock, Simulator
from fubd.simulator.control import Control
from tests.simulator.http_client import HttpClient
from tests.simulator.receiver import WebhookReceiver

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.fixture
def clock() -> SimClock:
    """Return a stopped clock, moved only by the test."""
    return SimClock(NINE, speed=0.0)


@pytest.fixture
def account(clock: SimClock) -> Account:
    """Return an account of 300 people."""
    return Account(seed=7, people=300, clock=clock)


@pytest.fixture
def simulator(account: Account) -> Simulator:
    """Return the account's simulator, not yet serving."""
    return Simulator(account)


@pytest.fixture
async def url(simulator: Simulator) -> AsyncIterator[str]:
    """Serve during the test; yields the base URL."""
    async with simulator.running() as base:
        yield base


@pytest.fixture
async def client(url: str) -> AsyncIterator[HttpClient]:
    """Yield a client with the owner's key and the registered system."""
    async with HttpClient(url) as caller:
        yield caller


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    """Yield a receiver that answers 200 by default."""
    receiver = WebhookReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def control_url(account: Account) -> AsyncIterator[str]:
    """Serve the control API during the test; yields its URL."""
    simulator = Simulator(account)
    base = await simulator.start(control=Control(simulator).app())
    yield base.removesuffix("/v1") + "/control"
    await simulator.stop()
