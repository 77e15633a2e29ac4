"""`python -m fubd demo`: the whole story in about a minute, on a simulated account, and at the end a score against what really happened."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import signal
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

from typing_extensions import override

from fubd.demo import verdict
from fubd.demo.plan import Plan, planned
from fubd.demo.story import Story
from fubd.demo.terminal import Screen, screen_for
from fubd.demo.view import Teller, View
from fubd.demo.watch import Watch
from fubd.demo.world import world
from fubd.settings import SettingsError
from fubd.simulator import Score, score

_BAD_CONFIGURATION = 2


def run(args: argparse.Namespace) -> int:
    """Show the demo; 0 when nothing was lost, doubled, invented or wrong. `args.seconds`: how long, None for the usual length.

    Raises Unavailable when the embedded Postgres does not start, KeyboardInterrupt once it has ended after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An arrow that the terminal's encoding does not know must not end the story.
        sys.stdout.reconfigure(errors="replace")
    plan, teller = planned(args.seconds), Teller()
    if args.seconds is not None and args.seconds != plan.story_seconds:
        teller.say(f"the story cannot be told in {args.seconds:g} s; it takes {plan.story_seconds:g}")
    screen = screen_for(sys.stdout, teller)
    try:
        with _heard(teller), screen:
            found = asyncio.run(_until_interrupted(_play(plan, teller, screen)))
    except SettingsError:
        sys.stderr.write("fubd: the demo brings its own Postgres, which is not installed: pip install 'fubd[embedded]'\n")
        return _BAD_CONFIGURATION
    if found is None:
        raise KeyboardInterrupt
    screen.end(found)
    return verdict.exit_code(found)


async def _play(plan: Plan, teller: Teller, screen: Screen) -> Score:
    teller.say("starting a Postgres, a simulated Follow Up Boss account, and fubd between them")
    await asyncio.to_thread(screen.draw, View(teller.seconds, plan.story_seconds))
    async with world(plan) as made:
        teller.say(f"status page, as long as the story lasts: {made.url}")
        watch = Watch(made, plan, teller, screen.draw)
        story = asyncio.create_task(Story(made, watch, plan, teller).play())
        # The daemon and the watch only end by a mistake, which is then raised here.
        tasks = {story, asyncio.create_task(watch.run()), made.running}
        try:
            done, _ = await asyncio.wait(tasks, timeout=plan.latest_seconds - teller.seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not done:
                teller.say("the time is over before the story is; the score is of what there is")
        finally:
            await _cancelled(tasks - {made.running})
        # What is said while everything stops belongs to no story.
        teller.over = True
        await watch.look()
        await asyncio.to_thread(screen.draw, watch.view())
        return score(made.simulator.truth, await made.rows(), seen=made.simulator.seen)


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until_interrupted(playing: Coroutine[Any, Any, Score]) -> Score | None:
    """Give the score; None after Ctrl-C, of which the first ends the story and the others do not disturb the clearing up."""
    task = asyncio.ensure_future(playing)
    came: list[int] = []

    def interrupt() -> None:
        if not came:
            task.cancel()
        came.append(signal.SIGINT)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if not came:
            raise
        return None
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def _heard(teller: Teller) -> Iterator[None]:
    """Let warnings be part of the story, and nothing else be logged."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [_Warnings(teller)]
    try:
        yield
    finally:
        root.handlers[:] = before


class _Warnings(logging.Handler):
    def __init__(self, teller: Teller) -> None:
        super().__init__(logging.WARNING)
        self._teller = teller

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._teller.say(f"{record.levelname.lower()}: {record.getMessage()}")
