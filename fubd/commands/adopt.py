"""`python -m fubd adopt`: takes over a stage_changes table made by the older scripts, or with `--undo` gives it back."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial

from fubd.commands.console import Console
from fubd.commands.question import confirm
from fubd.commands.session import database, load_settings
from fubd.core.text import format_count
from fubd.settings import Settings
from fubd.store import Pool, adoption
from fubd.store.adoption import AdoptionPlan, AdoptionRefused

_NOTHING_TO_DO = {
    "missing": "this database has no table public.stage_changes: nothing to adopt. The daemon creates its own when it first starts.",
    "own": "public.stage_changes was made by fubd itself: nothing to adopt.",
    "adopted": "public.stage_changes is already adopted: nothing to do. `python -m fubd adopt --undo` gives it back.",
}
_DIGITS_SHOWN = 16
_PEOPLE_SHOWN = 100

_Ask = Callable[[str], bool]


def run(args: argparse.Namespace) -> int:
    """Adopt the table, or with `--undo` give it back; 0 when that is done or there is nothing to do, 1 when not."""
    settings = load_settings()
    console = Console()
    return asyncio.run(_run(settings, console, partial(confirm, console, assume_yes=args.yes), undo=args.undo))


async def _run(settings: Settings, console: Console, ask: _Ask, *, undo: bool) -> int:
    async with AsyncExitStack() as stack:
        pool = Pool(await stack.enter_async_context(database(settings)), size=1)
        stack.push_async_callback(pool.close)
        state = await adoption.table_state(pool)
        if undo and state != "adopted":
            raise AdoptionRefused("public.stage_changes was not adopted in this database: nothing to give back")
        if undo:
            return await _undo(pool, console, ask)
        plan = await adoption.plan_adoption(pool, settings.columns) if state == "older" else None
        if plan is None:
            console.print_wrapped(_NOTHING_TO_DO.get(state, _NOTHING_TO_DO["adopted"]))
            return 0
        return await _adopt(pool, settings, plan, console, ask)


async def _adopt(pool: Pool, settings: Settings, plan: AdoptionPlan, console: Console, ask: _Ask) -> int:
    _print_plan(plan, console)
    if plan.obstacles or not ask("Continue?"):
        return 1
    result = await adoption.adopt(pool, settings.columns, plan=plan, on_step=console.print_notice)
    console.print()
    console.print_wrapped("The proof, over all columns that the table had:", "bold")
    for name, fingerprint in (("before", result.before), ("the copy", result.copy), ("after", result.after)):
        console.print(f"  {name:<8}  {fingerprint.rows:,} rows, sha256 {fingerprint.digest[:_DIGITS_SHOWN]}")
    console.print_wrapped(f"Adopted: {format_count(result.after.rows, 'row')}, none lost, none changed.", "bold green")
    console.print_wrapped(
        f"The copy stays in {adoption.BACKUP} until {_copy_until(settings)} (FUBD_KEEP_ADOPTION_COPY_DAYS); then the daemon drops it."
        " To go back, with the copy or without it, until fubd has recorded a change: adopt --undo"
    )
    return 0


def _copy_until(settings: Settings) -> str:
    until = datetime.now(settings.zone()) + timedelta(days=settings.keep_adoption_copy_days)
    return f"{until:%Y-%m-%d}"


async def _undo(pool: Pool, console: Console, ask: _Ask) -> int:
    console.print_wrapped("This gives back public.stage_changes as it was, and removes the schema fubd with everything in it.", "bold")
    if people := await adoption.forgotten_people(pool):
        shown = ", ".join(map(str, people[:_PEOPLE_SHOWN])) + (", …" if len(people) > _PEOPLE_SHOWN else "")
        console.print_wrapped(
            f"The table stays without the names of {format_count(len(people), 'person')} that `fubd forget` removed (id {shown}), but fubd"
            " no longer keeps them out: delete them in Follow Up Boss, and forget them again after another adoption.",
            "yellow",
        )
    if not ask("Continue?"):
        return 1
    result = await adoption.undo(pool, on_step=console.print_notice)
    console.print_wrapped(f"  before  {result.before.rows:,} rows, sha256 {result.before.digest[:_DIGITS_SHOWN]}")
    console.print_wrapped(f"  after   {result.after.rows:,} rows, sha256 {result.after.digest[:_DIGITS_SHOWN]}")
    since = "as on the day it was adopted" if result.is_unchanged else "with what `fubd forget` and other programs have changed since"
    console.print_wrapped(f"Given back: {format_count(result.after.rows, 'row')}, {since}.", "bold green")
    return 0


def _print_plan(plan: AdoptionPlan, console: Console) -> None:
    console.print_wrapped(
        f"public.stage_changes has {format_count(plan.rows, 'row')} in {format_count(len(plan.columns), 'column')}.", "bold"
    )
    console.print_wrapped("No existing row is changed, and no existing column's type or name.")
    console.print()
    if plan.obstacles:
        console.print_wrapped("It cannot be adopted as it is:", "bold red")
        for number, obstacle in enumerate(plan.obstacles, 1):
            console.print_wrapped(f"{number}. {obstacle.reason}", "red")
            for line in f"{obstacle.statement};".splitlines():
                console.print(f"   {line}")
        console.print_wrapped("Nothing was changed. Run these statements, then run adopt again.")
        return
    console.print_wrapped(
        "The plan, in one transaction. Others can read the table except in its last part, and write to it afterwards:", "bold"
    )
    steps = (
        f"copy the table ({plan.size}) to {adoption.BACKUP}, and compare the copy",
        *(step.description for step in plan.steps),
        "create the schema fubd, and fubd's views in public",
        "try what the daemon will do, and roll that back",
        "prove by count and hash that no row was lost or changed",
    )
    for number, step in enumerate(steps, 1):
        console.print_wrapped(f"{number}. {step}")
    for note in plan.notes:
        console.print_wrapped(f"Note: {note}.", "yellow")
    console.print()
