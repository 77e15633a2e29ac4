"""The evidence of one person's rows: which claims make each row, what they did for it, and why others made none.

It folds the person's claims with the code that records them, so that it cannot disagree with the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fubd.core.history import Change, History
from fubd.core.reconcile import Claim, PersonHistory, Row, derive_history, pair_with_rows
from fubd.core.vocabulary import TRASH


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person as last read. `asked_for`: a webhook asked for a read that is still to come."""

    id: int
    first_name: str | None
    last_name: str | None
    stage: str | None
    created: datetime | None
    updated: datetime | None
    verified_at: datetime | None
    gone_at: datetime | None
    asked_for: bool


@dataclass(frozen=True, slots=True)
class Correction:
    """What later evidence changed in a row. `became` None: the row was merged into another."""

    change_id: int
    corrected_at: datetime
    was: dict[str, Any]
    became: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class PersonEvidence:
    """Everything stored about a person. `ignored`: claims whose stage is one of FUBD_IGNORE_STAGES; `began`: see `Coverage`."""

    person: KnownPerson
    history: PersonHistory
    ignored: Sequence[Claim] = ()
    corrections: Sequence[Correction] = ()
    began: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClaimRole:
    """One claim, and what it does for the row under which it is listed."""

    claim: Claim
    role: str


@dataclass(frozen=True, slots=True)
class CorrectionWithCauses:
    """A correction of a row, and the `seq` of each claim that caused it."""

    correction: Correction
    causes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """A row with its change; `row` is None for a change that has no row, `change` is None for a row without evidence.

    `is_last`: the person is in its stage, so that a later read can still show it.
    """

    at: datetime
    row: Row | None
    change: Change | None
    evidence: list[ClaimRole] = field(default_factory=list)
    corrections: list[CorrectionWithCauses] = field(default_factory=list)
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class PersonReport:
    """A person, their rows newest first.

    `stage`: as the evidence shows it; `without_row`: claims that made no row; `merged`: rows that became part of others.
    """

    person: KnownPerson
    stage: str | None
    entries: list[ReportEntry]
    without_row: list[ClaimRole]
    merged: list[CorrectionWithCauses]


def explain(evidence: PersonEvidence, *, window: timedelta) -> PersonReport:
    """Return the report on a person. `window`: FUBD_DEDUP_WINDOW."""
    loaded = evidence.history
    history = derive_history(loaded, window=window, began=evidence.began)
    claims = {claim.seq: claim for claim in (*loaded.claims, *evidence.ignored)}
    corrections = [CorrectionWithCauses(one, _causes(one, claims.values())) for one in evidence.corrections]
    entries = [
        replace(entry, corrections=[one for one in corrections if entry.row is not None and one.correction.change_id == entry.row.id])
        for entry in _entries(loaded, history, claims)
    ]
    if entries:
        entries[0] = replace(entries[0], is_last=evidence.person.gone_at is None and not _has_left(entries[0], evidence))
    row_ids = {entry.row.id for entry in entries if entry.row is not None}
    return PersonReport(
        person=evidence.person,
        stage=evidence.person.stage if history.stage is None else history.stage.name,
        entries=entries,
        without_row=_without_row(history, claims, evidence.ignored),
        merged=[one for one in corrections if one.correction.change_id not in row_ids],
    )


def _has_left(entry: ReportEntry, evidence: PersonEvidence) -> bool:
    """Return whether the person is known to have moved on without a row: to a stage of FUBD_IGNORE_STAGES, or as last read."""
    person, change = evidence.person, entry.row or entry.change
    is_read_later = person.verified_at is not None and person.verified_at > entry.at
    is_elsewhere = is_read_later and change is not None and person.stage != change.stage.name
    return is_elsewhere or any(claim.at >= entry.at for claim in evidence.ignored)


def _entries(loaded: PersonHistory, history: History, claims: Mapping[int, Claim]) -> list[ReportEntry]:
    entries = [
        ReportEntry(
            change.changed_at,
            row,
            change,
            [ClaimRole(claims[seq], _role(seq, change)) for seq in sorted((*change.claims, *change.repeated_by)) if seq in claims],
        )
        for change, row in pair_with_rows(loaded, history)
    ]
    with_change = {entry.row.id for entry in entries if entry.row is not None}
    entries += [ReportEntry(row.changed_at, row, None) for row in loaded.rows if row.id not in with_change]
    return sorted(entries, key=lambda entry: entry.at, reverse=True)


def _role(seq: int, change: Change) -> str:
    if seq in change.repeated_by:
        return "repeats this stage: the step in between was not seen, so it is no row of its own"
    if seq != change.dated_by.seq:
        return "agrees"
    if change.changed_after is None:
        return "dates this row"
    shown = "shows a change that no webhook reported: it lies between the last evidence of the stage before and this"
    if change.stage.name != TRASH:
        return shown
    return f"{shown}; it may be a merge, which moves people to {TRASH} without a stage webhook and proves nothing against webhooks"


def _without_row(history: History, claims: Mapping[int, Claim], ignored: Sequence[Claim]) -> list[ClaimRole]:
    """Return the claims that belong to no change, each with the reason."""
    at_start = [claims[seq] for seq in history.at_start if seq in claims]
    first = min(at_start, key=lambda claim: (claim.at, claim.seq), default=None)
    first_sight, same = "first sight: the stage the person was in, not a change", "agrees with the stage at first sight"
    repeats = "repeats the stage of the first sight: the step in between was not seen"
    roles = [ClaimRole(claim, first_sight if claim is first else same) for claim in at_start]
    roles += [ClaimRole(claims[seq], repeats) for seq in history.repeated_at_start if seq in claims]
    roles += [ClaimRole(claim, "its stage is one of FUBD_IGNORE_STAGES") for claim in ignored]
    return sorted(roles, key=lambda one: (one.claim.at, one.claim.seq))


def _causes(correction: Correction, claims: Iterable[Claim]) -> tuple[int, ...]:
    """Return the claims that caused a correction: the last that were received before it."""
    before = [claim for claim in claims if claim.received_at <= correction.corrected_at]
    last = max((claim.received_at for claim in before), default=None)
    return tuple(sorted(claim.seq for claim in before if claim.received_at == last))


def report_to_json(report: PersonReport, *, limit: int) -> dict[str, object]:
    """Return a report as JSON values, with the newest `limit` rows."""
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
        "rows": [_entry_to_json(entry) for entry in report.entries[:limit]],
        "older_rows": max(0, len(report.entries) - limit),
        "without_a_row": [_evidence_to_json(one) for one in report.without_row],
        "joined": [_correction_to_json(one) for one in report.merged],
    }


def _entry_to_json(entry: ReportEntry) -> dict[str, object]:
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


def _evidence_to_json(one: ClaimRole) -> dict[str, object]:
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


def _correction_to_json(one: CorrectionWithCauses) -> dict[str, object]:
    correction = one.correction
    return {
        "row": correction.change_id,
        "corrected_at": correction.corrected_at,
        "was": correction.was,
        "became": correction.became,
        "claims": list(one.causes),
    }
