"""Learn whether lists show people in Trash, as every list request asks for: FUB silently ignores unknown parameters (observed).

A person in Trash on a list is the proof, and costs nothing. A person that only a read by id shows in Trash is requested once more on a
list, by id; when absent there, lists leave Trash out. While no person in Trash was found, nothing is requested.
"""

from __future__ import annotations

import logging

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.core.vocabulary import TRASH

_log = logging.getLogger("fubd.poller")


class TrashVisibility:
    """What this process has learned. `listed`: whether lists show people in Trash, None while unknown."""

    def __init__(self) -> None:
        self.listed: bool | None = None
        self._probed = False

    def needs_probe(self, reading: Reading) -> bool:
        """Return True, once, for the first person in Trash who was read by id: request this person on a list as well."""
        needed = self.listed is None and not self._probed and reading.stage == TRASH
        self._probed |= needed
        return needed

    def observe_page(self, page: PeoplePage) -> None:
        """Learn from a page of any list."""
        if self.listed is not True and any(reading.stage == TRASH for reading in page.readings):
            self.listed = True
            _log.info("Follow Up Boss lists show people in Trash, as fubd requests")

    def observe_absence(self, person_id: int, page: PeoplePage) -> None:
        """Learn from the page on which a person known to be in Trash was requested by id."""
        if self.listed is None and person_id not in page.ids:
            self.listed = False
            _log.warning(
                "Follow Up Boss lists leave out people in Trash although fubd requests them: polls cannot see moves to Trash, only webhooks"
                " report them in time; no person is marked deleted because of this"
            )
