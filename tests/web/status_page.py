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
# Returns every text whose contrast to its nearest painted background is below 4.5, with the contrast.
LOW_CONTRAST = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest('noscript, title')) continue;
    const span = element.closest('.span');
    const paint = getComputedStyle(element);
    const [a, b] = [
      light(element instanceof SVGElement ? paint.fill : paint.color),
      light(span ? getComputedStyle(span.querySelector('rect')).fill : background(element)),
    ];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push([walker.currentNode.textContent, contrast]);
  }
  return found;
})()
"""


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
