"""A question to the person at the terminal, before something that cannot be undone easily."""

from __future__ import annotations

import signal
import sys

from fubd.commands.console import Console


def confirm(console: Console, question: str, *, assume_yes: bool) -> bool:
    """Return whether to go on: the answer of a person at a terminal, or `--yes`. Ctrl-C raises KeyboardInterrupt at once."""
    if assume_yes:
        return True
    if not sys.stdin.isatty():
        console.print_notice("fubd: nothing was changed: stdin is not a terminal, so no question can be asked; add --yes to continue")
        return False
    console.print_notice(f"{question} [y/N]")
    # The event loop's own handler would wait for the answer before it acts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer = sys.stdin.readline().strip().lower()
    finally:
        signal.signal(signal.SIGINT, before)
    if answer in {"y", "yes"}:
        return True
    console.print_notice("fubd: nothing was changed")
    return False
