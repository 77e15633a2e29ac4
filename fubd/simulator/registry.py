"""The webhooks that systems registered, and what their failing leads to."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from fubd.simulator.events import EVENTS
from fubd.simulator.faults import Behaviour

ACTIVE: Final = "Active"
DISABLED: Final = "Disabled"
PER_EVENT: Final = 2
FAILURE_WINDOW_SECONDS: Final = 48 * 3600
RECOVERY_SECONDS: Final = 7 * 86400
_BUCKET_SECONDS: Final = 3600


class Refusal(Exception):
    """The API says no: `status` and the errorMessage."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(slots=True)
class Hook:
    """One webhook. `created` and `updated` are seconds since 1970; `failing_since` is null while it does not fail too much."""

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

    def shown(self) -> dict[str, object]:
        """Give the webhook as the API shows it."""
        return {"id": self.id, "status": self.status, "event": self.event, "url": self.url}

    def failure_ratio(self, now: float) -> float:
        """Give failures over attempts of the last 48 hours; 0 without attempts."""
        while self.buckets and self.buckets[0][0] <= now - FAILURE_WINDOW_SECONDS:
            self.buckets.popleft()
        attempts = sum(bucket[1] for bucket in self.buckets)
        return sum(bucket[2] for bucket in self.buckets) / attempts if attempts else 0.0


class Registry:
    """All webhooks of the account. `now` gives seconds since 1970 on the simulator's clock."""

    def __init__(self, behaviour: Behaviour, now: Callable[[], float]) -> None:
        self.behaviour = behaviour
        self._now = now
        self._hooks: dict[int, Hook] = {}
        self._next_id = 1

    def active(self, event: str) -> list[Hook]:
        """Give the hooks that are told of an event."""
        return [hook for hook in self._hooks.values() if hook.event == event and hook.status == ACTIVE]

    def of_system(self, system_key: str) -> list[Hook]:
        """Give a system's hooks, oldest first."""
        return [hook for hook in self._hooks.values() if hook.system_key == system_key]

    def all(self) -> list[Hook]:
        """Give every hook, oldest first."""
        return list(self._hooks.values())

    def get(self, hook_id: int, system_key: str) -> Hook:
        """Give a system's hook. Raises Refusal 404."""
        hook = self._hooks.get(hook_id)
        if hook is None or hook.system_key != system_key:
            raise Refusal(HTTPStatus.NOT_FOUND, "Requested resource was not found.")
        return hook

    def add(self, event: object, url: object, system_key: str) -> Hook:
        """Register a hook. Raises Refusal 400: no such event, no usable url, or two of this event and system already."""
        name, target = self._event(event), self._url(url)
        self._room(name, system_key)
        now = self._now()
        hook = Hook(id=self._next_id, event=name, url=target, system_key=system_key, created=now, updated=now)
        self._hooks[hook.id] = hook
        self._next_id += 1
        return hook

    def change(self, hook: Hook, *, event: object = None, url: object = None, status: object = None) -> None:
        """Change a hook. Making it Active again replays nothing. Raises Refusal 400."""
        name = hook.event if event is None else self._event(event)
        target = hook.url if url is None else self._url(url)
        if status not in (None, ACTIVE, DISABLED):
            raise Refusal(HTTPStatus.BAD_REQUEST, "Invalid value for field: status.")
        if name != hook.event:
            self._room(name, hook.system_key)
        hook.event, hook.url, hook.updated = name, target, self._now()
        if isinstance(status, str):
            if status == ACTIVE and hook.status == DISABLED:
                hook.buckets.clear()
                hook.first_attempt = hook.failing_since = None
            hook.status = status

    def delete(self, hook: Hook) -> None:
        """Forget a hook, with whatever was still to be sent to it."""
        hook.deleted = True
        self._hooks.pop(hook.id, None)

    def disable(self, hook: Hook) -> None:
        """Disable a hook, as an administrator would or as failing for too long does."""
        hook.status = DISABLED
        hook.updated = self._now()

    def attempted(self, hook: Hook, *, failed: bool) -> None:
        """Count one delivery attempt, and disable the hook when it has failed too much for too long.

        Documented: more than half failed over 48 hours, and no recovery within a week. Read as: once the 48 hours are full and the
        ratio is above one half, the week begins; a ratio at or below it ends it.
        """
        now = self._now()
        start = now // _BUCKET_SECONDS * _BUCKET_SECONDS
        if not hook.buckets or hook.buckets[-1][0] != start:
            hook.buckets.append([start, 0, 0])
        hook.buckets[-1][1] += 1
        hook.buckets[-1][2] += failed
        hook.first_attempt = now if hook.first_attempt is None else hook.first_attempt
        if now - hook.first_attempt < FAILURE_WINDOW_SECONDS:
            return
        if hook.failure_ratio(now) * 2 <= 1:
            hook.failing_since = None
        elif hook.failing_since is None:
            hook.failing_since = now
        elif now - hook.failing_since >= RECOVERY_SECONDS:
            self.disable(hook)

    def _event(self, event: object) -> str:
        if not isinstance(event, str) or event not in EVENTS:
            raise Refusal(HTTPStatus.BAD_REQUEST, "Invalid value for field: event.")
        return event

    def _url(self, url: object) -> str:
        if not isinstance(url, str) or not url:
            raise Refusal(HTTPStatus.BAD_REQUEST, "Missing required field: url.")
        parts = urlsplit(url)
        loopback = parts.hostname == "localhost" or _is_loopback(parts.hostname or "")
        if parts.scheme == "https" or (parts.scheme == "http" and loopback and self.behaviour.loopback_http):
            return url
        raise Refusal(HTTPStatus.BAD_REQUEST, "Invalid value for field: url. Only https is supported.")

    def _room(self, event: str, system_key: str) -> None:
        if sum(hook.event == event for hook in self.of_system(system_key)) >= PER_EVENT:
            raise Refusal(
                self.behaviour.third_webhook_status, f"A maximum of {PER_EVENT} webhooks per event already exists for this system."
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
