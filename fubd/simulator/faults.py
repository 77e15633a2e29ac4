"""What can go wrong, and what nobody has documented: every switch of the simulator in two frozen values."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from fubd.simulator.rng import Rng


class UpdatedAfter(StrEnum):
    """What `updatedAfter` and `updatedBefore` do on people: documented as a filter, once observed to give nothing at all."""

    WORKS = "works"
    NOTHING = "total 0"
    IGNORED = "ignored"


class Merge(StrEnum):
    """What becomes known of the losing id of a merge; nothing is documented."""

    SILENT = "silent"
    """The id vanishes, and only the winner's peopleUpdated is sent."""
    DELETED = "deleted"
    """As above, with a peopleDeleted for the loser."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How this Follow Up Boss behaves where its documentation is silent or contradicts itself."""

    updated_after: UpdatedAfter = UpdatedAfter.WORKS
    updated_after_inclusive: bool = False
    """Whether a person updated in the very second asked for belongs to the answer."""
    lists_hide_trash: bool = False
    """Lists leave out people in Trash also where `includeTrash` asks for them: unknown parameters are ignored without a word."""
    total_as_text: bool = False
    next_absent_at_end: bool = False
    """On the last page `next` and `nextLink` are absent instead of null."""
    double_ampersand: bool = False
    """Write `&&` into nextLink, as some documented samples do."""
    deep_offset: int = 2000
    """The first offset that is refused."""
    creation_tells_stage: bool = False
    """A creation also sends peopleStageUpdated."""
    merge: Merge = Merge.SILENT
    ids_per_event: int = 0
    """How many people one webhook of a bulk change carries at most; 0 for no bound."""
    split_shares_event_id: bool = False
    """Whether the parts of a split bulk event bear one eventId."""
    assign_tells_stage: bool = True
    """Deleting a stage sends peopleStageUpdated for the people it moved."""
    third_webhook_status: int = 400
    php_json: bool = True
    """Webhook bodies escape slashes and non-ASCII letters, as PHP does."""
    delete_webhook_empty: bool = False
    """Deleting a webhook answers 204 without a body instead of 200."""
    lead_flow_archived: bool = False
    """`POST /events` is taken, answered 204, and nothing comes of it."""
    event_data_kept: bool = False
    """`GET /webhookEvents/:id` carries `data` too."""
    long_retries: bool = False
    """Go on retrying hourly up to eight hours after the documented table of five."""
    loopback_http: bool = True
    """Take callbacks by plain http on loopback addresses; everywhere else https is demanded."""
    answer_seconds: float = 0.0
    """How long the API takes for each answer, its reading done at once; simulated seconds."""
    limit_per_key: bool = False
    """Count the rate limit per API key instead of per account."""
    delivery_timeout_real_seconds: float = 10.0
    """How long a receiver may take; real seconds, since the receiver runs in real time."""
    delivery_concurrency: int = 16


class ApiFault(StrEnum):
    """What one API request can meet instead of its answer."""

    SERVER_ERROR = "server_error"
    """500 with an errorMessage."""
    BAD_GATEWAY = "bad_gateway"
    """502 with an HTML page, as a load balancer sends it."""
    THROTTLED = "throttled"
    """429 although the headers say requests remain."""
    HANG = "hang"
    """No answer until the caller gives up."""
    RESET = "reset"
    """The connection is torn before an answer."""
    TRUNCATED = "truncated"
    """Half the JSON, as if it were all."""
    CUT = "cut"
    """Half the body, then the connection is torn."""
    WRONG_TYPE = "wrong_type"
    """The right JSON, called text/plain."""
    HTML = "html"
    """200 with an HTML page."""
    FORBIDDEN = "forbidden"
    """403, as for an expired account."""
    UNAUTHORIZED = "unauthorized"
    """401, as for a revoked key."""


class DeliveryFault(StrEnum):
    """What can happen to one webhook delivery on its way."""

    LOST = "lost"
    """It is never sent."""
    DUPLICATE = "duplicate"
    """It is sent twice, although the first was acknowledged."""
    LATE = "late"
    """It is sent after `late_seconds`."""
    OUT_OF_ORDER = "out_of_order"
    """It waits until everything queued behind it is through."""
    FORGED = "forged"
    """Its signature is wrong."""
    UNSIGNED = "unsigned"
    """It has no signature."""
    STALLED = "stalled"
    """It waits until `Deliveries.release`."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, 0 to 1, of each fault: the first eleven per API request, the others per delivery."""

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
    """Between which simulated seconds a late delivery is late."""

    def draw_api(self, rng: Rng) -> ApiFault | None:
        """Draw what one API request meets."""
        return next((fault for fault in ApiFault if rng.chance(getattr(self, fault.value))), None)

    def draw_delivery(self, rng: Rng) -> DeliveryFault | None:
        """Draw what one delivery meets."""
        return next((fault for fault in DeliveryFault if rng.chance(getattr(self, fault.value))), None)


Fault = TypeVar("Fault", ApiFault, DeliveryFault)


class Script(Generic[Fault]):
    """What the next requests or deliveries meet, in order; before chance is asked. None lets one pass untouched, chance included."""

    def __init__(self) -> None:
        self._steps: deque[Fault | None] = deque(maxlen=100_000)

    def add(self, *steps: Fault | None) -> None:
        """Add what the next ones meet."""
        self._steps.extend(steps)

    def next(self) -> tuple[bool, Fault | None]:
        """Give whether the script has a word on this one, and that word."""
        return (True, self._steps.popleft()) if self._steps else (False, None)
