"""The ground truth: every stage change that really happened, kept apart from the API that reports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from fubd.simulator.oddities import canonical


@dataclass(frozen=True, slots=True)
class TrueChange:
    """One person entered one stage.

    `number` counts all changes from 0 in the order they happened. `stage_from` is None for a person created in `stage_to`.
    `at` is the simulator's clock, to the microsecond. `actor` is a user's name, `api`, `automation` or `server`.
    The ids distinguish stages of the same name, and identify one stage under different names.
    """

    person_id: int
    stage_from: str | None
    stage_to: str
    at: datetime
    actor: str
    number: int
    stage_from_id: int | None
    stage_to_id: int


class Truth:
    """The log of all changes. Only the account writes it; only tests and the score read it."""

    def __init__(self, start_stage: Callable[[int], str | None]) -> None:
        self.changes: list[TrueChange] = []
        self.created: dict[int, datetime] = {}
        self.gone: dict[int, datetime] = {}
        self.merged: dict[int, int] = {}
        self.names: dict[str, set[int]] = {}
        self.listeners: list[Callable[[TrueChange], None]] = []
        self._start_stage = start_stage

    def start_stage(self, person_id: int) -> str | None:
        """Return the stage a person was in when the account began; None if they were created later or never."""
        return self._start_stage(person_id)

    def record(self, change: TrueChange) -> None:
        """Add a change; its `number` must follow the last one."""
        self.changes.append(change)
        for listener in self.listeners:
            listener(change)

    def by_person(self) -> dict[int, list[TrueChange]]:
        """Return each person's changes in order."""
        people: dict[int, list[TrueChange]] = {}
        for change in self.changes:
            people.setdefault(change.person_id, []).append(change)
        return people

    def of(self, person_id: int) -> Iterator[TrueChange]:
        """Yield one person's changes in order."""
        return (change for change in self.changes if change.person_id == person_id)

    def same_stage(self, name: str | None, stage_id: int | None, other: str | None) -> bool:
        """Return whether `other` names the stage that was called `name` then and has `stage_id`, also by an older or newer name."""
        if other is None or name is None:
            return other == name
        if canonical(other) == canonical(name):
            return True
        return stage_id is not None and stage_id in self.names.get(other, ())
