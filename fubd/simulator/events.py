"""From what happened to what webhooks say of it: event names, payloads and signatures, as the Webhooks Guide words them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fubd.simulator.account import Happening, Kind
from fubd.simulator.dice import Dice
from fubd.simulator.faults import Behaviour, Merge
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
"""Every event name of the Webhooks Guide."""

_OTHER_EVENTS: Final = {
    Kind.NOTED: ("notesCreated", "notes"),
    Kind.STAGE_RENAMED: ("stageUpdated", "stages"),
    Kind.STAGE_CREATED: ("stageCreated", "stages"),
    Kind.STAGE_DELETED: ("stageDeleted", ""),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One webhook event, as all hooks of its name are told it.

    `changes` are the true changes it speaks of, for the ledger of what was shown; nothing of them is sent.
    """

    event_id: str
    name: str
    ids: tuple[int, ...]
    created: datetime
    uri: str | None
    data: Mapping[str, object] | None = None
    changes: tuple[TrueChange, ...] = ()

    def payload(self) -> dict[str, object]:
        """Give the documented payload; `data` is absent where the guide shows none."""
        told: dict[str, object] = {
            "eventId": self.event_id,
            "eventCreated": self.created.strftime("%Y-%m-%dT%H:%M:%S+00:00"),
            "event": self.name,
            "resourceIds": list(self.ids),
            "uri": self.uri,
        }
        return told if self.data is None else told | {"data": dict(self.data)}

    def record(self, *, with_data: bool) -> dict[str, object]:
        """Give what `GET /webhookEvents/:id` shows: `id` instead of `eventId`, and `data` only where the switch says so."""
        told = {"id": self.event_id} | self.payload()
        del told["eventId"]
        if not with_data:
            told.pop("data", None)
        return told


def encode(payload: Mapping[str, object], *, php: bool = True) -> bytes:
    """Write JSON as PHP's json_encode does (slashes and all but ASCII escaped), or plain."""
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=php)
    return (text.replace("/", "\\/") if php else text).encode()


def sign(body: bytes, system_key: str) -> str:
    """Give the FUB-Signature of a body: lowercase hex HMAC-SHA256 over the base64 of the body, key X-System-Key (Webhooks Guide)."""
    return hmac.new(system_key.encode(), base64.b64encode(body), hashlib.sha256).hexdigest()


class Herald:
    """Makes events of happenings. `base` gives the API's own URL for the `uri`; `dice` makes the eventIds."""

    def __init__(self, behaviour: Behaviour, dice: Dice, base: str = "https://api.followupboss.com/v1") -> None:
        self.behaviour = behaviour
        self.base = base
        self._dice = dice

    def events(self, happening: Happening) -> list[Event]:
        """Give the events of one happening, in the order they are sent."""
        return list(self._events(happening))

    def _events(self, it: Happening) -> Iterator[Event]:
        match it.kind:
            case Kind.MOVED:
                yield from self._moved(it)
            case Kind.CREATED:
                yield from self._created(it)
            case Kind.EDITED:
                yield self._people("peopleUpdated", it)
            case Kind.TAGGED:
                yield self._people("peopleTagsCreated", it, {"tags": list(it.tags)})
            case Kind.DELETED:
                yield self._event("peopleDeleted", it.ids, it.at, None)
            case Kind.MERGED:
                if self.behaviour.merge is Merge.DELETED:
                    yield self._event("peopleDeleted", it.ids[:1], it.at, None)
                yield self._event("peopleUpdated", it.ids[1:], it.at, self._people_uri(it.ids[1:]))
            case _:
                name, resource = _OTHER_EVENTS[it.kind]
                yield self._event(name, it.ids, it.at, f"{self.base}/{resource}/{it.ids[0]}" if resource else None)

    def _created(self, it: Happening) -> Iterator[Event]:
        yield self._people("peopleCreated", it)
        if it.via == "lead_flow":
            yield self._people("peopleUpdated", it)
        if self.behaviour.creation_tells_stage:
            yield self._people("peopleStageUpdated", it, {"stage": it.stage}, it.changes)

    def _moved(self, it: Happening) -> Iterator[Event]:
        size = it.split or self.behaviour.ids_per_event or len(it.ids)
        names = ["peopleUpdated"]
        if it.cause != "stage deleted" or self.behaviour.assign_tells_stage:
            names.insert(0, "peopleStageUpdated")
        for name in names:
            shared = self._id()
            for start in range(0, len(it.ids), size):
                ids, changes = it.ids[start : start + size], it.changes[start : start + size]
                yield Event(
                    event_id=shared if self.behaviour.split_shares_event_id else self._id(),
                    name=name,
                    ids=ids,
                    created=it.at,
                    uri=self._people_uri(ids),
                    data={"stage": it.stage} if name == "peopleStageUpdated" else None,
                    changes=changes if name == "peopleStageUpdated" else (),
                )

    def _people(self, name: str, it: Happening, data: Mapping[str, object] | None = None, changes: tuple[TrueChange, ...] = ()) -> Event:
        return Event(self._id(), name, it.ids, it.at, self._people_uri(it.ids), data, changes)

    def _event(self, name: str, ids: tuple[int, ...], at: datetime, uri: str | None) -> Event:
        return Event(self._id(), name, ids, at, uri)

    def _people_uri(self, ids: tuple[int, ...]) -> str:
        return f"{self.base}/people?id={','.join(map(str, ids))}"

    def _id(self) -> str:
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
