"""The account: its people, stages and users, and everything that can happen to them.

Each change updates three things: the record that the API shows, the ground truth, and the listeners, which receive an `AccountEvent`
and make webhooks of it. The account does not know about HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from fubd.simulator import population as visibility
from fubd.simulator.account_events import MERGED, STAGE_DELETED, AccountEvent, AccountEventKind
from fubd.simulator.behaviour import Merge
from fubd.simulator.clock import SimClock
from fubd.simulator.conditions import Conditions
from fubd.simulator.people_history import PeopleHistory
from fubd.simulator.population import Population
from fubd.simulator.truth import TrueChange, Truth

TRASH: Final = "Trash"
MERGED_AT_ONCE: Final = 10
"""The most people in one merge, the winner included (help centre, article 360015171394)."""
_STAGES_LIMIT: Final = 255

STAGES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "Lead": 30,
        "Contact Upload": 120,
        "ACQ - New Lead": 80,
        "ACQ - Attempted Contact": 200,
        "ACQ - Qualified": 60,
        "Qualified Phase 2 - Day 3 to 2 Weeks": 40,
        "Qualified Phase 3 - 2 Weeks to 4 Weeks": 40,
        "ACQ - Offers Made": 25,
        "ACQ - Price Motivated": 25,
        "ACQ - Contract Sent": 5,
        "ACQ - Under Contract": 5,
        "ACQ - Closed Won": 10,
        "ACQ - Not Ready to Sell": 90,
        "ACQ - Not Interested": 120,
        "ACQ - Dead / DNC": 100,
        "Nurture": 40,
        "Past Client": 5,
        TRASH: 5,
    }
)
"""Stage names of a typical account, each with its frequency; more than the ten that `GET /stages` shows by default."""

USERS: Final = ("Olive Ownerby", "Adam Deskwell", "Bea Calloway-Low", "Carl Dialstone", "Dora Fieldmouse", "Emil Hartnell")
"""Invented users: the first owns the account, the second is an admin, the others are agents."""


@dataclass(slots=True)
class StageDefinition:
    """A stage definition. `id` stays when `name` changes; protected stages cannot be renamed or deleted."""

    id: int
    name: str
    order_weight: int
    protected: bool
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """A user of the account; `role` is owner, admin or agent."""

    id: int
    name: str
    email: str
    role: str


@dataclass(frozen=True, slots=True)
class Lags:
    """Delays of the account, in simulated seconds."""

    readable: float = 0.0
    """From a creation until the person can be read (documented as a common issue, without a number)."""
    deleted: float = 0.0
    """From a deletion until the person is gone (others observed up to five seconds)."""
    untrash: float = 11.0
    """From an inbound event of a trashed person until the server takes them out of Trash (observed)."""


class Account:
    """A simulated account of `people` invented people.

    `seed` determines everything about them; `clock` is the current time, and everyone was created in the six years before it. `stages` maps
    stage names to their frequency; it must hold `Lead` and `Trash`. `gaps` is the share of ids that no longer exist.
    Raises ValueError for stages the account cannot hold.

    Methods raise LookupError for a person or a stage that does not exist.
    """

    def __init__(
        self,
        *,
        seed: int,
        people: int,
        clock: SimClock,
        stages: Mapping[str, int] = STAGES,
        users: Sequence[str] = USERS,
        first_id: int = 1001,
        gaps: float = 0.0,
        lags: Lags | None = None,
    ) -> None:
        if not {"Lead", TRASH} <= set(stages) or len(stages) > _STAGES_LIMIT:
            raise ValueError(f"an account has the stages Lead and {TRASH}, and at most {_STAGES_LIMIT}")
        self.seed = seed
        self.clock = clock
        self.lags = lags or Lags()
        self.conditions = Conditions()
        self.stages = [
            StageDefinition(id=2 + 3 * index, name=name, order_weight=1000 + 10 * index, protected=name in ("Lead", TRASH))
            for index, name in enumerate(stages)
        ]
        self.users = [
            User(id=1 + index, name=name, email=f"user{1 + index}@example.com", role=("owner", "admin", "agent")[min(index, 2)])
            for index, name in enumerate(users)
        ]
        self.people = Population(
            seed=seed,
            people=people,
            first_id=first_id,
            now=int(clock.timestamp()),
            weights=tuple(stages.values()),
            trash=self._stage_index(TRASH),
            users=len(self.users),
            gaps=gaps,
        )
        names = [stage.name for stage in self.stages]
        start, low = self.people.initial_stage, first_id
        self.truth = Truth(lambda person_id: names[start[person_id - low]] if low <= person_id < low + len(start) else None)
        for stage in self.stages:
            self.truth.names.setdefault(stage.name, set()).add(stage.id)
        self.listeners: list[Callable[[AccountEvent], None]] = []
        self._history = PeopleHistory(self.people, clock)
        self._notes = 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Count the people who exist, Trash and unclaimed included."""
        return len(self.people) - self.people.visibility.count(visibility.GONE) - self.people.visibility.count(visibility.HIDDEN)

    @property
    def ids(self) -> list[int]:
        """The ids of the people who exist, ascending, Trash and unclaimed included."""
        first = self.people.first_id
        return [first + slot for slot, how in enumerate(self.people.visibility) if how not in (visibility.GONE, visibility.HIDDEN)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def has(self, person_id: int) -> bool:
        """Return whether the person exists and can be read."""
        slot = self.people.slot(person_id)
        return (
            slot is not None
            and self.people.visibility[slot] not in (visibility.GONE, visibility.HIDDEN)
            and person_id not in self.truth.gone
        )

    @property
    def stage_names(self) -> list[str]:
        """The names of the stages that exist."""
        return [stage.name for stage in self.stages if not stage.deleted]

    def stage_of(self, person_id: int) -> str:
        """Return the stage a person is in."""
        return self.stages[self.people.stage[self._slot(person_id)]].name

    def stage_id(self, name: str) -> int:
        """Return a stage's id by its name."""
        return self.stages[self._stage_index(name)].id

    def person(self, person_id: int, *, full: bool = True) -> dict[str, object]:
        """Return a person as the API shows one; `full` adds custom fields and others that come only on request."""
        return self.record(self._slot(person_id), full=full)

    def record(self, slot: int, *, full: bool) -> dict[str, object]:
        """Return the person in a slot as the API shows one."""
        stage, user = self.stages[self.people.stage[slot]], self.users[self.people.user[slot]]
        return self.people.record(slot, stage=stage.name, stage_id=stage.id, assigned=(user.id, user.name), full=full)

    def as_of(self, seconds_ago: float) -> AbstractContextManager[None]:
        """Show the people as they were some seconds ago while inside, as a lagging replica or index does."""
        return self._history.as_of(seconds_ago)

    # --- stages -------------------------------------------------------------------------------------------------------

    def move(self, person_id: int, stage: str, *, actor: str | None = None) -> bool:
        """Move a person into a stage, by a user (`actor`, by default the one assigned); False if the person is in it already."""
        return self.bulk_move([person_id], stage, actor=actor) == 1

    def bulk_move(
        self, person_ids: Iterable[int], stage: str, *, actor: str | None = None, split: int | None = None, cause: str = ""
    ) -> int:
        """Move many people at one instant, reported in events of at most `split` ids; return how many really moved."""
        index, at = self._stage_index(stage), self.clock.now()
        moved: list[int] = []
        changes: list[TrueChange] = []
        for person_id in person_ids:
            slot = self._slot(person_id)
            if self.people.stage[slot] == index:
                continue
            who = actor if actor is not None else self.users[self.people.user[slot]].name
            touches = cause != STAGE_DELETED or self.conditions.behaviour.stage_deletion_moves_updated
            changes.append(self._enter_stage(slot, index, at, who, touches=touches))
            moved.append(person_id)
        if moved:
            self._publish(
                AccountEvent(AccountEventKind.MOVED, tuple(moved), at, stage=stage, changes=tuple(changes), split=split, cause=cause)
            )
        return len(moved)

    def trash(self, person_id: int, *, actor: str | None = None) -> bool:
        """Move a person to Trash, which hides them from lists."""
        return self.move(person_id, TRASH, actor=actor)

    def create_stage(self, name: str) -> int:
        """Add a stage and return its id. Raises ValueError when the account is full or has one of that name."""
        if len(self.stages) >= _STAGES_LIMIT or any(stage.name == name and not stage.deleted for stage in self.stages):
            raise ValueError(f"no further stage {name!r}")
        stage = StageDefinition(
            id=2 + 3 * len(self.stages), name=name, order_weight=max(one.order_weight for one in self.stages) + 10, protected=False
        )
        self.stages.append(stage)
        self.truth.names.setdefault(name, set()).add(stage.id)
        self._publish(AccountEvent(AccountEventKind.STAGE_CREATED, (stage.id,), self.clock.now()))
        return stage.id

    def rename_stage(self, old: str, new: str) -> None:
        """Rename a stage. No person moves; people show the new name at once. Raises ValueError for a protected one."""
        stage = self.stages[self._stage_index(old)]
        if stage.protected:
            raise ValueError(f"{old} is protected")
        stage.name = new
        self.truth.names.setdefault(new, set()).add(stage.id)
        self._publish(AccountEvent(AccountEventKind.STAGE_RENAMED, (stage.id,), self.clock.now()))

    def delete_stage(self, name: str, assign_to: str) -> int:
        """Delete a stage, move its people to another, and return how many moved. Raises ValueError for a protected one."""
        index = self._stage_index(name)
        if self.stages[index].protected:
            raise ValueError(f"{name} is protected")
        first = self.people.first_id
        people = [
            first + slot
            for slot, where in enumerate(self.people.stage)
            if where == index and self.people.visibility[slot] != visibility.GONE
        ]
        moved = self.bulk_move(people, assign_to, actor="server", cause=STAGE_DELETED)
        self.stages[index].deleted = True
        self._publish(AccountEvent(AccountEventKind.STAGE_DELETED, (self.stages[index].id,), self.clock.now()))
        return moved

    # --- people -------------------------------------------------------------------------------------------------------

    def create(
        self, *, stage: str = "Lead", via: str = "api", claimed: bool = True, fields: Mapping[str, object] | None = None, actor: str = ""
    ) -> int:
        """Create a person in a stage and return the id. `via` is `api` or `lead_flow`, and the `actor` unless one is given."""
        index, at = self._stage_index(stage), self.clock.now()
        final = (visibility.TRASHED if stage == TRASH else visibility.PLAIN) + (0 if claimed else visibility.UNCLAIMED - visibility.PLAIN)
        how = visibility.HIDDEN if self.lags.readable > 0 else final
        user = len(self.people) % len(self.users)
        slot = self.people.add(now=int(at.timestamp()), stage=index, user=user, visibility=how)
        self.people.edited[slot] = {"createdVia": "API" if via == "api" else "Lead Flow", **(fields or {})}
        self._history.remember_absent(slot)
        person_id = self.people.first_id + slot
        if how == visibility.HIDDEN:
            self.clock.call_later(self.lags.readable, lambda: self._reveal(slot, claimed=claimed))
        self.truth.created[person_id] = at
        change = self._record_change(slot, None, index, at, actor or via)
        self._publish(AccountEvent(AccountEventKind.CREATED, (person_id,), at, stage=stage, changes=(change,), via=via))
        return person_id

    def edit(self, person_id: int, **fields: object) -> None:
        """Change fields other than the stage, by their API names; moves `updated`. `tags` replaces the tags; `assignedUserId` reassigns."""
        slot, at = self._slot(person_id), self.clock.now()
        self._history.remember(slot)
        before = self.record(slot, full=True).get("tags")
        user = fields.pop("assignedUserId", None)
        if user is not None:
            self.people.user[slot] = [one.id for one in self.users].index(int(str(user)))
        self.people.edited.setdefault(slot, {}).update(fields)
        self.people.touch(slot, int(at.timestamp()))
        self._publish(AccountEvent(AccountEventKind.EDITED, (person_id,), at))
        tags = fields.get("tags")
        if isinstance(tags, (list, tuple)):
            added = tuple(str(tag) for tag in tags if not isinstance(before, list) or tag not in before)
            if added:
                self._publish(AccountEvent(AccountEventKind.TAGGED, (person_id,), at, tags=added))

    def inbound(self, person_id: int) -> None:
        """Receive a lead event for a known person: `updated` stays, but a trashed person is taken out of Trash a little later."""
        slot = self._slot(person_id)
        if self.stages[self.people.stage[slot]].name == TRASH:
            self.clock.call_later(self.lags.untrash, lambda: self._untrash(person_id))

    def note(self, person_id: int) -> int:
        """Add a note to a person, which does not move `updated`, and return its id."""
        self._slot(person_id)
        self._notes += 1
        self._publish(AccountEvent(AccountEventKind.NOTED, (self._notes,), self.clock.now()))
        return self._notes

    def delete(self, person_id: int) -> None:
        """Delete a person permanently."""
        slot, at = self._slot(person_id), self.clock.now()
        self.truth.gone[person_id] = at
        self._remove(slot)
        self._publish(AccountEvent(AccountEventKind.DELETED, (person_id,), at))

    def merge(self, losers: Iterable[int], winner: int) -> None:
        """Merge people into the winner, which keeps its stage; `Behaviour.merge` decides what becomes of the losers.

        Raises ValueError for no losers, too many, or the winner among them.
        """
        losing, kept, at = list(losers), self._slot(winner), self.clock.now()
        if not losing or winner in losing or len(losing) >= MERGED_AT_ONCE:
            raise ValueError(f"a merge takes 1 to {MERGED_AT_ONCE - 1} people into another one")
        slots = [self._slot(person_id) for person_id in losing]
        self.truth.merged |= dict.fromkeys(losing, winner)
        if self.conditions.behaviour.merge is Merge.TRASHED:
            self.bulk_move(losing, TRASH, actor="server", cause=MERGED)
            self.note(winner)
        else:
            for person_id, slot in zip(losing, slots, strict=True):
                self.truth.gone[person_id] = at
                self._remove(slot)
            if self.conditions.behaviour.merge is Merge.DELETED:
                self._publish(AccountEvent(AccountEventKind.DELETED, tuple(losing), at))
        self._history.remember(kept)
        self.people.touch(kept, int(at.timestamp()))
        self._publish(AccountEvent(AccountEventKind.MERGED, (winner,), at))

    # --- internals ----------------------------------------------------------------------------------------------------

    def _publish(self, event: AccountEvent) -> None:
        for listener in self.listeners:
            listener(event)

    def _slot(self, person_id: int) -> int:
        slot = self.people.slot(person_id)
        if slot is None or self.people.visibility[slot] == visibility.GONE or person_id in self.truth.gone:
            raise LookupError(f"person {person_id} is not there")
        return slot

    def _stage_index(self, name: str) -> int:
        for index, stage in enumerate(self.stages):
            if stage.name == name and not stage.deleted:
                return index
        raise LookupError(f"there is no stage {name!r}")

    def _enter_stage(self, slot: int, index: int, at: datetime, actor: str, *, touches: bool) -> TrueChange:
        self._history.remember(slot)
        before = self.people.stage[slot]
        trash = self._stage_index(TRASH)
        self.people.stage[slot] = index
        how = self.people.visibility[slot]
        if how != visibility.HIDDEN and (index == trash) != (before == trash):
            self.people.set_visibility(slot, how + (1 if index == trash else -1))
        if touches:
            self.people.touch(slot, int(at.timestamp()))
        return self._record_change(slot, before, index, at, actor)

    def _record_change(self, slot: int, before: int | None, index: int, at: datetime, actor: str) -> TrueChange:
        change = TrueChange(
            person_id=self.people.first_id + slot,
            stage_from=None if before is None else self.stages[before].name,
            stage_to=self.stages[index].name,
            at=at,
            actor=actor,
            number=len(self.truth.changes),
            stage_from_id=None if before is None else self.stages[before].id,
            stage_to_id=self.stages[index].id,
        )
        self.truth.record(change)
        return change

    def _remove(self, slot: int) -> None:
        if self.lags.deleted > 0:
            self.clock.call_later(self.lags.deleted, lambda: self._set_visibility(slot, visibility.GONE))
        else:
            self._set_visibility(slot, visibility.GONE)

    def _set_visibility(self, slot: int, how: int) -> None:
        self._history.remember(slot)
        self.people.set_visibility(slot, how)

    def _reveal(self, slot: int, *, claimed: bool) -> None:
        if self.people.visibility[slot] == visibility.HIDDEN:
            trashed = self.stages[self.people.stage[slot]].name == TRASH
            plain = visibility.TRASHED if trashed else visibility.PLAIN
            self._set_visibility(slot, plain + (0 if claimed else visibility.UNCLAIMED - visibility.PLAIN))

    def _untrash(self, person_id: int) -> None:
        slot = self.people.slot(person_id)
        if slot is not None and person_id not in self.truth.gone and self.stages[self.people.stage[slot]].name == TRASH:
            self.move(person_id, "Lead", actor="server")
