"""What commands print: plain in a pipe, drawn on a terminal, and never an order to it."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from fubd.commands.screen import Screen, ago, counted, duration, instant, plain, share
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


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.25, "0.2 s"), (9.0, "9 s"), (61, "61 s"), (600, "10 min"), (7380, "2 h 3 min"), (950_400, "11 days")],
)
def test_a_span_of_time_in_words(seconds: float, words: str) -> None:
    """A span is told in the units a person would use."""
    assert duration(seconds) == words


def test_words_for_numbers_and_instants() -> None:
    """Counts have their plural, instants their zone, and a share reads 1 only when nothing is missing."""
    assert [counted(1, "delivery"), counted(1200, "delivery"), counted(0, "person"), counted(2, "row")] == [
        "1 delivery",
        "1,200 deliveries",
        "0 people",
        "2 rows",
    ]
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
