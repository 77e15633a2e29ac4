"""A small account at a fixed instant behind a real server, a client with the owner's key, and a receiver of webhooks."""

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
    """Give a stopped clock: time moves only when a test says so."""
    return SimClock(NINE, speed=0.0)


@pytest.fixture
def account(clock: SimClock) -> Account:
    """Give an account of 300 people."""
    return Account(seed=7, people=300, clock=clock)


@pytest.fixture
def simulator(account: Account) -> Simulator:
    """Give the account's simulator, not yet serving."""
    return Simulator(account)


@pytest.fixture
async def url(simulator: Simulator) -> AsyncIterator[str]:
    """Serve while the test runs; gives the base URL."""
    async with simulator.running() as base:
        yield base


@pytest.fixture
async def client(url: str) -> AsyncIterator[HttpClient]:
    """Give a client with the owner's key, of the registered system."""
    async with HttpClient(url) as caller:
        yield caller


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    """Give a receiver that answers 200 unless told otherwise."""
    receiver = WebhookReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def control_url(account: Account) -> AsyncIterator[str]:
    """Serve the control API while the test runs; gives its URL."""
    simulator = Simulator(account)
    base = await simulator.start(control=Control(simulator).app())
    yield base.removesuffix("/v1") + "/control"
    await simulator.stop()
