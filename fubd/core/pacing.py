"""Decide how often to poll, by what is proven about the webhooks.

| mode | when | next poll |
|---|---|---|
| starting | the account was never read completely | now |
| steady | a delivery within the stale time, and nothing proves that webhooks fail | the poll interval, or when silence turns stale |
| watch | silence for longer, without proof (a quiet night); it ends with the first delivery | the watch interval |
| failover | proof: a change that polling found and no webhook reported in time, or a subscription not in force | the failover interval |
| recovering | in failover, and a stage webhook arrived again | doubling from the failover interval |

These rules keep the mode from flapping:

- Silence alone is never proof. It leads to watch, and watch leads back to steady.
- Failover ends only when a stage webhook arrived after it began. When a miss was the proof, the polls must also have had time to judge
  (`missed_after`) since that arrival; otherwise late changes of the outage would bring failover back at once.
- Each relapse doubles the time without proof that the next recovery requires, from four failover intervals up to the stale time. Failover
  is a relapse when the last proof is no more than six stale times ago, whatever came between.
- A subscription that was found broken and repaired is no proof of a miss. When no change follows at all, there is nothing that a webhook
  could report: after the stale time without proof this failover becomes watch.

While polls fail, no reason says that nothing was missed; each ends with since when polling has failed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from enum import StrEnum

from fubd.backoff import backoff_seconds
from fubd.core.freshness import is_fresh
from fubd.core.text import format_count, format_duration, format_instant

# Large enough to keep instances from polling in step, small enough to stay within 300 calls a day.
_JITTER_SHARE = 0.02
_SHORTEST_DELAY_SECONDS = 1.0
_RELAPSE_STALE_TIMES = 6
_FIRST_RELAPSE_INTERVALS = 4
_NOTHING_MISSED = ", and polling finds nothing that they missed"
_FAILED_SINCE = "; polling has failed since "


class Mode(StrEnum):
    """The five modes of polling, by the names that the metric and the database use."""

    STARTING = "starting"
    STEADY = "steady"
    WATCH = "watch"
    FAILOVER = "failover"
    RECOVERING = "recovering"


@dataclass(frozen=True, slots=True)
class Policy:
    """The owner's settings, in seconds; any positive number, fractions too. `zone`: of the times in reasons."""

    poll_interval_seconds: float = 1800.0
    watch_interval_seconds: float = 300.0
    failover_interval_seconds: float = 30.0
    webhook_stale_after_seconds: float = 3600.0
    poll_stale_after_seconds: float = 2700.0
    missed_after_seconds: float = 120.0
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Freshness:
    """What is known of the sources after a poll. Instants are our clock's.

    `has_baseline`: the account was read completely at least once. `missed`: the number of changes that this poll proved missed by webhooks;
    `missed_before_start`: all of them happened before this process ran, so that there may have been nobody to receive a webhook.
    `broken`: what is wrong with our subscriptions, in words; None when they are in force or nothing is known of them. `repaired`: this very
    check repaired it. `waited_full_delay`: a complete poll was made after the whole delay, so a recovery may slow down by a step.
    `polling_failed_since`: when the first poll after the last complete one began; None when the last poll was complete.
    """

    has_baseline: bool
    webhook_heard: datetime | None
    stage_webhook_heard: datetime | None
    missed: int = 0
    broken: str | None = None
    repaired: bool = False
    waited_full_delay: bool = True
    polling_failed_since: datetime | None = None
    missed_before_start: bool = False


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """What keeps the mode from flapping. Instants are our clock's.

    `proven_at`: when it was last proven that webhooks fail. `missed`: one of the proofs of this failover was a miss. `heard_again_at`: when
    a stage webhook was first received in this failover. `relapses`: failovers in a row, each soon after the proof of the one before.
    """

    proven_at: datetime | None = None
    missed: bool = False
    heard_again_at: datetime | None = None
    relapses: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """The decision: the mode and since when, why, and how long until the next poll.

    `delay_seconds` is shown and doubled; `wait_seconds` is the delay minus the jitter.
    """

    mode: Mode
    delay_seconds: float
    wait_seconds: float
    reason: str
    since: datetime
    hysteresis: Hysteresis = Hysteresis()


def resume(mode: str, reason: str, delay_seconds: float, since: datetime, hysteresis: Hysteresis | None) -> Pace | None:
    """Return the decision that was stored before a restart, as if there had been none; None for an unknown mode.

    `hysteresis` is None where an older version did not store it. Then a miss at the beginning of the mode is assumed, which can only make a
    failover longer.
    """
    if mode not in set(Mode):
        return None
    if hysteresis is None:
        proven = mode in (Mode.FAILOVER, Mode.RECOVERING)
        hysteresis = Hysteresis(proven_at=since if proven else None, missed=proven)
    return Pace(Mode(mode), delay_seconds, delay_seconds, reason, since, hysteresis)


def pace(before: Pace | None, fresh: Freshness, now: datetime, policy: Policy, jitter: float) -> Pace:
    """Return the mode and the time of the next poll. `jitter` in [0, 1) shortens the wait by up to 2 %; it never lengthens it."""
    decided = _decide(before, fresh, now, policy)
    if before is not None and before.mode is decided.mode:
        decided = replace(decided, since=before.since)
    reason = with_failure(decided.reason, fresh.polling_failed_since, policy.zone)
    return replace(decided, reason=reason, wait_seconds=decided.delay_seconds * (1 - _JITTER_SHARE * jitter))


def with_failure(reason: str, since: datetime | None, zone: tzinfo) -> str:
    """Return the reason with since when polling has failed, in place of what was said of polling before."""
    reason = reason.partition(_FAILED_SINCE)[0]
    return reason if since is None else f"{reason.removesuffix(_NOTHING_MISSED)}{_FAILED_SINCE}{format_instant(since, zone)}"


def before_first_poll(reason: str) -> str:
    """Return the reason of a mode that a process before this one decided, without what only a poll of this one can say."""
    return reason.partition(_FAILED_SINCE)[0].removesuffix(_NOTHING_MISSED)


def while_not_recording(reason: str, since: datetime, zone: tzinfo) -> str:
    """Return the reason of a mode with since when nothing is recorded, in place of what was said of polling."""
    return f"{before_first_poll(reason)}; nothing is recorded since {format_instant(since, zone)}"


def while_not_running(reason: str) -> str:
    """Return the reason of the mode that was decided last, when no daemon runs that would know of a new one."""
    return f"no daemon runs now; when one last decided: {reason}"


def _decide(before: Pace | None, fresh: Freshness, now: datetime, policy: Policy) -> Pace:
    mode = Mode.STARTING if before is None else before.mode
    if not fresh.has_baseline:
        return _mode(Mode.STARTING, 0.0, "the account is being read for the first time", now)
    proof = _proof(mode, fresh)
    if proof is not None:
        return _failover(before, fresh, proof, now, policy)
    if before is not None and mode is Mode.FAILOVER:
        return _out_of_failover(before, fresh, now, policy)
    if before is not None and mode is Mode.RECOVERING:
        return _out_of_recovering(before, fresh, now, policy)
    return _without_proof(before, fresh, now, policy)


def _mode(mode: Mode, delay_seconds: float, reason: str, now: datetime) -> Pace:
    return Pace(mode, delay_seconds, delay_seconds, reason, now)


def _proof(mode: Mode, fresh: Freshness) -> str | None:
    """Return what proves that webhooks fail, None for no proof. Creating them for the first time does not count as a repair."""
    before_start = ", all from before fubd started, when webhooks may have found it stopped" if fresh.missed_before_start else ""
    proofs = [f"polling found {format_count(fresh.missed, 'change')} that no webhook had reported{before_start}"] if fresh.missed else []
    if fresh.broken is not None and not (fresh.repaired and mode is Mode.STARTING):
        proofs.append(f"{fresh.broken} (repaired at once)" if fresh.repaired else fresh.broken)
    return "; ".join(proofs) or None


def _failover(before: Pace | None, fresh: Freshness, proof: str, now: datetime, policy: Policy) -> Pace:
    fell = _mode(Mode.FAILOVER, policy.failover_interval_seconds, proof, now)
    return replace(fell, hysteresis=_proven(before, fresh, now, policy))


def _proven(before: Pace | None, fresh: Freshness, now: datetime, policy: Policy) -> Hysteresis:
    proven = Hysteresis(proven_at=now, missed=fresh.missed > 0)
    if before is None:
        return proven
    past = before.hysteresis
    if before.mode is Mode.FAILOVER:
        return replace(past, proven_at=now, missed=proven.missed or past.missed, heard_again_at=_heard_again(before, fresh, now))
    soon = _RELAPSE_STALE_TIMES * policy.webhook_stale_after_seconds
    relapsed = past.proven_at is not None and (now - past.proven_at).total_seconds() <= soon
    return replace(proven, relapses=past.relapses + 1 if relapsed else 0)


def _heard_again(before: Pace, fresh: Freshness, now: datetime) -> datetime | None:
    past = before.hysteresis
    if past.heard_again_at is None and fresh.stage_webhook_heard is not None and fresh.stage_webhook_heard > before.since:
        return now
    return past.heard_again_at


def _out_of_failover(before: Pace, fresh: Freshness, now: datetime, policy: Policy) -> Pace:
    past = before.hysteresis
    proven_at = past.proven_at or before.since
    heard_again_at = _heard_again(before, fresh, now)
    if heard_again_at is not None:
        quiet_seconds = (now - max(heard_again_at, proven_at)).total_seconds()
        if quiet_seconds >= _hold_seconds(past, policy):
            reason = "a stage webhook arrived again; polling slows down step by step while nothing is missed"
            found = _mode(Mode.RECOVERING, _bounded(policy.failover_interval_seconds, fresh, now, policy), reason, now)
            return replace(found, hysteresis=Hysteresis(proven_at, relapses=past.relapses))
    elif not past.missed and (now - proven_at).total_seconds() >= policy.webhook_stale_after_seconds:
        return _without_proof(before, fresh, now, policy)
    past = replace(past, heard_again_at=heard_again_at, proven_at=proven_at)
    return replace(before, delay_seconds=policy.failover_interval_seconds, hysteresis=past)


def _hold_seconds(past: Hysteresis, policy: Policy) -> float:
    """Return for how long failover requires polls without proof after a stage webhook arrived again."""
    judged = policy.missed_after_seconds if past.missed else 0.0
    if past.relapses == 0:
        return judged
    first_seconds = policy.failover_interval_seconds * _FIRST_RELAPSE_INTERVALS
    doubled = backoff_seconds(past.relapses, first_seconds=first_seconds, longest_seconds=policy.webhook_stale_after_seconds)
    return max(judged, doubled)


def _out_of_recovering(before: Pace, fresh: Freshness, now: datetime, policy: Policy) -> Pace:
    if not is_fresh(fresh.webhook_heard, now, within_seconds=policy.webhook_stale_after_seconds):
        return _without_proof(before, fresh, now, policy)
    delay = before.delay_seconds * 2 if fresh.waited_full_delay else before.delay_seconds
    if delay >= policy.poll_interval_seconds:
        return _without_proof(before, fresh, now, policy)
    return replace(before, delay_seconds=_bounded(delay, fresh, now, policy))


def _without_proof(before: Pace | None, fresh: Freshness, now: datetime, policy: Policy) -> Pace:
    """Return steady or watch, by silence alone."""
    if fresh.webhook_heard is None:
        chosen = _mode(Mode.WATCH, policy.watch_interval_seconds, "waiting for the first webhook; nothing proves that they fail", now)
    elif is_fresh(fresh.webhook_heard, now, within_seconds=policy.webhook_stale_after_seconds):
        reason = f"webhooks arrive{_NOTHING_MISSED}"
        chosen = _mode(Mode.STEADY, _bounded(policy.poll_interval_seconds, fresh, now, policy), reason, now)
    else:
        silence = format_duration(policy.webhook_stale_after_seconds)
        reason = f"no webhook for more than {silence}; nothing proves that they fail, the account may be quiet"
        chosen = _mode(Mode.WATCH, policy.watch_interval_seconds, reason, now)
    if before is None:
        return chosen
    return replace(chosen, hysteresis=Hysteresis(before.hysteresis.proven_at, relapses=before.hysteresis.relapses))


def _bounded(delay_seconds: float, fresh: Freshness, now: datetime, policy: Policy) -> float:
    """Return a delay that ends no later than silence turns stale, but is never so short that polls follow each other at once."""
    if fresh.webhook_heard is None:
        return delay_seconds
    until_stale = policy.webhook_stale_after_seconds - (now - fresh.webhook_heard).total_seconds()
    floor = min(_SHORTEST_DELAY_SECONDS, policy.failover_interval_seconds)
    return min(delay_seconds, max(until_stale, floor))
