"""Two instances on one database, as at every deploy: both take webhooks, one polls, and neither does harm whatever becomes of the other."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import aiohttp

from tests.stack import Stack, event, running_stack
from tests.support.waiting import eventually
from tests.test_daemon import assert_clean, move_some

# The term of a lease is 10 s.
_TAKEN_OVER_SECONDS = 15.0


async def _holds(stack: Stack) -> bool:
    return (await stack.metrics())["fubd_lease_held"] == 1


async def _balanced(stack: Stack) -> bool:
    metrics = await stack.metrics()
    return metrics["fubd_ledger_imbalance"] == 0 == metrics["fubd_chain_violations"]


async def test_both_take_webhooks_and_a_dead_ones_work_is_taken_over(database: str, fubd_database: str, tmp_path: Path) -> None:
    """What both are told is recorded once; one polls, and when it is killed the other does within 15 s."""
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
            assert [await _holds(one), await _holds(two)] == [True, False]
            first.kill()
            await first.ended()
            await eventually(lambda: _holds(two), _TAKEN_OVER_SECONDS)


async def test_a_stopped_instance_that_goes_on_does_no_harm(database: str, tmp_path: Path) -> None:
    """Stopped under load for longer than its lease, and continued: no poll beside the other's, nothing told twice, coverage never back."""
    async with running_stack(database, tmp_path) as one, one.ready_daemon() as first:
        two, chance = one.second_instance(), Random(4)
        people = chance.sample(list(one.account.ids), 90)
        async with two.daemon() as second:
            await second.answers(f"{two.url}/readyz")
            for person in people[:30]:
                move_some(one, chance, 1, people=[person])
            first.signal(signal.SIGSTOP)
            for person in people[30:60]:
                move_some(one, chance, 1, people=[person])
            await eventually(lambda: _holds(two), _TAKEN_OVER_SECONDS)
            instant = datetime.now(UTC)
            await eventually(lambda: _covers(one, instant), 30.0)
            (lease,) = await one.fetch("SELECT holder, token FROM fubd.lease")
            (coverage,) = await one.fetch("SELECT reached FROM fubd.coverage")
            first.signal(signal.SIGCONT)
            for person in people[60:]:
                move_some(one, chance, 1, people=[person])
            assert_clean(await one.final_score())
            assert (first.code, second.code) == (None, None)
            await eventually(lambda: _balanced(one), 20.0)
            await eventually(lambda: _balanced(two), 20.0)
            assert [await _holds(one), await _holds(two)] == [False, True]
            assert await one.fetch("SELECT holder, token FROM fubd.lease") == [lease]
            assert (await one.fetch("SELECT reached FROM fubd.coverage"))[0]["reached"] >= coverage["reached"]
            assert (
                await one.fetch("SELECT a.id FROM fubd.poll_run a JOIN fubd.poll_run b ON a.id < b.id AND b.started_at < a.finished_at")
                == []
            )


async def _covers(stack: Stack, instant: datetime) -> bool:
    """Tell whether a poll was completed that began after an instant."""
    rows = await stack.fetch("SELECT 1 FROM fubd.poll_run WHERE outcome = 'ok' AND kind = 'incremental' AND started_at > $1", instant)
    return bool(rows)


async def test_a_deploy_hands_over_at_once_and_refuses_nobody(database: str, fubd_database: str, tmp_path: Path) -> None:
    """The new one starts beside the old, the old is told to stop under load: no 5xx from either, nothing lost, nothing told twice."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as old, old.ready_daemon() as leaving:
        new = old.second_instance()
        async with new.daemon() as coming:
            await coming.answers(f"{new.url}/readyz")
            sender = _Sender(old, new)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(sender.send()) for _ in range(8)]
                await eventually(lambda: sender.sent > 50, 30.0)
                leaving.terminate()
                assert await leaving.ended(within_seconds=10.0) == 0
                # What is left to wait for is its next look at the lease.
                await eventually(lambda: _holds(new), 5.0)
                more = sender.sent + 50
                await eventually(lambda: sender.sent > more, 30.0)
                sender.over = True
                await asyncio.wait(tasks)
            assert set(sender.statuses) == {200}
            (kept,) = await old.fetch("SELECT count(*) AS rows FROM public.stage_changes WHERE event_id LIKE 'deploy-%'")
            assert kept["rows"] == sender.sent
            assert leaving.errors == []
            await eventually(lambda: _balanced(new), 15.0)


class _Sender:
    """Sends deliveries without a pause, each about another person, to the old instance until that takes none any more."""

    def __init__(self, old: Stack, new: Stack) -> None:
        self._to = [old, new]
        self._begun = datetime.now(UTC) - timedelta(hours=1)
        self._number = 0
        self.statuses: list[int] = []
        self.over = False

    @property
    def sent(self) -> int:
        """How many were answered."""
        return len(self.statuses)

    async def send(self) -> None:
        """Send until it is over."""
        while not self.over:
            self._number += 1
            number = self._number
            body = event(f"deploy-{number}", "Nurture", self._begun + timedelta(seconds=number), [10_000_000 + number])
            self.statuses.append(await self._answer(body))

    async def _answer(self, body: bytes) -> int:
        try:
            return (await self._to[0].post(body))[0]
        except aiohttp.ClientError:
            # Not taken: the sender comes again, and by then the address leads to the new one.
            return (await self._to[1].post(body))[0]
