"""The random and scripted faults of API requests and webhook deliveries."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Generic, TypeVar

from fubd.simulator.rng import Rng


class ApiFault(StrEnum):
    """What can happen to an API request instead of its answer."""

    SERVER_ERROR = "server_error"
    """500 with an errorMessage."""
    BAD_GATEWAY = "bad_gateway"
    """502 with an HTML page, as a load balancer sends it."""
    THROTTLED = "throttled"
    """429 although the headers say that requests remain."""
    HANG = "hang"
    """No answer until the caller gives up."""
    RESET = "reset"
    """The connection is reset before an answer."""
    TRUNCATED = "truncated"
    """The first half of the JSON as a complete answer."""
    CUT = "cut"
    """Half the body, then the connection is closed."""
    WRONG_TYPE = "wrong_type"
    """The right JSON as text/plain."""
    HTML = "html"
    """200 with an HTML page."""
    FORBIDDEN = "forbidden"
    """403 with FUB's words for an endpoint without access (observed)."""
    UNAUTHORIZED = "unauthorized"
    """401, as for a revoked key."""
    BAD_REQUEST = "bad_request"
    """400 with an errorMessage."""
    EXPIRED = "expired"
    """403, as for an expired account."""
    WAF = "waf"
    """403 with the HTML page of a web application firewall."""
    GATEWAY_NOT_FOUND = "gateway_not_found"
    """404 with the JSON of a gateway instead of FUB's."""
    ERROR_IN_200 = "error_in_200"
    """200 with an errorMessage."""
    NO_CONTENT = "no_content"
    """204 without a body."""
    DATE_AHEAD = "date_ahead"
    """The right answer with a Date an hour ahead."""
    DATE_OLD = "date_old"
    """The right answer with a Date three days old."""
    ODD_PERSON = "odd_person"
    """The right answer, but one person in it is malformed in a random way."""


class DeliveryFault(StrEnum):
    """What can happen to one webhook delivery."""

    LOST = "lost"
    """It is never sent."""
    DUPLICATE = "duplicate"
    """It is sent twice, although the first was acknowledged."""
    LATE = "late"
    """It is sent after `late_seconds`."""
    OUT_OF_ORDER = "out_of_order"
    """It waits until everything queued behind it is sent."""
    FORGED = "forged"
    """Its signature is wrong."""
    UNSIGNED = "unsigned"
    """It has no signature."""
    STALLED = "stalled"
    """It waits until `Deliveries.release`."""
    REDATED = "redated"
    """It is sent again with the same eventId and a later eventCreated."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The probability (0 to 1) of each fault: those of `ApiFault` per API request, those of `DeliveryFault` per delivery."""

    server_error: float = 0.0
    bad_gateway: float = 0.0
    throttled: float = 0.0
    hang: float = 0.0
    reset: float = 0.0
    truncated: float = 0.0
    cut: float = 0.0
    wrong_type: float = 0.0
    html: float = 0.0
    forbidden: float = 0.0
    unauthorized: float = 0.0
    bad_request: float = 0.0
    expired: float = 0.0
    waf: float = 0.0
    gateway_not_found: float = 0.0
    error_in_200: float = 0.0
    no_content: float = 0.0
    date_ahead: float = 0.0
    date_old: float = 0.0
    odd_person: float = 0.0
    lost: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    out_of_order: float = 0.0
    forged: float = 0.0
    unsigned: float = 0.0
    stalled: float = 0.0
    redated: float = 0.0
    late_seconds: tuple[float, float] = (60.0, 3060.0)
    """The range, in simulated seconds, by which a late delivery is late."""

    def draw_api(self, rng: Rng) -> ApiFault | None:
        """Draw the fault of one API request."""
        return next((fault for fault, probability in _possible(self, ApiFault) if rng.chance(probability)), None)

    def draw_delivery(self, rng: Rng) -> DeliveryFault | None:
        """Draw the fault of one delivery."""
        return next((fault for fault, probability in _possible(self, DeliveryFault) if rng.chance(probability)), None)


Fault = TypeVar("Fault", ApiFault, DeliveryFault)


@lru_cache
def _possible(faults: Faults, kind: type[Fault]) -> tuple[tuple[Fault, float], ...]:
    """Return the faults of this kind that can happen, with their probabilities; drawn at every request, mostly from none."""
    return tuple((fault, probability) for fault in kind if (probability := getattr(faults, fault.value)) > 0)


class Script(Generic[Fault]):
    """The faults of the next requests or deliveries, in order, before any random fault. None lets one pass without faults."""

    def __init__(self) -> None:
        self._steps: deque[Fault | None] = deque(maxlen=100_000)

    def add(self, *steps: Fault | None) -> None:
        """Append faults."""
        self._steps.extend(steps)

    def next(self) -> tuple[bool, Fault | None]:
        """Return whether the script covers this one, and its fault."""
        return (True, self._steps.popleft()) if self._steps else (False, None)
