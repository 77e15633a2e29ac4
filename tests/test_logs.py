"""Logging: one JSON object a line, readable lines on a terminal, no secrets, and no waiting for a reader."""

from __future__ import annotations

import json
import logging
import os
import pty
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from fubd import logs

_log = logging.getLogger("fubd.tests")


class _Reader:
    """Reads lines from a descriptor until it ends."""

    def __init__(self, descriptor: int) -> None:
        self.lines: list[str] = []
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._thread.join()
        os.close(self._descriptor)

    def _read(self) -> None:
        with open(self._descriptor, encoding="utf-8", closefd=False) as stream:
            self.lines += [line.removesuffix("\n") for line in stream]


@contextmanager
def _pipe() -> Iterator[tuple[int, list[str]]]:
    """Return the writing end of a pipe, and the lines that were read from it once the block has ended."""
    reading, writing = os.pipe()
    reader = _Reader(reading)
    reader.start()
    try:
        yield writing, reader.lines
    finally:
        os.close(writing)
        reader.end()


def _objects(lines: list[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines]


def test_each_record_is_one_json_object() -> None:
    """It has time, level, logger and message; a traceback is one of its values."""
    with _pipe() as (writing, lines), logs.configure("json", descriptor=writing):
        _log.info("caught %d changes\nin one go", 7)
        _log.warning("careful")
        try:
            int("nothing")
        except ValueError:
            _log.exception("that was wrong")
    first, second, third = _objects(lines)
    assert (first["level"], first["message"], first["logger"]) == ("info", "caught 7 changes\nin one go", "fubd.tests")
    assert first["time"].endswith("Z")
    assert second["level"] == "warn"
    assert third["level"] == "error"
    assert "ValueError: invalid literal" in third["exception"]
    assert "test_logs.py" in third["exception"]


def test_a_json_line_has_no_character_that_controls_a_terminal() -> None:
    """Those are escaped, and every other character is written as it is."""
    text = "Jürgen \u202e\u009b31m\u2028\x1b \U000e0001 漢"
    with _pipe() as (writing, lines), logs.configure("json", descriptor=writing):
        _log.info("%s", text)
    assert lines[0].isprintable()
    assert "Jürgen" in lines[0]
    assert json.loads(lines[0])["message"] == text


def test_the_console_shows_readable_lines() -> None:
    """The office's time, level and message on one line, an error in short, and no control character."""
    with _pipe() as (writing, lines), logs.configure("console", zone=ZoneInfo("America/Chicago"), descriptor=writing):
        noon = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()
        _log.handle(logging.makeLogRecord({"name": _log.name, "levelno": logging.INFO, "msg": "hello \x1b[2J there", "created": noon}))
        try:
            _ = 1 // 0
        except ZeroDivisionError:
            _log.exception("no result")
    first, second = lines
    assert first == "06:00:00 info  hello  [2J there"
    assert "no result (ZeroDivisionError: " in second
    assert "test_logs.py:" in second
    assert "\x1b" not in first + second


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_format_depends_on_the_terminal(is_terminal: bool) -> None:
    """By default a terminal gets readable lines and everything else gets JSON."""
    if is_terminal:
        reading, writing = pty.openpty()
    else:
        reading, writing = os.pipe()
    with logs.configure(descriptor=writing):
        _log.info("hello")
    text = os.read(reading, 10_000).decode()
    os.close(writing)
    os.close(reading)
    assert text.startswith("{") is not is_terminal
    assert "hello" in text


def test_secrets_are_hidden() -> None:
    """A secret in an error's text is hidden, in the message and in the traceback."""
    with _pipe() as (writing, lines), logs.configure("json", secrets=["hunter2-hunter2", "abc", ""], descriptor=writing):
        try:
            int("https://hunter2-hunter2@host")
        except ValueError as error:
            _log.exception("failed: %s, abc", error)
    assert "hunter2" not in lines[0]
    assert "https://***@host" in lines[0]
    assert _objects(lines)[0]["message"].endswith(", abc")


def test_other_libraries_log_only_warnings() -> None:
    """Records of other libraries appear from warnings on; Python's own warnings are records too."""
    with _pipe() as (writing, lines), logs.configure("json", descriptor=writing):
        logging.getLogger("aiohttp.access").info("GET /")
        logging.getLogger("asyncio").debug("Using selector")
        _log.debug("details")
        logging.getLogger("asyncio").error("Task exception was never retrieved")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in _objects(lines)] == ["asyncio", "py.warnings"]


def test_logging_never_waits_for_a_reader() -> None:
    """Without a reader logging returns at once; dropped lines are counted, and their number is logged once a reader reads."""
    reading, writing = os.pipe()
    reader = _Reader(reading)
    with logs.configure("json", descriptor=writing):
        # The pipe is full after a few hundred lines: a call that waited for the reader would never return.
        for number in range(13_000):
            _log.info("line %d", number)
        reader.start()
    os.close(writing)
    reader.end()
    objects = _objects(reader.lines)
    dropped = [int(line["message"].split()[0]) for line in objects if line["level"] == "warn"]
    assert dropped
    assert sum(dropped) + len(objects) - len(dropped) == 13_000


def test_stopping_without_a_reader_takes_bounded_time() -> None:
    """When no line is ever read, the end waits for a bounded time only."""
    reading, writing = os.pipe()
    began = time.monotonic()
    with logs.configure("json", descriptor=writing):
        for _ in range(1000):
            _log.info("x" * 1000)
    assert time.monotonic() - began < 30
    os.close(reading)
    os.close(writing)


def test_a_closed_reader_changes_nothing() -> None:
    """When the reading end is closed, logging goes on and stops at once."""
    reading, writing = os.pipe()
    os.close(reading)
    with logs.configure("json", descriptor=writing):
        for _ in range(100):
            _log.info("no reader")
    os.close(writing)


def test_logging_is_restored_afterwards() -> None:
    """After the block the handlers and levels are those from before."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("fubd").level)
    with _pipe() as (writing, _), logs.configure("json", descriptor=writing):
        assert root.handlers != before[0]
    assert (root.handlers[:], root.level, logging.getLogger("fubd").level) == before
