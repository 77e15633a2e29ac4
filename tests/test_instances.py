"""Two instances on one database, as at every deploy: both record webhooks, one polls, and either may fail at any time."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.stack import Stack, assert_perfect, event, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

# What is promised. A lease lasts 11 s and is asked for every second; the rest is for a busy machine.
_TAKEOVER_SECONDS = 15.0


async def _is_leader(stack: Stack) -> bool:
    return (await stack.metrics())["fubd_lease_held"] == 1


async def test_both_record_webhooks_and_the_survivor_takes_over_polling(database: str, fubd_database: str, tmp_path: Path) -> None:
    """A delivery sent to both is recorded once; one polls, and when it is killed the other polls within 15 s."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as one, one.ready_daemon() as first:
        two = one.second_instance()
        async with two.daemon() as second:
            await second.answers(f"{two.url}/readyz")
            bodies = [
                event(
                    f"33333333-0000-4000-8000-{number:012}",
                    "Nurture" if one.account.stage_of(person) != "Nurture" else "Lead",
                    datetime.now(UTC) - timedelta(seconds=100 - number),
                    [person],
                )
                for number, person in enumerate(list(one.account.ids)[:50])
            ]
            answers = await asyncio.gather(*(each.post(body) for body in bodies for each in (one, two)))
            assert [answer[0] for answer in answers] == [200] * 100
            rows = await one.fetch("SELECT count(*) AS rows FROM public.stage_changes WHERE event_id LIKE '33333333-%'")
            assert rows[0]["rows"] == 50
            assert [await _is_leader(one), await _is_leader(two)] == [True, False]
            first.kill()
            await first.ended()
            await eventually(lambda: _is_leader(two), _TAKEOVER_SECONDS)


async def test_a_suspended_instance_does_no_harm_when_it_continues(database: str, tmp_path: Path) -> None:
    """Suspended under load for longer than its lease: no two polls at a time, nothing doubled, coverage never goes back."""
    async with running_stack(database, tmp_path) as one, one.ready_daemon() as first:
        two, rng = one.second_instance(), Random(4)
        people = rng.sample(list(one.account.ids), 90)
        async with two.daemon() as second:
            await second.answers(f"{two.url}/readyz")
            for person in people[:30]:
                one.move_randomly(rng, people=[person])
            first.signal(signal.SIGSTOP)
            for person in people[30:60]:
                one.move_randomly(rng, people=[person])
            await eventually(lambda: _is_leader(two), _TAKEOVER_SECONDS)
            instant = datetime.now(UTC)
            await eventually(lambda: _has_polled_since(one, instant), 30.0)
            (lease,) = await one.fetch("SELECT holder, token FROM fubd.lease")
            (coverage,) = await one.fetch("SELECT reached FROM fubd.coverage")
            first.signal(signal.SIGCONT)
            for person in people[60:]:
                one.move_randomly(rng, people=[person])
            assert_perfect(await one.final_score())
            assert (first.code, second.code) == (None, None)
            await eventually(one.is_balanced, 45.0)
            await eventually(two.is_balanced, 45.0)
            assert [await _is_leader(one), await _is_leader(two)] == [False, True]
            assert await one.fetch("SELECT holder, token FROM fubd.lease") == [lease]
            assert (await one.fetch("SELECT reached FROM fubd.coverage"))[0]["reached"] >= coverage["reached"]
            assert (
                await one.fetch("SELECT a.id FROM fubd.poll_run a JOIN fubd.poll_run b ON a.id < b.id AND b.started_at < a.finished_at")
                == []
            )


async def _has_polled_since(stack: Stack, instant: datetime) -> bool:
    """Return whether a poll that started after an instant is complete."""
    rows = await stack.fetch("SELECT 1 FROM fubd.poll_run WHERE outcome = 'ok' AND kind = 'incremental' AND started_at > $1", instant)
    return bool(rows)


async def test_a_deploy_hands_over_at_once_and_refuses_no_delivery(database: str, fubd_database: str, tmp_path: Path) -> None:
    """The new instance starts, then the old one is stopped under load: no 5xx from either, nothing lost, nothing doubled."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as old, old.ready_daemon() as old_process:
        new = old.second_instance()
        async with new.daemon() as new_process:
            await new_process.answers(f"{new.url}/readyz")
            sender = _Sender(old, new)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(sender.send()) for _ in range(8)]
                await eventually(lambda: sender.sent > 50, 30.0)
                old_process.terminate()
                assert await old_process.ended(within_seconds=10.0) == 0
                # The new instance tries to acquire the lease every second.
                await eventually(lambda: _is_leader(new), 10.0)
                more = sender.sent + 50
                await eventually(lambda: sender.sent > more, 30.0)
                sender.done = True
                await asyncio.wait(tasks)
            assert set(sender.statuses) == {200}
            (row,) = await old.fetch("SELECT count(*) AS rows FROM public.stage_changes WHERE event_id LIKE 'deploy-%'")
            assert row["rows"] == sender.sent
            assert old_process.errors == []
            await eventually(new.is_balanced, 45.0)


class _Sender:
    """Sends deliveries without a pause, each about another person, to the old instance until it stops listening."""

    def __init__(self, old: Stack, new: Stack) -> None:
        self._targets = [old, new]
        self._first_at = datetime.now(UTC) - timedelta(hours=1)
        self._number = 0
        self.statuses: list[int] = []
        self.done = False

    @property
    def sent(self) -> int:
        """How many deliveries were answered."""
        return len(self.statuses)

    async def send(self) -> None:
        """Send until `done`."""
        while not self.done:
            self._number += 1
            number = self._number
            body = event(f"deploy-{number}", "Nurture", self._first_at + timedelta(seconds=number), [10_000_000 + number])
            self.statuses.append(await self._post(body))

    async def _post(self, body: bytes) -> int:
        try:
            return (await self._targets[0].post(body))[0]
        except aiohttp.ClientError:
            # Not accepted: the sender retries, and by then the address belongs to the new instance.
            return (await self._targets[1].post(body))[0]
