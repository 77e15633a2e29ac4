"""How long each act takes, and how fast the daemon polls in it: everything that follows from the seconds there are."""

from __future__ import annotations

from dataclasses import dataclass

from fubd.core.pacing import Policy
from fubd.poller import PollPolicy

USUAL_SECONDS = 75.0
_SHORTEST_SECONDS = 20.0
# With the grace below and the way there and back it stays under two minutes.
_LONGEST_SECONDS = 90.0
_GRACE_SECONDS = 20.0
# What starting, reading the account and counting take of the whole; the rest is divided among the acts.
_AROUND_SECONDS = 7.0
# Follow Up Boss dates by whole seconds: what counts as missed must be older than that, and than a webhook on its way.
_LEAST_MISSED_AFTER_SECONDS = 1.5
_LEAST_PACE = 0.35


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Lengths in seconds, for one telling of the story.

    `story_seconds` is what it aims at; a slow machine may take until `latest_seconds` to finish it. `busy_seconds`: with webhooks;
    `dark_seconds`: without, after that was noticed; `calm_seconds`: after the recovery. `pace` is 1 where the daemon's intervals are
    those of the usual story, and less where everything must be sightings sooner.
    """

    story_seconds: float
    latest_seconds: float
    busy_seconds: float
    dark_seconds: float
    calm_seconds: float
    pace: float

    @property
    def settings(self) -> dict[str, str]:
        """The intervals as settings of the daemon: the same proportions as in earnest, within seconds instead of half an hour."""
        return {
            "FUBD_POLL_INTERVAL": f"{6 * self.pace:g}",
            "FUBD_POLL_INTERVAL_WATCH": f"{3 * self.pace:g}",
            "FUBD_POLL_INTERVAL_FAILOVER": f"{self.pace:g}",
            "FUBD_WEBHOOK_STALE_AFTER": f"{10 * self.pace:g}",
            "FUBD_POLL_STALE_AFTER": f"{10 * self.pace:g}",
            "FUBD_MISSED_AFTER": f"{max(2 * self.pace, _LEAST_MISSED_AFTER_SECONDS):g}",
        }

    @property
    def overlap_seconds(self) -> float:
        """By how much coverage stays behind the instant a poll began."""
        return 3 * self.pace

    def poll_policy(self, pacing: Policy) -> PollPolicy:
        """Give what the settings leave open, in the same proportions."""
        return PollPolicy(
            pacing=pacing,
            scrub_batches=1,
            overlap_seconds=self.overlap_seconds,
            refetch_gather_seconds=2 * self.pace,
            refetch_settle_seconds=0.3 * self.pace,
            refetch_retry_seconds=0.5 * self.pace,
        )


def make_plan(seconds: float | None) -> DemoPlan:
    """Divide the seconds among the acts; None for the usual length. What is too short or too long for the story is brought within it."""
    whole = min(max(seconds or USUAL_SECONDS, _SHORTEST_SECONDS), _LONGEST_SECONDS)
    scale = (whole - _AROUND_SECONDS) / (USUAL_SECONDS - _AROUND_SECONDS)
    return DemoPlan(
        story_seconds=whole,
        latest_seconds=whole + _GRACE_SECONDS,
        busy_seconds=30.0 * scale,
        dark_seconds=12.0 * scale,
        calm_seconds=4.0 * scale,
        pace=min(max(scale, _LEAST_PACE), 1.0),
    )
