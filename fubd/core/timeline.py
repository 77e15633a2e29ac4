"""The history of one person, derived from the set of claims about them.

There are two kinds of claim. An *entry* (from a webhook) says "entered stage S at t". A *state* (from a read) says "S held at `updated` and
until it was read". `fold` turns the set of claims into the list of changes. It is a function of the set alone: the order in which claims
arrived, how often, and through which process make no difference. The rules, in the order in which they are applied:

1. Entries are ordered by their instants. Entries of one second are ordered so that the fewest equal neighbours remain, because each event
   is a real entry; among those orders one whose last stage a later read shows; among those by arrival.
2. Entries and states are two records of the same moves, so they are matched as sequences. A state is *explained*, and makes no change, when
   the stage that holds at its place among the entries is its own. Its place is after every entry dated before its `updated`. It may be
   later, because an entry may be dated after the move itself: after entries up to `LAG` later, after entries dated before the read was made
   that end in its stage, or after the very next entry within the window. It is later than an entry up to `LAG` later if the state was read
   so long after it that no list trails as far. The places of successive states never go back. Of all places those hold that leave the
   fewest entries without a change of their own, then those that need the fewest changes without an entry.
3. A state that nothing explains is a change that no webhook reported: it lies at `updated`, after whatever shows the stage before. Where
   an earlier read shows another stage with the same `updated`, or an entry after `updated` and long before the read entered another stage,
   the change did not move `updated`: it lies between the two. Of a visit between two reads of one stage with the same `updated`, no read
   shows anything: only its entries do.
4. The first state of an unknown person is where they stand, not a change, unless they were created after we began to watch.
5. Equal neighbours are one change, the earliest.
6. Instants of one person increase strictly: where two would be equal, the later one is placed a microsecond after.

A state never moves an entry. When they cannot both be true (a read from a lagging replica), the entry stands, because FUB reported
explicitly that it happened.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fubd.core.history import LAG, TRAILING, Change, Entry, History, Stage, Start, State
from fubd.core.reads import in_order, redate_unmoved, second_of, with_ids
from fubd.core.ties import order_ties

_SECOND = timedelta(seconds=1)
_TICK = timedelta(microseconds=1)


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
    entries = list(entries)
    reads = in_order(redate_unmoved(states, entries), entries)
    moves = sorted(with_ids(entries, reads), key=lambda entry: (entry.at, entry.seq))
    before = start.stage if start is not None else None
    moves = order_ties(moves, before, lambda trial: _places(reads, trial, start, window, began).cost[:4])
    chain = _Chain(start, window, began)
    done = 0
    positions = _places(reads, moves, start, window, began).positions() if reads else []
    for state, position in zip(reads, positions, strict=True):
        for move in moves[done:position]:
            chain.add_entry(move)
        done = position
        chain.add_state(state)
    for move in moves[done:]:
        chain.add_entry(move)
    return chain.history()


def _is_settled(state: State) -> bool:
    """Return whether the read saw the end of the second of `updated`: a read made within it may have been followed by more moves."""
    return second_of(state.read_at) > second_of(state.updated)


def _is_newcomer(state: State, began: datetime | None) -> bool:
    """Return whether the person was created after we began to watch, so that the first stage was entered (rule 4)."""
    return state.created is not None and began is not None and state.created > began


# --- Rule 2 -----------------------------------------------------------------------------------------------------------


_Cost = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a state stands: after `position` entries, when `stage` holds. It links the places of all states up to this one.

    `cost`: entries without a change of their own; changes without an entry; states that an entry beyond the lag explains, or that stand
    first although an entry is of their second; states that were read after the entry that follows; by how many entries states are explained
    late.
    """

    position: int
    stage: Stage | None
    cost: _Cost = (0, 0, 0, 0, 0)
    earlier: _Place | None = None

    def positions(self) -> list[int]:
        """Return the positions of all states, this one's last."""
        place, positions = self, list[int]()
        while place.earlier is not None:
            positions.append(place.position)
            place = place.earlier
        return positions[::-1]


def _places(reads: Sequence[State], moves: Sequence[Entry], start: Start | None, window: timedelta, began: datetime | None) -> _Place:
    """Return the place of the last state, linked to those before: the cheapest sequence of places, found state by state."""
    entries = _Entries(moves, began)
    best: dict[tuple[int, Stage | None], _Place] = {(0, None): _Place(0, start.stage if start is not None else None)}
    for state in reads:
        reached: dict[tuple[int, Stage | None], _Place] = {}
        for place in best.values():
            for candidate in entries.candidates(state, place, window):
                key = (candidate.position, candidate.stage)
                if key not in reached or candidate.cost < reached[key].cost:
                    reached[key] = candidate
        best = reached
    last, cost = min(((place, entries.advance(place, len(moves)).cost) for place in best.values()), key=lambda found: found[1])
    return _Place(last.position, last.stage, cost, last.earlier)


class _Entries:
    """The entries in order, with what a search among them needs."""

    def __init__(self, moves: Sequence[Entry], began: datetime | None) -> None:
        self._began = began
        self._stages = [move.stage for move in moves]
        self._seconds = [second_of(move.at) for move in moves]
        # How many of the first n entries repeat the stage of the entry before.
        self._repeats = [0] * (len(moves) + 1)
        for count in range(2, len(moves) + 1):
            self._repeats[count] = self._repeats[count - 1] + self._is_repeat(count - 1, self._stages[count - 2])

    def _is_repeat(self, position: int, stage: Stage) -> bool:
        """Return whether an entry enters the stage that holds, unless it is a second event of the entry before: one of the same second."""
        if not self._stages[position].is_same(stage):
            return False
        is_same_second = position > 0 and self._seconds[position] == self._seconds[position - 1]
        return not (is_same_second and self._stages[position - 1].is_same(stage))

    def advance(self, place: _Place, position: int) -> _Place:
        """Return the place after more entries; each that enters the stage that holds already is one without a change of its own."""
        if position <= place.position:
            return place
        swallowed = self._repeats[position] - self._repeats[place.position + 1]
        swallowed += place.stage is not None and self._is_repeat(place.position, place.stage)
        cost = (place.cost[0] + swallowed, *place.cost[1:])
        return _Place(position, self._stages[position - 1], cost, place.earlier)

    def candidates(self, state: State, place: _Place, window: timedelta) -> Iterable[_Place]:
        """Return the places that a state may have when the state before has `place`."""
        second = second_of(state.updated)
        certain = bisect_right(self._seconds, second) if _is_settled(state) else bisect_left(self._seconds, second)
        # After an event that is dated a little later, too, if it held long after that: the event trails the move that it reports.
        certain = max(certain, bisect_right(self._seconds, min(second + LAG, state.read_at - TRAILING)))
        natural = self.advance(place, certain)
        explained = set[int]()
        lagging = max(natural.position, bisect_right(self._seconds, second + LAG))
        for position in self._positions(state, natural.position, lagging, window):
            there = self.advance(natural, position)
            if there.stage is not None and there.stage.is_same(state.stage):
                explained.add(position)
                swallowed, changes, beyond, outdated, late = there.cost
                # Nor does an event report the stage that a newcomer was created in, if none is of that second.
                beyond += position == lagging + 1 or (place.stage is None and self._shows_creation_alone(state))
                outdated += self._is_outdated(state, position)
                yield _Place(position, there.stage, (swallowed, changes, beyond, outdated, late + position - natural.position), place)
        if place.position > max(certain, bisect_right(self._seconds, second + LAG)):
            return
        # An answer after the second of `updated` is most likely of a moment after it too, though a replica may be behind.
        end = max(certain, bisect_right(self._seconds, second))
        likely = end if second_of(state.answered_at or state.read_at) > second else certain
        for position in {certain, end}:
            alone = self.advance(place, position)
            if alone.position not in explained:
                swallowed, changes, beyond, outdated, late = alone.cost
                if alone.stage is not None or (_is_newcomer(state, self._began) and not self._shows_creation(state)):
                    changes += 1
                elif self._has_entries_of(second):
                    beyond += 1
                outdated += self._is_outdated(state, position)
                yield _Place(alone.position, state.stage, (swallowed, changes, beyond, outdated, late + (position != likely)), place)

    def _shows_creation_alone(self, state: State) -> bool:
        return _is_newcomer(state, self._began) and self._shows_creation(state) and not self._has_entries_of(second_of(state.updated))

    def _shows_creation(self, state: State) -> bool:
        """Return whether the person was as they were created, which no event reports. A later move would have moved `updated`."""
        second = second_of(state.updated)
        is_first = state.created is not None and second <= second_of(state.created)
        return is_first and not self._is_outdated(state, bisect_right(self._seconds, second))

    def _has_entries_of(self, second: datetime) -> bool:
        return bisect_left(self._seconds, second) < bisect_right(self._seconds, second)

    def _is_outdated(self, state: State, position: int) -> bool:
        """Return whether the read was certainly made after the entry that follows its place."""
        return position < len(self._seconds) and self._seconds[position] < second_of(state.read_at)

    def _positions(self, state: State, natural: int, lagging: int, window: timedelta) -> Iterable[int]:
        """Return where a state may be explained: among the entries of its lag, at the end of its own interval, after the next entry."""
        yield from range(natural, lagging + 1)
        if lagging < len(self._seconds) and self._seconds[lagging] <= state.updated + window:
            yield lagging + 1
        own = bisect_right(self._seconds, min(state.read_at, state.updated + window))
        if own > lagging + 1:
            yield own


# --- Rules 3 to 6 -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Segment:
    """The stay in one stage, as far as it is known. The first segment may begin without a change (`dated_by` is None).

    `held`: instants at which the person was seen in it. `latest`: the stage as it was last reported, perhaps under another name.
    """

    stage: Stage
    at: datetime
    after: datetime | None
    dated_by: Entry | State | None
    claims: list[int] = field(default_factory=list)
    repeated_by: list[int] = field(default_factory=list)
    held: list[datetime] = field(default_factory=list)
    latest: Stage = field(init=False)

    def __post_init__(self) -> None:
        self.latest = self.stage
        if not (isinstance(self.dated_by, State) and self.dated_by.is_redated):
            self.held.append(self.at)

    def covers(self, stage: Stage) -> bool:
        """Return whether being in `stage` makes no row: it is the one that was last reported, or it has the name that the row has."""
        return self.latest.is_same(stage) or Stage(self.stage.name).is_same(stage)

    def note(self, stage: Stage) -> None:
        """Note under which name and id a covered stage was reported: another one may have taken over the name of the row."""
        if stage.id is not None or not Stage(self.latest.name).is_same(stage):
            self.latest = stage

    def last_held_before(self, instant: datetime) -> datetime | None:
        """Return the last instant before `instant` at which this stage is known to hold."""
        return max((held for held in self.held if held < instant), default=None)


class _Chain:
    """The segments of one person. It grows by one claim at a time, in order."""

    def __init__(self, start: Start | None, window: timedelta, began: datetime | None) -> None:
        self._window = window
        self._began = began
        self._segments: list[_Segment] = []
        if start is not None:
            self._segments.append(_Segment(start.stage, start.at, None, None))

    def add_entry(self, move: Entry) -> None:
        """Add the next entry; it makes no segment when the person is in that stage already (rule 5)."""
        last = self._segments[-1] if self._segments else None
        if last is None or not last.covers(move.stage):
            self._append(move.stage, move.at, None, move)
            return
        last.note(move.stage)
        dated_at = last.dated_by.at if isinstance(last.dated_by, Entry) else last.at
        repeated = last.dated_by is None or second_of(dated_at) != second_of(move.at)
        (last.repeated_by if repeated else last.claims).extend((move.seq, *move.resent))
        last.held.append(move.at)
        if move.seq < 0:
            # A row by another writer keeps its place, so what follows has to come after it.
            last.at = max(last.at, move.at)

    def add_state(self, state: State) -> None:
        """Add the next state: explained (rule 2), a first sight (rule 4), or a change that no webhook reported (rule 3)."""
        if not self._segments:
            self._first_sighting(state)
        elif self._segments[-1].covers(state.stage):
            _attach(self._segments[-1], state)
        else:
            self._infer_change(state)

    def _first_sighting(self, state: State) -> None:
        """Rule 4."""
        created = state.created
        if created is None or not _is_newcomer(state, self._began):
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
        # Our entry may be dated after the move that it reports, and then it says less of when the next move was.
        is_late = isinstance(last.dated_by, Entry) and last.dated_by.seq >= 0 and last.at > state.updated
        before = state.updated if is_late else at
        bounds = [bound for bound in (last.last_held_before(before), state.watermark) if bound is not None and bound < before]
        after = max(bounds, default=min(last.at, state.updated - _SECOND))
        _attach(self._append(state.stage, at, after, state), state)

    def _append(self, stage: Stage, at: datetime, after: datetime | None, dated_by: Entry | State) -> _Segment:
        """Rule 6."""
        if self._segments and at <= self._segments[-1].at:
            at = self._segments[-1].at + _TICK
        segment = _Segment(stage, at, after, dated_by)
        if isinstance(dated_by, Entry):
            segment.claims.extend((dated_by.seq, *dated_by.resent))
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
    segment.note(state.stage)
    # A read from before the entry that explains it saw the stage, but not this stay in it.
    if second_of(state.updated) >= second_of(segment.at):
        segment.held.extend((state.read_at,) if state.is_redated else (state.updated, state.read_at))
