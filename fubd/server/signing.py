"""Notices that our signing key is not Follow Up Boss's: its deliveries arrive, and each is refused."""

from __future__ import annotations

import re
from datetime import datetime

from fubd.core.problems import ProblemName
from fubd.core.webhook import decode
from fubd.ports import Clock
from fubd.problems import Problems

_SIGNATURE = re.compile("[0-9a-f]{64}")
_MAX_BODY_BYTES = 32 * 1024
_REFUSED_DELIVERIES = 3
_QUIET_SECONDS = 600.0
_TEXT = (
    "Deliveries that look like Follow Up Boss's arrive, and the signature of each is refused. FUB_SYSTEM_KEY is probably not the key of "
    "the system that registered the webhooks: set it to that key, or FUB_SYSTEM_KEY_PREVIOUS while it is being replaced."
)


class SigningKeyCheck:
    """Begins and ends the problem `signing_key_wrong`.

    A stranger can imitate a delivery, but for its signature. So the problem is only a hint to the owner: it begins when several requests of
    this form were refused and none was verified for a while, and ends with the first that is verified.
    """

    def __init__(self, problems: Problems, clock: Clock) -> None:
        self._problems = problems
        self._clock = clock
        self._refused = 0
        self._verified_at: float | None = None

    def on_verified(self) -> None:
        """Note that a signature was valid."""
        self._refused = 0
        self._verified_at = self._clock.monotonic()
        self._problems.end(ProblemName.SIGNING_KEY_WRONG)

    def on_refused(self, body: bytes, signature: str | None, *, fub_now: datetime) -> None:
        """Note that a signature was not valid."""
        if self._refused >= _REFUSED_DELIVERIES or self._was_verified_lately() or not _is_delivery(body, signature, fub_now):
            return
        self._refused += 1
        if self._refused == _REFUSED_DELIVERIES:
            self._problems.begin(ProblemName.SIGNING_KEY_WRONG, _TEXT)

    def _was_verified_lately(self) -> bool:
        return self._verified_at is not None and self._clock.monotonic() - self._verified_at < _QUIET_SECONDS


def _is_delivery(body: bytes, signature: str | None, fub_now: datetime) -> bool:
    """Return whether a request has the form of a delivery of Follow Up Boss."""
    if signature is None or _SIGNATURE.fullmatch(signature) is None or len(body) > _MAX_BODY_BYTES:
        return False
    delivery = decode(body, fub_now=fub_now)
    return delivery.event_id is not None and delivery.quarantine is None
