"""The people that complete reads of this process recorded lately, so that looking back costs no reading again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime


class RecentReadings:
    """The people recorded lately, each with the time of their last change (FUB's)."""

    def __init__(self) -> None:
        self._updated: dict[int, datetime] = {}

    def add(self, updated: Mapping[int, datetime], *, keep_since: datetime) -> None:
        """Add people of a complete read, and forget everybody who changed before `keep_since`."""
        latest = {**self._updated, **updated}
        self._updated = {person_id: at for person_id, at in latest.items() if at >= keep_since}

    def since(self, instant: datetime) -> set[int]:
        """Return who changed at or after this instant."""
        return {person_id for person_id, at in self._updated.items() if at >= instant}

    def of_second(self, second: datetime) -> set[int]:
        """Return who changed in this second."""
        return {person_id for person_id, at in self._updated.items() if at == second}
