"""The command line: which command runs with which arguments, and its exit code.

0 done; 1 could not do its work; 2 bad configuration or command line; 130 interrupted; 143 terminated by a signal. What a user can fix is
printed in readable lines on stderr; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import errno
import gc
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from typing_extensions import override

from fubd import __version__
from fubd.commands.interrupts import exit_code, exit_on_signals, interrupt_on_signals
from fubd.core.text import printable
from fubd.errors import ConfigurationError, FubRefused, Malformed, Stopped, Unavailable, UserError

_FAILED = 1
_BAD_CONFIGURATION = 2

_LONGEST_NUMBER = 100
# Longer than any name; a number of so many digits can still be converted.
_LONGEST_PERSON = 1_000
_CANNOT_WRITE = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_DAEMON = "serve"
_ENDLESS = frozenset({_DAEMON, "tail"})
_RECOVERY = "recover"
_WITH_JSON = frozenset({_RECOVERY, "check", "audit", "status", "explain", "tail"})

_DESCRIPTION = "Records every stage change in Follow Up Boss exactly once, by webhook and by polling."
_EPILOG = (
    "Without a command it runs the daemon, until SIGTERM or Ctrl-C. Settings are read from the environment and from .env in the working "
    "directory; the README lists them. Exit codes: 0 done (with --poll-only: caught up), 1 could not do its work, 2 bad configuration."
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Each command is a module of `fubd.commands` with `run(args) -> int`."""
    parsed = _parse(arguments)
    # A signal is the normal end of what runs until it is stopped.
    interrupted = 0 if parsed.module in _ENDLESS or parsed.forever else None
    exit_on_signals(interrupted)
    command: Callable[[argparse.Namespace], int] = _import_command(parsed.module)
    received: list[int] = []
    try:
        interrupt_on_signals(received)
        with _writable_streams():
            code = _run(command, parsed)
        exit_on_signals(code)
    except KeyboardInterrupt:
        code = exit_code(received[0] if received else signal.SIGINT) if interrupted is None else interrupted
        exit_on_signals(code)
    return code


def _import_command(module: str) -> Callable[[argparse.Namespace], int]:
    """Import a command. What that creates stays until the end: looking through it for garbage would be a third of a short command's CPU."""
    gc.disable()
    command: Callable[[argparse.Namespace], int] = import_module(f"fubd.commands.{module}").run
    gc.freeze()
    gc.enable()
    return command


def _run(command: Callable[[argparse.Namespace], int], parsed: argparse.Namespace) -> int:
    try:
        code = command(parsed)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _fail(error, _BAD_CONFIGURATION)
    except Stopped as error:
        return _fail(error, exit_code(error.signal))
    except (Unavailable, UserError, FubRefused, Malformed) as error:
        return _fail(error, _FAILED)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        # Otherwise the interpreter would fail again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A closed pipe needs no message: its reader wants no more.
        closed = isinstance(error, BrokenPipeError)
        return _FAILED if closed else _fail(UserError(f"the result cannot be written: {error.strerror}"), _FAILED)
    return code


@contextmanager
def _writable_streams() -> Iterator[None]:
    """Make sure that stdout and stderr exist and accept every character, also those that their encoding lacks."""
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, stack.enter_context(Path(os.devnull).open("w", encoding="utf-8")))
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        yield


def _fail(error: Exception, code: int) -> int:
    """Print an error on stderr and return the exit code."""
    for line in str(error).splitlines():
        sys.stderr.write(f"fubd: {printable(line)}\n")
    return code


class _Parser(argparse.ArgumentParser):
    """Reports a bad command line in one line."""

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_CONFIGURATION, f"fubd: {message}; see {self.prog} --help\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _make_parser()
    parsed = parser.parse_args(arguments)
    if parsed.poll_only:
        if parsed.module != _DAEMON:
            parser.error(f"--poll-only is a command of its own and cannot be combined with {parsed.command}")
        parsed.module = _RECOVERY
    for option in ("full", "forever"):
        if getattr(parsed, option) and not parsed.poll_only:
            parser.error(f"--{option} needs --poll-only")
    if parsed.json and parsed.module not in _WITH_JSON:
        parser.error("--json needs --poll-only, check, audit, status, explain or tail")
    return parsed


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fubd", description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False)
    parser.set_defaults(module=_DAEMON)
    parser.add_argument("--version", action="version", version=f"fubd {__version__}")
    recovery = parser.add_argument_group("recovery run")
    recovery.add_argument("--poll-only", action="store_true", help="no webhooks: poll from where coverage ended until caught up, then exit")
    recovery.add_argument("--full", action="store_true", help="with --poll-only: read every person in the account")
    recovery.add_argument("--forever", action="store_true", help="with --poll-only: keep polling until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object (--poll-only, check, audit, status, explain, tail)"
    )

    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    def command(name: str, text: str, exit_codes: str) -> argparse.ArgumentParser:
        description, epilog = text[0].upper() + text[1:] + ".", f"Exit codes: {exit_codes}, 2 bad configuration."
        added = commands.add_parser(name, help=text, description=description, epilog=epilog, allow_abbrev=False)
        added.set_defaults(module=name)
        if name in _WITH_JSON:
            # It has no default of its own, which would override the one of `fubd --json status`.
            added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as one JSON object")
        return added

    demo = command(
        "demo",
        "show fubd at work on a simulated account, with a score at the end; needs no configuration",
        "0 when nothing was lost, doubled or invented, else 1",
    )
    demo.add_argument("--seconds", type=_positive, metavar="N", help="finish the whole demo within N seconds")
    demo.add_argument("--stay", action="store_true", help="keep the account, the daemon and the page alive afterwards, until Ctrl-C")
    check = command(
        "check",
        "check the configuration, the database, the access to Follow Up Boss and the webhooks, with the fix for each problem",
        "0 all good, 1 something to fix",
    )
    check.add_argument("--alert", action="store_true", help="send a test message to FUBD_ALERT_URL, and a test heartbeat")
    audit = command(
        "audit",
        "compare the stage of every person in Follow Up Boss with the database",
        "0 at or above the minimum, 1 below it, nothing to compare, or out of reach",
    )
    audit.add_argument("--sample", type=_count, metavar="N", help="compare N people chosen at random instead of everyone")
    audit.add_argument("--min", type=_ratio, default=1.0, metavar="RATIO", help="the minimum completeness, such as 0.999 (default: 1)")
    audit.add_argument("--fix", action="store_true", help="record the differences, as changes found by polling")
    command("status", "show the health of both sources and the last changes, read from the database", "0 both healthy, 1 one is stale")
    adopt = command("adopt", "take over a stage_changes table made by the older scripts; shows the plan first", "0 adopted, 1 not")
    adopt.add_argument("--yes", action="store_true", help="continue without asking")
    adopt.add_argument("--undo", action="store_true", help="give the table back as it was; possible until fubd has recorded a change in it")
    command("replay", "process quarantined deliveries again, after an upgrade", "0 none remains, 1 some do")
    forget = command("forget", "remove a person's names and payloads everywhere, and keep them out", "0 forgotten, 1 not")
    forget.add_argument("person_id", type=_count, metavar="PERSON_ID", help="the person's id in Follow Up Boss")
    forget.add_argument("--yes", action="store_true", help="continue without asking")
    tail = command("tail", "follow the recorded changes live", "0 on Ctrl-C, 1 when the database is out of reach")
    tail.add_argument("--stage", type=_text, metavar="STAGE", help="only changes into or out of this stage")
    explain = command("explain", "show one person's rows, newest first, each with its evidence", "0 shown, 1 the person is unknown")
    explain.add_argument("person", type=_person, metavar="PERSON", help="the person's id in Follow Up Boss, or a part of their name")
    explain.add_argument("--limit", type=_count, default=50, metavar="N", help="show the newest N rows (default: 50)")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_NUMBER or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _person(text: str) -> str:
    person = _text(text).strip()
    if not person:
        raise argparse.ArgumentTypeError("the text is empty: give an id or a part of a name")
    return person[:_LONGEST_PERSON]


def _text(text: str) -> str:
    """Return text that a database can compare: bytes of another encoding are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not text in the encoding of this terminal") from None
    return text


def _positive(text: str) -> float:
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _ratio(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number
