"""The law of the fold through the database: however evidence was reported, the rows are the fold of all of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import settings

from fubd.core.observation import Channel, Delivery, Reading, Snapshot, StageEvent
from fubd.core.reconcile import PersonHistory, derive_history
from fubd.store.recording import load_history
from fubd.store.stage_changes import read as read_table
from tests.recorder import Recorder, at, running_recorder

PEOPLE = 12
WINDOW = timedelta(seconds=300)
LAG = 3
ORIGIN = at("08:00")
STAGES = {"A": 1, "B": 2, "C": 3}
GAPS = (1, 2, 3, 4, 6, 30, 120, 299, 300, 301, 900, 3_600, 7_200)

Evidence = Delivery | Snapshot
Columns = tuple[str | None, str, datetime, datetime | None, str | None]


@dataclass(frozen=True, slots=True)
class _Move:
    """A move, and the `updated` that the person had at once and after a later edit; both may be older than the move."""

    second: int
    stage: str
    updated: int
    edited: int


def _draw_moves(rng: Random) -> list[_Move]:
    moves = [_Move(0, "A", 0, 0)]
    moves_updated = rng.choice((1.0, 0.3))
    for _ in range(rng.randint(1, 7)):
        second = moves[-1].second + rng.choice(GAPS)
        stage = rng.choice([stage for stage in STAGES if stage != moves[-1].stage])
        if rng.random() < moves_updated:
            moves.append(_Move(second, stage, second, second + rng.choice((0, 0, 1, 60))))
        else:
            updated = moves[-1].edited if moves[-1].edited <= second else moves[-1].updated
            moves.append(_Move(second, stage, updated, updated))
    return moves


def _draw_evidence(rng: Random, person: int) -> list[Evidence]:
    """Draw what two lagging sources report of a person who moves: most events, some of them twice, and some reads."""
    moves = _draw_moves(rng)
    evidence: list[Evidence] = [_read(person, moves[0], at_second=0, updated=0)]
    dated = 0
    for move in moves[1:]:
        dated = max(dated, move.second + rng.randint(0, LAG))
        if rng.random() < 0.8:
            evidence.append(_event(person, move, dated))
        if rng.random() < 0.1:
            evidence.append(_event(person, move, dated + rng.choice((1, 30, 120))))
    for _ in range(rng.randint(0, 6)):
        at_second = rng.choice(moves).second + rng.choice((0, 1, 2, 5, 60, 310, 2_000))
        shown = max(0, at_second - rng.randint(0, LAG))
        move = [move for move in moves if move.second <= shown][-1]
        updated = move.edited if move.edited <= shown else move.updated
        evidence.append(
            _read(person, move, at_second=at_second, updated=updated, watermark=rng.choice((None, at_second - 1_900, at_second - 70)))
        )
    first, *rest = evidence
    rng.shuffle(rest)
    return [first, *rest]


def _event(person: int, move: _Move, second: int) -> Delivery:
    content = StageEvent(f"{person}-{move.second}", ORIGIN + timedelta(seconds=second), move.stage, (person,))
    return Delivery(hashlib.sha256(repr(content).encode()).digest(), b"{}", content.event_id, "peopleStageUpdated", content, None)


def _read(person: int, move: _Move, *, at_second: int, updated: int, watermark: int | None = None) -> Snapshot:
    reading = Reading(person, move.stage, STAGES[move.stage], None, ORIGIN + timedelta(seconds=updated))
    watermark_at = None if watermark is None else ORIGIN + timedelta(seconds=watermark)
    return Snapshot((reading,), ORIGIN + timedelta(seconds=at_second), watermark_at, Channel.POLLING)


# --- Ways to report it ---------------------------------------------------------------------------------------------------

Way = Callable[[Random, Sequence[Recorder], list[Evidence]], Awaitable[None]]


async def one_by_one(_rng: Random, recorders: Sequence[Recorder], evidence: list[Evidence]) -> None:
    """Each committed before the next."""
    await recorders[0].record(*evidence)


async def in_handfuls(rng: Random, recorders: Sequence[Recorder], evidence: list[Evidence]) -> None:
    """Some of it at a time."""
    for handful in _handfuls(rng, evidence):
        await recorders[0].record_concurrently(*handful)


async def at_once(_rng: Random, recorders: Sequence[Recorder], evidence: list[Evidence]) -> None:
    """All in one batch."""
    await recorders[0].record_concurrently(*evidence)


async def by_two_recorders(rng: Random, recorders: Sequence[Recorder], evidence: list[Evidence]) -> None:
    """Each hears other evidence about the same people, in opposite orders, and each step begins for both at the same moment."""
    first = [item for item in evidence if rng.random() < 0.5]
    halves = (first, [item for item in evidence if item not in first][::-1])
    barrier = asyncio.Barrier(len(halves))

    async def report(recorder: Recorder, handfuls: list[list[Evidence]]) -> None:
        for handful in handfuls:
            await barrier.wait()
            await recorder.record_concurrently(*handful)

    steps = 12
    divided = [[half[step::steps] for step in range(steps)] for half in halves]
    async with asyncio.TaskGroup() as group:
        for recorder, handfuls in zip(recorders, divided, strict=True):
            group.create_task(report(recorder, handfuls))


def _handfuls(rng: Random, evidence: list[Evidence]) -> Iterator[list[Evidence]]:
    position = 0
    while position < len(evidence):
        size = rng.randint(1, 40)
        yield evidence[position : position + size]
        position += size


WAYS: tuple[Way, ...] = (one_by_one, in_handfuls, at_once, by_two_recorders)

# --- The law -----------------------------------------------------------------------------------------------------------


async def _columns(recorder: Recorder, person: int) -> list[Columns]:
    """Return the columns that the evidence determines; the event by the move that it reports."""
    rows = await recorder.records(person)
    return [
        (row["stage_from"], row["stage_to"], row["changed_at"], row["changed_after"], row["event_id"] and row["event_id"].split("-")[1])
        for row in rows
    ]


async def _everything(recorder: Recorder, people: Sequence[int]) -> dict[int, PersonHistory]:
    """Return every claim and row of these people, as one transaction loads them."""
    async with recorder.pool.reading() as connection:
        length = (await read_table(connection)).stage_length
        before = ORIGIN - timedelta(days=1)
        loaded = [await load_history(connection, person, before, stage_length=length) for person in people]
        return {person.person_id: person for person in loaded if person is not None}


def _folded(person: PersonHistory) -> list[Columns]:
    """Return the same columns of the fold of all claims of a person."""
    events = {claim.seq: claim.event_id.split("-")[1] if claim.is_entry else None for claim in person.claims}
    history = derive_history(person, window=WINDOW, began=None)
    return [
        (change.stage_from, change.stage.name, change.changed_at, change.changed_after, events[change.dated_by.seq])
        for change in history.changes
    ]


def _kept(person: PersonHistory) -> set[object]:
    """Return what is kept of the evidence about a person, without what tells of its arrival."""
    states = {
        (claim.stage.name, claim.at, claim.read_at, claim.first_read_at, claim.watermark) for claim in person.claims if not claim.is_entry
    }
    return states | {(claim.event_id, claim.stage.name) for claim in person.claims if claim.is_entry}


def _expected(evidence: list[Evidence]) -> set[object]:
    """Return what must be kept of it: of the same state its first and its last read, and the lowest watermark (none is lower than any)."""
    contents = [item.content for item in evidence if isinstance(item, Delivery)]
    kept: set[object] = {(content.event_id, content.stage) for content in contents if isinstance(content, StageEvent)}
    states: dict[tuple[str, datetime], list[Snapshot]] = {}
    for item in evidence:
        if isinstance(item, Snapshot):
            states.setdefault((item.readings[0].stage, item.readings[0].updated), []).append(item)
    for (stage, updated), reads in states.items():
        read_at = [max(read.read_at, updated) for read in reads]
        watermarks = [read.watermark if read.watermark is not None and read.watermark < updated else None for read in reads]
        lowest = None if None in watermarks else min(watermark for watermark in watermarks if watermark is not None)
        kept.add((stage, updated, max(read_at), min(read_at), lowest))
    return kept


def _has_ties(evidence: list[Evidence]) -> bool:
    """Return whether the order of arrival decides between claims that contradict each other within a second."""
    stages: dict[object, set[str]] = {}
    for item in evidence:
        if isinstance(item, Snapshot):
            stages.setdefault(("read", item.readings[0].updated), set()).add(item.readings[0].stage)
        elif isinstance(item.content, StageEvent):
            stages.setdefault(("event", item.content.at), set()).add(item.content.stage)
    return any(len(named) > 1 for named in stages.values())


@pytest.mark.parametrize("seed", range(max(2, settings().max_examples // 100)))
async def test_the_rows_are_the_fold_of_everything(database: str, seed: int) -> None:
    """Every column that the evidence determines, whichever way it was reported; the chain holds, and what is kept is the same each time."""
    async with running_recorder(database, instance="one") as one, running_recorder(database, instance="two") as two:
        columns: dict[int, list[Columns]] = {}
        for number, report in enumerate(WAYS):
            rng, first = Random(seed), 1_000 * number + 1
            of_person = {person: _draw_evidence(rng, person) for person in range(first, first + PEOPLE)}
            evidence = [item for items in of_person.values() for item in items]
            Random(seed + number).shuffle(evidence)
            await report(Random(seed), (one, two), evidence)
            for person_id, person in (await _everything(one, list(of_person))).items():
                found = columns[person_id] = await _columns(one, person_id)
                assert found == _folded(person), (report.__name__, person_id)
                assert _kept(person) == _expected(of_person[person_id]), (report.__name__, person_id)
                assert all(after[0] == before[1] and after[2] > before[2] for before, after in pairwise(found))
                if not _has_ties(of_person[person_id]):
                    assert found == columns[person_id - first + 1], (report.__name__, person_id)
