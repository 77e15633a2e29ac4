"""What commands print: plain in a pipe, drawn on a terminal, and never an order to it."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from fubd.commands.console import Screen, ago, instant, moment, named, plain, share
from fubd.poller import Progress

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


def reached(people: int, *, kind: str = "sweep", left: float | None = 90.0) -> Progress:
    """Give a progress."""
    return Progress(kind, people, 200, 3, 2, left)


def test_words_for_numbers_and_instants() -> None:
    """Counts have their plural, instants their zone, and a share reads 1 only when nothing is missing."""
    assert instant(NOON.astimezone()) == "2031-03-03 12:00:00 UTC"
    assert (ago(None, NOON), ago(NOON, NOON - timedelta(seconds=5)), ago(NOON - timedelta(minutes=5), NOON)) == (
        "never",
        "0 s ago",
        "5 min ago",
    )
    assert [share(1.0), share(0.99999999), share(0.5)] == ["1", "0.999999", "0.5"]


def test_a_name_gives_no_orders_to_a_terminal() -> None:
    """Escape sequences, line breaks and text that runs backwards lose what makes them work, drawn or plain."""
    hostile = "Ada\x1b[2J\n[bold]Example\u202e"
    assert plain(hostile) == "Ada [2J [bold]Example "
    for stream in (io.StringIO(), Terminal()):
        screen = Screen(stream, io.StringIO())
        screen.table(("name", "stage"), [(hostile, "Lead")])
        screen.facts([("name", hostile)])
        screen.say(hostile)
        assert "\x1b[2J" not in stream.getvalue()
        assert stream.getvalue().count("[bold]Example") == 3


def test_a_table_in_a_pipe_is_whole() -> None:
    """In a pipe no cell is cut, however long, and columns stand under each other."""
    out = io.StringIO()
    Screen(out, io.StringIO()).table(("person", "stage"), [(1, "x" * 200), (1234567, "Lead")])
    assert out.getvalue().splitlines() == ["person   stage", "1        " + "x" * 200, "1234567  Lead"]


def test_columns_stand_under_each_other_by_what_is_seen() -> None:
    """Wide letters take two places, and letters that stand above others take none."""
    out = io.StringIO()
    Screen(out, io.StringIO()).table(("name", "stage"), [("\u6f22\u5b57", "Lead"), ("Zoe\u0308", "Lead")])
    assert out.getvalue().splitlines() == ["name  stage", "\u6f22\u5b57  Lead", "Zoe\u0308   Lead"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_on_a_terminal_nothing_is_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow it is, every cell is there to its end, and no line is longer than the terminal is wide."""
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminal()
    screen = Screen(out, io.StringIO())
    cells = ("1636", "1001 Edda Brackwater", "ACQ - Price Motivated", "2026-11-25 16:01:02", "x" * 70)
    screen.table(("row", "person", "from", "changed at", "to"), [cells])
    screen.tell("word " * 30, indent=4)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert all(len(line) <= width for line in shown.splitlines())
    assert "\u2026" not in shown
    assert shown.count("x") == 70
    assert "2026-11-25 16:01:02" in re.sub(r"\s+", " ", shown)
    assert sum(line.startswith("    word") for line in shown.splitlines()) == len([line for line in shown.splitlines() if "word" in line])


def test_a_name_has_a_readable_length() -> None:
    """A name is one line of at most 40 letters; whoever has none has none."""
    assert named("Ada", None) == "Ada"
    assert named(None, "") == ""
    assert named("x" * 1000, "y") == "x" * 39 + "\u2026"
    assert moment(NOON, NOON) == "03-03 12:00:00"
    assert moment(NOON, NOON + timedelta(days=400)) == "2031-03-03 12:00:00"


def test_json_is_one_line_with_instants_that_programs_read() -> None:
    """Instants are ISO 8601, names are as they are."""
    out = io.StringIO()
    Screen(out, io.StringIO()).json({"at": NOON, "name": "Ólafur"})
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()) == {"at": "2031-03-03T12:00:00+00:00", "name": "Ólafur"}


def test_progress_in_a_pipe_is_a_line_every_few_seconds() -> None:
    """The first page and what follows a while later are told, on stderr; what comes between is not."""
    err = io.StringIO()
    moments = iter([0.0, 1.0, 4.9, 5.0, 5.1])
    with Screen(io.StringIO(), err, seconds=lambda: next(moments)).progress() as show:
        for people in (100, 120, 140, 160):
            show(reached(people))
        show(reached(1, kind="incremental", left=None))
    assert err.getvalue().splitlines() == [
        "reading everybody: 100 of 200 people, 3 changes found, 2 calls, about 90 s left",
        "reading everybody: 160 of 200 people, 3 changes found, 2 calls, about 90 s left",
        "reading who changed: 1 of 200 people, 3 changes found, 2 calls",
    ]


def test_progress_on_a_terminal_is_a_bar() -> None:
    """On a terminal it is drawn on stderr, and gone when it is over."""
    out, err = io.StringIO(), Terminal()
    with Screen(out, err).progress() as show:
        show(reached(100))
    assert out.getvalue() == ""
    assert "\u2501" in err.getvalue()


def test_warnings_of_our_parts_are_seen() -> None:
    """What a part warns of appears on stderr; what the poller says is left to the result."""
    err = io.StringIO()
    with Screen(io.StringIO(), err).warnings():
        logging.getLogger("fubd.ingest").warning("not recording for now: %s", "the database is away")
        logging.getLogger("fubd.poller").warning("Not caught up")
        logging.getLogger("fubd.ingest").info("recording again")
    logging.getLogger("fubd.ingest").warning("later")
    assert err.getvalue() == "not recording for now: the database is away\n"
