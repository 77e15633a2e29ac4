"""What examining comes to: one line for each thing, with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """What came of examining one thing. `NOTE`: good, and something to be known. `UNKNOWN`: what it rests on is not there."""

    GOOD = "ok"
    NOTE = "note"
    FIX = "fix"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was examined, how it is, and what to do about it, empty when nothing."""

    name: str
    status: Status
    found: str
    fix: str = ""


def unknown(names: Sequence[str], because: str) -> list[Finding]:
    """Say of things that they could not be examined, because of another."""
    return [Finding(name, Status.UNKNOWN, f"not examined: see {because}") for name in names]
