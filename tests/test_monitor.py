"""Gauges and invariants of the real daemon on a real database: a restart loses nothing, and the invariants show errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fubd.metrics import Metrics
from fubd.store import Maintenance, Pool, StatusReader
from fubd.store.dsn import parse
from tests.deploy.programs import run
from tests.recorder import running_recorder, webhook
from tests.stack import Stack, event, running_stack
from tests.support.programs import require_program
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

SURVIVING_GAUGES = (
    "fubd_source_last_heard_timestamp_seconds{source=webhook}",
    "fubd_source_last_heard_timestamp_seconds{source=polling}",
    "fubd_source_last_change_timestamp_seconds{source=webhook}",
    "fubd_source_last_change_timestamp_seconds{source=polling}",
    "fubd_coverage_timestamp_seconds",
    "fubd_scrub_oldest_timestamp_seconds",
    "fubd_completeness_ratio",
)


def delivery(number: int, stack: Stack, *, ago_seconds: float = 0.0) -> bytes:
    """Return the delivery of a stage change that long ago."""
    at = datetime.now(UTC) - timedelta(seconds=ago_seconds)
    return event(f"00000000-0000-4000-8000-{number:012}", "Nurture", at, [stack.account.ids[number]])


async def has_value(stack: Stack, name: str, wanted: float) -> bool:
    """Assert that a metric has this value now."""
    found = (await stack.metrics())[name]
    assert found == pytest.approx(wanted), f"{name} is {found}, not {wanted}"
    return True


async def test_a_restart_loses_no_gauge(database: str, tmp_path: Path) -> None:
    """As soon as it is ready, every timestamp and the completeness are those of the database; exactly one mode is shown at any time."""
    async with running_stack(database, tmp_path) as stack:
        async with stack.ready_daemon():
            person = stack.account.ids[0]
            stack.account.move(person, "Nurture")
            stack.simulator.deliveries.kill()
            stack.account.move(stack.account.ids[1], "Nurture")
            await eventually(lambda: has_value(stack, "fubd_stage_changes_total{source=polling}", 1), 30.0)
            stack.simulator.deliveries.revive()
        # While FUB refuses the key nothing is polled, so the gauges stay at what the database has.
        async with stack.daemon(FUB_API_KEY="another-invented-key") as process:
            first = await first_metrics(stack)
            await process.answers(f"{stack.url}/readyz")
            found = await stack.metrics()
        for metrics in (first, found):
            assert sum(value for name, value in metrics.items() if name.startswith("fubd_mode{")) == 1
        (row,) = await stack.fetch(
            "SELECT (SELECT max(received_at) FROM fubd.delivery) AS webhook_heard,"
            " (SELECT max(finished_at) FROM fubd.poll_run WHERE outcome = 'ok' AND kind <> 'scrub') AS polling_heard,"
            " (SELECT max(changed_at) FROM stage_changes WHERE source = 'webhook') AS webhook_change,"
            " (SELECT max(changed_at) FROM stage_changes WHERE source = 'polling') AS polling_change,"
            " (SELECT reached FROM fubd.coverage) AS coverage,"
            " (SELECT min(verified_at) FROM fubd.person WHERE gone_at IS NULL) AS oldest, 1.0 AS completeness"
        )
        kept = [value.timestamp() if isinstance(value, datetime) else float(value) for value in row]
        assert [found[name] for name in SURVIVING_GAUGES] == pytest.approx(kept, abs=0.001)


async def first_metrics(stack: Stack) -> dict[str, float]:
    """Return the metrics as soon as the daemon listens."""

    async def metrics() -> dict[str, float] | None:
        try:
            return await stack.metrics()
        except OSError:
            return None

    return await eventually(metrics, 30.0)


async def test_failures_survive_a_restart(database: str, tmp_path: Path) -> None:
    """A refused delivery still counts after a restart, and the ratio continues from there."""
    async with Proxy(database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack:
        async with stack.ready_daemon():
            for number in range(3):
                assert (await stack.post(delivery(number, stack)))[0] == 200
            await proxy.refuse()
            await proxy.cut()
            refused = delivery(3, stack)
            assert (await stack.post(refused))[0] == 503
            await proxy.accept()
            await eventually(lambda: has_value(stack, "fubd_webhook_failure_ratio", 1 / 4), 30.0)

            async def is_saved() -> bool:
                return bool(await stack.fetch("SELECT FROM fubd.door_hour GROUP BY () HAVING sum(failed) = 1 AND sum(taken) = 3"))

            await eventually(is_saved, 30.0)
        async with stack.daemon() as process:
            await process.answers(f"{stack.url}/readyz")
            await eventually(lambda: has_value(stack, "fubd_webhook_failure_ratio", 1 / 4))
            # FUB's retry is accepted, as a duplicate.
            assert (await stack.post(refused))[0] == 200
            await eventually(lambda: has_value(stack, "fubd_webhook_failure_ratio", 1 / 5), 30.0)


async def test_attempts_while_no_process_ran_count_as_failed(database: str, tmp_path: Path) -> None:
    """When a retry arrives for the first time, the attempts before it that no process answered count as failed."""
    async with running_stack(database, tmp_path) as stack:
        async with stack.ready_daemon():
            accepted = delivery(1, stack, ago_seconds=100)
            assert (await stack.post(accepted))[0] == 200
            await eventually(lambda: stack.fetch("SELECT FROM fubd.door_hour GROUP BY () HAVING sum(taken) = 1"), 45.0)
            assert (await stack.metrics())["fubd_webhook_failure_ratio"] == 0
        # As if no process had run for ten minutes.
        await stack.fetch("UPDATE fubd.door_hour SET kept_at = kept_at - interval '10 minutes'")
        async with stack.daemon() as process:
            await process.answers(f"{stack.url}/readyz")
            # Accepted by the process before: a duplicate, not a failure.
            assert (await stack.post(accepted))[0] == 200
            # FUB tried 100 s ago and 40 s ago, both while no process ran; this is the third attempt.
            assert (await stack.post(delivery(2, stack, ago_seconds=100)))[0] == 200
            await eventually(lambda: has_value(stack, "fubd_webhook_failure_ratio", 2 / 5), 30.0)


@pytest.mark.parametrize(("stale_after", "word"), [("900", "HEALTHY"), ("0.001", "STALE")])
async def test_the_view_health_and_the_gauge_agree(database: str, tmp_path: Path, stale_after: str, word: str) -> None:
    """All three use the same settings and give the same status; rows of older scripts count for their source."""
    settings = {"FUBD_WEBHOOK_STALE_AFTER": stale_after, "FUBD_POLL_STALE_AFTER": stale_after}
    async with running_stack(database, tmp_path) as stack, stack.ready_daemon(**settings):
        stack.account.move(stack.account.ids[0], "Nurture")
        await stack.final_score()
        for number, source in enumerate(("wh_peopleStageUpdated", "webhook_legacy", "polling", "api_sync")):
            await stack.fetch(
                "INSERT INTO stage_changes (person_id, stage_to, changed_at, received_at, source)"
                " VALUES ($1, 'Lead', now() - make_interval(mins => $2), now() - make_interval(days => $2), $3)",
                f"old{number}",
                number,
                source,
            )

        async def agree() -> bool:
            view = {row["source"]: row for row in await stack.fetch("SELECT * FROM source_health")}
            health, metrics = (await stack.get("/health"))["sources"], await stack.metrics()
            assert {source: row["records_today"] for source, row in view.items()} == {"webhook": 2, "polling": 0}
            for source, row in view.items():
                shown = health[source]
                assert row["status"] == shown["status"]
                assert row["status"].startswith(word)
                assert metrics[f"fubd_source_healthy{{source={source}}}"] == (word == "HEALTHY")
                assert row["records_today"] == shown["records_today"]
                assert shown["last_change"] is not None
                assert row["latest_change"] == datetime.fromisoformat(shown["last_change"])
            return True

        assert await eventually(agree, 45.0)


async def test_the_ledger_shows_a_lost_delivery_and_the_chain_an_edited_row(database: str, tmp_path: Path) -> None:
    """Both gauges are 0 in normal operation; a deleted delivery changes the one, a row edited by hand the other."""
    async with running_stack(database, tmp_path) as stack:
        async with stack.ready_daemon():
            person = stack.account.ids[0]
            for stage in ("Nurture", "Lead", "ACQ - Qualified"):
                stack.account.move(person, stage)
                await stack.simulator.deliveries.drain()
            await stack.final_score()
            metrics = await stack.metrics()
            assert (metrics["fubd_ledger_imbalance"], metrics["fubd_chain_violations"]) == (0, 0)
            stack.tampered = True
            await stack.fetch("DELETE FROM fubd.delivery WHERE id = (SELECT min(id) FROM fubd.delivery)")
            await eventually(lambda: has_value(stack, "fubd_ledger_imbalance", 1), 45.0)
        await stack.fetch("UPDATE stage_changes SET stage_from = 'Trash' WHERE stage_from = 'Nurture'")
        # The chain is checked every minute, the first time at the start.
        async with stack.daemon() as process:
            await process.answers(f"{stack.url}/readyz")
            await eventually(lambda: has_value(stack, "fubd_chain_violations", 1), 30.0)


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[Pool]:
    """Return a pool of the test's own."""
    pool = Pool(parse(url))
    yield pool
    await pool.close()


async def test_each_instance_counts_its_own_deliveries(database: str) -> None:
    """However the deliveries of two instances are interleaved, each counts only its own."""
    async with (
        running_recorder(database, instance="one") as one,
        running_recorder(database, instance="two") as two,
        pooled(database) as pool,
    ):
        of_one, of_two = StatusReader(pool, instance="one"), StatusReader(pool, instance="two")
        await one.record(webhook("e0", "A", "10:00"))
        await of_two.mark_start()
        await two.record(webhook("e1", "B", "10:01"))
        await one.record(webhook("e2", "C", "10:02"))
        await two.record(webhook("e1", "B", "10:01"))
        assert ((await of_one.summary()).own_deliveries, (await of_two.summary()).own_deliveries) == (2, 1)


async def test_pruning_leaves_the_deliveries_of_another_instance_a_day_longer(database: str) -> None:
    """Old deliveries are pruned by the instance that stored them, and a day later by any: until then its ledger needs them."""
    async with running_recorder(database, instance="one") as one, pooled(database) as pool:
        of_one, of_two = Maintenance(pool, instance="one"), Maintenance(pool, instance="two")
        await one.record(*(webhook(f"e{number}", "ABCD"[number], f"10:0{number}") for number in range(4)))
        await one.record(webhook("last", "E", "10:10"))
        async with one.pool.connection() as connection:
            await connection.execute("UPDATE fubd.delivery SET received_at = now() - interval '2.5 days' WHERE event_id <> 'last'")
            await connection.execute("UPDATE fubd.delivery SET received_at = now() - interval '3.5 days' WHERE event_id = 'e0'")
        assert (await of_two.prune(older_than_days=2, limit=100)).removed == 1
        pruned = await of_one.prune(older_than_days=2, limit=100)
        assert (pruned.removed, pruned.own) == (3, 3)
        assert (await StatusReader(pool, instance="one").summary()).own_deliveries == 1


async def test_promtool_accepts_the_metrics(database: str, tmp_path: Path) -> None:
    """After many different events promtool finds no problem, every series is a known one, and there are fewer than 500."""
    async with running_stack(database, tmp_path) as stack, stack.ready_daemon():
        for number, person in enumerate(stack.account.ids):
            stack.account.move(person, "Nurture" if number % 2 else "ACQ - Qualified")
        await stack.post(b"x" * 2_000_000)
        await stack.post(b"{}", signature="forged")
        await stack.post(b"{}")
        stack.simulator.script("people", "server_error", "reset", "wrong_type", "truncated")
        await stack.simulator.deliveries.drain()
        await stack.final_score()
        found, text = await stack.metrics(), await metrics_text(stack)
        ended = await run(require_program("promtool"), "check", "metrics", stdin=text.encode())
        assert (ended.code, ended.out + ended.error) == (0, "")
        assert len(found) < 500
        outcomes = {name.partition("=")[2].rstrip("}"): number for name, number in found.items() if "_deliveries_total" in name}
        assert (outcomes["too_large"], outcomes["forged"], outcomes["quarantined"]) == (1, 1, 1)
        assert outcomes["accepted"] == (await stack.score()).changes
        assert found["fubd_webhook_ack_seconds_count"] == sum(outcomes.values())
        fresh = generate_latest(Metrics(CollectorRegistry()).registry).decode()
        assert names(text) == names(fresh) | {"fubd_build_info"}
        assert not any(name.endswith("_created") for name in found)


async def metrics_text(stack: Stack) -> str:
    """Return the metrics as they are served."""
    async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/metrics") as answer:
        return await answer.text()


def names(text: str) -> set[str]:
    """Return the names of all series."""
    return {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}
