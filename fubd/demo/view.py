"""What there is to see at one moment, as plain values: gathered by `observer`, told by `story`, drawn by `screen`."""

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
    """One of the acts of the story, numbered from 1, with what is about to happen in it."""

    number: int
    title: str
    about: str


@dataclass(frozen=True, slots=True)
class NarrationLine:
    """A line of the narration, told so many seconds after the beginning."""

    seconds: float
    text: str
    kind: LineKind = "said"


class Narrator:
    """Keeps what is told, with the second it was told at, and in which act, until it is `over`. Safe to call from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self.lines: list[NarrationLine] = []
        self.current: Act | None = None
        self.is_over = False

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._now() - self._began

    def start_act(self, number: int, title: str, about: str) -> None:
        """Open an act."""
        self.current = Act(number, title, about)
        self._add(NarrationLine(self.seconds, f"{number}/{ACTS}  {title}", "headline"))
        self._add(NarrationLine(self.seconds, about, "about"))

    def say(self, text: str) -> None:
        """Tell what happens."""
        self._add(NarrationLine(self.seconds, text))

    def add_mode(self, mode: str, reason: str, poll_every_seconds: float) -> None:
        """Tell of a new mode of the daemon's."""
        self._add(NarrationLine(self.seconds, f"mode {mode}: {reason} (polls every {poll_every_seconds:.3g} s)", "mode"))

    def _add(self, line: NarrationLine) -> None:
        if not self.is_over and len(self.lines) < _LINES_KEPT:
            self.lines.append(line)


@dataclass(frozen=True, slots=True)
class SourceView:
    """One of the two sources. `heard_seconds_ago` is None before it was ever heard; `pulse` counts captures per second, the last is now."""

    name: str
    status: str
    heard_seconds_ago: float | None
    captured: int
    pulse: Sequence[int]


@dataclass(frozen=True, slots=True)
class ModeView:
    """A mode, announced so many seconds after the beginning."""

    seconds: float
    mode: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShownChange:
    """A recorded change. `exact` is false where polling only knows the latest instant it can have been."""

    at: datetime
    exact: bool
    name: str
    stage_from: str | None
    stage_to: str
    source: str
    confirmed_by: str | None


@dataclass(frozen=True, slots=True)
class DemoView:
    """Everything at one moment. `url` is the status page's; counts are since the beginning; `recent` is newest first."""

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
