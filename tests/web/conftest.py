"""A real browser for the tests of the page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.server.fakes import ServerUnderTest, row, running_server
from tests.web.browser import Browser, Page, browsing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Run one browser for all tests of a file."""
    async with browsing(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Return a new tab; at the end, check that the page logged no error."""
    async with browser.tab() as tab:
        yield tab
        assert tab.errors == []


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[ServerUnderTest]:
    """Run a server with some changes to show."""
    async with running_server() as running:
        running.view.table = [row(each) for each in range(1, 31)]
        yield running
