"""What the demo shows at one moment, as plain values: collected by `observer`, narrated by `story`, drawn by `screen`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ACTS = 5

_LINES_KEPT = 1_000


LineKind = Literal["headline", "about", "said", "mode"]


@dataclass(frozen=True, slots=True)
class Act:
    """An act of the story, numbered from 1, with a description of what happens in it."""

    number: int
    title: str
    about: str


@dataclass(frozen=True, slots=True)
class NarrationLine:
    """A line of the narration, and its time in seconds after the start."""

    seconds: float
    text: str
    kind: LineKind = "said"


class Narrator:
    """Collects the lines of the narration with their times, until `is_over` is set. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self.lines: list[NarrationLine] = []
        self.current: Act | None = None
        self.is_over = False

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._now() - self._began

    def start_act(self, number: int, title: str, about: str) -> None:
        """Begin an act."""
        self.current = Act(number, title, about)
        self._add(NarrationLine(self.seconds, f"{number}/{ACTS}  {title}", "headline"))
        self._add(NarrationLine(self.seconds, about, "about"))

    def say(self, text: str) -> None:
        """Add a line about what happens."""
        self._add(NarrationLine(self.seconds, text))

    def add_mode(self, mode: str, reason: str, poll_every_seconds: float) -> None:
        """Add a line about a new mode of the daemon."""
        pace = pace_text(poll_every_seconds)
        self._add(NarrationLine(self.seconds, f"mode {mode}: {reason}" + (f" ({pace})" if pace else ""), "mode"))

    def _add(self, line: NarrationLine) -> None:
        if not self.is_over and len(self.lines) < _LINES_KEPT:
            self.lines.append(line)


def pace_text(poll_every_seconds: float) -> str:
    """Return how often is polled; empty for 0, before the account was read for the first time."""
    return f"polls every {poll_every_seconds:.3g} s" if poll_every_seconds else ""


@dataclass(frozen=True, slots=True)
class SourceView:
    """One of the two sources. `heard_seconds_ago` is None before the first contact; `pulse` counts captures per second, the last is now."""

    name: str
    status: str
    heard_seconds_ago: float | None
    captured: int
    pulse: Sequence[int]


@dataclass(frozen=True, slots=True)
class ModeView:
    """A mode, and its beginning in seconds after the start."""

    seconds: float
    mode: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShownChange:
    """A recorded change. `exact` is False if polling knows only the latest possible instant."""

    at: datetime
    exact: bool
    name: str
    stage_from: str | None
    stage_to: str
    source: str
    confirmed_by: str | None


@dataclass(frozen=True, slots=True)
class DemoView:
    """Everything at one moment. `url` is the status page; counts are since the start; `recent` is newest first."""

    seconds: float
    story_seconds: float
    url: str | None = None
    sources: Sequence[SourceView] = ()
    modes: Sequence[ModeView] = ()
    poll_every_seconds: float = 0.0
    happened: int = 0
    recorded: int = 0
    confirmed: int = 0
    redelivered: int = 0
    missed: int = 0
    api_calls: int = 0
    recent: Sequence[ShownChange] = ()
