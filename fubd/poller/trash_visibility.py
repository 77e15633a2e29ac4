"""Learns whether lists show people in Trash, as every list is asked to: Follow Up Boss ignores a parameter without a word.

Somebody in Trash on a list is the proof, and costs nothing. Somebody whom only a read by id shows in Trash is asked for once more on a
list, by id; when they are not there, lists leave Trash out. Until anybody in Trash is met, nothing is asked.
"""

from __future__ import annotations

import logging

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading

_log = logging.getLogger("fubd.poller")

# FUB's own stage: it can be neither renamed nor deleted.
_TRASH = "Trash"


class TrashVisibility:
    """What was learnt, for a whole process. `listed`: None while it is not known."""

    def __init__(self) -> None:
        self.listed: bool | None = None
        self._asked = False

    def is_worth_asking(self, reading: Reading) -> bool:
        """Tell, once, that this person, read by id, should be asked for on a list too."""
        worth = self.listed is None and not self._asked and reading.stage == _TRASH
        self._asked |= worth
        return worth

    def observe_page(self, page: PeoplePage) -> None:
        """Take a page of any list."""
        if self.listed is not True and any(reading.stage == _TRASH for reading in page.readings):
            self.listed = True
            _log.info("Lists show people in Trash, as they are asked to.")

    def observe_absence(self, person_id: int, page: PeoplePage) -> None:
        """Take the page on which someone known to be in Trash was asked for by id."""
        if self.listed is None and person_id not in page.ids:
            self.listed = False
            _log.warning(
                "Lists leave out people in Trash although they are asked to show them: polls do not see moves to Trash, only webhooks tell"
                " of them in time. Nobody is taken for deleted for it."
            )
