"""`tail`: each change once, as it is recorded."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.recorder import read, running_recorder, webhook
from tests.support.process import fubd
from tests.support.proxy import Proxy

pytestmark = pytest.mark.slow


async def test_it_follows_the_changes(database: str, tmp_path: Path) -> None:
    """The last ones first, then each new one; in the office's time, with the bound of a change that polling found; 0 on Ctrl-C."""
    environ = {"DATABASE_URL": database, "FUBD_TIMEZONE": "America/Chicago"}
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
        async with fubd("tail", environ=environ, folder=tmp_path) as process:
            assert await process.line("A -> B") == "2026-01-05 04:00:00 CST  1 Ada Example  A -> B  webhook"
            await recorder.record(read("C", "10:12", "10:30", "10:05"))
            assert await process.line("B -> C") == "\u2264 2026-01-05 04:12:00 CST  1 Ada Example  B -> C  polling"
            process.signal(signal.SIGINT)
            assert await process.ended() == 0
            assert (len(process.lines), process.errors) == (2, [])


async def test_a_stage_alone_as_json_through_an_outage(database: str, tmp_path: Path) -> None:
    """An object a line; the outage is reported once, and what was recorded meanwhile is not lost."""
    async with running_recorder(database) as recorder, Proxy(database) as proxy:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
        async with fubd("tail", "--stage", "c", "--json", environ={"DATABASE_URL": proxy.dsn}, folder=tmp_path) as process:
            await recorder.record(webhook("e2", "C", "10:10"))
            assert json.loads(await process.line("e2"))["stage_to"] == "C"
            await proxy.refuse()
            await proxy.cut()
            await recorder.record(webhook("e3", "D", "10:20"))
            await recorder.record(webhook("e4", "E", "10:30"))
            await proxy.accept()
            assert json.loads(await process.line("e3"))["stage_from"] == "C"
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
            assert len(process.lines) == 2
