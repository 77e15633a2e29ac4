"""A client for the server's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.server.senders import PATIENCE_SECONDS


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client that asks for nothing by itself."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        yield session
