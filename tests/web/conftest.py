"""The page's tests need a browser; on a machine without one they are left out, and the run says so at its head."""

from __future__ import annotations

from tests.web.browser import CHROMIUM

collect_ignore = [] if CHROMIUM else ["test_page.py"]


def pytest_report_header() -> str:
    """Tell which browser draws the page."""
    return f"status page: drawn by {CHROMIUM}" if CHROMIUM else "status page: NOT tested, as no Chromium is installed"
