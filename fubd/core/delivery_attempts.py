"""How many of Follow Up Boss's attempts to deliver to us failed within its window.

FUB attempts a delivery at once and then on a documented schedule. A webhook of which more than half the attempts failed over 48 hours, with
no recovery within a week, is disabled (docs.followupboss.com/reference/webhooks-guide). Most failures we answer ourselves. Attempts made
while no process ran are learned from what arrives later for the first time: had an earlier attempt been accepted, it would be a duplicate.

What this cannot know: attempts on a network path that is broken before it reaches us, and deliveries of which not one attempt arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate

WINDOW = timedelta(hours=48)
# The first attempt, then each retry after the one before it, in seconds.
_ATTEMPTS = tuple(timedelta(seconds=seconds) for seconds in accumulate((0, 60, 300, 300, 600, 1800)))


@dataclass(frozen=True, slots=True)
class HourCount:
    """The attempts within the hour that begins at `hour` (our clock)."""

    hour: datetime
    failed: int
    accepted: int


@dataclass(frozen=True, slots=True)
class OtherProcesses:
    """What other processes counted within the window, and until when the last of them counted; None when there was none."""

    failed: int
    accepted: int
    until: datetime | None


def attempt_times(created: datetime, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Return the attempts at an event of `created` that fell within [begin, end); all by one clock."""
    return (created + after for after in _ATTEMPTS if begin <= created + after < end)


class AttemptCounts:
    """This process's attempts by the hour, over the window."""

    def __init__(self) -> None:
        self._hours: dict[datetime, HourCount] = {}
        self._unsaved: set[datetime] = set()

    def add(self, at: datetime, *, failed: int = 0, accepted: int = 0) -> None:
        """Count attempts of about this instant."""
        if failed or accepted:
            known = self._at(_hour(at))
            self._hours[known.hour] = HourCount(known.hour, known.failed + failed, known.accepted + accepted)
            self._unsaved.add(known.hour)

    def _at(self, hour: datetime) -> HourCount:
        return self._hours.get(hour) or HourCount(hour, 0, 0)

    def unsaved(self, now: datetime) -> list[HourCount]:
        """Return the hours that changed since they were saved, and the present hour: it shows other processes that this one runs."""
        return [self._at(hour) for hour in sorted(self._unsaved | {_hour(now)})]

    def has_unsaved(self) -> bool:
        """Return whether an hour changed since it was saved."""
        return bool(self._unsaved)

    def mark_saved(self, counts: Iterable[HourCount]) -> None:
        """Note that these hours were saved."""
        self._unsaved -= {count.hour for count in counts}

    def failure_ratio(self, now: datetime, others: OtherProcesses) -> float:
        """Return the share of attempts that failed within the window, with what other processes counted; 0 without any."""
        for hour in [hour for hour in self._hours if hour < window_start(now)]:
            del self._hours[hour]
            self._unsaved.discard(hour)
        failed = others.failed + sum(count.failed for count in self._hours.values())
        accepted = others.accepted + sum(count.accepted for count in self._hours.values())
        return failed / (failed + accepted) if failed else 0.0


def window_start(now: datetime) -> datetime:
    """Return the first hour of the window."""
    return _hour(now - WINDOW)


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
