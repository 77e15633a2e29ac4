"""A second deployment of the same registered system, which claims the webhooks for itself."""

from __future__ import annotations

from fubd.simulator.clock import SimClock
from fubd.simulator.registry import ACTIVE, Registry


class RivalDeployment:
    """Points every webhook of a system at its own URL, again and again for a number of rounds."""

    def __init__(self, registry: Registry, clock: SimClock, *, system_key: str, url: str) -> None:
        self._registry = registry
        self._clock = clock
        self._system_key = system_key
        self._url = url
        self.corrections = 0
        """How many webhooks it has changed."""

    def start(self, *, every_seconds: float, rounds: int) -> None:
        """Claim the webhooks now, and again after these simulated seconds until the rounds are over. Raises ApiError for a bad URL."""
        for webhook in self._registry.of_system(self._system_key):
            if webhook.url != self._url or webhook.status != ACTIVE:
                self._registry.update(webhook, url=self._url, status=ACTIVE)
                self.corrections += 1
        if rounds > 1:
            self._clock.call_later(every_seconds, lambda: self.start(every_seconds=every_seconds, rounds=rounds - 1))
