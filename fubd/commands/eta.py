"""How much longer a reading takes: as long as Follow Up Boss's limit makes it, or as it went so far, whichever is more.

The limit comes in bursts: what a window allows goes at once, and then nothing until it is over. So the pace of the first seconds says
nothing, and the number of windows still to come says most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fubd.client.rate_limit import DEFAULT_LIMIT, DEFAULT_WINDOW_SECONDS
from fubd.components import Components
from fubd.poller import Progress

_MOST_PEOPLE_PER_CALL = 100
_FEWEST_PEOPLE_PER_CALL = 50


def timed(show: Callable[[Progress], None], components: Components) -> Callable[[Progress], None]:
    """Give a watcher of readings that shows each progress with the time that is left."""
    kind, began = "", 0.0

    def watch(reached: Progress) -> None:
        nonlocal kind, began
        now = components.clock.monotonic()
        if reached.kind != kind:
            kind, began = reached.kind, now
        limit, _ = components.client.limit_and_remaining()
        allowed = max(1, int((limit or DEFAULT_LIMIT) * components.settings.api_share))
        show(replace(reached, seconds_left=seconds_left(reached, now - began, allowed)))

    return watch


def seconds_left(reached: Progress, elapsed_seconds: float, allowed_calls: int) -> float | None:
    """Estimate the seconds that are left; None where the end is not known. `allowed_calls`: in one window of the limit."""
    if not reached.total or not reached.people:
        return None
    left = max(0, reached.total - reached.people)
    per_call = min(max(reached.people / max(1, reached.calls), _FEWEST_PEOPLE_PER_CALL), _MOST_PEOPLE_PER_CALL)
    windows = int((reached.calls + left / per_call) / allowed_calls)
    by_limit = windows * DEFAULT_WINDOW_SECONDS - elapsed_seconds
    by_pace = elapsed_seconds * left / reached.people if elapsed_seconds > DEFAULT_WINDOW_SECONDS else 0.0
    return max(by_limit, by_pace, 0.0) if left else 0.0
