"""The result of checking one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """`NOTE`: good, with something to know. `UNKNOWN`: not checked, because something that it depends on is missing."""

    GOOD = "ok"
    NOTE = "note"
    FIX = "fix"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line: what was checked, what was found, and the fix; `fix` is empty where there is nothing to do."""

    name: str
    status: CheckStatus
    found: str
    fix: str = ""


def not_checked(names: Sequence[str], because: str) -> list[CheckResult]:
    """Return results that refer to the check by which these could not be made."""
    return [CheckResult(name, CheckStatus.UNKNOWN, f"not checked: see {because}") for name in names]
