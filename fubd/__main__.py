"""argv → command → exit code.

0 done; 1 could not do its work; 2 the configuration or the command line is bad; 130 interrupted, 143 ended by a signal. What a user can
put right is told in readable lines on stderr; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from typing_extensions import override

from fubd import __version__
from fubd.errors import FubRefused, Unavailable, UserError
from fubd.settings import SettingsError

_FAILED = 1
_BAD_CONFIGURATION = 2
_INTERRUPTED = 130
_ENDED = 143

_LONGEST_NUMBER = 100
_NOWHERE_TO_WRITE = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_DAEMON = "serve"
_RECOVERY = "recover"
_WITH_JSON = frozenset({_RECOVERY, "check", "audit", "status", "explain"})

_ABOUT = "Every stage change in Follow Up Boss, recorded exactly once, by webhook and by polling."
_WITHOUT_A_COMMAND = (
    "Without a command it is the daemon, until SIGTERM or Ctrl-C. The settings come from the environment and from .env in the working "
    "directory; the README lists them. Exit codes: 0 done (with --poll-only: caught up), 1 could not do its work, 2 bad configuration."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code. Each is a module of `fubd.commands` with `run(args) -> int`."""
    parsed = _parsed(arguments)
    with _ending_well() as ended, _output():
        try:
            run: Callable[[argparse.Namespace], int] = importlib.import_module(f"fubd.commands.{parsed.module}").run
            code = run(parsed)
            sys.stdout.flush()
        except SettingsError as error:
            code = _tell(error, _BAD_CONFIGURATION)
        except (Unavailable, UserError, FubRefused) as error:
            code = _tell(error, _FAILED)
        except KeyboardInterrupt:
            # For what runs until it is told to stop, this is how it ends.
            endless = parsed.module == _DAEMON or parsed.forever
            code = 0 if endless else _ENDED if ended else _INTERRUPTED
        except OSError as error:
            if error.errno not in _NOWHERE_TO_WRITE:
                raise
            # The interpreter must not fail over it once more when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            # Whoever read our output and has gone wants to hear no more.
            gone = isinstance(error, BrokenPipeError)
            code = _FAILED if gone else _tell(Unavailable(f"the result cannot be written: {error.strerror}"), _FAILED)
    return code


@contextmanager
def _output() -> Iterator[None]:
    """Have something to print to, whoever started us; a name that its encoding does not know is no reason to fail."""
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, stack.enter_context(Path(os.devnull).open("w", encoding="utf-8")))
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        yield


def _tell(error: Exception, code: int) -> int:
    for line in str(error).splitlines():
        sys.stderr.write(f"fubd: {line}\n")
    return code


@contextmanager
def _ending_well() -> Iterator[list[int]]:
    """Let a command that is told to end do so as if by Ctrl-C, so that what it started ends too; gives the signals that came."""
    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        came.append(number)
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong with a command line in one line."""

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_CONFIGURATION, f"fubd: {message}; see {self.prog} --help\n")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.poll_only:
        if parsed.module != _DAEMON:
            parser.error(f"--poll-only is a command of its own and does not go with {parsed.command}")
        parsed.module = _RECOVERY
    for option in ("full", "forever"):
        if getattr(parsed, option) and not parsed.poll_only:
            parser.error(f"--{option} goes with --poll-only")
    if parsed.json and parsed.module not in _WITH_JSON:
        parser.error("--json goes with --poll-only, check, audit, status and explain")
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fubd", description=_ABOUT, epilog=_WITHOUT_A_COMMAND, allow_abbrev=False)
    parser.set_defaults(module=_DAEMON)
    parser.add_argument("--version", action="version", version=f"fubd {__version__}")
    recovery = parser.add_argument_group("recovery run")
    recovery.add_argument("--poll-only", action="store_true", help="no webhooks: poll from where coverage ended until caught up, and end")
    recovery.add_argument("--full", action="store_true", help="with --poll-only: read every person in the account")
    recovery.add_argument("--forever", action="store_true", help="with --poll-only: keep polling until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object (--poll-only, check, audit, status, explain)"
    )

    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    def command(name: str, text: str, exits: str) -> argparse.ArgumentParser:
        about, epilog = text[0].upper() + text[1:] + ".", f"Exit codes: {exits}, 2 bad configuration."
        added = commands.add_parser(name, help=text, description=about, epilog=epilog, allow_abbrev=False)
        added.set_defaults(module=name)
        if name in _WITH_JSON:
            # Without a default of its own, so that `fubd --json status` means the same.
            added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as one JSON object")
        return added

    demo = command(
        "demo",
        "show fubd at work on a simulated account, with a score at the end; needs no configuration",
        "0 when nothing was lost, doubled or invented, else 1",
    )
    demo.add_argument("--seconds", type=_seconds, metavar="N", help="take so many seconds for the whole story")
    command(
        "check",
        "examine configuration, database, access to FUB and webhooks, and tell how to put right what is wrong",
        "0 all good, 1 something to put right",
    )
    audit = command("audit", "compare the stage of every person in FUB with the database", "0 at or above the bar, 1 below or out of reach")
    audit.add_argument("--sample", type=_count, metavar="N", help="compare N people chosen at random instead of everyone")
    audit.add_argument(
        "--min", type=_ratio, default=1.0, metavar="RATIO", help="the completeness that is enough, such as 0.999 (default: 1)"
    )
    audit.add_argument("--fix", action="store_true", help="record the differences, as changes found by polling")
    command("status", "show the health of both sources and the last changes, as the database knows them", "0 both healthy, 1 one is stale")
    adopt = command("adopt", "take over a stage_changes table that the older scripts made; shows its plan first", "0 taken over, 1 not")
    adopt.add_argument("--yes", action="store_true", help="go ahead without asking")
    adopt.add_argument("--undo", action="store_true", help="give the table back as it was, until fubd has recorded a change in it")
    command("replay", "process the quarantined deliveries again, after an upgrade", "0 none remains, 1 some do")
    explain = command("explain", "show one person's rows, each with its evidence", "0 told, 1 the person is unknown")
    explain.add_argument("person_id", type=_count, metavar="PERSON_ID", help="the person's id in Follow Up Boss")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_NUMBER or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
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


if __name__ == "__main__":
    sys.exit(main())
