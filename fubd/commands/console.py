"""How commands talk to a person: colour, tables and a bar on a terminal; plain lines in a pipe, one fact a line.

Results go to stdout; what happens on the way, and what went wrong, to stderr. Names are strangers' words: they are shown without the
characters by which a terminal takes orders.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from math import floor
from typing import Any, TextIO, TypeVar

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from fubd.core.text import format_count, format_duration
from fubd.poller import Progress as Reached

_EVERY_SECONDS = 5.0
_GRACE_SECONDS = 3.0
_SIX_DIGITS = 1_000_000
_LONGEST_NAME = 40
_GAP = 2
# On a narrower terminal the columns of a table that does not fit would be a few letters wide.
_NARROW = 80
_UNBROKEN = 20

_READING = {"incremental": "reading who changed", "sweep": "reading everybody", "audit": "comparing", "replay": "replaying"}

_Value = TypeVar("_Value")


# --- Words ----------------------------------------------------------------------------------------------------------


def plain(value: object) -> str:
    """Give a value as text that only shows itself."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def instant(at: datetime | None) -> str:
    """Give an instant in UTC, to the second."""
    return "never" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(at: datetime | None, now: datetime) -> str:
    """Give how long ago an instant was."""
    return "never" if at is None else f"{format_duration(max(0.0, (now - at).total_seconds()))} ago"


def moment(at: datetime, now: datetime) -> str:
    """Give an instant in UTC to the second, without the year when that is the present one."""
    then = at.astimezone(UTC)
    return f"{then:%m-%d %H:%M:%S}" if then.year == now.astimezone(UTC).year else f"{then:%Y-%m-%d %H:%M:%S}"


def named(*components: object) -> str:
    """Give a person's name on one line of readable length; empty when there is none."""
    name = " ".join(plain(part).strip() for part in components if part)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def share(ratio: float) -> str:
    """Give a ratio to six digits; it reads 1 only when it is."""
    return f"{floor(ratio * _SIX_DIGITS) / _SIX_DIGITS:.6f}".rstrip("0").rstrip(".")


# --- The screen -----------------------------------------------------------------------------------------------------


class Screen:
    """Two streams, stdout and stderr unless others are given, each a terminal or not. `seconds` only grows."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._seconds = seconds
        self._result = Console(file=self._out, highlight=False, markup=False, emoji=False)
        self._aside = Console(file=self._err, highlight=False, markup=False, emoji=False)

    @property
    def terminal(self) -> bool:
        """Whether results are read by a person at a terminal."""
        return self._out.isatty()

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line of the result; on a terminal in this style."""
        if self.terminal:
            self._result.print(Text(plain(text), style=style), soft_wrap=True)
        else:
            self._out.write(plain(text) + "\n")
            self._out.flush()

    def tell(self, text: str, style: str = "", *, indent: int = 0) -> None:
        """Print a line of the result, so far from the margin; on a terminal it is broken between words, below where it begins."""
        if self.terminal:
            self._result.print(Padding(Text(plain(text), style=style), (0, 0, 0, indent), expand=False))
        else:
            self.say(" " * indent + text)

    def note(self, text: str) -> None:
        """Print a line that is no result."""
        if self._err.isatty():
            self._aside.print(Text(plain(text), style="yellow"))
        else:
            self._err.write(plain(text) + "\n")
            self._err.flush()

    def json(self, document: Mapping[str, object]) -> None:
        """Print one JSON object on a line; instants in ISO 8601."""
        self._out.write(json.dumps(document, default=_as_json, ensure_ascii=False) + "\n")
        self._out.flush()

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Print named facts, one a line."""
        told = [(plain(name), plain(value)) for name, value in facts]
        if not self.terminal:
            self._out.writelines(f"{name}: {value}\n" for name, value in told)
            return
        grid = Table.grid(padding=(0, 2))
        for name, value in told:
            grid.add_row(Text(name, style="dim"), Text(value))
        self._result.print(grid)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table; no cell is ever cut. In a pipe, and on a narrow terminal that it does not fit, each row is a line of its own."""
        lines = [list(columns), *([plain(cell) for cell in row] for row in rows)]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        fits = sum(widths) + _GAP * (len(widths) - 1) <= self._result.width
        if not self.terminal:
            self._out.writelines(_aligned(line, widths) + "\n" for line in lines)
        elif fits or self._result.width >= _NARROW:
            self._result.print(_drawn(lines, widths))
        else:
            for number, line in enumerate(lines):
                text = Text((" " * _GAP).join(line), style="" if number else "dim")
                for below, part in enumerate(text.wrap(self._result, self._result.width - _GAP)):
                    self._result.print(Padding(part, (0, 0, 0, _GAP if below else 0), expand=False))

    # --- on the way ---

    @contextmanager
    def progress(self, *, silent: bool = False) -> Iterator[Callable[[Reached], None]]:
        """Show how far a reading has come, on stderr: a bar, or a line every few seconds; nothing when `silent`."""
        if silent:
            yield lambda _: None
        elif self._err.isatty():
            with _Bar(
                SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(),
                console=self._aside, transient=True, expand=True,
            ) as bar:  # fmt: skip
                bar.show("beginning", 0, None, "")
                yield lambda reached: bar.show(
                    _READING.get(reached.kind, reached.kind),
                    reached.people,
                    None if reached.total is None else max(reached.total, reached.people),
                    _figures(reached),
                )
        else:
            yield self._lines()

    def _lines(self) -> Callable[[Reached], None]:
        said: tuple[str, float] | None = None

        def show(reached: Reached) -> None:
            nonlocal said
            now = self._seconds()
            if said is None or said[0] != reached.kind or now - said[1] >= _EVERY_SECONDS:
                said = (reached.kind, now)
                self.note(f"{_READING.get(reached.kind, reached.kind)}: {_figures(reached)}")

        return show

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Show on stderr what our parts warn of meanwhile, except the poller: what it comes to is told as a result."""
        handler = _Warnings(self)
        ours = logging.getLogger("fubd")
        ours.addHandler(handler)
        try:
            yield
        finally:
            ours.removeHandler(handler)


class _Bar(Progress):
    """A bar, and the figures on a line below, where a narrow terminal has room for them."""

    _figures = Text()

    def show(self, doing: str, done: int, total: int | None, figures: str) -> None:
        """Draw this from now on."""
        if not self.tasks:
            self.add_task(doing, total=total)
        self._figures = Text(figures, style="dim")
        self.update(self.task_ids[0], description=doing, completed=done, total=total)

    @override
    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Padding(self._figures, (0, 0, 0, _GAP))


class _Warnings(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("fubd.poller"):
            self._screen.note(record.getMessage())


def _figures(reached: Reached) -> str:
    if reached.kind == "replay":
        return f"{reached.people:,} of {format_count(reached.total or 0, 'delivery')}, {format_count(reached.changes, 'change')} recorded"
    people = format_count(reached.people, "person")
    if reached.total is not None:
        people = f"{reached.people:,} of {format_count(max(reached.total, reached.people), 'person')}"
    found = format_count(reached.changes, "difference" if reached.kind == "audit" else "change")
    left = "" if reached.seconds_left is None else f", about {format_duration(round(reached.seconds_left))} left"
    return f"{people}, {found} found, {format_count(reached.calls, 'call')}{left}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * _GAP).join(cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _drawn(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    drawn = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
    for name, width in zip(lines[0], widths, strict=True):
        drawn.add_column(name, overflow="fold", no_wrap=width <= _UNBROKEN)
    for line in lines[1:]:
        drawn.add_row(*map(Text, line))
    return drawn


def _as_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


# --- Being told to stop ---------------------------------------------------------------------------------------------


def stopping() -> asyncio.Event:
    """Give an event that Ctrl-C and SIGTERM set. The second of them is not caught."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def told() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, told)
    return stop


async def until_stopped(work: Coroutine[Any, Any, _Value], stop: asyncio.Event) -> _Value | None:
    """Do the work; when told to stop give it a moment to end well, then end it: None."""
    task, told = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait((task,), timeout=_GRACE_SECONDS)
        return task.result() if task.done() else None
    finally:
        for one in (task, told):
            one.cancel()
        await asyncio.gather(task, told, return_exceptions=True)
