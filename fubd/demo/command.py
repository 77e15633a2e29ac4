"""`python -m fubd demo`: a scripted story on a simulated account in about a minute, then a score against the ground truth."""

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
from fubd.demo.environment import DemoEnvironment, demo_environment
from fubd.demo.observer import DaemonObserver
from fubd.demo.plan import DemoPlan, make_plan
from fubd.demo.screen import DemoScreen, choose_screen
from fubd.demo.story import DemoStory
from fubd.demo.view import DemoView, Narrator
from fubd.settings import SettingsError
from fubd.simulator import Score, score

_BAD_CONFIGURATION = 2


def run(args: argparse.Namespace) -> int:
    """Run the demo and return 0 if no row is lost, doubled, invented or wrong. `args.seconds` is its length, None for the default.

    Raises Unavailable when the embedded Postgres does not start, KeyboardInterrupt after Ctrl-C, once everything has stopped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal cannot encode must not end the demo.
        sys.stdout.reconfigure(errors="replace")
    plan, narrator = make_plan(args.seconds), Narrator()
    if args.seconds is not None and args.seconds != plan.story_seconds:
        narrator.say(f"the demo cannot run in {args.seconds:g} s; this run takes about {plan.story_seconds:g} s")
    screen = choose_screen(sys.stdout, narrator)
    try:
        with _warnings_as_narration(narrator), screen:
            result = asyncio.run(_until_interrupted(_play(plan, narrator, screen, stay=args.stay)))
    except SettingsError:
        sys.stderr.write("fubd: the demo brings its own Postgres, which is not installed: pip install 'fubd[embedded]'\n")
        return _BAD_CONFIGURATION
    if result is None:
        raise KeyboardInterrupt
    screen.show_score(result)
    return score_report.exit_code(result)


async def _play(plan: DemoPlan, narrator: Narrator, screen: DemoScreen, *, stay: bool) -> Score:
    narrator.say("starting a temporary Postgres, a simulated Follow Up Boss account, and fubd")
    await asyncio.to_thread(screen.draw, DemoView(narrator.seconds, plan.story_seconds))
    async with demo_environment(plan) as environment:
        narrator.say(f"status page while the demo runs: {environment.url}")
        observer = DaemonObserver(environment, plan, narrator, screen.draw)
        story = asyncio.create_task(DemoStory(environment, observer, plan, narrator).play())
        # The daemon and the observer end early only by an error, which is raised here.
        tasks = {story, asyncio.create_task(observer.run()), environment.running}
        try:
            done, _ = await asyncio.wait(tasks, timeout=plan.latest_seconds - narrator.seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not done:
                narrator.say("the time ran out before the story ended; the score covers what happened until now")
        finally:
            await _cancelled(tasks - {environment.running})
        # Messages during the shutdown are not part of the story.
        narrator.is_over = not stay
        await observer.refresh()
        result = score(environment.simulator.truth, await environment.rows(), sightings=environment.simulator.sightings)
        if stay:
            narrator.say(f"the account, the daemon and the page stay until Ctrl-C, which shows the score: {environment.url}")
            narrator.is_over = True
        await asyncio.to_thread(screen.draw, observer.view())
        if stay:
            await _until_ctrl_c(environment)
        return result


async def _until_ctrl_c(environment: DemoEnvironment) -> None:
    """Keep the account, the daemon and the page alive. The account stands still, so the score stays what it is."""
    try:
        # The daemon ends early only by an error.
        await asyncio.wait({environment.running})
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until_interrupted(playing: Coroutine[Any, Any, Score]) -> Score | None:
    """Return the score, or None after Ctrl-C. Only the first Ctrl-C counts, so that a second one cannot interrupt the clean-up."""
    task = asyncio.ensure_future(playing)
    interrupts: list[int] = []

    def interrupt() -> None:
        if not interrupts:
            task.cancel()
        interrupts.append(signal.SIGINT)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if not interrupts:
            raise
        return None
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def _warnings_as_narration(narrator: Narrator) -> Iterator[None]:
    """Show log warnings as narration, and discard all other log records."""
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
