"""Takes over a stage_changes table that older scripts made: `survey` reads it, `plan` decides what to do, `adopt` does it and proves it.

`foreign` is for the time after it: the older scripts may still be writing.
"""

from fubd.store.adoption.adopt import (
    Adopted,
    AdoptionRefused,
    TableState,
    UndoResult,
    adopt,
    forgotten_people,
    plan_adoption,
    table_state,
    undo,
)
from fubd.store.adoption.foreign import count_foreign_rows
from fubd.store.adoption.obstacles import Obstacle
from fubd.store.adoption.plan import BACKUP, AdoptionPlan, AdoptionStep

__all__ = [
    "BACKUP",
    "Adopted",
    "AdoptionPlan",
    "AdoptionRefused",
    "AdoptionStep",
    "Obstacle",
    "TableState",
    "UndoResult",
    "adopt",
    "count_foreign_rows",
    "forgotten_people",
    "plan_adoption",
    "table_state",
    "undo",
]
