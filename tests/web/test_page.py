"""The status page in a real Chromium: what it shows, what it updates, and what must not run."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import cast
from urllib.parse import urlsplit

import pytest

from fubd.ports import Committed
from fubd.server import ModeChange, SourceHealth
from tests.server.fakes import BUCKETS, NOW, ServerUnderTest, row, running_server
from tests.web.browser import Browser, Page
from tests.web.status_page import LIVE, LOW_CONTRAST, PHONE_PIXELS, RELOAD_DATA, fail_over, show

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def test_it_shows_sources_mode_and_internals(page: Page, server: ServerUnderTest) -> None:
    """Everything is shown in words, with ages on the server's clock."""
    await show(page, server)
    mode = await page.text("#mode")
    for text in ("Steady", "a webhook arrived 12 s ago, and the last poll found nothing missed", "Poll interval\n30 min", "7 min ago"):
        assert text in mode
    webhook, polling = await page.text("#source-webhook"), await page.text("#source-polling")
    assert "Healthy" in webhook
    assert "Changes today\n31" in webhook
    assert "7 min ago" in polling
    assert "none yet" in polling
    body = await page.text("body")
    for text in (
        "99.987 %",
        "202,113 people",
        "peopleStageUpdated ✓ active",
        "231 of 250 calls left in 10 s",
        "at most 80 %",
        "in quarantine 1",
    ):
        assert text in body.replace("\n", " ")
    assert await page.text("#readout") == "160 changes seen first by webhook, 43 by polling."


async def test_a_change_appears_without_reload(page: Page, server: ServerUnderTest) -> None:
    """A new change appears first in the list, and a correction changes its row in place."""
    await show(page, server)
    await page.value("window.sameDocument = true")
    new = row(
        31, first_name="Noor", last_name="Voorbeeld", stage_from="Contacted", stage_to="Closed", source="polling", confirmed_by="webhook"
    )
    server.record(new)
    await page.until("document.querySelector('.change').dataset.id === '31'")
    first = await page.text(".change")
    for text in ("Noor Voorbeeld", "person 1031", "Contacted → to Closed", "polling + webhook"):
        assert text in " ".join(first.split())
    server.correct(new | {"stage_from": "Appointment Set"})
    await page.until("document.querySelector('.change').textContent.includes('Appointment Set → ')")
    assert "corrected" in await page.text(".change")
    assert await page.value("document.querySelectorAll('.change').length") == 20
    assert await page.value("window.sameDocument") is True


async def test_a_failover_appears_without_reload(page: Page, server: ServerUnderTest) -> None:
    """Mode, reason, source, subscription and timeline change while the page is open."""
    await show(page, server)
    fail_over(server.view)
    await page.value(RELOAD_DATA)
    await page.until("document.querySelector('#mode').dataset.mode === 'failover'")
    mode = await page.text("#mode")
    for text in ("Failover", "a poll found 3 changes without a webhook", "Poll interval\n30 s"):
        assert text in mode
    assert "Stale: check webhook server" in await page.text("#source-webhook")
    assert "1 h 12 min ago" in await page.text("#source-webhook")
    subscriptions = " ".join((await page.text("#subscriptions")).split())
    assert "peopleStageUpdated ✗ disabled set it to Active" in subscriptions
    assert str(await page.value("document.title")).startswith("▲ Failover · stale")


HOSTILE = [
    "<script>window.ran = true</script>",
    "<img src=x onerror='window.ran = true'>",
    "\"><svg onload='window.ran = true'>",
    "javascript:window.ran=true",
    "{{constructor.constructor('window.ran = true')()}}",
    "\u202egnp.exe",
]


async def test_a_script_in_a_name_does_not_run(page: Page, server: ServerUnderTest) -> None:
    """Names, stages and reasons are shown as text, on loading and live."""
    for at, hostile in enumerate(HOSTILE):
        server.view.table[-1 - at] |= {"first_name": hostile, "stage_from": hostile, "stage_to": hostile, "source": hostile}
    server.view.document = dataclasses.replace(
        server.view.document, reason=HOSTILE[0], mode=HOSTILE[1], subscriptions={HOSTILE[2]: HOSTILE[0]}
    )
    server.view.day = dataclasses.replace(server.view.day, modes=[ModeChange(HOSTILE[0], HOSTILE[1], NOW - timedelta(hours=9))])
    await show(page, server)
    server.record(row(31, first_name=HOSTILE[0], last_name=HOSTILE[1], stage_to=HOSTILE[2]))
    await page.until("document.querySelector('.change').dataset.id === '31'")
    shown = await page.text("body")
    for hostile in HOSTILE:
        assert hostile in shown
    assert await page.value("window.ran") is None
    assert await page.value("document.querySelectorAll('main script, main [onerror], main [onload], main img').length") == 0
    assert await page.value("getComputedStyle(document.querySelector('.person bdi')).unicodeBidi") == "isolate"


async def test_no_other_host_is_contacted(page: Page, server: ServerUnderTest) -> None:
    """The page and all its files come from fubd."""
    await show(page, server)
    assert {urlsplit(each).netloc for each in page.requested} == {urlsplit(server.url).netloc}


async def test_the_timeline_is_usable_with_the_keyboard(page: Page, server: ServerUnderTest) -> None:
    """The arrow keys select a quarter hour, which is described in words; Escape clears the selection."""
    await show(page, server)
    await page.value("document.querySelector('#timeline svg').focus()")
    await page.press("Home")
    assert await page.text("#readout") == "13:15\u201313:30: 0 by webhook, 0 by polling · steady"
    for _ in range(57):
        await page.press("ArrowRight")
    readout = await page.text("#readout")
    assert readout == "03:30\u201303:45: 0 by webhook, 2 by polling · failover"
    assert await page.value("document.activeElement.getAttribute('aria-valuetext')") == readout
    await page.press("End")
    assert await page.value("document.activeElement.getAttribute('aria-valuenow')") == str(BUCKETS - 1)
    await page.press("Escape")
    assert "seen first" in await page.text("#readout")


async def test_the_last_hour_can_be_selected(page: Page, server: ServerUnderTest) -> None:
    """Tab and an arrow key select it; then each bar is a minute, and the selection stays."""
    await show(page, server)
    for _ in range(2):
        await page.press("Tab")
    await page.press("ArrowRight")
    await page.until("document.querySelector('#readout').innerText === '3 changes seen first by webhook, 1 by polling.'")
    assert await page.text("#timeline-title") == "The last hour"
    await page.value(RELOAD_DATA)
    await page.value("document.querySelector('#timeline svg').focus()")
    await page.press("End")
    assert await page.text("#readout") == "13:07\u201313:08: 3 by webhook, 0 by polling \u00b7 steady"


async def test_a_new_daemon_shows_one_hour(page: Page, server: ServerUnderTest) -> None:
    """When nothing is older than an hour, the chart of a day would be nearly empty."""
    empty = {source: [0] * BUCKETS for source in ("webhook", "polling")}
    server.view.day = dataclasses.replace(
        server.view.day,
        started_at=NOW - timedelta(minutes=5),
        change_counts=dataclasses.replace(server.view.day.change_counts, by_source=empty),
    )
    await show(page, server)
    await page.until("document.querySelector('#timeline-title').innerText === 'The last hour'")
    await page.until("document.querySelector('#readout').innerText.startsWith('3 changes')")


async def test_tab_reaches_everything_in_order(page: Page, server: ServerUnderTest) -> None:
    """From the top, Tab goes to the skip link, the time span, the timeline, the mode changes, and the links of the footer."""
    await show(page, server)
    visited: list[object] = []
    while "changes" not in visited[-1:]:
        await page.press("Tab")
        visited.append(await page.value("document.activeElement.textContent.trim() || document.activeElement.id"))
        assert len(visited) < 60
    assert visited[0] == "Skip to the last changes"
    assert [each for each in visited if each in _STOPS] == list(_STOPS)
    assert visited[-3:] == ["health", "metrics", "changes"]


_STOPS = ("Mode changes", "hide-names", "search-text", "Find", "Ada Example 30name hidden", "person 1030", "Older changes", "CSV of these")


async def test_a_removed_row_leaves_the_list(page: Page, server: ServerUnderTest) -> None:
    """Later evidence showed that it was part of another row."""
    await show(page, server)
    del server.view.table[-1]
    server.view.corrected.append((1, 30))
    server.stream.on_commit(Committed())
    await page.until("document.querySelector('.change').dataset.id === '29'")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE_PIXELS, 1280])
async def test_it_is_legible_at_every_width_and_in_dark_mode(page: Page, server: ServerUnderTest, width: int, dark: bool) -> None:
    """Nothing is wider than the window, and every text has a contrast of at least 4.5 to 1."""
    long = "Appointment with a stage name of quite some length, " * 3
    server.view.table[-1] |= {"first_name": "M" * 80, "stage_from": long, "stage_to": "W" * 90}
    fail_over(server.view)
    await show(page, server, width=width, dark=dark)
    assert await page.value("document.documentElement.scrollWidth") == width
    assert cast("list[object]", await page.value(LOW_CONTRAST)) == []
    background = str(await page.value("getComputedStyle(document.body).backgroundColor"))
    assert (background == "rgb(16, 21, 26)") is dark
    await page.value(f"document.querySelector('#headline').style.color = '{background}'")
    assert await page.value(LOW_CONTRAST) != []


async def test_a_database_outage_is_shown_and_health_goes_on(browser: Browser, server: ServerUnderTest) -> None:
    """A notice is shown while it lasts, and the last known state stays."""
    async with browser.tab() as page:
        await show(page, server)
        server.view.database_up = False
        fail_over(server.view)
        await page.value(RELOAD_DATA)
        await page.until("document.querySelector('#notice').innerText.includes('the database does not answer')")
        await page.until("document.querySelector('#mode').dataset.mode === 'failover'")
        assert "Ada Example 30" in await page.text(".change")
        # The chart still shows the day, and so says its title.
        await page.value("document.querySelector('#spans input[value=\"1\"]').click()")
        assert await page.text("#timeline-title") == "The last 24 hours"
        server.view.database_up = True
        await page.value(RELOAD_DATA)
        await page.until("document.querySelector('#notice').hidden")
        assert await page.text("#timeline-title") == "The last hour"


async def test_the_page_reconnects_to_a_restarted_server(browser: Browser) -> None:
    """It shows that the connection is lost, reconnects by itself, and shows what it missed, each row once."""
    async with browser.tab() as page:
        async with running_server() as before:
            before.view.table = [row(each) for each in range(1, 4)]
            port = before.port
            await show(page, before)
        await page.until("document.querySelector('#connection').dataset.state === 'lost'")
        async with running_server(port=port) as after:
            after.view.table = [row(each) for each in range(1, 6)]
            await page.until(f"{LIVE} && document.querySelectorAll('.change').length === 5")
            ids = await page.value("[...document.querySelectorAll('.change')].map((each) => each.dataset.id)")
            assert ids == ["5", "4", "3", "2", "1"]


async def test_it_works_with_the_token(page: Page) -> None:
    """A browser that has the password loads the page, its files, its data and the event stream."""
    async with running_server(token="an-invented-token") as server:
        await page.open(f"{server.url.replace('http://', 'http://me:an-invented-token@')}/")
        await page.until(f"{LIVE} && document.querySelector('#version').textContent !== ''")


async def test_reduced_motion_is_respected(page: Page, server: ServerUnderTest) -> None:
    """A new row has a colour that fades, but not where reduced motion is preferred."""
    await show(page, server)
    for reduced, expected in (("no-preference", "fade"), ("reduce", "none")):
        await page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": reduced}])
        server.record(row(len(server.view.table) + 1))
        await page.until(f"Number(document.querySelector('.change').dataset.id) === {len(server.view.table)}")
        assert await page.value("getComputedStyle(document.querySelector('.change')).animationName") == expected


async def test_a_refresh_keeps_unchanged_rows(page: Page, server: ServerUnderTest) -> None:
    """They stay the same elements, so that nothing flashes or loses focus; removed rows disappear."""
    await show(page, server)
    await page.value("window.before = [...document.querySelectorAll('.change')]")
    server.view.table[-3]["last_name"] = "Renamed"
    del server.view.table[-1]
    await page.value(RELOAD_DATA)
    await page.until("document.querySelector('#change-list').innerText.includes('Renamed')")
    kept = "[...document.querySelectorAll('.change')].filter((each) => window.before.includes(each)).length"
    assert await page.value(kept) == 18
    assert await page.value("document.querySelector('.change').dataset.id") == "29"
    assert "corrected" not in await page.text("#change-list")


async def test_an_empty_page_says_what_is_missing(page: Page) -> None:
    """Before any data is there, the page says what is missing."""
    async with running_server() as server:
        server.view.document = dataclasses.replace(
            server.view.document,
            mode="starting",
            coverage=None,
            poll_interval_seconds=0.0,
            sources={source: SourceHealth("STALE - Check it", None, None, 0) for source in ("webhook", "polling")},
            subscriptions={},
            completeness=dataclasses.replace(server.view.document.completeness, ratio=None),
        )
        server.view.day = dataclasses.replace(
            server.view.day, modes=[], api=dataclasses.replace(server.view.day.api, limit=None, remaining=None)
        )
        await show(page, server)
        body = await page.text("body")
        for text in (
            "Starting",
            "no complete poll yet",
            "Waiting for the first webhook",
            "Nothing received yet",
            "No change recorded yet.",
            "Not loaded yet.",
            "No verification round is complete yet.",
        ):
            assert text in body
        assert "Not known before the first call." in body
