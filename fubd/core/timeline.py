"""The history of one person, derived from the set of claims about them.

There are two kinds of claim. An *entry* (from a webhook) says "entered stage S at t". A *state* (from a read) says "S held at `updated` and
until it was read". `fold` turns the set of claims into the list of changes. It is a function of the set alone: the order in which claims
arrived, how often, and through which process make no difference. The rules, in the order in which they are applied:

1. Entries are ordered by their instants. Entries of one second are ordered by arrival, unless a state read after that second shows which
   of them was the last.
2. A state is *explained*, and makes no change, when the stage that holds at its `updated` is its own; when it was read within the very
   second of several entries and shows one of their stages; or when the very next entry, no later than the window, is of its stage.
3. A state that nothing explains is a change that no webhook reported: it lies at `updated`, after whatever shows the stage before.
4. The first state of an unknown person is where they stand, not a change, unless they were created after we began to watch.
5. Equal neighbours are one change, the earliest.
6. Instants of one person increase strictly: where two would be equal, the later one is placed a microsecond after.

A state never moves an entry and never contradicts one: when they cannot both be true (a read from a lagging replica), the entry stands,
because FUB reported explicitly that it happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage by name, and by FUB's id where a read showed it. Renaming a stage changes only its name."""

    name: str
    id: int | None = None

    def is_same(self, other: Stage) -> bool:
        """Return whether both are one stage: by id where both have one, else by name."""
        if self.id is not None and other.id is not None:
            return self.id == other.id
        return self.name == other.name


@dataclass(frozen=True, slots=True)
class Entry:
    """The person entered `stage` at `at` (FUB's clock).

    `seq` numbers claims in the order of their first arrival. A negative `seq` is that of a row by another writer, which keeps its place.
    """

    seq: int
    at: datetime
    stage: Stage


@dataclass(frozen=True, slots=True)
class State:
    """The person was in `stage` at `updated` and until `read_at` (FUB's clock, a lower bound).

    `watermark`: FUB's instant at which the stage before was known to hold still. `created`: when the person was created.
    """

    seq: int
    updated: datetime
    read_at: datetime
    stage: Stage
    watermark: datetime | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The change after which to begin: everything up to it is settled. `at` is its `changed_at`."""

    stage: Stage
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One stage really entered.

    `changed_after` is None when `changed_at` is exact, else the earliest bound. `dated_by` is the claim that dates it. `claims`: every
    claim, by `seq`, that saw this very change. `repeated_by`: later entries of the same stage; what came between was seen by no source.
    """

    stage_from: str | None
    stage: Stage
    changed_at: datetime
    changed_after: datetime | None
    dated_by: Entry | State
    claims: tuple[int, ...]
    repeated_by: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class History:
    """What the claims amount to.

    `at_start`: claims that agree with the start (or with the first sight). `repeated_at_start`: later entries of its stage.
    `stage` is where the person stands at the end, None when nothing is known.
    """

    changes: tuple[Change, ...]
    at_start: tuple[int, ...]
    repeated_at_start: tuple[int, ...]
    stage: Stage | None


def fold(
    entries: Iterable[Entry],
    states: Iterable[State],
    start: Start | None = None,
    *,
    window: timedelta,
    began: datetime | None = None,
) -> History:
    """Return the changes after `start` that claims amount to, all of which lie after it.

    `window`: by how much the two sources may differ in dating the same change. `began`: since when (FUB's clock) we watch, None while
    unknown. People created later entered their first stage; people created earlier only stand in it.
    """
    in_order = sorted(states, key=lambda state: (state.updated, state.read_at, state.seq))
    moves = _order_ties(sorted(entries, key=lambda entry: (entry.at, entry.seq)), in_order)
    chain = _Chain(start, window, began)
    done = 0
    for state in in_order:
        second = _second(state.updated)
        while done < len(moves) and _second(moves[done].at) < second:
            chain.add_entry(moves[done])
            done += 1
        ahead = done
        while ahead < len(moves) and _second(moves[ahead].at) == second:
            ahead += 1
        within = moves[done:ahead]
        if within and not _read_after(state, second) and chain.absorb_before(state, within):
            continue
        for move in within:
            chain.add_entry(move)
        done = ahead
        chain.add_state(state, moves[done] if done < len(moves) else None)
    for move in moves[done:]:
        chain.add_entry(move)
    return chain.history()


def _second(instant: datetime) -> datetime:
    """Return the whole second of an instant: FUB dates no finer."""
    return instant.replace(microsecond=0) if instant.microsecond else instant


def _read_after(state: State, second: datetime) -> bool:
    """Return whether this read saw the end of that second: a read made within it may have been followed by more entries."""
    return _second(state.read_at) > second


def _order_ties(moves: list[Entry], states: Sequence[State]) -> list[Entry]:
    """Rule 1: within a second, put last what the first read after it and before the next entry shows; else keep the order of arrival."""
    first = 0
    while first < len(moves):
        second = _second(moves[first].at)
        beyond = first + 1
        while beyond < len(moves) and _second(moves[beyond].at) == second:
            beyond += 1
        if beyond - first > 1:
            until = _second(moves[beyond].at) if beyond < len(moves) else None
            shown = _first_read_after(second, until, states)
            group = moves[first:beyond]
            if shown is not None and not shown.stage.is_same(group[-1].stage):
                last = next((move for move in reversed(group) if move.stage.is_same(shown.stage) and move.seq >= 0), None)
                if last is not None:
                    group.remove(last)
                    moves[first:beyond] = [*group, last]
        first = beyond
    return moves


def _first_read_after(second: datetime, until: datetime | None, states: Sequence[State]) -> State | None:
    for state in states:
        updated = _second(state.updated)
        if until is not None and updated >= until:
            return None
        if updated >= second and _read_after(state, second):
            return state
    return None


@dataclass(slots=True)
class _Segment:
    """The stay in one stage, as far as it is known. The first segment may begin without a change (`dated_by` is None).

    `held`: instants at which the person was seen in it.
    """

    stage: Stage
    at: datetime
    after: datetime | None
    dated_by: Entry | State | None
    claims: list[int] = field(default_factory=list)
    repeated_by: list[int] = field(default_factory=list)
    held: list[datetime] = field(default_factory=list)

    def last_held_before(self, instant: datetime) -> datetime | None:
        """Return the last instant before `instant` at which this stage is known to hold."""
        return max((held for held in (self.at, *self.held) if held < instant), default=None)


class _Chain:
    """The segments of one person. It grows by one claim at a time, in order."""

    def __init__(self, start: Start | None, window: timedelta, began: datetime | None) -> None:
        self._window = window
        self._began = began
        self._segments: list[_Segment] = []
        # States of one stage that the next entry is expected to explain (rule 2).
        self._expecting: list[State] = []
        if start is not None:
            self._segments.append(_Segment(start.stage, start.at, None, None))

    def add_entry(self, move: Entry) -> None:
        """Add the next entry; it makes no segment when the person is in that stage already (rule 5)."""
        last = self._segments[-1] if self._segments else None
        if last is not None and last.stage.is_same(move.stage):
            dated_at = last.dated_by.at if isinstance(last.dated_by, Entry) else last.at
            repeated = last.dated_by is None or _second(dated_at) != _second(move.at)
            (last.repeated_by if repeated else last.claims).append(move.seq)
            last.held.append(move.at)
            if move.seq < 0:
                # A row by another writer keeps its place, so what follows has to come after it.
                last.at = max(last.at, move.at)
        else:
            last = self._append(move.stage, move.at, None, move)
        for state in self._expecting:
            _attach(last, state)
        self._expecting.clear()

    def absorb_before(self, state: State, within: Sequence[Entry]) -> bool:
        """Add a read made within the second of the entries `within` as one of the stage before them. Return whether it can be one."""
        if self._segments:
            if not self._segments[-1].stage.is_same(state.stage):
                return False
            _attach(self._segments[-1], state)
            return True
        if any(move.stage.is_same(state.stage) for move in within):
            return False
        self._first_sighting(state)
        return True

    def add_state(self, state: State, ahead: Entry | None) -> None:
        """Add the next state: explained (rule 2), a first sight (rule 4), or a change that no webhook reported (rule 3)."""
        if self._expecting and not self._expecting[0].stage.is_same(state.stage):
            self._stop_expecting()
        if self._segments and self._segments[-1].stage.is_same(state.stage):
            _attach(self._segments[-1], state)
        elif (passing := self._passed_within(state)) is not None:
            _attach(passing, state)
        elif ahead is not None and ahead.stage.is_same(state.stage) and ahead.at - state.updated <= self._window:
            self._expecting.append(state)
        else:
            self._add_unexplained(state)

    def _add_unexplained(self, state: State) -> None:
        if self._segments:
            self._infer_change(state)
        else:
            self._first_sighting(state)

    def _stop_expecting(self) -> None:
        """Make a segment of the expecting states: another stage was read before the entry that was to explain them."""
        first, *others = self._expecting
        self._expecting.clear()
        self._add_unexplained(first)
        for state in others:
            _attach(self._segments[-1], state)

    def _passed_within(self, state: State) -> _Segment | None:
        """Return the segment that a read within the very second of several entries may have seen in passing."""
        second = _second(state.updated)
        if _read_after(state, second):
            return None
        for segment in reversed(self._segments):
            if segment.stage.is_same(state.stage):
                return segment
            if _second(segment.at) != second:
                return None
        return None

    def _first_sighting(self, state: State) -> None:
        """Rule 4."""
        created = state.created
        if created is None or self._began is None or created <= self._began:
            segment = _Segment(state.stage, state.updated, None, None)
            self._segments.append(segment)
        elif state.updated - created <= self._window:
            segment = self._append(state.stage, created, None, state)
        else:
            segment = self._append(state.stage, state.updated, created, state)
        _attach(segment, state)

    def _infer_change(self, state: State) -> None:
        """Rule 3: the change lies after the last instant that shows the stage before, and no later than `updated`."""
        last = self._segments[-1]
        at = max(state.updated, last.at + _TICK)
        bounds = [bound for bound in (last.last_held_before(at), state.watermark) if bound is not None and bound < at]
        _attach(self._append(state.stage, at, max(bounds, default=None), state), state)

    def _append(self, stage: Stage, at: datetime, after: datetime | None, dated_by: Entry | State) -> _Segment:
        """Rule 6."""
        if self._segments and at <= self._segments[-1].at:
            at = self._segments[-1].at + _TICK
        segment = _Segment(stage, at, after, dated_by)
        if isinstance(dated_by, Entry):
            segment.claims.append(dated_by.seq)
        self._segments.append(segment)
        return segment

    def history(self) -> History:
        """Return the segments as changes."""
        changes = []
        before: _Segment | None = None
        for segment in self._segments:
            if segment.dated_by is not None:
                changes.append(
                    Change(
                        stage_from=None if before is None else before.stage.name,
                        stage=segment.stage,
                        changed_at=segment.at,
                        changed_after=segment.after,
                        dated_by=segment.dated_by,
                        claims=tuple(segment.claims),
                        repeated_by=tuple(segment.repeated_by),
                    )
                )
            before = segment
        base = self._segments[0] if self._segments and self._segments[0].dated_by is None else None
        return History(
            changes=tuple(changes),
            at_start=() if base is None else tuple(base.claims),
            repeated_at_start=() if base is None else tuple(base.repeated_by),
            stage=before.stage if before is not None else None,
        )


def _attach(segment: _Segment, state: State) -> None:
    segment.claims.append(state.seq)
    # A read from before the entry that explains it saw the stage, but not this stay in it.
    if _second(state.updated) >= _second(segment.at):
        segment.held.extend((state.updated, state.read_at))
