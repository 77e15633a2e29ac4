"""`python -m fubd audit`: compares every person's stage in Follow Up Boss with the database."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from datetime import tzinfo
from random import SystemRandom

from fubd.commands.comparison import Comparison, ComparisonResult
from fubd.commands.console import Console
from fubd.commands.eta import with_seconds_left
from fubd.commands.recording import open_components, run_ingest
from fubd.commands.session import load_settings
from fubd.commands.signals import run_until_stopped, stop_on_signals
from fubd.components import Components
from fubd.core.text import format_count, format_duration, format_instant, format_ratio
from fubd.errors import Stopped, Unavailable
from fubd.ports import Ingestor
from fubd.settings import FOR_FUB, Settings

_LISTED = 50


def run(args: argparse.Namespace) -> int:
    """Compare; 0 when the share of people whose stage matches is at or above `--min`, 1 below, or where somebody cannot be compared."""
    settings = load_settings(FOR_FUB)
    return asyncio.run(_audit(settings, args, Console()))


async def _audit(settings: Settings, args: argparse.Namespace, console: Console) -> int:
    async with AsyncExitStack() as stack:
        components = await stack.enter_async_context(open_components(settings, migrated=args.fix))
        stop = stop_on_signals(only_first=True)
        ingestor = await stack.enter_async_context(run_ingest(components)) if args.fix else None
        await stack.enter_async_context(components.client)
        stack.enter_context(console.show_warnings())
        account = components.account
        await run_until_stopped(account.verify() if args.fix else account.compare(), stop)
        began = components.clock.monotonic()
        result = await run_until_stopped(_compare(components, args.sample, ingestor, console, stop), stop)
        if result is None:
            raise Stopped("interrupted before the end: there is no result for a part of the account", signal=stop.number)
        seconds = components.clock.monotonic() - began
        if args.json:
            console.print_json(_to_json(result, fixed=args.fix, calls=components.client.calls_made(), seconds=seconds))
        else:
            _print(result, console, settings.zone(), fixed=args.fix, calls=components.client.calls_made(), seconds=seconds)
    return 0 if result.ratio is not None and result.ratio >= args.min and not result.hidden else 1


async def _compare(
    components: Components, sample: int | None, fix: Ingestor | None, console: Console, stop: asyncio.Event
) -> ComparisonResult | None:
    watermark = (await components.state.coverage()).watermark
    with console.show_progress() as show:
        comparison = Comparison(
            components.client,
            components.pool,
            components.clock,
            ignored_stages=components.settings.ignore_stages,
            watermark=watermark,
            fix=fix,
            on_progress=with_seconds_left(show, components),
            stop=stop,
        )
        try:
            return await (comparison.compare_all() if sample is None else comparison.compare_sample(sample, SystemRandom().randint))
        except Unavailable:
            if stop.is_set():
                return None
            raise


def _print(result: ComparisonResult, console: Console, zone: tzinfo, *, fixed: bool, calls: int, seconds: float) -> None:
    if result.listed:
        console.print_table(
            ("person", "mismatch", "here", "in Follow Up Boss", "updated there"),
            [
                (one.person_id, one.kind, one.here or "-", one.there or "-", format_instant(one.updated, zone))
                for one in result.listed[:_LISTED]
            ],
        )
        if result.mismatched > _LISTED:
            console.print(f"and {format_count(result.mismatched - _LISTED, 'other')}")
        console.print()
    for number, what in (
        (result.changing, f"changed during the audit and were not compared{', only recorded' if fixed else ''}"),
        (result.unconfirmed, "known here were not on any list, and not read one by one"),
        (result.hidden, "known here were not found with this key, which is not the owner's and sees only some of the people"),
        (result.unreadable, "could not be read: Follow Up Boss sent nothing usable"),
    ):
        if number:
            console.print(f"{format_count(number, 'person')} {what}")
    for kind, number in sorted(result.counts.items()):
        console.print(f"{kind}: {format_count(number, 'person')}")
    if fixed and result.mismatched:
        console.print(f"recorded now: {result.recorded:,} of {format_count(result.mismatched, 'person')}")
    if fixed and (remaining := result.mismatched - result.recorded):
        console.print_wrapped(
            f"still different: {format_count(remaining, 'person')}. A webhook reported another stage, after the last edit "
            "that Follow Up Boss shows; `python -m fubd explain PERSON` has the evidence"
        )
    console.print(f"read with {format_count(calls, 'call')} in {format_duration(round(seconds, 1))}")
    if result.ratio is None:
        console.print("nothing was compared: Follow Up Boss lists nobody whose stage can be read", "bold red")
        return
    compared = format_count(result.compared, "person")
    style = "bold yellow" if result.mismatched else "bold green"
    console.print(f"completeness {format_ratio(result.ratio)}: {result.matched:,} of {compared} as in Follow Up Boss", style)


def _to_json(result: ComparisonResult, *, fixed: bool, calls: int, seconds: float) -> dict[str, object]:
    return {
        "completeness": result.ratio,
        "people": result.compared,
        "matched": result.matched,
        "different": result.mismatched,
        "kinds": {kind.value: number for kind, number in sorted(result.counts.items())},
        "differences": [
            {"person_id": one.person_id, "kind": one.kind, "here": one.here, "there": one.there, "updated": one.updated}
            for one in result.listed
        ],
        "changed_during_audit": result.changing,
        "unconfirmed": result.unconfirmed,
        "hidden": result.hidden,
        "unreadable": result.unreadable,
        "fixed": fixed,
        "recorded": result.recorded,
        "api_calls": calls,
        "seconds": round(seconds, 3),
    }
