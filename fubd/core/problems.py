"""The problems that fubd reports about itself: their names, and how one is shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

COLUMN_CAUSE = "its column"
"""Begins the cause of `table_refuses` where it is a column, so that a look at the columns decides whether it holds."""


class ProblemName(StrEnum):
    """Every problem by the name that `/health`, `fubd_problem` and alerts use."""

    NOT_RECORDING = "not_recording"
    TABLE_REFUSES = "table_refuses"
    POLLING_STALE = "polling_stale"
    KEY_REFUSED = "key_refused"
    PEOPLE_UNREADABLE = "people_unreadable"
    SIGNING_KEY_WRONG = "signing_key_wrong"
    SUBSCRIPTIONS_CONTESTED = "subscriptions_contested"
    SUBSCRIPTIONS_BLOCKED = "subscriptions_blocked"
    ACCOUNT_MISMATCH = "account_mismatch"
    QUARANTINE = "quarantine"
    EMBEDDED_DATABASE_DOWN = "embedded_database_down"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem that holds. `since` is our clock's; `text` says what happened, to which thing, and what to do.

    `announced`: an alert said that it began, so another has to say that it ended.
    """

    name: ProblemName
    since: datetime
    text: str
    announced: bool = False
