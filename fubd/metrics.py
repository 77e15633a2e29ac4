"""Every collector of the daemon, on one registry that the root makes. Names and labels are a promise to dashboards and alerts.

Label values known in advance are set to 0 from the start, so that a rate never begins with a hole. Timestamps, not ages.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from fubd.core.problems import ProblemName
from fubd.core.vocabulary import DELIVERY_OUTCOMES, POLL_KINDS, SOURCES, SUBSCRIBED_EVENTS

MODES = ("starting", "steady", "watch", "failover", "recovering")
ENDPOINTS = ("people", "person", "stages", "identity", "webhooks")

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CALL = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RUN = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 1800)
_DELAY = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 1800, 3600, 14400, 86400)


class Metrics:
    """The collectors. One instance for one registry; the parts are handed it by the root."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()
        self.registry = registry

        def counter(name: str, text: str, label: str | None = None, values: tuple[str, ...] = ()) -> Counter:
            made = Counter(f"fubd_{name}", text, [label] if label else [], registry=registry)
            for value in values:
                made.labels(value)
            return made

        def gauge(name: str, text: str, label: str | None = None, values: tuple[str, ...] = ()) -> Gauge:
            made = Gauge(f"fubd_{name}", text, [label] if label else [], registry=registry)
            for value in values:
                made.labels(value)
            return made

        def histogram(
            name: str, text: str, buckets: tuple[float, ...], label: str | None = None, values: tuple[str, ...] = ()
        ) -> Histogram:
            made = Histogram(f"fubd_{name}", text, [label] if label else [], buckets=buckets, registry=registry)
            for value in values:
                made.labels(value)
            return made

        self.build_info = Gauge("fubd_build_info", "Always 1; what is running.", ["version", "commit"], registry=registry)

        # The webhook door.
        self.webhook_deliveries = counter("webhook_deliveries", "Answered webhook requests, each once.", "outcome", DELIVERY_OUTCOMES)
        self.webhook_ack_seconds = histogram("webhook_ack_seconds", "From the request's head to its answer.", _FAST)

        # What was recorded.
        self.stage_changes = counter("stage_changes", "Rows recorded, by who saw the change first.", "source", SOURCES)
        self.confirmations = counter("confirmations", "Rows the other source has seen too, by that source.", "source", SOURCES)
        self.healed = counter("healed", "Rows corrected by later evidence.")
        self.missed_by_webhook = counter("missed_by_webhook", "Changes found by polling that no webhook told in time.")
        self.hidden_steps = counter("hidden_steps", "Times a stage was told twice with the step between unseen.")
        self.foreign_rows = counter("foreign_rows", "Rows that another writer added to the table.")
        self.capture_delay_seconds = histogram(
            "capture_delay_seconds", "From the change to our learning of it, skew removed.", _DELAY, "source", SOURCES
        )

        # The two sources and the mode.
        self.source_last_heard = gauge(
            "source_last_heard_timestamp_seconds", "When the source was last heard, Unix time.", "source", SOURCES
        )
        self.source_last_change = gauge(
            "source_last_change_timestamp_seconds",
            "When the source last brought a change, Unix time.",
            "source",
            SOURCES,
        )
        self.source_healthy = gauge("source_healthy", "1 while the source is fresh.", "source", SOURCES)
        self.mode = gauge("mode", "The pacing mode, one-hot.", "mode", MODES)
        self.mode_changes = counter("mode_changes", "Changes into a mode.", "to", MODES)
        self.blind_seconds = counter("blind_seconds", "Time in which a change could have come and gone unseen.")
        self.webhook_subscription_active = gauge(
            "webhook_subscription_active", "1 while our subscription is in force.", "event", SUBSCRIBED_EVENTS
        )
        self.webhook_failure_ratio = gauge("webhook_failure_ratio", "Our failures as FUB sees them over its 48 h window.")

        # Polling.
        self.poll_interval_seconds = gauge("poll_interval_seconds", "Seconds from one poll to the next.")
        self.poll_runs = Counter("fubd_poll_runs", "Poll runs by kind and outcome.", ["kind", "outcome"], registry=registry)
        for kind in POLL_KINDS:
            for outcome in ("ok", "failed"):
                self.poll_runs.labels(kind, outcome)
        self.poll_seconds = histogram("poll_seconds", "How long a poll run took.", _RUN, "kind", POLL_KINDS)
        self.coverage = gauge(
            "coverage_timestamp_seconds",
            "All that changed in FUB before this Unix time is recorded; 0 until the first complete poll.",
        )
        self.scrubbed_people = counter("scrubbed_people", "People re-verified.", "outcome", ("match", "mismatch"))
        self.completeness_ratio = gauge("completeness_ratio", "Share of people found as recorded in the last complete scrub round.")
        self.scrub_oldest = gauge("scrub_oldest_timestamp_seconds", "When the longest-unverified person was last verified, Unix time.")

        # The FUB API.
        self.api_requests = Counter("fubd_api_requests", "Requests to FUB.", ["endpoint", "status"], registry=registry)
        for endpoint in ENDPOINTS:
            self.api_requests.labels(endpoint, "200")
            self.api_requests.labels(endpoint, "error")
        self.api_request_seconds = histogram("api_request_seconds", "How long FUB took to answer.", _CALL, "endpoint", ENDPOINTS)
        self.api_rate_limit_remaining = gauge("api_rate_limit_remaining", "What FUB said is left of its limit.", "context", ("global",))
        self.api_throttled_seconds = counter("api_throttled_seconds", "Time spent waiting for the rate limit.")
        self.clock_skew_seconds = gauge("clock_skew_seconds", "Our clock minus FUB's.")

        # The house.
        self.inbox_pending = gauge("inbox_pending", "People a webhook spoke of who are still to be read.")
        self.quarantined = gauge("quarantined", "Deliveries kept aside because something in them was unreadable.")
        self.alerts = counter("alerts", "Alerts out, by what became of them.", "outcome", ("sent", "failed", "given_up"))
        self.db_up = gauge("db_up", "1 while the database answers.")
        self.db_transaction_seconds = histogram("db_transaction_seconds", "How long a recording transaction took.", _FAST)
        self.lease_held = gauge("lease_held", "1 while this instance polls and keeps the webhooks.")
        self.ledger_imbalance = gauge("ledger_imbalance", "Answers that do not add up with outcomes and rows: must be 0.")
        self.chain_violations = gauge("chain_violations", "Rows whose stage_from is not the row before: must be 0.")
        self.problem = gauge(
            "problem", "1 while this problem holds; /health says since when and what to do.", "problem", tuple(ProblemName)
        )
        self.show_mode("starting")
        # A ratio that nobody has measured is not 0.
        self.completeness_ratio.set(float("nan"))

    def show_mode(self, mode: str) -> None:
        """Set the one-hot gauge."""
        for name in MODES:
            self.mode.labels(name).set(1 if name == mode else 0)
