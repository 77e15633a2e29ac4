"""`/readyz` of the real process turns while nothing can be recorded, says why, and turns back by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.recorder import execute
from tests.stack import event, running_stack
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

# Fifteen seconds are promised; a busy machine gets twice as long.
_WITHIN_SECONDS = 30.0


async def test_a_table_that_refuses_is_named_until_it_is_cured(database: str, tmp_path: Path) -> None:
    """A renamed column without any delivery; a required one of the owner's: 503 for the delivery, and 200 when it comes again after."""
    async with running_stack(database, tmp_path) as stack, stack.ready_daemon() as process:
        await execute(database, "ALTER TABLE public.stage_changes RENAME confirmed_by TO seconded_by")
        assert b"confirmed_by" in await process.answers(f"{stack.url}/readyz", status=503, within_seconds=_WITHIN_SECONDS)
        await execute(database, "ALTER TABLE public.stage_changes RENAME seconded_by TO confirmed_by")
        await process.answers(f"{stack.url}/readyz", within_seconds=_WITHIN_SECONDS)
        await execute(
            database,
            "ALTER TABLE public.stage_changes ADD COLUMN agent_note text NOT NULL DEFAULT '';"
            " ALTER TABLE public.stage_changes ALTER COLUMN agent_note DROP DEFAULT",
        )
        body = event("33333333-0000-4000-8000-000000000001", "Nurture", datetime.now(UTC), [stack.account.ids[0]])
        assert (await stack.post(body))[0] == 503
        reason = await process.answers(f"{stack.url}/readyz", status=503, within_seconds=_WITHIN_SECONDS)
        assert b"agent_note" in reason
        assert (await stack.metrics())["fubd_problem{problem=table_refuses}"] == 1
        await execute(database, 'ALTER TABLE public.stage_changes ALTER COLUMN "agent_note" DROP NOT NULL')
        await process.answers(f"{stack.url}/readyz", within_seconds=_WITHIN_SECONDS)
        assert (await stack.post(body))[0] == 200
        assert (await stack.metrics())["fubd_problem{problem=table_refuses}"] == 0


async def test_a_database_that_goes_away_is_noticed_without_any_delivery(database: str, tmp_path: Path) -> None:
    """The look every few seconds finds out, and finds it back."""
    async with Proxy(database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack, stack.ready_daemon() as process:
        await proxy.refuse()
        await proxy.cut()
        await process.answers(f"{stack.url}/readyz", status=503, within_seconds=_WITHIN_SECONDS)
        assert (await stack.metrics())["fubd_problem{problem=not_recording}"] == 1
        assert "nothing is recorded since 20" in (await stack.get("/health"))["reason"]
        await proxy.accept()
        await process.answers(f"{stack.url}/readyz", within_seconds=_WITHIN_SECONDS)

        async def is_over() -> bool:
            return (await stack.metrics())["fubd_problem{problem=not_recording}"] == 0

        # One that began again meanwhile, by another connection, lasts for half a minute more.
        await eventually(is_over, 2 * _WITHIN_SECONDS)
