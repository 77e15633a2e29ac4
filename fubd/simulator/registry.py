"""The webhooks that systems registered, and how failures disable them."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from fubd.simulator.conditions import Conditions
from fubd.simulator.events import EVENTS

ACTIVE: Final = "Active"
DISABLED: Final = "Disabled"
PER_EVENT: Final = 2
FAILURE_WINDOW_SECONDS: Final = 48 * 3600
RECOVERY_SECONDS: Final = 7 * 86400
_BUCKET_SECONDS: Final = 3600
_SNAPSHOTS_KEPT: Final = 100

_Snapshot = tuple[float, tuple[tuple[str, dict[str, object]], ...]]
"""When the registry changed, and all webhooks since then, each with the key of its system."""


class ApiError(Exception):
    """An error answer of the API: `status` and the errorMessage."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(slots=True)
class Webhook:
    """A registered webhook. `created` and `updated` are seconds since 1970; `failing_since` is None while few attempts fail."""

    id: int
    event: str
    url: str
    system_key: str
    created: float
    updated: float
    status: str = ACTIVE
    first_attempt: float | None = None
    failing_since: float | None = None
    deleted: bool = False
    buckets: deque[list[float]] = field(default_factory=deque)

    def to_json(self) -> dict[str, object]:
        """Return the webhook as the API shows it."""
        return {"id": self.id, "status": self.status, "event": self.event, "url": self.url}

    def failure_ratio(self, now: float) -> float:
        """Return failures over attempts of the last 48 hours; 0 without attempts."""
        while self.buckets and self.buckets[0][0] <= now - FAILURE_WINDOW_SECONDS:
            self.buckets.popleft()
        attempts = sum(bucket[1] for bucket in self.buckets)
        return sum(bucket[2] for bucket in self.buckets) / attempts if attempts else 0.0


class Registry:
    """All webhooks of the account. `now` returns seconds since 1970 on the simulator's clock."""

    def __init__(self, conditions: Conditions, now: Callable[[], float]) -> None:
        self._conditions = conditions
        self._now = now
        self._webhooks: dict[int, Webhook] = {}
        self._next_id = 1
        self._history: deque[_Snapshot] = deque(maxlen=_SNAPSHOTS_KEPT)

    def active(self, event: str) -> list[Webhook]:
        """Return the webhooks that receive an event."""
        return [webhook for webhook in self._webhooks.values() if webhook.event == event and webhook.status == ACTIVE]

    def of_system(self, system_key: str) -> list[Webhook]:
        """Return a system's webhooks, oldest first."""
        return [webhook for webhook in self._webhooks.values() if webhook.system_key == system_key]

    def listed(self, system_key: str) -> list[dict[str, object]]:
        """Return a system's webhooks as its list shows them, which may lag behind."""
        lag = self._conditions.behaviour.registry_lag_seconds
        if lag <= 0:
            return [webhook.to_json() for webhook in self.of_system(system_key)]
        past = [webhooks for at, webhooks in self._history if at <= self._now() - lag]
        return [webhook for key, webhook in (past[-1] if past else ()) if key == system_key]

    def all(self) -> list[Webhook]:
        """Return every webhook, oldest first."""
        return list(self._webhooks.values())

    def get(self, webhook_id: int, system_key: str) -> Webhook:
        """Return a system's webhook. Raises ApiError 404."""
        webhook = self._webhooks.get(webhook_id)
        if webhook is None or webhook.system_key != system_key:
            raise ApiError(HTTPStatus.NOT_FOUND, "Requested resource was not found.")
        return webhook

    def add(self, event: object, url: object, system_key: str) -> Webhook:
        """Register a webhook. Raises ApiError 400: unknown event, unusable url, or two of this event and system exist already."""
        name, target = self._event(event), self._url(url)
        self._require_free_slot(name, system_key)
        now = self._now()
        webhook = Webhook(id=self._next_id, event=name, url=target, system_key=system_key, created=now, updated=now)
        self._webhooks[webhook.id] = webhook
        self._next_id += 1
        self._remember()
        return webhook

    def update(self, webhook: Webhook, *, event: object = None, url: object = None, status: object = None) -> None:
        """Change a webhook. Setting it Active again replays nothing. Raises ApiError 400."""
        name = webhook.event if event is None else self._event(event)
        target = webhook.url if url is None else self._url(url)
        if status not in (None, ACTIVE, DISABLED):
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: status.")
        if name != webhook.event:
            self._require_free_slot(name, webhook.system_key)
        webhook.event, webhook.url, webhook.updated = name, target, self._now()
        if isinstance(status, str):
            if status == ACTIVE and webhook.status == DISABLED:
                webhook.buckets.clear()
                webhook.first_attempt = webhook.failing_since = None
            webhook.status = status
        self._remember()

    def delete(self, webhook: Webhook) -> None:
        """Delete a webhook; pending deliveries to it are lost."""
        webhook.deleted = True
        self._webhooks.pop(webhook.id, None)
        self._remember()

    def disable(self, webhook: Webhook) -> None:
        """Disable a webhook, as an administrator can, or as failing for too long does."""
        webhook.status = DISABLED
        webhook.updated = self._now()
        self._remember()

    def record_attempt(self, webhook: Webhook, *, failed: bool) -> None:
        """Count one delivery attempt, and disable the webhook if it has failed too often for too long.

        Documented (https://docs.followupboss.com/reference/webhooks-guide): more than half failed over 48 hours, and no recovery within a
        week. Interpreted as: once 48 hours have passed and the ratio is above one half, the week begins; a ratio at or below it ends it.
        """
        now = self._now()
        start = now // _BUCKET_SECONDS * _BUCKET_SECONDS
        if not webhook.buckets or webhook.buckets[-1][0] != start:
            webhook.buckets.append([start, 0, 0])
        webhook.buckets[-1][1] += 1
        webhook.buckets[-1][2] += failed
        webhook.first_attempt = now if webhook.first_attempt is None else webhook.first_attempt
        if now - webhook.first_attempt < FAILURE_WINDOW_SECONDS:
            return
        if webhook.failure_ratio(now) * 2 <= 1:
            webhook.failing_since = None
        elif webhook.failing_since is None:
            webhook.failing_since = now
        elif now - webhook.failing_since >= RECOVERY_SECONDS:
            self.disable(webhook)

    def _remember(self) -> None:
        self._history.append((self._now(), tuple((one.system_key, one.to_json()) for one in self._webhooks.values())))

    def _event(self, event: object) -> str:
        if not isinstance(event, str) or event not in EVENTS:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: event.")
        return event

    def _url(self, url: object) -> str:
        if not isinstance(url, str) or not url:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Missing required field: url.")
        parts = urlsplit(url)
        loopback = parts.hostname == "localhost" or _is_loopback(parts.hostname or "")
        if parts.scheme == "https" or (parts.scheme == "http" and loopback and self._conditions.behaviour.loopback_http):
            return url
        raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: url. Only https is supported.")

    def _require_free_slot(self, event: str, system_key: str) -> None:
        if sum(webhook.event == event for webhook in self.of_system(system_key)) >= PER_EVENT:
            raise ApiError(
                self._conditions.behaviour.third_webhook_status,
                f"A maximum of {PER_EVENT} webhooks per event already exists for this system.",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
