"""`python -m fubd explain PERSON_ID`: shows each row of a person with its evidence, and why other evidence made no row.

It loads and folds the person's claims with the code that records them, so that it cannot disagree with the table.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from fubd.commands.console import Console
from fubd.commands.session import load_settings, open_pool
from fubd.core.reconcile import Claim, PersonHistory, Row, derive_history, pair_with_rows
from fubd.core.text import format_duration, format_instant, format_name
from fubd.core.timeline import Change, History
from fubd.errors import UserError
from fubd.settings import Settings
from fubd.store import Pool, StateStore
from fubd.store.people import Correction, KnownPerson, PeopleReader

# No column of the database and no id of Follow Up Boss goes beyond it.
_HIGHEST_ID = 2**63 - 1
_COMPARED_COLUMNS = ("stage_from", "stage_to", "changed_at", "changed_after")


def run(args: argparse.Namespace) -> int:
    """Explain a person; 0, or 1 when the person is unknown."""
    settings = load_settings()
    return asyncio.run(_explain(settings, args, Console()))


async def _explain(settings: Settings, args: argparse.Namespace, console: Console) -> int:
    person_id = int(args.person_id)
    report = None
    if person_id <= _HIGHEST_ID:
        async with open_pool(settings) as pool:
            report = await build_report(pool, person_id, window=timedelta(seconds=settings.dedup_window_seconds))
    if report is None:
        raise UserError(f"person {person_id} is unknown in this database: use the id from the person's page in Follow Up Boss")
    if args.json:
        console.print_json(report_to_json(report))
    else:
        _print(report, console)
    return 0


# --- The report -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ClaimRole:
    """One claim, and what it does for the row under which it is listed."""

    claim: Claim
    role: str


@dataclass(frozen=True, slots=True)
class _CorrectionWithCauses:
    """A correction of a row, and the `seq` of each claim that caused it."""

    correction: Correction
    causes: tuple[int, ...]


@dataclass(slots=True)
class _ReportEntry:
    """A row with its change; `row` is None for a change that has no row yet, `change` is None for a row without evidence."""

    at: datetime
    row: Row | None
    change: Change | None
    evidence: list[_ClaimRole] = field(default_factory=list)
    corrections: list[_CorrectionWithCauses] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PersonReport:
    """A person. `stage`: as the evidence shows it; `without_row`: claims that made no row; `merged`: rows that became part of others."""

    person: KnownPerson
    stage: str | None
    entries: list[_ReportEntry]
    without_row: list[_ClaimRole]
    merged: list[_CorrectionWithCauses]


async def build_report(pool: Pool, person_id: int, *, window: timedelta) -> PersonReport | None:
    """Return the report on a person; None when they are unknown. `window`: FUBD_DEDUP_WINDOW. Raises Unavailable."""
    people = PeopleReader(pool)
    person = await people.person(person_id)
    loaded = await people.history(person_id)
    if person is None or loaded is None:
        foreign = await people.foreign_history(person_id)
        if foreign is None:
            return None
        person, loaded = foreign
    history = derive_history(loaded, window=window, began=(await StateStore(pool).coverage()).began)
    ignored = await people.ignored_claims(person_id)
    claims: dict[int, Claim] = {claim.seq: claim for claim in loaded.claims}
    claims.update((claim.seq, claim) for claim in ignored)
    corrections = [_CorrectionWithCauses(one, _causes(one, claims.values())) for one in await people.corrections(person_id)]
    entries = _entries(loaded, history, claims)
    for entry in entries:
        entry.corrections = [one for one in corrections if entry.row is not None and one.correction.change_id == entry.row.id]
    row_ids = {entry.row.id for entry in entries if entry.row is not None}
    return PersonReport(
        person=person,
        stage=person.stage if history.stage is None else history.stage.name,
        entries=entries,
        without_row=_without_row(history, claims, ignored),
        merged=[one for one in corrections if one.correction.change_id not in row_ids],
    )


def _entries(loaded: PersonHistory, history: History, claims: Mapping[int, Claim]) -> list[_ReportEntry]:
    entries = [
        _ReportEntry(
            change.changed_at,
            row,
            change,
            [_ClaimRole(claims[seq], _role(seq, change)) for seq in sorted((*change.claims, *change.repeated_by)) if seq in claims],
        )
        for change, row in pair_with_rows(loaded, history)
    ]
    with_change = {entry.row.id for entry in entries if entry.row is not None}
    entries += [_ReportEntry(row.changed_at, row, None) for row in loaded.rows if row.id not in with_change]
    return sorted(entries, key=lambda entry: entry.at)


def _role(seq: int, change: Change) -> str:
    if seq in change.repeated_by:
        return "repeats this stage: the step in between was not seen, so it is no row of its own"
    if seq != change.dated_by.seq:
        return "agrees"
    if change.changed_after is None:
        return "dates this row"
    return "shows a change that no webhook reported: it lies between the last evidence of the stage before and this"


def _without_row(history: History, claims: Mapping[int, Claim], ignored: Sequence[Claim]) -> list[_ClaimRole]:
    """Return the claims that belong to no change, each with the reason."""
    at_start = [claims[seq] for seq in history.at_start if seq in claims]
    first = min(at_start, key=lambda claim: (claim.at, claim.seq), default=None)
    first_sight, same = "first sight: the stage the person was in, not a change", "agrees with the stage at first sight"
    repeats = "repeats the stage of the first sight: the step in between was not seen"
    roles = [_ClaimRole(claim, first_sight if claim is first else same) for claim in at_start]
    roles += [_ClaimRole(claims[seq], repeats) for seq in history.repeated_at_start if seq in claims]
    roles += [_ClaimRole(claim, "its stage is one of FUBD_IGNORE_STAGES") for claim in ignored]
    return sorted(roles, key=lambda one: (one.claim.at, one.claim.seq))


def _causes(correction: Correction, claims: Iterable[Claim]) -> tuple[int, ...]:
    """Return the claims that caused a correction: the last that were received before it."""
    before = [claim for claim in claims if claim.received_at <= correction.corrected_at]
    last = max((claim.received_at for claim in before), default=None)
    return tuple(sorted(claim.seq for claim in before if claim.received_at == last))


# --- For people -----------------------------------------------------------------------------------------------------


def _print(report: PersonReport, console: Console) -> None:
    _print_person(report, console)
    for entry in report.entries:
        console.print()
        _print_entry(entry, console)
    if report.without_row:
        console.print()
        console.print_wrapped("evidence without a row of its own", "bold")
        for one in report.without_row:
            _print_evidence(one, console)
    if report.merged:
        console.print()
        console.print_wrapped("rows that turned out to be part of another", "bold")
        for one_merged in report.merged:
            was = one_merged.correction.was
            row = f"row {one_merged.correction.change_id}: {was['stage_from'] or '(unknown)'} -> {was['stage_to']}"
            console.print_wrapped(row, indent=2)
            console.print_wrapped(_correction_text(one_merged), indent=4)


def _print_person(report: PersonReport, console: Console) -> None:
    person = report.person
    name = format_name(person.first_name, person.last_name)
    read = "never read yet" if person.verified_at is None else f"last read as of {format_instant(person.verified_at)}"
    console.print_wrapped(f"person {person.id}{', ' + name if name else ''}", "bold")
    console.print_wrapped(f"in stage {report.stage}; {read}" if report.stage else f"in an unknown stage; {read}", indent=2)
    if person.gone_at is not None:
        console.print_wrapped(f"deleted in Follow Up Boss, noticed {format_instant(person.gone_at)}", indent=2)
    if person.asked_for:
        console.print_wrapped("will be read again, because a webhook asked for it", indent=2)


def _print_entry(entry: _ReportEntry, console: Console) -> None:
    row, change = entry.row, entry.change
    if row is not None:
        bounds = _bounds(row.changed_at, row.changed_after)
        console.print_wrapped(f"row {row.id}  {row.stage_from or '(unknown)'} -> {row.stage.name}  {bounds}", "bold cyan")
        for line in _first_seen(row):
            console.print_wrapped(line, indent=2)
        if change is None and not row.foreign:
            console.print_wrapped("no evidence supports it any more; it is left as it is", indent=2)
    elif change is not None:
        bounds = _bounds(change.changed_at, change.changed_after)
        console.print_wrapped(f"no row yet  {change.stage_from or '(unknown)'} -> {change.stage.name}  {bounds}", "bold red")
        console.print_wrapped("the evidence shows it; the next read of this person adds it (`audit --fix` reads now)", indent=2)
    for one in entry.evidence:
        _print_evidence(one, console)
    for correction in entry.corrections:
        console.print_wrapped(_correction_text(correction), "yellow", indent=2)
        for name, was, became in _differences(correction.correction):
            console.print_wrapped(f"{name} was {was}, became {became}", indent=4)


def _print_evidence(one: _ClaimRole, console: Console) -> None:
    console.print_wrapped(_claim_text(one.claim), "dim", indent=2)
    console.print_wrapped(one.role, indent=4)


def _bounds(at: datetime, after: datetime | None) -> str:
    return f"at {format_instant(at)}" if after is None else f"between {format_instant(after)} and {format_instant(at)}"


def _first_seen(row: Row) -> list[str]:
    if row.foreign:
        event = f" and event {row.event_id}" if row.event_id else ""
        return [f"written by another program with source {row.source}{event}; fubd never changes it"]
    other = "polling" if row.source == "webhook" else "webhook"
    first = f"first seen by {row.source}, received {format_instant(row.received_at)}"
    if row.confirmed_by is None or row.confirmed_at is None:
        missing = "no webhook reported it" if other == "webhook" else "polling has not seen it yet"
        return [f"{first}; {missing}"]
    later = format_duration(max(0.0, round((row.confirmed_at - row.received_at).total_seconds(), 1)))
    return [first, f"{row.confirmed_by} saw it too, {later} later"]


def _claim_text(claim: Claim) -> str:
    stage = claim.stage.name
    at, received = format_instant(claim.at), format_instant(claim.received_at)
    if claim.is_entry:
        return f"claim {claim.seq}: webhook {claim.event_id}: entered {stage} at {at}, received {received}"
    how = "read by polling" if claim.channel == "polling" else "read because a webhook asked for it"
    return f"claim {claim.seq}: {how} as of {format_instant(claim.read_at)}: in {stage}, last edited {at}"


def _correction_text(one: _CorrectionWithCauses) -> str:
    seqs = ", ".join(map(str, one.causes))
    cause = f", after {'claim' if len(one.causes) == 1 else 'claims'} {seqs} had been received" if seqs else ""
    verb = "merged" if one.correction.became is None else "corrected"
    return f"{verb} {format_instant(one.correction.corrected_at)}{cause}"


def _differences(correction: Correction) -> list[tuple[str, object, object]]:
    became = correction.became or {}
    return [
        (name, correction.was.get(name) or "null", became.get(name) or "null")
        for name in _COMPARED_COLUMNS
        if correction.was.get(name) != became.get(name)
    ]


# --- For programs ---------------------------------------------------------------------------------------------------


def report_to_json(report: PersonReport) -> dict[str, object]:
    """Return a report as JSON values."""
    person = report.person
    return {
        "person": {
            "id": person.id,
            "first_name": person.first_name,
            "last_name": person.last_name,
            "stage": report.stage,
            "created": person.created,
            "updated": person.updated,
            "verified_at": person.verified_at,
            "gone_at": person.gone_at,
            "to_be_read": person.asked_for,
        },
        "rows": [_entry_to_json(entry) for entry in report.entries],
        "without_a_row": [_evidence_to_json(one) for one in report.without_row],
        "joined": [_correction_to_json(one) for one in report.merged],
    }


def _entry_to_json(entry: _ReportEntry) -> dict[str, object]:
    row, change = entry.row, entry.change
    columns: dict[str, object] = {}
    if row is not None:
        columns = {**asdict(row), "stage_to": row.stage.name}
        del columns["stage"], columns["person_id"]
    elif change is not None:
        columns = {
            "id": None,
            "stage_from": change.stage_from,
            "stage_to": change.stage.name,
            "changed_at": change.changed_at,
            "changed_after": change.changed_after,
        }
    return {
        **columns,
        "evidence": [_evidence_to_json(one) for one in entry.evidence],
        "corrections": [_correction_to_json(one) for one in entry.corrections],
    }


def _evidence_to_json(one: _ClaimRole) -> dict[str, object]:
    claim = one.claim
    return {
        "claim": claim.seq,
        "kind": claim.kind,
        "channel": claim.channel,
        "stage": claim.stage.name,
        "at": claim.at,
        "event_id": claim.event_id or None,
        "received_at": claim.received_at,
        "read_at": claim.read_at,
        "why": one.role,
    }


def _correction_to_json(one: _CorrectionWithCauses) -> dict[str, object]:
    correction = one.correction
    return {
        "row": correction.change_id,
        "corrected_at": correction.corrected_at,
        "was": correction.was,
        "became": correction.became,
        "claims": list(one.causes),
    }
