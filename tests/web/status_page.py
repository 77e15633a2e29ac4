"""The status page of a server without a daemon: how to open it, and how to let its webhooks fail."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from fubd.server import ModeChange
from tests.server.fakes import NOW, FakeView, ServerUnderTest
from tests.web.browser import Page

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
# What happens when the tab becomes visible: the page loads at once what it would load within seconds.
RELOAD_DATA = "document.dispatchEvent(new Event('visibilitychange'))"
PHONE_PIXELS = 320


async def show(page: Page, server: ServerUnderTest, *, width: int = 1280, dark: bool = False) -> None:
    """Open the page and wait until it has loaded everything."""
    await page.open(f"{server.url}/", width=width, dark=dark)
    await page.until(f"{LIVE} && document.querySelector('#version').textContent !== ''")


def fail_over(view: FakeView) -> None:
    """Let the webhooks fail and polling take over."""
    webhook = dataclasses.replace(
        view.document.sources["webhook"], status="STALE - Check webhook server", last_heard=NOW - timedelta(hours=1, minutes=12)
    )
    view.document = dataclasses.replace(
        view.document,
        mode="failover",
        reason="a poll found 3 changes without a webhook",
        poll_interval_seconds=30.0,
        sources={**view.document.sources, "webhook": webhook},
        subscriptions={**view.document.subscriptions, "peopleStageUpdated": "disabled"},
        subscription_advice={"peopleStageUpdated": "set it to Active"},
    )
    change = ModeChange("failover", "a poll found 3 changes without a webhook", NOW)
    view.day = dataclasses.replace(view.day, modes=[*view.day.modes, change])
