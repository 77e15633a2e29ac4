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

from fubd.demo import score_report
from fubd.demo.environment import demo_environment
from fubd.demo.observer import DaemonObserver
from fubd.demo.plan import DemoPlan, make_plan
from fubd.demo.screen import DemoScreen, choose_screen
from fubd.demo.story import Story
from fubd.demo.view import DemoView, Narrator
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
    plan, narrator = make_plan(args.seconds), Narrator()
    if args.seconds is not None and args.seconds != plan.story_seconds:
        narrator.say(f"the story cannot be told in {args.seconds:g} s; it takes {plan.story_seconds:g}")
    screen = choose_screen(sys.stdout, narrator)
    try:
        with _warnings_as_narration(narrator), screen:
            found = asyncio.run(_until_interrupted(_play(plan, narrator, screen)))
    except SettingsError:
        sys.stderr.write("fubd: the demo brings its own Postgres, which is not installed: pip install 'fubd[embedded]'\n")
        return _BAD_CONFIGURATION
    if found is None:
        raise KeyboardInterrupt
    screen.show_score(found)
    return score_report.exit_code(found)


async def _play(plan: DemoPlan, narrator: Narrator, screen: DemoScreen) -> Score:
    narrator.say("starting a Postgres, a simulated Follow Up Boss account, and fubd between them")
    await asyncio.to_thread(screen.draw, DemoView(narrator.seconds, plan.story_seconds))
    async with demo_environment(plan) as environment:
        narrator.say(f"status page, as long as the story lasts: {environment.url}")
        observer = DaemonObserver(environment, plan, narrator, screen.draw)
        story = asyncio.create_task(Story(environment, observer, plan, narrator).play())
        # The daemon and the observer only end by a mistake, which is then raised here.
        tasks = {story, asyncio.create_task(observer.run()), environment.running}
        try:
            done, _ = await asyncio.wait(tasks, timeout=plan.latest_seconds - narrator.seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not done:
                narrator.say("the time is over before the story is; the score is of what there is")
        finally:
            await _cancelled(tasks - {environment.running})
        # What is said while everything stops belongs to no story.
        narrator.is_over = True
        await observer.refresh()
        await asyncio.to_thread(screen.draw, observer.view())
        return score(environment.simulator.truth, await environment.rows(), sightings=environment.simulator.sightings)


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
def _warnings_as_narration(narrator: Narrator) -> Iterator[None]:
    """Let warnings be part of the story, and nothing else be logged."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [_WarningHandler(narrator)]
    try:
        yield
    finally:
        root.handlers[:] = before


class _WarningHandler(logging.Handler):
    def __init__(self, narrator: Narrator) -> None:
        super().__init__(logging.WARNING)
        self._narrator = narrator

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._narrator.say(f"{record.levelname.lower()}: {record.getMessage()}")
