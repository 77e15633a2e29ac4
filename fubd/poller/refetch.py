"""Reads the people a webhook spoke of without telling their stage, or whose names are still to be filled.

Gathered: the first hint after a quiet minute waits only a moment for others; those that follow wait until a minute has passed or a hundred
are waiting, and go in one call. The junction itself drops a hint once a reading that began after it is committed.

Someone who is not there may have been created a moment ago (FUB shows them late), be out of the key's sight, in Trash where lists leave
it out, or be deleted. They are read again within seconds, then ever more seldom; after some attempts, or at once when FUB said that they
were deleted, they are asked for by id, and only a 404 makes them gone.

What it costs: a call that does not read a hundred people for the first time draws on an allowance of one call a minute, of which some are
saved up for retries and questions. So there are never more calls than one for each minute and one for each hundred people, whatever the
webhooks say and whatever FUB hides. Where both wait, lists and questions by id take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush

from fubd.core.observation import Channel
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.poller.poll_run import PAGE_SIZE, PollPolicy, PollRun
from fubd.poller.trash_visibility import TrashVisibility
from fubd.ports import Clock, FubApi, PendingRefetch, PeopleQuery, SnapshotSink, StateStore

_log = logging.getLogger("fubd.poller")

_PROMPT_ATTEMPTS = 3
_CONFIRMED_FROM = 5
_GIVEN_UP_AT = 10
_LONGEST_RETRY_SECONDS = 600.0
_MOST_SAVED_CALLS = 20
_ANSWERABLE_AFTER_SECONDS = 2.0
# Accrued in parts, the last call of a minute must not wait for a rounding error.
_EPSILON = 1e-6


class TokenBucket:
    """One call for each `per_seconds`, saved up to a few."""

    def __init__(self, clock: Clock, *, per_seconds: float) -> None:
        self._clock = clock
        self._per_seconds = per_seconds
        self._saved = float(_MOST_SAVED_CALLS)
        self._at = clock.monotonic()

    def seconds_until_next(self) -> float:
        """Give the seconds until a call may be spent; 0 when one may be now."""
        now = self._clock.monotonic()
        self._saved = min(float(_MOST_SAVED_CALLS), self._saved + (now - self._at) / self._per_seconds)
        self._at = now
        return 0.0 if self._saved >= 1 - _EPSILON else (1 - self._saved) * self._per_seconds

    def spend(self) -> None:
        """Take note of a call."""
        self._saved -= 1


class Refetcher:
    """Reads the people that webhooks without a stage name.

    `is_leader` says whether this instance may read; `refetch_requested` is set when new refetch requests were committed.
    """

    def __init__(
        self,
        *,
        api: FubApi,
        ingestor: SnapshotSink,
        state: StateStore,
        clock: Clock,
        policy: PollPolicy,
        is_leader: Callable[[], bool],
        refetch_requested: asyncio.Event,
        trash: TrashVisibility | None = None,
    ) -> None:
        self._api = api
        self._ingestor = ingestor
        self._state = state
        self._clock = clock
        self._policy = policy
        self._is_leader = is_leader
        self._refetch_requested = refetch_requested
        self._trash = trash or TrashVisibility()
        self._allowance = TokenBucket(clock, per_seconds=policy.gather_seconds)
        self._called_at: float | None = None
        self._listed_last = False
        self._just_read: dict[int, datetime] = {}
        self._due: list[float] = []
        self._failures = 0
        self._said: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Read hints until `stop`; outages of either side are waited out."""
        while not stop.is_set():
            self._refetch_requested.clear()
            try:
                wait = await self._turn(stop)
            except (Unavailable, FubRefused, Malformed) as error:
                # New hints do not cut this short: they would meet the same outage.
                await self._clock.pause(self._after_failure(error), stop)
            else:
                self._failures, self._said = 0, None
                await self._clock.pause(wait, stop, self._refetch_requested)

    async def drain_due(self) -> None:
        """Read those who are due now, without waiting for others, and return; of those to be asked for alone a hundred at most.

        Whoever is not there yet is put off. Raises Unavailable, Refused, Malformed.
        """
        asked: set[PendingRefetch] = set()
        alone = 0
        while waiting := [hint for hint in await self._state.due_refetches(PAGE_SIZE) if hint not in asked]:
            together = [hint for hint in waiting if not self._is_asked_for_alone(hint)]
            if together:
                asked.update(together)
                await self._list(together)
            elif alone < PAGE_SIZE:
                asked.add(waiting[0])
                alone += 1
                await self._ask(waiting[0])
            else:
                return

    async def _turn(self, stop: asyncio.Event) -> float:
        """Make the one call that is due; give the seconds until the next look."""
        if not self._is_leader():
            return self._policy.idle_seconds
        waiting = await self._state.due_refetches(PAGE_SIZE)
        if not waiting:
            return self._until_due()
        alone = [hint for hint in waiting if self._is_asked_for_alone(hint)]
        together = [hint for hint in waiting if not self._is_asked_for_alone(hint)]
        until_listed = self._wait_before_list(together)
        until_asked = self._allowance.seconds_until_next() if alone else self._policy.gather_seconds
        if alone and until_asked == 0 and (until_listed > 0 or self._listed_last):
            await self._ask(alone[0])
            return 0.0
        if until_listed == 0:
            return await self._read(stop, together)
        return min(until_listed, until_asked)

    def _is_asked_for_alone(self, hint: PendingRefetch) -> bool:
        """Tell whether a list will not show them: asked for by id, they may be settled."""
        hidden = hint.attempts > 0 and (hint.deleted or self._trash.listed is False)
        return hidden or hint.attempts >= _CONFIRMED_FROM

    def _until_due(self) -> float:
        """Hints that were put off become due without a word; those put off before a restart are found by an idle look."""
        now, late = self._clock.monotonic(), False
        while self._due and self._due[0] <= now:
            heappop(self._due)
            late = True
        if late:
            # Due by our clock and not yet by the database's.
            return self._policy.refetch_retry_seconds
        return min(self._due[0] - now if self._due else self._policy.gather_seconds, self._policy.gather_seconds)

    def _wait_before_list(self, waiting: Sequence[PendingRefetch]) -> float:
        """Give the seconds until these may be read: 0 for a full call, for prompt retries, and when the last call is long enough ago."""
        if not waiting:
            return self._policy.gather_seconds
        if self._fills_a_call(waiting):
            return 0.0
        unread = [hint for hint in waiting if self._just_read.get(hint.person_id) != hint.since]
        rested = 0.0 if self._called_at is None else self._called_at + self._policy.gather_seconds - self._clock.monotonic()
        if any(0 < hint.attempts <= _PROMPT_ATTEMPTS for hint in unread):
            rested = 0.0
        return max(0.0, rested, self._allowance.seconds_until_next())

    def _fills_a_call(self, waiting: Sequence[PendingRefetch]) -> bool:
        """Tell whether a hundred wait who were never asked for."""
        return sum(not hint.attempts and self._just_read.get(hint.person_id) != hint.since for hint in waiting) >= PAGE_SIZE

    def _unanswerable_seconds(self, waiting: Sequence[PendingRefetch]) -> float:
        """Give how long a read would still be too early.

        FUB dates by whole seconds, and its clock is known no better: what it answers in the second of the event may be from before it.
        """
        newest = max(hint.since for hint in waiting)
        age_seconds = (self._api.fub_now() - newest).total_seconds()
        return max(0.0, min(_ANSWERABLE_AFTER_SECONDS, _ANSWERABLE_AFTER_SECONDS - age_seconds))

    def _is_first(self, waiting: Sequence[PendingRefetch]) -> bool:
        return len(waiting) < PAGE_SIZE and not any(hint.attempts for hint in waiting)

    async def _read(self, stop: asyncio.Event, waiting: Sequence[PendingRefetch]) -> float:
        """Read them in one call; those who hint first wait a moment for others, and all until a read can answer them."""
        settle_seconds = max(self._policy.settle_seconds if self._is_first(waiting) else 0.0, self._unanswerable_seconds(waiting))
        if settle_seconds > 0:
            await self._clock.pause(settle_seconds, stop)
            if stop.is_set():
                return 0.0
            waiting = [hint for hint in await self._state.due_refetches(PAGE_SIZE) if not self._is_asked_for_alone(hint)]
        if waiting:
            await self._list(waiting)
        return 0.0

    async def _list(self, waiting: Sequence[PendingRefetch]) -> None:
        run = await self._run(full=self._fills_a_call(waiting))
        self._called_at = self._clock.monotonic()
        self._listed_last = True
        asked = {hint.person_id: hint for hint in waiting}
        page = await run.page(PeopleQuery(limit=PAGE_SIZE, ids=tuple(asked)))
        present = [reading for reading in page.readings if reading.person_id in asked]
        await run.record(present, page.read_at, Channel.WEBHOOK)
        seen = {reading.person_id for reading in present}
        self._just_read = {person_id: asked[person_id].since for person_id in seen}
        await self._reschedule([hint for hint in waiting if hint.person_id not in seen])

    async def _ask(self, hint: PendingRefetch) -> None:
        """Ask for one person by id, and settle where they are."""
        run = await self._run(full=False)
        self._listed_last = False
        try:
            reading, read_at = await run.person(hint.person_id)
        except (FubRefused, Malformed):
            await self._reschedule([hint])
            return
        if reading is not None:
            await run.record([reading], read_at, Channel.WEBHOOK)
            self._just_read[hint.person_id] = hint.since
        elif hint.deleted or hint.attempts >= _CONFIRMED_FROM:
            await self._state.mark_deleted(hint.person_id, read_at)
        else:
            # Created a moment ago, perhaps.
            await self._reschedule([hint])

    async def _run(self, *, full: bool) -> PollRun:
        """Make an errand of one call; one for a hundred people is not drawn from the allowance."""
        coverage = await self._state.coverage()
        if not full:
            self._allowance.spend()
        now = self._clock.monotonic()
        self._due = [due_at for due_at in self._due if due_at > now]
        heapify(self._due)
        return PollRun(self._api, self._ingestor, watermark=coverage.watermark, should_continue=self._is_leader, trash=self._trash)

    async def _reschedule(self, absent: Sequence[PendingRefetch]) -> None:
        """Try again later, ever more seldom, and give up in the end."""
        given_up = [hint.person_id for hint in absent if hint.attempts >= _GIVEN_UP_AT]
        later: dict[float, list[int]] = {}
        for hint in absent:
            if hint.attempts < _GIVEN_UP_AT:
                at_once = hint.deleted and hint.attempts == 0
                delay = 0.0 if at_once else min(self._policy.refetch_retry_seconds * 2.0**hint.attempts, _LONGEST_RETRY_SECONDS)
                later.setdefault(delay, []).append(hint.person_id)
        for delay, people in later.items():
            await self._state.postpone_refetches(people, delay_seconds=delay)
            heappush(self._due, self._clock.monotonic() + delay)
        if given_up:
            await self._state.drop_refetches(given_up)
            _log.warning("Gave up reading %d people a webhook spoke of: Follow Up Boss does not show them.", len(given_up))

    def _after_failure(self, error: Exception) -> float:
        if str(error) != self._said:
            self._said = str(error)
            _log.warning("Could not read the people webhooks spoke of, trying again: %s", error)
        self._failures += 1
        backoff = self._policy.refetch_retry_seconds * 2.0 ** min(self._failures - 1, 10)
        wanted = (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
        return max(min(backoff, self._policy.gather_seconds), wanted)
