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
