"""What the monitor begins and ends as problems, and what `/health` says of them, from a real database without a daemon around it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from fubd import components
from fubd.components import DaemonComponents
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.errors import Unavailable
from fubd.ports import Clock
from fubd.settings import load
from fubd.store.dsn import parse
from tests.recorder import execute
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.test_running_time import NOON, HandClock

_MODE = "INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, evidence) VALUES (now(), '{mode}', 'a test', 30, '{{}}')"
_CUT_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_DELIVERY = "INSERT INTO fubd.delivery (key, received_at, instance, body, quarantine) VALUES ('\\x01', now(), 'a', '{{}}', {reason})"


@asynccontextmanager
async def monitored(database: str, *, clock: Clock | None = None, **more: str) -> AsyncIterator[DaemonComponents]:
    """Run the monitor of a daemon that does nothing else."""
    environ = {"FUB_API_KEY": "invented", "FUB_SYSTEM_KEY": "invented", "FUBD_WEBHOOK_STALE_AFTER": "900", **more}
    parts = components.build_daemon(components.build(load(environ, env_file=None), parse(database), clock=clock))
    stop = asyncio.Event()
    running = asyncio.create_task(parts.monitor.run(stop))
    try:
        yield parts
    finally:
        stop.set()
        await running
        await parts.shared.pool.close()


async def has_problems(parts: DaemonComponents, *names: str) -> bool:
    """Have the monitor refresh, and return whether just these problems hold."""
    parts.monitor.refresh_soon()
    await asyncio.sleep(0)
    return [problem.name for problem in parts.shared.problems.current()] == list(names)


def value(parts: DaemonComponents, name: str, **labels: str) -> float:
    """Return the value of a metric."""
    found = parts.shared.metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


async def test_a_database_that_goes_away_is_a_problem_without_any_delivery(database: str) -> None:
    """It begins and ends by the look every few seconds; the health document says so, and since when."""
    async with Proxy(database) as proxy, monitored(proxy.dsn) as parts:
        await eventually(lambda: parts.monitor.database_health().recording)
        before = parts.monitor.database_health().since
        await proxy.refuse()
        await proxy.cut()
        await eventually(lambda: has_problems(parts, "not_recording"), 45.0)
        gone = parts.monitor.database_health()
        assert not gone.recording
        assert (before, value(parts, "fubd_db_up")) < (gone.since, 1)
        await proxy.accept()
        await eventually(lambda: has_problems(parts), 60.0)
        assert parts.monitor.database_health().recording


async def test_a_database_that_can_only_be_read_is_a_problem_without_any_delivery(database: str) -> None:
    """So it is while the disk of a Supabase project is full, and for a standby."""
    async with monitored(database) as parts:
        await eventually(lambda: parts.monitor.database_health().recording)
        name = parse(database).database
        await execute(database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await execute(database, _CUT_OTHERS)

        async def is_said() -> bool:
            return await has_problems(parts, "not_recording") and "can only be read" in (parts.monitor.not_ready_reason() or "")

        await eventually(is_said)
        await execute(database, f'SET TRANSACTION READ WRITE; ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await execute(database, _CUT_OTHERS)
        await eventually(lambda: has_problems(parts), 60.0)
        assert parts.monitor.not_ready_reason() is None


async def test_quarantine_is_a_problem_until_it_is_empty(database: str) -> None:
    """The text says how many and what to do."""
    async with monitored(database) as parts:
        await execute(database, _DELIVERY.format(reason="'unreadable'"))
        await eventually(lambda: has_problems(parts, "quarantine"))
        assert "1 delivery" in parts.shared.problems.current()[0].text
        await execute(database, "UPDATE fubd.delivery SET quarantine = NULL")
        await eventually(lambda: has_problems(parts))


_ALTERATIONS = {
    "a renamed column": (
        "ALTER TABLE public.stage_changes RENAME stage_from TO old_stage",
        'ALTER TABLE public.stage_changes RENAME COLUMN "old_stage" TO "stage_from"',
        "ALTER TABLE public.stage_changes RENAME old_stage TO stage_from",
    ),
    "a dropped column": (
        "ALTER TABLE public.stage_changes DROP lead_source_tag",
        'ADD COLUMN "lead_source_tag" text',
        'ALTER TABLE public.stage_changes ADD COLUMN "lead_source_tag" text',
    ),
    "a column that must not be null": (
        "ALTER TABLE public.stage_changes ADD note text NOT NULL",
        'ALTER COLUMN "note" DROP NOT NULL',
        'ALTER TABLE public.stage_changes ALTER COLUMN "note" DROP NOT NULL',
    ),
    "a column of ours that must not be null": (
        "ALTER TABLE public.stage_changes ALTER first_name SET NOT NULL",
        'ALTER COLUMN "first_name" DROP NOT NULL',
        'ALTER TABLE public.stage_changes ALTER COLUMN "first_name" DROP NOT NULL',
    ),
}


@pytest.mark.parametrize(("statement", "said", "cure"), _ALTERATIONS.values(), ids=_ALTERATIONS.keys())
async def test_columns_that_will_refuse_rows_are_a_problem_before_any_row_comes(
    database: str, statement: str, said: str, cure: str
) -> None:
    """Found by looking, with the object and the cure; over at the first look after the cure. The database itself is up."""
    async with monitored(database) as parts:
        await eventually(lambda: parts.monitor.database_health().recording)
        await execute(database, statement)
        await eventually(lambda: has_problems(parts, "table_refuses"), 30.0)
        assert said in (parts.monitor.not_ready_reason() or "")
        assert said in parts.shared.problems.current()[0].text
        assert value(parts, "fubd_db_up") == 1
        await execute(database, cure)
        await eventually(lambda: has_problems(parts), 30.0)
        assert parts.monitor.not_ready_reason() is None


async def test_columns_that_the_owner_fills_are_no_problem(database: str) -> None:
    """One with a default, and one that a trigger may fill."""
    async with monitored(database) as parts:
        await execute(
            database,
            "ALTER TABLE public.stage_changes ADD note text NOT NULL DEFAULT '';"
            "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.agent_note = 'x'; RETURN NEW; END $$;"
            "CREATE TRIGGER fill BEFORE INSERT ON public.stage_changes FOR EACH ROW EXECUTE FUNCTION fill();"
            "ALTER TABLE public.stage_changes ADD agent_note text NOT NULL",
        )
        summary = await parts.shared.status.summary()
        assert summary.table_refusal is None


async def test_polling_that_stops_is_a_problem(database: str) -> None:
    """It begins when no poll was complete for so long, counted from the start at the earliest, and ends with the next one."""
    async with monitored(database, FUBD_POLL_STALE_AFTER="0.5") as parts:
        assert parts.shared.problems.current() == ()
        await eventually(lambda: has_problems(parts, "polling_stale"))


async def test_webhooks_are_not_healthy_in_failover(database: str) -> None:
    """However recently one was heard, in the document, the gauge and the view alike."""
    await execute(database, _DELIVERY.format(reason="NULL"))
    async with monitored(database) as parts:
        for mode, status, gauge in (("steady", "HEALTHY", 1), ("failover", "STALE - Check webhook server", 0)):
            await execute(database, _MODE.format(mode=mode))

            async def agree(status: str = status, gauge: int = gauge) -> bool:
                parts.monitor.refresh_soon()
                await asyncio.sleep(0)
                return (parts.monitor.sources()["webhook"].status, value(parts, "fubd_source_healthy", source="webhook")) == (status, gauge)

            await eventually(agree)


async def test_a_source_is_not_stale_because_the_look_at_it_is_old(database: str) -> None:
    """What was heard since the last look is not known; it is judged by that look, and by the clock once looks fail."""
    clock = HandClock()
    await execute(database, _DELIVERY.format(reason="NULL").replace("now()", f"'{NOON.isoformat()}'"))
    async with monitored(database, clock=clock, FUBD_WEBHOOK_STALE_AFTER="10") as parts:
        await eventually(lambda: parts.monitor.database_health().recording)
        for seconds, status in ((8, "HEALTHY"), (12, "HEALTHY")):
            clock.time = NOON + timedelta(seconds=seconds)
            assert parts.monitor.sources()["webhook"].status == status
        parts.monitor.set_database_error(Unavailable("the database does not answer"))
        assert parts.monitor.sources()["webhook"].status == "STALE - Check webhook server"
        parts.monitor.refresh_soon()
        await eventually(lambda: parts.monitor.as_of == clock.time)
        assert parts.monitor.sources()["webhook"].status == "STALE - Check webhook server"


_OF_SOURCES = ("healthy", "last_heard_timestamp_seconds", "last_change_timestamp_seconds")


async def test_an_empty_database_is_a_measurement(database: str) -> None:
    """After the first look every gauge of the database is a number; 0 stands for never."""
    async with monitored(database) as parts:
        await eventually(lambda: not math.isnan(value(parts, "fubd_webhook_failure_ratio")), 30.0)
        for name in _OF_SOURCES:
            assert [value(parts, f"fubd_source_{name}", source=source) for source in ("webhook", "polling")] == [0, 0]
        assert [value(parts, f"fubd_{name}") for name in ("quarantined", "inbox_pending", "webhook_failure_ratio")] == [0, 0, 0]


async def test_what_was_not_measured_is_no_number(database: str) -> None:
    """Neither 0 nor 1: a board or a rule would take it for a measurement."""
    parts = components.build(load({"FUB_API_KEY": "invented"}, env_file=None), parse(database))
    shown = {
        f"{sample.name}{tuple(sample.labels.values())}"
        for family in parts.metrics.registry.collect()
        if family.type == "gauge"
        for sample in family.samples
        if math.isnan(sample.value)
    }
    assert shown == {
        "fubd_api_rate_limit_remaining('global',)",
        "fubd_chain_check_timestamp_seconds()",
        "fubd_clock_skew_seconds()",
        *(f"fubd_{name}()" for name in ("chain_violations", "ledger_imbalance", "completeness_ratio", "scrub_oldest_timestamp_seconds")),
        *(f"fubd_{name}()" for name in ("inbox_pending", "quarantined", "people_unreadable", "webhook_failure_ratio")),
        *(f"fubd_source_{name}('{source}',)" for name in _OF_SOURCES for source in ("webhook", "polling")),
        *(f"fubd_webhook_subscription_active('{event}',)" for event in SUBSCRIBED_EVENTS),
    }
    await parts.pool.close()


async def test_coverage_ahead_of_follow_up_boss_is_shown_as_the_instant_that_holds(database: str) -> None:
    """After a Date header that ran ahead, `/health` and the metric say until when everything is recorded, not what is stored."""
    ahead = datetime(2026, 11, 27, 19, 0, tzinfo=UTC)
    holds = ahead - timedelta(hours=1)
    async with monitored(database) as parts:
        await parts.shared.state.advance_coverage(ahead, sweep=True)
        parts.monitor.covered.instant = holds
        parts.monitor.refresh_soon()
        await eventually(lambda: parts.monitor.summary is not None and parts.monitor.summary.coverage == holds)
        assert value(parts, "fubd_coverage_timestamp_seconds") == holds.timestamp()
