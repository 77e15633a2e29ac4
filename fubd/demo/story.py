"""The story: a busy stretch, webhooks that fail silently, polling that takes over, and the recovery.

It changes the account and waits for the daemon's reaction: by conditions with a deadline, never by guessing how long something takes.
The seed is fixed. No person takes part in two actions, so each action knows the stages of its people.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fubd.demo.environment import SEED, DemoEnvironment
from fubd.demo.observer import DaemonObserver
from fubd.demo.plan import DemoPlan
from fubd.demo.view import Narrator
from fubd.simulator import Account, TrueChange
from fubd.simulator.rng import Rng

_CHECK_SECONDS = 0.05
_ANSWER_SECONDS = 10.0
_BASELINE_SECONDS = 60.0
# From the first missed change to failover: a poll interval, FUBD_MISSED_AFTER, and a reserve for a slow machine.
_NOTICE_SECONDS = 25.0
_RECOVERY_SECONDS = 40.0
_CATCH_UP_SECONDS = 20.0
_SETTLE_SECONDS = 30.0
_MOVES_PER_SECOND = 6.0
_MOVES_PER_SECOND_LATER = 3.0
# More than there is time for, so that the everyday moves never run out.
_MAX_MOVES = 400


@dataclass(frozen=True, slots=True)
class TimedAction:
    """An action that starts at a fraction (0 to 1) of its act's length."""

    at: float
    play: Callable[[], Awaitable[None] | None]


class PeoplePool:
    """Hands out each person once, in a fixed random order; people of the same name last, as on the screen they would look like one."""

    def __init__(self, account: Account, rng: Rng) -> None:
        self._account = account
        self._rng = rng
        shuffled = rng.sample(account.ids, len(account.ids))
        first_of_name = {str(account.person(person_id, full=False)["name"]): person_id for person_id in shuffled}
        unique = set(first_of_name.values())
        self._people = sorted(shuffled, key=lambda person_id: person_id in unique)
        self._stages = [stage.name for stage in account.stages if stage.name != "Trash"]

    def take(self, count: int, *, not_in: str | None = None) -> list[int]:
        """Return people who were in no action yet and are not in the stage `not_in`."""
        taken: list[int] = []
        skipped: list[int] = []
        while len(taken) < count and self._people:
            person_id = self._people.pop()
            (skipped if self._account.stage_of(person_id) == not_in else taken).append(person_id)
        self._people += skipped
        return taken

    def other_stage(self, *stages: str) -> str:
        """Return a random stage that is none of these."""
        return self._rng.choice([name for name in self._stages if name not in stages])


class DemoStory:
    """Plays the story on the environment, narrates it, and waits for what `observer` sees."""

    def __init__(self, environment: DemoEnvironment, observer: DaemonObserver, plan: DemoPlan, narrator: Narrator) -> None:
        self._account = environment.account
        self._simulator = environment.simulator
        self._observer = observer
        self._plan = plan
        self._narrator = narrator
        self._pool = PeoplePool(environment.account, Rng(SEED))

    async def play(self) -> None:
        """Play all acts."""
        await self._baseline()
        await self._busy()
        await self._dark()
        await self._back()
        await self._quiet()

    # --- the acts -----------------------------------------------------------------------------------------------------

    async def _baseline(self) -> None:
        people = len(self._account)
        self._narrator.start_act(
            1, "The starting point", f"The account has {people:,} people. fubd reads each of them once: this is their starting point."
        )
        covered = await self._wait_until(
            lambda: self._observer.known is not None and self._observer.known.coverage is not None, _BASELINE_SECONDS
        )
        known = self._observer.known
        if covered and known is not None:
            calls = sum(count for (_, endpoint, _), count in self._simulator.calls.items() if endpoint == "people")
            self._narrator.say(f"{known.people:,} people read in {calls} API calls; from now on every stage change becomes a row")
        await self._wait_until(lambda: self._observer.mode not in {"", "starting"}, _ANSWER_SECONDS)

    async def _busy(self) -> None:
        about = "Webhooks report every change within milliseconds; an occasional poll confirms them."
        self._narrator.start_act(2, "A busy stretch", about)
        seconds = self._plan.busy_seconds
        actions = (
            TimedAction(0.05, self._back_and_forth),
            TimedAction(0.20, self._within_one_second),
            TimedAction(0.34, lambda: self._bulk(50)),
            TimedAction(0.44, self._new_leads),
            TimedAction(0.56, self._delivered_twice),
            TimedAction(0.66, self._out_of_order),
            TimedAction(0.84, lambda: self._bulk(250)),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._everyday(round(seconds * _MOVES_PER_SECOND), _MOVES_PER_SECOND))
            for action in actions:
                group.create_task(_run_at(action, seconds))
        await self._wait_until(lambda: self._observer.recorded >= self._observer.happened, _ANSWER_SECONDS)
        self._narrator.say(f"{self._observer.happened} changes have happened so far, {self._observer.recorded} are recorded")

    async def _dark(self) -> None:
        self._narrator.start_act(
            3,
            "The webhooks fail",
            "fubd has to notice this by itself. Polling sees the current stage of each person, not those in between: two moves between two "
            "polls look like one. So in this act no person moves twice.",
        )
        before = self._observer.happened
        since = self._narrator.seconds
        self._simulator.deliveries.kill()
        self._narrator.say("no webhook arrives any more: no error message, just silence")
        async with self._everyday_life():
            noticed = await self._wait_until(lambda: self._observer.mode == "failover", _NOTICE_SECONDS)
            if noticed:
                self._narrator.say(
                    f"noticed after {self._narrator.seconds - since:.0f} s: a poll found changes that no webhook had reported"
                )
            self._narrator.say("polling does not know the exact time of a change, only the latest possible one: it is shown with a ≤")
            self._bulk(40)
            self._lead("lead_flow")
            trashed = self._pool.take(1, not_in="Trash")[0]
            self._account.trash(trashed)
            self._narrator.say(f"{self._name(trashed)} moves to Trash, which lists hide by default")
            await asyncio.sleep(self._plan.dark_seconds)
        await self._wait_until(lambda: self._observer.recorded >= self._observer.happened, _CATCH_UP_SECONDS)
        dark, left = self._observer.happened - before, self._observer.happened - self._observer.recorded
        self._narrator.say(
            f"{dark} changes without webhooks, {dark - left} found by polling" + (": nothing is missing" if left <= 0 else "")
        )

    async def _back(self) -> None:
        about = "Polling slows down step by step, as long as it finds nothing that webhooks missed."
        self._narrator.start_act(4, "The webhooks come back", about)
        self._simulator.deliveries.revive()
        async with self._everyday_life():
            await self._back_and_forth()
            await self._wait_until(lambda: self._observer.mode in {"recovering", "steady"}, _RECOVERY_SECONDS)
            await self._wait_until(lambda: self._observer.mode == "steady", _RECOVERY_SECONDS)
            await asyncio.sleep(self._plan.calm_seconds)

    async def _quiet(self) -> None:
        self._narrator.start_act(
            5, "The check", "Nothing happens any more. After one last poll the table is compared with what really happened."
        )
        settled = await self._wait_until(self._settled, _SETTLE_SECONDS)
        self._narrator.say("everything is recorded" if settled else "not everything is recorded yet; the score covers what is there")

    def _settled(self) -> bool:
        """Return whether all webhooks are delivered, all refetches done, and a complete poll began after the last change."""
        known, changes = self._observer.known, self._simulator.truth.changes
        if known is None or known.coverage is None or known.pending_refetches or self._simulator.deliveries.pending:
            return False
        # Coverage stays behind the start of a poll by the overlap.
        polled = not changes or (known.coverage - changes[-1].at).total_seconds() + self._plan.overlap_seconds > 0
        return polled and self._observer.recorded >= self._observer.happened

    # --- the actions --------------------------------------------------------------------------------------------------

    async def _back_and_forth(self) -> None:
        """Move some people A, B, A, B within seconds: every entry is real, none is a repetition."""
        people = self._pool.take(4)
        stages = [self._account.stage_of(person_id) for person_id in people]
        others = [self._pool.other_stage(stage) for stage in stages]
        self._narrator.say(f"{self._name(people[0])} and three others move back and forth: {others[0]}, {stages[0]}, {others[0]}")
        for turn in (others, stages, others):
            await self._wait_delivered(self._move(zip(people, turn, strict=True)))
            await asyncio.sleep(self._plan.pace)

    async def _within_one_second(self) -> None:
        """Move some people four times within one second, each move delivered before the next; events are dated in whole seconds."""
        people = self._pool.take(3)
        await self._next_second()
        for person_id in people:
            for _ in range(4):
                await self._wait_delivered(self._move_on([person_id]))
        self._narrator.say(f"{self._name(people[0])} and two others pass through four stages within one second")

    def _bulk(self, count: int) -> None:
        stage = self._pool.other_stage()
        moved = self._account.bulk_move(self._pool.take(count, not_in=stage), stage, actor="Adam Deskwell")
        self._narrator.say(f"a bulk edit moves {moved} people to {stage} at once")

    def _new_leads(self) -> None:
        names = [self._lead(via) for via in ("lead_flow", "lead_flow", "api")]
        self._narrator.say(f"new leads: {', '.join(names)}")

    def _lead(self, via: str) -> str:
        """Create a person and return the name. Creation sends no stage, so fubd has to read the person."""
        return self._name(self._account.create(via=via))

    def _delivered_twice(self) -> None:
        people = self._pool.take(3)
        for person_id in people:
            self._simulator.script_deliveries("duplicate")
            self._move_on([person_id])
        self._narrator.say(f"the webhooks of {self._name(people[0])} and two others are delivered twice")

    async def _out_of_order(self) -> None:
        """Hold the webhooks of a first move until those of a second one have arrived."""
        people = self._pool.take(4)
        await self._next_second()
        for person_id in people:
            self._simulator.script_deliveries("stalled")
            self._move_on([person_id])
        await self._next_second()
        await self._wait_delivered(self._move_on(people))
        self._simulator.deliveries.release()
        self._narrator.say(f"{self._name(people[0])} and three others move twice; the webhook of the second move arrives first")

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _move(self, moves: Iterable[tuple[int, str]]) -> list[TrueChange]:
        """Move each person into a stage and return the changes."""
        changes = self._simulator.truth.changes
        before = len(changes)
        for person_id, stage in moves:
            self._account.move(person_id, stage)
        return changes[before:]

    def _move_on(self, people: Sequence[int]) -> list[TrueChange]:
        """Move each person into a random other stage and return the changes."""
        return self._move([(person_id, self._pool.other_stage(self._account.stage_of(person_id))) for person_id in people])

    async def _wait_delivered(self, changes: Sequence[TrueChange]) -> None:
        """Wait until the webhooks of these changes are answered, so that the daemon receives the next ones later."""
        sightings = self._simulator.sightings
        await self._wait_until(lambda: all(sightings.of(change).delivered_at is not None for change in changes), _ANSWER_SECONDS)

    @asynccontextmanager
    async def _everyday_life(self) -> AsyncIterator[None]:
        """Move a person now and then as long as the block lasts."""
        moving = asyncio.create_task(self._everyday(_MAX_MOVES, _MOVES_PER_SECOND_LATER))
        try:
            yield
        finally:
            moving.cancel()
            await asyncio.wait({moving})

    async def _everyday(self, moves: int, per_second: float) -> None:
        for person_id in self._pool.take(moves):
            self._move_on([person_id])
            await asyncio.sleep(1 / per_second)

    async def _next_second(self) -> None:
        await asyncio.sleep(1.0 - self._account.clock.now().microsecond / 1e6)

    async def _wait_until(self, condition: Callable[[], bool], within_seconds: float) -> bool:
        """Wait until the condition holds; return False if it does not in time."""
        deadline = time.monotonic() + within_seconds
        while not condition():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_CHECK_SECONDS)
        return True

    def _name(self, person_id: int) -> str:
        return str(self._account.person(person_id)["name"])


async def _run_at(action: TimedAction, act_seconds: float) -> None:
    await asyncio.sleep(action.at * act_seconds)
    playing = action.play()
    if playing is not None:
        await playing
