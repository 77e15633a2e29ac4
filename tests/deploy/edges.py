"""Each alert at its edges: just under and just over its limit, a minute before its `for` is over and then, and with instances that differ.

In a series, `a` and `b` stand for an instance; values are promtool's: `1x60` is 1 for an hour, `0+2x60` grows by 2 a minute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DAY = 1440


@dataclass(frozen=True, slots=True)
class Edge:
    """Series of one situation, and the minutes at which the alert is silent and firing. `step`: minutes between two samples."""

    alert: str
    situation: str
    series: Mapping[str, str]
    silent: Sequence[int] = ()
    firing: Sequence[int] = ()
    step: int = 1

    def promtool_case(self) -> dict[str, Any]:
        """Return the case as promtool reads it."""
        firing = f'count(ALERTS{{alertname="{self.alert}", alertstate="firing"}})'
        # Another instance, which counted nothing, changes no sum.
        idle = {name.replace("{a", "{b"): "0x1000" for name in self.series if "_total{a" in name}
        one = [{"labels": "{}", "value": 1}]
        expected = {minute: one if minute in self.firing else [] for minute in (*self.silent, *self.firing)}
        return {
            "name": f"{self.alert} {self.situation}",
            "interval": f"{self.step}m",
            "input_series": [{"series": _with_labels(name), "values": values} for name, values in {**idle, **self.series}.items()],
            "promql_expr_test": [
                {"expr": firing, "eval_time": f"{minute}m", "exp_samples": samples} for minute, samples in expected.items()
            ],
        }


def _with_labels(series: str) -> str:
    """Write out the job and the instance of a series: `name{a, x="y"}`."""
    return re.sub(r"\{(\w)\b(?!=)", r'{job="fubd", instance="\1"', series)


def _gauge(alert: str, series: str, *, over: str, under: str, held: int, **others: str) -> Edge:
    """Return the edges of a limit on a gauge: for an hour `under` it is silent, then it fires once `over` has held for so many minutes.

    Where a high value is the bad one, a second instance that stays `under` changes nothing.
    """
    begins = 61
    values = {series: f"{under}x60 {over}x100", **others}
    if abs(float(over)) > abs(float(under)):
        values[series.replace("{a", "{b")] = f"{under}x200"
    return Edge(alert, f"between {under} and {over}", values, silent=[begins - 1, begins + held - 1], firing=[begins + held])


_HEARD = 'fubd_source_last_heard_timestamp_seconds{a, source="webhook"}'
_HEALTHY = 'fubd_source_healthy{a, source="webhook"}'
_FAILOVER = 'fubd_mode{a, mode="failover"}'
_DELIVERIES = 'fubd_webhook_deliveries_total{{a, outcome="{}"}}'
_FORGED = _DELIVERIES.format("forged")
_KEY_REFUSED = 'fubd_problem{a, problem="key_refused"}'
_ALERTS = 'fubd_alerts_total{{a, outcome="{}"}}'
_STALE = {_HEARD: "1x200", _HEALTHY: "0x200"}
_DB_UP = {"fubd_db_up{a}": "1x200"}

EDGES: Sequence[Edge] = (
    Edge("FubdWebhookStale", "after 5 minutes", _STALE, silent=[4], firing=[5]),
    Edge(
        "FubdWebhookStale",
        "not where another instance hears them",
        {**_STALE, 'fubd_source_healthy{b, source="webhook"}': "1x200"},
        silent=[60],
    ),
    Edge("FubdWebhookStale", "not where nothing was ever heard", {_HEARD: "0x200", _HEALTHY: "0x200"}, silent=[60]),
    Edge("FubdWebhookStale", "not in failover", {**_STALE, _FAILOVER: "1x200"}, silent=[60]),
    Edge("FubdWebhookStale", "not in failover of one", {**_STALE, _FAILOVER: "1x200", _FAILOVER.replace("{a", "{b"): "0x200"}, silent=[60]),
    Edge("FubdWebhookStale", "in another mode", {**_STALE, _FAILOVER: "0x200"}, firing=[60]),
    Edge(
        "FubdWebhookSilentForADay",
        "a day after the last one, while polling records changes",
        {_HEARD: "1x300", 'fubd_stage_changes_total{a, source="polling"}': "0+1x300"},
        silent=[DAY + 5],
        firing=[DAY + 10],
        step=5,
    ),
    Edge(
        "FubdWebhookSilentForADay",
        "not where none was ever heard",
        {_HEARD: "0x900", 'fubd_stage_changes_total{a, source="polling"}': "0+1x900"},
        silent=[DAY + 60, 3 * DAY + 60],
        step=5,
    ),
    Edge(
        "FubdWebhookSilentForADay",
        "not where another instance hears them",
        {_HEARD: "1x200", _HEARD.replace("{a", "{b"): "1+3600x200", 'fubd_stage_changes_total{a, source="polling"}': "0+1x200"},
        silent=[DAY + 120, 3 * DAY + 120],
        step=60,
    ),
    Edge(
        "FubdWebhookSilentForADay",
        "more than a day after the last one, while polling records changes",
        {_HEARD: "300x300", 'fubd_stage_changes_total{a, source="polling"}': "0+1x300"},
        silent=[DAY + 10],
        firing=[DAY + 15],
        step=5,
    ),
    Edge("FubdWebhookSilentForADay", "more than three days", {_HEARD: "300x900"}, silent=[3 * DAY + 10], firing=[3 * DAY + 15], step=5),
    Edge("FubdWebhookSilentForADay", "three days after the last one", {_HEARD: "1x200"}, silent=[3 * DAY], firing=[3 * DAY + 120], step=60),
    Edge(
        "FubdWebhookSilentForADay",
        "not two days after the last one, while nobody moves",
        {_HEARD: "1x200", 'fubd_stage_changes_total{a, source="polling"}': "9x200"},
        silent=[2 * DAY],
        step=60,
    ),
    Edge(
        "FubdPollingStale",
        "after 20 minutes",
        {'fubd_source_last_heard_timestamp_seconds{a, source="polling"}': "1x200", 'fubd_source_healthy{a, source="polling"}': "0x200"},
        silent=[19],
        firing=[20],
    ),
    _gauge("FubdSourceNeverHeard", _HEARD, over="0", under="1", held=60, **_DB_UP),
    Edge(
        "FubdSourceNeverHeard",
        "not where another instance heard it",
        {_HEARD: "0x200", _HEARD.replace("{a", "{b"): "1x200", **_DB_UP},
        silent=[120],
    ),
    Edge("FubdSourceNeverHeard", "not without the database", {_HEARD: "0x200", "fubd_db_up{a}": "0x200"}, silent=[120]),
    Edge(
        "FubdBlind",
        "at 61 s in 10 minutes",
        {
            "fubd_blind_seconds_total{a}": "0+6.1x60",
            "fubd_blind_seconds_total{b}": "0x60",
            "fubd_coverage_timestamp_seconds{b}": "0x60",
            "fubd_coverage_timestamp_seconds{a}": "1x60",
        },
        firing=[30],
    ),
    Edge(
        "FubdBlind",
        "at 59 s in 10 minutes",
        {"fubd_blind_seconds_total{a}": "0+5.9x60", "fubd_coverage_timestamp_seconds{a}": "1x60"},
        silent=[30],
    ),
    Edge(
        "FubdBlind",
        "not at 60 s in 10 minutes",
        {"fubd_blind_seconds_total{a}": "0+6x60", "fubd_coverage_timestamp_seconds{a}": "1x60"},
        silent=[30],
    ),
    Edge(
        "FubdBlind",
        "after a minute",
        {"fubd_blind_seconds_total{a}": "0x20 100x40", "fubd_coverage_timestamp_seconds{a}": "1x60"},
        silent=[21],
        firing=[22],
    ),
    Edge(
        "FubdBlind",
        "not before the first complete poll",
        {"fubd_blind_seconds_total{a}": "0+9x60", "fubd_coverage_timestamp_seconds{a}": "0x60"},
        silent=[30],
    ),
    _gauge("FubdFailoverEntered", _FAILOVER, over="1", under="0", held=1),
    _gauge("FubdFailoverLasting", _FAILOVER, over="1", under="0", held=60),
    Edge("FubdFailoverEntered", "in one of two instances", {_FAILOVER: "1x60", 'fubd_mode{b, mode="failover"}': "0x60"}, firing=[10]),
    _gauge(
        "FubdSubscriptionInactive",
        'fubd_webhook_subscription_active{a, event="peopleStageUpdated"}',
        over="0",
        under="1",
        held=10,
        **{"fubd_lease_held{a}": "1x200"},
    ),
    Edge(
        "FubdSubscriptionInactive",
        "not where one of two that hold the lease, the old one and its successor, finds it active",
        {
            'fubd_webhook_subscription_active{a, event="peopleStageUpdated"}': "0x60",
            'fubd_webhook_subscription_active{b, event="peopleStageUpdated"}': "1x60",
            "fubd_lease_held{a}": "1x60",
            "fubd_lease_held{b}": "1x60",
        },
        silent=[30],
    ),
    Edge("FubdWebhookFailureRatioRising", "above 10 %", {"fubd_webhook_failure_ratio{a}": "0.101+0.0001x60"}, silent=[10], firing=[11]),
    Edge("FubdWebhookFailureRatioRising", "not below 10 %", {"fubd_webhook_failure_ratio{a}": "0.09+0.0001x60"}, silent=[60]),
    Edge(
        "FubdWebhookFailureRatioRising",
        "after none had failed",
        {"fubd_webhook_failure_ratio{a}": "0x20 0.11x60"},
        silent=[30],
        firing=[31],
    ),
    Edge("FubdWebhookFailureRatioRising", "not at 10 %", {"fubd_webhook_failure_ratio{a}": "0+0.01x9 0.1x60"}, silent=[28]),
    Edge(
        "FubdWebhookFailureRatioRising",
        "in one of two instances",
        {"fubd_webhook_failure_ratio{a}": "0.101+0.0001x60", "fubd_webhook_failure_ratio{b}": "0.09-0.0001x60"},
        firing=[12],
    ),
    Edge("FubdWebhookFailureRatioRising", "not while it stays", {"fubd_webhook_failure_ratio{a}": "0.2x60"}, silent=[50]),
    Edge("FubdWebhookFailureRatioRising", "not while it falls", {"fubd_webhook_failure_ratio{a}": "0.3-0.001x60"}, silent=[60]),
    _gauge("FubdWebhookFailureRatioHigh", "fubd_webhook_failure_ratio{a}", over="0.351", under="0.35", held=10),
    _gauge("FubdKeyRefused", _KEY_REFUSED, over="1", under="0", held=5),
    Edge("FubdKeyRefused", "not where each next poll succeeds", {_KEY_REFUSED: "0x10 1 0 1 0 1 1 1 1 0x60"}, silent=[12, 14, 18, 60]),
    _gauge("FubdClockSkew", "fubd_clock_skew_seconds{a}", over="30.1", under="30", held=10),
    _gauge("FubdClockSkew", "fubd_clock_skew_seconds{a}", over="-30.1", under="-30", held=10),
    Edge(
        "FubdCoverageOld",
        "after four intervals",
        {"fubd_coverage_timestamp_seconds{a}": "1x200", "fubd_poll_interval_seconds{a}": "1800x200"},
        silent=[125],
        firing=[126],
    ),
    Edge(
        "FubdCoverageOld",
        "after more than four intervals",
        {"fubd_coverage_timestamp_seconds{a}": "60x200", "fubd_poll_interval_seconds{a}": "1800x200"},
        silent=[126],
        firing=[127],
    ),
    Edge(
        "FubdCoverageOld",
        "not where another instance polls",
        {
            "fubd_coverage_timestamp_seconds{a}": "1x200",
            "fubd_coverage_timestamp_seconds{b}": "1+60x200",
            "fubd_poll_interval_seconds{a}": "1800x200",
        },
        silent=[190],
    ),
    Edge(
        "FubdCoverageOld",
        "not before four of the longer intervals",
        {
            "fubd_coverage_timestamp_seconds{a}": "1x200",
            "fubd_poll_interval_seconds{a}": "1800x200",
            "fubd_poll_interval_seconds{b}": "30x200",
        },
        silent=[100],
    ),
    Edge(
        "FubdCoverageOld",
        "not before the first complete poll",
        {"fubd_coverage_timestamp_seconds{a}": "0x200", "fubd_poll_interval_seconds{a}": "1800x200"},
        silent=[190],
    ),
    Edge(
        "FubdCoverageOld",
        "after an hour of short intervals",
        {"fubd_coverage_timestamp_seconds{a}": "1x200", "fubd_poll_interval_seconds{a}": "30x200"},
        silent=[65],
        firing=[66],
    ),
    _gauge("FubdCompletenessLow", "fubd_completeness_ratio{a}", over="0.9989", under="0.999", held=15),
    Edge(
        "FubdCompletenessLow",
        "not where an instance read a later round",
        {"fubd_completeness_ratio{a}": "0.9x60", "fubd_completeness_ratio{b}": "1x60"},
        silent=[30],
    ),
    Edge(
        "FubdCompletenessOld",
        "after 30 days",
        {"fubd_scrub_oldest_timestamp_seconds{a}": "1x900"},
        silent=[30 * DAY + 60],
        firing=[30 * DAY + 120],
        step=60,
    ),
    Edge(
        "FubdCompletenessOld",
        "not where nobody was verified yet",
        {"fubd_scrub_oldest_timestamp_seconds{a}": "0x900"},
        silent=[31 * DAY],
        step=60,
    ),
    Edge(
        "FubdCompletenessOld",
        "after more than 30 days",
        {"fubd_scrub_oldest_timestamp_seconds{a}": "3600x900"},
        silent=[30 * DAY + 120],
        firing=[30 * DAY + 180],
        step=60,
    ),
    Edge(
        "FubdCompletenessOld",
        "not where another instance verifies people",
        {"fubd_scrub_oldest_timestamp_seconds{a}": "1x900", "fubd_scrub_oldest_timestamp_seconds{b}": "1+3600x900"},
        silent=[30 * DAY + 120],
        step=60,
    ),
    _gauge("FubdChainViolations", "fubd_chain_violations{a}", over="1", under="0", held=5),
    Edge("FubdForeignRows", "for an hour", {"fubd_foreign_rows_total{a}": "0x20 1x90"}, silent=[20, 85], firing=[21, 75]),
    Edge("FubdDeliveryQuarantined", "for an hour", {_DELIVERIES.format("quarantined"): "0x20 1x90"}, silent=[20, 85], firing=[21, 75]),
    _gauge("FubdQuarantineNotEmpty", "fubd_quarantined{a}", over="1", under="0", held=60),
    Edge("FubdForgedDeliveries", "at 21 in 10 minutes", {_FORGED: "0+2.1x90"}, firing=[60]),
    Edge("FubdForgedDeliveries", "not at 20 in 10 minutes", {_FORGED: "0+2x90"}, silent=[60]),
    Edge("FubdForgedDeliveries", "at 19 in 10 minutes", {_FORGED: "0+1.9x90"}, silent=[60]),
    Edge("FubdForgedDeliveries", "after a minute", {_FORGED: "0x20 30x60"}, silent=[21], firing=[22]),
    Edge(
        "FubdForgedDeliveries", "at more than five times the day's average", {_FORGED: "0+3x1800 5400+18x60"}, silent=[1799], firing=[1820]
    ),
    Edge("FubdSigningKeyWrong", "at three", {_FORGED: "0x20 3x60", _DELIVERIES.format("accepted"): "7x80"}, silent=[25], firing=[26]),
    Edge("FubdSigningKeyWrong", "not at two", {_FORGED: "0x20 2x60"}, silent=[30, 70]),
    Edge(
        "FubdSigningKeyWrong",
        "not where one was accepted",
        {_FORGED: "0x20 9x60", _DELIVERIES.format("accepted"): "7x20 8x60"},
        silent=[30, 70],
    ),
    _gauge("FubdLedgerImbalance", "fubd_ledger_imbalance{a}", over="-1", under="0", held=5),
    Edge("FubdAlertsUndelivered", "where one was given up", {_ALERTS.format("given_up"): "0x20 1x90"}, silent=[20, 85], firing=[21, 75]),
    Edge(
        "FubdAlertsUndelivered",
        "at three failures",
        {_ALERTS.format("failed"): "0x20 3x60", _ALERTS.format("sent"): "4x80"},
        silent=[20, 40],
        firing=[21, 34],
    ),
    Edge("FubdAlertsUndelivered", "not at one failure", {_ALERTS.format("failed"): "0x20 1x60"}, silent=[21, 30]),
    Edge(
        "FubdAlertsUndelivered",
        "not where one was sent",
        {_ALERTS.format("failed"): "0x20 3x60", _ALERTS.format("sent"): "4x20 5x60"},
        silent=[21, 30],
    ),
    _gauge("FubdGone", "up{a}", over="0", under="1", held=2),
    _gauge("FubdDatabaseDown", "fubd_db_up{a}", over="0", under="1", held=1),
    _gauge("FubdNotRecording", 'fubd_problem{a, problem="table_refuses"}', over="1", under="0", held=2, **_DB_UP),
    Edge(
        "FubdNotRecording",
        "not without the database",
        {'fubd_problem{a, problem="not_recording"}': "1x60", "fubd_db_up{a}": "0x60"},
        silent=[30],
    ),
    _gauge("FubdProblem", 'fubd_problem{a, problem="people_unreadable"}', over="1", under="0", held=15),
    _gauge("FubdLeaseNotHeld", "fubd_lease_held{a}", over="0", under="1", held=2, **_DB_UP),
    Edge(
        "FubdLeaseNotHeld",
        "not where another instance holds it",
        {"fubd_lease_held{a}": "0x60", "fubd_lease_held{b}": "1x60", **_DB_UP},
        silent=[30],
    ),
)
