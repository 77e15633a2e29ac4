"""What the page does for the owner, in a real Chromium: whether anything was missed, who moved, and the history of a person."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from fubd.core.explanation import KnownPerson, PersonEvidence
from fubd.core.history import Stage
from fubd.core.reconcile import PersonHistory, Row
from fubd.ports import Absence, BlindSpan
from fubd.server import ShownProblem
from tests.server.fakes import NOW, ServerUnderTest, row
from tests.web.browser import Page
from tests.web.status_page import LOW_CONTRAST, PHONE_PIXELS, RELOAD_DATA, show

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def test_the_first_line_says_whether_anything_was_missed(page: Page, server: ServerUnderTest) -> None:
    """With the watched stages, what polling alone caught, the blind time, and the problems that hold."""
    await show(page, server)
    entered = "31 entered ACQ - Offers Made (yesterday 24)"
    assert await page.text("#headline") == f"Nothing missed today: polling caught 2 changes that no webhook reported · {entered}"
    assert " ".join((await page.text("#stage-counts")).split()) == "ACQ - Offers Made 31 140 Lead 12 90"
    day = server.view.day.day
    server.view.day = dataclasses.replace(
        server.view.day,
        day=dataclasses.replace(
            day,
            blind=[BlindSpan(NOW - timedelta(hours=3), NOW - timedelta(hours=1))],
            blind_seconds=7200.0,
            absences=[
                Absence("not_running", NOW - timedelta(hours=9), NOW - timedelta(hours=6)),
                Absence("not_recording", NOW - timedelta(hours=6), NOW - timedelta(hours=5)),
            ],
        ),
    )
    await page.value(RELOAD_DATA)
    await page.until("document.querySelector('#headline').innerText.startsWith('Blind for 2 h today: ')")
    assert await page.text("#blind") == "2 h"
    texts = "(each) => [each.querySelector('text')?.textContent, each.lastChild.textContent]"
    assert await page.value(f"[...document.querySelectorAll('#timeline .absent')].map({texts})") == [
        ["blind", "blind from 10:07 to 12:07: neither webhooks nor polls worked"],
        [None, "not recording from 07:07 to 08:07: the database was away, or the table refused the rows"],
        ["not running", "not running from 04:07 to 07:07: fubd did not run"],
    ]
    await page.value("document.querySelector('#timeline svg').focus()")
    await page.press("Home")
    for _ in range(64):
        await page.press("ArrowRight")
    assert (await page.text("#readout")).endswith(" \u00b7 not running")


async def test_on_the_first_day_nothing_is_said_of_yesterday(page: Page, server: ServerUnderTest) -> None:
    """No row shows that it was recorded. A watched stage is meant in any case."""
    await show(page, server)
    day = server.view.day.day
    stages = [dataclasses.replace(each, yesterday=0, week=each.today) for each in day.stages]
    server.view.day = dataclasses.replace(server.view.day, day=dataclasses.replace(day, stages=stages, watched=("acq - offers made",)))
    await page.value(RELOAD_DATA)
    await page.until("document.querySelector('#headline').innerText.endsWith(' · 31 entered ACQ - Offers Made')")


async def test_a_time_that_polling_saw_is_marked_without_hovering(page: Page, server: ServerUnderTest) -> None:
    """It is the latest that the change can have been."""
    server.view.table[-1] |= {"changed_after": NOW - timedelta(hours=1)}
    await show(page, server)
    assert (await page.text(".change time")).startswith("≤ ")
    assert await page.value("document.querySelectorAll('.change time')[1].innerText.includes('≤')") is False


async def test_changes_can_be_filtered_and_older_ones_added(page: Page, server: ServerUnderTest) -> None:
    """The rest of the table is a click away, and a new change that the filter leaves out is not shown."""
    server.view.table = [row(each, source="polling" if each % 3 == 0 else "webhook") for each in range(1, 121)]
    await show(page, server)
    await page.value("document.querySelector('#older').click()")
    await page.until("document.querySelectorAll('.change').length === 70")
    await page.value("document.querySelector('#filter-source').value = 'polling'")
    await page.value("document.querySelector('#filters').dispatchEvent(new Event('change'))")
    await page.until("document.querySelectorAll('.change').length === 40")
    server.record(row(121))
    server.record(row(123, source="polling"))
    await page.until("document.querySelector('.change').dataset.id === '123'")
    assert await page.value("document.querySelectorAll('.change').length") == 41


async def test_a_person_is_found_and_their_history_shown(page: Page, server: ServerUnderTest) -> None:
    """By name or id, in a drawer that Escape closes, with a link to Follow Up Boss."""
    person = KnownPerson(1030, "Ada", "Example 30", "Contacted", None, None, NOW, None, asked_for=False)
    shown = Row(
        id=30,
        person_id=1030,
        stage_from="Lead",
        stage=Stage("Contacted"),
        changed_at=NOW,
        changed_after=None,
        source="webhook",
        received_at=NOW,
    )
    server.view.people[1030] = PersonEvidence(person, PersonHistory(1030, None, (shown,), ()))
    await show(page, server)
    for text in ("ada", "1030"):
        await page.value(f"document.querySelector('#search-text').value = '{text}'")
        await page.value("document.querySelector('#search button').click()")
        await page.until("document.querySelector('#found').innerText.includes('Ada Example 30')")
    await page.value("document.querySelector('#found .open-person').click()")
    await page.until("document.querySelector('#drawer').open")
    drawer = " ".join((await page.text("#drawer")).split())
    for part in ("Ada Example 30 person 1030", "Stage: Contacted", "Lead → Contacted"):
        assert part in drawer
    assert await page.value("document.querySelector('#drawer a').href") == "https://acme.followupboss.com/2/people/view/1030"
    await page.press("Escape")
    await page.until("!document.querySelector('#drawer').open")


async def test_names_can_be_hidden_and_stay_hidden(page: Page, server: ServerUnderTest) -> None:
    """The choice is remembered, and the CSV of what is shown follows it."""
    await show(page, server)
    assert "Ada Example" in await page.text("#change-list")
    await page.value("document.querySelector('#hide-names').click()")
    await show(page, server)
    assert "Ada" not in await page.text("#change-list")
    assert "person 1030" in await page.text("#change-list")
    csv = "import('/web/changes.js').then(({ toCsv }) => toCsv([{ id: 1, first_name: 'Ada', stage_to: '=1+1', stage_from: 'a,\"b' }], %s))"
    assert str(await page.value(csv % "false")).split("\r\n")[1] == '1,,Ada,,"a,""b",\'=1+1,,,,,'
    assert "Ada" not in str(await page.value(csv % "true"))
    hostile = "import('/web/changes.js').then(({ toCsv }) => toCsv([{ id: 1, first_name: '\\t\\u202e@x\\u009b1\\u2028' }], false))"
    assert str(await page.value(hostile)).split("\r\n")[1] == "1,,'  @x 1 ,,,,,,,,"


async def test_the_drawer_holds_the_focus_and_gives_it_back(page: Page, server: ServerUnderTest) -> None:
    """By the keyboard: Tab stays within it; afterwards the focus is where it was, or on the button of the same person."""
    server.view.people[1030] = PersonEvidence(
        KnownPerson(1030, "Ada", "Example 30", "Contacted", None, None, NOW, None, asked_for=False), PersonHistory(1030, None, (), ())
    )
    await show(page, server, width=PHONE_PIXELS, dark=True)
    focused = "document.activeElement.dataset.person ?? document.activeElement.id"
    for change in (False, True):
        await page.value("document.querySelector('.open-person').focus()")
        await page.press("Enter")
        await page.until("document.querySelector('#drawer').open")
        assert await page.value("document.activeElement.id") == "drawer-title"
        assert await page.value("document.querySelector('#drawer').getAttribute('aria-labelledby')") == "drawer-title"
        for _ in range(5):
            await page.press("Tab")
            assert await page.value("!document.activeElement.closest('main, header, footer')")
        assert await page.value("document.documentElement.scrollWidth") == PHONE_PIXELS
        assert await page.value(LOW_CONTRAST) == []
        if change:
            server.view.table[-1]["last_name"] = "Renamed"
            await page.value(RELOAD_DATA)
            await page.until("document.querySelector('#change-list').textContent.includes('Renamed')")
        await page.press("Escape")
        await page.until(f"!document.querySelector('#drawer').open && ({focused}) === '1030'")


async def test_a_search_that_fails_is_said(page: Page, server: ServerUnderTest) -> None:
    """While the database is away the page says so, and finds the person once it is back."""
    await show(page, server)
    server.view.database_up = False
    find = "document.querySelector('#search-text').value = 'ada'; document.querySelector('#search button').click()"
    await page.value(find)
    await page.until("document.querySelector('#notice').innerText.includes('the database does not answer')")
    server.view.database_up = True
    await page.value(find)
    await page.until("document.querySelector('#found').innerText.includes('Nobody found.')")
    page.errors.clear()


async def test_problems_come_first(page: Page, server: ServerUnderTest) -> None:
    """The first line counts them and says up to when everything is recorded; each is written out below."""
    text = "Follow Up Boss refuses the API key. Set FUB_API_KEY."
    server.view.document = dataclasses.replace(server.view.document, problems=[ShownProblem("key_refused", NOW, text)])
    await show(page, server)
    assert (await page.text("#headline")).startswith("1 problem needs attention, complete until 13:00:30 \u00b7 31 entered")
    assert await page.text("#problems") == f"key refused since 13:07:30: {text}"
    # Also where the page is opened while nothing can be read from the database.
    server.view.database_up = False
    await page.open(f"{server.url}/")
    await page.until("!document.querySelector('#problems').hidden")
    assert (await page.text("#headline")).startswith("1 problem needs attention, complete until ")
    assert "Set FUB_API_KEY." in await page.text("#problems")
    page.errors.clear()
