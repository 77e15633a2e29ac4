"""One recovery run: catch up once, without a lease and without a mode, and report what it brought."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fubd.poller.catch_up import CatchUp
from fubd.poller.context import FUB_ERRORS, PollContext
from fubd.poller.poll_run import Progress

_log = logging.getLogger("fubd.poller")


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """What a recovery run brought. `coverage`: FUB's instant reached, None before the first baseline. `reason`: why it failed."""

    caught_up: bool
    recovered: int
    people_read: int
    api_calls: int
    coverage: datetime | None
    seconds: float
    reason: str | None = None


async def recover(
    context: PollContext,
    *,
    full: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    stop: asyncio.Event | None = None,
) -> RecoveryResult:
    """Catch up from where coverage ended, or read the whole account when `full` or when it was never read.

    `stop` ends the run before its next call; the next run resumes an interrupted sweep.
    """
    began, calls = context.clock.monotonic(), context.api.calls_made()
    catch_up = CatchUp(context, should_continue=lambda: stop is None or not stop.is_set(), on_progress=on_progress)
    reason: str | None = None
    try:
        await catch_up.run(full=full)
    except FUB_ERRORS as error:
        reason = str(error)
        _log.warning("Not caught up: %s", error)
    return RecoveryResult(
        caught_up=reason is None,
        recovered=catch_up.totals.changes,
        people_read=catch_up.totals.people,
        api_calls=context.api.calls_made() - calls,
        coverage=catch_up.covered,
        seconds=context.clock.monotonic() - began,
        reason=reason,
    )
