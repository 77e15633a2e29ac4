"""The recent past of the people, so that reads can lag behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from fubd.simulator.clock import SimClock
from fubd.simulator.population import GONE, PersonState, Population

HISTORY_SECONDS: Final = 600.0
"""How far back reads can lag, in simulated seconds."""


@dataclass(frozen=True, slots=True)
class _Change:
    """The state of a slot until `at`, in simulated monotonic seconds."""

    at: float
    slot: int
    before: PersonState


class PeopleHistory:
    """The states that people had within the last minutes."""

    def __init__(self, people: Population, clock: SimClock) -> None:
        self._people = people
        self._clock = clock
        self._changes: deque[_Change] = deque()

    def remember(self, slot: int) -> None:
        """Keep the present state of a person who is about to change."""
        self._append(slot, self._people.state(slot))

    def remember_absent(self, slot: int) -> None:
        """Keep that a person who was just created did not exist before."""
        self._append(slot, replace(self._people.state(slot), visibility=GONE))

    @contextmanager
    def as_of(self, seconds_ago: float) -> Iterator[None]:
        """Rewind the people by some seconds while inside, without an await in between."""
        since = self._clock.monotonic() - seconds_ago
        past: dict[int, PersonState] = {}
        if seconds_ago > 0:
            for change in reversed(self._changes):
                if change.at <= since:
                    break
                past[change.slot] = change.before
        present = {slot: self._people.state(slot) for slot in past}
        self._restore(past)
        try:
            yield
        finally:
            self._restore(present)

    def _restore(self, states: dict[int, PersonState]) -> None:
        for slot, state in states.items():
            self._people.restore(slot, state)

    def _append(self, slot: int, state: PersonState) -> None:
        now = self._clock.monotonic()
        self._changes.append(_Change(now, slot, state))
        while self._changes[0].at < now - HISTORY_SECONDS:
            self._changes.popleft()
