"""`python -m fubd audit`: whether everybody stands here where they stand in Follow Up Boss."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack

from fubd.commands.comparison import Comparison, Result
from fubd.commands.console import Screen, instant, share, stopping, until_stopped
from fubd.commands.eta import timed
from fubd.commands.session import configured, opened, recording
from fubd.components import Components
from fubd.core.text import format_count, format_duration
from fubd.errors import Unavailable
from fubd.ports import Ingestor
from fubd.settings import FOR_FUB, Settings

_SHOWN = 50


def run(args: argparse.Namespace) -> int:
    """Compare; 0 when the share of people who stand alike is at or above `--min`, 1 below."""
    settings = configured(FOR_FUB)
    return asyncio.run(_audit(settings, args, Screen()))


async def _audit(settings: Settings, args: argparse.Namespace, screen: Screen) -> int:
    stop = stopping()
    async with AsyncExitStack() as stack:
        components = await stack.enter_async_context(opened(settings, writing=args.fix))
        ingestor = await stack.enter_async_context(recording(components)) if args.fix else None
        await stack.enter_async_context(components.client)
        stack.enter_context(screen.warnings())
        began = components.clock.monotonic()
        result = await until_stopped(_compare(components, args.sample, ingestor, screen, stop), stop)
        if result is None:
            raise Unavailable("interrupted: nothing is said of a part of the account")
        seconds = components.clock.monotonic() - began
        if args.json:
            screen.json(_document(result, fixed=args.fix, calls=components.client.calls_made(), seconds=seconds))
        else:
            _show(result, screen, fixed=args.fix, calls=components.client.calls_made(), seconds=seconds)
    return 0 if result.ratio >= args.min else 1


async def _compare(components: Components, sample: int | None, fix: Ingestor | None, screen: Screen, stop: asyncio.Event) -> Result | None:
    covered = (await components.state.coverage()).reached
    with screen.progress() as progress:
        comparison = Comparison(
            components.client,
            components.pool,
            components.clock,
            ignored_stages=components.settings.ignore_stages,
            covered=covered,
            fix=fix,
            progress=timed(progress, components),
            stop=stop,
        )
        try:
            return await (comparison.everybody() if sample is None else comparison.sample(sample))
        except Unavailable:
            if stop.is_set():
                return None
            raise


def _show(result: Result, screen: Screen, *, fixed: bool, calls: int, seconds: float) -> None:
    if result.listed:
        screen.table(
            ("person", "how", "here", "in Follow Up Boss", "updated there"),
            [(one.person_id, one.kind, one.here or "-", one.there or "-", instant(one.updated)) for one in result.listed[:_SHOWN]],
        )
        if result.different > _SHOWN:
            screen.say(f"and {format_count(result.different - _SHOWN, 'other')}")
        screen.say()
    for number, what in (
        (result.moving, "changed while this ran, and are not judged"),
        (result.unconfirmed, "known here were not shown, and not asked for one by one"),
        (result.unreadable, "could not be read: nothing usable was told of them"),
    ):
        if number:
            screen.say(f"{format_count(number, 'person')} {what}")
    for kind, number in sorted(result.counts.items()):
        screen.say(f"{kind}: {format_count(number, 'person')}{', recorded now' if fixed else ''}")
    screen.say(f"read with {format_count(calls, 'call')} in {format_duration(round(seconds, 1))}")
    style = "bold green" if not result.different else "bold yellow"
    screen.say(
        f"completeness {share(result.ratio)}: {result.matched:,} of {format_count(result.judged, 'person')} as in Follow Up Boss", style
    )


def _document(result: Result, *, fixed: bool, calls: int, seconds: float) -> dict[str, object]:
    return {
        "completeness": result.ratio,
        "people": result.judged,
        "matched": result.matched,
        "different": result.different,
        "kinds": {kind.value: number for kind, number in sorted(result.counts.items())},
        "differences": [
            {"person_id": one.person_id, "kind": one.kind, "here": one.here, "there": one.there, "updated": one.updated}
            for one in result.listed
        ],
        "changed_meanwhile": result.moving,
        "unconfirmed": result.unconfirmed,
        "unreadable": result.unreadable,
        "fixed": fixed,
        "api_calls": calls,
        "seconds": round(seconds, 3),
    }
