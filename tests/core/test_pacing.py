"""The table of pacing, its laws, and whole days of decisions."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fubd.core.pacing import Freshness, Hysteresis, Mode, Pace, Policy, pace, resume, while_not_recording, with_failure
from fubd.simulator.rng import Rng
from tests.support.examples import examples

NOON = datetime(2031, 3, 3, 12, 0, tzinfo=UTC)
POLICY = Policy()
BROKEN = "the webhook for peopleStageUpdated is disabled in Follow Up Boss"


def ago(**period: float) -> datetime:
    """Return an instant before noon."""
    return NOON - timedelta(**period)


def fresh(
    webhook: datetime | None = None,
    stage: datetime | None = None,
    *,
    has_baseline: bool = True,
    missed: int = 0,
    broken: str | None = None,
    repaired: bool = False,
    waited_full_delay: bool = True,
) -> Freshness:
    """Return what is known at noon; by default the account was read and nothing is known about webhooks."""
    return Freshness(has_baseline, webhook, stage, missed, broken, repaired, waited_full_delay)


def was(mode: Mode, delay: float = 30.0, *, since: datetime | None = None, missed: bool = False, relapses: int = 0) -> Pace:
    """Return an earlier decision."""
    since = since or ago(hours=2)
    return Pace(mode, delay, delay, "as it was", since, Hysteresis(proven_at=since, missed=missed, relapses=relapses))


def decide(before: Pace | None, known: Freshness, now: datetime = NOON, policy: Policy = POLICY) -> tuple[Mode, float]:
    """Return the mode and the delay of a decision without jitter."""
    decided = pace(before, known, now, policy, 0.0)
    return decided.mode, decided.delay_seconds


TABLE = [
    ("nothing known", None, fresh(has_baseline=False), Mode.STARTING, 0.0),
    ("a webhook, but no baseline yet", was(Mode.STARTING), fresh(ago(seconds=1), has_baseline=False), Mode.STARTING, 0.0),
    ("first baseline, no webhook ever", was(Mode.STARTING), fresh(), Mode.WATCH, 300.0),
    ("first baseline, a webhook arrived during it", was(Mode.STARTING), fresh(ago(seconds=5)), Mode.STEADY, 1800.0),
    ("first baseline, webhooks created just now", was(Mode.STARTING), fresh(broken=BROKEN, repaired=True), Mode.WATCH, 300.0),
    ("first baseline, webhooks cannot be set up", was(Mode.STARTING), fresh(broken=BROKEN), Mode.FAILOVER, 30.0),
    ("all well", was(Mode.STEADY, 1800.0), fresh(ago(minutes=1)), Mode.STEADY, 1800.0),
    ("silence about to turn stale", was(Mode.STEADY, 1800.0), fresh(ago(minutes=50)), Mode.STEADY, 600.0),
    ("silence of exactly the stale time", was(Mode.STEADY, 1800.0), fresh(ago(minutes=60)), Mode.STEADY, 1.0),
    ("a quiet night", was(Mode.STEADY, 1800.0), fresh(ago(minutes=61)), Mode.WATCH, 300.0),
    ("a quiet weekend", was(Mode.WATCH, 300.0), fresh(ago(days=3)), Mode.WATCH, 300.0),
    ("a webhook on Monday", was(Mode.WATCH, 300.0), fresh(ago(minutes=4)), Mode.STEADY, 1800.0),
    ("our clock was set back", was(Mode.STEADY, 1800.0), fresh(NOON + timedelta(hours=3)), Mode.STEADY, 1800.0),
    ("a miss", was(Mode.STEADY, 1800.0), fresh(ago(minutes=1), missed=1), Mode.FAILOVER, 30.0),
    ("a miss in a quiet night", was(Mode.WATCH, 300.0), fresh(ago(hours=5), missed=2), Mode.FAILOVER, 30.0),
    ("a subscription disabled, webhooks still arriving", was(Mode.STEADY), fresh(ago(minutes=1), broken=BROKEN), Mode.FAILOVER, 30.0),
    ("a subscription found disabled and repaired", was(Mode.STEADY), fresh(broken=BROKEN, repaired=True), Mode.FAILOVER, 30.0),
    ("failover continues without a stage webhook", was(Mode.FAILOVER, missed=True), fresh(ago(minutes=1)), Mode.FAILOVER, 30.0),
    ("a stage webhook from before failover", was(Mode.FAILOVER), fresh(ago(hours=3), ago(hours=3)), Mode.WATCH, 300.0),
    ("a stage webhook after a repair", was(Mode.FAILOVER, since=ago(minutes=2)), fresh(NOON, ago(seconds=9)), Mode.RECOVERING, 30.0),
    ("a stage webhook just before the repair", was(Mode.FAILOVER, since=ago(minutes=2)), fresh(NOON, ago(minutes=2)), Mode.FAILOVER, 30.0),
    ("quiet after a repair", was(Mode.FAILOVER, since=ago(minutes=59)), fresh(ago(hours=3)), Mode.FAILOVER, 30.0),
    ("quiet for long after a repair", was(Mode.FAILOVER, since=ago(minutes=60)), fresh(ago(hours=3)), Mode.WATCH, 300.0),
    ("quiet for long after a miss", was(Mode.FAILOVER, missed=True), fresh(ago(hours=3)), Mode.FAILOVER, 30.0),
    ("recovering, nothing missed", was(Mode.RECOVERING, 30.0), fresh(ago(minutes=1), ago(minutes=1)), Mode.RECOVERING, 60.0),
    ("recovering, polled early", was(Mode.RECOVERING, 60.0), fresh(ago(minutes=1), waited_full_delay=False), Mode.RECOVERING, 60.0),
    ("recovering, the last step", was(Mode.RECOVERING, 960.0), fresh(ago(minutes=1)), Mode.STEADY, 1800.0),
    ("recovering, a miss", was(Mode.RECOVERING, 480.0), fresh(ago(minutes=1), missed=1), Mode.FAILOVER, 30.0),
    ("recovering, then silence", was(Mode.RECOVERING, 480.0), fresh(ago(hours=2)), Mode.WATCH, 300.0),
]


@pytest.mark.parametrize(("case", "before", "known", "mode", "delay"), TABLE, ids=[row[0] for row in TABLE])
def test_each_case_has_its_mode_and_delay(case: str, before: Pace | None, known: Freshness, mode: Mode, delay: float) -> None:
    """Each row of the table: what was decided before and what is known now give the mode and the delay."""
    assert decide(before, known) == (mode, delay), case


@pytest.mark.parametrize("mode", list(Mode))
def test_while_polling_fails_the_reason_says_since_when_and_nothing_of_misses(mode: Mode) -> None:
    """In every mode, also after a restart; the next complete poll takes it back."""
    known = fresh(ago(minutes=1), ago(minutes=1), has_baseline=mode is not Mode.STARTING)
    failing = pace(was(mode), replace(known, polling_failed_since=ago(minutes=7)), NOON, replace(POLICY, zone=ZoneInfo("Asia/Tokyo")), 0.0)
    assert failing.reason.endswith("; polling has failed since 2031-03-03 20:53:00 JST")
    assert "nothing that they missed" not in failing.reason
    again = pace(resumed(failing), replace(known, polling_failed_since=NOON), NOON, POLICY, 0.0)
    assert again.reason.count("polling has failed since") == 1
    assert "has failed" not in pace(again, known, NOON, POLICY, 0.0).reason


def test_a_new_installation_waits_for_the_first_webhook() -> None:
    """Before any webhook the mode is watch, and its reason speaks of no silence."""
    assert pace(was(Mode.STARTING), fresh(), NOON, POLICY, 0.0).reason == "waiting for the first webhook; nothing proves that they fail"


def test_after_a_miss_recovery_waits_until_polls_could_find_another() -> None:
    """A stage webhook after a miss leads to recovering once `missed_after` has passed without another miss."""
    began = was(Mode.FAILOVER, since=ago(minutes=10), missed=True)
    heard = fresh(NOON, ago(seconds=3))
    first = pace(began, heard, NOON, POLICY, 0.0)
    assert decide(first, heard, NOON + timedelta(seconds=119)) == (Mode.FAILOVER, 30.0)
    assert decide(first, heard, NOON + timedelta(seconds=120)) == (Mode.RECOVERING, 30.0)


def test_recovering_doubles_back_to_steady() -> None:
    """From 30 s the delay doubles with each poll that finds nothing missed, and the seventh is steady."""
    now, decided, delays = NOON, was(Mode.RECOVERING, 30.0), []
    for _ in range(6):
        now += timedelta(seconds=decided.delay_seconds)
        decided = pace(decided, fresh(now, now), now, POLICY, 0.0)
        delays.append((decided.mode, decided.delay_seconds))
    assert delays == [*((Mode.RECOVERING, delay) for delay in (60.0, 120.0, 240.0, 480.0, 960.0)), (Mode.STEADY, 1800.0)]


def test_each_relapse_requires_a_longer_time_without_proof() -> None:
    """The time without proof before the next recovery doubles with each relapse, from four failover intervals to the stale time."""
    required = []
    for relapses in range(1, 7):
        heard = fresh(NOON, NOON)
        first = pace(was(Mode.FAILOVER, since=ago(minutes=1), relapses=relapses), heard, NOON, POLICY, 0.0)
        waits = (30 * step for step in range(1000))
        required.append(next(wait for wait in waits if decide(first, heard, NOON + timedelta(seconds=wait))[0] is Mode.RECOVERING))
    assert required == [120, 240, 480, 960, 1920, 3600]


def test_a_lasting_repair_without_any_change_ends_in_watch() -> None:
    """Failover because of a subscription alone, repaired on a quiet account, becomes watch after the stale time."""
    decided = pace(was(Mode.STEADY, 1800.0), fresh(ago(minutes=20), broken=BROKEN, repaired=True), NOON, POLICY, 0.0)
    assert decided.mode is Mode.FAILOVER
    assert decided.reason == f"{BROKEN} (repaired at once)"
    modes = []
    for polls in range(1, 121):
        decided = pace(decided, fresh(ago(minutes=20)), NOON + timedelta(seconds=30 * polls), POLICY, 0.0)
        modes.append(decided.mode)
    assert modes == [Mode.FAILOVER] * 119 + [Mode.WATCH]


def resumed(before: Pace) -> Pace:
    """Return the decision as a restarted daemon resumes it."""
    found = resume(before.mode.value, before.reason, before.delay_seconds, before.since, before.hysteresis)
    assert found is not None
    return found


def test_a_decision_stored_by_an_older_version_is_resumed() -> None:
    """Mode, delay and since are kept; a failover is assumed to have been proven by a miss; an unknown mode is dropped."""
    recovering = resume("recovering", "because", 240.0, ago(minutes=9), None)
    assert recovering is not None
    assert decide(recovering, fresh(NOON, NOON)) == (Mode.RECOVERING, 480.0)
    failover = resume("failover", "because", 30.0, ago(days=2), None)
    assert failover is not None
    assert decide(failover, fresh(ago(days=2))) == (Mode.FAILOVER, 30.0)
    assert resume("turbo", "because", 1.0, NOON, None) is None


modes = st.sampled_from(list(Mode))
spans = st.sampled_from((0.5, 30.0, 300.0, 1_800.0)) | st.floats(0.01, 1e5)
policies = st.builds(Policy, spans, spans, spans, spans, spans, spans)
known_instants = (st.sampled_from((0, 1, 60, 600, 10_000)) | st.floats(-1e5, 1e5)).map(lambda age: NOON - timedelta(seconds=age))
instants = st.none() | known_instants
anything_known = st.builds(
    Freshness,
    has_baseline=st.booleans(),
    webhook_heard=instants,
    stage_webhook_heard=instants,
    missed=st.integers(0, 3),
    broken=st.none() | st.just(BROKEN),
    repaired=st.booleans(),
    waited_full_delay=st.booleans(),
)
# A missing baseline and proof decide alone, so half of the time there is neither.
knowledge = anything_known | anything_known.map(lambda known: replace(known, has_baseline=True, missed=0, broken=None))
decisions = st.builds(
    Pace,
    mode=modes,
    delay_seconds=spans,
    wait_seconds=spans,
    reason=st.just("as it was"),
    since=known_instants,
    hysteresis=st.builds(
        Hysteresis, proven_at=instants, missed=st.booleans(), heard_again_at=instants, relapses=st.sampled_from((0, 0, 1, 10_000))
    ),
)
# Most rules are about the way out of failover.
paces = st.none() | decisions | decisions.map(lambda before: replace(before, mode=Mode.FAILOVER))
jitters = st.floats(0, 1, exclude_max=True)


def test_the_laws_are_tried_in_every_mode() -> None:
    """What is drawn leads to each mode, and out of failover both ways; a law that is never tried cannot be broken."""
    reached: Counter[tuple[Mode | None, Mode]] = Counter()

    @settings(max_examples=300)
    @given(paces, knowledge, policies)
    def draw(before: Pace | None, known: Freshness, policy: Policy) -> None:
        reached[None if before is None else before.mode, pace(before, known, NOON, policy, 0.0).mode] += 1

    draw()
    assert {after for _, after in reached} == set(Mode)
    assert {after for before, after in reached if before is Mode.FAILOVER} >= {Mode.FAILOVER, Mode.RECOVERING}


@given(decisions, knowledge, policies, jitters)
def test_a_restart_changes_no_decision(before: Pace, known: Freshness, policy: Policy, jitter: float) -> None:
    """A restarted daemon decides as one that kept running."""
    assert pace(resumed(before), known, NOON, policy, jitter) == pace(before, known, NOON, policy, jitter)


@given(paces, knowledge, policies, jitters)
def test_the_wait_never_exceeds_the_interval(before: Pace | None, known: Freshness, policy: Policy, jitter: float) -> None:
    """It is no longer than the mode's interval or the time until silence turns stale, and no shorter than a second or that interval."""
    decided = pace(before, known, NOON, policy, jitter)
    longest = {
        Mode.STARTING: 0.0,
        Mode.STEADY: policy.poll_interval_seconds,
        Mode.WATCH: policy.watch_interval_seconds,
        Mode.FAILOVER: policy.failover_interval_seconds,
        Mode.RECOVERING: max(policy.poll_interval_seconds, policy.failover_interval_seconds),
    }[decided.mode]
    assert decided.wait_seconds <= decided.delay_seconds <= longest
    assert decided.wait_seconds >= 0.98 * decided.delay_seconds
    if decided.mode in (Mode.STEADY, Mode.RECOVERING):
        assert known.webhook_heard is not None
        floor = min(1.0, policy.failover_interval_seconds)
        until_stale = policy.webhook_stale_after_seconds - (NOON - known.webhook_heard).total_seconds()
        assert decided.delay_seconds <= max(floor, until_stale)


@given(paces, knowledge, policies)
def test_proof_and_only_proof_leads_to_failover(before: Pace | None, known: Freshness, policy: Policy) -> None:
    """Silence, however long, never causes failover; a miss or a broken subscription always does once the account was read."""
    decided = pace(before, known, NOON, policy, 0.0)
    starting = before is None or before.mode is Mode.STARTING
    proof = known.missed > 0 or (known.broken is not None and not (known.repaired and starting))
    if known.has_baseline and proof:
        assert decided.mode is Mode.FAILOVER
    elif decided.mode is Mode.FAILOVER:
        assert before is not None
        assert before.mode is Mode.FAILOVER


@given(paces, knowledge, policies)
def test_recovering_follows_only_failover(before: Pace | None, known: Freshness, policy: Policy) -> None:
    """And only when a stage webhook arrived after the failover began."""
    decided = pace(before, known, NOON, policy, 0.0)
    if decided.mode is Mode.RECOVERING and (before is None or before.mode is not Mode.RECOVERING):
        assert before is not None
        assert before.mode is Mode.FAILOVER
        arrived = known.stage_webhook_heard is not None and known.stage_webhook_heard > before.since
        assert arrived or before.hysteresis.heard_again_at is not None


@given(paces, knowledge, policies, jitters)
def test_every_decision_has_a_reason_and_keeps_its_start(before: Pace | None, known: Freshness, policy: Policy, jitter: float) -> None:
    """There is a reason in words, and `since` moves only with the mode."""
    decided = pace(before, known, NOON, policy, jitter)
    assert decided.reason
    expected = before.since if before is not None and before.mode is decided.mode else NOON
    assert decided.since == expected


# --- Days -----------------------------------------------------------------------------------------------------------


@dataclass
class Day:
    """An account and its webhooks over time, polled as pacing says. Times are seconds from `NOON`; `changes` ascend.

    A change is reported at once when webhooks work at that moment; else a poll finds it, and the first poll after `missed_after` counts it
    as missed. `restarts`: the daemon is restarted at each poll.
    """

    changes: list[float]
    works: Callable[[float], bool]
    restarts: bool = False
    switches: list[Mode] = field(default_factory=list)
    polls: int = 0
    failover_at: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        reported = [at for at in self.changes if self.works(at)]
        lost = [at for at in self.changes if not self.works(at)]
        now, decided, counted = 0.0, replace(was(Mode.STEADY, 1800.0), since=NOON, hysteresis=Hysteresis()), 0
        while now < seconds:
            self.polls += 1
            late = bisect_right(lost, now - POLICY.missed_after_seconds)
            last = bisect_right(reported, now)
            heard = NOON + timedelta(seconds=reported[last - 1] if last else -60.0)
            following = pace(decided, fresh(heard, heard, missed=late - counted), NOON + timedelta(seconds=now), POLICY, 0.0)
            counted = late
            if following.mode is not decided.mode:
                self.switches.append(following.mode)
                if following.mode is Mode.FAILOVER:
                    self.failover_at.append(now)
            decided = resumed(following) if self.restarts else following
            now += decided.wait_seconds


_DAY = 86400.0


@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "restarts"])
@pytest.mark.parametrize("every_seconds", [20, 60, 97, 240, 550, 1700])
def test_webhooks_that_flap_every_five_minutes_cause_a_bounded_number_of_switches(every_seconds: int, *, restarts: bool) -> None:
    """Five minutes on, five minutes off, for a day: at most 24 switches, however often people move or the daemon is restarted."""
    day = Day([at + 0.5 for at in range(0, int(_DAY), every_seconds)], works=lambda at: at % 600 < 300, restarts=restarts)
    day.run(_DAY)
    assert 1 <= len(day.switches) <= 24


@examples(0.3)
@given(st.integers(10, 20_000), st.floats(0.05, 0.95), st.integers(5, 3000), st.integers(0, 2**32))
def test_any_flapping_of_webhooks_causes_a_bounded_number_of_switches(period: int, share: float, every: int, seed: int) -> None:
    """At any rhythm of failing webhooks and moving people, a day has at most 60 switches."""
    dice, changes, at = Rng(seed), [], 0.0
    while at < _DAY:
        at += dice.uniform(1.0, 2.0 * every)
        changes.append(at)
    day = Day(changes, works=lambda at: at % period < share * period)
    day.run(_DAY)
    assert len(day.switches) <= 60


def test_a_quiet_night_and_a_holiday_weekend_cause_no_failover() -> None:
    """Without a change for three days the mode is watch, and steady again with the first webhook; 288 polls a day and no failover."""
    day = Day(changes=[3 * _DAY], works=lambda _: True)
    day.run(3 * _DAY + 1800.0)
    assert day.switches == [Mode.WATCH, Mode.STEADY]
    assert day.polls <= 3 * 288 + 5


def test_an_outage_is_failover_within_one_poll_and_ends_step_by_step() -> None:
    """Webhooks fail for two hours of a busy day: failover at the first poll that can prove it, then recovering, then steady."""
    day = Day(changes=[at + 0.25 for at in range(0, int(_DAY), 60)], works=lambda at: not 20_000.0 <= at < 27_200.0)
    day.run(_DAY)
    assert day.switches == [Mode.FAILOVER, Mode.RECOVERING, Mode.STEADY]
    assert day.failover_at[0] <= 20_000.0 + 120.0 + POLICY.poll_interval_seconds


def test_a_busy_day_is_forty_eight_polls() -> None:
    """With working webhooks a day has 48 polls and no change of mode."""
    day = Day(changes=[float(at) for at in range(0, int(_DAY), 30)], works=lambda _: True)
    day.run(_DAY)
    assert (day.polls, day.switches) == (48, [])


def test_flapping_in_a_busy_account_settles_in_failover() -> None:
    """Where people move at least every four minutes, five-minute flapping causes at most 9 switches and then stays in failover."""
    for every_seconds in (20, 60, 97, 240):
        day = Day([at + 0.5 for at in range(0, int(_DAY), every_seconds)], works=lambda at: at % 600 < 300)
        day.run(_DAY)
        assert len(day.switches) <= 9
        assert day.switches[-1] is Mode.FAILOVER


def test_while_nothing_is_recorded_nothing_is_said_of_polling() -> None:
    """A poll that waits for the database neither completes nor fails: what the last one found is said no more."""
    found = "webhooks arrive, and polling finds nothing that they missed"
    said = "webhooks arrive; nothing is recorded since 2031-03-03 12:00:00 UTC"
    assert [while_not_recording(reason, NOON, UTC) for reason in (found, with_failure(found, NOON, UTC))] == [said, said]
