"""Collectors that each break one rule, and the simulated days that reveal it.

`CAREFUL` keeps all evidence and derives the rows from it; each of the others differs by one habit of older scripts.
`python -m tests.simulator.collectors` prints the cost of each habit per 10,000 changes, and the result of fubd itself on the same days.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fubd.simulator import Account, Behaviour, Score, SimClock, Simulator, score
from fubd.simulator.query import find_people, parse_filter, parse_paging
from fubd.simulator.rng import Rng
from fubd.simulator.scenario_steps import edit_random_person, move_random_person, random_people, random_person
from fubd.store.embedded import temporary_server
from tests.simulator.conftest import NINE
from tests.simulator.fubd_collector import FubdCollector, fubd_collector
from tests.simulator.http_client import HttpClient
from tests.simulator.receiver import WebhookReceiver
from tests.support.databases import Databases

Payload = Mapping[str, Any]

POLL_SECONDS = 1800.0
REPEAT = timedelta(seconds=30)
WINDOW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Entry:
    """A person entered a stage at `at`, or between `after` and `at`; recorded at `received`."""

    stage: str
    at: datetime
    after: datetime | None
    received: datetime


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event about one person, as a habit sees it."""

    event: str
    person_id: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Habit:
    """How a collector treats its input; the defaults are correct.

    `ids` selects the people of an event; `entry` builds the entry to keep; `skip` drops apparent repetitions of known entries.
    """

    rule: str
    ids: Callable[[Account, Payload], Sequence[int]] = lambda _, event: event["resourceIds"]
    entry: Callable[[Account, ReceivedEvent], Entry] = lambda _, event: event.entry
    skip: Callable[[Sequence[Entry], Entry], bool] = lambda _, __: False
    every_event: bool = False
    saves_late: bool = False
    polls: bool = True


def _reread(account: Account, event: ReceivedEvent) -> Entry:
    """Use the person's current stage instead of the stage in the event."""
    stage = account.stage_of(event.person_id) if account.has(event.person_id) else event.entry.stage
    return Entry(stage, event.entry.at, None, event.entry.received)


def _on_receipt(_: Account, event: ReceivedEvent) -> Entry:
    """Date the entry by the time of receipt."""
    return Entry(event.entry.stage, event.entry.received, None, event.entry.received)


def _by_uri(account: Account, event: Payload) -> list[int]:
    """Follow the event's own uri: at most ten people, and none in Trash."""
    query = dict(parse_qsl(urlsplit(event["uri"]).query))
    page = find_people(account, parse_filter(query, account, Behaviour(), viewer=None), parse_paging(query))
    return [account.people.first_id + slot for slot in page.slots]


CAREFUL = Habit("keeps all evidence, derives the rows")
HABITS = (
    Habit("takes only the first id of an event", ids=lambda _, event: event["resourceIds"][:1]),
    Habit("follows the event's uri as it is", ids=_by_uri),
    Habit("drops repeats within 30 seconds", skip=lambda known, new: any(abs(new.received - one.received) <= REPEAT for one in known)),
    Habit(
        "joins the same stage within 5 minutes",
        skip=lambda known, new: any(one.stage == new.stage and abs(new.at - one.at) <= WINDOW for one in known),
    ),
    Habit("re-reads the stage instead of taking the event's", entry=_reread),
    Habit("stamps the time of receipt", entry=_on_receipt),
    Habit("records every event it gets", every_event=True),
    Habit("answers 200 before saving", saves_late=True),
)
"""Each revealed by webhooks alone, on a day when all of them arrive in the end."""
NEVER_POLLS = Habit("never polls", polls=False)
"""Revealed on days when webhooks are lost."""
FUBD = "**fubd**"
"""Not a collector with a habit but fubd itself, which receives the same bytes."""


class Collector:
    """Fills a table from webhooks and polls, according to its habit."""

    def __init__(self, account: Account, habit: Habit) -> None:
        self.habit = habit
        self._account = account
        self._start = {person_id: account.stage_of(person_id) for person_id in account.ids}
        self._entries: dict[int, list[Entry]] = defaultdict(list)
        self._unsaved: list[tuple[int, Entry]] = []
        self._events: set[str] = set()
        self._polled_at = account.clock.now()

    def receive(self, event: Payload, received: datetime) -> None:
        """Receive one webhook."""
        if not self.habit.every_event:
            if event["eventId"] in self._events or event["event"] != "peopleStageUpdated":
                return
            self._events.add(event["eventId"])
        at = datetime.fromisoformat(event["eventCreated"])
        for person_id in self.habit.ids(self._account, event):
            stage = event["data"]["stage"] if "data" in event else self._account.stage_of(person_id)
            entry = self.habit.entry(self._account, ReceivedEvent(event["event"], person_id, Entry(stage, at, None, received)))
            if not self.habit.skip(self._entries[person_id], entry):
                self._entries[person_id].append(entry)
                self._unsaved.append((person_id, entry))

    def read_page(self, people: Iterable[Payload], read_at: datetime) -> None:
        """Receive a page of a poll: people whose stage differs from their entries moved since the last poll, or since their last entry."""
        if not self.habit.polls:
            return
        for person in people:
            entries = sorted(self._entries[person["id"]], key=lambda entry: entry.at)
            if person["stage"] != (entries[-1].stage if entries else self._start[person["id"]]):
                after = max(self._polled_at, entries[-1].at) if entries else self._polled_at
                self._entries[person["id"]].append(Entry(person["stage"], datetime.fromisoformat(person["updated"]), after, read_at))
        self._polled_at = read_at

    def save(self) -> None:
        """Write what was received so far; all but one habit have done so before answering."""
        self._unsaved.clear()

    def crash(self) -> None:
        """Simulate a kill: what was answered but not written is lost."""
        if self.habit.saves_late:
            for person_id, entry in self._unsaved:
                self._entries[person_id].remove(entry)
        self._unsaved.clear()

    def rows(self) -> list[dict[str, object]]:
        """Return the table."""
        rows: list[dict[str, object]] = []
        for person_id, entries in self._entries.items():
            last = self._start.get(person_id)
            for entry in sorted(entries, key=lambda one: one.at):
                repeated = entry.stage == last and not self.habit.every_event
                if repeated or _is_reported_by_webhook(entry, entries):
                    continue
                rows.append(
                    {
                        "person_id": person_id,
                        "stage_from": last,
                        "stage_to": entry.stage,
                        "changed_at": entry.at,
                        "changed_after": entry.after,
                        "received_at": entry.received,
                        "source": "webhook" if entry.after is None else "polling",
                    }
                )
                last = entry.stage
        return rows


def _is_reported_by_webhook(polled: Entry, entries: Sequence[Entry]) -> bool:
    """Return whether a webhook reported exactly the change of which a poll saw the result."""
    after = polled.after
    return after is not None and any(one.after is None and one.stage == polled.stage and after <= one.at <= polled.at for one in entries)


class History:
    """Some days of an account, shown to several collectors at once by real webhooks and, on days when those are lost, by polls."""

    def __init__(self, habits: Sequence[Habit], *, seed: int, dead: bool, database: str | None = None) -> None:
        self.account = Account(seed=seed, people=400, clock=SimClock(NINE, speed=0.0))
        self.simulator = Simulator(self.account)
        self.collectors = [Collector(self.account, habit) for habit in habits]
        self._dead = dead
        self._database = database
        self._fubd: FubdCollector | None = None
        self._rng = Rng(seed)
        self._listener = WebhookReceiver()
        self._processed = 0
        self._polled_at = self.account.clock.now()

    async def run(self, changes: int) -> dict[str, Score]:
        """Continue until this many changes happened; return each collector's score by its rule."""
        await self._listener.start()
        for event in ("peopleStageUpdated", "peopleUpdated"):
            self.simulator.subscribe(event, self._listener.url)
        tables: dict[str, list[dict[str, Any]]] = {}
        async with AsyncExitStack() as running:
            url = await running.enter_async_context(self.simulator.running())
            client = await running.enter_async_context(HttpClient(url))
            if self._database is not None:
                self._fubd = await running.enter_async_context(fubd_collector(self._database, url, self.account.clock))
            await self._live(changes, client)
            if self._fubd is not None:
                tables[FUBD] = await self._fubd.rows()
        await self._listener.stop()
        tables |= {one.habit.rule: one.rows() for one in self.collectors}
        return {rule: score(self.account.truth, rows, sightings=self.simulator.sightings) for rule, rows in tables.items()}

    async def _live(self, changes: int, client: HttpClient) -> None:
        while len(self.account.truth.changes) < changes:
            await self._pass_some_minutes()
            if self._dead and (self.account.clock.now() - self._polled_at).total_seconds() >= POLL_SECONDS:
                await self._poll(client)
        self.simulator.deliveries.revive()
        await self._pass(7200)
        await self._process()
        if self._dead:
            await self._poll(client)

    async def _pass_some_minutes(self) -> None:
        """Let a few minutes pass with one kind of activity."""
        rng, account = self._rng, self.account
        if self._dead:
            (self.simulator.deliveries.kill if rng.chance(0.2) else self.simulator.deliveries.revive)()
        if rng.chance(0.3):
            # A busy receiver: FUB retries a minute later.
            self._listener.statuses.extend([503] * rng.randrange(1, 4))
        if rng.chance(0.3):
            self.simulator.script_deliveries(*(["duplicate", None] * 3))
        kind = rng.choice(("work", "work", "work", "back and forth", "quick", "bulk"))
        if kind == "work":
            for _ in range(rng.randrange(2, 9)):
                move_random_person(account, rng)
                edit_random_person(account, rng)
                await self._pass(rng.uniform(2, 40))
        elif kind == "back and forth":
            await self._move_through(["Nurture", "Past Client", "Nurture", "Past Client"], rng.uniform(2, 50))
        elif kind == "quick":
            await self._move_through(["ACQ - Offers Made", "ACQ - Contract Sent"], rng.uniform(5, 30))
        else:
            account.bulk_move(random_people(account, rng, rng.randrange(2, 30)), rng.choice(("Nurture", "ACQ - Not Interested", "Trash")))
            await self._pass(10)
        await self._process()
        for collector in self.collectors:
            (collector.crash if rng.chance(0.04) else collector.save)()
        await self._pass(rng.uniform(20, 300))

    async def _move_through(self, stages: Sequence[str], every: float) -> None:
        person_id = random_person(self.account, self._rng)
        for stage in stages:
            self.account.move(person_id, stage)
            await self._pass(every)

    async def _pass(self, seconds: float) -> None:
        await self.account.clock.run_for(seconds, self.simulator.deliveries.drain)

    async def _process(self) -> None:
        """Let the collectors process the received webhooks, some seconds after the events, as on a busy day."""
        now = self.account.clock.now()
        for got in self._listener.got[self._processed :]:
            for collector in self.collectors:
                collector.receive(got.payload, now)
        if self._fubd is not None:
            await self._fubd.take(self._listener.got[self._processed :])
        self._processed = len(self._listener.got)

    async def _poll(self, client: HttpClient) -> None:
        """Read the people updated since the last poll."""
        began = self.account.clock.now()
        since = (self._polled_at - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        query = {"updatedAfter": since, "includeTrash": "true", "includeUnclaimed": "true", "fields": "id,stage,updated"}
        page = await client.get("people", limit=100, **query)
        people = list(page.json["people"])
        while page.metadata["nextLink"]:
            page = await client.get(page.metadata["nextLink"])
            people += page.json["people"]
        for collector in self.collectors:
            collector.read_page(people, began)
        if self._fubd is not None:
            await self._fubd.poll()
        self._polled_at = began


async def figures(changes: int, *, seed: int = 17, databases: tuple[str | None, str | None] = (None, None)) -> dict[str, Score]:
    """Return the score of every habit on the days that reveal it, and of the careful one on both kinds of days.

    `databases`: two migrated databases let fubd itself take part on both.
    """
    alive = await History([CAREFUL, *HABITS], seed=seed, dead=False, database=databases[0]).run(changes)
    dead = await History([CAREFUL, NEVER_POLLS], seed=seed, dead=True, database=databases[1]).run(changes)
    both = {f"{rule}, webhooks dying": dead.pop(rule) for rule in (CAREFUL.rule, FUBD) if rule in dead}
    return {**alive, **dead, **both}


async def figures_with_fubd(changes: int) -> dict[str, Score]:
    """Return the same, with fubd's own score, on an embedded Postgres."""
    with temporary_server() as server:
        databases = Databases(server)
        try:
            async with databases.migrated() as one, databases.migrated() as other:
                return await figures(changes, databases=(one, other))
        finally:
            await databases.close()


def table(scores: Mapping[str, Score]) -> str:
    """Return the figures as a Markdown table, per 10,000 changes."""
    lines = ["| old rule | lost | doubled or invented | wrong stage before | wrong time |", "|---|---:|---:|---:|---:|"]
    for rule, one in scores.items():
        counts = (one.lost_shown, one.doubled + one.invented, one.wrong_from, one.wrong_time)
        lines.append(f"| {rule} | " + " | ".join(f"{count * 10_000 / one.changes:,.0f}" for count in counts) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table(asyncio.run(figures_with_fubd(10_000))) + "\n")
