"""The output of the demo: a picture on a terminal, plain lines in a pipe."""

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

_COUNTS_SECONDS = 5.0


class DemoScreen(Protocol):
    """A context manager that shows the story, and the score afterwards."""

    def __enter__(self) -> Self:
        """Start the output."""

    def __exit__(self, *_: object) -> None:
        """Leave the narration where it can be read afterwards."""

    def draw(self, view: DemoView) -> None:
        """Show this moment and the narration since the last one."""

    def show_score(self, score: Score) -> None:
        """Show the score, as the last output."""


def choose_screen(output: TextIO, narrator: Narrator) -> DemoScreen:
    """Return the picture for a terminal, plain lines otherwise."""
    if output.isatty():
        console = Console(file=output, highlight=False)
        if not console.is_dumb_terminal:
            return TerminalScreen(console, narrator)
    return PlainScreen(output, narrator)


class PlainScreen:
    """Plain lines, each with its time in seconds."""

    def __init__(self, output: TextIO, narrator: Narrator) -> None:
        self._output = output
        self._narrator = narrator
        self._written = 0
        self._counted_at = 0.0

    def __enter__(self) -> Self:
        """Do nothing: plain lines need no preparation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the remaining narration."""
        self._write_narration()

    def draw(self, view: DemoView) -> None:
        """Write the new narration, and every few seconds the current counts."""
        self._write_narration()
        if view.sources and view.seconds - self._counted_at >= _COUNTS_SECONDS:
            self._counted_at = view.seconds
            self._write(view.seconds, f"    {_counts(view)}")

    def show_score(self, score: Score) -> None:
        """Write the table and the remarks, and the score as the last line."""
        print("", *score_report.lines(score), score_report.last_line(score), sep="\n", file=self._output, flush=True)

    def _write_narration(self) -> None:
        for line in self._narrator.lines[self._written :]:
            self._written += 1
            if line.kind == "headline":
                self._output.write("\n")
            self._write(line.seconds, line.text)

    def _write(self, seconds: float, text: str) -> None:
        self._output.write(f"{seconds:6.1f} s  {text}\n")
        self._output.flush()


def _counts(view: DemoView) -> str:
    health = ", ".join(f"{source.name} {source.captured} {source.status}" for source in view.sources)
    return f"{view.happened} happened, {view.recorded} recorded ({health}), {view.api_calls} API calls"


class TerminalScreen:
    """A picture updated in place on the terminal's alternate screen; afterwards the narration remains on the main screen."""

    def __init__(self, console: Console, narrator: Narrator) -> None:
        self._console = console
        self._narrator = narrator
        self._live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        """Switch to the alternate screen."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Switch back to the main screen and print the narration there."""
        # A closed terminal needs no restoring.
        with contextlib.suppress(OSError):
            self._live.stop()
            for line in self._narrator.lines:
                self._console.print(narration_line(line, self._console.width))

    def draw(self, view: DemoView) -> None:
        """Draw this moment. Raises BrokenPipeError when the terminal was closed."""
        width, height = self._console.size
        try:
            self._live.update(render_frame(view, self._narrator, width, height), refresh=True)
        except OSError as gone:
            raise BrokenPipeError from gone

    def show_score(self, score: Score) -> None:
        """Print the table and the remarks, and the score as the last line."""
        self._console.print(Padding(score_table(score), (1, 0)))
        for line in score_report.remarks(score):
            self._console.print(Text(line, style="green" if score_report.is_clean(score) else "red"), soft_wrap=True)
        self._console.print(Text(score_report.last_line(score), style="bold"), soft_wrap=True)
