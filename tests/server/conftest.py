"""A server and a client for the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.server.fakes import ServerUnderTest, running_server
from tests.server.senders import PATIENCE_SECONDS


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    """Return an HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        yield session


@pytest.fixture
async def server() -> AsyncIterator[ServerUnderTest]:
    """Run a server with the usual limits."""
    async with running_server() as running:
        yield running
