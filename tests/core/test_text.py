"""Counts and durations as people read them."""

from __future__ import annotations

import pytest

from fubd.core.text import format_count, format_duration


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
