"""`python -m fubd check`: checks everything that fubd needs, and prints one line for each with the fix. Changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence

from fubd.commands.check.account import REGISTER_SYSTEM, check_account
from fubd.commands.check.alerts import check_alerts
from fubd.commands.check.database import check_database
from fubd.commands.check.public import check_public_url
from fubd.commands.check.result import CheckResult, CheckStatus
from fubd.commands.console import Console
from fubd.commands.session import load_settings
from fubd.core.text import format_count
from fubd.settings import FOR_FUB, Settings, UnknownVariable, UnreadableLine, ineffective


def run(args: argparse.Namespace) -> int:
    """Check; 0 when all is good, 1 when there is something to fix."""
    settings = load_settings(FOR_FUB)
    # What the parts would log is in the results.
    logging.getLogger("fubd").addHandler(logging.NullHandler())
    results = asyncio.run(run_checks(settings, send_alert=args.alert))
    if args.json:
        Console().print_json(_to_json(results))
    else:
        _print(results, Console())
    return 0 if _is_good(results) else 1


async def run_checks(
    settings: Settings, *, send_alert: bool = False, without_effect: Sequence[UnknownVariable | UnreadableLine] | None = None
) -> list[CheckResult]:
    """Run all checks at the same time; results in the order of printing. `without_effect`: what sets nothing, None to look now."""
    ignored = ineffective() if without_effect is None else without_effect
    groups = await asyncio.gather(
        check_database(settings), check_account(settings), check_public_url(settings), check_alerts(settings, send=send_alert)
    )
    return [*_check_configuration(settings, ignored), *(result for group in groups for result in group)]


def _is_good(results: list[CheckResult]) -> bool:
    return all(result.status in {CheckStatus.GOOD, CheckStatus.NOTE} for result in results)


def _check_configuration(settings: Settings, ignored: Sequence[UnknownVariable | UnreadableLine]) -> list[CheckResult]:
    name = "configuration"
    results = [_check_ignored(name, one) for one in ignored]
    if settings.fub_system_key is None:
        results.append(
            CheckResult(name, CheckStatus.FIX, "FUB_SYSTEM_KEY is not set; without it the daemon does not start", REGISTER_SYSTEM)
        )
    if not results:
        results.append(CheckResult(name, CheckStatus.GOOD, "all variables that are set are valid, and none is missing"))
    return results


def _check_ignored(name: str, ignored: UnknownVariable | UnreadableLine) -> CheckResult:
    if isinstance(ignored, UnreadableLine):
        invalid = ignored.invalid()
        return CheckResult(name, CheckStatus.FIX, f"{invalid.variable} {invalid.reason}", f"write it as {invalid.accepted}")
    found = f"{ignored.name} is not a setting of fubd and has no effect"
    if ignored.nearest is None:
        return CheckResult(name, CheckStatus.NOTE, found, "remove it, unless another program reads it")
    return CheckResult(name, CheckStatus.FIX, found, f"rename it to {ignored.nearest}, or remove it")


def _to_json(results: list[CheckResult]) -> dict[str, object]:
    checks = [{"name": result.name, "status": result.status.value, "found": result.found, "fix": result.fix or None} for result in results]
    return {"good": _is_good(results), "checks": checks}


_MARKS = {
    CheckStatus.GOOD: (("✓", "+"), "green"),
    CheckStatus.NOTE: (("•", "-"), "cyan"),
    CheckStatus.FIX: (("✗", "x"), "bold red"),
    CheckStatus.UNKNOWN: (("?", "?"), "yellow"),
}


def _print(results: list[CheckResult], console: Console) -> None:
    width = max(len(result.name) for result in results)
    for result in results:
        if console.is_terminal:
            _print_on_terminal(result, width, console)
        else:
            console.print(f"{result.status:<7} {result.name:<{width}}  {result.found}{f' -> {result.fix}' if result.fix else ''}")
    to_fix, unknown = (sum(result.status is status for result in results) for status in (CheckStatus.FIX, CheckStatus.UNKNOWN))
    if _is_good(results):
        console.print("All good.", "bold green")
    else:
        console.print(f"{format_count(to_fix, 'thing')} to fix" + (f", {unknown} not checked." if unknown else "."), "bold red")


def _print_on_terminal(result: CheckResult, width: int, console: Console) -> None:
    """Print a mark and the result, and the fix below it; both are wrapped between words."""
    (mark, plain), style = _MARKS[result.status]
    console.print_hanging(((console.symbol(mark, plain), style), (f" {result.name:<{width}}  ", "bold")), result.found)
    if result.fix:
        console.print_hanging(((" " * (width + 4), ""), (console.symbol("→", ">") + " ", style)), result.fix, "cyan")
