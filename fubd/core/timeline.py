"""The history of one person, derived from the set of claims about them.

Two kinds of claim come in. An *entry* (from a webhook) says "entered stage S at t". A *state* (from a read) says "S held at `updated` and
until it was read". `fold` turns the set of them into the list of changes, and being a function of the set alone it does not care in which
order, how often or through which process they came. The rules, in the order in which they are applied:

1. Entries stand in the order of their instants. Entries of one second stand in the order of arrival, unless a state read after that second
   shows which of them was the last.
2. A state is *explained*, and makes nothing, when the stage that holds at its `updated` is its own; when it was read within the very second
   of other moves and shows one of their stages; or when the very next entry, no later than the window, tells of it.
3. A state that nothing explains is a change that no webhook told: it lies at `updated`, after whatever shows the stage before.
4. The first state of a person of whom nothing is known is where they stand, not a change; unless they were created since we watch.
5. Equal neighbours are one change, the earliest.
6. Instants of one person increase strictly: where two would be equal, the later one stands a microsecond after.

A state never moves an entry and never contradicts one: when they cannot both be true (a read from a lagging replica), the entry stands,
because FUB said outright that it happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage by name, and by FUB's id where a read told it. Renaming changes the name alone."""

    name: str
    id: int | None = None

    def same(self, other: Stage) -> bool:
        """Tell whether both are one stage: by id where both have one, else by name."""
        if self.id is not None and other.id is not None:
            return self.id == other.id
        return self.name == other.name


@dataclass(frozen=True, slots=True)
class Entry:
    """The person entered `stage` at `at` (FUB's clock).

    `seq` is the order in which claims were first received; below zero it is that of a row by another writer, which stands where it is.
    """

    seq: int
    at: datetime
    stage: Stage


@dataclass(frozen=True, slots=True)
class State:
    """The person was in `stage` at `updated` and until `read_at` (FUB's clock, a lower bound).

    `covered`: FUB's instant at which the stage before was known to hold still. `created`: the person's own.
    """

    seq: int
    updated: datetime
    read_at: datetime
    stage: Stage
    covered: datetime | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The change from which to go on: everything up to it is settled. `at` is its `changed_at`."""

    stage: Stage
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One stage really entered.

    `changed_after` is None when `changed_at` is exact, else the earliest bound. `dated_by` is the claim that dates it. `claims`: every
    claim, by `seq`, that saw this very change; `repeated_by`: entries of the same stage told again later, the step between unseen.
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

    `at_start`: claims that agree with the start (or with the first sight); `repeated_at_start`: entries of its stage told again.
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
    """Derive the changes after `start` from claims that all lie after it.

    `window`: by how much the two sources may differ in dating the same change. `began`: since when (FUB's clock) we watch, None while
    unknown: people created later entered their first stage, people created earlier only stand in it.
    """
    reads = sorted(states, key=lambda state: (state.updated, state.read_at, state.seq))
    moves = _settle_ties(sorted(entries, key=lambda entry: (entry.at, entry.seq)), reads)
    line = _Chain(start, window, began)
    done = 0
    for state in reads:
        second = _second(state.updated)
        while done < len(moves) and _second(moves[done].at) < second:
            line.add_entry(moves[done])
            done += 1
        ahead = done
        while ahead < len(moves) and _second(moves[ahead].at) == second:
            ahead += 1
        within = moves[done:ahead]
        if within and not _conclusive(state, second) and line.absorb_before(state, within):
            continue
        for move in within:
            line.add_entry(move)
        done = ahead
        line.add_state(state, moves[done] if done < len(moves) else None)
    for move in moves[done:]:
        line.add_entry(move)
    return line.history()


def _second(instant: datetime) -> datetime:
    """FUB dates by whole seconds; two instants are told apart by no less."""
    return instant.replace(microsecond=0) if instant.microsecond else instant


def _conclusive(state: State, second: datetime) -> bool:
    """Tell whether this read saw the end of that second: one made within it may have been followed by more moves."""
    return _second(state.read_at) > second


def _settle_ties(moves: list[Entry], reads: Sequence[State]) -> list[Entry]:
    """Rule 1: within a second, put last what the first conclusive read before the next move shows; else keep the order of arrival."""
    first = 0
    while first < len(moves):
        second = _second(moves[first].at)
        beyond = first + 1
        while beyond < len(moves) and _second(moves[beyond].at) == second:
            beyond += 1
        if beyond - first > 1:
            until = _second(moves[beyond].at) if beyond < len(moves) else None
            shown = _shown_after(second, until, reads)
            group = moves[first:beyond]
            if shown is not None and not shown.stage.same(group[-1].stage):
                last = next((move for move in reversed(group) if move.stage.same(shown.stage) and move.seq >= 0), None)
                if last is not None:
                    group.remove(last)
                    moves[first:beyond] = [*group, last]
        first = beyond
    return moves


def _shown_after(second: datetime, until: datetime | None, reads: Sequence[State]) -> State | None:
    for state in reads:
        updated = _second(state.updated)
        if until is not None and updated >= until:
            return None
        if updated >= second and _conclusive(state, second):
            return state
    return None


@dataclass(slots=True)
class _Segment:
    """A change in the making; the first link may be where the person stands without a change (`dated_by` None)."""

    stage: Stage
    at: datetime
    after: datetime | None
    dated_by: Entry | State | None
    claims: list[int] = field(default_factory=list)
    repeated_by: list[int] = field(default_factory=list)
    held: list[datetime] = field(default_factory=list)

    def shown_until(self, before: datetime) -> datetime | None:
        """Give the last instant before `before` at which this stage is known to hold."""
        known = [instant for instant in (self.at, *self.held) if instant < before]
        return max(known, default=None)


class _Chain:
    """The chain as it grows, one claim at a time, in order."""

    def __init__(self, start: Start | None, window: timedelta, began: datetime | None) -> None:
        self._window = window
        self._began = began
        self._links: list[_Segment] = []
        self._waiting: list[State] = []
        if start is not None:
            self._links.append(_Segment(start.stage, start.at, None, None))

    def add_entry(self, move: Entry) -> None:
        """Take the next entry; collapse it when the person is in that stage already (rule 5)."""
        last = self._links[-1] if self._links else None
        if last is not None and last.stage.same(move.stage):
            again = last.dated_by is None or _second(last.dated_by.at if isinstance(last.dated_by, Entry) else last.at) != _second(move.at)
            (last.repeated_by if again else last.claims).append(move.seq)
            last.held.append(move.at)
            if move.seq < 0:
                # That row stays where it is, so what follows stands after it.
                last.at = max(last.at, move.at)
        else:
            last = self._append(move.stage, move.at, None, move)
        for state in self._waiting:
            self._agree(last, state)
        self._waiting.clear()

    def absorb_before(self, state: State, within: Sequence[Entry]) -> bool:
        """Take a read made within the second of the moves `within` as a look at what was before them, if it can be one."""
        if self._links:
            if not self._links[-1].stage.same(state.stage):
                return False
            self._agree(self._links[-1], state)
            return True
        if any(move.stage.same(state.stage) for move in within):
            return False
        self._first_sighting(state)
        return True

    def add_state(self, state: State, ahead: Entry | None) -> None:
        """Take the next state: explained (rule 2), a first sight (rule 4), or a change that no webhook told (rule 3)."""
        if self._waiting and not self._waiting[0].stage.same(state.stage):
            self._stop_waiting()
        if self._links and self._links[-1].stage.same(state.stage):
            self._agree(self._links[-1], state)
        elif (passing := self._passed_within(state)) is not None:
            self._agree(passing, state)
        elif ahead is not None and ahead.stage.same(state.stage) and ahead.at - state.updated <= self._window:
            self._waiting.append(state)
        else:
            self._make(state)

    def _make(self, state: State) -> None:
        if self._links:
            self._infer(state)
        else:
            self._first_sighting(state)

    def _stop_waiting(self) -> None:
        """Another stage was read before the entry that was to explain these: they were a visit of their own."""
        first, *others = self._waiting
        self._waiting.clear()
        self._make(first)
        for state in others:
            self._agree(self._links[-1], state)

    def _passed_within(self, state: State) -> _Segment | None:
        """Find the link that a read within the very second of several moves may have caught in passing."""
        second = _second(state.updated)
        if _conclusive(state, second):
            return None
        for position in range(len(self._links) - 1, -1, -1):
            link = self._links[position]
            if link.stage.same(state.stage):
                return link
            if _second(link.at) != second:
                return None
        return None

    def _agree(self, link: _Segment, state: State) -> None:
        link.claims.append(state.seq)
        # A read from before the entry that explains it saw the stage, but not this stay in it.
        if _second(state.updated) >= _second(link.at):
            link.held.extend((state.updated, state.read_at))

    def _first_sighting(self, state: State) -> None:
        """Rule 4."""
        created = state.created
        if created is None or self._began is None or created <= self._began:
            link = _Segment(state.stage, state.updated, None, None)
            self._links.append(link)
        elif state.updated - created <= self._window:
            link = self._append(state.stage, created, None, state)
        else:
            link = self._append(state.stage, state.updated, created, state)
        self._agree(link, state)

    def _infer(self, state: State) -> None:
        """Rule 3: it happened after the last thing that shows the stage before, and no later than `updated`."""
        last = self._links[-1]
        at = max(state.updated, last.at + _TICK)
        bounds = [bound for bound in (last.shown_until(at), state.covered) if bound is not None and bound < at]
        self._agree(self._append(state.stage, at, max(bounds, default=None), state), state)

    def _append(self, stage: Stage, at: datetime, after: datetime | None, dated_by: Entry | State) -> _Segment:
        """Rule 6."""
        if self._links and at <= self._links[-1].at:
            at = self._links[-1].at + _TICK
        link = _Segment(stage, at, after, dated_by)
        if isinstance(dated_by, Entry):
            link.claims.append(dated_by.seq)
        self._links.append(link)
        return link

    def history(self) -> History:
        changes = []
        before: _Segment | None = None
        for link in self._links:
            if link.dated_by is not None:
                changes.append(
                    Change(
                        stage_from=None if before is None else before.stage.name,
                        stage=link.stage,
                        changed_at=link.at,
                        changed_after=link.after,
                        dated_by=link.dated_by,
                        claims=tuple(link.claims),
                        repeated_by=tuple(link.repeated_by),
                    )
                )
            before = link
        base = self._links[0] if self._links and self._links[0].dated_by is None else None
        return History(
            changes=tuple(changes),
            at_start=() if base is None else tuple(base.claims),
            repeated_at_start=() if base is None else tuple(base.repeated_by),
            stage=before.stage if before is not None else None,
        )
