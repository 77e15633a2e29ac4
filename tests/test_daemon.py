"""The whole daemon as a process, between a simulated account and a real database: in good times, and when things break."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random

import aiohttp
import asyncpg
import pytest

from fubd.simulator import Score
from fubd.store.dsn import parse
from tests.stack import Stack, event, running_stack
from tests.support.ports import free_port
from tests.support.process import fubd
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

STAGES = ("Lead", "ACQ - Qualified", "ACQ - Offers Made", "Nurture", "ACQ - Contract Sent")


def move_some(stack: Stack, rng: Random, count: int, *, people: list[int] | None = None) -> None:
    """Move people at random, several of them back and forth."""
    for _ in range(count):
        person = rng.choice(people or list(stack.account.ids))
        stage = rng.choice([name for name in STAGES if name != stack.account.stage_of(person)])
        stack.account.move(person, stage)


def assert_clean(found: Score) -> None:
    """Nothing lost, doubled, invented, out of order, or dated wrongly."""
    assert found.is_perfect, found.discrepancies[:5]


async def test_every_change_is_recorded_once_and_the_books_balance(database: str, fubd_database: str, tmp_path: Path) -> None:
    """Quick moves, a bulk edit of 100 and newcomers: every change a row, exact in time, names filled, ledger and chain at 0."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack, stack.ready_daemon() as process:
        rng = Random(1)
        move_some(stack, rng, 150)
        stack.account.bulk_move(list(stack.account.ids)[:100], "Nurture")
        newcomer = stack.account.create(stage="Lead", via="lead_flow")
        await stack.simulator.deliveries.drain()
        assert_clean(await stack.final_score())

        async def filled() -> bool:
            rows = await stack.fetch(
                "SELECT count(*) AS bare FROM public.stage_changes WHERE first_name IS NULL OR assigned_user_name IS NULL"
            )
            return int(rows[0]["bare"]) == 0

        await eventually(filled, 90.0)
        (row,) = await stack.fetch("SELECT * FROM public.stage_changes WHERE person_id = $1", str(newcomer))
        assert (row["stage_from"], row["stage_to"]) == (None, "Lead")
        await eventually(lambda: _balanced(stack), 15.0)
        process.terminate()
        assert await process.ended() == 0
        assert process.errors == []


async def test_webhooks_die_polling_takes_over_and_gives_back(database: str, fubd_database: str, tmp_path: Path) -> None:
    """Failover within a watch poll of the first miss, every change caught, recovery when webhooks return, steady in the end."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack, stack.ready_daemon():
        rng = Random(2)
        move_some(stack, rng, 10)
        await eventually(lambda: _mode(stack, "steady"), 30.0)
        stack.simulator.deliveries.kill()
        for person in rng.sample(list(stack.account.ids), 20):
            move_some(stack, rng, 1, people=[person])
        await eventually(lambda: _mode(stack, "failover"), 30.0)
        assert_clean(await stack.final_score())
        stack.simulator.deliveries.revive()
        move_some(stack, rng, 3)
        await eventually(lambda: _mode(stack, "recovering"), 30.0)
        await eventually(lambda: _mode(stack, "steady"), 60.0)
        assert_clean(await stack.final_score())
        modes = [row["mode"] for row in await stack.fetch("SELECT mode FROM fubd.mode_change ORDER BY id")]
        assert modes[-3:] == ["failover", "recovering", "steady"]


async def _mode(stack: Stack, wanted: str) -> bool:
    return bool((await stack.get("/health"))["mode"] == wanted)


async def test_killed_under_load_it_loses_and_doubles_nothing(database: str, fubd_database: str, tmp_path: Path) -> None:
    """SIGKILL three times while changes pour in: FUB's retries and the next polls complete the table, each change once."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack:
        rng = Random(3)
        people = list(stack.account.ids)
        async with stack.ready_daemon():
            pass
        loop, poured_at = asyncio.get_running_loop(), 0.0
        for _ in range(3):
            async with stack.daemon() as process:
                await process.answers(f"{stack.url}/readyz")
                # Not in the second of the wave before: whose moves of one second arrive a minute apart, nobody can put in order.
                await eventually(partial(_is_past, loop, poured_at + 1.5))
                enough = len(stack.simulator.deliveries.attempts) + rng.randrange(3, 70)
                load = asyncio.create_task(_pour(stack, rng, people))
                await eventually(partial(_attempted, stack, enough), 20.0)
                process.kill()
                assert await process.ended() == -signal.SIGKILL
                await load
                poured_at = loop.time()
        async with stack.ready_daemon():
            # FUB tries again a minute later what nobody took; polling has found what it can by then. Its time goes faster now.
            stack.account.clock.speed = 10.0
            assert_clean(await stack.final_score(within_seconds=60.0))


def _attempted(stack: Stack, enough: int) -> bool:
    return len(stack.simulator.deliveries.attempts) >= enough


def _is_past(loop: asyncio.AbstractEventLoop, instant: float) -> bool:
    return loop.time() > instant


async def _pour(stack: Stack, rng: Random, people: list[int]) -> None:
    """Move each of 80 people once."""
    for person in rng.sample(people, 80):
        move_some(stack, rng, 1, people=[person])
        await asyncio.sleep(0)


async def test_a_database_outage_costs_nothing(database: str, fubd_database: str, tmp_path: Path) -> None:
    """503 with Retry-After within 5 s while it is away, what was refused is kept, and FUB's own retry is then a duplicate."""
    async with Proxy(fubd_database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack, stack.ready_daemon():
        person = stack.account.ids[0]
        body = event("11111111-0000-4000-8000-000000000001", "Nurture", datetime.now(UTC), [person])
        await proxy.refuse()
        await proxy.cut()
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, headers = await stack.post(body)
        assert (status, headers["Retry-After"].isdigit()) == (503, True)
        assert loop.time() - began < 5.5
        assert (await stack.get("/health"))["mode"]
        await proxy.accept()

        async def stored() -> bool:
            return bool(await stack.fetch("SELECT 1 FROM public.stage_changes WHERE event_id = $1", "11111111-0000-4000-8000-000000000001"))

        await eventually(stored, 30.0)
        assert (await stack.post(body))[0] == 200
        metrics = await stack.metrics()
        assert metrics["fubd_webhook_deliveries_total{outcome=duplicate}"] == 1
        assert metrics["fubd_webhook_deliveries_total{outcome=unavailable}"] == 1

        async def balanced() -> bool:
            return (await stack.metrics())["fubd_ledger_imbalance"] == 0

        await eventually(balanced, 15.0)


async def test_a_lost_reply_to_commit_doubles_nothing(database: str, fubd_database: str, tmp_path: Path) -> None:
    """The transaction is done again; its keys make that harmless, and the delivery counts as new, not as a duplicate."""
    async with Proxy(fubd_database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack, stack.ready_daemon():
        person = stack.account.ids[0]
        proxy.lost_commit_replies = 1
        body = event("22222222-0000-4000-8000-000000000001", "Nurture", datetime.now(UTC), [person])
        assert (await stack.post(body))[0] == 200
        rows = await stack.fetch("SELECT 1 FROM public.stage_changes WHERE event_id = $1", "22222222-0000-4000-8000-000000000001")
        assert len(rows) == 1

        async def balanced() -> bool:
            return (await stack.metrics())["fubd_ledger_imbalance"] == 0

        await eventually(balanced, 15.0)


async def test_it_listens_before_the_database_answers(database: str, fubd_database: str, tmp_path: Path) -> None:
    """A database that is down ends nothing: alive, not ready with the reason, and ready once it is there."""
    async with Proxy(fubd_database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack:
        await proxy.refuse()
        async with stack.daemon() as process:
            await process.answers(f"{stack.url}/healthz")
            reason = await process.answers(f"{stack.url}/readyz", status=503)
            assert b"database" in reason
            await proxy.accept()
            await process.answers(f"{stack.url}/readyz", within_seconds=40.0)


async def test_a_stop_under_load_answers_everything_it_accepted(database: str, fubd_database: str, tmp_path: Path) -> None:
    """SIGTERM drains within 10 s: no accepted delivery is lost or answered 5xx, and the process ends with 0."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack, stack.ready_daemon() as process:
        bodies = [
            event(
                f"44444444-0000-4000-8000-{number:012}",
                STAGES[number % 5],
                datetime.now(UTC) - timedelta(hours=1, seconds=-number),
                [number + 1],
            )
            for number in range(400)
        ]
        posts = [asyncio.create_task(stack.post(body)) for body in bodies]
        await eventually(lambda: sum(post.done() for post in posts) > 20, 20.0)
        process.terminate()
        answers = await asyncio.gather(*posts, return_exceptions=True)
        assert await process.ended(within_seconds=12.0) == 0
        statuses = [answer[0] for answer in answers if isinstance(answer, tuple)]
        assert set(statuses) == {200}
        refused = [answer for answer in answers if not isinstance(answer, tuple)]
        assert all(isinstance(answer, aiohttp.ClientError) for answer in refused)
        rows = await stack.fetch("SELECT count(*) AS kept FROM fubd.delivery WHERE event_id LIKE '44444444-%'")
        assert rows[0]["kept"] >= len(statuses)


BAD_DELIVERIES = {
    "cut short": (b'{"eventId":"x","event":"peopleStageUp', 200, "quarantined"),
    "not JSON": (b"stage=Lead", 200, "quarantined"),
    "nothing": (b"", 200, "quarantined"),
    "deeply nested": (b"[" * 50_000 + b"]" * 50_000, 200, "quarantined"),
    "of an unknown kind": (event("e-1", "Lead", datetime.now(UTC), [1], event="pipelineStageUpdated"), 200, "ignored"),
    "with negative ids": (event("e-2", "Lead", datetime.now(UTC), [-5, 0]), 200, "quarantined"),
    "with a stage that is no text": (event("e-3", "Lead", datetime.now(UTC), [1], data={"stage": 7}), 200, "quarantined"),
    "from the day after tomorrow": (event("e-4", "Lead", datetime.now(UTC) + timedelta(days=2), [1]), 200, "quarantined"),
    "without a time zone": (event("e-5", "Lead", datetime.now(UTC), [1], eventCreated="2026-01-05T10:00:00"), 200, "quarantined"),
}


@pytest.mark.parametrize(("body", "status", "outcome"), BAD_DELIVERIES.values(), ids=BAD_DELIVERIES.keys())
async def test_a_bad_delivery_is_answered_as_promised(ready_stack: Stack, body: bytes, status: int, outcome: str) -> None:
    """Genuine but unusable: 200 and kept aside, never a row, never 5xx."""
    before = await ready_stack.metrics()
    rows = await ready_stack.fetch("SELECT count(*) AS rows FROM public.stage_changes")
    assert (await ready_stack.post(body))[0] == status
    name = f"fubd_webhook_deliveries_total{{outcome={outcome}}}"
    assert (await ready_stack.metrics())[name] == before[name] + 1
    assert await ready_stack.fetch("SELECT count(*) AS rows FROM public.stage_changes") == rows


async def test_a_forged_delivery_leaves_no_trace(ready_stack: Stack) -> None:
    """401 for a wrong, a missing and an unreadable signature; nothing stored."""
    body = event("f-1", "Lead", datetime.now(UTC), [1])
    before = await ready_stack.fetch("SELECT count(*) AS kept FROM fubd.delivery")
    for signature in (None, "0" * 64, "ü", "sha256=abc"):
        assert (await ready_stack.post(body, signature=signature))[0] == 401
    assert await ready_stack.fetch("SELECT count(*) AS kept FROM fubd.delivery") == before


async def test_a_body_over_the_limit_is_refused_first(ready_stack: Stack) -> None:
    """413 over 1 MiB, signed or not."""
    assert (await ready_stack.post(b"x" * (1024 * 1024 + 1), signature=None))[0] == 413


async def test_ids_as_text_repeated_and_partly_bad_are_recorded_for_the_good(ready_stack: Stack) -> None:
    """Numeric text counts, repeats count once, bad ids put the delivery aside without losing the good ones."""
    people = list(ready_stack.account.ids)[50:53]
    now = datetime.now(UTC)
    body = event("g-1", "Nurture", now, [str(people[0]), people[1], people[1], "x", -3, None, 2.5])
    assert (await ready_stack.post(body))[0] == 200
    rows = await ready_stack.fetch("SELECT person_id FROM public.stage_changes WHERE event_id = 'g-1' ORDER BY 1")
    assert [row["person_id"] for row in rows] == sorted(str(person) for person in people[:2])
    (kept,) = await ready_stack.fetch("SELECT quarantine FROM fubd.delivery WHERE event_id = 'g-1'")
    assert kept["quarantine"]


async def test_both_keys_are_tried_while_rotating(database: str, fubd_database: str, tmp_path: Path) -> None:
    """A delivery signed with the previous key is genuine while both are set."""
    async with (
        running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack,
        stack.daemon(FUB_SYSTEM_KEY="the-new-key-of-ours", FUB_SYSTEM_KEY_PREVIOUS=stack.environ["FUB_SYSTEM_KEY"]) as process,
    ):
        await process.answers(f"{stack.url}/readyz")
        assert (await stack.post(event("h-1", "Lead", datetime.now(UTC), [1])))[0] == 200


async def test_a_wrong_key_is_said_once_and_the_daemon_stays(database: str, fubd_database: str, tmp_path: Path) -> None:
    """FUB refuses the key: webhooks are still taken, the log says so in one line, nothing ends."""
    async with (
        running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack,
        stack.daemon(FUB_API_KEY="not-the-key-at-all") as process,
    ):
        await process.answers(f"{stack.url}/readyz")
        said = await process.line("401")
        assert "not-the-key-at-all" not in said
        assert (await stack.post(event("i-1", "Lead", datetime.now(UTC), [1])))[0] == 200


async def test_bad_settings_are_all_told_at_once(tmp_path: Path) -> None:
    """Exit 2 with a line for each, and no secret in any."""
    environ = {
        "FUBD_POLL_INTERVAL": "soon",
        "FUBD_API_SHARE": "7",
        "DATABASE_URL": "mysql://secret-word@db/x",
        "FUB_API_URL": "http://example.com",
    }
    async with fubd(environ=environ, folder=tmp_path) as process:
        assert await process.ended() == 2
        told = "\n".join(process.errors)
        for name in ("FUBD_POLL_INTERVAL", "FUBD_API_SHARE", "DATABASE_URL", "FUB_API_URL", "FUB_API_KEY", "FUB_SYSTEM_KEY"):
            assert name in told
        assert "secret-word" not in told
        assert "Traceback" not in told


async def test_an_instance_takes_no_more_than_four_connections(database: str, tmp_path: Path) -> None:
    """Under a load of deliveries, pages and streams, with alerts on: a session pool is ready_stack by everything of its project."""
    async with running_stack(database, tmp_path) as stack:
        quiet = {"FUBD_ALERT_URL": f"http://127.0.0.1:{free_port()}/", "FUBD_ALERT_STAGES": '["Nurture"]'}
        async with stack.ready_daemon(**quiet), aiohttp.ClientSession() as session:
            streams = [await session.get(f"{stack.url}/api/stream") for _ in range(5)]
            seen = []
            for turn in range(15):
                move_some(stack, Random(turn), 20)
                await asyncio.gather(*(stack.get(path) for path in ("/api/changes", "/api/overview", "/health") for _ in range(4)))
                found = await stack.fetch(
                    "SELECT count(*) AS open FROM pg_stat_activity WHERE application_name = 'fubd' AND datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                )
                seen.append(found[0]["open"])
            for stream in streams:
                stream.close()
            assert 1 < max(seen) <= 4


# What an owner may have set for the role or the database, each of which changes what statements mean or how values are written.
ODD_SETTINGS = {
    "timezone": "Asia/Kolkata",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "search_path": "",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "bytea_output": "escape",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "extra_float_digits": "-3",
    "row_security": "off",
    "lock_timeout": "50ms",
    "plan_cache_mode": "force_generic_plan",
}


async def test_settings_of_the_database_change_nothing(empty_database: str, tmp_path: Path) -> None:
    """Time zone, date style, search path, isolation and the rest: made, filled, read and shown as on any other."""
    connection = await asyncpg.connect(**parse(empty_database).connect_arguments())
    for name, value in ODD_SETTINGS.items():
        await connection.execute(f"ALTER DATABASE \"{parse(empty_database).database}\" SET {name} = '{value}'")
    await connection.close()
    async with (
        running_stack(empty_database, tmp_path) as stack,
        stack.ready_daemon(FUBD_COLUMNS='{"campaign_id": "customCampaignID"}') as process,
    ):
        rng = Random(12)
        people = rng.sample(list(stack.account.ids), 70)
        for person in people[:60]:
            move_some(stack, rng, 1, people=[person])
        assert_clean(await stack.final_score())
        stack.simulator.deliveries.kill()
        for person in people[60:]:
            move_some(stack, rng, 1, people=[person])
        assert_clean(await stack.final_score())
        (shown,) = await stack.fetch("SELECT extract(epoch FROM max(changed_at))::float8 AS last FROM public.stage_changes")
        told = [change["changed_at"] for change in (await stack.get("/api/changes?limit=1000"))["changes"]]
        assert abs(max(datetime.fromisoformat(at) for at in told).timestamp() - shown["last"]) < 1e-3
        assert {datetime.fromisoformat(at).utcoffset() for at in told} == {timedelta()}
        for view in ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages"):
            assert await stack.fetch(f"SELECT * FROM public.{view}") is not None
        await eventually(lambda: _balanced(stack), 15.0)
        assert [line for line in process.lines if '"level": "error"' in line] == []


async def _balanced(stack: Stack) -> bool:
    metrics = await stack.metrics()
    return metrics["fubd_ledger_imbalance"] == 0 == metrics["fubd_chain_violations"] and metrics["fubd_db_up"] == 1
