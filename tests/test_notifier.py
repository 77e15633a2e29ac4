"""Alerts on a real database and over real sockets: once each while all is well, at least once whatever breaks, in order per person."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fubd.clock import SystemClock
from fubd.core.observation import Delivery, Snapshot
from fubd.ingest import Ingest
from fubd.metrics import Metrics
from fubd.notifier import Notifier, alert_document
from fubd.ports import Alert, ModeRecord
from fubd.store import ChangeStore, Pool, StateStore
from fubd.store.dsn import parse
from fubd.store.outbox import Outbox
from tests.recorder import at, read, webhook
from tests.stack import running_stack
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


@dataclass
class Receiver:
    """A chat tool. `answers`: what it answers to the next posts, 200 afterwards; `posts`: what it was told, refused or not."""

    url: str = ""
    answers: deque[int] = field(default_factory=deque)
    posts: list[dict[str, Any]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, request: web.Request) -> web.Response:
        told = await request.json()
        self.posts.append(told)
        await self.open.wait()
        status = self.answers.popleft() if self.answers else 200
        if status == 200:
            self.taken.append(told)
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    async def redirected(self, _request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Serve a receiver until the block ends."""
    receiver = Receiver()
    receiver.open.set()
    app = web.Application()
    app.router.add_post("/hook", receiver.post)
    app.router.add_route("*", "/elsewhere", receiver.redirected)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()


@dataclass
class AlertRecorder:
    """A recorder whose stages B and C are watched, and a book whose modes are."""

    pool: Pool
    ingest: Ingest
    state: StateStore
    outbox: Outbox

    async def record(self, *evidence: Delivery | Snapshot) -> None:
        for item in evidence:
            await (self.ingest.deliver(item) if isinstance(item, Delivery) else self.ingest.observe(item))

    async def waiting(self) -> int:
        async with self.pool.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM fubd.alert"))

    async def is_empty(self) -> bool:
        return await self.waiting() == 0

    async def age(self, *, days: float) -> None:
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE fubd.alert SET made_at = made_at - make_interval(secs => $1 * 86400)", days)


@asynccontextmanager
async def alert_recorder(dsn: str, *, watched: tuple[str, ...] = ("B", "C")) -> AsyncIterator[AlertRecorder]:
    """Record until the block ends, telling of the stages `watched` and, with any of them, of modes."""
    pool = Pool(parse(dsn))
    store = ChangeStore(pool, instance="test", columns={}, alert_stages=watched)
    ingest = Ingest(store, SystemClock(), Metrics(CollectorRegistry()), window=timedelta(seconds=300))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(ingest.run(stop))
        try:
            yield AlertRecorder(pool, ingest, StateStore(pool, alerting=bool(watched)), Outbox(pool))
        finally:
            stop.set()
    await pool.close()


@asynccontextmanager
async def notifying(dsn: str, url: str) -> AsyncIterator[Metrics]:
    """Run a notifier of its own pool, as another instance would."""
    pool, metrics, stop = Pool(parse(dsn)), Metrics(CollectorRegistry()), asyncio.Event()
    notifier = Notifier(Outbox(pool), SystemClock(), metrics, url=url)
    async with asyncio.TaskGroup() as group:
        group.create_task(notifier.run(stop))
        try:
            yield metrics
        finally:
            stop.set()
    await pool.close()


def count(metrics: Metrics, outcome: str) -> float:
    """Give how many alerts ended so."""
    return metrics.registry.get_sample_value("fubd_alerts_total", {"outcome": outcome}) or 0.0


def stages(posts: list[dict[str, Any]], person: str = "1") -> list[str]:
    """Give the stages that one person's alerts tell of, in order."""
    return [post["stage_to"] for post in posts if post.get("person_id") == person]


async def all_sent(metrics: Metrics, number: int) -> None:
    """Wait until so many alerts went out."""
    await eventually(lambda: count(metrics, "sent") == number)


# --- What is told ---------------------------------------------------------------------------------------------------


async def test_tells_of_a_watched_stage(database: str) -> None:
    """Who enters a watched stage is told of within two seconds, in words and in keys, with their name; other stages are not."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url) as metrics:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), webhook("e2", "X", "10:05"))
        await eventually(lambda: receiver.taken, within_seconds=2.0)
        await all_sent(metrics, 1)
        told = receiver.taken[0]
        assert told["text"] == "Ada Example (1) entered B, from A, on 2026-01-05 at 10:00:00 UTC (seen by webhook)."
        assert (told["kind"], told["person_id"], told["stage_from"], told["stage_to"]) == ("stage", "1", "A", "B")
        assert (told["source"], told["changed_after"], told["severity"]) == ("webhook", None, "info")
        assert told["changed_at"] == "2026-01-05T10:00:00+00:00"
        await eventually(recorder.is_empty)


async def test_tells_of_a_change_of_mode(database: str) -> None:
    """A change of mode is told of with its reason; failover is critical, the others are not."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url) as metrics:
        at_ten = at("10:00")
        await recorder.state.insert_mode(ModeRecord("steady", "webhooks arrive", 1800.0, at_ten), evidence={"before": "starting"})
        await recorder.state.insert_mode(ModeRecord("failover", "polling found 2 changes", 30.0, at_ten), evidence={"before": "steady"})
        await all_sent(metrics, 2)
        assert [post["text"] for post in receiver.taken] == [
            "fubd: steady (was starting). Webhooks arrive. Polling every 30 min.",
            "fubd: failover (was steady). Polling found 2 changes. Polling every 30 s.",
        ]
        assert [post["severity"] for post in receiver.taken] == ["info", "critical"]
        assert (receiver.taken[1]["mode"], receiver.taken[1]["before"], receiver.taken[1]["at"]) == (
            "failover",
            "steady",
            "2026-01-05T10:00:00+00:00",
        )


async def test_keeps_nothing_when_nobody_listens(database: str) -> None:
    """Without a receiver the outbox stays empty, whatever is recorded."""
    async with alert_recorder(database, watched=()) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
        await recorder.state.insert_mode(ModeRecord("failover", "proof", 30.0, at("10:00")), evidence={})
        assert await recorder.waiting() == 0


async def test_tells_only_what_was_committed(database: str) -> None:
    """An alert enters with the row it tells of: where the transaction fails there is neither."""
    async with alert_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"))
        async with recorder.pool.connection() as connection:
            await connection.execute("ALTER TABLE fubd.hint ADD CONSTRAINT never CHECK (person_id <> 1)")
            await recorder.record(webhook("e1", "B", "10:00"))
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 0
            assert await recorder.waiting() == 0


async def test_tells_nothing_of_a_row_that_is_no_more(database: str) -> None:
    """What turns out not to have happened is withdrawn while it waits; the row that stays is told of."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(read("C", "08:00", "09:00"), webhook("e1", "B", "10:00"), webhook("e2", "C", "10:00"))
        assert await recorder.waiting() == 2
        # A read settles the order within that second: B came last, and C was where they stood before.
        await recorder.record(read("B", "10:00", "10:01"))
        async with notifying(database, receiver.url) as metrics:
            await all_sent(metrics, 1)
            await eventually(recorder.is_empty)
        assert stages(receiver.taken) == ["B"]


STAGE = Alert(
    7,
    {
        "kind": "stage",
        "person_id": "1",
        "stage_from": None,
        "stage_to": "B",
        "changed_at": "2026-01-05T10:12:00+00:00",
        "changed_after": "2026-01-05T10:00:00+00:00",
        "source": "polling",
    },
    1,
    None,
    None,
)


def test_says_what_is_not_known() -> None:
    """Without a name, a stage before or an exact instant the text says so, and bears the id of the alert."""
    assert alert_document(STAGE)["id"] == 7
    assert alert_document(STAGE)["text"] == (
        "Person 1 entered B, between 2026-01-05 10:00:00 and 2026-01-05 10:12:00 UTC (seen by polling)."
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<!channel>", "\u2039!channel\u203a"),
        ("@all", "(at)all"),
        ("Ada\n\x1b[31m Red\u202e", "Ada (31m Red"),
        ("[you won](https://won.example)", "(you won)(https\u2236//won\u2024example)"),
        ("Ada www.won.example", "Ada www\u2024won\u2024example"),
        ("Dr. J. R. Example", "Dr. J. R. Example"),
        ("`Ada`", "'Ada'"),
        ("x" * 200, "x" * 80 + "\u2026"),
    ],
)
def test_a_name_orders_nothing(name: str, shown: str) -> None:
    """What a lead typed as their name neither pings a channel, nor paints, nor fills the screen."""
    told = alert_document(replace(STAGE, first_name=name))
    assert str(told["text"]).startswith(f"{shown} (1) entered")
    assert told["first_name"] == name


# --- When things break ----------------------------------------------------------------------------------------------


async def test_keeps_the_order_of_each_person(database: str) -> None:
    """While an alert of a person is not through, the next of theirs waits, and other people's do not."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(read("A", "08:00", "09:00"), read("A", "08:00", "09:00", person=2))
        await recorder.record(webhook("e1", "B", "10:00"), webhook("e2", "C", "10:01"), webhook("e3", "B", "10:02", people=(2,)))
        receiver.answers.extend((500, 200))
        async with notifying(database, receiver.url) as metrics:
            await all_sent(metrics, 3)
        assert stages(receiver.taken) == ["B", "C"]
        assert stages(receiver.taken, "2") == ["B"]
        assert count(metrics, "failed") == 1


async def test_keeps_alerts_while_the_receiver_is_down(database: str) -> None:
    """A receiver that is away gets everything once it is back, also from another process than the one that recorded it."""
    async with receiving() as gone:
        url = gone.url
    async with alert_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), webhook("e2", "C", "10:01"))
        async with notifying(database, url) as metrics:
            await eventually(lambda: count(metrics, "failed") >= 1)
        assert await recorder.waiting() == 2
        async with receiving(port=int(url.rsplit(":", 1)[1].split("/")[0])) as back, notifying(database, url) as metrics:
            await all_sent(metrics, 2)
            assert stages(back.taken) == ["B", "C"]


async def test_one_at_a_time_while_it_is_down(database: str) -> None:
    """A receiver that is down meets one try at a time, however many wait."""
    people = tuple(range(1, 31))
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(webhook("e1", "B", "10:00", people=people))
        receiver.answers.extend([503] * 32)
        async with notifying(database, receiver.url) as metrics:
            await eventually(lambda: count(metrics, "failed") == 30)
            await eventually(lambda: len(receiver.posts) == 31)
            assert await recorder.waiting() == 30
        assert count(metrics, "failed") in (31, 32)


async def test_what_is_not_wanted_holds_up_nobody_else(database: str) -> None:
    """An alert that is refused for good is tried again by itself while others go out."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url) as metrics:
        receiver.answers.append(400)
        await recorder.record(webhook("e1", "B", "10:00"))
        await eventually(lambda: count(metrics, "failed") == 1)
        await recorder.record(webhook("e2", "B", "10:00", people=(2,)))
        await eventually(lambda: stages(receiver.taken, "2"), within_seconds=2.0)
        await all_sent(metrics, 2)
        assert stages(receiver.taken) == ["B"]


async def test_gives_up_after_days(database: str) -> None:
    """What nobody has taken for days is given up, counted, and gone."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(webhook("e1", "B", "10:00"))
        await recorder.age(days=3.5)
        receiver.answers.append(500)
        async with notifying(database, receiver.url) as metrics:
            await eventually(lambda: count(metrics, "given_up") == 1)
        assert await recorder.waiting() == 0
        assert receiver.taken == []


async def test_follows_no_redirect(database: str) -> None:
    """A redirect counts as a failure and is not followed."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url) as metrics:
        receiver.answers.append(302)
        await recorder.record(webhook("e1", "B", "10:00"))
        await all_sent(metrics, 1)
        assert (count(metrics, "failed"), receiver.elsewhere) == (1, 0)


async def test_two_instances_send_each_once(database: str) -> None:
    """Two notifiers on one database share the alerts; none goes out twice."""
    people = tuple(range(1, 201))
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(webhook("e1", "B", "10:00", people=people), webhook("e2", "C", "10:01", people=people))
        async with notifying(database, receiver.url) as one, notifying(database, receiver.url) as other:
            await eventually(lambda: count(one, "sent") + count(other, "sent") == 400)
        assert len(receiver.posts) == len({post["id"] for post in receiver.posts}) == 400
        assert all(stages(receiver.taken, str(person)) == ["B", "C"] for person in people)
        assert await recorder.waiting() == 0


async def test_a_lost_database_repeats_nothing(database: str) -> None:
    """When the database goes away between the sending and its note, the note is made later and nothing is sent again."""
    async with alert_recorder(database) as recorder, receiving() as receiver, Proxy(database) as proxy:
        await recorder.record(webhook("e1", "B", "10:00"))
        receiver.open.clear()
        async with notifying(proxy.dsn, receiver.url) as metrics:
            await eventually(lambda: receiver.posts)
            await proxy.refuse()
            await proxy.cut()
            receiver.open.set()
            await all_sent(metrics, 1)
            assert await recorder.waiting() == 1
            await proxy.accept()
            await eventually(recorder.is_empty)
        assert len(receiver.posts) == 1


async def test_a_full_outbox_does_not_hold_up_the_door(database: str) -> None:
    """While the receiver hangs, deliveries are recorded as ever."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url):
        receiver.open.clear()
        await recorder.record(webhook("e1", "B", "10:00"))
        await eventually(lambda: receiver.posts)
        async with asyncio.timeout(2.0):
            await recorder.record(*(webhook(f"e{number}", "C", "11:00", people=(number,)) for number in range(2, 30)))
        receiver.open.set()


async def test_the_log_never_names_the_address(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """The address of a chat tool is a secret: no failure repeats it."""
    async with alert_recorder(database) as recorder:
        await recorder.record(webhook("e1", "B", "10:00"))
        async with notifying(database, "http://127.0.0.1:9/hidden-token") as metrics:
            await eventually(lambda: count(metrics, "failed") >= 1)
        async with notifying(database, f"http://{'x' * 70}.localhost/hidden-token") as others:
            await eventually(lambda: count(others, "failed") >= 1)
    assert caplog.text.count("does not take them") == 2
    assert "hidden" not in caplog.text
    assert "localhost" not in caplog.text


async def test_a_sender_that_was_killed_is_followed_by_another(database: str, tmp_path: Path) -> None:
    """Killed between the sending and its note, the next process tells it again, under the same id and before what comes after it."""
    async with receiving() as receiver, running_stack(database, tmp_path) as stack:
        told = {"FUBD_ALERT_URL": receiver.url, "FUBD_ALERT_STAGES": '["Nurture", "Lead"]'}
        person, other = stack.account.ids[:2]
        async with stack.ready_daemon(**told) as process:
            # Steady, and told so: nothing else is on its way.
            stack.account.move(other, "ACQ - Qualified")
            await eventually(lambda: any(post.get("mode") == "steady" for post in receiver.taken), 60.0)
            receiver.open.clear()
            stack.account.move(person, "Nurture")
            await eventually(lambda: stages(receiver.posts, str(person)))
            process.kill()
            await process.ended()
        stack.account.move(person, "Lead")
        receiver.open.set()
        # What was claimed by the dead is free again after a minute; here that minute is over.
        await stack.fetch("UPDATE fubd.alert SET due_at = now()")
        async with stack.ready_daemon(**told):
            await eventually(lambda: "Lead" in stages(receiver.taken, str(person)), 90.0)
        told_again = [post for post in receiver.posts if post.get("stage_to") == "Nurture"]
        assert len({post["id"] for post in told_again}) == 1 < len(told_again)
        # The first was taken by the receiver although its sender was dead.
        assert stages(receiver.taken, str(person)) == ["Nurture", "Nurture", "Lead"]
