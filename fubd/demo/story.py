"""The script: a busy stretch, webhooks that die without a word, polling that takes over, and the way back.

It decides what happens in the account and waits for what the daemon makes of it by conditions, each with a deadline, never by a guess of
how long something takes. What happens is drawn from a fixed seed. Nobody is in two actions, so each action knows what its people may do.
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

_GLANCE_SECONDS = 0.05
_ANSWER_SECONDS = 10.0
_BASELINE_SECONDS = 60.0
# From the first change that webhooks miss to failover: a poll interval, the time that makes it a miss, and room for a slow machine.
_NOTICE_SECONDS = 25.0
_RECOVERY_SECONDS = 40.0
_CATCH_UP_SECONDS = 20.0
_SETTLE_SECONDS = 30.0
_MOVES_PER_SECOND = 6.0
_MOVES_PER_SECOND_LATER = 3.0
# More than there is time for: the cast is dealt from, and must not run out.
_MOST_MOVES = 400


@dataclass(frozen=True, slots=True)
class TimedAction:
    """Something that happens in an act, begun at a share (0 to 1) of its length."""

    at: float
    play: Callable[[], Awaitable[None] | None]


class PeoplePool:
    """Deals people in a fixed random order, each once; namesakes last, for on the screen they would be one person."""

    def __init__(self, account: Account, rng: Rng) -> None:
        self._account = account
        self._rng = rng
        shuffled = rng.sample(account.ids, len(account.ids))
        first_of_name = {str(account.person(person_id, full=False)["name"]): person_id for person_id in shuffled}
        alone = set(first_of_name.values())
        self._people = sorted(shuffled, key=lambda person_id: person_id in alone)
        self._stages = [stage.name for stage in account.stages if stage.name != "Trash"]

    def deal(self, count: int, *, not_in: str | None = None) -> list[int]:
        """Give people who were in no action yet and are not in that stage."""
        found: list[int] = []
        passed: list[int] = []
        while len(found) < count and self._people:
            person_id = self._people.pop()
            (passed if self._account.stage_of(person_id) == not_in else found).append(person_id)
        self._people += passed
        return found

    def other_stage(self, *than: str) -> str:
        """Draw a stage that is none of these."""
        return self._rng.choice([name for name in self._stages if name not in than])


class Story:
    """Plays on a environment; tells what it does; waits for what `observer` sees."""

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
            1, "Where everybody stands", f"The account has {people:,} people. fubd reads them all once, before anything counts."
        )
        covered = await self._wait_until(
            lambda: self._observer.known is not None and self._observer.known.coverage is not None, _BASELINE_SECONDS
        )
        known = self._observer.known
        if covered and known is not None:
            calls = sum(count for (_, endpoint, _), count in self._simulator.calls.items() if endpoint == "people")
            self._narrator.say(f"{known.people:,} people read in {calls} calls; from here on every change is a row")
        await self._wait_until(lambda: self._observer.mode not in {"", "starting"}, _ANSWER_SECONDS)

    async def _busy(self) -> None:
        about = "Webhooks tell of every change within milliseconds; a poll now and then confirms them."
        self._narrator.start_act(2, "A busy stretch", about)
        seconds = self._plan.busy_seconds
        actions = (
            TimedAction(0.05, self._to_and_fro),
            TimedAction(0.20, self._within_one_second),
            TimedAction(0.34, lambda: self._bulk(50)),
            TimedAction(0.44, self._new_leads),
            TimedAction(0.56, self._told_twice),
            TimedAction(0.66, self._out_of_order),
            TimedAction(0.84, lambda: self._bulk(250)),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._everyday(round(seconds * _MOVES_PER_SECOND), _MOVES_PER_SECOND))
            for action in actions:
                group.create_task(_run_at(action, seconds))
        await self._wait_until(lambda: self._observer.recorded >= self._observer.happened, _ANSWER_SECONDS)
        self._narrator.say(f"{self._observer.happened} changes so far, {self._observer.recorded} recorded")

    async def _dark(self) -> None:
        self._narrator.start_act(
            3,
            "The webhooks die",
            "fubd must notice by itself. Polling sees where people stand, not how they got there: two moves between two polls are one. "
            "So here nobody moves twice.",
        )
        before = self._observer.happened
        since = self._narrator.seconds
        self._simulator.deliveries.kill()
        self._narrator.say("webhooks are dead: no error, no error, just silence")
        async with self._everyday_life():
            noticed = await self._wait_until(lambda: self._observer.mode == "failover", _NOTICE_SECONDS)
            if noticed:
                self._narrator.say(f"noticed after {self._narrator.seconds - since:.0f} s: a poll found what no webhook had told")
            self._narrator.say("when exactly, polling cannot know: between the poll before and the time it shows with a ≤")
            self._bulk(40)
            self._lead("lead_flow")
            trashed = self._pool.deal(1, not_in="Trash")[0]
            self._account.trash(trashed)
            self._narrator.say(f"{self._name(trashed)} goes to Trash, where lists do not show them")
            await asyncio.sleep(self._plan.dark_seconds)
        await self._wait_until(lambda: self._observer.recorded >= self._observer.happened, _CATCH_UP_SECONDS)
        dark, left = self._observer.happened - before, self._observer.happened - self._observer.recorded
        self._narrator.say(f"{dark} changes in the dark, {dark - left} found by polling" + (": caught up" if left <= 0 else ""))

    async def _back(self) -> None:
        about = "Polling slows down step by step, and only while it finds nothing that webhooks missed."
        self._narrator.start_act(4, "The webhooks come back", about)
        self._simulator.deliveries.revive()
        async with self._everyday_life():
            await self._to_and_fro()
            await self._wait_until(lambda: self._observer.mode in {"recovering", "steady"}, _RECOVERY_SECONDS)
            await self._wait_until(lambda: self._observer.mode == "steady", _RECOVERY_SECONDS)
            await asyncio.sleep(self._plan.calm_seconds)

    async def _quiet(self) -> None:
        self._narrator.start_act(
            5, "Quiet", "Nothing happens any more. One last poll, and then the table is held against what really happened."
        )
        settled = await self._wait_until(self._settled, _SETTLE_SECONDS)
        self._narrator.say("everything is settled" if settled else "not everything is settled; the score is of what is there")

    def _settled(self) -> bool:
        """Tell whether all is delivered, all hints are read, and a complete poll began after the last change."""
        known, changes = self._observer.known, self._simulator.truth.changes
        if known is None or known.coverage is None or known.hints or self._simulator.deliveries.pending:
            return False
        # Coverage stays behind the instant a poll began, by the overlap.
        polled = not changes or (known.coverage - changes[-1].at).total_seconds() + self._plan.overlap_seconds > 0
        return polled and self._observer.recorded >= self._observer.happened

    # --- what happens in them -----------------------------------------------------------------------------------------

    async def _to_and_fro(self) -> None:
        """Send some people A, B, A, B within seconds: four entries, nothing of it a repetition."""
        people = self._pool.deal(4)
        stages = [self._account.stage_of(person_id) for person_id in people]
        others = [self._pool.other_stage(stage) for stage in stages]
        self._narrator.say(f"{self._name(people[0])} and three others go to and fro: {others[0]}, {stages[0]}, {others[0]}")
        for turn in (others, stages, others):
            await self._delivered(self._moved(zip(people, turn, strict=True)))
            await asyncio.sleep(self._plan.pace)

    async def _within_one_second(self) -> None:
        """Move some people several times in one second, each told before the next: webhooks date by whole seconds."""
        people = self._pool.deal(3)
        await self._next_second()
        for person_id in people:
            for _ in range(4):
                await self._delivered(self._moved_on([person_id]))
        self._narrator.say(f"{self._name(people[0])} and two others pass through four stages each within one second")

    def _bulk(self, count: int) -> None:
        stage = self._pool.other_stage()
        moved = self._account.bulk_move(self._pool.deal(count, not_in=stage), stage, actor="Adam Deskwell")
        self._narrator.say(f"a bulk edit sends {moved} people to {stage} at once")

    def _new_leads(self) -> None:
        names = [self._lead(via) for via in ("lead_flow", "lead_flow", "api")]
        self._narrator.say(f"new leads: {', '.join(names)}")

    def _lead(self, via: str) -> str:
        """Let somebody new arrive. They rest where they are: a webhook tells that they came, a read where they stand."""
        return self._name(self._account.create(via=via))

    def _told_twice(self) -> None:
        people = self._pool.deal(3)
        for person_id in people:
            self._simulator.script_deliveries("duplicate")
            self._moved_on([person_id])
        self._narrator.say(f"the webhooks of {self._name(people[0])} and two others arrive twice")

    async def _out_of_order(self) -> None:
        """Hold the webhooks of a first move back until those of the second have arrived."""
        people = self._pool.deal(4)
        await self._next_second()
        for person_id in people:
            self._simulator.script_deliveries("stalled")
            self._moved_on([person_id])
        await self._next_second()
        await self._delivered(self._moved_on(people))
        self._simulator.deliveries.release()
        self._narrator.say(f"{self._name(people[0])} and three others move twice; the second webhook comes before the first")

    # --- how ----------------------------------------------------------------------------------------------------------

    def _moved(self, moves: Iterable[tuple[int, str]]) -> list[TrueChange]:
        """Move each into a stage; gives what happened."""
        changes = self._simulator.truth.changes
        before = len(changes)
        for person_id, stage in moves:
            self._account.move(person_id, stage)
        return changes[before:]

    def _moved_on(self, people: Sequence[int]) -> list[TrueChange]:
        """Move each into some other stage; gives what happened."""
        return self._moved([(person_id, self._pool.other_stage(self._account.stage_of(person_id))) for person_id in people])

    async def _delivered(self, changes: Sequence[TrueChange]) -> None:
        """Wait until the webhooks of these were answered. What comes next then comes later in the daemon's eyes too."""
        sightings = self._simulator.sightings
        await self._wait_until(lambda: all(sightings.of(change).delivered_at is not None for change in changes), _ANSWER_SECONDS)

    @asynccontextmanager
    async def _everyday_life(self) -> AsyncIterator[None]:
        """Let somebody move now and then as long as the block lasts."""
        going_on = asyncio.create_task(self._everyday(_MOST_MOVES, _MOVES_PER_SECOND_LATER))
        try:
            yield
        finally:
            going_on.cancel()
            await asyncio.wait({going_on})

    async def _everyday(self, moves: int, per_second: float) -> None:
        for person_id in self._pool.deal(moves):
            self._moved_on([person_id])
            await asyncio.sleep(1 / per_second)

    async def _next_second(self) -> None:
        await asyncio.sleep(1.0 - self._account.clock.now().microsecond / 1e6)

    async def _wait_until(self, condition: Callable[[], bool], within_seconds: float) -> bool:
        """Wait until it holds; tells whether it did in time."""
        deadline = time.monotonic() + within_seconds
        while not condition():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_GLANCE_SECONDS)
        return True

    def _name(self, person_id: int) -> str:
        return str(self._account.person(person_id)["name"])


async def _run_at(action: TimedAction, act_seconds: float) -> None:
    await asyncio.sleep(action.at * act_seconds)
    playing = action.play()
    if playing is not None:
        await playing
