"""The script: a busy stretch, webhooks that die without a word, polling that takes over, and the way back.

It decides what happens in the account and waits for what the daemon makes of it by conditions, each with a deadline, never by a guess of
how long something takes. What happens is drawn from a fixed seed. Nobody is in two beats, so each beat knows what its people may do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fubd.demo.plan import Plan
from fubd.demo.view import Teller
from fubd.demo.watch import Watch
from fubd.demo.world import SEED, World
from fubd.simulator import Account, TrueChange
from fubd.simulator.dice import Dice

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
class Beat:
    """Something that happens in an act, begun at a share (0 to 1) of its length."""

    at: float
    play: Callable[[], Awaitable[None] | None]


class Cast:
    """Deals people in a fixed random order, each once; namesakes last, for on the screen they would be one person."""

    def __init__(self, account: Account, dice: Dice) -> None:
        self._account = account
        self._dice = dice
        shuffled = dice.sample(account.ids, len(account.ids))
        first_of_name = {str(account.person(person_id, full=False)["name"]): person_id for person_id in shuffled}
        alone = set(first_of_name.values())
        self._people = sorted(shuffled, key=lambda person_id: person_id in alone)
        self._stages = [stage.name for stage in account.stages if stage.name != "Trash"]

    def deal(self, count: int, *, not_in: str | None = None) -> list[int]:
        """Give people who were in no beat yet and are not in that stage."""
        found: list[int] = []
        passed: list[int] = []
        while len(found) < count and self._people:
            person_id = self._people.pop()
            (passed if self._account.stage_of(person_id) == not_in else found).append(person_id)
        self._people += passed
        return found

    def other_stage(self, *than: str) -> str:
        """Draw a stage that is none of these."""
        return self._dice.choice([name for name in self._stages if name not in than])


class Story:
    """Plays on a world; tells what it does; waits for what `watch` sees."""

    def __init__(self, world: World, watch: Watch, plan: Plan, teller: Teller) -> None:
        self._account = world.account
        self._simulator = world.simulator
        self._watch = watch
        self._plan = plan
        self._teller = teller
        self._cast = Cast(world.account, Dice(SEED))

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
        self._teller.act(
            1, "Where everybody stands", f"The account has {people:,} people. fubd reads them all once, before anything counts."
        )
        covered = await self._reached(lambda: self._watch.known is not None and self._watch.known.coverage is not None, _BASELINE_SECONDS)
        known = self._watch.known
        if covered and known is not None:
            calls = sum(count for (_, endpoint, _), count in self._simulator.calls.items() if endpoint == "people")
            self._teller.say(f"{known.people:,} people read in {calls} calls; from here on every change is a row")
        await self._reached(lambda: self._watch.mode not in {"", "starting"}, _ANSWER_SECONDS)

    async def _busy(self) -> None:
        about = "Webhooks tell of every change within milliseconds; a poll now and then confirms them."
        self._teller.act(2, "A busy stretch", about)
        seconds = self._plan.busy_seconds
        beats = (
            Beat(0.05, self._to_and_fro),
            Beat(0.20, self._within_one_second),
            Beat(0.34, lambda: self._bulk(50)),
            Beat(0.44, self._new_leads),
            Beat(0.56, self._told_twice),
            Beat(0.66, self._out_of_order),
            Beat(0.84, lambda: self._bulk(250)),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._everyday(round(seconds * _MOVES_PER_SECOND), _MOVES_PER_SECOND))
            for beat in beats:
                group.create_task(_begun(beat, seconds))
        await self._reached(lambda: self._watch.recorded >= self._watch.happened, _ANSWER_SECONDS)
        self._teller.say(f"{self._watch.happened} changes so far, {self._watch.recorded} recorded")

    async def _dark(self) -> None:
        self._teller.act(
            3,
            "The webhooks die",
            "fubd must notice by itself. Polling sees where people stand, not how they got there: two moves between two polls are one. "
            "So here nobody moves twice.",
        )
        before = self._watch.happened
        since = self._teller.seconds
        self._simulator.deliveries.kill()
        self._teller.say("webhooks are dead: no error, no refusal, just silence")
        async with self._everyday_life():
            noticed = await self._reached(lambda: self._watch.mode == "failover", _NOTICE_SECONDS)
            if noticed:
                self._teller.say(f"noticed after {self._teller.seconds - since:.0f} s: a poll found what no webhook had told")
            self._teller.say("when exactly, polling cannot know: between the poll before and the time it shows with a ≤")
            self._bulk(40)
            self._lead("lead_flow")
            trashed = self._cast.deal(1, not_in="Trash")[0]
            self._account.trash(trashed)
            self._teller.say(f"{self._name(trashed)} goes to Trash, where lists do not show them")
            await asyncio.sleep(self._plan.dark_seconds)
        await self._reached(lambda: self._watch.recorded >= self._watch.happened, _CATCH_UP_SECONDS)
        dark, left = self._watch.happened - before, self._watch.happened - self._watch.recorded
        self._teller.say(f"{dark} changes in the dark, {dark - left} found by polling" + (": caught up" if left <= 0 else ""))

    async def _back(self) -> None:
        about = "Polling slows down step by step, and only while it finds nothing that webhooks missed."
        self._teller.act(4, "The webhooks come back", about)
        self._simulator.deliveries.revive()
        async with self._everyday_life():
            await self._to_and_fro()
            await self._reached(lambda: self._watch.mode in {"recovering", "steady"}, _RECOVERY_SECONDS)
            await self._reached(lambda: self._watch.mode == "steady", _RECOVERY_SECONDS)
            await asyncio.sleep(self._plan.calm_seconds)

    async def _quiet(self) -> None:
        self._teller.act(5, "Quiet", "Nothing happens any more. One last poll, and then the table is held against what really happened.")
        settled = await self._reached(self._settled, _SETTLE_SECONDS)
        self._teller.say("everything is settled" if settled else "not everything is settled; the score is of what is there")

    def _settled(self) -> bool:
        """Tell whether all is delivered, all hints are read, and a complete poll began after the last change."""
        known, changes = self._watch.known, self._simulator.truth.changes
        if known is None or known.coverage is None or known.hints or self._simulator.deliveries.pending:
            return False
        # Coverage stays behind the instant a poll began, by the overlap.
        polled = not changes or (known.coverage - changes[-1].at).total_seconds() + self._plan.overlap_seconds > 0
        return polled and self._watch.recorded >= self._watch.happened

    # --- what happens in them -----------------------------------------------------------------------------------------

    async def _to_and_fro(self) -> None:
        """Send some people A, B, A, B within seconds: four entries, nothing of it a repetition."""
        people = self._cast.deal(4)
        stages = [self._account.stage_of(person_id) for person_id in people]
        others = [self._cast.other_stage(stage) for stage in stages]
        self._teller.say(f"{self._name(people[0])} and three others go to and fro: {others[0]}, {stages[0]}, {others[0]}")
        for turn in (others, stages, others):
            await self._told(self._moved(zip(people, turn, strict=True)))
            await asyncio.sleep(self._plan.pace)

    async def _within_one_second(self) -> None:
        """Move some people several times in one second, each told before the next: webhooks date by whole seconds."""
        people = self._cast.deal(3)
        await self._next_second()
        for person_id in people:
            for _ in range(4):
                await self._told(self._moved_on([person_id]))
        self._teller.say(f"{self._name(people[0])} and two others pass through four stages each within one second")

    def _bulk(self, count: int) -> None:
        stage = self._cast.other_stage()
        moved = self._account.bulk_move(self._cast.deal(count, not_in=stage), stage, actor="Adam Deskwell")
        self._teller.say(f"a bulk edit sends {moved} people to {stage} at once")

    def _new_leads(self) -> None:
        names = [self._lead(via) for via in ("lead_flow", "lead_flow", "api")]
        self._teller.say(f"new leads: {', '.join(names)}")

    def _lead(self, via: str) -> str:
        """Let somebody new arrive. They rest where they are: a webhook tells that they came, a read where they stand."""
        return self._name(self._account.create(via=via))

    def _told_twice(self) -> None:
        people = self._cast.deal(3)
        for person_id in people:
            self._simulator.script_deliveries("duplicate")
            self._moved_on([person_id])
        self._teller.say(f"the webhooks of {self._name(people[0])} and two others arrive twice")

    async def _out_of_order(self) -> None:
        """Hold the webhooks of a first move back until those of the second have arrived."""
        people = self._cast.deal(4)
        await self._next_second()
        for person_id in people:
            self._simulator.script_deliveries("stalled")
            self._moved_on([person_id])
        await self._next_second()
        await self._told(self._moved_on(people))
        self._simulator.deliveries.release()
        self._teller.say(f"{self._name(people[0])} and three others move twice; the second webhook comes before the first")

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
        return self._moved([(person_id, self._cast.other_stage(self._account.stage_of(person_id))) for person_id in people])

    async def _told(self, changes: Sequence[TrueChange]) -> None:
        """Wait until the webhooks of these were answered. What comes next then comes later in the daemon's eyes too."""
        seen = self._simulator.seen
        await self._reached(lambda: all(seen.of(change).told_at is not None for change in changes), _ANSWER_SECONDS)

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
        for person_id in self._cast.deal(moves):
            self._moved_on([person_id])
            await asyncio.sleep(1 / per_second)

    async def _next_second(self) -> None:
        await asyncio.sleep(1.0 - self._account.clock.now().microsecond / 1e6)

    async def _reached(self, condition: Callable[[], bool], within_seconds: float) -> bool:
        """Wait until it holds; tells whether it did in time."""
        deadline = time.monotonic() + within_seconds
        while not condition():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_GLANCE_SECONDS)
        return True

    def _name(self, person_id: int) -> str:
        return str(self._account.person(person_id)["name"])


async def _begun(beat: Beat, act_seconds: float) -> None:
    await asyncio.sleep(beat.at * act_seconds)
    playing = beat.play()
    if playing is not None:
        await playing
