"""Tells a burst of requests from single ones: people named in a burst are read when it is over, because reads would slow it down."""

from __future__ import annotations

# Below what a clock may round away.
_MOMENT = 1e-3


class Burst:
    """Requests that keep coming. Instants are monotonic seconds.

    It is over when none came for `quiet_seconds`, and holds nothing up any more `longest_seconds` after it began.
    """

    def __init__(self, *, quiet_seconds: float, longest_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._longest_seconds = longest_seconds
        self._began: float | None = None
        self._last = float("-inf")

    def look(self, now: float, *, requested: bool) -> None:
        """Note whether requests came since the last look."""
        if requested:
            self._last = now
            self._began = now if self._began is None else self._began
        elif self.seconds_until_quiet(now) == 0:
            self._began = None

    def seconds_until_quiet(self, now: float) -> float:
        """Return when the burst will be over if nothing comes any more; 0 when it is."""
        return _seconds(self._last + self._quiet_seconds - now)

    def seconds_to_wait(self, now: float) -> float:
        """Return how long reads should wait."""
        if self._began is None:
            return 0.0
        return min(self.seconds_until_quiet(now), _seconds(self._began + self._longest_seconds - now))


def _seconds(left: float) -> float:
    return left if left > _MOMENT else 0.0
