"""What happens in the account, as its listeners receive it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from fubd.simulator.truth import TrueChange

STAGE_DELETED: Final = "stage deleted"
MERGED: Final = "merged"
"""Causes of a mass move."""


class AccountEventKind(StrEnum):
    """What happened in the account."""

    MOVED = "moved"
    CREATED = "created"
    EDITED = "edited"
    TAGGED = "tagged"
    DELETED = "deleted"
    MERGED = "merged"
    NOTED = "noted"
    STAGE_RENAMED = "stage renamed"
    STAGE_CREATED = "stage created"
    STAGE_DELETED = "stage deleted"


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """Something that happened at `at` to all of `ids` at once.

    `ids` are people; note ids for NOTED, stage ids for the stage kinds. `changes` are the true changes that belong to it, in the order of
    `ids`. `split` is how many ids one webhook may carry, None for no limit. `via` is how a person was created, `cause` the reason for a
    mass move.
    """

    kind: AccountEventKind
    ids: tuple[int, ...]
    at: datetime
    stage: str | None = None
    tags: tuple[str, ...] = ()
    changes: tuple[TrueChange, ...] = ()
    split: int | None = None
    via: str = ""
    cause: str = ""
