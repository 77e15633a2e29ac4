"""Every metric of the daemon. Dashboards and alerts rely on the names and labels.

Label values known in advance start at 0, so that a rate has no gap at its beginning. Instants are exported as timestamps, not ages.
"""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from fubd.core.pacing import Mode
from fubd.core.problems import ProblemName
from fubd.core.vocabulary import CONNECTION_STATES, DELIVERY_OUTCOMES, POLL_KINDS, SOURCES, SUBSCRIBED_EVENTS

MODES = tuple(mode.value for mode in Mode)
ENDPOINTS = ("people", "person", "stages", "identity", "webhooks")

_ANSWER_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CALL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RUN_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 1800)
_DELAY_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 1800, 3600, 14400, 86400)


class Metrics:
    """The collectors, on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()
        self.registry = registry

        def counter(name: str, help_text: str, label: str | None = None, values: tuple[str, ...] = ()) -> Counter:
            collector = Counter(f"fubd_{name}", help_text, [label] if label else [], registry=registry)
            for value in values:
                collector.labels(value)
            return collector

        def gauge(name: str, help_text: str, label: str | None = None, values: tuple[str, ...] = ()) -> Gauge:
            collector = Gauge(f"fubd_{name}", help_text, [label] if label else [], registry=registry)
            for value in values:
                collector.labels(value)
            return collector

        def histogram(
            name: str, help_text: str, buckets: tuple[float, ...], label: str | None = None, values: tuple[str, ...] = ()
        ) -> Histogram:
            collector = Histogram(f"fubd_{name}", help_text, [label] if label else [], buckets=buckets, registry=registry)
            for value in values:
                collector.labels(value)
            return collector

        self.build_info = Gauge(
            "fubd_build_info", "Always 1; version and commit of what is running.", ["version", "commit"], registry=registry
        )

        # The webhook route.
        self.webhook_deliveries = counter(
            "webhook_deliveries", "Answered webhook requests, each counted once.", "outcome", DELIVERY_OUTCOMES
        )
        self.webhook_ack_seconds = histogram("webhook_ack_seconds", "Time from a request's headers to its answer.", _ANSWER_BUCKETS)

        # What was recorded.
        self.stage_changes = counter("stage_changes", "Rows recorded, by the source that saw the change first.", "source", SOURCES)
        self.confirmations = counter("confirmations", "Rows that the other source has seen too, by that source.", "source", SOURCES)
        self.healed = counter("healed", "Rows corrected by later evidence.")
        self.missed_by_webhook = counter("missed_by_webhook", "Changes found by polling that no webhook reported in time.")
        self.hidden_steps = counter("hidden_steps", "Times the same stage was entered twice with the step between unseen.")
        self.foreign_rows = counter("foreign_rows", "Rows that another program added to the table.")
        self.capture_delay_seconds = histogram(
            "capture_delay_seconds",
            "Time from the change until fubd learned of it, without the clock skew.",
            _DELAY_BUCKETS,
            "source",
            SOURCES,
        )

        # The two sources and the mode.
        self.source_last_heard = gauge(
            "source_last_heard_timestamp_seconds", "When the source last delivered anything, Unix time; 0 for never.", "source", SOURCES
        )
        self.source_last_change = gauge(
            "source_last_change_timestamp_seconds",
            "When the source last delivered a change, Unix time; 0 for never.",
            "source",
            SOURCES,
        )
        self.source_healthy = gauge("source_healthy", "1 while the source is fresh.", "source", SOURCES)
        self.mode = gauge("mode", "1 for the current mode, 0 for the others.", "mode", MODES)
        self.mode_changes = counter("mode_changes", "Changes into a mode.", "to", MODES)
        self.blind_seconds = counter("blind_seconds", "Time in which a change could come and go unseen.")
        self.webhook_subscription_active = gauge(
            "webhook_subscription_active", "1 while our webhook subscription is active.", "event", SUBSCRIBED_EVENTS
        )
        self.webhook_failure_ratio = gauge("webhook_failure_ratio", "Share of deliveries that we failed, as FUB counts them over 48 hours.")

        # Polling.
        self.poll_interval_seconds = gauge("poll_interval_seconds", "Seconds from one poll to the next.")
        self.poll_runs = Counter("fubd_poll_runs", "Poll runs.", ["kind", "outcome"], registry=registry)
        for kind in POLL_KINDS:
            for outcome in ("ok", "failed"):
                self.poll_runs.labels(kind, outcome)
        self.poll_seconds = histogram("poll_seconds", "How long a poll run took.", _RUN_BUCKETS, "kind", POLL_KINDS)
        self.coverage = gauge(
            "coverage_timestamp_seconds",
            "Every change in FUB before this Unix time is recorded; 0 until the first complete poll.",
        )
        self.people_unreadable = gauge("people_unreadable", "People whose last reading could not be used; they are asked for again.")
        self.scrubbed_people = counter("scrubbed_people", "People verified again.", "outcome", ("match", "mismatch"))
        self.completeness_ratio = gauge(
            "completeness_ratio",
            "Share of people whose rows had missed nothing and end in the stage that FUB shows, in the last complete scrub round.",
        )
        self.scrub_oldest = gauge("scrub_oldest_timestamp_seconds", "When the person who has waited longest was last verified, Unix time.")

        # The FUB API.
        self.api_requests = Counter("fubd_api_requests", "Requests to FUB.", ["endpoint", "status"], registry=registry)
        for endpoint in ENDPOINTS:
            self.api_requests.labels(endpoint, "200")
            self.api_requests.labels(endpoint, "error")
        self.api_request_seconds = histogram("api_request_seconds", "How long FUB took to answer.", _CALL_BUCKETS, "endpoint", ENDPOINTS)
        self.api_rate_limit_remaining = gauge(
            "api_rate_limit_remaining", "What is left of FUB's rate limit, as FUB said.", "context", ("global",)
        )
        self.api_throttled_seconds = counter("api_throttled_seconds", "Time spent waiting for the rate limit.")
        self.clock_skew_seconds = gauge("clock_skew_seconds", "Our clock minus FUB's.")

        # The process and its database.
        self.inbox_pending = gauge("inbox_pending", "People named by a webhook who are still to be read.")
        self.quarantined = gauge("quarantined", "Deliveries in quarantine because something in them could not be read.")
        self.connections = gauge("connections", "Connections to the listener, by state.", "state", CONNECTION_STATES)
        self.http_refused = counter("http_refused", "Requests without the token that was asked for.")
        self.alerts = counter("alerts", "Alerts to FUBD_ALERT_URL, by outcome.", "outcome", ("sent", "failed", "given_up"))
        self.db_up = gauge("db_up", "1 while the database answers.")
        self.db_transaction_seconds = histogram("db_transaction_seconds", "How long a recording transaction took.", _ANSWER_BUCKETS)
        self.lease_held = gauge("lease_held", "1 while this instance polls and maintains the webhook subscriptions.")
        self.ledger_imbalance = gauge("ledger_imbalance", "Answers that do not match the outcomes and the stored deliveries: must be 0.")
        self.chain_violations = gauge("chain_violations", "Rows whose stage_from is not the stage_to of the row before: must be 0.")
        self.chain_check_timestamp = gauge("chain_check_timestamp_seconds", "Start of the last complete round of that check.")
        self.problem = gauge(
            "problem", "1 while this problem holds; /health says since when and what to do.", "problem", tuple(ProblemName)
        )
        self.show_mode("starting")
        _set_unmeasured(
            self.completeness_ratio,
            self.scrub_oldest,
            self.api_rate_limit_remaining.labels("global"),
            self.clock_skew_seconds,
            self.inbox_pending,
            self.quarantined,
            self.ledger_imbalance,
            self.chain_violations,
            self.chain_check_timestamp,
            self.people_unreadable,
            self.webhook_failure_ratio,
            *(
                gauge.labels(source)
                for gauge in (self.source_last_heard, self.source_last_change, self.source_healthy)
                for source in SOURCES
            ),
            *(self.webhook_subscription_active.labels(event) for event in SUBSCRIBED_EVENTS),
        )

    def show_mode(self, mode: str) -> None:
        """Set the gauge of this mode to 1, the others to 0."""
        for name in MODES:
            self.mode.labels(name).set(1 if name == mode else 0)


def _set_unmeasured(*gauges: Gauge) -> None:
    """Show NaN until there is a measurement: a 0 would say that there was one."""
    for gauge in gauges:
        gauge.set(math.nan)
