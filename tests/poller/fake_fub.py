"""A Follow Up Boss account in virtual time that changes while it is read, and its API. No network."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import takewhile

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.core.subscriptions import Subscription, SubscriptionList, UnusableSubscription
from fubd.errors import FubRefused, Malformed
from fubd.ports import PeopleQuery
from fubd.simulator.rng import Rng
from tests.support.virtual_time import VirtualClock, true_time

_MAX_OFFSET = 2000


@dataclass(frozen=True)
class Person:
    id: int
    stage: str
    created: datetime
    updated: datetime

    @cached_property
    def reading(self) -> Reading:
        """As the API shows them, in whole seconds. Made once: a day of polling shows the same people many thousand times."""
        return Reading(
            person_id=self.id,
            stage=self.stage,
            stage_id=None,
            created=self.created.replace(microsecond=0),
            updated=self.updated.replace(microsecond=0),
        )


class FakeAccount:
    """People ordered by id, the deleted, and every change of stage as it happened.

    `untouched_since`: only people in `changed`, the last one last, changed later than this, so that they are found without looking at
    everyone.
    """

    def __init__(self) -> None:
        self.people: dict[int, Person] = {}
        self.ids: list[int] = []
        self.deleted: set[int] = set()
        self.hidden: set[int] = set()
        self.moves: list[tuple[int, str, datetime]] = []
        self.changed: dict[int, None] = {}
        self.untouched_since = datetime.min.replace(tzinfo=UTC)

    def add(self, person_id: int, *, stage: str = "Lead", updated: datetime | None = None) -> None:
        at = updated or true_time()
        self.untouched_since = max(self.untouched_since, at)
        self.people[person_id] = Person(person_id, stage, at, at)
        insort(self.ids, person_id)

    def create(self) -> int:
        person_id = (self.ids[-1] if self.ids else 0) + 1
        self.add(person_id)
        return person_id

    def move(self, person_id: int, stage: str) -> None:
        self.people[person_id] = replace(self.people[person_id], stage=stage, updated=true_time())
        self._note_change(person_id)
        self.moves.append((person_id, stage, true_time()))

    def touch(self, person_id: int) -> None:
        self.people[person_id] = replace(self.people[person_id], updated=true_time())
        self._note_change(person_id)

    def delete(self, person_id: int) -> None:
        del self.people[person_id]
        self.ids.remove(person_id)
        self.changed.pop(person_id, None)
        self.deleted.add(person_id)

    def between(self, low: int | None, high: int | None) -> list[int]:
        first = 0 if low is None else bisect_right(self.ids, low)
        beyond = len(self.ids) if high is None else bisect_left(self.ids, high)
        # To copy everyone at each call would take most of a large account's day.
        found = self.ids if (first, beyond) == (0, len(self.ids)) else self.ids[first:beyond]
        return [person_id for person_id in found if person_id not in self.hidden] if self.hidden else found

    def changed_after(self, after: datetime, among: list[int]) -> list[int]:
        """Return those whose `updated`, in whole seconds, is later."""
        if self.untouched_since <= after and len(among) > len(self.changed):
            among = self._changed_after(after, among)
        return [person_id for person_id in among if self.people[person_id].reading.updated > after]

    def recent(self, among: list[int]) -> list[int]:
        """Return those who changed later than everybody else."""
        return self._changed_after(self.untouched_since, among)

    def _changed_after(self, after: datetime, among: list[int]) -> list[int]:
        latest_first = takewhile(lambda person_id: self.people[person_id].updated > after, reversed(self.changed))
        return [person_id for person_id in sorted(latest_first) if _contains(among, person_id)]

    def _note_change(self, person_id: int) -> None:
        self.changed.pop(person_id, None)
        self.changed[person_id] = None


def _contains(ascending: list[int], person_id: int) -> bool:
    index = bisect_left(ascending, person_id)
    return index < len(ascending) and ascending[index] == person_id


def change_something(account: FakeAccount, rng: Rng) -> None:
    """Change one person of the account: delete, create, trash, move or edit."""
    person_id = rng.choice(account.ids)
    match rng.randrange(5):
        case 0:
            account.delete(person_id)
        case 1:
            account.create()
        case 2:
            account.move(person_id, "Trash")
        case 3:
            account.move(person_id, rng.choice(["Nurture", "Offer", "Closed"]))
        case _:
            account.touch(person_id)


@dataclass
class FubBehaviour:
    """How the API behaves. `updated_after`: works, hides, ignored or refused. `lists_trash`: whether lists show people in Trash.

    `sorts`: whether it obeys `sort`; `refuses_sort`: it answers 400 to it. `people_per_page`: the most, whatever is requested;
    `false_total`: what it says instead of the count; `metadata`: usable, missing or unusable on every page.
    """

    updated_after: str = "works"
    filters_id_ranges: bool = True
    filters_ids: bool = True
    lists_trash: bool = True
    sorts: bool = True
    refuses_sort: bool = False
    counts_filtered: bool = True
    latency_seconds: float = 0.0
    limit: int | None = None
    unordered_ties: Rng | None = None
    people_per_page: int = 100
    metadata: str = "usable"
    false_total: int | None = None


class FakeFubApi:
    """The API of the account. `before_response` runs before each response; `outage` makes every call fail.

    `registry` holds the webhooks, `unusable_webhooks` what is listed next to them; `refusals` maps an endpoint to its refusal. `odd`:
    people without a usable stage; `strangers`: people on each page, whatever is requested, and whether in the first place;
    `unidentified`: the elements without an id on each page of people. `refused_ids`: ids because of which a whole batch is refused.
    """

    def __init__(self, account: FakeAccount, behaviour: FubBehaviour | None = None) -> None:
        self.account = account
        self.behaviour = behaviour or FubBehaviour()
        self.before_response: Callable[[], None] = lambda: None
        self.outage: Exception | None = None
        self.calls: list[tuple[str, PeopleQuery | int | None]] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.registry: dict[int, Subscription] = {}
        self.unusable_webhooks: tuple[UnusableSubscription, ...] = ()
        self.odd: set[int] = set()
        self.strangers: dict[int, bool] = {}
        self.unidentified = 0
        self.refused_ids: set[int] = set()
        self.refusals: dict[str, FubRefused] = {}
        self.writes = 0
        self._sent: deque[float] = deque()

    def fub_now(self) -> datetime:
        return true_time()

    def skew_seconds(self) -> float:
        return 0.0

    def calls_made(self) -> int:
        return len(self.calls)

    async def people(self, query: PeopleQuery) -> PeoplePage:
        read_at = await self._respond("people", query)
        if query.ids is not None and not self.refused_ids.isdisjoint(query.ids):
            raise FubRefused("Follow Up Boss refused with 400: invalid id", status=400)
        if query.updated_after is not None and self.behaviour.updated_after == "refused":
            raise FubRefused("Follow Up Boss refused with 400: invalid parameter", status=400)
        if query.sort is not None and self.behaviour.refuses_sort:
            raise FubRefused("Follow Up Boss refused with 400: invalid parameter: sort", status=400)
        matches = self._matches(query)
        if not self.behaviour.lists_trash:
            matches = [person_id for person_id in matches if self.account.people[person_id].stage != "Trash"]
        total = len(matches) if self.behaviour.counts_filtered else len(self.account.ids)
        total = total if self.behaviour.false_total is None else self.behaviour.false_total
        token, shown = self._page_of(replace(query, limit=min(query.limit, self.behaviour.people_per_page)), matches)
        if query.ids is None:
            for stranger, is_first in self.strangers.items():
                rest = [person_id for person_id in shown if person_id != stranger]
                shown = [stranger, *rest] if is_first else [*rest, stranger]
        readings = tuple(self.account.people[person_id].reading for person_id in shown if person_id not in self.odd)
        odd = tuple(person_id for person_id in shown if person_id in self.odd)
        is_usable = self.behaviour.metadata == "usable"
        return PeoplePage(
            readings,
            tuple(shown),
            odd,
            total if is_usable else None,
            token if is_usable else None,
            read_at,
            unidentified=self.unidentified if shown else 0,
            repeated=0,
            next_is_unusable=self.behaviour.metadata == "unusable",
            has_zoneless_times=False,
            has_future_times=False,
        )

    def _matches(self, query: PeopleQuery) -> list[int]:
        account, behaviour = self.account, self.behaviour
        if query.ids is not None and behaviour.filters_ids:
            return [
                person_id
                for person_id in sorted(query.ids, reverse=True)
                if person_id in account.people and person_id not in account.hidden
            ]
        matches = account.between(query.id_greater_than, query.id_less_than) if behaviour.filters_id_ranges else account.between(None, None)
        after = query.updated_after
        if after is not None and behaviour.updated_after == "hides":
            return []
        if after is not None and behaviour.updated_after == "works":
            return account.changed_after(after, matches)
        return matches

    def _page_of(self, query: PeopleQuery, matches: list[int]) -> tuple[str | None, list[int]]:
        order = query.sort if self.behaviour.sorts else None
        if order == "id":
            return None, matches[: query.limit]
        if order == "-id":
            return None, matches[-query.limit :][::-1]
        if order == "-updated":
            offset = query.offset or 0
            if offset >= _MAX_OFFSET:
                raise FubRefused("Deep pagination disabled, use 'nextLink' url", status=400)
            recent = self.account.recent(matches)
            candidates = recent if len(recent) >= offset + query.limit else matches
            return None, sorted(candidates, key=self._recency, reverse=True)[offset : offset + query.limit]
        beyond = len(matches) - (query.offset or 0) if query.next is None else bisect_left(matches, int(query.next))
        page = matches[max(0, beyond - query.limit) : beyond][::-1]
        return (str(page[-1]) if beyond > query.limit else None), page

    def _recency(self, person_id: int) -> tuple[datetime, float]:
        ties = self.behaviour.unordered_ties
        return self.account.people[person_id].reading.updated, ties.random() if ties else -person_id

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        read_at = await self._respond("person", person_id)
        person = self.account.people.get(person_id)
        if person is not None and person_id in self.odd:
            raise Malformed("the person has no usable stage or time of update")
        return (None if person is None or person_id in self.account.hidden else person.reading), read_at

    async def stages(self) -> dict[str, int]:
        await self._respond("stages", None)
        return {}

    async def subscriptions(self) -> SubscriptionList:
        await self._respond("webhooks", None)
        return SubscriptionList(tuple(self.registry.values()), self.unusable_webhooks)

    async def subscribe(self, event: str, url: str) -> Subscription:
        await self._respond("subscribe", None)
        created = Subscription(max(self.registry, default=0) + 1, event, url, "Active")
        if sum(subscription.event == event for subscription in self.registry.values()) >= 2:
            raise FubRefused("Too many webhooks for this event.", status=400)
        self.registry[created.id] = created
        self.writes += 1
        return created

    async def update_subscription(self, subscription_id: int, *, url: str | None = None, status: str | None = None) -> Subscription:
        await self._respond("update_subscription", None)
        old = self.registry[subscription_id]
        self.registry[old.id] = replace(old, url=url or old.url, status=status or old.status)
        self.writes += 1
        return self.registry[old.id]

    async def _respond(self, endpoint: str, query: PeopleQuery | int | None) -> datetime:
        await self._obey_limit()
        self.calls.append((endpoint, query))
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        # As the client dates it: the whole second of the response, minus the duration of the request.
        read_at = true_time().replace(microsecond=0) - timedelta(seconds=self.behaviour.latency_seconds)
        try:
            self.before_response()
            if self.behaviour.latency_seconds:
                await VirtualClock().pause(self.behaviour.latency_seconds)
        finally:
            self.in_flight -= 1
        if self.outage is not None:
            raise self.outage
        if endpoint in self.refusals:
            raise self.refusals[endpoint]
        return read_at

    async def _obey_limit(self) -> None:
        """Wait as the client's rate limiter does: at most `limit` calls in any ten seconds."""
        if self.behaviour.limit is None:
            return
        while True:
            now = asyncio.get_running_loop().time()
            while self._sent and self._sent[0] <= now - 10:
                self._sent.popleft()
            if len(self._sent) < self.behaviour.limit:
                self._sent.append(now)
                return
            await VirtualClock().pause(self._sent[0] + 10 - now)
