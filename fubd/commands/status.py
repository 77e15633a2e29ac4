"""`python -m fubd status`: shows the health of both sources and the last changes, read from the database."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from fubd.commands.console import Console
from fubd.commands.session import load_settings, open_pool
from fubd.core.freshness import source_status
from fubd.core.pacing import while_not_recording, while_not_running
from fubd.core.problems import ProblemName
from fubd.core.text import format_age, format_count, format_duration, format_instant, format_name, format_ratio, format_short_instant
from fubd.core.vocabulary import HEALTHY
from fubd.settings import Settings
from fubd.store import StatusReader
from fubd.store.status import EmptyDatabase, StatusOverview, StatusSettings, StatusSummary

_LAST_CHANGES = 10
# A running daemon notes that it runs every 30 s.
_SILENT_SECONDS = 90.0


def run(args: argparse.Namespace) -> int:
    """Show the status; 0 when both sources are healthy, 1 when one is stale."""
    settings = load_settings()
    return asyncio.run(_status(settings, args, Console()))


async def _status(settings: Settings, args: argparse.Namespace, console: Console) -> int:
    try:
        now = datetime.now(settings.zone())
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        async with open_pool(settings, require_schema=False) as pool:
            overview = await StatusReader(pool, columns=settings.columns).overview(blind_since=midnight, now=now, changes=_LAST_CHANGES)
    except EmptyDatabase as empty:
        console.print_notice(f"fubd: {empty}")
        overview = _empty(settings)
    status = _as_running(_Status(_as_recorded(overview, settings.zone()), settings.zone()))
    if args.json:
        console.print_json(status.to_json())
    else:
        _print(status, console)
    return 0 if status.is_healthy else 1


def _as_recorded(overview: StatusOverview, zone: ZoneInfo) -> StatusOverview:
    """Return the overview with since when nothing is recorded as the reason of the mode, if that is so."""
    outage = next((problem for problem in overview.problems if problem.problem == ProblemName.NOT_RECORDING), None)
    if overview.mode is None or outage is None:
        return overview
    return replace(overview, mode=replace(overview.mode, reason=while_not_recording(overview.mode.reason, outage.since, zone)))


@dataclass(frozen=True, slots=True)
class _Status:
    """What the database says, in the office's time zone."""

    overview: StatusOverview
    zone: ZoneInfo

    def sources(self) -> dict[str, dict[str, Any]]:
        """Return both sources as in `/health`, judged by the settings with which the daemon last started."""
        summary, settings = self.overview.summary, self.overview.settings
        facts = (
            (
                "webhook",
                settings.webhook_stale_after,
                summary.webhook_heard,
                summary.webhook_change,
                summary.webhook_today,
                summary.webhooks_fail,
            ),
            ("polling", settings.polling_stale_after, summary.polling_heard, summary.polling_change, summary.polling_today, False),
        )
        return {
            source: {
                "status": source_status(source, heard, settings.now, stale_after_seconds=stale_after, fails=fails),
                "last_heard": heard,
                "last_change": change,
                "records_today": today,
            }
            for source, stale_after, heard, change, today, fails in facts
        }

    @property
    def is_healthy(self) -> bool:
        """Whether neither source is stale."""
        return all(source["status"] == HEALTHY for source in self.sources().values())

    @property
    def is_waiting(self) -> bool:
        """Whether no webhook has arrived yet, and nothing proves that they fail."""
        return self.overview.summary.webhook_heard is None and not self.overview.summary.webhooks_fail

    @property
    def is_polled(self) -> bool:
        """Whether an instance holds the lease."""
        return self.overview.settings.polled_until is not None and self.overview.settings.polled_until > self.overview.settings.now

    @property
    def is_reporting(self) -> bool:
        """Whether a daemon runs that reports its problems; otherwise nobody knows whether those reported last still hold."""
        settings = self.overview.settings
        reported_at = settings.reported_at
        return self.is_polled or (reported_at is not None and (settings.now - reported_at).total_seconds() < _SILENT_SECONDS)

    def sentence(self) -> str:
        """Return the present day in one sentence."""
        summary = self.overview.summary
        today = summary.webhook_today + summary.polling_today
        parts = [format_count(today, "change"), f"{summary.webhook_today:,} by webhook", f"{summary.polling_today:,} by polling"]
        parts.append(
            "never polled yet"
            if self.overview.blind_seconds is None
            else f"blind for {format_duration(round(self.overview.blind_seconds))}"
        )
        if summary.oldest is not None:
            verified_within = max(1, round((self.overview.settings.now - summary.oldest).total_seconds()))
            parts.append(f"everyone verified within {format_duration(verified_within)}")
        return f"Today: {', '.join(parts)}"

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values, named as in `/health` where that has the same."""
        summary, mode = self.overview.summary, self.overview.mode
        return {
            "healthy": self.is_healthy,
            "sentence": self.sentence(),
            "mode": None if mode is None else mode.mode,
            "reason": None if mode is None else mode.reason,
            "since": None if mode is None else mode.since,
            "poll_interval_seconds": None if mode is None else mode.delay_seconds,
            "is_polled": self.is_polled,
            "coverage": summary.coverage,
            "sources": self.sources(),
            # Only Follow Up Boss knows them, and this command does not call it.
            "subscriptions": None,
            "completeness": {"ratio": summary.completeness, "people": summary.people, "oldest": summary.oldest},
            "blind_seconds_today": self.overview.blind_seconds,
            "pending": summary.pending_refetches,
            "quarantined": summary.quarantined,
            "problems": [asdict(problem) for problem in self.overview.problems],
            "is_reporting": self.is_reporting,
            "as_of": self.overview.settings.now if self.is_reporting else self.overview.settings.reported_at,
            "changes": self.overview.changes,
        }


def _as_running(status: _Status) -> _Status:
    """Return the status with the reason of the mode as one of the past, if no daemon runs."""
    mode = status.overview.mode
    if mode is None or status.is_reporting:
        return status
    return replace(status, overview=replace(status.overview, mode=replace(mode, reason=while_not_running(mode.reason))))


def _empty(settings: Settings) -> StatusOverview:
    """Return the status of an empty database: nothing is known, so both sources are stale."""
    stale_after = StatusSettings(datetime.now(UTC), settings.webhook_stale_after_seconds, settings.poll_stale_after_seconds, None, None)
    summary = StatusSummary(None, None, 0, 0, None, None, None, None, 0, None, 0, 0, 0, 0, False, False, False, None)
    return StatusOverview(summary=summary, settings=stale_after, mode=None, blind_seconds=None, problems=[], changes=[])


def _print(status: _Status, console: Console) -> None:
    now = status.overview.settings.now
    console.print_wrapped(status.sentence(), "bold green" if status.is_healthy else "bold yellow")
    console.print()
    console.print_table(
        ("source", "status", "last heard", "last change", "today"),
        [
            (
                name,
                "waiting for the first webhook" if name == "webhook" and status.is_waiting else source["status"],
                format_age(source["last_heard"], now),
                _short(source["last_change"], now, status.zone),
                source["records_today"],
            )
            for name, source in status.sources().items()
        ],
    )
    console.print()
    console.print_facts(_facts(status, now))
    if status.overview.changes:
        console.print()
        console.print_table(
            ("person", "from", "to", f"changed at ({now.astimezone(status.zone):%Z})", "seen by"),
            [
                (
                    f"{row['person_id']} {format_name(row['first_name'], row['last_name'])}".strip(),
                    row["stage_from"] or "-",
                    row["stage_to"],
                    _short(datetime.fromisoformat(row["changed_at"]), now, status.zone),
                    " and ".join(filter(None, (row["source"], row["confirmed_by"]))),
                )
                for row in status.overview.changes
            ],
        )


def _facts(status: _Status, now: datetime) -> list[tuple[str, str]]:
    summary = status.overview.summary
    covered = f"all that changed before {format_instant(summary.coverage, status.zone)} is recorded" if summary.coverage else "nothing yet"
    quarantined = format_count(summary.quarantined, "delivery")
    blind = status.overview.blind_seconds
    return [
        ("as of", format_instant(now, status.zone)),
        *_problem_facts(status),
        ("blind today", "never polled yet" if blind is None else format_duration(round(blind))),
        *_mode_facts(status, now),
        ("polled by", _polled_by(status, now)),
        ("coverage", covered),
        ("completeness", _completeness(summary, now)),
        ("subscriptions", "not in the database: `python -m fubd check` reads them from Follow Up Boss"),
        ("still to be read", format_count(summary.pending_refetches, "person")),
        ("quarantined", f"{quarantined}: see `python -m fubd replay`" if summary.quarantined else quarantined),
    ]


def _problem_facts(status: _Status) -> list[tuple[str, str]]:
    """Return the problems; without a running daemon nobody knows whether they still hold, or whether there are others."""
    reported_at = status.overview.settings.reported_at
    if status.is_reporting:
        as_of = ""
    elif reported_at is None:
        as_of = ", but no daemon has ever reported any"
    else:
        as_of = f" as of {format_instant(reported_at, status.zone)}; no daemon has reported since"
    problems = status.overview.problems
    return [
        ("problems", f"{format_count(len(problems), 'problem') if problems else 'none'}{as_of}"),
        *((problem.problem, f"since {format_instant(problem.since, status.zone)}: {problem.text}") for problem in problems),
    ]


def _mode_facts(status: _Status, now: datetime) -> list[tuple[str, str]]:
    mode = status.overview.mode
    if mode is None:
        return [("mode", "none was decided yet")]
    if not status.is_reporting:
        return [("mode", f"{mode.mode} since {format_instant(mode.since, status.zone)}: {mode.reason}")]
    return [
        ("mode", f"{mode.mode} for {format_duration(max(0.0, round((now - mode.since).total_seconds())))}: {mode.reason}"),
        ("polled", f"every {format_duration(mode.delay_seconds)}" if mode.delay_seconds else "at once"),
    ]


def _completeness(summary: StatusSummary, now: datetime) -> str:
    if summary.completeness is None:
        return "not measured yet"
    oldest = "" if summary.oldest is None else f"; the person unverified for longest was read {format_age(summary.oldest, now)}"
    return f"{format_ratio(summary.completeness)}, measured over {format_count(summary.people, 'person')}{oldest}"


def _polled_by(status: _Status, now: datetime) -> str:
    if status.is_polled:
        return "a running instance"
    until = status.overview.settings.polled_until
    return "no instance now" if until is None else f"no instance now, the last one until {format_age(until, now)}"


def _short(at: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    return "never" if at is None else format_short_instant(at, now, zone)
