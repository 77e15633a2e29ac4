"""The fixed words that several parts share: names of Follow Up Boss's events, our routes, and the values of statuses and labels."""

from __future__ import annotations

from enum import StrEnum

# What we subscribe to. Names: docs.followupboss.com/reference/webhooks-guide.
STAGE_UPDATED = "peopleStageUpdated"
PERSON_CREATED = "peopleCreated"
PERSON_DELETED = "peopleDeleted"
SUBSCRIBED_EVENTS = (STAGE_UPDATED, PERSON_CREATED, PERSON_DELETED)

# Follow Up Boss's own stage: it cannot be renamed or deleted. Merging moves people to it without a stage webhook.
TRASH = "Trash"

# Where we receive webhooks. The second is the address of the scripts that fubd replaces; registrations with it stay valid.
WEBHOOK_ROUTE = "/webhook/fub"
OLDER_WEBHOOK_ROUTE = "/webhook/fub/stage-change"
WEBHOOK_ROUTES = (WEBHOOK_ROUTE, OLDER_WEBHOOK_ROUTE)

SOURCES = ("webhook", "polling")

# The status of a source, as `/health` and the view `source_health` show it.
HEALTHY = "HEALTHY"
STALE = {"webhook": "STALE - Check webhook server", "polling": "STALE - Check polling"}


class DeliveryOutcome(StrEnum):
    """What became of a delivery that is now committed."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    QUARANTINED = "quarantined"


# The outcomes of an answered webhook request: those, and the refusals.
DELIVERY_OUTCOMES = (*(outcome.value for outcome in DeliveryOutcome), "forged", "too_large", "too_slow", "unavailable")

POLL_KINDS = ("incremental", "scrub", "sweep")

# The states of a connection to our server: a request is being received, is being answered for an authenticated sender, or none is there.
CONNECTION_STATES = ("reading", "busy", "idle")
