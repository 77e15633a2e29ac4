"""`python -m fubd demo`: run the demo."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from fubd.errors import UserError


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 when no change was lost, doubled or invented. Raises UserError where the demo is not installed."""
    if find_spec("fubd.demo") is None:
        raise UserError("this installation does not include the demo: run it in a checkout of the repository, as the README says")
    if find_spec("fcntl") is None:
        raise UserError(
            "the demo brings its own Postgres, which does not run on this platform: run it on Linux or macOS, or in WSL on Windows"
        )
    run_demo: Callable[[argparse.Namespace], int] = import_module("fubd.demo.command").run
    return run_demo(args)
