"""What commands print: plain in a pipe, formatted on a terminal, and never a control sequence of a stranger."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime

import pytest
from typing_extensions import override

from fubd.commands.console import Console
from fubd.poller import Progress

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


def progress(people: int, *, kind: str = "sweep", left: float | None = 90.0) -> Progress:
    """Return a progress."""
    return Progress(kind, people, 200, 3, 2, left)


def test_a_name_cannot_control_the_terminal() -> None:
    """Escape sequences, line breaks and direction overrides in a name have no effect, in a pipe and on a terminal."""
    hostile = "Ada\x1b[2J\n[bold]Example\u202e"
    for stream in (io.StringIO(), Terminal()):
        console = Console(stream, io.StringIO())
        console.print_table(("name", "stage"), [(hostile, "Lead")])
        console.print_facts([("name", hostile)])
        console.print(hostile)
        assert "\x1b[2J" not in stream.getvalue()
        assert stream.getvalue().count("[bold]Example") == 3


def test_a_table_in_a_pipe_is_complete() -> None:
    """In a pipe no cell is cut, however long, and columns are aligned."""
    out = io.StringIO()
    Console(out, io.StringIO()).print_table(("person", "stage"), [(1, "x" * 200), (1234567, "Lead")])
    assert out.getvalue().splitlines() == ["person   stage", "1        " + "x" * 200, "1234567  Lead"]


def test_columns_are_aligned_by_the_width_that_is_seen() -> None:
    """Wide characters take two cells, combining characters none."""
    out = io.StringIO()
    Console(out, io.StringIO()).print_table(("name", "stage"), [("\u6f22\u5b57", "Lead"), ("Zoe\u0308", "Lead")])
    assert out.getvalue().splitlines() == ["name  stage", "\u6f22\u5b57  Lead", "Zoe\u0308   Lead"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_on_a_terminal_nothing_is_cut(width: int) -> None:
    """However narrow it is, every cell is printed to its end, and no line is longer than the terminal is wide."""
    out = Terminal()
    console = Console(out, io.StringIO(), width=width)
    cells = ("1636", "1001 Edda Brackwater", "ACQ - Price Motivated", "2026-11-25 16:01:02", "x" * 70)
    console.print_table(("row", "person", "from", "changed at", "to"), [cells])
    console.print_wrapped("word " * 30, indent=4)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert all(len(line) <= width for line in shown.splitlines())
    assert "\u2026" not in shown
    assert shown.count("x") == 70
    assert "2026-11-25 16:01:02" in re.sub(r"\s+", " ", shown)
    assert all(line.startswith("    word") for line in shown.splitlines() if "word" in line)


def test_a_table_of_changes_stays_readable_on_80_columns() -> None:
    """The columns share the width: none becomes a column of single letters beside others that keep theirs."""
    out = Terminal()
    cells = ("1010 Quinn Ravensmere", "ACQ - Offers Made", "ACQ - Offers Made", "11-28 03:30:26", "webhook and polling")
    Console(out, io.StringIO(), width=80).print_table(("person", "from", "to", "changed at (UTC)", "seen by"), [cells])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert len(shown) == 3
    assert max(map(len, shown)) <= 80
    assert [line[:10] for line in shown[1:]] == ["1010 Quinn", "Ravensmere"]


def test_json_is_one_line_with_iso_instants() -> None:
    """Instants are ISO 8601, names are unchanged."""
    out = io.StringIO()
    Console(out, io.StringIO()).print_json({"at": NOON, "name": "Ólafur"})
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()) == {"at": "2031-03-03T12:00:00+00:00", "name": "Ólafur"}


def test_progress_in_a_pipe_is_a_line_every_few_seconds() -> None:
    """The first page and the one five seconds later are printed on stderr; those in between are not."""
    err = io.StringIO()
    seconds = iter([0.0, 1.0, 4.9, 5.0, 5.1])
    with Console(io.StringIO(), err, seconds=lambda: next(seconds)).show_progress() as show:
        for people in (100, 120, 140, 160):
            show(progress(people))
        show(progress(1, kind="incremental", left=None))
    assert err.getvalue().splitlines() == [
        "reading all people: 100 of 200 people, 3 changes found, 2 calls, about 90 s left",
        "reading all people: 160 of 200 people, 3 changes found, 2 calls, about 90 s left",
        "reading changed people: 1 of 200 people, 3 changes found, 2 calls",
    ]


def test_progress_on_a_terminal_is_a_bar() -> None:
    """On a terminal a bar is drawn on stderr, and removed at the end."""
    out, err = io.StringIO(), Terminal()
    with Console(out, err).show_progress() as show:
        show(progress(100))
    assert out.getvalue() == ""
    assert "\u2501" in err.getvalue()


def test_warnings_are_printed_on_stderr() -> None:
    """Warnings of all parts but the poller are printed, and only while the command wants them."""
    err = io.StringIO()
    with Console(io.StringIO(), err).show_warnings():
        logging.getLogger("fubd.ingest").warning("Not recording, trying again: %s", "the database is unavailable")
        logging.getLogger("fubd.poller").warning("Not caught up")
        logging.getLogger("fubd.ingest").info("Recording again.")
    logging.getLogger("fubd.ingest").warning("later")
    assert err.getvalue() == "Not recording, trying again: the database is unavailable\n"
