"""What each source showed: which true change reached fubd by webhook or by a read, and which could not be known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fubd.simulator.truth import TrueChange, Truth


@dataclass(slots=True)
class Sighting:
    """What is known about the visibility of one change. Instants are the simulator's.

    `delivered_at`: a genuine webhook about it was answered, with any status; `acknowledged_at`: answered with 2xx.
    `reported`: the eventCreated of those webhooks; a lagging queue or a second event with the same id may date the change later.
    `read_at`: an API answer showed the person in that stage while it held.
    `previous_shown`: an API answer had shown the stage before this one while that held, so a reader could know it.
    """

    delivered_at: datetime | None = None
    acknowledged_at: datetime | None = None
    read_at: datetime | None = None
    previous_shown: bool = False
    reported: tuple[datetime, ...] = ()

    @property
    def is_shown(self) -> bool:
        """Whether any source showed the change."""
        return self.delivered_at is not None or self.read_at is not None


class Sightings:
    """The sightings of all changes. The simulator writes them, the score reads them."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self.sightings: list[Sighting] = [Sighting() for _ in truth.changes]
        self._latest: dict[int, int] = {change.person_id: change.number for change in truth.changes}
        self._current_shown: set[int] = set()
        truth.listeners.append(self._on_change)

    def of(self, change: TrueChange) -> Sighting:
        """Return the sighting of one change."""
        return self.sightings[change.number]

    def record_delivery(self, changes: Iterable[TrueChange], at: datetime, *, acknowledged: bool, created: datetime) -> None:
        """Record that a genuine stage webhook about these changes, dated `created`, was answered."""
        for change in changes:
            sighting = self.sightings[change.number]
            sighting.delivered_at = sighting.delivered_at or at
            sighting.reported += (created,)
            if acknowledged:
                sighting.acknowledged_at = sighting.acknowledged_at or at

    def record_read(self, person_ids: Iterable[int], at: datetime, *, as_of: datetime | None = None) -> None:
        """Record that an API answer showed these people in their stages at `as_of`, by default the current ones.

        A stage that was left since then is not counted: a reader may take so old a reading for outdated.
        """
        for person_id in person_ids:
            if person_id in self._current_shown:
                continue
            number = self._latest.get(person_id)
            if number is not None and as_of is not None and self._truth.changes[number].at > as_of:
                continue
            self._current_shown.add(person_id)
            if number is not None:
                self.sightings[number].read_at = at

    def _on_change(self, change: TrueChange) -> None:
        self.sightings.append(Sighting(previous_shown=change.person_id in self._current_shown))
        self._current_shown.discard(change.person_id)
        self._latest[change.person_id] = change.number
