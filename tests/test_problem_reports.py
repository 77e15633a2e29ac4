"""Problems outlive the process, and each begins and ends with one alert: from the outbox, or from memory while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd.clock import SystemClock
from fubd.core.alerts import Alert, alert_document
from fubd.core.problems import ProblemName
from fubd.core.stored_state import ModeRecord
from fubd.errors import Unavailable
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.notifier import Notifier
from fubd.ports import ProblemStore
from fubd.problem_reports import ProblemReports
from fubd.problems import Problems
from fubd.store import Maintenance, Pool, StateStore
from fubd.store import problems as stored
from fubd.store.dsn import parse
from fubd.store.outbox import Outbox
from tests.support.alert_receiver import Receiver, receiving
from tests.support.waiting import eventually

_AWAY = "the database is away"


def _without_database() -> stored.ProblemStore:
    return stored.ProblemStore(Pool(parse("postgresql://nobody:x@127.0.0.1:1/none")), instance="one")


@asynccontextmanager
async def alerting(receiver: Receiver, store: ProblemStore | None = None) -> AsyncIterator[Problems]:
    """Report problems until the block ends, as a process does; a second lasts a hundredth. Without a store the database is away."""
    clock, metrics, stop = SystemClock(100.0), Metrics(CollectorRegistry()), asyncio.Event()
    problems = Problems(clock, metrics)
    reports = ProblemReports(problems, store or _without_database(), LocalLease(), clock, metrics, url=receiver.url)
    with suppress(Unavailable):
        await reports.load()
    async with asyncio.TaskGroup() as group:
        group.create_task(reports.run(stop))
        try:
            yield problems
        finally:
            stop.set()


def _document(alert: Alert) -> dict[str, object]:
    return alert_document(alert, zone=UTC, domain=None)


@asynccontextmanager
async def connected(database: str, receiver: Receiver) -> AsyncIterator[Pool]:
    """Send what is in the outbox until the block ends."""
    pool, clock, stop = Pool(parse(database)), SystemClock(100.0), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(Notifier(Outbox(pool), clock, Metrics(CollectorRegistry()), url=receiver.url, write=_document).run(stop))
        try:
            yield pool
        finally:
            stop.set()
    await pool.close()


async def test_a_problem_outlives_its_process_and_ends_once(database: str) -> None:
    """The next process continues it, with its begin, and without an alert; only its own evidence ends it, with one alert."""
    async with receiving() as receiver, connected(database, receiver) as pool:
        async with alerting(receiver, stored.ProblemStore(pool, instance="one")) as problems:
            problems.begin(ProblemName.KEY_REFUSED, "FUB answers 401")
            await eventually(lambda: len(receiver.accepted) == 1, 30.0)
            await eventually(lambda: _is_stored(pool, announced=True), 30.0)
            (before,) = problems.current()
        async with alerting(receiver, stored.ProblemStore(pool, instance="two")) as problems:
            assert problems.current() == (before,)
            assert problems.undecided(ProblemName.KEY_REFUSED) == before
            await eventually(lambda: _is_stored(pool, announced=True, instance="two"), 30.0)
            problems.end(ProblemName.KEY_REFUSED)
            await eventually(lambda: len(receiver.accepted) == 2, 30.0)
        async with alerting(receiver, stored.ProblemStore(pool, instance="three")) as problems:
            assert problems.current() == ()
            problems.begin(ProblemName.QUARANTINE, "1 delivery")
            await eventually(lambda: len(receiver.accepted) == 3, 30.0)
    assert [(post["problem"], post["event"]) for post in receiver.accepted] == [
        ("key_refused", "begin"),
        ("key_refused", "end"),
        ("quarantine", "begin"),
    ]
    assert receiver.accepted[0]["since"] == receiver.accepted[1]["since"] == before.since.isoformat()


async def test_an_outage_in_which_the_process_ended_is_over_once(database: str) -> None:
    """It was announced from memory, if at all. The next process that reaches the database says that it is over, and how long it lasted."""
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    async with receiving() as receiver, connected(database, receiver) as pool:
        await Maintenance(pool, instance="one").note_running(long_ago, long_ago, gap=None)
        async with alerting(receiver, stored.ProblemStore(pool, instance="two")) as problems:
            (outage,) = problems.current()
            assert (outage.name, outage.since, outage.announced) == (ProblemName.NOT_RECORDING, long_ago, True)
            problems.end(ProblemName.NOT_RECORDING)
            await eventually(lambda: receiver.accepted, 30.0)
            now = datetime.now(UTC)
            await Maintenance(pool, instance="two").note_running(now, now, gap=None)
        for name in ("three", "four"):
            async with alerting(receiver, stored.ProblemStore(pool, instance=name)) as problems:
                assert problems.current() == ()
            await Maintenance(pool, instance=name).note_running(long_ago, now + timedelta(seconds=1), gap=None, is_stopping=True)
    (end,) = receiver.accepted
    assert (end["event"], end["problem"], end["since"]) == ("end", "not_recording", long_ago.isoformat())
    assert "it lasted 2 h" in end["text"]


async def test_an_outage_before_the_start_counts_from_its_begin(database: str) -> None:
    """A process that was started during it learns from the database when recording ended, and sends one end."""
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    async with receiving() as receiver, connected(database, receiver) as pool:
        await Maintenance(pool, instance="one").note_running(long_ago, long_ago, gap=None)
        clock, metrics, stop = SystemClock(100.0), Metrics(CollectorRegistry()), asyncio.Event()
        problems = Problems(clock, metrics)
        store = stored.ProblemStore(pool, instance="two")
        reports = ProblemReports(problems, store, LocalLease(), clock, metrics, url=receiver.url)
        async with asyncio.TaskGroup() as group:
            group.create_task(reports.run(stop))
            problems.begin(ProblemName.NOT_RECORDING, _AWAY)
            await eventually(lambda: receiver.accepted, 30.0)
            await reports.load()
            problems.end(ProblemName.NOT_RECORDING)
            await eventually(lambda: len(receiver.accepted) == 2, 30.0)
            stop.set()
    assert [post["event"] for post in receiver.accepted] == ["begin", "end"]
    assert "it lasted 2 h" in receiver.accepted[1]["text"]


async def test_what_ends_just_before_a_stop_is_saved(database: str) -> None:
    """The next process does not continue it, and the outbox holds the alert of its end."""
    async with receiving() as receiver, connected(database, receiver) as pool:
        async with alerting(receiver, stored.ProblemStore(pool, instance="one")) as problems:
            problems.begin(ProblemName.SIGNING_KEY_WRONG, "each signature is refused")
            await eventually(lambda: _is_stored(pool, announced=True), 30.0)
            problems.end(ProblemName.SIGNING_KEY_WRONG)
        async with alerting(receiver, stored.ProblemStore(pool, instance="two")) as problems:
            assert problems.current() == ()
        await eventually(lambda: [post["event"] for post in receiver.accepted] == ["begin", "end"], 30.0)


async def _is_stored(pool: Pool, **wanted: object) -> bool:
    async with pool.connection() as connection:
        rows = await connection.fetch("SELECT * FROM fubd.problem")
    return [{name: row[name] for name in wanted} for row in rows] == [wanted]


async def test_alerts_keep_their_place_in_the_outbox(database: str) -> None:
    """A change of mode that follows a problem is sent after it, also by a receiver that was down meanwhile."""
    async with receiving() as receiver, connected(database, receiver) as pool:
        receiver.answers.append(503)
        async with alerting(receiver, stored.ProblemStore(pool, instance="one")) as problems:
            problems.begin(ProblemName.SUBSCRIPTIONS_BLOCKED, "no slot")
            await eventually(lambda: receiver.posts, 30.0)
            problems.end(ProblemName.SUBSCRIPTIONS_BLOCKED)
            await eventually(lambda: _has_no_problem(pool), 30.0)
            await StateStore(pool, alerting=True).insert_mode(ModeRecord("steady", "all is well", 30.0, datetime.now(UTC)), evidence={})
            await eventually(lambda: len(receiver.accepted) == 3, 30.0)
    assert [post.get("event", post.get("mode")) for post in receiver.accepted] == ["begin", "end", "steady"]


async def _has_no_problem(pool: Pool) -> bool:
    async with pool.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) = 0 FROM fubd.problem"))


async def test_a_problem_that_ends_the_process_is_sent_at_once() -> None:
    """Without the wait of a minute, and also when the receiver refuses the first try."""
    async with receiving() as receiver:
        receiver.answers.extend([503])
        clock, metrics = SystemClock(), Metrics(CollectorRegistry())
        problems = Problems(clock, metrics)
        problems.begin(ProblemName.ACCOUNT_MISMATCH, "another account")
        reports = ProblemReports(problems, _without_database(), LocalLease(), clock, metrics, url=receiver.url)
        await reports.announce_at_once(ProblemName.ACCOUNT_MISMATCH, within_seconds=60.0)
    assert [post["problem"] for post in receiver.accepted] == ["account_mismatch"]


async def test_begin_and_end_are_sent_without_a_database() -> None:
    """The begin says what happened and what to do, after a minute; the end says how long it lasted. Both name the same problem."""
    async with receiving() as receiver, alerting(receiver) as problems:
        problems.begin(ProblemName.NOT_RECORDING, _AWAY)
        await eventually(lambda: receiver.accepted)
        problems.end(ProblemName.NOT_RECORDING)
        await eventually(lambda: len(receiver.accepted) == 2)
    begin, end = receiver.accepted
    assert (begin["event"], begin["problem"], begin["severity"]) == ("begin", "not_recording", "critical")
    assert _AWAY in begin["text"]
    assert (end["event"], end["since"]) == ("end", begin["since"])
    assert "is over; it lasted " in end["text"]


async def test_a_problem_that_is_over_within_a_minute_is_not_sent() -> None:
    """A deploy or a restart of the database wakes nobody; the problem after it is sent."""
    async with receiving() as receiver, alerting(receiver) as problems:
        problems.begin(ProblemName.NOT_RECORDING, _AWAY)
        problems.end(ProblemName.NOT_RECORDING)
        problems.begin(ProblemName.QUARANTINE, "1 delivery")
        await eventually(lambda: receiver.accepted)
    assert [post["problem"] for post in receiver.accepted] == ["quarantine"]


async def test_a_receiver_that_is_down_gets_them_later_in_order() -> None:
    """Each is repeated with the same id until it is taken, nothing overtakes it, and after minutes it says when that was."""
    async with receiving() as receiver, alerting(receiver) as problems:
        receiver.answers.extend([503] * 16)
        problems.begin(ProblemName.KEY_REFUSED, "401")
        await eventually(lambda: receiver.posts)
        problems.end(ProblemName.KEY_REFUSED)
        await eventually(lambda: len(receiver.accepted) == 2, 60.0)
    assert "(Sent late" not in receiver.posts[0]["text"]
    assert "(Sent late: this was on " in receiver.accepted[0]["text"]
    assert [post["event"] for post in receiver.accepted] == ["begin", "end"]
    assert len({post["id"] for post in receiver.posts}) == 2
