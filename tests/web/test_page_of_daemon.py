"""The status page in a real Chromium, on the real daemon and a real table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from tests.recorder import running_recorder, webhook
from tests.stack import Stack, event, running_stack
from tests.support.databases import Databases
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.web.browser import Browser, Page

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
IDS = "[...document.querySelectorAll('.change')].map((each) => Number(each.dataset.id))"
PHONE_PIXELS = 360

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Return a stack with a running daemon."""
    async with databases.migrated() as url, running_stack(url, tmp_path_factory.mktemp("daemon")) as running, running.ready_daemon():
        yield running


async def show(page: Page, stack: Stack, *, width: int = 1280) -> None:
    """Open the page and wait until it has loaded everything."""
    await page.open(f"{stack.url}/", width=width)
    await page.until(f"{LIVE} && document.querySelector('#version').textContent !== ''")
    await page.value("window.sameDocument = true")


def unknown_people(first: int, count: int) -> list[bytes]:
    """Return webhooks of people who are not in the account, so that no read adds a change."""
    at = datetime.now(UTC) - timedelta(seconds=count)
    return [event(f"e-{first + each}", "Nurture", at + timedelta(seconds=each), [first + each]) for each in range(count)]


async def newest(stack: Stack, count: int) -> list[int]:
    """Return the ids that the list should show."""
    rows = await stack.fetch("SELECT id FROM public.stage_changes ORDER BY changed_at DESC, id DESC LIMIT $1", count)
    return [row["id"] for row in rows]


async def test_a_change_in_the_account_appears_without_reload(page: Page, stack: Stack) -> None:
    """A person is moved in Follow Up Boss: the change appears from its webhook, and the name follows."""
    await show(page, stack)
    person = stack.account.ids[3]
    stack.account.edit(person, firstName="Noor", lastName="Voorbeeld")
    stack.account.move(person, "ACQ - Offers Made")
    await page.until("document.querySelector('.change')?.innerText.includes('ACQ - Offers Made')")
    await page.until("document.querySelector('.change').innerText.includes('Noor Voorbeeld')")
    assert "webhook" in await page.text(".change .by")
    assert await page.value("window.sameDocument") is True


async def test_failover_and_recovery_are_shown_with_their_reasons(page: Page, stack: Stack) -> None:
    """When webhooks fail, mode, reason and the state of the source change; when they return, they change back."""
    await show(page, stack)
    stack.account.move(stack.account.ids[9], "ACQ - Contract Sent")
    await page.until("document.querySelector('#mode').dataset.mode === 'steady'")
    assert await page.value("[...document.querySelectorAll('#subscriptions b')].every((each) => each.innerText === '✓ active')")
    stack.simulator.deliveries.kill()
    for person in stack.account.ids[10:16]:
        stack.account.move(person, "ACQ - Contract Sent")
    await page.until("document.querySelector('#mode').dataset.mode === 'failover'")
    assert "no webhook had reported" in await page.text("#mode-reason")
    assert await page.value("document.querySelector('#source-webhook').dataset.state") in {"doubtful", "stale"}
    await page.until("document.querySelector('.change').innerText.includes('polling')")
    stack.simulator.deliveries.revive()
    stack.account.move(stack.account.ids[20], "ACQ - Offers Made")
    await page.until("['recovering', 'steady'].includes(document.querySelector('#mode').dataset.mode)")
    await page.until("document.querySelector('#source-webhook').dataset.state === 'healthy'")
    await page.until("document.querySelector('#mode-changes').textContent.includes('Recovering')")
    assert await page.value("window.sameDocument") is True


HOSTILE = {
    "a script": "<script>window.ran = true</script>",
    "an image": "<img src=x onerror='window.ran = true'>",
    "an escape": "\x1b[31mred\x1b[0m\x07",
    "a reversed line": "\u202egnp.exe\u2066",
    "combining marks": "Z" + "\u0301" * 200,
    "10,000 characters": "W" * 10_000,
    "an entity": "&lt;b&gt;&amp;nbsp;",
}


@pytest.mark.parametrize("width", [PHONE_PIXELS, 1280])
async def test_hostile_names_and_stages_do_nothing(page: Page, stack: Stack, width: int) -> None:
    """They come from Follow Up Boss and are shown as text: no script runs, and nothing is wider than the window."""
    people = stack.account.ids[30 : 30 + len(HOSTILE)]
    await show(page, stack, width=width)
    for person, (name, hostile) in zip(people, HOSTILE.items(), strict=True):
        stack.account.edit(person, firstName=hostile, lastName=f"{name} {width}")
        body = event(f"hostile-{width}-{name}", hostile[:400] + str(width), datetime.now(UTC), [person])
        assert (await stack.post(body))[0] == 200
    for name in HOSTILE:
        await page.until(f"[...document.querySelectorAll('.person')].some((each) => each.innerText.includes('{name} {width}'))")
    assert await page.value("window.ran") is None
    assert await page.value("document.querySelectorAll('main script, main img, main [onerror]').length") == 0
    assert await page.value("document.documentElement.scrollWidth") == width
    assert HOSTILE["a script"] in await page.text("#change-list")


async def test_the_page_reconnects_to_a_restarted_daemon(browser: Browser, databases: Databases, tmp_path: Path) -> None:
    """It shows that the connection is lost, reconnects, and shows what was recorded before, between and after, each once."""
    async with databases.migrated() as url, running_stack(url, tmp_path) as own, browser.tab() as page:
        async with own.ready_daemon() as process:
            await show(page, own)
            await asyncio.gather(*(own.post(body) for body in unknown_people(900_001, 5)))
            await page.until(f"{IDS}.length === 5")
            await eventually(lambda: own.fetch("SELECT FROM fubd.process_run"))
            process.kill()
            await page.until("document.querySelector('#connection').dataset.state === 'lost'")
            await page.until("document.querySelector('#notice').innerText.includes('fubd does not answer')")
        async with running_recorder(url, instance="between") as between:
            await between.record(webhook("between", "Lead", "10:00", people=(800_001, 800_002)))
        async with own.ready_daemon():
            await page.until(f"{LIVE} && {IDS}.length === 7")
            await asyncio.gather(*(own.post(body) for body in unknown_people(900_101, 5)))
            await page.until(f"{IDS}.length === 7 + 5")
            assert sorted(await newest(own, 20)) == sorted(_numbers(await page.value(IDS)))
            await eventually(lambda: own.fetch("SELECT FROM fubd.process_run OFFSET 1"))
        assert await page.value("window.sameDocument") is True


def _numbers(value: object) -> list[int]:
    assert isinstance(value, list)
    return [int(each) for each in value]


async def test_a_database_outage_is_shown_while_it_lasts(browser: Browser, databases: Databases, tmp_path: Path) -> None:
    """The last known state stays under a notice; a delivery refused during the outage appears once the database is back."""
    async with (
        databases.migrated() as url,
        Proxy(url) as proxy,
        running_stack(url, tmp_path, daemon_dsn=proxy.dsn) as own,
        own.ready_daemon(),
        browser.tab() as page,
    ):
        await show(page, own)
        before, after, refused = unknown_people(900_001, 3)
        assert (await own.post(before))[0] == 200
        await page.until(f"{IDS}.length === 1")
        await proxy.refuse()
        await proxy.cut()
        assert (await own.post(refused))[0] == 503
        await page.until("document.querySelector('#notice').innerText.includes('the database does not answer')")
        assert await page.value(f"{IDS}.length") == 1
        await proxy.accept()
        await page.until(f"{IDS}.length === 2")
        assert (await own.post(after))[0] == 200
        await page.until(f"{IDS}.length === 3")
        await page.until("document.querySelector('#notice').hidden")


async def test_the_browser_asks_for_the_token(browser: Browser, databases: Databases, tmp_path: Path) -> None:
    """With the token as the password, the page, its data and its event stream load."""
    async with (
        databases.migrated() as url,
        running_stack(url, tmp_path) as own,
        own.daemon(FUBD_METRICS_TOKEN="an-invented-token") as process,
    ):
        await process.answers(f"{own.url}/readyz")
        async with browser.tab() as page:
            await page.open(f"{own.url}/")
            assert await page.value("document.querySelector('#mode')") is None
            await page.answer_password_prompts("an-invented-token")
            await show(page, own)
            assert (await own.post(unknown_people(900_001, 1)[0]))[0] == 200
            await page.until(f"{IDS}.length === 1")


async def test_a_table_of_100_000_changes_is_shown(browser: Browser, databases: Databases, tmp_path: Path) -> None:
    """The list has the newest twenty, also with every column empty that an older table may leave empty; the rest can be paged."""
    async with databases.migrated() as url, running_stack(url, tmp_path) as own, own.ready_daemon(), browser.tab() as page:
        await own.fetch(
            "INSERT INTO public.stage_changes (person_id, stage_from, stage_to, changed_at, received_at, source)"
            " SELECT (900000 + n % 5000)::text, 'Lead', 'Nurture', now() - n * interval '1 second', now() - n * interval '1 second',"
            " CASE n % 3 WHEN 0 THEN 'polling' WHEN 1 THEN 'webhook' ELSE 'wh_stage' END FROM generate_series(1, 100000) n"
        )
        await own.fetch(
            "ALTER TABLE public.stage_changes ALTER person_id DROP NOT NULL, ALTER stage_to DROP NOT NULL, ALTER source DROP NOT NULL"
        )
        await own.fetch("INSERT INTO public.stage_changes (changed_at, received_at) VALUES (now(), now())")
        await show(page, own)
        await page.until(f"{IDS}.length === 20")
        assert "person unknown \u2013 first known stage unknown" in " ".join((await page.text(".change")).split())
        assert page.errors == []
        assert (await own.get("/api/changes?after=99999&limit=1000"))["next_after"] > 100_000
