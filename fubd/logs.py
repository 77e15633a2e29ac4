"""Logging on stdout: one JSON object a line for machines, or lines for people on a terminal.

Lines are handed to a thread that writes them, so a reader who does not read stalls nobody: what no longer fits the queue is counted, and
the count is told when there is room again.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import select
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from typing_extensions import override

_QUEUE_LINES = 10_000
_LAST_WORDS_SECONDS = 2.0
_LONGEST_TEXT = 16_000
_SHORTEST_SECRET = 6
_HIDDEN = "***"

_PLACE = re.compile(r'File "(?:[^"]*/)?([^"/]+)", line ([0-9]+)')
_COLOURS = {"debug": "2", "info": "32", "warn": "33", "error": "31;1"}


@contextmanager
def running(log_format: str | None = None, *, secrets: Collection[str] = (), descriptor: int | None = None) -> Iterator[None]:
    """Log while the block lasts. `log_format`: json, console, or None for what the terminal asks.

    `secrets`: texts that appear in no line, whatever a foreign error says; those shorter than 6 characters are not looked for.
    `descriptor`: the file descriptor written to, stdout's unless given.
    """
    output = sys.stdout.fileno() if descriptor is None else descriptor
    terminal = os.isatty(output)
    if log_format == "console" or (log_format is None and terminal):
        shape = _console(coloured=terminal and not os.environ.get("NO_COLOR"))
    else:
        shape = _json
    writer = _Writer(output, shape)
    handler = _Handler(writer, frozenset(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET))
    root, ours = logging.getLogger(), logging.getLogger("fubd")
    before = (root.handlers[:], root.level, ours.level)
    # Other libraries speak up only when something is wrong.
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    writer.start()
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level, ours.level = before
        writer.stop()


class _Line(dict[str, str]):
    """The parts of one line: time, level, logger, message, and exception where there is one."""


class _Handler(logging.Handler):
    def __init__(self, writer: _Writer, secrets: frozenset[str]) -> None:
        super().__init__()
        self._writer = writer
        self._secrets = secrets

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = _Line(time=_time(record.created), level=_level(record.levelno), logger=record.name)
            line["message"] = self._safe(record.getMessage())
            if record.exc_info and record.exc_info[1] is not None:
                line["exception"] = self._safe(_told(record.exc_info[1]))
            self._writer.write(line)
        except (TypeError, ValueError, KeyError):
            # The message and its arguments do not fit: told on stderr, as logging does.
            self.handleError(record)

    def _safe(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


class _Writer(threading.Thread):
    """Writes lines one after another, to the descriptor itself: a thread stuck in sys.stdout would break the interpreter's end."""

    def __init__(self, descriptor: int, shape: Callable[[_Line], str]) -> None:
        super().__init__(name="fubd-log", daemon=True)
        self._descriptor = descriptor
        self._shape = shape
        self._queue: queue.Queue[_Line | None] = queue.Queue(_QUEUE_LINES)
        self._dropped = 0

    def write(self, line: _Line) -> None:
        """Take a line, or count it when there is no room; the handler's lock lets in one at a time."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def stop(self) -> None:
        """Write what there is, as long as somebody reads it."""
        try:
            self._queue.put(None, timeout=_LAST_WORDS_SECONDS)
        except queue.Full:
            return
        self.join(_LAST_WORDS_SECONDS)

    @override
    def run(self) -> None:
        told = 0
        try:
            while (line := self._queue.get()) is not None:
                self._put(line)
                told = self._tell_dropped(told)
            self._tell_dropped(told)
        except OSError:
            # Nobody reads any more. What is still logged fills the queue and is dropped.
            return

    def _tell_dropped(self, told: int) -> int:
        dropped = self._dropped
        if dropped > told:
            now = _time(datetime.now(UTC).timestamp())
            self._put(_Line(time=now, level="warn", logger="fubd.logs", message=f"{dropped - told} log lines were dropped"))
        return dropped

    def _put(self, line: _Line) -> None:
        rest = memoryview((self._shape(line) + "\n").encode(errors="backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])


def _json(line: _Line) -> str:
    return json.dumps(line, ensure_ascii=False)


def _console(*, coloured: bool) -> Callable[[_Line], str]:
    def shape(line: _Line) -> str:
        level = line["level"].ljust(5)
        if coloured:
            level = f"\x1b[{_COLOURS[line['level']]}m{level}\x1b[0m"
        told = f" ({_in_short(line['exception'])})" if "exception" in line else ""
        # What a stranger wrote must not move the cursor of whoever watches.
        text = "".join(character if character.isprintable() else " " for character in line["message"] + told)
        return f"{line['time'][11:19]} {level} {text}"

    return shape


def _in_short(trace: str) -> str:
    """Give the last line of a traceback, and the last place it names."""
    places = _PLACE.findall(trace)
    return trace.splitlines()[-1] + (f", {places[-1][0]}:{places[-1][1]}" if places else "")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
