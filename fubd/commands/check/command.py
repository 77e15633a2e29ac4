"""`python -m fubd check`: examine everything that fubd needs, one line each, and tell how to put right what is wrong. Changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import logging

from rich.console import Console
from rich.text import Text

from fubd.commands.check.account import REGISTER, examine_account
from fubd.commands.check.database import examine_database
from fubd.commands.check.finding import Finding, Status
from fubd.commands.check.public import examine_public_url
from fubd.commands.console import Screen, plain
from fubd.commands.session import configured
from fubd.core.text import format_count
from fubd.settings import FOR_FUB, Settings


def run(args: argparse.Namespace) -> int:
    """Examine; 0 when all is good, 1 when something is to be put right."""
    settings = configured(FOR_FUB)
    # What the parts would log is what the lines say.
    logging.getLogger("fubd").addHandler(logging.NullHandler())
    findings = asyncio.run(examined(settings))
    _show(findings, Screen(), as_json=args.json)
    return 0 if _is_good(findings) else 1


async def examined(settings: Settings) -> list[Finding]:
    """Examine everything, side by side where it can be; in the order of the lines."""
    components = (examine_database(settings), examine_account(settings), examine_public_url(settings))
    return [_configuration(settings), *(finding for part in await asyncio.gather(*components) for finding in part)]


def _is_good(findings: list[Finding]) -> bool:
    return all(finding.status in {Status.GOOD, Status.NOTE} for finding in findings)


def _configuration(settings: Settings) -> Finding:
    if settings.fub_system_key is None:
        return Finding("configuration", Status.FIX, "FUB_SYSTEM_KEY is not set, and the daemon does not start without it", REGISTER)
    return Finding("configuration", Status.GOOD, "every variable that is set can be used, and none is missing")


_MARKS = {Status.GOOD: ("✓", "green"), Status.NOTE: ("•", "cyan"), Status.FIX: ("✗", "bold red"), Status.UNKNOWN: ("?", "yellow")}


def _show(findings: list[Finding], screen: Screen, *, as_json: bool) -> None:
    if as_json:
        checks = [{"name": one.name, "status": one.status.value, "found": one.found, "fix": one.fix or None} for one in findings]
        screen.json({"good": _is_good(findings), "checks": checks})
        return
    width = max(len(finding.name) for finding in findings)
    if screen.terminal:
        _draw(findings, width)
    else:
        for one in findings:
            screen.say(f"{one.status:<7} {one.name:<{width}}  {one.found}{f' -> {one.fix}' if one.fix else ''}")
    wrong, unseen = (sum(finding.status is status for finding in findings) for status in (Status.FIX, Status.UNKNOWN))
    if _is_good(findings):
        screen.say("All good.", "bold green")
    else:
        screen.say(f"{format_count(wrong, 'thing')} to put right" + (f", {unseen} not examined." if unseen else "."), "bold red")


def _draw(findings: list[Finding], width: int) -> None:
    """Draw it for a terminal: a mark, and what to do on a line of its own, which is not broken so that it can be copied."""
    console = Console(highlight=False, markup=False, emoji=False)
    for one in findings:
        mark, style = _MARKS[one.status]
        console.print(Text.assemble((mark, style), " ", (f"{one.name:<{width}}", "bold"), "  ", plain(one.found)), soft_wrap=True)
        if one.fix:
            console.print(Text.assemble(" " * (width + 4), ("→ ", style), (plain(one.fix), "cyan")), soft_wrap=True)
