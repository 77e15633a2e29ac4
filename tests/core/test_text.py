"""Counts, durations, instants and names as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fubd.core.text import (
    format_age,
    format_count,
    format_duration,
    format_instant,
    format_name,
    format_ratio,
    format_short_instant,
    printable,
)

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.05, "0.05 s"),
        (0.25, "0.25 s"),
        (9.0, "9 s"),
        (9.99, "10 s"),
        (61, "61 s"),
        (119.6, "2 min"),
        (150, "2 min 30 s"),
        (600, "10 min"),
        (3599.7, "1 h"),
        (5400, "1 h 30 min"),
        (7380, "2 h 3 min"),
        (86_400, "24 h"),
        (950_400, "11 days"),
    ],
)
def test_a_duration_is_written_in_at_most_two_units(seconds: float, text: str) -> None:
    """Short durations keep their fraction, long ones are rounded to whole days."""
    assert format_duration(seconds) == text


def test_a_count_is_written_with_the_right_plural() -> None:
    """One is singular, everything else plural, thousands are separated."""
    assert [format_count(1, "delivery"), format_count(1200, "delivery"), format_count(0, "person"), format_count(2, "row")] == [
        "1 delivery",
        "1,200 deliveries",
        "0 people",
        "2 rows",
    ]


def test_an_instant_is_written_in_utc_to_the_second() -> None:
    """The short form leaves out the zone, and the year when it is the current one."""
    assert format_instant(NOON.astimezone()) == "2031-03-03 12:00:00 UTC"
    assert format_instant(None) == "never"
    assert format_short_instant(NOON, NOON) == "03-03 12:00:00"
    assert format_short_instant(NOON, NOON + timedelta(days=400)) == "2031-03-03 12:00:00"


def test_an_age_is_never_negative() -> None:
    """An instant ahead of the clock is 0 s ago."""
    assert format_age(None, NOON) == "never"
    assert format_age(NOON, NOON - timedelta(seconds=5)) == "0 s ago"
    assert format_age(NOON - timedelta(minutes=5), NOON) == "5 min ago"


def test_a_ratio_reads_1_only_when_it_is_1() -> None:
    """It is rounded down to six digits."""
    assert [format_ratio(1.0), format_ratio(0.99999999), format_ratio(0.5)] == ["1", "0.999999", "0.5"]


def test_a_name_is_one_short_line() -> None:
    """A name is cut at 40 characters; a person without a name has an empty one."""
    assert format_name("Ada", None) == "Ada"
    assert format_name(None, "") == ""
    assert format_name("x" * 1000, "y") == "x" * 39 + "\u2026"


def test_control_characters_are_replaced() -> None:
    """Escape sequences, line breaks and direction overrides become spaces."""
    assert printable("Ada\x1b[2J\n[bold]Example\u202e") == "Ada [2J [bold]Example "
