"""Our webhook door as Follow Up Boss sees it: which of its attempts failed within its window.

FUB tries a delivery at once and then on a documented table; of a webhook of which more than half the attempts failed over 48 hours it
says that it disables it. Most failures we answer ourselves. Those that nobody here answered, because no process was there, are learned
from what arrives later for the first time: had an attempt been taken, it would be a duplicate.

What this cannot know: attempts on a path that is broken before it reaches us, and deliveries of which not one attempt arrived.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

WINDOW = timedelta(hours=48)
# The first attempt, then each retry after the one before it, in seconds.
_ATTEMPTS = tuple(timedelta(seconds=seconds) for seconds in accumulate((0, 60, 300, 300, 600, 1800)))


class Hour(NamedTuple):
    """Attempts within the hour that begins at `hour` (our clock): those that failed and those that were taken."""

    hour: datetime
    failed: int
    taken: int


@dataclass(frozen=True, slots=True)
class Others:
    """What other processes counted within the window, and until when the last of them counted; None when there was none."""

    failed: int
    taken: int
    until: datetime | None


def attempts_within(created: datetime, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Give the attempts at a delivery of an event of `created` that fell within [begin, end); all by one clock."""
    return (created + after for after in _ATTEMPTS if begin <= created + after < end)


class Tally:
    """This process's attempts by the hour, over the window."""

    def __init__(self) -> None:
        self._hours: dict[datetime, tuple[int, int]] = {}
        self._unkept: set[datetime] = set()

    def add(self, at: datetime, *, failed: int = 0, taken: int = 0) -> None:
        """Count attempts of about this instant."""
        if failed or taken:
            hour = _hour(at)
            had_failed, had_taken = self._hours.get(hour, (0, 0))
            self._hours[hour] = (had_failed + failed, had_taken + taken)
            self._unkept.add(hour)

    def unkept(self, now: datetime) -> list[Hour]:
        """Give the hours that were not kept as they stand, and the present one, by which the others see that we are here."""
        return [Hour(hour, *self._hours.get(hour, (0, 0))) for hour in sorted(self._unkept | {_hour(now)})]

    def changed(self) -> bool:
        """Whether something was counted since it was last kept."""
        return bool(self._unkept)

    def kept(self, hours: list[Hour]) -> None:
        """Note that these were kept."""
        self._unkept -= {kept.hour for kept in hours}

    def ratio(self, now: datetime, others: Others) -> float:
        """Give the share of attempts that failed within the window, with what others counted; 0 without any."""
        for hour in [hour for hour in self._hours if hour < window_begins(now)]:
            del self._hours[hour]
            self._unkept.discard(hour)
        failed = others.failed + sum(failed for failed, _ in self._hours.values())
        taken = others.taken + sum(taken for _, taken in self._hours.values())
        return failed / (failed + taken) if failed else 0.0


def window_begins(now: datetime) -> datetime:
    """Give the first hour of the window."""
    return _hour(now - WINDOW)


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
