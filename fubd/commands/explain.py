"""`python -m fubd explain PERSON_ID`: why each row of a person is there, and why what was told besides made none.

It folds the person's claims as the recorder does, with the same code and the same loading, so that it cannot tell another story.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fubd.commands.console import Screen, instant, named
from fubd.commands.session import configured, reading
from fubd.core.reconcile import Claim, PersonHistory, Row, derive, paired
from fubd.core.text import format_duration
from fubd.core.timeline import Change, History
from fubd.errors import Unavailable
from fubd.settings import Settings
from fubd.store import Pool, StateStore
from fubd.store.people import Correction, IgnoredClaim, KnownPerson, PeopleReader

# Beyond it no database column and no id of Follow Up Boss goes.
_HIGHEST_ID = 2**63 - 1
_COMPARED = ("stage_from", "stage_to", "changed_at", "changed_after")


def run(args: argparse.Namespace) -> int:
    """Explain a person; 0, or 1 when they are unknown."""
    settings = configured()
    return asyncio.run(_explain(settings, args, Screen()))


async def _explain(settings: Settings, args: argparse.Namespace, screen: Screen) -> int:
    person_id = int(args.person_id)
    if person_id > _HIGHEST_ID:
        raise Unavailable(f"person {person_id} is unknown here")
    async with reading(settings) as pool:
        story = await gather(pool, person_id, window=timedelta(seconds=settings.dedup_window_seconds))
    if story is None:
        raise Unavailable(f"person {person_id} is unknown here")
    if args.json:
        screen.json(document(story))
    else:
        _tell(story, screen)
    return 0


# --- What there is to tell ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Evidence:
    """One claim, and what it does for the row it stands under."""

    claim: Claim | IgnoredClaim
    role: str


@dataclass(slots=True)
class _Chapter:
    """What happened at `at`: a row, or a change that has none yet (`row` None), or a row without a change (`change` None)."""

    at: datetime
    row: Row | None
    change: Change | None
    evidence: list[_Evidence] = field(default_factory=list)
    corrections: list[_Corrected] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Corrected:
    """What was corrected in a row, and the seqs of the claims that had just come in."""

    correction: Correction
    causes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """A person: `stage` as the evidence has it, the rows in order, the claims that made none, and rows that became part of others."""

    person: KnownPerson
    stage: str | None
    chapters: list[_Chapter]
    rest: list[_Evidence]
    joined: list[_Corrected]


async def gather(pool: Pool, person_id: int, *, window: timedelta) -> Story | None:
    """Gather what there is to tell of a person; None when they are unknown. `window`: FUBD_DEDUP_WINDOW. Raises Unavailable."""
    people = PeopleReader(pool)
    person = await people.person(person_id)
    near = await people.history(person_id)
    if person is None or near is None:
        older = await people.foreign_history(person_id)
        if older is None:
            return None
        person, near = older
    history = derive(near, window=window, began=(await StateStore(pool).coverage()).began)
    ignored = await people.ignored_claims(person_id)
    claims: dict[int, Claim | IgnoredClaim] = {claim.seq: claim for claim in near.claims}
    claims.update((claim.seq, claim) for claim in ignored)
    corrected = [_Corrected(one, _causes(one, claims.values())) for one in await people.corrections(person_id)]
    chapters = _chapters(near, history, claims)
    for chapter in chapters:
        chapter.corrections = [one for one in corrected if chapter.row is not None and one.correction.change_id == chapter.row.id]
    there = {chapter.row.id for chapter in chapters if chapter.row is not None}
    return Story(
        person=person,
        stage=person.stage if history.stage is None else history.stage.name,
        chapters=chapters,
        rest=_rest(history, claims, ignored),
        joined=[one for one in corrected if one.correction.change_id not in there],
    )


def _chapters(near: PersonHistory, history: History, claims: Mapping[int, Claim | IgnoredClaim]) -> list[_Chapter]:
    chapters = [
        _Chapter(
            change.changed_at,
            row,
            change,
            [_Evidence(claims[seq], _role(seq, change)) for seq in sorted((*change.claims, *change.repeated_by)) if seq in claims],
        )
        for change, row in paired(near, history)
    ]
    told = {chapter.row.id for chapter in chapters if chapter.row is not None}
    chapters += [_Chapter(row.changed_at, row, None) for row in near.rows if row.id not in told]
    return sorted(chapters, key=lambda chapter: chapter.at)


def _role(seq: int, change: Change) -> str:
    if seq in change.repeated_by:
        return "tells this stage again: the step between was seen by nobody, so it is no row of its own"
    if seq != change.dated_by.seq:
        return "agrees"
    if change.changed_after is None:
        return "dates this row"
    return "shows a change that no webhook told: it lies between the last sign of the stage before and this"


def _rest(history: History, claims: Mapping[int, Claim | IgnoredClaim], ignored: Sequence[IgnoredClaim]) -> list[_Evidence]:
    """Say of each claim that belongs to no change why it made no row."""
    at_start = [claims[seq] for seq in history.at_start if seq in claims]
    first = min(at_start, key=lambda claim: (claim.at, claim.seq), default=None)
    sight, same = "first sight: this is where they stood, and no change", "agrees with where they stood at first sight"
    again = "tells the stage of the first sight again: the step between was seen by nobody"
    rest = [_Evidence(claim, sight if claim is first else same) for claim in at_start]
    rest += [_Evidence(claims[seq], again) for seq in history.repeated_at_start if seq in claims]
    rest += [_Evidence(claim, "its stage is one of FUBD_IGNORE_STAGES") for claim in ignored]
    return sorted(rest, key=lambda one: (one.claim.at, one.claim.seq))


def _causes(correction: Correction, claims: Iterable[Claim | IgnoredClaim]) -> tuple[int, ...]:
    """Give the claims that brought a correction: the last that had come in by then."""
    before = [claim for claim in claims if claim.received_at <= correction.corrected_at]
    last = max((claim.received_at for claim in before), default=None)
    return tuple(sorted(claim.seq for claim in before if claim.received_at == last))


# --- For people -----------------------------------------------------------------------------------------------------


def _tell(story: Story, screen: Screen) -> None:
    person = story.person
    name = named(person.first_name, person.last_name)
    screen.tell(f"person {person.id}{', ' + name if name else ''}", "bold")
    screen.tell(f"stands in {story.stage or 'a stage nobody told yet'}; {_read(person)}", indent=2)
    if person.gone_at is not None:
        screen.tell(f"deleted in Follow Up Boss, noticed {instant(person.gone_at)}", indent=2)
    if person.asked_for:
        screen.tell("a webhook asks for them to be read, which is still to come", indent=2)
    for chapter in story.chapters:
        screen.say()
        _tell_chapter(chapter, screen)
    if story.rest:
        screen.say()
        screen.tell("told, and no row of its own", "bold")
        for one in story.rest:
            _tell_evidence(one, screen)
    if story.joined:
        screen.say()
        screen.tell("rows that turned out to be part of another", "bold")
        for corrected in story.joined:
            was = corrected.correction.was
            screen.tell(f"row {corrected.correction.change_id}: {was['stage_from'] or 'nothing known'} -> {was['stage_to']}", indent=2)
            screen.tell(_when_corrected(corrected), indent=4)


def _read(person: KnownPerson) -> str:
    return "never read yet" if person.verified_at is None else f"last read as of {instant(person.verified_at)}"


def _tell_chapter(chapter: _Chapter, screen: Screen) -> None:
    row, change = chapter.row, chapter.change
    if row is not None:
        bounds = _bounds(row.changed_at, row.changed_after)
        screen.tell(f"row {row.id}  {row.stage_from or '(nothing known)'} -> {row.stage.name}  {bounds}", "bold cyan")
        for line in _seen(row):
            screen.tell(line, indent=2)
        if change is None and not row.foreign:
            screen.tell("no claim stands behind it any more; it is left as it is", indent=2)
    elif change is not None:
        bounds = _bounds(change.changed_at, change.changed_after)
        screen.tell(f"no row yet  {change.stage_from or '(nothing known)'} -> {change.stage.name}  {bounds}", "bold red")
        screen.tell("the evidence tells of it; the next read of this person brings it in (`audit --fix` reads them now)", indent=2)
    for one in chapter.evidence:
        _tell_evidence(one, screen)
    for corrected in chapter.corrections:
        screen.tell(_when_corrected(corrected), "yellow", indent=2)
        for name, was, became in _differences(corrected.correction):
            screen.tell(f"{name} was {was}, became {became}", indent=4)


def _tell_evidence(one: _Evidence, screen: Screen) -> None:
    screen.tell(_claim(one.claim), "dim", indent=2)
    screen.tell(one.role, indent=4)


def _bounds(at: datetime, after: datetime | None) -> str:
    return f"at {instant(at)}" if after is None else f"between {instant(after)} and {instant(at)}"


def _seen(row: Row) -> list[str]:
    if row.foreign:
        told = f" and event {row.event_id}" if row.event_id else ""
        return [f"written by another program with source {row.source}{told}; fubd takes it as it is and never touches it"]
    other = "polling" if row.source == "webhook" else "webhook"
    first = f"seen first by {row.source}, received {instant(row.received_at)}"
    if row.confirmed_by is None or row.confirmed_at is None:
        missing = "no webhook has told it" if other == "webhook" else "polling has not come upon it yet"
        return [f"{first}; {missing}"]
    later = format_duration(max(0.0, round((row.confirmed_at - row.received_at).total_seconds(), 1)))
    return [first, f"{row.confirmed_by} saw it too, {later} later"]


def _claim(claim: Claim | IgnoredClaim) -> str:
    entry = claim.entry if isinstance(claim, Claim) else claim.kind == "entry"
    stage = claim.stage.name if isinstance(claim, Claim) else claim.stage
    if entry:
        return f"claim {claim.seq}: webhook {claim.event_id}: entered {stage} at {instant(claim.at)}, received {instant(claim.received_at)}"
    how = "read by polling" if claim.channel == "polling" else "read because a webhook asked for it"
    return f"claim {claim.seq}: {how} as of {instant(claim.read_at)}: in {stage}, last edited {instant(claim.at)}"


def _when_corrected(corrected: _Corrected) -> str:
    seqs = ", ".join(map(str, corrected.causes))
    cause = f", when {'claim' if len(corrected.causes) == 1 else 'claims'} {seqs} had come in" if seqs else ""
    verb = "joined" if corrected.correction.became is None else "corrected"
    return f"{verb} {instant(corrected.correction.corrected_at)}{cause}"


def _differences(correction: Correction) -> list[tuple[str, object, object]]:
    became = correction.became or {}
    return [
        (name, correction.was.get(name) or "null", became.get(name) or "null")
        for name in _COMPARED
        if correction.was.get(name) != became.get(name)
    ]


# --- For programs ---------------------------------------------------------------------------------------------------


def document(story: Story) -> dict[str, object]:
    """Give a story as JSON values."""
    person = story.person
    return {
        "person": {
            "id": person.id,
            "first_name": person.first_name,
            "last_name": person.last_name,
            "stage": story.stage,
            "created": person.created,
            "updated": person.updated,
            "verified_at": person.verified_at,
            "gone_at": person.gone_at,
            "to_be_read": person.asked_for,
        },
        "rows": [_row_document(chapter) for chapter in story.chapters],
        "without_a_row": [_evidence_document(one) for one in story.rest],
        "joined": [_corrected_document(one) for one in story.joined],
    }


def _row_document(chapter: _Chapter) -> dict[str, object]:
    row, change = chapter.row, chapter.change
    if row is not None:
        told: dict[str, object] = {**row._asdict(), "stage_to": row.stage.name}
        told.pop("stage")
    elif change is not None:
        told = {
            "id": None,
            "stage_from": change.stage_from,
            "stage_to": change.stage.name,
            "changed_at": change.changed_at,
            "changed_after": change.changed_after,
        }
    else:
        told = {}
    told["evidence"] = [_evidence_document(one) for one in chapter.evidence]
    told["corrections"] = [_corrected_document(one) for one in chapter.corrections]
    return told


def _evidence_document(one: _Evidence) -> dict[str, object]:
    claim = one.claim
    return {
        "claim": claim.seq,
        "kind": ("entry" if claim.entry else "state") if isinstance(claim, Claim) else claim.kind,
        "channel": claim.channel,
        "stage": claim.stage.name if isinstance(claim, Claim) else claim.stage,
        "at": claim.at,
        "event_id": claim.event_id or None,
        "received_at": claim.received_at,
        "read_at": claim.read_at,
        "why": one.role,
    }


def _corrected_document(one: _Corrected) -> dict[str, object]:
    correction = one.correction
    return {
        "row": correction.change_id,
        "corrected_at": correction.corrected_at,
        "was": correction.was,
        "became": correction.became,
        "claims": list(one.causes),
    }
