"""The polling loop: one poll after another, at the pace that the mode sets, and what goes with each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

from fubd.backoff import backoff_seconds
from fubd.core.pacing import Pace
from fubd.core.problems import ProblemName
from fubd.core.stored_state import ModeRecord
from fubd.core.subscriptions import SubscriptionsReport
from fubd.errors import FubRefused, Unavailable
from fubd.log_once import LogOnce
from fubd.poller.catch_up import CatchUp
from fubd.poller.context import FUB_ERRORS, PollContext
from fubd.poller.mode import CurrentMode, ModeController
from fubd.poller.scrub import ScrubSchedule
from fubd.ports import Lease
from fubd.problems import Problems

_log = logging.getLogger("fubd.poller")

# In failover at 30 s, a check of the subscriptions with each poll would cost 2,880 calls a day, as many again as the polls.
_CHECK_EVERY_INTERVALS = 4
_FIRST_POLLS_THAT_CHECK = 4
# Jitter and the duration of a poll make a round slightly shorter or longer than its interval.
_NEARLY = 0.9
# At most 24 calls a day.
_ACCOUNT_EVERY_INTERVALS = 2
_REFUSALS_OF_THE_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN)


class SubscriptionChecker(Protocol):
    """Checks and repairs our webhook subscriptions."""

    async def check(self) -> SubscriptionsReport:
        """Check our subscriptions, repair what may be repaired, and report both. Errors of FUB are part of the report."""


class AccountVerifier(Protocol):
    """Compares the account of the API key with that of the database."""

    def require_verification(self) -> None:
        """Compare them again before the next poll."""

    async def verify_if_due(self, every_seconds: float) -> None:
        """Compare them when that is required, or when the last time was so long ago. Raises AccountMismatch, Unavailable."""


class Poller:
    """Polls while this instance holds the lease. Gaining the lease starts a poll at once.

    `webhook_recorded` is set when a webhook was committed. `jitter` returns numbers in [0, 1). `on_mode_change` is called with each change
    of mode and its evidence, once it is stored. `account`: verified again every few polls, and before the poll after a refused key; None
    for never.
    """

    def __init__(
        self,
        context: PollContext,
        *,
        lease: Lease,
        subscriptions: SubscriptionChecker,
        problems: Problems,
        webhook_recorded: asyncio.Event,
        jitter: Callable[[], float],
        on_mode_change: Callable[[ModeRecord, Mapping[str, object]], None] | None = None,
        account: AccountVerifier | None = None,
    ) -> None:
        self._account = account
        self._context = context
        self._clock = context.clock
        self._pacing = context.policy.pacing
        self._lease = lease
        self._subscriptions = subscriptions
        self._problems = problems
        self._webhook_recorded = webhook_recorded
        self._stop = asyncio.Event()
        self._mode = ModeController(context, lease=lease, jitter=jitter, on_mode_change=on_mode_change)
        self._catch_up = CatchUp(context, should_continue=self._should_continue)
        self._scrub = ScrubSchedule(context, should_continue=self._should_continue)
        self._checked_at: float | None = None
        self._decided_at = self._clock.monotonic()
        self._decide_at: float | None = None
        self._failures = 0
        self._log_once = LogOnce(_log)

    def current_mode(self) -> CurrentMode:
        """Return the mode, its reason in words and the delay; while another instance leads, that instance's mode as last seen."""
        return self._mode.current

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until `stop`. Wait out outages of FUB and of the database; any other error is a bug and is raised.

        Raises AccountMismatch once the key belongs to another account.
        """
        self._stop = stop
        while not stop.is_set():
            if self._lease.held:
                self._lease.gained.clear()
                wait_seconds = await self._round()
                await self._wait(wait_seconds, stop)
            else:
                await self._mode.follow()
                await self._clock.pause(self._context.policy.follower_seconds, stop, self._lease.gained)
                self._lease.gained.clear()

    def _should_continue(self) -> bool:
        return self._lease.held and not self._stop.is_set()

    # --- One round: check the subscriptions, poll, scrub, decide -----------------------------------------------------

    async def _round(self) -> float:
        """Do what is due; return the seconds until the next round."""
        failure: Exception | None = None
        try:
            await self._mode.restore()
            await self._verify_account()
            await self._check_subscriptions()
            await self._poll()
            await self._scrub_some()
        except FUB_ERRORS as error:
            failure = error
        self._report_key(failure)
        try:
            decided = await self._decide()
        except Unavailable as error:
            return self._retry_delay_seconds(failure or error, self._pacing.watch_interval_seconds)
        if failure is None:
            self._failures = 0
            self._log_once.resolved("Polling works again")
            return decided.wait_seconds
        return self._retry_delay_seconds(failure, decided.wait_seconds or self._pacing.watch_interval_seconds)

    async def _verify_account(self) -> None:
        """Verify that the key still reads the account of the database, before anything is read or changed with it."""
        if self._account is not None:
            await self._account.verify_if_due(self._pacing.poll_interval_seconds * _ACCOUNT_EVERY_INTERVALS)

    def _report_key(self, failure: Exception | None) -> None:
        """Begin the problem of a refused key, with FUB's own words; end it after a round without a failure."""
        if isinstance(failure, FubRefused) and failure.status in _REFUSALS_OF_THE_KEY:
            self._problems.begin(ProblemName.KEY_REFUSED, f"{failure}. Nothing is polled. {_remedy(failure)}")
            if self._account is not None:
                self._account.require_verification()
        elif failure is None:
            self._problems.end(ProblemName.KEY_REFUSED)

    async def _check_subscriptions(self, *, at_once: bool = False) -> None:
        """Check the subscriptions with every poll; in a long failover with every fourth."""
        spacing_seconds = self._pacing.failover_interval_seconds * _CHECK_EVERY_INTERVALS * _NEARLY
        now = self._clock.monotonic()
        is_due = self._checked_at is None or now - self._checked_at >= spacing_seconds
        if at_once or is_due or self._mode.polls_in_mode < _FIRST_POLLS_THAT_CHECK:
            self._mode.on_subscriptions_checked(await self._subscriptions.check())
            self._checked_at = now

    async def _poll(self) -> None:
        began = self._clock.now()
        changes = self._catch_up.totals.changes
        try:
            await self._catch_up.run()
        except FUB_ERRORS:
            if self._should_continue():
                self._mode.on_poll_failed(began)
            if self._context.incremental.shows_nobody and self._account is not None:
                self._account.require_verification()
            raise
        self._mode.on_poll_complete(began)
        if self._catch_up.totals.changes > changes:
            self._decide_again_soon()

    async def _scrub_some(self) -> None:
        result = await self._scrub.run_if_due()
        if result.mismatched or result.recent:
            self._decide_again_soon()
        if result.lost_sight and self._account is not None:
            self._account.require_verification()

    async def _decide(self) -> Pace:
        """Decide the mode. When that begins a failover and the subscriptions were not checked for it, check them at once."""
        self._webhook_recorded.clear()
        was_failover = self._mode.is_failover
        decided = await self._mode.decide()
        is_unchecked = self._checked_at is None or self._checked_at < self._decided_at
        if self._mode.is_failover and not was_failover and is_unchecked:
            await self._check_subscriptions(at_once=True)
        self._decided_at = self._clock.monotonic()
        return decided

    # --- Waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self, seconds: float, stop: asyncio.Event) -> None:
        """Wait for the next round. A change that turns out to have been missed brings it forward, and a webhook ends watch."""
        due = self._clock.monotonic() + seconds
        while self._should_continue():
            now = self._clock.monotonic()
            if now >= due:
                self._mode.on_delay_elapsed()
                return
            until = due if self._decide_at is None else min(due, self._decide_at)
            ends_watch = [self._webhook_recorded] if self._mode.is_watch else []
            await self._clock.pause(max(0.0, until - now), stop, self._lease.gained, *ends_watch)
            if self._lease.gained.is_set():
                self._lease.gained.clear()
                return
            if self._decide_at is not None and self._clock.monotonic() >= self._decide_at:
                self._decide_at = None
                due = min(due, self._clock.monotonic() + await self._decide_again())
            elif any(event.is_set() for event in ends_watch):
                due = min(due, self._clock.monotonic() + await self._decide_again())

    def _decide_again_soon(self) -> None:
        """Plan another decision, without a call, for when a change found now is old enough to count as missed."""
        # FUB dates by whole seconds, and its clock is known no better.
        margin_seconds = min(1.0, self._pacing.failover_interval_seconds)
        self._decide_at = self._clock.monotonic() + self._pacing.missed_after_seconds + margin_seconds

    async def _decide_again(self) -> float:
        try:
            return (await self._decide()).wait_seconds
        except Unavailable:
            return self._pacing.poll_interval_seconds

    def _retry_delay_seconds(self, error: Exception, at_most_seconds: float) -> float:
        """Log the failure and return the seconds until the next try: the failover interval, doubling up to the watch interval."""
        if self._should_continue():
            self._log_once.warning("Polling failed and is retried: %s", error)
        shortest = self._pacing.failover_interval_seconds
        longest = min(max(shortest, self._pacing.watch_interval_seconds), at_most_seconds)
        self._failures += 1
        requested = (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
        return max(backoff_seconds(self._failures, first_seconds=shortest, longest_seconds=longest), requested)


def _remedy(refusal: FubRefused) -> str:
    """Return what the owner can do about a key that is refused."""
    if refusal.is_foreign:
        return "The key may be right: ask those who run this network or host, or Follow Up Boss's support, what refuses these calls."
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        return "Set FUB_API_KEY to a valid key of the account's owner."
    return "See in Follow Up Boss that the account is active, and that FUB_API_KEY is a key of its owner."
