"""Taking over a stage_changes table that older scripts made: `survey` reads it, `plan` says what to do, `takeover` does it and proves it.

`foreign` is for afterwards: the older scripts may go on writing.
"""

from fubd.store.adoption.adopt import Adopted, AdoptionRefused, UndoResult, adopt, look, state, undo
from fubd.store.adoption.foreign import count_foreign
from fubd.store.adoption.plan import BACKUP, Obstacle, Plan, Step

__all__ = [
    "BACKUP",
    "Adopted",
    "AdoptionRefused",
    "Obstacle",
    "Plan",
    "Step",
    "UndoResult",
    "adopt",
    "count_foreign",
    "look",
    "state",
    "undo",
]
