"""`python -m fubd adopt`: take over a stage_changes table that the older scripts made, or give it back."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from fubd.commands.console import Screen
from fubd.commands.session import configured, database
from fubd.core.text import format_count
from fubd.settings import Settings
from fubd.store import Pool, adoption
from fubd.store.adoption import AdoptionPlan, AdoptionRefused

_NOTHING_TO_DO = {
    "missing": "there is no table public.stage_changes in this database: nothing to adopt. The daemon makes its own at its first start.",
    "own": "public.stage_changes was made by fubd itself: nothing to adopt.",
    "adopted": "public.stage_changes has been adopted already: nothing to do. `python -m fubd adopt --undo` gives it back.",
}
_SHOWN_DIGITS = 16


def run(args: argparse.Namespace) -> int:
    """Adopt the table, or with `--undo` give it back; 0 when that is done or there is nothing to do, 1 when not."""
    settings = configured()
    ask = partial(_ask, Screen()) if sys.stdin.isatty() else None
    return asyncio.run(_work(settings, Screen(), undo=args.undo, agreed=args.yes, ask=ask))


async def _work(settings: Settings, screen: Screen, *, undo: bool, agreed: bool, ask: Callable[[str], bool] | None) -> int:
    async with AsyncExitStack() as stack:
        pool = Pool(await stack.enter_async_context(database(settings)), size=1)
        stack.push_async_callback(pool.close)
        state = await adoption.table_state(pool)
        if undo and state != "adopted":
            raise AdoptionRefused("public.stage_changes was not taken over here, so there is nothing to give back")
        if undo:
            return await _undo(pool, screen, agreed=agreed, ask=ask)
        plan = await adoption.plan_adoption(pool, settings.columns) if state == "older" else None
        if plan is None:
            screen.say(_NOTHING_TO_DO.get(state, _NOTHING_TO_DO["adopted"]))
            return 0
        return await _adopt(pool, settings, plan, screen, agreed=agreed, ask=ask)


async def _adopt(
    pool: Pool, settings: Settings, plan: AdoptionPlan, screen: Screen, *, agreed: bool, ask: Callable[[str], bool] | None
) -> int:
    _show(plan, screen)
    if plan.obstacles:
        return 1
    if not _may(screen, "Go ahead?", agreed=agreed, ask=ask):
        return 1
    proof = await adoption.adopt(pool, settings.columns, plan=plan, on_step=screen.note)
    screen.say()
    screen.say("The proof, over every column the table had:", "bold")
    for name, shown in (("before", proof.before), ("the copy", proof.copy), ("after", proof.after)):
        screen.say(f"  {name:<8}  {shown.rows:,} rows, sha256 {shown.digest[:_SHOWN_DIGITS]}")
    screen.say(f"Adopted: {format_count(proof.after.rows, 'row')}, none lost, none changed.", "bold green")
    screen.say(f"The copy stays in {adoption.BACKUP} until you drop it. The way back, until fubd has recorded a change: adopt --undo")
    return 0


async def _undo(pool: Pool, screen: Screen, *, agreed: bool, ask: Callable[[str], bool] | None) -> int:
    screen.say("public.stage_changes is given back as it was, and the schema fubd with all that is in it is removed.", "bold")
    if not _may(screen, "Go ahead?", agreed=agreed, ask=ask):
        return 1
    proof = await adoption.undo(pool, on_step=screen.note)
    screen.say(f"  before  {proof.before.rows:,} rows, sha256 {proof.before.digest[:_SHOWN_DIGITS]}")
    screen.say(f"  after   {proof.after.rows:,} rows, sha256 {proof.after.digest[:_SHOWN_DIGITS]}")
    since = "as on the day it was adopted" if proof.is_unchanged else "with what other writers have added or changed since"
    screen.say(f"Given back: {format_count(proof.after.rows, 'row')}, {since}.", "bold green")
    return 0


def _show(plan: AdoptionPlan, screen: Screen) -> None:
    screen.say(f"public.stage_changes holds {format_count(plan.rows, 'row')} in {format_count(len(plan.columns), 'column')}.", "bold")
    screen.say("No existing row is changed, and no existing column's type or name.")
    if plan.obstacles:
        screen.say()
        screen.say("It cannot be taken over as it is:", "bold red")
        for number, obstacle in enumerate(plan.obstacles, 1):
            screen.say(f"{number}. {obstacle.reason}", "red")
            for line in f"{obstacle.statement};".splitlines():
                screen.say(f"   {line}")
        screen.say("Nothing was changed. Do this, and run adopt again.")
        return
    screen.say()
    screen.say(
        "The plan, all of it in one transaction; others can read the table but for the last part, and write to it after that:", "bold"
    )
    steps = [f"copy the table ({plan.size}) to {adoption.BACKUP}, and compare the copy", *(step.description for step in plan.steps)]
    steps += ["make the schema fubd, and fubd's views in public", "try what the daemon will do, and take that back"]
    steps += ["prove by count and hash that no row was lost or changed"]
    for number, step in enumerate(steps, 1):
        screen.say(f"{number}. {step}")
    for note in plan.notes:
        screen.say(f"Note: {note}.", "yellow")
    screen.say()


def _may(screen: Screen, question: str, *, agreed: bool, ask: Callable[[str], bool] | None) -> bool:
    if agreed:
        return True
    if ask is None:
        screen.note("fubd: nothing was changed: there is nobody to ask here, so say --yes to go ahead")
        return False
    if ask(question):
        return True
    screen.note("fubd: nothing was changed")
    return False


def _ask(screen: Screen, question: str) -> bool:
    screen.note(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
