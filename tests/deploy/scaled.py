"""The rules with shorter times, so that a real Prometheus raises the alert of a real fault within a test."""

from __future__ import annotations

import re

from promql_parser import parse_duration

_RANGE = re.compile(r"\[(\w+)(?::(\w+))?\]")
_HELD = re.compile(r"^( +for: )(\w+)$", re.MULTILINE)
_INTERVAL = re.compile(r"^( +interval: )(\w+)$", re.MULTILINE)
# An hour, a day, and a limit on the growth of a counter of seconds.
_SECONDS = re.compile(r"\b(?:86400|3600)\b|(?<=_seconds_total\[\w{3}\]\)\) > )\d+\b")


def scaled(rules: str, *, by: float, shortest_range_seconds: float) -> str:
    """Divide every `for`, evaluation interval, range and age of an hour or a day in a rules file.

    `shortest_range_seconds`: no range becomes shorter, because each must contain two scrapes. Evaluation stays at one a second or less.
    Limits that are not times do not change.
    """

    def milliseconds(duration: str, *, at_least_seconds: float = 0.001) -> str:
        return f"{max(1, round(max(parse_duration(duration).total_seconds() / by, at_least_seconds) * 1000))}ms"

    def ranged(match: re.Match[str]) -> str:
        step = f":{milliseconds(match[2])}" if match[2] else ""
        return f"[{milliseconds(match[1], at_least_seconds=shortest_range_seconds)}{step}]"

    text = _SECONDS.sub(lambda match: f"{int(match[0]) / by:g}", rules)
    text = _RANGE.sub(ranged, text)
    text = _HELD.sub(lambda match: match[1] + milliseconds(match[2]), text)
    return _INTERVAL.sub(lambda match: match[1] + milliseconds(match[2], at_least_seconds=1.0), text)
