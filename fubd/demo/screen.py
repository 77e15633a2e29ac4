"""Where the story is watched: a calm picture on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from fubd.demo import score_report
from fubd.demo.picture import narration_line, render_frame, score_table
from fubd.demo.view import DemoView, Narrator
from fubd.simulator import Score

_TALLY_SECONDS = 5.0


class DemoScreen(Protocol):
    """Shows the story while it is entered, and the score afterwards."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *_: object) -> None:
        """Leave what was told where it can be read afterwards."""

    def draw(self, view: DemoView) -> None:
        """Show this moment and what was told since the last."""

    def show_score(self, score: Score) -> None:
        """Show what became of it, as the last thing."""


def choose_screen(output: TextIO, narrator: Narrator) -> DemoScreen:
    """Choose by what stdout is."""
    if output.isatty():
        console = Console(file=output, highlight=False)
        if not console.is_dumb_terminal:
            return TerminalScreen(console, narrator)
    return PlainScreen(output, narrator)


class PlainScreen:
    """Plain lines, each with its second."""

    def __init__(self, output: TextIO, narrator: Narrator) -> None:
        self._output = output
        self._narrator = narrator
        self._written = 0
        self._tallied = 0.0

    def __enter__(self) -> Self:
        """Nothing is to be prepared."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is still to be told."""
        self._catch_up()

    def draw(self, view: DemoView) -> None:
        """Write what was told since, and every few seconds how far things are."""
        self._catch_up()
        if view.sources and view.seconds - self._tallied >= _TALLY_SECONDS:
            self._tallied = view.seconds
            self._write(view.seconds, f"    {_tally(view)}")

    def show_score(self, score: Score) -> None:
        """Write the table, and the score as the last line."""
        print("", *score_report.lines(score), score_report.last_line(score), sep="\n", file=self._output, flush=True)

    def _catch_up(self) -> None:
        for line in self._narrator.lines[self._written :]:
            self._written += 1
            if line.kind == "headline":
                self._output.write("\n")
            self._write(line.seconds, line.text)

    def _write(self, seconds: float, text: str) -> None:
        self._output.write(f"{seconds:6.1f} s  {text}\n")
        self._output.flush()


def _tally(view: DemoView) -> str:
    health = ", ".join(f"{source.name} {source.captured} {source.status}" for source in view.sources)
    return f"{view.happened} happened, {view.recorded} recorded ({health}), {view.api_calls} API calls"


class TerminalScreen:
    """A picture that stands still and changes in place, on the terminal's second screen; what was told remains on the first."""

    def __init__(self, console: Console, narrator: Narrator) -> None:
        self._console = console
        self._narrator = narrator
        self._live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        """Take the terminal over."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, and leave on it what was told."""
        # A terminal that was closed needs nothing back.
        with contextlib.suppress(OSError):
            self._live.stop()
            for line in self._narrator.lines:
                self._console.print(narration_line(line, self._console.width))

    def draw(self, view: DemoView) -> None:
        """Paint this moment. Raises BrokenPipeError when the terminal was closed."""
        width, height = self._console.size
        try:
            self._live.update(render_frame(view, self._narrator, width, height), refresh=True)
        except OSError as gone:
            raise BrokenPipeError from gone

    def show_score(self, score: Score) -> None:
        """Print the table, and the score as the last line."""
        self._console.print(Padding(score_table(score), (1, 0)))
        for line in score_report.remarks(score):
            self._console.print(Text(line, style="green" if score_report.is_clean(score) else "red"), soft_wrap=True)
        self._console.print(Text(score_report.last_line(score), style="bold"), soft_wrap=True)
