"""argv → command → exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from fubd.commands.interrupts import exit_on_signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Everything that takes time to import is imported after signals are handled."""
    exit_on_signals()
    code: int = import_module("fubd.commands.command_line").run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
