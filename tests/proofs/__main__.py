"""The long form of the proof: `python -m tests.proofs [--seeds 1000] [--first 0] [--days 10]`.

Prints each seed that breaks a promise, and the sum so far.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.proofs.proof import ProofResult, prove

_PROGRESS_EVERY = 50
"""Seeds after which the sum so far is printed."""


def _summary(results: list[ProofResult], seconds: float) -> str:
    def total(name: str) -> int:
        return sum(getattr(result.score, name) for result in results)

    days, calls, rounds = (sum(getattr(result, name) for result in results) for name in ("days", "calls", "rounds"))
    broken = sum(bool(result.failures) for result in results)
    return (
        f"{len(results):,} seeds, {days:,.0f} days, {calls:,} calls, {total('changes'):,} changes, {total('captured'):,} captured,"
        f" {total('lost_unseen'):,} shown by no source, {total('doubled')} doubled, {total('invented')} invented,"
        f" {total('chain_breaks')} chain breaks, completeness compared {rounds:,} times,"
        f" {broken} seeds with a broken promise, {seconds:,.0f} s"
    )


def _run(first: int, seeds: int, days: float) -> int:
    began = time.monotonic()
    results: list[ProofResult] = []
    with ProcessPoolExecutor(max_workers=os.cpu_count(), initializer=partial(logging.disable, logging.CRITICAL)) as executor:
        for result in executor.map(partial(prove, days=days), range(first, first + seeds)):
            results.append(result)
            if result.failures:
                sys.stdout.write("\n  ".join((f"seed {result.seed}:", *result.failures, result.conditions)) + "\n")
            if result.failures or len(results) % _PROGRESS_EVERY == 0:
                sys.stdout.write(_summary(results, time.monotonic() - began) + "\n")
                sys.stdout.flush()
    sys.stdout.write(_summary(results, time.monotonic() - began) + "\n")
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description="Prove fubd's promises over simulated days.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many accounts (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--days", type=float, default=10.0, help="simulated days of each (default 10)")
    args = parser.parse_args()
    sys.exit(_run(args.first, args.seeds, args.days))
