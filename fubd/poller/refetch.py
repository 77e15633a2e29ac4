"""Read the people named by webhooks that carry no stage, and those whose row still lacks a name.

Requests are batched. The first one after a quiet minute waits only a moment for others; the following ones wait until a minute has passed
or a hundred are pending, and go in one call. Full pages wait for the end of a burst of deliveries, which reads would slow down. Ingest
itself deletes a request once a reading that began after it is committed.

A person who is absent may have been created a moment ago (FUB shows new people late, observed), be invisible to the key, be in Trash where
lists leave it out, or be deleted. They are read again within seconds, then at growing intervals. After some attempts, or at once when FUB
reported the deletion, they are read by id, and only a 404 marks them deleted.

The cost is bounded by a token bucket: a call that does not read a hundred people for the first time takes a token, and one token is added
per minute, up to a few. So there is never more than one call per minute plus one per hundred people, whatever webhooks say and whatever
FUB hides. Where both are pending, list calls and reads by id take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush

from fubd.backoff import backoff_seconds
from fubd.core.observation import Channel
from fubd.core.stored_state import PendingRefetch
from fubd.core.text import format_count
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.log_once import LogOnce
from fubd.poller.burst import Burst
from fubd.poller.context import FUB_ERRORS, PollContext
from fubd.poller.id_batch import read_id_batch
from fubd.poller.poll_run import PAGE_SIZE, PollRun
from fubd.ports import Clock, Lease

_log = logging.getLogger("fubd.poller")

_PROMPT_ATTEMPTS = 3
_READ_BY_ID_FROM = 5
_MAX_ATTEMPTS = 10
_MAX_RETRY_SECONDS = 600.0
_MAX_TOKENS = 20
_ANSWERABLE_AFTER_SECONDS = 2.0
# Tokens accrue in fractions; a rounding error must not delay the last call of a minute.
_EPSILON = 1e-6


class TokenBucket:
    """One token per `seconds_per_token`, up to a few."""

    def __init__(self, clock: Clock, *, seconds_per_token: float) -> None:
        self._clock = clock
        self._seconds_per_token = seconds_per_token
        self._tokens = float(_MAX_TOKENS)
        self._updated_at = clock.monotonic()

    def seconds_until_next(self) -> float:
        """Return the seconds until a token is available; 0 when one is."""
        now = self._clock.monotonic()
        self._tokens = min(float(_MAX_TOKENS), self._tokens + (now - self._updated_at) / self._seconds_per_token)
        self._updated_at = now
        return 0.0 if self._tokens >= 1 - _EPSILON else (1 - self._tokens) * self._seconds_per_token

    def take(self) -> None:
        """Take a token."""
        self._tokens -= 1


class Refetcher:
    """Reads the people with a pending refetch request, while this instance holds the lease.

    `refetch_requested` is set when new requests were committed.
    """

    def __init__(self, context: PollContext, *, lease: Lease, refetch_requested: asyncio.Event) -> None:
        self._context = context
        self._state = context.state
        self._clock = context.clock
        self._policy = context.policy
        self._lease = lease
        self._refetch_requested = refetch_requested
        self._burst = Burst(quiet_seconds=context.policy.settle_seconds, longest_seconds=context.policy.batch_seconds)
        self._tokens = TokenBucket(context.clock, seconds_per_token=context.policy.batch_seconds)
        self._listed_at: float | None = None
        self._was_list = False
        self._just_read: dict[int, datetime] = {}
        self._postponed: list[float] = []
        self._failures = 0
        self._log_once = LogOnce(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Answer refetch requests until `stop`; wait out outages of FUB and of the database."""
        while not stop.is_set():
            self._burst.look(self._clock.monotonic(), requested=self._refetch_requested.is_set())
            self._refetch_requested.clear()
            try:
                wait_seconds = await self._step(stop)
            except FUB_ERRORS as error:
                # New requests do not shorten this wait: they would meet the same outage.
                await self._clock.pause(self._retry_delay_seconds(error), stop)
            else:
                await self._wait(wait_seconds, stop)

    async def _wait(self, seconds: float, stop: asyncio.Event) -> None:
        """Wait so long or until a request comes; in a burst the next look comes after a moment, not with each request."""
        until_quiet = min(seconds, self._burst.seconds_until_quiet(self._clock.monotonic()))
        if until_quiet > 0:
            await self._clock.pause(until_quiet, stop)
        else:
            await self._clock.pause(seconds, stop, self._refetch_requested)

    async def drain_due(self) -> None:
        """Read everyone who is due now, without waiting for others, and at most a hundred of them by id.

        People who are absent are postponed. Raises Unavailable, FubRefused, Malformed.
        """
        done: set[PendingRefetch] = set()
        read_by_id = 0
        while due := [request for request in await self._state.due_refetches(PAGE_SIZE) if request not in done]:
            for_list = [request for request in due if not self._needs_read_by_id(request)]
            if for_list:
                done.update(for_list)
                await self._read_list(for_list)
            elif read_by_id < PAGE_SIZE:
                done.add(due[0])
                read_by_id += 1
                await self._fetch_by_id(due[0])
            else:
                return

    async def _step(self, stop: asyncio.Event) -> float:
        """Make the one call that is due; return the seconds until the next step."""
        if not self._lease.held:
            return self._policy.follower_seconds
        due = await self._state.due_refetches(PAGE_SIZE)
        if not due:
            return self._seconds_until_due()
        by_id = [request for request in due if self._needs_read_by_id(request)]
        for_list = [request for request in due if not self._needs_read_by_id(request)]
        until_list = self._seconds_until_list(for_list)
        until_by_id = self._tokens.seconds_until_next() if by_id else self._policy.batch_seconds
        if by_id and until_by_id == 0 and (until_list > 0 or self._was_list):
            await self._fetch_by_id(by_id[0])
            return 0.0
        if until_list == 0:
            return await self._settle_and_read_list(stop, for_list)
        return min(until_list, until_by_id)

    def _needs_read_by_id(self, request: PendingRefetch) -> bool:
        """Return whether a list will not show the person, while a read by id can."""
        is_hidden = request.attempts > 0 and (request.deleted or self._context.trash.listed is False)
        return is_hidden or request.attempts >= _READ_BY_ID_FROM

    def _seconds_until_due(self) -> float:
        """Return the wait until a postponed request is due. Those postponed before a restart are found by the regular look."""
        now, is_late = self._clock.monotonic(), False
        while self._postponed and self._postponed[0] <= now:
            heappop(self._postponed)
            is_late = True
        if is_late:
            # Due by our clock, and not yet by the clock of the database.
            return self._policy.refetch_retry_seconds
        return min(self._postponed[0] - now if self._postponed else self._policy.batch_seconds, self._policy.batch_seconds)

    def _seconds_until_list(self, requests: Sequence[PendingRefetch]) -> float:
        """Return the wait for a list call: 0 for a full page after a burst, for early retries, and long enough after the last list call."""
        if not requests:
            return self._policy.batch_seconds
        if self._fills_page(requests):
            return self._burst.seconds_to_wait(self._clock.monotonic())
        unread = [request for request in requests if self._just_read.get(request.person_id) != request.since]
        until_batch = 0.0 if self._listed_at is None else self._listed_at + self._policy.batch_seconds - self._clock.monotonic()
        if any(0 < request.attempts <= _PROMPT_ATTEMPTS for request in unread):
            until_batch = 0.0
        return max(0.0, until_batch, self._tokens.seconds_until_next())

    def _fills_page(self, requests: Sequence[PendingRefetch]) -> bool:
        """Return whether a hundred people are pending who were never read for their request."""
        return sum(not request.attempts and self._just_read.get(request.person_id) != request.since for request in requests) >= PAGE_SIZE

    def _seconds_until_answerable(self, requests: Sequence[PendingRefetch]) -> float:
        """Return how long a read would still be too early.

        FUB dates by whole seconds, and its clock is known no better: what it returns in the second of the event may precede the event.
        """
        newest = max(request.since for request in requests)
        age_seconds = (self._context.api.fub_now() - newest).total_seconds()
        return max(0.0, min(_ANSWERABLE_AFTER_SECONDS, _ANSWERABLE_AFTER_SECONDS - age_seconds))

    async def _settle_and_read_list(self, stop: asyncio.Event, requests: Sequence[PendingRefetch]) -> float:
        """Wait a moment for further requests, and until a read can answer all of them; then read the list."""
        is_first_batch = len(requests) < PAGE_SIZE and not any(request.attempts for request in requests)
        settle_seconds = max(self._policy.settle_seconds if is_first_batch else 0.0, self._seconds_until_answerable(requests))
        if settle_seconds > 0:
            await self._clock.pause(settle_seconds, stop)
            if stop.is_set():
                return 0.0
            requests = [request for request in await self._state.due_refetches(PAGE_SIZE) if not self._needs_read_by_id(request)]
        if requests:
            await self._read_list(requests)
        return 0.0

    async def _read_list(self, requests: Sequence[PendingRefetch]) -> None:
        run = await self._start_run(is_free=self._fills_page(requests))
        self._listed_at = self._clock.monotonic()
        self._was_list = True
        pending = {request.person_id: request for request in requests}
        seen: set[int] = set()
        async for page in read_id_batch(run, list(pending)):
            present = [reading for reading in page.readings if reading.person_id in pending]
            await run.record(present, page.read_at, Channel.WEBHOOK)
            seen.update(reading.person_id for reading in present)
        for _ in range(run.stats.calls - 1):
            # An odd id cost further calls.
            self._tokens.take()
        self._just_read = {person_id: pending[person_id].since for person_id in seen}
        await self._reschedule([request for request in requests if request.person_id not in seen])
        self._note_success()

    async def _fetch_by_id(self, request: PendingRefetch) -> None:
        """Read one person by id: recorded, marked deleted or rescheduled."""
        run = await self._start_run(is_free=False)
        self._was_list = False
        try:
            reading, read_at = await run.person(request.person_id)
        except (FubRefused, Malformed):
            await self._reschedule([request])
            return
        if reading is not None:
            await run.record([reading], read_at, Channel.WEBHOOK)
            self._just_read[request.person_id] = request.since
        elif request.deleted or request.attempts >= _READ_BY_ID_FROM:
            await self._state.mark_deleted(request.person_id, read_at)
        else:
            # The person may have been created a moment ago.
            await self._reschedule([request])
        self._note_success()

    async def _start_run(self, *, is_free: bool) -> PollRun:
        """Return a run for one call; a call for a hundred people is free, any other takes a token."""
        coverage = await self._state.coverage()
        if not is_free:
            self._tokens.take()
        now = self._clock.monotonic()
        self._postponed = [due_at for due_at in self._postponed if due_at > now]
        heapify(self._postponed)
        return PollRun(
            self._context.api,
            self._context.ingestor,
            watermark=coverage.watermark,
            should_continue=lambda: self._lease.held,
            trash=self._context.trash,
            unread=self._context.unread,
            strangers=self._context.strangers,
        )

    async def _reschedule(self, absent: Sequence[PendingRefetch]) -> None:
        """Postpone the requests by growing delays; drop them after the last attempt."""
        given_up = [request.person_id for request in absent if request.attempts >= _MAX_ATTEMPTS]
        by_delay: dict[float, list[int]] = {}
        for request in absent:
            if request.attempts < _MAX_ATTEMPTS:
                by_delay.setdefault(self._postpone_seconds(request), []).append(request.person_id)
        for delay_seconds, people in by_delay.items():
            await self._state.postpone_refetches(people, delay_seconds=delay_seconds)
            heappush(self._postponed, self._clock.monotonic() + delay_seconds)
        if given_up:
            await self._state.drop_refetches(given_up)
            _log.warning("Gave up reading %s named by webhooks: Follow Up Boss does not return them", format_count(len(given_up), "person"))

    def _postpone_seconds(self, request: PendingRefetch) -> float:
        if request.deleted and request.attempts == 0:
            return 0.0
        retry_seconds = self._policy.refetch_retry_seconds
        return backoff_seconds(request.attempts + 1, first_seconds=retry_seconds, longest_seconds=_MAX_RETRY_SECONDS)

    def _note_success(self) -> None:
        """Note that a read was made: a step that only waits says nothing about FUB."""
        self._failures = 0
        self._log_once.resolved("Reading the people named by webhooks works again")

    def _retry_delay_seconds(self, error: Exception) -> float:
        self._log_once.warning("Reading the people named by webhooks failed and is retried: %s", error)
        self._failures += 1
        retry_seconds, batch_seconds = self._policy.refetch_retry_seconds, self._policy.batch_seconds
        delay_seconds = backoff_seconds(self._failures, first_seconds=retry_seconds, longest_seconds=batch_seconds)
        requested = (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
        return max(delay_seconds, requested)
