"""The summary of a day: when it is due, and its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from fubd.core.problems import Problem
from fubd.core.text import format_count, format_duration, format_ratio

# A daemon that starts or becomes the leader so long after the time of the summary still sends it.
_CATCH_UP = timedelta(hours=3)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """What a summary is about: from the time of the summary the day before until that of its `day`. A day may have 23 or 25 hours."""

    day: date
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class DayCounts:
    """What changed in a period. `began`: when recording began, FUB's clock; None before the first read. `stages`: entries by stage.

    `missed`: changes that polling found and no webhook has reported.
    """

    began: datetime | None
    changes: int
    missed: int
    stages: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """How much is known. `coverage`: all that changed before it is recorded; `stale`: it is older than polling should leave it.

    `blind_seconds`: how long neither source worked; `completeness`: of the `people` last verified. None is unknown.
    """

    coverage: datetime | None
    stale: bool
    blind_seconds: float | None
    completeness: float | None
    people: int


def due_period(now: datetime, at: time, zone: tzinfo) -> Period | None:
    """Return the period whose summary is due: its time, on the clocks of `zone`, was reached within the last three hours."""
    today = now.astimezone(zone).date()
    for day in (today, today - _DAY):
        until = _moment(day, at, zone)
        if timedelta() <= now - until < _CATCH_UP:
            return Period(day, _moment(day - _DAY, at, zone), until)
    return None


def _moment(day: date, at: time, zone: tzinfo) -> datetime:
    # In UTC: the difference of two instants of one zone would ignore a change of its clocks between them.
    return datetime.combine(day, at, zone).astimezone(UTC)


def summary_content(period: Period, counts: DayCounts, known: Knowledge, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the summary as JSON values."""
    return {
        "kind": "summary",
        "day": period.day.isoformat(),
        "since": max(period.since, counts.began or period.since).isoformat(),
        "until": period.until.isoformat(),
        "is_whole": counts.began is not None and counts.began <= period.since,
        "changes": counts.changes,
        "missed": None if known.coverage is None else counts.missed,
        "missed_known_until": known.coverage.isoformat() if known.coverage is not None and known.stale else None,
        "stages": [{"stage": stage, "entered": entered} for stage, entered in counts.stages.items()],
        "blind_seconds": known.blind_seconds,
        "completeness": known.completeness,
        "verified_people": known.people,
        "problems": [{"problem": problem.name, "since": problem.since.isoformat()} for problem in problems],
    }


def summary_text(content: Mapping[str, Any], zone: tzinfo, show: Callable[[str], str]) -> str:
    """Return the summary for people; `show` returns the name of a stage as a chat may show it. What is unknown is called so."""

    def local(instant: str) -> str:
        return f"{datetime.fromisoformat(instant).astimezone(zone):%Y-%m-%d %H:%M %Z}"

    period = f"the day until {local(content['until'])}"
    if not content["is_whole"]:
        period += f" (recorded since {local(content['since'])})"
    figures = [format_count(content["changes"], "change"), _missed(content)]
    if content["missed_known_until"]:
        figures[-1] += f" (known up to {local(content['missed_known_until'])})"
    figures += [f"{stage['entered']:,} {show(stage['stage'])}" for stage in content["stages"]]
    blind = content["blind_seconds"]
    blind_text = "blind time unknown" if blind is None else f"blind for {format_duration(blind)}"
    problems = ", ".join(f"{problem['problem']} since {local(problem['since'])}" for problem in content["problems"])
    standing = f" Problems: {problems}." if problems else ""
    return f"fubd: {period}: {', '.join(figures)}; {blind_text}. {_completeness(content)}{standing}"


def _missed(content: Mapping[str, Any]) -> str:
    return "missed by webhooks: unknown" if content["missed"] is None else f"{content['missed']:,} missed by webhooks"


def _completeness(content: Mapping[str, Any]) -> str:
    if content["completeness"] is None:
        return "Completeness unknown: not everyone was verified yet."
    return f"Completeness {format_ratio(content['completeness'])} of {format_count(content['verified_people'], 'person')} verified."
