"""Every switch and fault of the simulator, in two frozen values: `Behaviour` (permanent) and `Faults` (random)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from fubd.simulator.rng import Rng


class UpdatedAfter(StrEnum):
    """The effect of `updatedAfter` and `updatedBefore` on people.

    Documented as a filter (https://docs.followupboss.com/reference/common-filters), once observed to return nothing.
    """

    WORKS = "works"
    NOTHING = "total 0"
    IGNORED = "ignored"


class Merge(StrEnum):
    """The webhooks about the losing id of a merge; undocumented."""

    SILENT = "silent"
    """The id vanishes, and only the winner's peopleUpdated is sent."""
    DELETED = "deleted"
    """The same, with a peopleDeleted for the loser."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How this Follow Up Boss behaves where the documentation is silent or contradicts itself."""

    updated_after: UpdatedAfter = UpdatedAfter.WORKS
    updated_after_inclusive: bool = False
    """Whether `updatedAfter` includes people updated in that very second."""
    lists_hide_trash: bool = False
    """Lists leave out people in Trash even with `includeTrash`, as FUB silently ignores unknown parameters (observed)."""
    total_as_text: bool = False
    next_absent_at_end: bool = False
    """On the last page `next` and `nextLink` are absent instead of null."""
    double_ampersand: bool = False
    """Write `&&` into nextLink, as some samples do (https://docs.followupboss.com/reference/pagination)."""
    deep_offset: int = 2000
    """The first offset that is refused (observed)."""
    creation_sends_stage: bool = False
    """A creation also sends peopleStageUpdated."""
    merge: Merge = Merge.SILENT
    ids_per_event: int = 0
    """The most people in one webhook of a bulk change; 0 for no limit."""
    split_shares_event_id: bool = False
    """Whether the parts of a split bulk event share one eventId."""
    stage_deletion_sends_stage: bool = True
    """Deleting a stage sends peopleStageUpdated for the people it moved."""
    third_webhook_status: int = 400
    php_json: bool = True
    """Webhook bodies escape slashes and non-ASCII letters, as PHP does."""
    delete_webhook_empty: bool = False
    """Deleting a webhook answers 204 without a body instead of 200."""
    lead_flow_archived: bool = False
    """`POST /events` answers 204 and has no effect."""
    event_data_kept: bool = False
    """`GET /webhookEvents/:id` includes `data`."""
    long_retries: bool = False
    """Continue to retry hourly for eight hours after the documented table of five."""
    loopback_http: bool = True
    """Accept callbacks by plain http on loopback addresses; all others must use https."""
    answer_seconds: float = 0.0
    """How long each API answer takes after the account was read; simulated seconds."""
    limit_per_key: bool = False
    """Count the rate limit per API key instead of per account."""
    delivery_timeout_real_seconds: float = 10.0
    """How long a receiver may take; real seconds, since the receiver runs in real time."""
    delivery_concurrency: int = 16


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
    lost: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    out_of_order: float = 0.0
    forged: float = 0.0
    unsigned: float = 0.0
    stalled: float = 0.0
    late_seconds: tuple[float, float] = (60.0, 3060.0)
    """The range, in simulated seconds, by which a late delivery is late."""

    def draw_api(self, rng: Rng) -> ApiFault | None:
        """Draw the fault of one API request."""
        return next((fault for fault in ApiFault if rng.chance(getattr(self, fault.value))), None)

    def draw_delivery(self, rng: Rng) -> DeliveryFault | None:
        """Draw the fault of one delivery."""
        return next((fault for fault in DeliveryFault if rng.chance(getattr(self, fault.value))), None)


Fault = TypeVar("Fault", ApiFault, DeliveryFault)


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
