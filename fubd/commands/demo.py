"""`python -m fubd demo`: run the demo. The container image leaves the demo out."""

from __future__ import annotations

import argparse

from fubd.demo.command import run as play


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 when nothing was lost, doubled, invented or wrong."""
    return play(args)
