"""Logging: one object a line, readable lines for people, no secrets, and nobody waits for a reader."""

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
    """Give the writing end of a pipe, and the lines that came out of it once the block has ended."""
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


def test_one_object_a_line() -> None:
    """Each record is one JSON object with time, level, logger and message; a traceback is one of its values."""
    with _pipe() as (writing, lines), logs.running("json", descriptor=writing):
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


def test_lines_for_people() -> None:
    """The console shows time, level and message on one line, an error in short, and lets no text move the cursor."""
    with _pipe() as (writing, lines), logs.running("console", descriptor=writing):
        _log.info("hello \x1b[2J there")
        try:
            _ = 1 // 0
        except ZeroDivisionError:
            _log.exception("no result")
    first, second = lines
    assert first[8:] == " info  hello  [2J there"
    assert "no result (ZeroDivisionError: " in second
    assert "test_logs.py:" in second
    assert "\x1b" not in first + second


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_terminal_decides(is_terminal: bool) -> None:
    """Unless told otherwise, a terminal gets lines for people and everything else gets JSON."""
    if is_terminal:
        reading, writing = pty.openpty()
    else:
        reading, writing = os.pipe()
    with logs.running(descriptor=writing):
        _log.info("hello")
    text = os.read(reading, 10_000).decode()
    os.close(writing)
    os.close(reading)
    assert text.startswith("{") is not is_terminal
    assert "hello" in text


def test_no_secret_is_told() -> None:
    """A secret that some error repeats is hidden, in the message and in the traceback."""
    with _pipe() as (writing, lines), logs.running("json", secrets=["hunter2-hunter2", "abc", ""], descriptor=writing):
        try:
            int("https://hunter2-hunter2@host")
        except ValueError as error:
            _log.exception("failed: %s, abc", error)
    assert "hunter2" not in lines[0]
    assert "https://***@host" in lines[0]
    assert _objects(lines)[0]["message"].endswith(", abc")


def test_others_are_quiet() -> None:
    """Other libraries are heard from warnings on, and Python's own warnings are records like others."""
    with _pipe() as (writing, lines), logs.running("json", descriptor=writing):
        logging.getLogger("aiohttp.access").info("GET /")
        logging.getLogger("asyncio").debug("Using selector")
        _log.debug("details")
        logging.getLogger("asyncio").error("Task exception was never retrieved")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in _objects(lines)] == ["asyncio", "py.warnings"]


def test_nobody_waits_for_a_reader() -> None:
    """With nobody reading, logging goes on at once; what did not fit is counted, and told once somebody reads."""
    reading, writing = os.pipe()
    reader = _Reader(reading)
    with logs.running("json", descriptor=writing):
        began = time.monotonic()
        for number in range(13_000):
            _log.info("line %d", number)
        assert time.monotonic() - began < 5
        reader.start()
    os.close(writing)
    reader.end()
    objects = _objects(reader.lines)
    told = [int(line["message"].split()[0]) for line in objects if line["level"] == "warn"]
    assert told
    assert sum(told) + len(objects) - len(told) == 13_000


def test_the_end_comes_without_a_reader() -> None:
    """When nobody ever reads, the end waits a bounded time and no longer."""
    reading, writing = os.pipe()
    began = time.monotonic()
    with logs.running("json", descriptor=writing):
        for _ in range(1000):
            _log.info("x" * 1000)
    assert time.monotonic() - began < 10
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone() -> None:
    """When the reading end is closed, logging changes nothing and the end comes soon."""
    reading, writing = os.pipe()
    os.close(reading)
    with logs.running("json", descriptor=writing):
        for _ in range(100):
            _log.info("anybody?")
    os.close(writing)


def test_leaves_logging_as_it_was() -> None:
    """After the block the handlers and levels are those from before."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("fubd").level)
    with _pipe() as (writing, _), logs.running("json", descriptor=writing):
        assert root.handlers != before[0]
    assert (root.handlers[:], root.level, logging.getLogger("fubd").level) == before
