"""Reads the people a webhook spoke of without telling their stage, or whose names are still to be filled.

Gathered: the first hint after a quiet minute waits only a moment for others; those that follow wait until a minute has passed or a hundred
are waiting, and go in one call. The junction itself drops a hint once a reading that began after it is committed.

Someone who is not there may have been created a moment ago (FUB shows them late), be out of the key's sight, or be deleted. They are
read again within seconds, then ever more seldom; after some attempts, or at once when FUB said that they were deleted, they are asked for
by id, and only a 404 makes them gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush

from fubd.core.observation import Channel
from fubd.poller.errand import PAGE_SIZE, Errand, PollPolicy
from fubd.poller.trash import Trash
from fubd.ports import Book, Clock, Feed, Inbox, Malformed, PendingHint, PeopleQuery, Refused, Unavailable

_log = logging.getLogger("fubd.poller")

_PROMPT_ATTEMPTS = 3
_CONFIRMED_FROM = 5
_CONFIRMED_AT_ONCE = 20
_GIVEN_UP_AT = 10
_LONGEST_RETRY_SECONDS = 600.0


class Hints:
    """The second loop of the poller. `held` tells whether this instance may read; `hinted` is set when new hints were committed."""

    def __init__(
        self,
        *,
        feed: Feed,
        inbox: Inbox,
        book: Book,
        clock: Clock,
        policy: PollPolicy,
        held: Callable[[], bool],
        hinted: asyncio.Event,
        trash: Trash | None = None,
    ) -> None:
        self._feed = feed
        self._inbox = inbox
        self._book = book
        self._clock = clock
        self._policy = policy
        self._held = held
        self._hinted = hinted
        self._trash = trash
        self._called_at: float | None = None
        self._just_read: dict[int, datetime] = {}
        self._due: list[float] = []
        self._failures = 0
        self._said: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Read hints until `stop`; outages of either side are waited out."""
        while not stop.is_set():
            self._hinted.clear()
            try:
                wait = await self._turn(stop)
            except (Unavailable, Refused, Malformed) as error:
                # New hints do not cut this short: they would meet the same outage.
                await self._clock.pause(self._after_failure(error), stop)
            else:
                self._failures, self._said = 0, None
                await self._clock.pause(wait, stop, self._hinted)

    async def _turn(self, stop: asyncio.Event) -> float:
        """Read what is due; give the seconds until the next look."""
        if not self._held():
            return self._policy.idle_seconds
        waiting = await self._book.hints(PAGE_SIZE)
        if not waiting:
            return self._until_due()
        wait = self._wait_before(waiting)
        if wait > 0:
            return wait
        if self._is_first(waiting):
            await self._clock.pause(self._policy.settle_seconds, stop)
            if stop.is_set():
                return 0.0
            waiting = await self._book.hints(PAGE_SIZE)
        if waiting:
            await self._read(waiting)
        return 0.0

    def _until_due(self) -> float:
        """Hints that were put off become due without a word; those put off before a restart are found by an idle look."""
        now, late = self._clock.monotonic(), False
        while self._due and self._due[0] <= now:
            heappop(self._due)
            late = True
        if late:
            # Due by our clock and not yet by the database's.
            return self._policy.hint_retry_seconds
        return min(self._due[0] - now if self._due else self._policy.gather_seconds, self._policy.gather_seconds)

    def _wait_before(self, waiting: Sequence[PendingHint]) -> float:
        """Give the seconds until these may be read: 0 for a full call, for prompt retries, and when the last call is long enough ago."""
        if self._called_at is None:
            return 0.0
        left = self._called_at + self._policy.gather_seconds - self._clock.monotonic()
        unread = [hint for hint in waiting if self._just_read.get(hint.person_id) != hint.since]
        if left <= 0 or len(unread) >= PAGE_SIZE or any(0 < hint.attempts <= _PROMPT_ATTEMPTS for hint in unread):
            return 0.0
        return left

    def _is_first(self, waiting: Sequence[PendingHint]) -> bool:
        return len(waiting) < PAGE_SIZE and not any(hint.attempts for hint in waiting)

    async def _read(self, waiting: Sequence[PendingHint]) -> None:
        coverage = await self._book.coverage()
        errand = Errand(self._feed, self._inbox, covered=coverage.reached, may_go_on=self._held, trash=self._trash)
        self._called_at = now = self._clock.monotonic()
        self._due = [due_at for due_at in self._due if due_at > now]
        heapify(self._due)
        asked = {hint.person_id: hint for hint in waiting}
        page = await errand.page(PeopleQuery(limit=PAGE_SIZE, ids=tuple(asked)))
        present = [reading for reading in page.readings if reading.person_id in asked]
        await errand.hand_in(present, page.read_at, Channel.WEBHOOK)
        seen = {reading.person_id for reading in present}
        self._just_read = {person_id: asked[person_id].since for person_id in seen}
        await self._settle_absent(errand, [hint for hint in waiting if hint.person_id not in seen])

    async def _settle_absent(self, errand: Errand, absent: Sequence[PendingHint]) -> None:
        given_up = [hint.person_id for hint in absent if hint.attempts >= _GIVEN_UP_AT]
        doubtful = [hint for hint in absent if hint.deleted or _CONFIRMED_FROM <= hint.attempts < _GIVEN_UP_AT]
        settled = {hint.person_id for hint in doubtful[:_CONFIRMED_AT_ONCE] if await self._confirm(errand, hint)}
        later: dict[int, list[int]] = {}
        for hint in absent:
            if hint.person_id not in settled and hint.attempts < _GIVEN_UP_AT:
                later.setdefault(hint.attempts, []).append(hint.person_id)
        for attempts, people in later.items():
            delay = min(self._policy.hint_retry_seconds * 2.0**attempts, _LONGEST_RETRY_SECONDS)
            await self._book.postpone(people, delay_seconds=delay)
            heappush(self._due, self._clock.monotonic() + delay)
        if given_up:
            await self._book.drop_hints(given_up)
            _log.warning("Gave up reading %d people a webhook spoke of: Follow Up Boss does not show them.", len(given_up))

    async def _confirm(self, errand: Errand, hint: PendingHint) -> bool:
        """Ask for one person by id; tell whether it is settled where they are."""
        try:
            reading, read_at = await errand.person(hint.person_id)
        except (Refused, Malformed):
            return False
        if reading is None:
            await self._book.gone(hint.person_id, read_at)
            return True
        await errand.hand_in([reading], read_at, Channel.WEBHOOK)
        self._just_read[hint.person_id] = hint.since
        return True

    def _after_failure(self, error: Exception) -> float:
        if str(error) != self._said:
            self._said = str(error)
            _log.warning("Could not read the people webhooks spoke of, trying again: %s", error)
        self._failures += 1
        backoff = self._policy.hint_retry_seconds * 2.0 ** min(self._failures - 1, 10)
        wanted = (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
        return max(min(backoff, self._policy.gather_seconds), wanted)
