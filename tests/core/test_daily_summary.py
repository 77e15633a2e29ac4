"""When a summary of a day is due, also on the days on which the clocks change, and what it says of what is unknown."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from fubd.core.alerts import Alert, AlertEvent, alert_document
from fubd.core.daily_summary import DayCounts, Knowledge, Period, due_period, summary_content
from fubd.core.problems import Problem, ProblemName

_CHICAGO = ZoneInfo("America/Chicago")
_SIX = time(18)


def at(text: str) -> datetime:
    """Return an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-01-05 23:59:59", None),
        ("2026-01-06 00:00:00", date(2026, 1, 5)),
        ("2026-01-06 02:59:59", date(2026, 1, 5)),
        ("2026-01-06 03:00:00", None),
    ],
)
def test_a_summary_is_due_for_three_hours(now: str, day: date | None) -> None:
    """From its time on the office's clock; the day is the office's as well."""
    period = due_period(at(now), _SIX, _CHICAGO)
    assert (period.day if period else None) == day


def test_the_time_to_catch_up_goes_beyond_midnight() -> None:
    """The summary is still that of the day before."""
    period = due_period(at("2026-01-06 01:00"), time(23, 30), ZoneInfo("UTC"))
    assert period == Period(date(2026, 1, 5), at("2026-01-04 23:30"), at("2026-01-05 23:30"))


@pytest.mark.parametrize(
    ("day", "until", "hours"),
    [("2026-03-08", "2026-03-08 23:00", 23), ("2026-11-01", "2026-11-02 00:00", 25), ("2026-03-09", "2026-03-09 23:00", 24)],
)
def test_a_day_of_a_clock_change_is_longer_or_shorter(day: str, until: str, hours: int) -> None:
    """It is due at the same time on the office's clock."""
    period = due_period(at(until), _SIX, _CHICAGO)
    assert period == Period(date.fromisoformat(day), at(until) - timedelta(hours=hours), at(until))


@pytest.mark.parametrize("hour", [1, 2])
def test_each_day_has_one_period_whatever_the_clocks_do(hour: int) -> None:
    """Through a year, at a time that one day does not have and one that another has twice: each begins where the one before ended."""
    instants = (at("2026-01-01 12:00") + timedelta(minutes=30) * step for step in range(365 * 48))
    periods = [period for now in instants if (period := due_period(now, time(hour, 30), _CHICAGO)) is not None]
    chain = sorted(set(periods), key=lambda period: period.day)
    assert [later.since for later in chain[1:]] == [earlier.until for earlier in chain[:-1]]
    assert [period.day for period in chain] == [date(2026, 1, 2) + timedelta(days=day) for day in range(365)]


_PERIOD = Period(date(2026, 1, 5), at("2026-01-05 00:00"), at("2026-01-06 00:00"))
_ALL_KNOWN = Knowledge(at("2026-01-05 23:58"), stale=False, blind_seconds=0.0, completeness=1.0, people=1_234)


def _text(counts: DayCounts, known: Knowledge, *problems: Problem) -> str:
    event = AlertEvent(1, summary_content(_PERIOD, counts, known, problems))
    return str(alert_document(Alert([event], attempts=1), zone=_CHICAGO, domain=None)["text"])


def test_a_quiet_day() -> None:
    """The sentence that an owner wants to read."""
    counts = DayCounts(at("2026-01-01 00:00"), 142, 0, {"ACQ - Offers Made": 9, "@all": 0})
    assert _text(counts, _ALL_KNOWN) == (
        "fubd: the day until 2026-01-05 18:00 CST: 142 changes, 0 missed by webhooks, 9 ACQ - Offers Made, 0 (at)all;"
        " blind for 0 s. Completeness 1 of 1,234 people verified."
    )


def test_what_is_unknown_is_called_so() -> None:
    """Nothing was polled or verified yet: no figure is said of that."""
    counts = DayCounts(at("2026-01-05 20:00"), 1, 0, {})
    assert _text(counts, Knowledge(None, stale=False, blind_seconds=None, completeness=None, people=0)) == (
        "fubd: the day until 2026-01-05 18:00 CST (recorded since 2026-01-05 14:00 CST): 1 change, missed by webhooks: unknown;"
        " blind time unknown. Completeness unknown: not everyone was verified yet."
    )


def test_what_is_known_only_in_part_and_what_is_wrong() -> None:
    """Polling stopped at two o'clock, and the problem still holds."""
    counts = DayCounts(at("2026-01-01 00:00"), 5, 2, {})
    stale = Knowledge(at("2026-01-05 20:00"), stale=True, blind_seconds=5_400.0, completeness=0.9991, people=1)
    assert _text(counts, stale, Problem(ProblemName.POLLING_STALE, at("2026-01-05 20:45"), "No poll was complete")) == (
        "fubd: the day until 2026-01-05 18:00 CST: 5 changes, 2 missed by webhooks (known up to 2026-01-05 14:00 CST);"
        " blind for 1 h 30 min. Completeness 0.9991 of 1 person verified. Problems: polling_stale since 2026-01-05 14:45 CST."
    )
