"""One database, one account: a key of another account writes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from fubd.account import AccountGuard
from fubd.clock import SystemClock
from fubd.core.api import AccountIdentity
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.errors import AccountMismatch, FubRefused, Malformed, Unavailable
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.problems import Problems
from fubd.simulator import Account
from fubd.store import Pool, StateStore
from fubd.store.dsn import parse
from fubd.subscriptions import NoWebhookHosts, SubscriptionManager
from tests.commands.environment import environment
from tests.poller.fake_fub import FakeAccount, FakeFubApi
from tests.support.alert_receiver import Receiver, receiving
from tests.support.ports import free_port
from tests.support.waiting import eventually

_FORGET = ("forget", "1001", "--yes")
OURS, OTHER = AccountIdentity(3, "acme"), AccountIdentity(4, None)


class _Client:
    """Gives its answers one after the other, then the last one again; "hangs" never answers."""

    def __init__(self, *answers: AccountIdentity | Exception | str | None) -> None:
        self._answers = deque(answers)

    async def identity(self) -> AccountIdentity | None:
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            await asyncio.Event().wait()
        return answer if isinstance(answer, AccountIdentity) else None


class _Store:
    def __init__(self, kept: AccountIdentity | None) -> None:
        self.kept = kept

    async def account(self) -> AccountIdentity | None:
        return self.kept

    async def keep_account(self, account: AccountIdentity) -> AccountIdentity:
        self.kept = self.kept or account
        return self.kept


def _guard(store: _Store, *answers: AccountIdentity | Exception | str | None) -> tuple[AccountGuard, Problems]:
    clock = SystemClock(1000.0)
    problems = Problems(clock, Metrics(CollectorRegistry()))
    return AccountGuard(_Client(*answers), store, problems, clock, answer_within_seconds=0.05), problems


@pytest.mark.parametrize("kept", [None, OURS, AccountIdentity(3, "an older name")])
async def test_the_first_account_is_kept_and_recognized(kept: AccountIdentity | None) -> None:
    """By its id alone: a name may change."""
    store = _Store(kept)
    guard, problems = _guard(store, OURS)
    await guard.verify()
    assert guard.known == store.kept == (kept or OURS)
    assert problems.current() == ()


async def test_another_account_is_refused_and_both_are_named() -> None:
    """The account of the database stays."""
    store = _Store(OURS)
    guard, problems = _guard(store, OTHER)
    with pytest.raises(AccountMismatch, match=r"with the id 4, .* acme \(id 3\)\..* FUB_API_KEY .* DATABASE_URL"):
        await guard.verify()
    assert guard.known == store.kept == OURS
    assert [problem.name for problem in problems.current()] == ["account_mismatch"]


@pytest.mark.parametrize("answer", ["hangs", None, Unavailable("503"), Malformed("no JSON"), FubRefused("no", status=403)])
@pytest.mark.parametrize("kept", [None, OURS])
async def test_an_unknown_account_is_said_once_and_holds_up_nothing(
    answer: Exception | str | None, kept: AccountIdentity | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is kept."""
    store = _Store(kept)
    guard, problems = _guard(store, answer)
    with caplog.at_level(logging.WARNING):
        await guard.verify()
    assert guard.known == store.kept == kept
    assert (len(caplog.records), problems.current()) == (1, ())


async def test_an_unknown_account_is_asked_for_again() -> None:
    """Until it is known: the same account is no news, another one ends the daemon."""
    stop = asyncio.Event()
    guard, problems = _guard(_Store(OURS), None, "hangs", Unavailable("503"), replace(OURS, domain="acme"))
    await guard.verify()
    running = asyncio.create_task(guard.run(stop))
    await eventually(lambda: guard.known is not None and guard.known.domain == "acme")
    stop.set()
    await running
    assert problems.current() == ()
    guard, problems = _guard(_Store(OURS), None, OTHER)
    await guard.verify()
    with pytest.raises(AccountMismatch):
        await guard.run(asyncio.Event())
    assert [problem.name for problem in problems.current()] == ["account_mismatch"]


async def test_an_account_is_compared_again_when_required_and_after_a_while() -> None:
    """A key may come to belong to another account while the daemon runs. The address of the account outlives a failed comparison."""
    known = replace(OURS, domain="acme")
    guard, problems = _guard(_Store(OURS), known, Unavailable("503"), known, OTHER)
    await guard.verify_if_due(3600.0)
    await guard.verify()
    await guard.verify_if_due(3600.0)
    guard.require_verification()
    await guard.verify_if_due(3600.0)
    assert guard.known == known
    await guard.verify_if_due(0.0)
    guard.require_verification()
    with pytest.raises(AccountMismatch):
        await guard.verify_if_due(3600.0)
    assert [problem.name for problem in problems.current()] == ["account_mismatch"]


async def test_nothing_is_registered_in_another_account() -> None:
    """Webhooks that are gone may mean that the key reads another account by now: that is found out before any is made."""
    api, clock, metrics = FakeFubApi(FakeAccount()), SystemClock(1000.0), Metrics(CollectorRegistry())
    guard, problems = _guard(_Store(OURS), OURS, OURS, OURS, OTHER)
    manager = SubscriptionManager(
        api,
        metrics,
        problems,
        NoWebhookHosts(),
        clock,
        public_url="https://fubd.example.net",
        manage=True,
        lease=LocalLease(),
        account=guard,
    )
    await manager.check()
    assert len(api.registry) == len(SUBSCRIBED_EVENTS)
    assert (await manager.check()).was_broken is None
    api.registry.clear()
    await clock.pause(120.0)
    with pytest.raises(AccountMismatch):
        await manager.check()
    assert api.registry == {}


async def test_a_database_keeps_one_account(database: str) -> None:
    """The first, until its row is deleted."""
    pool = Pool(parse(database))
    state = StateStore(pool)
    assert await state.account() is None
    assert await state.keep_account(OURS) == await state.keep_account(OTHER) == await state.account() == OURS
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM fubd.account")
    assert await state.keep_account(OTHER) == OTHER
    await pool.close()


@pytest.mark.slow
async def test_the_key_of_another_account_invents_nothing(database: str, tmp_path: Path) -> None:
    """Its people have the same ids. Every command that would write ends with 2 and names both; `check` says so.

    A daemon that runs compares again before the poll after a refused key. The alert about a mismatch goes out before the daemon ends, once
    however often it is started, and so does the one that it is over.
    """
    async with environment(database, tmp_path, people=60) as here, receiving() as receiver:
        port = str(free_port())
        assert (await here.run("--poll-only")).code == 0
        async with here.running(PORT=port, FUBD_POLL_INTERVAL="0.2", FUBD_POLL_INTERVAL_FAILOVER="0.2") as daemon:

            async def account() -> bool:
                return b'"account":{"id":4000007,"name":"simulated-7"}' in await daemon.answers(f"http://127.0.0.1:{port}/health")

            await eventually(account)
            here.simulator.keys.revoke("test-api-key")

            async def refused_key() -> bool:
                return b'"key_refused"' in await daemon.answers(f"http://127.0.0.1:{port}/health")

            await eventually(refused_key)
            before = await _rows(database)
            here.simulator.put_behind_key(Account(seed=8, people=60, clock=here.account.clock))
            here.advance()
            here.simulator.keys.add("test-api-key")
            assert await daemon.ended() == 2
            assert "simulated-8 (id 4000008)" in daemon.errors[-1]
            assert await _rows(database) == before
        for arguments in ((), (), ("--poll-only",), ("--poll-only", "--full"), ("audit", "--fix"), ("replay",), _FORGET):
            refused = await here.run(*arguments, PORT=port, FUBD_ALERT_URL=receiver.url)
            assert refused.code == 2, (arguments, refused)
            assert "simulated-8 (id 4000008)" in refused.errors[-1], arguments
            assert "simulated-7 (id 4000007)" in refused.errors[-1], arguments
        assert await _rows(database) == before
        assert (await here.run("replay", FUB_API_KEY="")).code == 0
        assert _problems(receiver) == [("account_mismatch", "begin")]
        assert "simulated-8 (id 4000008)" in receiver.accepted[0]["text"]
        check = await here.run("check", "--json")
        assert check.code == 1
        assert [one["status"] for one in check.json["checks"] if one["name"] == "account"] == ["fix"]
        here.simulator.put_behind_key(None)
        assert (await here.run("--poll-only")).code == 0
        async with here.running(PORT=port, FUBD_ALERT_URL=receiver.url):
            await eventually(lambda: len(_problems(receiver)) == 2, 30.0)
        assert _problems(receiver) == [("account_mismatch", "begin"), ("account_mismatch", "end")]


def _problems(receiver: Receiver) -> list[tuple[str, str]]:
    return [(post["problem"], post["event"]) for post in receiver.accepted if post["kind"] == "problem"]


async def _rows(database: str) -> tuple[int, int]:
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetchval("SELECT count(*) FROM public.stage_changes"), await connection.fetchval(
            "SELECT count(*) FROM fubd.claim"
        )
    finally:
        await connection.close()
