"""Alerts, on a real database and real sockets: sent once normally, at least once whatever fails, in order per person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from fubd.clock import SystemClock
from fubd.core.alerts import Alert, alert_document
from fubd.core.batch import RecordingRules
from fubd.core.observation import Delivery, Snapshot
from fubd.core.stored_state import ModeRecord
from fubd.ingest import Ingest
from fubd.metrics import Metrics
from fubd.notifier import Notifier
from fubd.problems import Problems
from fubd.store import ChangeStore, Pool, StateStore
from fubd.store.adoption import count_foreign_rows
from fubd.store.dsn import parse
from fubd.store.outbox import Outbox
from tests.recorder import at, read, webhook
from tests.stack import running_stack
from tests.support.alert_receiver import receiving
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


class MorningClock(SystemClock):
    """The clock of the day of the evidence, soon after it."""

    @override
    def now(self) -> datetime:
        return at("10:30")


@dataclass
class AlertRecorder:
    """An ingest that writes alerts for watched stages, and a state store that writes them for modes."""

    pool: Pool
    ingest: Ingest
    state: StateStore
    outbox: Outbox

    async def record(self, *evidence: Delivery | Snapshot) -> None:
        for item in evidence:
            await (self.ingest.deliver(item) if isinstance(item, Delivery) else self.ingest.observe(item))

    async def count_waiting(self) -> int:
        async with self.pool.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM fubd.alert"))

    async def is_empty(self) -> bool:
        return await self.count_waiting() == 0

    async def age(self, *, days: float) -> None:
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE fubd.alert SET made_at = made_at - make_interval(secs => $1 * 86400)", days)


@asynccontextmanager
async def alert_recorder(dsn: str, *, watched: tuple[str, ...] = ("B", "C"), skew_seconds: float = 0.0) -> AsyncIterator[AlertRecorder]:
    """Record until the block ends, with alerts for the stages `watched` and, if there are any, for modes."""
    pool = Pool(parse(dsn))
    store = ChangeStore(pool, instance="test", columns={}, alert_stages=watched)
    clock, metrics = MorningClock(), Metrics(CollectorRegistry())
    rules = RecordingRules(timedelta(seconds=300))
    ingest = Ingest(store, clock, metrics, Problems(clock, metrics), rules=rules, skew_seconds=lambda: skew_seconds)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(ingest.run(stop))
        try:
            yield AlertRecorder(pool, ingest, StateStore(pool, alerting=bool(watched)), Outbox(pool))
        finally:
            stop.set()
    await pool.close()


def _written(alert: Alert) -> dict[str, object]:
    return alert_document(alert, zone=ZoneInfo("America/Chicago"), domain="acme")


@asynccontextmanager
async def notifying(dsn: str, url: str) -> AsyncIterator[Metrics]:
    """Run a notifier with a pool of its own, like another instance."""
    pool, metrics, stop = Pool(parse(dsn)), Metrics(CollectorRegistry()), asyncio.Event()
    notifier = Notifier(Outbox(pool), SystemClock(), metrics, url=url, write=_written)
    async with asyncio.TaskGroup() as group:
        group.create_task(notifier.run(stop))
        try:
            yield metrics
        finally:
            stop.set()
    await pool.close()


def count(metrics: Metrics, outcome: str) -> float:
    """Return the number of alerts with this outcome."""
    return metrics.registry.get_sample_value("fubd_alerts_total", {"outcome": outcome}) or 0.0


def stages(posts: list[dict[str, Any]], person: str = "1") -> list[str]:
    """Return the stages in the alerts of one person, in order."""
    return [post["stage_to"] for post in posts if post.get("person_id") == person]


async def all_sent(metrics: Metrics, number: int) -> None:
    """Wait until so many alerts were sent."""
    await eventually(lambda: count(metrics, "sent") == number)


# --- The content of alerts ------------------------------------------------------------------------------------------


async def test_a_watched_stage_is_an_alert(database: str) -> None:
    """It is sent as text and as keys: who, when on the office's clock, the agent, and a link. The case of the stage does not matter."""
    async with alert_recorder(database, watched=("b",)) as recorder, receiving() as receiver, notifying(database, receiver.url) as metrics:
        await recorder.record(read("A", "08:00", "09:00", agent="Bo Agent"), webhook("e1", "B", "10:00"), webhook("e2", "X", "10:05"))
        await eventually(lambda: receiver.accepted)
        await all_sent(metrics, 1)
        alert = receiver.accepted[0]
        assert alert["text"] == (
            "Ada Example (1) entered B, from A, on 2026-01-05 at 04:00:00 CST (seen by webhook). Assigned to Bo Agent."
            " https://acme.followupboss.com/2/people/view/1"
        )
        assert (alert["assigned_user_name"], alert["url"]) == ("Bo Agent", "https://acme.followupboss.com/2/people/view/1")
        assert (alert["kind"], alert["person_id"], alert["stage_from"], alert["stage_to"]) == ("stage", "1", "A", "B")
        assert (alert["source"], alert["changed_after"], alert["severity"]) == ("webhook", None, "info")
        assert alert["changed_at"] == "2026-01-05T10:00:00+00:00"
        await eventually(recorder.is_empty)


async def test_a_change_of_mode_is_an_alert(database: str) -> None:
    """It has its reason; failover is critical, the other modes are not."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url) as metrics:
        at_ten = at("10:00")
        await recorder.state.insert_mode(ModeRecord("steady", "webhooks arrive", 1800.0, at_ten), evidence={"before": "starting"})
        await recorder.state.insert_mode(ModeRecord("failover", "polling found 2 changes", 30.0, at_ten), evidence={"before": "steady"})
        await all_sent(metrics, 2)
        assert [post["text"] for post in receiver.accepted] == [
            "fubd: steady (was starting). Webhooks arrive. Polling every 30 min.",
            "fubd: failover (was steady). Polling found 2 changes. Polling every 30 s.",
        ]
        assert [post["severity"] for post in receiver.accepted] == ["info", "critical"]
        assert (receiver.accepted[1]["mode"], receiver.accepted[1]["before"], receiver.accepted[1]["at"]) == (
            "failover",
            "steady",
            "2026-01-05T10:00:00+00:00",
        )


async def test_without_a_receiver_no_alert_is_stored(database: str) -> None:
    """The outbox stays empty, whatever is recorded."""
    async with alert_recorder(database, watched=()) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
        await recorder.state.insert_mode(ModeRecord("failover", "proof", 30.0, at("10:00")), evidence={})
        assert await recorder.count_waiting() == 0


async def test_an_alert_is_committed_with_its_cause(database: str) -> None:
    """Where the transaction fails, there is neither the row nor the alert."""
    async with alert_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"))
        async with recorder.pool.connection() as connection:
            await connection.execute("ALTER TABLE fubd.hint ADD CONSTRAINT never CHECK (person_id <> 1)")
            recording = asyncio.create_task(recorder.record(webhook("e1", "B", "10:00")))
            await eventually(lambda: recorder.ingest.failure)
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 0
            assert await recorder.count_waiting() == 0
            await connection.execute("ALTER TABLE fubd.hint DROP CONSTRAINT never")
        await recording
        assert await recorder.count_waiting() == 1


async def test_the_alert_of_a_removed_row_is_withdrawn(database: str) -> None:
    """An older script writes the same change too, so our row is merged into the script's while the alert of ours waits."""
    async with alert_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), read("B", "10:00", "10:01"))
        assert await recorder.count_waiting() == 1
        async with recorder.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO stage_changes (person_id, stage_from, stage_to, changed_at, received_at, source)"
                " VALUES ('1', 'A', 'B', '2026-01-05 10:30+00', now(), 'polling')"
            )
            assert await count_foreign_rows(connection) == 1
        await recorder.record(read("B", "10:00", "10:32"))
        assert await recorder.count_waiting() == 0


# --- Failures -------------------------------------------------------------------------------------------------------


async def test_the_alerts_of_a_person_keep_their_order(database: str) -> None:
    """While an alert of a person is not sent, their next one waits, and those of other people do not."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(read("A", "08:00", "09:00"), read("A", "08:00", "09:00", person=2))
        await recorder.record(webhook("e1", "B", "10:00"), webhook("e2", "C", "10:01"), webhook("e3", "B", "10:02", people=(2,)))
        receiver.answers.extend((500, 200))
        async with notifying(database, receiver.url) as metrics:
            await all_sent(metrics, 3)
        assert stages(receiver.accepted) == ["B", "C"]
        assert stages(receiver.accepted, "2") == ["B"]
        assert count(metrics, "failed") == 1


async def test_alerts_are_kept_while_the_receiver_is_down(database: str) -> None:
    """The receiver gets every alert once it is back, also from another process than the one that recorded it."""
    async with receiving() as stopped:
        url = stopped.url
    async with alert_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), webhook("e2", "C", "10:01"))
        async with notifying(database, url) as metrics:
            await eventually(lambda: count(metrics, "failed") >= 1)
        assert await recorder.count_waiting() == 2
        async with receiving(port=int(url.rsplit(":", 1)[1].split("/")[0])) as restarted, notifying(database, url) as metrics:
            await all_sent(metrics, 2)
            assert stages(restarted.accepted) == ["B", "C"]


async def test_a_receiver_that_is_down_is_tried_with_one_alert_at_a_time(database: str) -> None:
    """After the first failed batch, however many alerts wait."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(*(webhook(f"e{person}", "B", "10:00", people=(person,)) for person in range(1, 31)))
        receiver.answers.extend([503] * 32)
        async with notifying(database, receiver.url) as metrics:
            await eventually(lambda: count(metrics, "failed") == 30)
            await eventually(lambda: len(receiver.posts) == 31)
            assert await recorder.count_waiting() == 30
        assert count(metrics, "failed") in (31, 32)


async def test_a_rejected_alert_delays_no_other_person(database: str) -> None:
    """An alert that is answered 400 is retried on its own while others are sent."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(webhook("e1", "B", "10:00"), webhook("e2", "B", "10:00", people=(2,)))
        receiver.answers.append(400)
        async with notifying(database, receiver.url) as metrics:
            await all_sent(metrics, 2)
        rejected = receiver.posts[0]["person_id"]
        assert [post["person_id"] == rejected for post in receiver.accepted] == [False, True]


async def test_an_alert_is_given_up_after_days(database: str) -> None:
    """An alert that was not accepted for days is removed and counted."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(webhook("e1", "B", "10:00"))
        await recorder.age(days=3.5)
        receiver.answers.append(500)
        async with notifying(database, receiver.url) as metrics:
            await eventually(lambda: count(metrics, "given_up") == 1)
        assert await recorder.count_waiting() == 0
        assert receiver.accepted == []


async def test_redirects_are_not_followed(database: str) -> None:
    """A redirect counts as a failure."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url) as metrics:
        receiver.answers.append(302)
        await recorder.record(webhook("e1", "B", "10:00"))
        await all_sent(metrics, 1)
        assert (count(metrics, "failed"), receiver.redirects_followed) == (1, 0)


async def test_two_instances_send_each_alert_once(database: str) -> None:
    """Two notifiers on one database share the alerts; none is sent twice."""
    people = range(1, 61)
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(*(webhook(f"b{person}", "B", "10:00", people=(person,)) for person in people))
        await recorder.record(*(webhook(f"c{person}", "C", "10:01", people=(person,)) for person in people))
        async with notifying(database, receiver.url) as one, notifying(database, receiver.url) as other:
            await eventually(lambda: count(one, "sent") + count(other, "sent") == 120, within_seconds=30.0)
        assert len(receiver.posts) == len({post["id"] for post in receiver.posts}) == 120
        assert all(stages(receiver.accepted, str(person)) == ["B", "C"] for person in people)
        assert await recorder.count_waiting() == 0


async def test_many_people_at_once_are_one_message(database: str) -> None:
    """It comes after an older alert of one of them and before a newer one, is repeated as a whole with the same id, and then over."""
    people = tuple(range(1, 32))
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "C", "09:59"))
        await recorder.record(webhook("e2", "B", "10:00", people=people), webhook("e3", "C", "10:01", people=(31,)))
        # One at a time after the first failure: the first alert, then each in turn.
        receiver.answers.extend((500, 200, 500))
        async with notifying(database, receiver.url) as metrics:
            await all_sent(metrics, 3)
        assert [post.get("person_id", post.get("count")) for post in receiver.accepted] == ["1", 31, "31"]
        assert len({post["id"] for post in receiver.posts}) == 3 < len(receiver.posts)
        digest = receiver.accepted[1]
        assert digest["text"] == (
            "31 people entered B: Ada Example, person 2, person 3, person 4, person 5 and 26 more.\nAll on 2026-01-05 at 04:00:00 CST."
        )
        assert [change["person_id"] for change in digest["changes"]] == [str(person) for person in people]
        assert await recorder.count_waiting() == 0


async def test_two_instances_send_a_digest_once(database: str) -> None:
    """Two digests about the same people stay in order, and five people are no digest."""
    async with alert_recorder(database) as recorder, receiving() as receiver:
        await recorder.record(*(webhook(stage, stage, when, people=tuple(range(1, 7))) for stage, when in (("B", "10:00"), ("C", "10:01"))))
        await recorder.record(webhook("e3", "B", "10:02", people=tuple(range(11, 16))))
        async with notifying(database, receiver.url) as one, notifying(database, receiver.url) as other:
            await eventually(lambda: count(one, "sent") + count(other, "sent") == 7)
        assert [post["changes"][0]["stage_to"] for post in receiver.posts if post["kind"] == "stages"] == ["B", "C"]
        assert sorted(post["person_id"] for post in receiver.posts if post["kind"] == "stage") == ["11", "12", "13", "14", "15"]


async def test_a_digest_that_is_given_up_counts_as_one_message(database: str) -> None:
    """As it would have been sent."""
    async with alert_recorder(database) as recorder:
        await recorder.record(webhook("e1", "B", "10:00", people=tuple(range(1, 8))), webhook("e2", "B", "10:00", people=(8,)))
        assert await recorder.outbox.give_up(older_than_days=0.0) == 2


async def test_a_database_outage_repeats_no_alert(database: str) -> None:
    """When the database goes away after an alert was sent and before it is settled, it is settled later and not sent again."""
    async with alert_recorder(database) as recorder, receiving() as receiver, Proxy(database) as proxy:
        await recorder.record(webhook("e1", "B", "10:00"))
        receiver.open.clear()
        async with notifying(proxy.dsn, receiver.url) as metrics:
            await eventually(lambda: receiver.posts)
            await proxy.refuse()
            await proxy.cut()
            receiver.open.set()
            await all_sent(metrics, 1)
            assert await recorder.count_waiting() == 1
            await proxy.accept()
            await eventually(recorder.is_empty)
        assert len(receiver.posts) == 1


async def test_a_hanging_receiver_does_not_delay_recording(database: str) -> None:
    """While the receiver does not answer, deliveries are recorded as usual."""
    async with alert_recorder(database) as recorder, receiving() as receiver, notifying(database, receiver.url):
        receiver.open.clear()
        await recorder.record(webhook("e1", "B", "10:00"))
        await eventually(lambda: receiver.posts)
        async with asyncio.timeout(60.0):
            await recorder.record(*(webhook(f"e{number}", "C", "11:00", people=(number,)) for number in range(2, 30)))
        receiver.open.set()


async def test_the_log_never_contains_the_url(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """The URL of a chat tool is a secret: no failure repeats it."""
    async with alert_recorder(database) as recorder:
        await recorder.record(webhook("e1", "B", "10:00"))
        async with notifying(database, "http://127.0.0.1:9/hidden-token") as metrics:
            await eventually(lambda: count(metrics, "failed") >= 1)
        async with notifying(database, f"http://{'x' * 70}.localhost/hidden-token") as others:
            await eventually(lambda: count(others, "failed") >= 1)
    assert caplog.text.count("cannot be sent to FUBD_ALERT_URL") == 2
    assert "hidden" not in caplog.text
    assert "localhost" not in caplog.text


async def test_the_next_process_repeats_the_alert_of_a_killed_one(database: str, tmp_path: Path) -> None:
    """After a kill between sending and settling, the alert is sent again with the same id, before the next one of that person.

    The next process also catches up on the summary of the day.
    """
    async with receiving() as receiver, running_stack(database, tmp_path) as stack:
        alerting = {"FUBD_ALERT_URL": receiver.url, "FUBD_ALERT_STAGES": '["Nurture", "Lead"]'}
        person, other = stack.account.ids[:2]
        async with stack.ready_daemon(**alerting) as process:
            # After the alert of mode steady, no other alert is waiting.
            stack.account.move(other, "ACQ - Qualified")
            await eventually(lambda: any(post.get("mode") == "steady" for post in receiver.accepted), 60.0)
            receiver.open.clear()
            stack.account.move(person, "Nurture")
            await eventually(lambda: stages(receiver.posts, str(person)))
            process.kill()
            await process.ended()
        stack.account.move(person, "Lead")
        receiver.open.set()
        # A claim of a killed process expires after a minute; this ends it at once. The summary was due while no process ran.
        await stack.fetch("UPDATE fubd.alert SET due_at = now()")
        await stack.fetch("UPDATE fubd.coverage SET began = began - interval '1 day'")
        alerting["FUBD_DAILY_SUMMARY"] = f"{datetime.now(UTC) - timedelta(hours=1):%H:%M}"
        async with stack.ready_daemon(**alerting):
            await eventually(lambda: "Lead" in stages(receiver.accepted, str(person)), 90.0)
            await eventually(lambda: any(post["kind"] == "summary" for post in receiver.accepted), 90.0)
        repeated = [post for post in receiver.posts if post.get("stage_to") == "Nurture"]
        assert len({post["id"] for post in repeated}) == 1 < len(repeated)
        # The receiver accepted the first one although its sender was already dead.
        assert stages(receiver.accepted, str(person)) == ["Nurture", "Nurture", "Lead"]


async def test_no_alert_of_the_past(database: str) -> None:
    """Neither of a change over an hour old, nor of what polling finds before the account was read completely once.

    The hour is counted on FUB's clock, which is five minutes behind ours here.
    """
    async with alert_recorder(database, skew_seconds=300.0) as recorder:
        await recorder.record(webhook("e1", "B", "09:24"), webhook("e2", "C", "09:26"))
        await recorder.record(read("A", "08:00", "09:00", person=2), read("B", "10:20", "10:25", person=2))
        assert await recorder.count_waiting() == 1
        async with recorder.pool.connection() as connection:
            await connection.execute("UPDATE fubd.coverage SET reached = now()")
        await recorder.record(read("A", "08:00", "09:00", person=3), read("B", "10:20", "10:25", person=3))
        assert await recorder.count_waiting() == 2
        # A person of an older script's row that the first complete read left out: what the first read finds may be of any age.
        async with recorder.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO stage_changes (person_id, stage_to, changed_at, received_at, source)"
                " VALUES ('4', 'A', '2026-01-01 08:00+00', now(), 'polling')"
            )
            assert await count_foreign_rows(connection) == 1
        await recorder.record(read("B", "10:20", "10:25", person=4))
        assert await recorder.count_waiting() == 2
        await recorder.record(read("C", "10:26", "10:29", person=4))
        assert await recorder.count_waiting() == 3
