"""Counts and durations as text for people: the one wording of logs, alerts, pages and commands."""

from __future__ import annotations

_IRREGULAR_PLURALS = {"person": "people", "delivery": "deliveries"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_FRACTIONS_BELOW_SECONDS = 10
_SECONDS_BELOW = 2 * _MINUTE
_DAYS_FROM = 2 * _DAY


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 person` or `1,200 people`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {_IRREGULAR_PLURALS.get(noun, noun + 's')}"


def format_duration(seconds: float) -> str:
    """Return a duration in at most two units, such as `0.5 s`, `90 s`, `30 min` or `2 h 3 min`."""
    whole = round(seconds)
    if seconds < _FRACTIONS_BELOW_SECONDS:
        return f"{seconds:.2g} s"
    if whole < _SECONDS_BELOW:
        return f"{whole} s"
    if whole < _HOUR:
        return _in_two_units(*divmod(whole, _MINUTE), "min", "s")
    if whole < _DAYS_FROM:
        return _in_two_units(*divmod(round(whole / _MINUTE), _MINUTE), "h", "min")
    return f"{whole / _DAY:.0f} days"


def _in_two_units(count: int, rest: int, unit: str, smaller_unit: str) -> str:
    return f"{count} {unit} {rest} {smaller_unit}" if rest else f"{count} {unit}"
