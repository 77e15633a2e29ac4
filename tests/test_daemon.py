"""The daemon as a process between a simulated account and a real database: in normal operation, and when things break."""

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

from fubd.store.dsn import parse
from tests.stack import STAGES, Stack, assert_perfect, event, running_stack
from tests.support.ports import free_port
from tests.support.process import fubd
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


async def test_every_change_is_recorded_once_and_the_invariants_hold(database: str, fubd_database: str, tmp_path: Path) -> None:
    """Quick moves, a bulk edit of 100 and a new person: one row a change with the exact time, names filled, ledger and chain at 0."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack, stack.ready_daemon() as process:
        rng = Random(1)
        stack.move_randomly(rng, 150)
        stack.account.bulk_move(list(stack.account.ids)[:100], "Nurture")
        new_person = stack.account.create(stage="Lead", via="lead_flow")
        await stack.simulator.deliveries.drain()
        assert_perfect(await stack.final_score())

        async def names_are_filled() -> bool:
            rows = await stack.fetch(
                "SELECT count(*) AS unnamed FROM public.stage_changes WHERE first_name IS NULL OR assigned_user_name IS NULL"
            )
            return int(rows[0]["unnamed"]) == 0

        await eventually(names_are_filled, 90.0)
        (row,) = await stack.fetch("SELECT * FROM public.stage_changes WHERE person_id = $1", str(new_person))
        assert (row["stage_from"], row["stage_to"]) == (None, "Lead")
        await eventually(stack.is_balanced, 45.0)
        process.terminate()
        assert await process.ended() == 0
        assert process.errors == []


async def test_polling_takes_over_from_failing_webhooks_and_hands_back(database: str, fubd_database: str, tmp_path: Path) -> None:
    """Failover one watch poll after the first missed change, every change recorded, recovery when webhooks return, then steady."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack, stack.ready_daemon():
        rng = Random(2)
        stack.move_randomly(rng, 10)
        await eventually(lambda: stack.has_mode("steady"), 30.0)
        stack.simulator.deliveries.kill()
        for person in rng.sample(list(stack.account.ids), 20):
            stack.move_randomly(rng, people=[person])
        await eventually(lambda: stack.has_mode("failover"), 30.0)
        assert_perfect(await stack.final_score())
        stack.simulator.deliveries.revive()
        stack.move_randomly(rng, 3)
        await eventually(lambda: stack.has_mode("recovering"), 30.0)
        await eventually(lambda: stack.has_mode("steady"), 60.0)
        assert_perfect(await stack.final_score())
        modes = [row["mode"] for row in await stack.fetch("SELECT mode FROM fubd.mode_change ORDER BY id")]
        assert modes[-3:] == ["failover", "recovering", "steady"]


async def test_a_kill_under_load_loses_and_doubles_nothing(database: str, fubd_database: str, tmp_path: Path) -> None:
    """SIGKILL three times while changes arrive: FUB's retries and the next polls complete the table, each change once."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack:
        rng = Random(3)
        people = list(stack.account.ids)
        async with stack.ready_daemon():
            pass
        loop, moved_at = asyncio.get_running_loop(), 0.0
        for _ in range(3):
            async with stack.daemon() as process:
                await process.answers(f"{stack.url}/readyz")
                # Not within a second of the previous moves: two moves of one second that arrive a minute apart cannot be ordered.
                await eventually(partial(_is_past, loop, moved_at + 1.5))
                enough = len(stack.simulator.deliveries.attempts) + rng.randrange(3, 70)
                load = asyncio.create_task(_move_eighty(stack, rng, people))
                await eventually(partial(_attempted, stack, enough), 45.0)
                process.kill()
                assert await process.ended() == -signal.SIGKILL
                await load
                moved_at = loop.time()
        async with stack.ready_daemon():
            # FUB retries a refused delivery after a minute. The simulated clock runs faster from here on.
            stack.account.clock.speed = 10.0
            assert_perfect(await stack.final_score(within_seconds=60.0))


def _attempted(stack: Stack, enough: int) -> bool:
    return len(stack.simulator.deliveries.attempts) >= enough


def _is_past(loop: asyncio.AbstractEventLoop, instant: float) -> bool:
    return loop.time() > instant


async def _move_eighty(stack: Stack, rng: Random, people: list[int]) -> None:
    """Move each of 80 people once."""
    for person in rng.sample(people, 80):
        stack.move_randomly(rng, people=[person])
        await asyncio.sleep(0)


async def test_a_database_outage_loses_nothing(database: str, fubd_database: str, tmp_path: Path) -> None:
    """503 with Retry-After within 5 s during the outage; the refused delivery is kept, so FUB's retry is a duplicate."""
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
        await eventually(stack.is_balanced, 45.0)


async def test_a_lost_reply_to_commit_doubles_nothing(database: str, fubd_database: str, tmp_path: Path) -> None:
    """The transaction runs again; its keys make that harmless, and the delivery counts as new, not as a duplicate."""
    async with Proxy(fubd_database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack, stack.ready_daemon():
        person = stack.account.ids[0]
        proxy.lost_commit_replies = 1
        body = event("22222222-0000-4000-8000-000000000001", "Nurture", datetime.now(UTC), [person])
        assert (await stack.post(body))[0] == 200
        rows = await stack.fetch("SELECT 1 FROM public.stage_changes WHERE event_id = $1", "22222222-0000-4000-8000-000000000001")
        assert len(rows) == 1
        await eventually(stack.is_balanced, 45.0)


async def test_it_listens_before_the_database_answers(database: str, fubd_database: str, tmp_path: Path) -> None:
    """While the database is down the daemon is alive, and not ready with the reason; then it becomes ready."""
    async with Proxy(fubd_database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack:
        await proxy.refuse()
        async with stack.daemon() as process:
            await process.answers(f"{stack.url}/healthz")
            reason = await process.answers(f"{stack.url}/readyz", status=503)
            assert b"database" in reason
            await proxy.accept()
            await process.answers(f"{stack.url}/readyz", within_seconds=40.0)


async def test_a_stop_under_load_answers_every_accepted_delivery(database: str, fubd_database: str, tmp_path: Path) -> None:
    """SIGTERM drains within 10 s: no accepted delivery is lost or answered 5xx, and the exit code is 0."""
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
        await eventually(lambda: sum(post.done() for post in posts) > 20, 45.0)
        process.terminate()
        answers = await asyncio.gather(*posts, return_exceptions=True)
        assert await process.ended(within_seconds=12.0) == 0
        statuses = [answer[0] for answer in answers if isinstance(answer, tuple)]
        assert set(statuses) == {200}
        refused = [answer for answer in answers if not isinstance(answer, tuple)]
        assert all(isinstance(answer, aiohttp.ClientError) for answer in refused)
        rows = await stack.fetch("SELECT count(*) AS kept FROM fubd.delivery WHERE event_id LIKE '44444444-%'")
        assert rows[0]["kept"] >= len(statuses)


UNUSABLE_DELIVERIES = {
    "truncated": (b'{"eventId":"x","event":"peopleStageUp', "quarantined"),
    "not JSON": (b"stage=Lead", "quarantined"),
    "empty": (b"", "quarantined"),
    "deeply nested": (b"[" * 50_000 + b"]" * 50_000, "quarantined"),
    "of an unknown event": (event("e-1", "Lead", datetime.now(UTC), [1], event="pipelineStageUpdated"), "ignored"),
    "with negative ids": (event("e-2", "Lead", datetime.now(UTC), [-5, 0]), "quarantined"),
    "with a stage that is not text": (event("e-3", "Lead", datetime.now(UTC), [1], data={"stage": 7}), "quarantined"),
    "from the day after tomorrow": (event("e-4", "Lead", datetime.now(UTC) + timedelta(days=2), [1]), "quarantined"),
    "without a time zone": (event("e-5", "Lead", datetime.now(UTC), [1], eventCreated="2026-01-05T10:00:00"), "quarantined"),
}


async def test_unusable_deliveries_are_answered_200(ready_stack: Stack) -> None:
    """Genuine but unusable deliveries are quarantined or ignored: never a row, never 5xx."""
    rows = await ready_stack.fetch("SELECT count(*) AS rows FROM public.stage_changes")
    for kind, (body, outcome) in UNUSABLE_DELIVERIES.items():
        name = f"fubd_webhook_deliveries_total{{outcome={outcome}}}"
        before = (await ready_stack.metrics())[name]
        assert ((await ready_stack.post(body))[0], (await ready_stack.metrics())[name]) == (200, before + 1), kind
    assert await ready_stack.fetch("SELECT count(*) AS rows FROM public.stage_changes") == rows


async def test_a_refused_delivery_is_not_stored(ready_stack: Stack) -> None:
    """A wrong, a missing and an unreadable signature are answered 401; a body over 1 MiB 413, before its signature is checked."""
    body = event("f-1", "Lead", datetime.now(UTC), [1])
    before = await ready_stack.fetch("SELECT count(*) AS kept FROM fubd.delivery")
    for signature in (None, "0" * 64, "ü", "sha256=abc"):
        assert (await ready_stack.post(body, signature=signature))[0] == 401
    assert (await ready_stack.post(b"x" * (1024 * 1024 + 1), signature=None))[0] == 413
    assert await ready_stack.fetch("SELECT count(*) AS kept FROM fubd.delivery") == before


async def test_valid_ids_are_recorded_despite_invalid_ones(ready_stack: Stack) -> None:
    """Numeric text is valid, repeated ids count once, and invalid ids quarantine the delivery without losing the valid ones."""
    people = list(ready_stack.account.ids)[50:53]
    now = datetime.now(UTC)
    body = event("g-1", "Nurture", now, [str(people[0]), people[1], people[1], "x", -3, None, 2.5])
    assert (await ready_stack.post(body))[0] == 200
    rows = await ready_stack.fetch("SELECT person_id FROM public.stage_changes WHERE event_id = 'g-1' ORDER BY 1")
    assert [row["person_id"] for row in rows] == sorted(str(person) for person in people[:2])
    (kept,) = await ready_stack.fetch("SELECT quarantine FROM fubd.delivery WHERE event_id = 'g-1'")
    assert kept["quarantine"]


async def test_both_signing_keys_are_accepted_while_rotating(database: str, fubd_database: str, tmp_path: Path) -> None:
    """A delivery signed with the previous key is accepted while both are set."""
    async with (
        running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack,
        stack.daemon(FUB_SYSTEM_KEY="the-new-key-of-ours", FUB_SYSTEM_KEY_PREVIOUS=stack.environ["FUB_SYSTEM_KEY"]) as process,
    ):
        await process.answers(f"{stack.url}/readyz")
        assert (await stack.post(event("h-1", "Lead", datetime.now(UTC), [1])))[0] == 200


async def test_a_refused_api_key_is_logged_and_webhooks_are_still_recorded(database: str, fubd_database: str, tmp_path: Path) -> None:
    """When FUB refuses the API key, one line says so, and the process goes on."""
    async with (
        running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack,
        stack.daemon(FUB_API_KEY="not-the-key-at-all") as process,
    ):
        await process.answers(f"{stack.url}/readyz")
        line = await process.line("401")
        assert "not-the-key-at-all" not in line
        assert (await stack.post(event("i-1", "Lead", datetime.now(UTC), [1])))[0] == 200


async def test_all_bad_settings_are_reported_at_once(tmp_path: Path) -> None:
    """Exit code 2 with a line for each, and no secret in any."""
    environ = {
        "FUBD_POLL_INTERVAL": "soon",
        "FUBD_API_SHARE": "7",
        "DATABASE_URL": "mysql://secret-word@db/x",
        "FUB_API_URL": "http://example.com",
    }
    async with fubd(environ=environ, folder=tmp_path) as process:
        assert await process.ended() == 2
        errors = "\n".join(process.errors)
        for name in ("FUBD_POLL_INTERVAL", "FUBD_API_SHARE", "DATABASE_URL", "FUB_API_URL", "FUB_API_KEY", "FUB_SYSTEM_KEY"):
            assert name in errors
        assert "secret-word" not in errors
        assert "Traceback" not in errors


async def test_an_instance_uses_at_most_four_connections(database: str, tmp_path: Path) -> None:
    """Under deliveries, pages and streams, with alerts on: a session pooler is shared by every program of its project."""
    async with running_stack(database, tmp_path) as stack:
        alerts = {"FUBD_ALERT_URL": f"http://127.0.0.1:{free_port()}/", "FUBD_ALERT_STAGES": '["Nurture"]'}
        async with stack.ready_daemon(**alerts), aiohttp.ClientSession() as session:
            streams = [await session.get(f"{stack.url}/api/stream") for _ in range(5)]
            connections = []
            for turn in range(15):
                stack.move_randomly(Random(turn), 20)
                await asyncio.gather(*(stack.get(path) for path in ("/api/changes", "/api/overview", "/health") for _ in range(4)))
                found = await stack.fetch(
                    "SELECT count(*) AS open FROM pg_stat_activity WHERE application_name = 'fubd' AND datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                )
                connections.append(found[0]["open"])
            for stream in streams:
                stream.close()
            assert 1 < max(connections) <= 4


# An owner may have set these for the role or the database. Each changes the meaning of statements or the format of values.
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


async def test_settings_of_the_database_have_no_effect(empty_database: str, tmp_path: Path) -> None:
    """With any time zone, date style, search path or isolation level, fubd migrates, records, reads and shows the same."""
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
            stack.move_randomly(rng, people=[person])
        assert_perfect(await stack.final_score())
        stack.simulator.deliveries.kill()
        for person in people[60:]:
            stack.move_randomly(rng, people=[person])
        assert_perfect(await stack.final_score())
        (row,) = await stack.fetch("SELECT extract(epoch FROM max(changed_at))::float8 AS last FROM public.stage_changes")
        instants = [change["changed_at"] for change in (await stack.get("/api/changes?limit=1000"))["changes"]]
        assert abs(max(datetime.fromisoformat(at) for at in instants).timestamp() - row["last"]) < 1e-3
        assert {datetime.fromisoformat(at).utcoffset() for at in instants} == {timedelta()}
        for view in ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages"):
            assert await stack.fetch(f"SELECT * FROM public.{view}") is not None
        await eventually(stack.is_balanced, 45.0)
        assert [line for line in process.lines if '"level": "error"' in line] == []
