"""Each switch of the mode, as everybody outside sees it: the database, the log, the metrics and whoever is alerted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from tests.stack import Stack, running_stack
from tests.support.process import Process
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


@asynccontextmanager
async def _receiver() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Take alerts until the block ends: their URL, and what came so far."""
    told: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        told.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/alerts", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/alerts", told
    finally:
        await runner.cleanup()


async def _becomes(stack: Stack, mode: str, chance: Random) -> None:
    """Let somebody move now and then until the daemon is in this mode."""
    loop = asyncio.get_running_loop()
    moved_at = float("-inf")

    async def reached() -> bool:
        nonlocal moved_at
        if loop.time() - moved_at >= 0.5:
            moved_at = loop.time()
            stages = [stage.name for stage in stack.account.stages if stage.name != "Trash"]
            stack.account.move(chance.choice(stack.account.ids), chance.choice(stages))
        return bool((await stack.get("/health"))["mode"] == mode)

    await eventually(reached, 60.0)


async def _counted(stack: Stack) -> Counter[str]:
    """Give how often each mode was entered, by this process's metric."""
    prefix = "fubd_mode_changes_total{to="
    metrics = await stack.metrics()
    return Counter(
        {name.removeprefix(prefix).rstrip("}"): int(value) for name, value in metrics.items() if name.startswith(prefix) and value}
    )


def _logged(process: Process) -> list[str]:
    """Give the modes that its log tells of, in order."""
    messages = [str(json.loads(line)["message"]) for line in process.lines]
    return [message.split()[1].rstrip(":") for message in messages if message.startswith("Mode ")]


async def test_each_switch_is_a_row_a_line_a_count_and_an_alert(database: str, tmp_path: Path) -> None:
    """From the first start to steady, failover, a restart in it, recovering and steady: everybody tells the same, once each."""
    chance = Random(5)
    async with _receiver() as (url, told), running_stack(database, tmp_path) as stack:
        async with stack.ready_daemon(FUBD_ALERT_URL=url) as process:
            await _becomes(stack, "steady", chance)
            stack.simulator.deliveries.kill()
            await _becomes(stack, "failover", chance)
            logged, counted = _logged(process), await _counted(stack)
            process.terminate()
            assert await process.ended() == 0
        async with stack.ready_daemon(FUBD_ALERT_URL=url) as process:
            assert (await stack.get("/health"))["mode"] == "failover"
            stack.simulator.deliveries.revive()
            await _becomes(stack, "recovering", chance)
            await _becomes(stack, "steady", chance)
            logged, counted = logged + _logged(process), counted + await _counted(stack)
            rows = [row["mode"] for row in await stack.fetch("SELECT mode FROM fubd.mode_change ORDER BY id")]
            await eventually(lambda: len(told) >= len(rows))
    # On a busy machine a webhook may come late enough to count as missed, and lead back to failover once more.
    assert (rows[0], rows[-1]) == ("starting", "steady")
    assert {"failover", "recovering"} < set(rows)
    assert logged == rows
    assert counted == Counter(rows)
    assert [alert["mode"] for alert in told] == rows
