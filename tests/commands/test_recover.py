"""A recovery run as an operator starts it: the real process, against a simulated account and a real database."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fubd.core.stored_state import ModeRecord
from fubd.simulator import Faults
from fubd.store import Pool, StateStore
from fubd.store.dsn import parse
from fubd.store.status import StatusReader
from tests.commands.environment import environment
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

KEYS = {"caught_up", "recovered", "people_read", "api_calls", "coverage", "seconds"}


async def test_changes_since_the_last_run_are_recovered(database: str, tmp_path: Path) -> None:
    """The first run reads everyone; the next recovers those who moved since and counts them on its last line; the third finds nothing.

    Where nothing changed it takes twenty round trips. A second connection is only opened where the machine is so slow that a wait looks
    like a lock, which is then looked up.
    """
    async with Proxy(database) as proxy, environment(proxy.dsn, tmp_path) as here:
        first = await here.run("--poll-only", "--json")
        assert (first.code, set(first.json)) == (0, KEYS)
        assert (first.json["caught_up"], first.json["recovered"]) == (True, 0)
        assert first.json["people_read"] >= 250
        here.account.bulk_move(here.account.ids[:7], "Nurture")
        here.advance()
        second = await here.run("--poll-only")
        assert (second.code, second.lines[-1]) == (0, "recovered 7 changes")
        assert any(str(here.account.ids[6]) in line and line.split("  ")[-2].strip() == "Nurture" for line in second.lines)
        assert any("7 changes found" in line for line in second.errors)
        before = proxy.connections, proxy.round_trips
        third = await here.run("--poll-only", "--json")
        assert proxy.connections - before[0] > 1 or proxy.round_trips - before[1] < 24
        assert third.json["recovered"] == 0
        assert third.json["coverage"] > first.json["coverage"]


async def test_full_reads_everyone(database: str, tmp_path: Path) -> None:
    """With --full it reads every person again, however little changed; without it a page of the newest people shows how to read."""
    async with environment(database, tmp_path) as here:
        await here.run("--poll-only")
        here.advance(600.0)
        assert (await here.run("--poll-only", "--json")).json["people_read"] <= 150
        assert (await here.run("--poll-only", "--full", "--json")).json["people_read"] >= 250


async def test_the_lease_is_left_alone(database: str, tmp_path: Path) -> None:
    """While a daemon holds the lease, the run neither waits for it nor takes it."""
    async with environment(database, tmp_path, people=20) as here:
        pool = Pool(parse(database))
        token = await StateStore(pool).acquire_lease("the daemon", ttl_seconds=600)
        assert (await here.run("--poll-only")).code == 0
        assert await StateStore(pool).acquire_lease("the daemon", ttl_seconds=600) == token
        await pool.close()


async def test_the_reason_of_a_failure_is_one_line(database: str, tmp_path: Path) -> None:
    """Refused by FUB, or without its database, it exits 1 and says why in one line without a traceback."""
    async with environment(database, tmp_path, people=20) as here:
        refused = await here.run("--poll-only", "--json", FUB_API_KEY="another-key")
        assert (refused.code, refused.json["caught_up"]) == (1, False)
        assert [line for line in refused.errors if line.startswith("fubd: ")] == refused.errors
        assert "401" in refused.errors[0]
        unreachable = await here.run("--poll-only", DATABASE_URL="postgresql://user@127.0.0.1:9/nothing")
        assert (unreachable.code, unreachable.lines, len(unreachable.errors)) == (1, [], 1)
        bad = await here.run("--poll-only", FUB_API_KEY="")
        assert (bad.code, bad.errors[0].split(":")[1].strip()) == (2, "FUB_API_KEY")


async def test_an_interrupted_run_is_continued_by_the_next(database: str, tmp_path: Path) -> None:
    """Ctrl-C ends it soon, even while FUB hangs; it prints how far it came, and the next run finishes."""
    async with environment(database, tmp_path) as here:
        here.simulator.script("identity", None)
        here.simulator.script("people", None, None, None)
        here.simulator.faults = Faults(hang=1.0)
        async with here.running("--poll-only", "--full") as process:
            await eventually(lambda: len(process.errors) > 0, 30.0)
            process.signal(signal.SIGINT)
            assert await process.ended(within_seconds=10.0) == 1
        assert process.lines[-1].startswith("recovered ")
        assert any("interrupted: nothing is covered yet" in line and "run it again to continue" in line for line in process.errors)
        here.simulator.faults = Faults()
        assert (await here.run("--poll-only")).code == 0


async def test_forever_polls_until_it_is_stopped(database: str, tmp_path: Path) -> None:
    """With --forever it recovers later changes too, prints each result, and ends with 0 on SIGTERM."""
    async with (
        environment(database, tmp_path, people=20) as here,
        here.running("--poll-only", "--forever", FUBD_POLL_INTERVAL_FAILOVER="0.1") as process,
    ):
        await process.line("recovered 0 changes")
        here.account.move(here.account.ids[0], "ACQ - Offers Made")
        await process.line("recovered 1 changes")
        process.terminate()
        assert await process.ended() == 0


async def test_refetch_requests_of_a_dead_daemon_are_processed(database: str, tmp_path: Path) -> None:
    """People asked for are read although unchanged, and deleted ones are marked; while a daemon runs they are left to it."""
    async with environment(database, tmp_path, people=130) as here:
        assert (await here.run("--poll-only")).code == 0
        here.advance(600.0)
        assert (await here.run("--poll-only")).code == 0
        pool = Pool(parse(database))
        state = StateStore(pool)
        async with pool.connection() as connection:
            # The hundred newest are read in any case.
            there, deleted = [row["id"] for row in await connection.fetch("SELECT id FROM fubd.person ORDER BY updated LIMIT 2")]
            here.account.delete(deleted)
            for person, is_deleted in ((there, False), (deleted, True)):
                await connection.execute(
                    "INSERT INTO fubd.hint (person_id, since, asked_at, deleted) VALUES ($1, now() - interval '1 hour', now(), $2)",
                    person,
                    is_deleted,
                )
        await state.acquire_lease("the daemon", ttl_seconds=600)
        assert (await here.run("--poll-only")).code == 0
        assert len(await state.due_refetches(10)) == 2
        await state.release_lease("the daemon")
        done = await here.run("--poll-only", "--json")
        assert (done.code, done.json["caught_up"], done.json["recovered"]) == (0, True, 0)
        assert await state.due_refetches(10) == []
        async with pool.connection() as connection:
            assert await connection.fetchval("SELECT gone_at IS NOT NULL FROM fubd.person WHERE id = $1", deleted)
        await pool.close()


async def test_blind_time_begins_when_the_run_ends(database: str, tmp_path: Path) -> None:
    """After a recovery run no source is alive, whatever a dead daemon had planned; a stand-in is alive until its next poll is late."""
    async with environment(database, tmp_path, people=20) as here:
        pool = Pool(parse(database))
        await StateStore(pool).insert_mode(ModeRecord("steady", "because", 1800.0, datetime.now(UTC)), evidence={})
        assert (await here.run("--poll-only")).code == 0
        after = datetime.now(UTC)
        reader = StatusReader(pool)
        assert await reader.blind_seconds(after, after + timedelta(minutes=10)) == 600
        async with here.running("--poll-only", "--forever", FUBD_POLL_INTERVAL_FAILOVER="60") as process:
            await process.line("recovered 0 changes")
        after = datetime.now(UTC)
        blind = await reader.blind_seconds(after, after + timedelta(minutes=10))
        assert blind is not None
        assert 480 <= blind < 540
        await pool.close()


async def test_forever_stands_in_for_the_daemon(database: str, tmp_path: Path) -> None:
    """With --forever it also processes refetch requests, and verifies people as often as the daemon would; SIGINT ends it with 0."""
    async with (
        environment(database, tmp_path, people=20) as here,
        here.running(
            "--poll-only", "--forever", "--json", FUBD_POLL_INTERVAL_FAILOVER="0.1", FUBD_POLL_INTERVAL="0.5", FUBD_SCRUB_BATCHES="1"
        ) as process,
    ):
        await process.line("caught_up")
        pool = Pool(parse(database))

        async def verified_again() -> bool:
            async with pool.connection() as connection:
                runs = await connection.fetchval(
                    "SELECT count(*) FROM fubd.poll_run WHERE kind = 'scrub' AND outcome = 'ok' AND people > 0"
                )
            return int(runs) >= 2

        await eventually(verified_again, 30.0)
        async with pool.connection() as connection:
            await connection.execute(
                "INSERT INTO fubd.hint (person_id, since, asked_at) VALUES ($1, now() - interval '1 hour', now())", here.account.ids[0]
            )

        async def read() -> bool:
            return await StateStore(pool).due_refetches(10) == []

        await eventually(read, 30.0)
        await pool.close()
        process.signal(signal.SIGINT)
        assert await process.ended() == 0
        assert all(set(json.loads(line)) == KEYS for line in process.lines)
