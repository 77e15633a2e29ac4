"""`python -m fubd explain PERSON`: shows each row of a person with its evidence, and why other evidence made no row.

PERSON is an id, or a part of a name.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

from fubd.commands.console import Console
from fubd.commands.session import load_settings, open_pool
from fubd.core.explanation import (
    ClaimRole,
    Correction,
    CorrectionWithCauses,
    KnownPerson,
    PersonEvidence,
    PersonReport,
    ReportEntry,
    explain,
    report_to_json,
)
from fubd.core.reconcile import Claim, Row
from fubd.core.text import format_count, format_duration, format_instant, format_name, shorten
from fubd.errors import Unavailable, UserError
from fubd.settings import Settings
from fubd.store import StatusReader
from fubd.store.people import PeopleReader

# No column of the database and no id of Follow Up Boss goes beyond it.
_HIGHEST_ID = 2**63 - 1
_MATCHES_SHOWN = 20
_EVIDENCE_SHOWN = 10
_NOT_YET = "polling has not seen it yet"
# Polling sees where people are, not where they were.
_NEVER = "polling did not read the person in this stage"
_INSTANTS = ("changed_at", "changed_after")
_COMPARED_COLUMNS = ("stage_from", "stage_to", *_INSTANTS)


def run(args: argparse.Namespace) -> int:
    """Explain a person; 0, or 1 when the person is unknown or the name fits several."""
    settings = load_settings()
    return asyncio.run(_explain(settings, args, Console()))


async def _explain(settings: Settings, args: argparse.Namespace, console: Console) -> int:
    async with open_pool(settings, require_schema=False) as pool:
        try:
            evidence = await _find_person(PeopleReader(pool), args.person, console, as_json=args.json)
        except Unavailable:
            # A schema that is missing or another version's explains it better.
            await StatusReader(pool).require_schema()
            raise
    report = explain(evidence, window=timedelta(seconds=settings.dedup_window_seconds))
    if args.json:
        console.print_json(report_to_json(report, limit=args.limit))
    else:
        _ReportPrinter(console, settings.zone()).print(report, limit=args.limit)
    return 0


async def _find_person(people: PeopleReader, text: str, console: Console, *, as_json: bool) -> PersonEvidence:
    """Return what is known of the person whose id the text is, or else of the one whose name contains it: a name may be a phone number.

    Prints the people when there are several. Raises UserError unless there is exactly one.
    """
    is_id = text.isascii() and text.isdigit()
    if is_id and int(text) <= _HIGHEST_ID and (evidence := await people.evidence(int(text))) is not None:
        return evidence
    found = await people.find_by_name(text, _MATCHES_SHOWN + 1)
    if len(found) == 1 and (evidence := await people.evidence(found[0].id)) is not None:
        return evidence
    if is_id and not found:
        raise UserError(f"person {shorten(text)} is unknown in this database: use the id from the person's page in Follow Up Boss")
    shown = shorten(repr(text))
    if not found:
        raise UserError(f"no person with {shown} in the name is known in this database")
    _print_matches(found[:_MATCHES_SHOWN], console, as_json=as_json)
    number = format_count(len(found), "person") if len(found) <= _MATCHES_SHOWN else f"more than {_MATCHES_SHOWN} people"
    raise UserError(f"{shown} is in the names of {number}: use an id, or more of the name")


def _print_matches(found: Sequence[KnownPerson], console: Console, *, as_json: bool) -> None:
    if as_json:
        people = [{"id": one.id, "first_name": one.first_name, "last_name": one.last_name, "stage": one.stage} for one in found]
        console.print_json({"people": people})
    else:
        rows = [(one.id, format_name(one.first_name, one.last_name), one.stage or "-") for one in found]
        console.print_table(("person", "name", "stage"), rows)


# --- For people -----------------------------------------------------------------------------------------------------


class _ReportPrinter:
    """Prints a report as text, its instants in `zone`."""

    def __init__(self, console: Console, zone: tzinfo) -> None:
        self._console = console
        self._zone = zone

    def print(self, report: PersonReport, *, limit: int) -> None:
        """Print the person, the newest `limit` rows with their evidence, and the evidence without a row."""
        self._print_person(report)
        for entry in report.entries[:limit]:
            self._console.print()
            self._print_entry(entry)
        if len(report.entries) > limit:
            self._console.print()
            self._console.print_wrapped(
                f"and {format_count(len(report.entries) - limit, 'older row')}: --limit {len(report.entries)} shows them"
            )
        if report.without_row:
            self._console.print()
            self._console.print_wrapped("evidence without a row of its own", "bold")
            self._print_evidence(report.without_row[-limit:])
        if report.merged:
            self._console.print()
            self._console.print_wrapped("rows that turned out to be part of another", "bold")
            for one_merged in report.merged[-limit:]:
                was = one_merged.correction.was
                row = f"row {one_merged.correction.change_id}: {was['stage_from'] or '(unknown)'} -> {was['stage_to']}"
                self._console.print_wrapped(row, indent=2)
                self._console.print_wrapped(self._correction_text(one_merged), indent=4)

    def _print_person(self, report: PersonReport) -> None:
        person = report.person
        name = format_name(person.first_name, person.last_name)
        read = "never read by polling" if person.verified_at is None else f"last read as of {self._instant(person.verified_at)}"
        self._console.print_wrapped(f"person {person.id}{', ' + name if name else ''}", "bold")
        self._console.print_wrapped(f"in stage {report.stage}; {read}" if report.stage else f"in an unknown stage; {read}", indent=2)
        if person.gone_at is not None:
            self._console.print_wrapped(f"deleted in Follow Up Boss, noticed {self._instant(person.gone_at)}", indent=2)
        if person.asked_for:
            self._console.print_wrapped("will be read again, because a webhook asked for it", indent=2)

    def _print_entry(self, entry: ReportEntry) -> None:
        row, change = entry.row, entry.change
        if row is not None:
            bounds = self._bounds(row.changed_at, row.changed_after)
            self._console.print_wrapped(f"row {row.id}  {row.stage_from or '(unknown)'} -> {row.stage.name}  {bounds}", "bold cyan")
            for line in self._first_seen(row, is_last=entry.is_last):
                self._console.print_wrapped(line, indent=2)
            if change is None and not row.foreign:
                self._console.print_wrapped("no evidence supports it any more; it is left as it is", indent=2)
        elif change is not None:
            bounds = self._bounds(change.changed_at, change.changed_after)
            self._console.print_wrapped(f"no row  {change.stage_from or '(unknown)'} -> {change.stage.name}  {bounds}", "bold red")
            self._console.print_wrapped(
                "the evidence shows it; the next webhook or read of this person adds it (`audit --fix` reads now)", indent=2
            )
        self._print_evidence(entry.evidence)
        for correction in entry.corrections:
            self._console.print_wrapped(self._correction_text(correction), "yellow", indent=2)
            for name, was, became in _differences(correction.correction):
                self._console.print_wrapped(f"{name} was {self._column(name, was)}, became {self._column(name, became)}", indent=4)

    def _print_evidence(self, evidence: list[ClaimRole]) -> None:
        for one in evidence[:_EVIDENCE_SHOWN]:
            self._console.print_wrapped(self._claim_text(one.claim), "dim", indent=2)
            self._console.print_wrapped(one.role, indent=4)
        if len(evidence) > _EVIDENCE_SHOWN:
            self._console.print_wrapped(f"and {format_count(len(evidence) - _EVIDENCE_SHOWN, 'claim')} more; --json lists them", indent=2)

    def _bounds(self, at: datetime, after: datetime | None) -> str:
        return f"at {self._instant(at)}" if after is None else f"between {self._instant(after)} and {self._instant(at)}"

    def _first_seen(self, row: Row, *, is_last: bool) -> list[str]:
        if row.foreign:
            event = f" and event {row.event_id}" if row.event_id else ""
            return [f"written by another program with source {row.source}{event}; fubd never changes it"]
        other = "polling" if row.source == "webhook" else "webhook"
        first = f"first seen by {row.source}, received {self._instant(row.received_at)}"
        if row.confirmed_by is None or row.confirmed_at is None:
            missing = "no webhook reported it" if other == "webhook" else _NOT_YET if is_last else _NEVER
            return [f"{first}; {missing}"]
        later = format_duration(max(0.0, round((row.confirmed_at - row.received_at).total_seconds(), 1)))
        return [first, f"{row.confirmed_by} saw it too, {later} later"]

    def _claim_text(self, claim: Claim) -> str:
        stage = claim.stage.name
        at, received = self._instant(claim.at), self._instant(claim.received_at)
        if claim.is_entry:
            return f"claim {claim.seq}: webhook {claim.event_id}: entered {stage} at {at}, received {received}"
        how = "read by polling" if claim.channel == "polling" else "read because a webhook asked for it"
        return f"claim {claim.seq}: {how} as of {self._instant(claim.read_at)}: in {stage}, last edited {at}"

    def _correction_text(self, one: CorrectionWithCauses) -> str:
        seqs = ", ".join(map(str, one.causes))
        cause = f", after {'claim' if len(one.causes) == 1 else 'claims'} {seqs} had been received" if seqs else ""
        verb = "merged" if one.correction.became is None else "corrected"
        return f"{verb} {self._instant(one.correction.corrected_at)}{cause}"

    def _column(self, name: str, value: str | None) -> str:
        return "null" if value is None else self._instant(datetime.fromisoformat(value)) if name in _INSTANTS else value

    def _instant(self, at: datetime | None) -> str:
        return format_instant(at, self._zone)


def _differences(correction: Correction) -> list[tuple[str, str | None, str | None]]:
    became = correction.became or {}
    return [
        (name, correction.was.get(name), became.get(name)) for name in _COMPARED_COLUMNS if correction.was.get(name) != became.get(name)
    ]
