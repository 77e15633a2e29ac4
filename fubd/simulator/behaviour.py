"""The switches of the simulator: how this Follow Up Boss behaves where the documentation is silent or contradicts itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class UpdatedAfter(StrEnum):
    """The effect of `updatedAfter` and `updatedBefore` on people.

    Documented as a filter (https://docs.followupboss.com/reference/common-filters), once observed to return nothing.
    """

    WORKS = "works"
    NOTHING = "total 0"
    IGNORED = "ignored"


class Merge(StrEnum):
    """What becomes of the losers of a merge."""

    TRASHED = "trashed"
    """They move to stage Trash (help centre, articles 360015171394 and 4402372112791)."""
    VANISHED = "vanished"
    """Their ids no longer exist (404), without a webhook about them."""
    DELETED = "deleted"
    """Their ids no longer exist (404), with a peopleDeleted."""


class Arrays(StrEnum):
    """How the API writes arrays."""

    LISTS = "lists"
    NULL_WHEN_EMPTY = "null"
    OBJECTS = "objects"
    """As objects with numeric keys, as PHP's json_encode writes arrays with gaps; empty ones as lists."""


class Spelling(StrEnum):
    """How webhooks spell the name of a stage."""

    SAME = "same"
    ENTITIES = "entities"
    """With HTML entities."""
    BLANKS = "blanks"
    """With blanks around it."""
    DECOMPOSED = "decomposed"
    """In Unicode normal form D."""
    UPPER_CASE = "upper case"


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
    merge: Merge = Merge.TRASHED
    merge_sends_stage: bool = True
    """A merge that trashes the losers sends peopleStageUpdated for them; undocumented."""
    ids_per_event: int = 0
    """The most people in one webhook of a bulk change; 0 for no limit."""
    split_shares_event_id: bool = False
    """Whether the parts of a split bulk event share one eventId."""
    stage_deletion_sends_stage: bool = True
    """Deleting a stage sends peopleStageUpdated for the people it moved."""
    stage_deletion_moves_updated: bool = True
    """Deleting a stage moves `updated` of the people it moved."""
    stage_spelling: Spelling = Spelling.SAME
    event_ids_as_object: bool = False
    """Webhooks write `resourceIds` as an object with numeric keys."""
    event_lag_seconds: float = 0.0
    """By how much `eventCreated` may trail `updated`; drawn for each event, in order."""
    replica_lag_seconds: float = 0.0
    """By how much a read may trail; drawn for each request."""
    list_lag_seconds: float = 0.0
    """By how much the index behind the lists may trail, except lists by id; it never goes back."""
    registry_lag_seconds: float = 0.0
    """By how much the list of webhooks trails."""
    instants_without_zone: bool = False
    """People are written with instants that lack the `Z`."""
    arrays: Arrays = Arrays.LISTS
    total_counts_page: bool = False
    """`total` counts the people on the page only."""
    page_limit: int = 100
    """The most people on a page, whatever is asked for."""
    next_refused: bool = False
    """`next` is answered 400."""
    refused_field: str = ""
    """Asking for this field is answered 400; empty for none."""
    refused_parameter: str = ""
    """A list of people with this parameter is answered 400, such as `sort` or `includeTrash`; empty for none."""
    account_expired: bool = False
    """Every request is answered 403, as documented for expired accounts (https://docs.followupboss.com/reference/error-responses)."""
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
