"""What the daemon keeps in the database to continue after a restart: coverage, the mode, and people to be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fubd.core.history import Stage
from fubd.core.pacing import Hysteresis

# Columns of older tables may cut a stage's name, but not below this length.
_SHORTEST_CUT = 100


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far the account is recorded. Instants are FUB's.

    `began`: when the first baseline started. `watermark`: everything that changed before it is recorded. Both are None until known.
    `sweep_from_id`: where an interrupted sweep goes on (ids below it are read), with `sweep_began` its start.
    """

    began: datetime | None
    watermark: datetime | None
    sweep_began: datetime | None
    sweep_from_id: int | None


@dataclass(frozen=True, slots=True)
class LastHeard:
    """When each source was last heard (our clock).

    `webhook_received`: last verified delivery. `stage_webhook_received`: last peopleStageUpdated. `polling_received`: last complete poll.
    """

    webhook_received: datetime | None
    stage_webhook_received: datetime | None
    polling_received: datetime | None


@dataclass(frozen=True, slots=True)
class ModeRecord:
    """The mode last announced, with what is needed to continue it after a restart. `since` is our clock's.

    `hysteresis` is None where it was not stored, or was not requested.
    """

    mode: str
    reason: str
    delay_seconds: float
    since: datetime
    hysteresis: Hysteresis | None = None


@dataclass(frozen=True, slots=True)
class CurrentStage:
    """The stage a person is in by their rows, or by their first read where they have none, and since when (FUB's clock).

    `gone`: they are marked as deleted. `ignored`: they were last read in a stage into which moves are not recorded.
    """

    stage: Stage
    since: datetime
    gone: bool
    ignored: bool

    def is_in(self, stage: Stage) -> bool:
        """Return whether it is this stage, whose name the table may have cut."""
        return self.stage.is_same(stage) or (len(self.stage.name) >= _SHORTEST_CUT and stage.name.startswith(self.stage.name))


@dataclass(frozen=True, slots=True)
class PendingRefetch:
    """A person to be read. `since`: FUB's instant that the read must have seen. `attempts`: reads that did not find the person.

    `deleted`: FUB reported that the person was.
    """

    person_id: int
    since: datetime
    attempts: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class UnreadPerson:
    """A person that FUB showed without usable data; id 0 stands for elements without an id. Instants are our clock's.

    `since`: when that was first seen. `not_before`: when to ask again.
    """

    person_id: int
    since: datetime
    not_before: datetime
