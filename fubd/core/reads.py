"""What is made of reads before they are matched with entries (see `timeline`): their dates, and the ids of stages that they show."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from fubd.core.history import LAG, TRAILING, Entry, State


def second_of(instant: datetime) -> datetime:
    """Return the whole second of an instant: FUB dates no finer."""
    return instant.replace(microsecond=0) if instant.microsecond else instant


def with_ids(entries: Iterable[Entry], reads: Sequence[State]) -> Iterable[Entry]:
    """Return the entries with the ids that their stages had.

    A webhook names no id, so that of an entry is a guess, by the name alone, or unknown. A read of the same move shows it; where the id is
    unknown, the first later read of that stage does. With a wrong id a stage would become another one as soon as it is renamed.
    """
    if not reads:
        return entries
    ids = [(entry, _stage_id(entry, reads)) for entry in entries]
    return [entry if stage_id == entry.stage.id else replace(entry, stage=replace(entry.stage, id=stage_id)) for entry, stage_id in ids]


def _stage_id(entry: Entry, reads: Sequence[State]) -> int | None:
    name = entry.stage.name.casefold()
    ids = [
        (state.updated, state.stage.id)
        for state in reads
        if state.stage.id is not None and state.updated >= entry.at - LAG and state.stage.name.casefold() == name
    ]
    if ids and (entry.stage.id is None or ids[0][0] <= entry.at + LAG):
        return ids[0][1]
    return entry.stage.id


def in_order(states: Iterable[State], entries: Sequence[Entry]) -> list[State]:
    """Return the states by `updated`, then by when they were read.

    Of reads that may all be of the second of `updated`, or from replicas that are behind, the events of their stages tell the order. Of
    reads by both sources the one that says more of the stage before comes first.
    """

    def first_event(state: State) -> datetime:
        second = second_of(state.updated)
        events = (entry.at for entry in entries if entry.stage.is_same(state.stage) and second <= entry.at <= second + LAG)
        return min(events, default=second)

    def order(state: State) -> tuple[datetime | float, ...]:
        known_until = -state.watermark.timestamp() if state.watermark is not None else 0.0
        return (state.updated, second_of(state.read_at), first_event(state), state.read_at, state.first_seen, known_until, state.seq)

    return sorted(states, key=order)


def redate_unmoved(states: Iterable[State], entries: Sequence[Entry]) -> list[State]:
    """Return the states, those dated by their first read that show a change which did not move `updated` (rule 3)."""
    redated: list[State] = []
    groups: dict[datetime, list[State]] = {}
    for state in states:
        groups.setdefault(state.updated, []).append(state)
    moves = sorted((entry for entry in entries if entry.seq >= 0), key=lambda entry: entry.at)
    newest: datetime | None = None
    for _, group in sorted(groups.items(), reverse=True):
        group.sort(key=lambda state: (state.first_seen, state.seq))
        has_moved = False
        for earlier, state in zip([group[0], *group], group, strict=False):
            has_moved = has_moved or _is_unmoved(earlier, state, moves)
            is_outdated = newest is not None and newest <= state.first_seen
            unmoved = has_moved or (not is_outdated and _outlasts_entry(state, moves))
            redated.append(replace(state, updated=state.first_seen, is_redated=True) if unmoved else state)
        newest = min(group[0].first_seen, newest or group[0].first_seen)
    return redated


def _is_unmoved(earlier: State, state: State, moves: Sequence[Entry]) -> bool:
    """Return whether two reads with the same `updated` show a change after its second, rather than one within it.

    One that was made soon after may come from a replica that is behind. Then the events of that second decide.
    """
    second = second_of(state.updated)
    if state.stage.is_same(earlier.stage) or second_of(earlier.first_seen) <= second:
        return False
    is_soon = second_of(state.first_seen) <= second + LAG
    if not is_soon and second_of(earlier.first_seen) > second + LAG:
        return True
    first = bisect_left(moves, second, key=lambda move: move.at)
    end = bisect_right(moves, second + LAG, key=lambda move: second_of(move.at))
    explained = (state.stage, earlier.stage) if is_soon else (state.stage,)
    return not any(move.stage.is_same(stage) for move in moves[first:end] for stage in explained)


def _outlasts_entry(state: State, moves: Sequence[Entry]) -> bool:
    """Return whether the last event before the read entered another stage, so long before that no list trails as far."""
    position = bisect_right(moves, state.first_seen, key=lambda move: move.at)
    if not position or not state.updated + LAG < moves[position - 1].at <= state.first_seen - TRAILING:
        return False
    last = second_of(moves[position - 1].at)
    return not any(move.stage.is_same(state.stage) for move in moves[:position] if second_of(move.at) == last)
