"""The length of each act and the daemon's intervals, derived from the length of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from fubd.core.pacing import Policy
from fubd.poller import PollPolicy

DEFAULT_SECONDS = 75.0
_SHORTEST_SECONDS = 20.0
_LONGEST_SECONDS = 90.0
# What a slow machine may take longer; start and stop included, the demo stays under two minutes.
_GRACE_SECONDS = 60.0
_LATEST_SECONDS = 110.0
# For starting, reading the account and scoring; the rest is divided among the acts.
_OVERHEAD_SECONDS = 7.0
# FUB dates events in whole seconds: a missed change must be older than that, and than a webhook in transit.
_MIN_MISSED_AFTER_SECONDS = 1.5
_MIN_PACE = 0.35


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Lengths in seconds of one run.

    `story_seconds` is the target; a slow machine may take until `latest_seconds`. `busy_seconds`: with webhooks; `dark_seconds`: without
    them, after fubd has noticed; `calm_seconds`: after the recovery. `pace` scales the daemon's intervals; it is 1 for the default
    length and less for shorter runs.
    """

    story_seconds: float
    latest_seconds: float
    busy_seconds: float
    dark_seconds: float
    calm_seconds: float
    pace: float

    @property
    def settings(self) -> dict[str, str]:
        """The daemon's settings: the proportions of the defaults, but seconds instead of half an hour."""
        return {
            "FUBD_POLL_INTERVAL": f"{6 * self.pace:g}",
            "FUBD_POLL_INTERVAL_WATCH": f"{3 * self.pace:g}",
            "FUBD_POLL_INTERVAL_FAILOVER": f"{self.pace:g}",
            "FUBD_WEBHOOK_STALE_AFTER": f"{10 * self.pace:g}",
            "FUBD_POLL_STALE_AFTER": f"{10 * self.pace:g}",
            "FUBD_MISSED_AFTER": f"{max(2 * self.pace, _MIN_MISSED_AFTER_SECONDS):g}",
        }

    @property
    def overlap_seconds(self) -> float:
        """By how much coverage stays behind the start of a poll."""
        return 3 * self.pace

    def poll_policy(self, pacing: Policy) -> PollPolicy:
        """Return the poll policy that no setting controls, in the same proportions."""
        return PollPolicy(
            pacing=pacing,
            scrub_batches=1,
            overlap_seconds=self.overlap_seconds,
            refetch_batch_seconds=2 * self.pace,
            refetch_settle_seconds=0.3 * self.pace,
            refetch_retry_seconds=0.5 * self.pace,
        )


def make_plan(seconds: float | None) -> DemoPlan:
    """Divide the seconds among the acts; None for the default length. Values out of range are limited to the nearest possible."""
    whole = min(max(seconds or DEFAULT_SECONDS, _SHORTEST_SECONDS), _LONGEST_SECONDS)
    scale = (whole - _OVERHEAD_SECONDS) / (DEFAULT_SECONDS - _OVERHEAD_SECONDS)
    return DemoPlan(
        story_seconds=whole,
        latest_seconds=min(whole + _GRACE_SECONDS, _LATEST_SECONDS),
        busy_seconds=30.0 * scale,
        dark_seconds=12.0 * scale,
        calm_seconds=4.0 * scale,
        pace=min(max(scale, _MIN_PACE), 1.0),
    )
