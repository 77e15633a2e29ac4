"""Decides when to read what: one poll after another, at the pace the webhooks earn, and what goes with each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fubd.core.pacing import Freshness, Mode, Pace, pace, resume
from fubd.core.subscriptions import SubscriptionsReport
from fubd.errors import Unavailable
from fubd.metrics import Metrics
from fubd.poller.blind_time import BlindTimeCounter
from fubd.poller.catch_up import FUB_ERRORS, CatchUp
from fubd.poller.incremental import IncrementalRead
from fubd.poller.poll_run import PollPolicy, Progress
from fubd.poller.refetch import Refetcher
from fubd.poller.trash_visibility import TrashVisibility
from fubd.ports import Clock, FubApi, ModeRecord, SnapshotSink, StateStore

_log = logging.getLogger("fubd.poller")

# In failover at 30 s a look at the subscriptions with each poll would cost 2,880 calls a day, as much again as the polls.
_LOOK_EVERY_INTERVALS = 4
_FIRST_POLLS_THAT_LOOK = 4
# Jitter and the poll's own time make a round a little shorter or longer than the interval.
_ALMOST = 0.9
_MOST_DOUBLINGS = 16


class SubscriptionChecker(Protocol):
    """Looks after our webhook subscriptions (`subscriptions`)."""

    async def check(self) -> SubscriptionsReport:
        """Look, put right what may be put right, and tell. Trouble with FUB is part of the report."""


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """What a recovery run came to. `coverage` is FUB's instant reached, None before the first baseline; `why` it was not caught up."""

    caught_up: bool
    recovered: int
    people_read: int
    api_calls: int
    coverage: datetime | None
    seconds: float
    why: str | None = None


class Poller:
    """Polls while `is_leader()` says that this instance may.

    `jitter` gives numbers in [0, 1). `poll_now` asks for a poll at once. `refetch_requested` is set when new hints were committed.
    `on_mode_change` is called with each change of mode and its evidence, once it is in the book.
    """

    def __init__(
        self,
        *,
        api: FubApi,
        ingestor: SnapshotSink,
        state: StateStore,
        clock: Clock,
        metrics: Metrics,
        policy: PollPolicy,
        subscriptions: SubscriptionChecker,
        jitter: Callable[[], float],
        is_leader: Callable[[], bool],
        refetch_requested: asyncio.Event,
        poll_now: asyncio.Event,
        on_mode_change: Callable[[ModeRecord, Mapping[str, object]], None] | None = None,
    ) -> None:
        self._api = api
        self._ingestor = ingestor
        self._state = state
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._subscriptions = subscriptions
        self._jitter = jitter
        self._is_leader = is_leader
        self._poll_now = poll_now
        self._on_mode_change = on_mode_change
        self._trash = TrashVisibility()
        self._refetcher = Refetcher(
            api=api,
            ingestor=ingestor,
            state=state,
            clock=clock,
            policy=policy,
            is_leader=is_leader,
            refetch_requested=refetch_requested,
            trash=self._trash,
        )
        self._blind_time = BlindTimeCounter(metrics, policy.pacing)
        self._stop = asyncio.Event()
        self._incremental = IncrementalRead()
        self._catch_up = self._make_catch_up(lambda: self._is_leader() and not self._stop.is_set())
        self._pace: Pace | None = None
        self._shown = (Mode.STARTING.value, "nothing is known yet", 0.0)
        self._report = SubscriptionsReport(())
        self._evidence = _Evidence()
        self._looked_at: float | None = None
        self._decided_at = clock.monotonic()
        self._polls_in_mode = 0
        self._scrubbed_at: float | None = None
        self._reckon_at: float | None = None
        self._failures = 0
        self._said: str | None = None

    @property
    def pace(self) -> Pace | None:
        """What was last decided; None before the first decision and while another instance decides."""
        return self._pace

    def shown(self) -> tuple[str, str, float]:
        """Give the mode, its reason in words and the delay in seconds; of another instance, as last seen, while that one decides."""
        return self._shown

    @property
    def subscriptions(self) -> SubscriptionsReport:
        """What the last look at our webhook subscriptions found."""
        return self._report

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until `stop`. Outages of FUB and of the database are waited out; anything else is a bug and is raised."""
        self._stop = stop
        while not stop.is_set():
            if self._is_leader():
                self._poll_now.clear()
                wait = await self._round()
                await self._rest(wait, stop)
            else:
                await self._follow()
                await self._clock.pause(self._policy.idle_seconds, stop, self._poll_now)
                self._poll_now.clear()

    async def run_refetches(self, stop: asyncio.Event) -> None:
        """Read the people webhooks spoke of, until `stop`."""
        await self._refetcher.run(stop)

    async def drain_due(self) -> None:
        """Read the people webhooks spoke of who are due now, and return. Raises Unavailable, Refused, Malformed."""
        await self._refetcher.drain_due()

    async def catch_up(
        self,
        *,
        full: bool = False,
        progress: Callable[[Progress], None] | None = None,
        stop: asyncio.Event | None = None,
    ) -> RecoveryResult:
        """Poll once from where coverage ended (reading everybody when `full`, or when nobody was ever read) and tell what it brought.

        Needs no lease and changes no mode. `stop` ends it before the next call; a sweep goes on from there the next time.
        """
        began, calls = self._clock.monotonic(), self._api.calls_made()
        reader = self._make_catch_up(lambda: stop is None or not stop.is_set(), progress)
        reached: datetime | None = None
        why: str | None = None
        try:
            reached = (await self._state.coverage()).watermark
            reached = await reader.catch_up(full=full)
        except FUB_ERRORS as error:
            why = str(error)
            _log.warning("Not caught up: %s", error)
        return RecoveryResult(
            caught_up=why is None,
            recovered=reader.totals.changes,
            people_read=reader.totals.people,
            api_calls=self._api.calls_made() - calls,
            coverage=reached,
            seconds=self._clock.monotonic() - began,
            why=why,
        )

    def _make_catch_up(self, should_continue: Callable[[], bool], progress: Callable[[Progress], None] | None = None) -> CatchUp:
        return CatchUp(
            api=self._api,
            ingestor=self._ingestor,
            state=self._state,
            clock=self._clock,
            metrics=self._metrics,
            policy=self._policy,
            walk=self._incremental,
            trash=self._trash,
            should_continue=should_continue,
            progress=progress,
        )

    async def _follow(self) -> None:
        """Show what another instance decides. What it decided last is taken up when the turn is ours."""
        self._pace = None
        with suppress(Unavailable):
            record = await self._state.last_mode()
            if record is not None:
                self._show(record.mode, record.reason, record.delay_seconds)

    # --- One round: look at the subscriptions, poll, scrub, decide ---------------------------------------------------

    async def _round(self) -> float:
        """Do what is due; give the seconds until the next round."""
        failure: Exception | None = None
        try:
            await self._restore()
            await self._look()
            await self._poll()
            await self.scrub_some()
        except FUB_ERRORS as error:
            failure = error
        try:
            decided = await self._decide_and_look()
        except Unavailable as error:
            return self._after_failure(failure or error, self._policy.pacing.watch_interval_seconds)
        if failure is None:
            self._after_success()
            return decided.wait_seconds
        return self._after_failure(failure, decided.wait_seconds or self._policy.pacing.watch_interval_seconds)

    async def _restore(self) -> None:
        """Go on from the mode in the book; on a fresh database, announce the first."""
        if self._pace is not None:
            return
        self._catch_up.show_coverage((await self._state.coverage()).watermark)
        self._blind_time.resume(await self._state.last_heard())
        record = await self._state.last_mode()
        self._polls_in_mode = 0
        self._evidence = _Evidence()
        restored = None
        if record is not None:
            restored = resume(record.mode, record.reason, record.delay_seconds, record.since, record.hysteresis)
        if restored is None:
            await self._decide()
        else:
            self._pace = restored
            self._show(restored.mode.value, restored.reason, restored.delay_seconds)

    async def _look(self, *, at_once: bool = False) -> None:
        """Have the subscriptions looked after: with every poll, in a long failover with every fourth."""
        spacing = self._policy.pacing.failover_interval_seconds * _LOOK_EVERY_INTERVALS * _ALMOST
        now = self._clock.monotonic()
        rested = self._looked_at is None or now - self._looked_at >= spacing
        if at_once or rested or self._polls_in_mode < _FIRST_POLLS_THAT_LOOK:
            self._report = await self._subscriptions.check()
            self._looked_at = now
            self._evidence.found_broken = self._report.was_broken or self._evidence.found_broken

    async def _poll(self) -> None:
        began = self._clock.now()
        changes = self._catch_up.totals.changes
        await self._catch_up.catch_up(full=False)
        self._polls_in_mode += 1
        self._evidence.polled_from = began
        if self._catch_up.totals.changes > changes:
            self._reckon_soon()

    async def scrub_some(self) -> None:
        """Re-verify some people: with every poll of steady, and no more often than those would. Raises Unavailable, Refused, Malformed."""
        now = self._clock.monotonic()
        spacing = self._policy.pacing.poll_interval_seconds * _ALMOST
        if self._policy.scrub_batches < 1 or (self._scrubbed_at is not None and now - self._scrubbed_at < spacing):
            return
        self._scrubbed_at = now
        scrubbed = await self._catch_up.scrub()
        if scrubbed.mismatched:
            _log.info(
                "Of %d people re-verified, %d had a change that both sources missed.",
                scrubbed.matched + scrubbed.mismatched,
                scrubbed.mismatched,
            )
            self._reckon_soon()

    # --- Waiting -----------------------------------------------------------------------------------------------------

    async def _rest(self, seconds: float, stop: asyncio.Event) -> None:
        """Wait for the next round. What turns out to have been missed brings it closer."""
        due = self._clock.monotonic() + seconds
        while not stop.is_set() and self._is_leader():
            now = self._clock.monotonic()
            if now >= due:
                self._evidence.waited_out = True
                return
            until = due if self._reckon_at is None else min(due, self._reckon_at)
            await self._clock.pause(max(0.0, until - now), stop, self._poll_now)
            if self._poll_now.is_set():
                self._poll_now.clear()
                return
            if self._reckon_at is not None and self._clock.monotonic() >= self._reckon_at:
                due = min(due, self._clock.monotonic() + await self._reckon())

    def _reckon_soon(self) -> None:
        """What was found now may be younger than what counts as missed; look again, without a call, when it no longer is."""
        # FUB dates by whole seconds, and its clock is known no better.
        margin = min(1.0, self._policy.pacing.failover_interval_seconds)
        self._reckon_at = self._clock.monotonic() + self._policy.pacing.missed_after_seconds + margin

    async def _reckon(self) -> float:
        self._reckon_at = None
        try:
            return (await self._decide_and_look()).wait_seconds
        except Unavailable:
            return self._policy.pacing.poll_interval_seconds

    def _after_failure(self, error: Exception, at_most: float) -> float:
        """Give the seconds until the next try: the failover interval, doubling up to the watch interval. Each cause is said once."""
        if str(error) != self._said and self._is_leader() and not self._stop.is_set():
            self._said = str(error)
            _log.warning("Polling failed and is tried again: %s", error)
        shortest = self._policy.pacing.failover_interval_seconds
        longest = min(max(shortest, self._policy.pacing.watch_interval_seconds), at_most)
        backoff = min(shortest * 2.0 ** min(self._failures, _MOST_DOUBLINGS), longest)
        self._failures += 1
        wanted = (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
        return max(backoff, wanted)

    def _after_success(self) -> None:
        if self._failures:
            _log.info("Polling works again after %d failed tries.", self._failures)
        self._failures, self._said = 0, None

    # --- Deciding ----------------------------------------------------------------------------------------------------

    async def _decide_and_look(self) -> Pace:
        """Decide; when that is failover and the subscriptions were not looked at for it, look at once."""
        before, looked_at = self._pace, self._looked_at
        decided = await self._decide()
        worse = decided.mode is Mode.FAILOVER and (before is None or before.mode is not Mode.FAILOVER)
        if worse and (looked_at is None or looked_at < self._decided_at):
            await self._look(at_once=True)
        self._decided_at = self._clock.monotonic()
        return decided

    async def _decide(self) -> Pace:
        """Weigh the evidence, go over to another mode where it asks for it, and show everything. Raises Unavailable."""
        if not self._is_leader():
            # What is counted now would be lost to the one who decides.
            raise Unavailable("another instance polls now")
        policy = self._policy.pacing
        evidence, heard, coverage = self._evidence, await self._state.last_heard(), await self._state.coverage()
        missed = await self._state.missed_changes(fub_now=self._api.fub_now(), missed_after_seconds=policy.missed_after_seconds)
        self._metrics.missed_by_webhook.inc(len(missed - evidence.missed))
        evidence.missed |= missed
        now = self._clock.now()
        fresh = Freshness(
            has_baseline=coverage.watermark is not None and self._pace is not None,
            webhook_heard=heard.webhook_received,
            stage_webhook_heard=heard.stage_webhook_received,
            missed=len(evidence.missed),
            broken=evidence.found_broken or self._report.is_broken,
            repaired=self._report.is_broken is None,
            waited_full_delay=evidence.waited_out and evidence.polled_from is not None,
        )
        before = self._pace
        decided = pace(before, fresh, now, policy, self._jitter())
        self._blind_time.account(heard, now, pace=before, polled_from=evidence.polled_from)
        if before is None or decided.mode is not before.mode:
            await self._announce(before, decided, fresh)
        elif evidence.missed or (decided.delay_seconds, decided.hysteresis) != (before.delay_seconds, before.hysteresis):
            await self._state.update_mode(decided.delay_seconds, decided.hysteresis, missed=evidence.missed)
        self._pace = decided
        self._evidence = _Evidence()
        self._show(decided.mode.value, decided.reason, decided.delay_seconds)
        return decided

    async def _announce(self, before: Pace | None, decided: Pace, fresh: Freshness) -> None:
        evidence: dict[str, object] = {
            "before": None if before is None else before.mode.value,
            "missed": fresh.missed,
            "subscriptions": self._report.statuses(),
            "broken": fresh.broken,
            "webhook_heard": _text(fresh.webhook_heard),
            "stage_webhook_heard": _text(fresh.stage_webhook_heard),
        }
        record = ModeRecord(decided.mode.value, decided.reason, decided.delay_seconds, decided.since, decided.hysteresis)
        await self._state.insert_mode(record, evidence=evidence, missed=self._evidence.missed)
        self._polls_in_mode = 0
        self._metrics.mode_changes.labels(decided.mode.value).inc()
        _log.info("Mode %s: %s. The next poll follows within %g s.", decided.mode.value, decided.reason, decided.delay_seconds)
        if self._on_mode_change is not None:
            self._on_mode_change(record, evidence)

    def _show(self, mode: str, reason: str, delay_seconds: float) -> None:
        self._shown = (mode, reason, delay_seconds)
        self._metrics.show_mode(mode)
        self._metrics.poll_interval_seconds.set(delay_seconds)


@dataclass(slots=True)
class _Evidence:
    """What was gathered since the last decision. A decision that could not be kept leaves it for the next.

    `polled_from`: when (our clock) a complete poll began. `waited_out`: it came after the whole delay. `found_broken`: what a look at the
    subscriptions found wrong, repaired since or not.
    """

    missed: frozenset[int] = frozenset()
    found_broken: str | None = None
    polled_from: datetime | None = None
    waited_out: bool = False


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
