"""Counts, durations, instants and names as text for people: the one wording of logs, alerts and commands."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from math import floor

_IRREGULAR_PLURALS = {"person": "people", "delivery": "deliveries"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_FRACTIONS_BELOW_SECONDS = 10
_SECONDS_BELOW = 2 * _MINUTE
_DAYS_FROM = 2 * _DAY
_SIX_DIGITS = 1_000_000
_LONGEST_NAME = 40


def printable(value: object) -> str:
    """Return a value as text without control characters, by which a terminal would take orders."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 person` or `1,200 people`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {_IRREGULAR_PLURALS.get(noun, noun + 's')}"


def format_ratio(ratio: float) -> str:
    """Return a ratio with up to six digits, rounded down: it reads `1` only when it is 1."""
    return f"{floor(ratio * _SIX_DIGITS) / _SIX_DIGITS:.6f}".rstrip("0").rstrip(".")


def shorten(text: str, length: int = 60) -> str:
    """Return the text, or its beginning and an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def format_name(*parts: object) -> str:
    """Return a person's name on one line of at most 40 characters; empty when there is none."""
    return shorten(" ".join(printable(part).strip() for part in parts if part), _LONGEST_NAME)


def format_instant(at: datetime | None, zone: tzinfo = UTC) -> str:
    """Return an instant to the second, with the name of the zone; `never` for None."""
    return "never" if at is None else f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def format_short_instant(at: datetime, now: datetime, zone: tzinfo = UTC) -> str:
    """Return an instant, to the second, without the zone and without the year when that is the current one."""
    at = at.astimezone(zone)
    return f"{at:%m-%d %H:%M:%S}" if at.year == now.astimezone(zone).year else f"{at:%Y-%m-%d %H:%M:%S}"


def format_age(at: datetime | None, now: datetime) -> str:
    """Return how long ago an instant was, such as `5 min ago`; `never` for None."""
    return "never" if at is None else f"{format_duration(max(0.0, (now - at).total_seconds()))} ago"


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
