"""A machine whose clock is wrong or jumps: changes and coverage are stored in Follow Up Boss's time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from tests.stack import Stack, assert_perfect, running_stack
from tests.support.process import Process
from tests.support.programs import require_library
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

_OVERLAP = timedelta(minutes=2)
# Where Linux shows shared memory.
_SHARED_MEMORY = Path("/dev") / "shm"


@asynccontextmanager
async def _daemon_with_wrong_clock(stack: Stack, offset: Path) -> AsyncIterator[Process]:
    """Run the daemon with the wall clock shifted by the offset in a file, read at every call. The monotonic clock is unchanged."""
    settings = {
        "LD_PRELOAD": str(require_library("faketime/libfaketimeMT.so.1")),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    async with stack.ready_daemon(**settings) as process:
        yield process
    # libfaketime leaves them when its process ends.
    for name in ("faketime_shm_", "sem.faketime_sem_"):
        (_SHARED_MEMORY / f"{name}{process.pid}").unlink(missing_ok=True)


async def _skew(stack: Stack) -> float:
    return (await stack.metrics())["fubd_clock_skew_seconds"]


@pytest.mark.parametrize("hours", [9, -9])
async def test_a_clock_that_is_hours_wrong_moves_no_instant_of_fub(database: str, tmp_path: Path, hours: int) -> None:
    """Changes have FUB's time, coverage stays just behind FUB's clock, and `received_at` is our clock's."""
    offset = tmp_path / "offset"
    offset.write_text(f"{hours:+}h\n")
    async with running_stack(database, tmp_path) as stack, _daemon_with_wrong_clock(stack, offset):
        assert abs(await _skew(stack) - hours * 3600) < 5
        people = Random(hours).sample(list(stack.account.ids), 30)
        _move_each(stack, people[:20])
        assert_perfect(await stack.final_score())
        stack.simulator.deliveries.kill()
        _move_each(stack, people[20:])
        assert_perfect(await stack.final_score())
        await _wait_for_coverage(stack)
        (row,) = await stack.fetch("SELECT avg(extract(epoch FROM received_at - changed_at))::float8 AS late FROM public.stage_changes")
        assert abs(row["late"] - hours * 3600) < 120


async def test_a_clock_that_jumps_moves_no_instant_of_fub(database: str, tmp_path: Path) -> None:
    """Five hours forward and eight back between changes: nothing is lost or dated wrongly; poller and lease do not wait for hours."""
    offset = tmp_path / "offset"
    offset.write_text("+0s\n")
    async with running_stack(database, tmp_path) as stack, _daemon_with_wrong_clock(stack, offset) as process:
        people = Random(7).sample(list(stack.account.ids), 45)
        for number, jump in enumerate(("+5h", "-3h", "+0s")):
            offset.write_text(f"{jump}\n")
            _move_each(stack, people[15 * number : 15 * number + 10])
            assert_perfect(await stack.final_score())
            stack.simulator.deliveries.kill()
            _move_each(stack, people[15 * number + 10 : 15 * number + 15])
            assert_perfect(await stack.final_score())
            await _wait_for_coverage(stack)
            stack.simulator.deliveries.revive()
        assert (await stack.metrics())["fubd_lease_held"] == 1
        assert process.code is None
        assert process.errors == []


def _move_each(stack: Stack, people: list[int]) -> None:
    """Move each person once: two changes of one person within a second may arrive in any order."""
    for person in people:
        stack.move_randomly(Random(person), people=[person])


async def _wait_for_coverage(stack: Stack) -> None:
    """Wait until coverage is FUB's present time, minus at most the promised overlap."""

    async def is_just_behind() -> bool:
        now = datetime.now(UTC)
        (row,) = await stack.fetch("SELECT reached FROM fubd.coverage")
        assert row["reached"] <= now
        return bool(row["reached"] > now - _OVERLAP)

    await eventually(is_just_behind, 30.0)
