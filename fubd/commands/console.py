"""Prints what commands report: colour, tables and a progress bar on a terminal; plain lines, one fact each, everywhere else.

Results go to stdout; progress, notices and errors to stderr. Names come from strangers, so they are printed without control characters.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from rich import progress
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from fubd.core.text import format_count, format_duration, printable

if TYPE_CHECKING:
    from fubd.poller import Progress

_PROGRESS_EVERY_SECONDS = 5.0
_GAP = 2
# On a narrower terminal a table that does not fit would have columns of a few letters.
_NARROW = 80
_LEAST_WIDTH = 12

_ACTIVITIES = {"incremental": "reading changed people", "sweep": "reading all people", "audit": "comparing", "replay": "replaying"}


class Console:
    """Two streams, stdout and stderr unless others are given, each a terminal or not.

    `seconds` is a monotonic clock; `width` is the number of columns, None for those of the terminal.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        seconds: Callable[[], float] = time.monotonic,
        width: int | None = None,
    ) -> None:
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._seconds = seconds
        self._rich_out = RichConsole(file=self._out, highlight=False, markup=False, emoji=False, width=width)
        self._rich_err = RichConsole(file=self._err, highlight=False, markup=False, emoji=False, width=width)

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return self._out.isatty()

    def print(self, text: str = "", style: str = "") -> None:
        """Print a line of the result as it is, never wrapped; `style` is for a terminal."""
        if self.is_terminal:
            self._rich_out.print(Text(printable(text), style=style), soft_wrap=True)
        else:
            self._out.write(printable(text) + "\n")
            self._out.flush()

    def print_wrapped(self, text: str, style: str = "", *, indent: int = 0) -> None:
        """Print a line of the result, indented; a terminal wraps it between words and keeps the indentation."""
        if self.is_terminal:
            self._rich_out.print(Padding(Text(printable(text), style=style), (0, 0, 0, indent), expand=False))
        else:
            self.print(" " * indent + text)

    def symbol(self, symbol: str, plain: str) -> str:
        """Return a symbol, or its plain form where the code page of stdout lacks it."""
        try:
            symbol.encode(self._out.encoding or "ascii")
        except UnicodeEncodeError:
            return plain
        return symbol

    def print_hanging(self, label: Sequence[tuple[str, str]], text: str, style: str = "") -> None:
        """Print a label made of texts with a style each, and a text beside it that a terminal wraps between words."""
        grid = Table.grid(padding=0)
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text.assemble(*((printable(part), part_style) for part, part_style in label)), Text(printable(text), style=style))
        self._rich_out.print(grid)

    def print_notice(self, text: str) -> None:
        """Print a line that is not part of the result, to stderr."""
        if self._err.isatty():
            self._rich_err.print(Text(printable(text), style="yellow"))
        else:
            self._err.write(printable(text) + "\n")
            self._err.flush()

    def print_json(self, document: Mapping[str, object]) -> None:
        """Print one JSON object on one line, in ASCII, which every code page and pipe has; instants in ISO 8601."""
        self._out.write(json.dumps(document, default=_as_json) + "\n")
        self._out.flush()

    def print_facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Print named facts, one per line."""
        safe = [(printable(name), printable(value)) for name, value in facts]
        if not self.is_terminal:
            self._out.writelines(f"{name}: {value}\n" for name, value in safe)
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in safe:
            grid.add_row(Text(name, style="dim"), Text(value))
        self._rich_out.print(grid)

    def print_table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table without cutting a cell. Where it does not fit a narrow terminal, each row is printed as wrapped text."""
        lines = [list(columns), *([printable(cell) for cell in row] for row in rows)]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        fits = sum(widths) + _GAP * (len(widths) - 1) <= self._rich_out.width
        if not self.is_terminal:
            self._out.writelines(_aligned(line, widths) + "\n" for line in lines)
        elif fits or self._rich_out.width >= _NARROW:
            self._rich_out.print(_rich_table(lines, _fitted(widths, self._rich_out.width - _GAP * len(widths))))
        else:
            for number, line in enumerate(lines):
                text = Text((" " * _GAP).join(line), style="" if number else "dim")
                for continued, part in enumerate(text.wrap(self._rich_out, self._rich_out.width - _GAP)):
                    self._rich_out.print(Padding(part, (0, 0, 0, _GAP if continued else 0), expand=False))

    @contextmanager
    def show_progress(self, *, silent: bool = False) -> Iterator[Callable[[Progress], None]]:
        """Yield a function that shows progress on stderr: a bar, or a line every few seconds; nothing when `silent`."""
        if silent:
            yield lambda _: None
        elif self._err.isatty():
            with _Bar(
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=None),
                progress.TaskProgressColumn(),
                console=self._rich_err,
                transient=True,
                expand=True,
            ) as bar:
                bar.show("starting", 0, None, "")
                yield lambda done: bar.show(
                    _activity(done), done.people, None if done.total is None else max(done.total, done.people), _figures(done)
                )
        else:
            yield self._progress_lines()

    def _progress_lines(self) -> Callable[[Progress], None]:
        last: tuple[str, float] | None = None

        def show(done: Progress) -> None:
            nonlocal last
            now = self._seconds()
            if last is None or last[0] != done.kind or now - last[1] >= _PROGRESS_EVERY_SECONDS:
                last = (done.kind, now)
                self.print_notice(f"{_activity(done)}: {_figures(done)}")

        return show

    @contextmanager
    def show_warnings(self) -> Iterator[None]:
        """Print what fubd logs as a warning or worse, except the poller's: the command prints those as its result."""
        handler = _NoticeHandler(self)
        logger = logging.getLogger("fubd")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Bar(progress.Progress):
    """A progress bar with the figures on a line of their own below it, where a narrow terminal has room for them."""

    _figures = Text()

    def show(self, activity: str, done: int, total: int | None, figures: str) -> None:
        """Update the bar."""
        if not self.tasks:
            self.add_task(activity, total=total)
        self._figures = Text(figures, style="dim")
        self.update(self.task_ids[0], description=activity, completed=done, total=total)

    @override
    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Padding(self._figures, (0, 0, 0, _GAP))


class _NoticeHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("fubd.poller"):
            self._console.print_notice(record.getMessage())


def _activity(done: Progress) -> str:
    return _ACTIVITIES.get(done.kind, done.kind)


def _figures(done: Progress) -> str:
    if done.kind == "replay":
        return f"{done.people:,} of {format_count(done.total or 0, 'delivery')}, {format_count(done.changes, 'change')} recorded"
    people = format_count(done.people, "person")
    if done.total is not None:
        people = f"{done.people:,} of {format_count(max(done.total, done.people), 'person')}"
    found = format_count(done.changes, "difference" if done.kind == "audit" else "change")
    left = "" if done.seconds_left is None else f", about {format_duration(round(done.seconds_left))} left"
    return f"{people}, {found} found, {format_count(done.calls, 'call')}{left}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * _GAP).join(cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fitted(widths: Sequence[int], available: int) -> list[int]:
    """Return widths that fit: narrow columns keep theirs while the others keep enough for a name; these share what is left."""
    fitted, left = list(widths), available
    by_width = sorted(range(len(widths)), key=lambda column: widths[column])
    for place, column in enumerate(by_width):
        others = len(widths) - place - 1
        if widths[column] + others * _LEAST_WIDTH > left:
            fitted[column] = max(1, min(widths[column], left // (others + 1)))
        left -= fitted[column]
    return fitted


def _rich_table(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
    for name, width in zip(lines[0], widths, strict=True):
        table.add_column(name, overflow="fold", width=width)
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    return table


def _as_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
