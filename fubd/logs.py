"""Logging on stdout: one JSON object a line for machines, or readable lines on a terminal.

A thread writes the lines, so a program that reads them slowly never delays the event loop. When the queue is full, lines are dropped and
counted; the number of dropped lines is logged as soon as lines can be written again.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import select
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, tzinfo
from logging.handlers import QueueHandler, QueueListener

from typing_extensions import override

_QUEUE_LINES = 10_000
_STOP_TIMEOUT_SECONDS = 2.0
_MAX_TEXT_LENGTH = 16_000
_MIN_SECRET_LENGTH = 6
_HIDDEN = "***"

_LOCATION = re.compile(r'File "(?:[^"]*/)?([^"/]+)", line ([0-9]+)')
_COLOURS = {"debug": "2", "info": "32", "warn": "33", "error": "31;1"}


@contextmanager
def configure(
    log_format: str | None = None, *, secrets: Collection[str] = (), zone: tzinfo = UTC, descriptor: int | None = None
) -> Iterator[None]:
    """Log until the block ends. `log_format`: json, console, or None: console on a terminal, json otherwise.

    `secrets` are hidden in every line, whatever another library's error says; those shorter than 6 characters are not searched for.
    `zone`: of the times in console lines; JSON lines are in UTC. `descriptor`: the file descriptor to write to, stdout's by default.
    """
    output = sys.stdout.fileno() if descriptor is None else descriptor
    is_terminal = os.isatty(output)
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_QUEUE_LINES)
    handler = _DroppingQueueHandler(lines)
    if log_format == "console" or (log_format is None and is_terminal):
        handler.setFormatter(_ConsoleFormatter(secrets, zone, coloured=is_terminal and not os.environ.get("NO_COLOR")))
    else:
        handler.setFormatter(_JsonFormatter(secrets))
    listener = _Listener(lines, _DescriptorHandler(output, handler))
    root, ours = logging.getLogger(), logging.getLogger("fubd")
    before = (root.handlers[:], root.level, ours.level)
    # Of other libraries only warnings and errors are of interest.
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    listener.start()
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level, ours.level = before
        listener.stop()


class _Formatter(logging.Formatter):
    """Hides secrets and limits the length of texts."""

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__()
        self._secrets = frozenset(secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH)

    def message(self, record: logging.LogRecord) -> str:
        return self._redact(record.getMessage())

    def traceback(self, record: logging.LogRecord) -> str | None:
        return self._redact(self.formatException(record.exc_info)) if record.exc_info and record.exc_info[1] is not None else None

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text if len(text) <= _MAX_TEXT_LENGTH else text[:_MAX_TEXT_LENGTH] + "…"


class _JsonFormatter(_Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "level": _level(record), "logger": record.name, "message": self.message(record)}
        if (traceback := self.traceback(record)) is not None:
            line["exception"] = traceback
        text = json.dumps(line, ensure_ascii=False)
        # Such as what turns the direction of writing, for a terminal that shows the line.
        return text if text.isprintable() else "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


class _ConsoleFormatter(_Formatter):
    def __init__(self, secrets: Collection[str], zone: tzinfo, *, coloured: bool) -> None:
        super().__init__(secrets)
        self._zone = zone
        self._coloured = coloured

    @override
    def format(self, record: logging.LogRecord) -> str:
        name = _level(record)
        level = f"\x1b[{_COLOURS[name]}m{name.ljust(5)}\x1b[0m" if self._coloured else name.ljust(5)
        text = self.message(record)
        if (traceback := self.traceback(record)) is not None:
            text += f" ({_shorten(traceback)})"
        # Text of a stranger must not control the terminal of the reader.
        printable = "".join(character if character.isprintable() else " " for character in text)
        return f"{datetime.fromtimestamp(record.created, self._zone):%H:%M:%S} {level} {printable}"


class _DroppingQueueHandler(QueueHandler):
    """Formats each record in its own thread and queues the line, or counts it when the queue is full."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__(lines)
        self._dropped = 0

    @override
    def enqueue(self, record: logging.LogRecord) -> None:
        # The handler's lock is held here.
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def take_dropped(self) -> str | None:
        """Return the line that reports the lines dropped since the last call; None when there are none."""
        self.acquire()
        try:
            dropped, self._dropped = self._dropped, 0
        finally:
            self.release()
        if not dropped:
            return None
        record = {"name": __name__, "levelno": logging.WARNING, "msg": f"{dropped} log lines were dropped"}
        return self.format(logging.makeLogRecord(record))


class _DescriptorHandler(logging.Handler):
    """Writes lines to the descriptor itself: a thread that is blocked in sys.stdout would block the exit of the interpreter."""

    def __init__(self, descriptor: int, source: _DroppingQueueHandler) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._source = source
        self._reader_gone = False

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if self._reader_gone:
            return
        try:
            self._write(record.getMessage())
            if (report := self._source.take_dropped()) is not None:
                self._write(report)
        except OSError:
            self._reader_gone = True

    def _write(self, line: str) -> None:
        rest = memoryview((line + "\n").encode(errors="backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])


class _Listener(QueueListener):
    """Stops within a bounded time, even when no program reads the lines."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None], handler: logging.Handler) -> None:
        super().__init__(lines, handler)
        self._lines = lines

    @override
    def stop(self) -> None:
        with suppress(queue.Full):
            # None ends the thread of a QueueListener.
            self._lines.put(None, timeout=_STOP_TIMEOUT_SECONDS)
            if self._thread is not None:
                self._thread.join(_STOP_TIMEOUT_SECONDS)


def _level(record: logging.LogRecord) -> str:
    if record.levelno >= logging.ERROR:
        return "error"
    if record.levelno >= logging.WARNING:
        return "warn"
    return "info" if record.levelno >= logging.INFO else "debug"


def _shorten(traceback: str) -> str:
    """Return the last line of a traceback, and the last location that it names."""
    locations = _LOCATION.findall(traceback)
    return traceback.splitlines()[-1] + (f", {locations[-1][0]}:{locations[-1][1]}" if locations else "")
