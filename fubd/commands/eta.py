"""Estimates how much longer a reading takes: as the rate limit allows, or at the speed so far, whichever is longer.

The rate limit works in bursts: the calls that a window allows go out at once, and then none until the window has passed. So the speed of
the first seconds means nothing, and the number of windows that are left means most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fubd.client.rate_limit import DEFAULT_LIMIT, DEFAULT_WINDOW_SECONDS
from fubd.components import Components
from fubd.poller import Progress

_MAX_PEOPLE_PER_CALL = 100
_MIN_PEOPLE_PER_CALL = 50


def with_seconds_left(show: Callable[[Progress], None], components: Components) -> Callable[[Progress], None]:
    """Return a function that adds the estimate to each progress before it is shown."""
    kind, began = "", 0.0

    def show_with_estimate(progress: Progress) -> None:
        nonlocal kind, began
        now = components.clock.monotonic()
        if progress.kind != kind:
            kind, began = progress.kind, now
        limit, _ = components.client.limit_and_remaining()
        allowed = max(1, int((limit or DEFAULT_LIMIT) * components.settings.api_share))
        show(replace(progress, seconds_left=estimate_seconds_left(progress, now - began, allowed)))

    return show_with_estimate


def estimate_seconds_left(progress: Progress, elapsed_seconds: float, calls_per_window: int) -> float | None:
    """Return the estimate; None where the total is unknown."""
    if not progress.total or not progress.people:
        return None
    left = max(0, progress.total - progress.people)
    per_call = min(max(progress.people / max(1, progress.calls), _MIN_PEOPLE_PER_CALL), _MAX_PEOPLE_PER_CALL)
    windows = int((progress.calls + left / per_call) / calls_per_window)
    by_limit = windows * DEFAULT_WINDOW_SECONDS - elapsed_seconds
    by_speed = elapsed_seconds * left / progress.people if elapsed_seconds > DEFAULT_WINDOW_SECONDS else 0.0
    return max(by_limit, by_speed, 0.0) if left else 0.0
