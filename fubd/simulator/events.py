"""Webhook events made from account events: names, payloads and signatures (https://docs.followupboss.com/reference/webhooks-guide)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from fubd.simulator.account_events import MERGED, STAGE_DELETED, AccountEvent, AccountEventKind
from fubd.simulator.conditions import Conditions
from fubd.simulator.oddities import spell
from fubd.simulator.rng import Rng
from fubd.simulator.truth import TrueChange

EVENTS: Final = frozenset(
    {
        *(f"people{what}" for what in ("Created", "Updated", "Deleted", "TagsCreated", "StageUpdated")),
        *(f"peopleRelationship{what}" for what in ("Created", "Updated", "Deleted")),
        *(
            f"{subject}{what}"
            for subject in (
                "notes", "emails", "tasks", "appointments", "textMessages", "calls", "deals", "pipeline", "pipelineStage",
                "stage", "customFields", "dealCustomFields", "threadedReply",
            )
            for what in ("Created", "Updated", "Deleted")
        ),
        "emEventsOpened", "emEventsClicked", "emEventsUnsubscribed", "eventsCreated", "reactionCreated", "reactionDeleted",
    }
)  # fmt: skip
"""Every event name of the webhooks guide."""

_OTHER_EVENTS: Final = {
    AccountEventKind.NOTED: ("notesCreated", "notes"),
    AccountEventKind.STAGE_RENAMED: ("stageUpdated", "stages"),
    AccountEventKind.STAGE_CREATED: ("stageCreated", "stages"),
    AccountEventKind.STAGE_DELETED: ("stageDeleted", ""),
}


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One webhook event, as every webhook of its name receives it.

    `changes` are the true changes it reports; they are not sent, only used to record sightings.
    """

    event_id: str
    name: str
    ids: tuple[int, ...]
    created: datetime
    uri: str | None
    data: Mapping[str, object] | None = None
    changes: tuple[TrueChange, ...] = ()

    def payload(self) -> dict[str, object]:
        """Return the documented payload; `data` is absent for events where the guide shows none."""
        payload: dict[str, object] = {
            "eventId": self.event_id,
            "eventCreated": self.created.strftime("%Y-%m-%dT%H:%M:%S+00:00"),
            "event": self.name,
            "resourceIds": list(self.ids),
            "uri": self.uri,
        }
        return payload if self.data is None else payload | {"data": dict(self.data)}

    def record(self, *, with_data: bool) -> dict[str, object]:
        """Return what `GET /webhookEvents/:id` shows: `id` instead of `eventId`, and `data` only if the switch says so."""
        record = {"id": self.event_id} | self.payload()
        del record["eventId"]
        if not with_data:
            record.pop("data", None)
        return record


def encode(payload: Mapping[str, object], *, php: bool = True) -> bytes:
    """Encode JSON as PHP's json_encode does (slashes and non-ASCII letters escaped), or plainly."""
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=php)
    return (text.replace("/", "\\/") if php else text).encode()


def sign(body: bytes, system_key: str) -> str:
    """Return the FUB-Signature: lowercase hex HMAC-SHA256 over the base64 of the body, with X-System-Key as the key.

    See https://docs.followupboss.com/reference/webhooks-guide.
    """
    return hmac.new(system_key.encode(), base64.b64encode(body), hashlib.sha256).hexdigest()


class EventFactory:
    """Makes webhook events of account events. `base` is the API's own URL for `uri`; `rng` makes the event ids and the lags."""

    def __init__(self, conditions: Conditions, rng: Rng, base: str = "https://api.followupboss.com/v1") -> None:
        self._conditions = conditions
        self.base = base
        self._rng = rng
        self._last_created: datetime | None = None

    def events(self, event: AccountEvent) -> list[WebhookEvent]:
        """Return the webhook events of an account event, in the order they are sent."""
        return list(self._events(replace(event, at=self._created_at(event.at))))

    def _created_at(self, at: datetime) -> datetime:
        """Return `eventCreated`. A queue that lags keeps its order."""
        limit = self._conditions.behaviour.event_lag_seconds
        if limit <= 0:
            return at
        created = at + timedelta(seconds=self._rng.uniform(0, limit))
        self._last_created = created if self._last_created is None else max(created, self._last_created)
        return self._last_created

    def _events(self, event: AccountEvent) -> Iterator[WebhookEvent]:
        match event.kind:
            case AccountEventKind.MOVED:
                yield from self._moved(event)
            case AccountEventKind.CREATED:
                yield from self._created(event)
            case AccountEventKind.EDITED | AccountEventKind.MERGED:
                yield self._people("peopleUpdated", event)
            case AccountEventKind.TAGGED:
                yield self._people("peopleTagsCreated", event, {"tags": list(event.tags)})
            case AccountEventKind.DELETED:
                yield self._event("peopleDeleted", event, None)
            case _:
                name, resource = _OTHER_EVENTS[event.kind]
                yield self._event(name, event, f"{self.base}/{resource}/{event.ids[0]}" if resource else None)

    def _created(self, event: AccountEvent) -> Iterator[WebhookEvent]:
        yield self._people("peopleCreated", event)
        if event.via == "lead_flow":
            yield self._people("peopleUpdated", event)
        if self._conditions.behaviour.creation_sends_stage:
            yield self._people("peopleStageUpdated", event, self._stage_data(event), event.changes)

    def _moved(self, event: AccountEvent) -> Iterator[WebhookEvent]:
        behaviour = self._conditions.behaviour
        size = event.split or behaviour.ids_per_event or len(event.ids)
        silent_causes = {STAGE_DELETED: not behaviour.stage_deletion_sends_stage, MERGED: not behaviour.merge_sends_stage}
        names = ["peopleUpdated"] if silent_causes.get(event.cause) else ["peopleStageUpdated", "peopleUpdated"]
        for name in names:
            about_stage = name == "peopleStageUpdated"
            shared = self._id()
            for start in range(0, len(event.ids), size):
                ids = event.ids[start : start + size]
                yield WebhookEvent(
                    event_id=shared if behaviour.split_shares_event_id else self._id(),
                    name=name,
                    ids=ids,
                    created=event.at,
                    uri=self._people_uri(ids),
                    data=self._stage_data(event) if about_stage else None,
                    changes=event.changes[start : start + size] if about_stage else (),
                )

    def _stage_data(self, event: AccountEvent) -> dict[str, object]:
        return {"stage": spell(str(event.stage), self._conditions.behaviour.stage_spelling)}

    def _people(
        self, name: str, event: AccountEvent, data: Mapping[str, object] | None = None, changes: tuple[TrueChange, ...] = ()
    ) -> WebhookEvent:
        return WebhookEvent(self._id(), name, event.ids, event.at, self._people_uri(event.ids), data, changes)

    def _event(self, name: str, event: AccountEvent, uri: str | None) -> WebhookEvent:
        return WebhookEvent(self._id(), name, event.ids, event.at, uri)

    def _people_uri(self, ids: tuple[int, ...]) -> str:
        return f"{self.base}/people?id={','.join(map(str, ids))}"

    def _id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
