"""The page's tests need a browser; on a machine without one they are left out, and the run says so at its head."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.web.browser import CHROMIUM, Browser, Page, browsing

collect_ignore = [] if CHROMIUM else ["test_page.py", "test_house.py"]


def pytest_report_header() -> str:
    """Tell which browser draws the page."""
    return f"status page: drawn by {CHROMIUM}" if CHROMIUM else "status page: NOT tested, as no Chromium is installed"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Run one browser for all tests of a file."""
    async with browsing(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Give a fresh tab, and hold the page to its silence: it logs no error."""
    async with browser.tab() as tab:
        yield tab
        assert tab.errors == []
