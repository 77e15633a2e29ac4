"""The HTTP API of the account: routes under /v1 with the documented answers, limits and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from fubd.simulator import query as people_query
from fubd.simulator.account import Account
from fubd.simulator.deliveries import Deliveries
from fubd.simulator.faults import Behaviour
from fubd.simulator.keys import Caller, Keys
from fubd.simulator.population import GONE, HIDDEN
from fubd.simulator.rate_limits import LIMITS, RateLimits
from fubd.simulator.registry import ApiError, Registry

NOT_FOUND: Final = "Requested resource was not found."
DEEP: Final = "Deep pagination disabled, use 'nextLink' url"
CUSTOM_FIELDS: Final = (
    ("customCampaignID", "Campaign ID"),
    ("customPropertyState", "Property State"),
    ("customOfferAmount", "Offer Amount"),
)

_EMAIL = re.compile(r"person(\d+)@example\.com", re.IGNORECASE)
_PERSON_FIELDS: Final = frozenset({"firstName", "lastName", "price", "contacted", "background", "type", "emails", "phones", "addresses"})


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The answer of a handler. `shown_people` are those whose stage it shows; a `payload` of None is an empty body."""

    payload: Mapping[str, object] | None
    status: int = HTTPStatus.OK
    shown_people: tuple[int, ...] = ()

    @property
    def body(self) -> bytes:
        """The JSON as sent."""
        return b"" if self.payload is None else json.dumps(self.payload, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A parsed request: the caller, parameters and JSON body, and the simulator's own URL."""

    caller: Caller
    query: Mapping[str, str]
    path: Mapping[str, str]
    base: str
    body: Mapping[str, object] = field(default_factory=dict)


Handler = Callable[[ApiRequest], ApiResponse]


@dataclass(frozen=True, slots=True)
class Route:
    """A route. `name` identifies it in fault scripts and in the request log; `context` is its rate limit, None for unlimited."""

    method: str
    path: str
    name: str
    context: str | None
    handler: Handler


class Api:
    """The documented endpoints. Handlers are synchronous, so each answer shows one instant."""

    def __init__(
        self, account: Account, *, behaviour: Behaviour, registry: Registry, deliveries: Deliveries, limits: RateLimits, keys: Keys
    ) -> None:
        self._account = account
        self._behaviour = behaviour
        self._registry = registry
        self._deliveries = deliveries
        self._limits = limits
        self._keys = keys

    def routes(self) -> list[Route]:
        """Return every route of the service."""
        one = "global"
        return [
            Route("GET", "/people", "people", one, self._people),
            Route("GET", "/people/{id}", "person", one, self._person),
            Route("POST", "/people", "people", one, self._create_person),
            Route("PUT", "/people/{id}", "person", "people-put", self._update_person),
            Route("DELETE", "/people/{id}", "person", one, self._delete_person),
            Route("GET", "/stages", "stages", one, self._stages),
            Route("GET", "/stages/{id}", "stages", one, self._stage),
            Route("POST", "/stages", "stages", one, self._create_stage),
            Route("PUT", "/stages/{id}", "stages", one, self._rename_stage),
            Route("DELETE", "/stages/{id}", "stages", one, self._delete_stage),
            Route("GET", "/identity", "identity", one, self._identity),
            Route("GET", "/users", "users", one, self._users),
            Route("GET", "/customFields", "customFields", one, self._custom_fields),
            Route("GET", "/webhooks", "webhooks", one, self._webhooks),
            Route("POST", "/webhooks", "webhooks", one, self._create_webhook),
            Route("GET", "/webhooks/{id}", "webhooks", one, self._webhook),
            Route("PUT", "/webhooks/{id}", "webhooks", one, self._update_webhook),
            Route("DELETE", "/webhooks/{id}", "webhooks", one, self._delete_webhook),
            Route("GET", "/webhookEvents/{id}", "webhookEvents", one, self._webhook_event),
            Route("GET", "/events", "events", "events", self._events),
            Route("POST", "/events", "events", None, self._create_event),
            Route("POST", "/notes", "notes", "notes", self._create_note),
            Route("GET", "/rateLimit/limits", "rateLimit", one, self._rate_limits),
            Route("GET", "/rateLimit/usage", "rateLimit", one, self._rate_usage),
        ]

    # --- people -------------------------------------------------------------------------------------------------------

    def _people(self, request: ApiRequest) -> ApiResponse:
        page = people_query.parse_paging(request.query)
        if page.since is None and page.offset >= self._behaviour.deep_offset:
            raise ApiError(HTTPStatus.BAD_REQUEST, DEEP)
        who = people_query.parse_filter(request.query, self._account, self._behaviour, viewer=request.caller.viewer)
        found = people_query.find_people(self._account, who, page)
        metadata: dict[str, object] = {
            "collection": "people",
            "offset": page.offset,
            "limit": page.limit,
            "total": str(found.total) if self._behaviour.total_as_text else found.total,
        }
        keyset = page.sort == "id"
        if found.more and found.slots:
            following = people_query.encode_next(self._account.people.first_id + found.slots[-1]) if keyset else None
            step = {"next": following} if following else {"offset": str(page.offset + page.limit)}
            kept = {key: value for key, value in request.query.items() if key not in ("limit", "next", "offset")}
            ampersand = "&&" if self._behaviour.double_ampersand else "&"
            link = urlencode({"limit": str(page.limit), **kept}) + ampersand + urlencode(step)
            metadata |= {"next": following, "nextLink": f"{request.base}/people?{link}"}
        elif not self._behaviour.next_absent_at_end:
            metadata |= {"next": None, "nextLink": None}
        people, shown = self._records(found.slots, request.query.get("fields"))
        return ApiResponse({"_metadata": metadata, "people": people}, shown_people=shown)

    def _person(self, request: ApiRequest) -> ApiResponse:
        if people_query.parse_int(request.path["id"]) is None:
            return self._people(request)  # observed: /people/undefined returns the unfiltered list
        records, shown = self._records([self._slot(request)], request.query.get("fields"))
        return ApiResponse(records[0], shown_people=shown)

    def _create_person(self, request: ApiRequest) -> ApiResponse:
        known = self._by_email(request.body) if request.query.get("deduplicate", "").lower() == "true" else None
        if known is not None:
            self._apply(known, request.body, request)
            return self._person_response(known, HTTPStatus.OK)
        person_id = self._account.create(
            stage=self._stage_name(request.body) or "Lead", via="api", fields=self._fields(request.body), actor=request.caller.user.name
        )
        return self._person_response(person_id, HTTPStatus.CREATED)

    def _update_person(self, request: ApiRequest) -> ApiResponse:
        person_id = self._account.people.first_id + self._slot(request)
        if "id" in request.body:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid fields in the request body: id.")
        self._apply(person_id, request.body, request)
        return self._person_response(person_id, HTTPStatus.OK)

    def _delete_person(self, request: ApiRequest) -> ApiResponse:
        try:
            self._account.delete(self._account.people.first_id + self._slot(request))
        except LookupError as error:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND) from error
        return ApiResponse({})

    def _apply(self, person_id: int, body: Mapping[str, object], request: ApiRequest) -> None:
        stage = self._stage_name(body)
        fields = self._fields(body)
        if "tags" in fields and request.query.get("mergeTags", "").lower() == "true":
            present = self._account.person(person_id)["tags"]
            new = fields["tags"]
            fields["tags"] = [*_strings(present), *(tag for tag in _strings(new) if tag not in _strings(present))]
        if "assignedUserId" in body:
            if body["assignedUserId"] not in [user.id for user in self._account.users]:
                raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: assignedUserId.")
            fields["assignedUserId"] = body["assignedUserId"]
        if fields:
            self._account.edit(person_id, **fields)
        if stage is not None:
            self._account.move(person_id, stage, actor=request.caller.user.name)

    def _fields(self, body: Mapping[str, object]) -> dict[str, object]:
        """Return the fields a client may set; `source` is write-once and can only be set by a creation of the lead flow."""
        return {key: value for key, value in body.items() if key in _PERSON_FIELDS or key == "tags" or key.startswith("custom")}

    def _stage_name(self, body: Mapping[str, object]) -> str | None:
        if "stage" not in body and "stageId" not in body:
            return None
        for stage in self._account.stages:
            if not stage.deleted and (stage.name == body.get("stage") or stage.id == body.get("stageId")):
                return stage.name
        raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: stage.")

    def _person_response(self, person_id: int, status: int) -> ApiResponse:
        slot = person_id - self._account.people.first_id
        return ApiResponse(self._account.record(slot, full=False), status=status, shown_people=(person_id,))

    def _slot(self, request: ApiRequest) -> int:
        person_id = people_query.parse_int(request.path["id"])
        slot = None if person_id is None else self._account.people.slot(person_id)
        if slot is None or self._account.people.visibility[slot] in (GONE, HIDDEN):
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        viewer = request.caller.viewer
        if viewer is not None and self._account.users[self._account.people.user[slot]].id != viewer:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return slot

    def _records(self, slots: Sequence[int], fields: str | None) -> tuple[list[dict[str, object]], tuple[int, ...]]:
        """Return the people with the requested fields, and the ids of those whose stage is among them."""
        first = self._account.people.first_id
        ids = tuple(first + slot for slot in slots)
        if not fields:
            return [self._account.record(slot, full=False) for slot in slots], ids
        names = {name.strip() for name in fields.split(",")} | {"id"}
        records = [self._account.record(slot, full=True) for slot in slots]
        if "allFields" in names:
            return records, ids
        custom = "allCustom" in names
        kept = [
            {key: value for key, value in record.items() if key in names or (custom and key.startswith("custom"))} for record in records
        ]
        return kept, ids if names & {"stage", "stageId"} else ()

    def _by_email(self, body: Mapping[str, object]) -> int | None:
        """Find a person by the first email of a body; the original people have their id in theirs."""
        emails = body.get("emails")
        if not isinstance(emails, list) or not emails or not isinstance(emails[0], dict):
            return None
        address = str(emails[0].get("value", ""))
        match = _EMAIL.fullmatch(address)
        slot = self._account.people.slot(int(match[1])) if match else None
        if slot is not None and self._account.people.visibility[slot] not in (GONE, HIDDEN):
            return self._account.people.first_id + slot
        for index, edited in self._account.people.edited.items():
            if f"'{address}'" in str(edited.get("emails")) and self._account.people.visibility[index] not in (GONE, HIDDEN):
                return self._account.people.first_id + index
        return None

    # --- stages, users, identity --------------------------------------------------------------------------------------

    def _stages(self, request: ApiRequest) -> ApiResponse:
        stages = [self._stage_json(index) for index, stage in enumerate(self._account.stages) if not stage.deleted]
        return _list_response(request, "stages", stages, sorts=("orderWeight", "id", "name"))

    def _stage(self, request: ApiRequest) -> ApiResponse:
        return ApiResponse(self._stage_json(self._stage_index(request)))

    def _create_stage(self, request: ApiRequest) -> ApiResponse:
        try:
            stage_id = self._account.create_stage(str(request.body.get("name") or ""))
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: name.") from error
        index = [stage.id for stage in self._account.stages].index(stage_id)
        return ApiResponse(self._stage_json(index), status=HTTPStatus.CREATED)

    def _rename_stage(self, request: ApiRequest) -> ApiResponse:
        index = self._stage_index(request)
        name = request.body.get("name")
        if not isinstance(name, str) or not name:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: name.")
        try:
            self._account.rename_stage(self._account.stages[index].name, name)
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Protected stages cannot be changed.") from error
        return ApiResponse(self._stage_json(index))

    def _delete_stage(self, request: ApiRequest) -> ApiResponse:
        index = self._stage_index(request)
        target_id = request.body.get("assignStageId", people_query.parse_int(request.query.get("assignStageId")))
        target = next((stage for stage in self._account.stages if stage.id == target_id and not stage.deleted), None)
        if target is None:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Missing required field: assignStageId.")
        try:
            self._account.delete_stage(self._account.stages[index].name, target.name)
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Protected stages cannot be deleted.") from error
        return ApiResponse({})

    def _stage_index(self, request: ApiRequest) -> int:
        stage_id = people_query.parse_int(request.path["id"])
        for index, stage in enumerate(self._account.stages):
            if stage.id == stage_id and not stage.deleted:
                return index
        raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)

    def _stage_json(self, index: int) -> dict[str, object]:
        stage = self._account.stages[index]
        return {
            "id": stage.id,
            "name": stage.name,
            "orderWeight": stage.order_weight,
            "isProtected": stage.protected,
            "peopleCount": self._account.people.stage.count(index),
        }

    def _identity(self, request: ApiRequest) -> ApiResponse:
        user, owner = request.caller.user, self._account.users[0]
        return ApiResponse(
            {
                "user": {"id": user.id, "name": user.name, "email": user.email},
                "account": {
                    "id": 4_000_000 + self._account.seed,
                    "domain": f"simulated-{self._account.seed}",
                    "owner": {"name": owner.name, "email": owner.email},
                },
            }
        )

    def _users(self, request: ApiRequest) -> ApiResponse:
        users = [{"id": user.id, "name": user.name, "email": user.email, "role": user.role.title()} for user in self._account.users]
        return _list_response(request, "users", users, sorts=("id", "name"))

    def _custom_fields(self, request: ApiRequest) -> ApiResponse:
        fields = [{"id": 1 + index, "name": name, "label": label, "type": "text"} for index, (name, label) in enumerate(CUSTOM_FIELDS)]
        return _list_response(request, "customfields", fields, sorts=("id",), text_total=True)

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def _webhooks(self, request: ApiRequest) -> ApiResponse:
        system_key = self._keys.require_owner(request.caller)
        wanted = {name: request.query[name] for name in ("event", "status") if name in request.query}
        webhooks = [webhook.to_json() for webhook in self._registry.of_system(system_key)]
        chosen = [webhook for webhook in webhooks if all(webhook[name] == value for name, value in wanted.items())]
        return _list_response(request, "webhooks", chosen, sorts=("id", "status", "event"))

    def _create_webhook(self, request: ApiRequest) -> ApiResponse:
        system_key = self._keys.require_owner(request.caller)
        webhook = self._registry.add(request.body.get("event"), request.body.get("url"), system_key)
        return ApiResponse(webhook.to_json(), status=HTTPStatus.CREATED)

    def _webhook(self, request: ApiRequest) -> ApiResponse:
        return ApiResponse(self._registry.get(self._webhook_id(request), self._keys.require_owner(request.caller)).to_json())

    def _update_webhook(self, request: ApiRequest) -> ApiResponse:
        webhook = self._registry.get(self._webhook_id(request), self._keys.require_owner(request.caller))
        self._registry.update(webhook, event=request.body.get("event"), url=request.body.get("url"), status=request.body.get("status"))
        return ApiResponse(webhook.to_json())

    def _delete_webhook(self, request: ApiRequest) -> ApiResponse:
        self._registry.delete(self._registry.get(self._webhook_id(request), self._keys.require_owner(request.caller)))
        return ApiResponse(None, status=HTTPStatus.NO_CONTENT) if self._behaviour.delete_webhook_empty else ApiResponse({})

    def _webhook_event(self, request: ApiRequest) -> ApiResponse:
        self._keys.require_owner(request.caller)
        event = self._deliveries.events.get(request.path["id"])
        if event is None:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return ApiResponse(event.record(with_data=self._behaviour.event_data_kept))

    @staticmethod
    def _webhook_id(request: ApiRequest) -> int:
        webhook_id = people_query.parse_int(request.path["id"])
        if webhook_id is None:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return webhook_id

    # --- events, notes, rate limits -----------------------------------------------------------------------------------

    def _events(self, request: ApiRequest) -> ApiResponse:
        return _list_response(request, "events", [], sorts=("id",))

    def _create_event(self, request: ApiRequest) -> ApiResponse:
        """Receive a lead event: a known person gets it (and leaves Trash), an unknown one is created by the lead flow."""
        if self._behaviour.lead_flow_archived:
            return ApiResponse(None, status=HTTPStatus.NO_CONTENT)
        body = request.body.get("person")
        person = body if isinstance(body, dict) else {}
        known = self._by_email(person)
        if known is not None:
            self._account.inbound(known)
            return self._person_response(known, HTTPStatus.OK)
        person_id = self._account.create(stage="Lead", via="lead_flow", fields=self._fields(person))
        return self._person_response(person_id, HTTPStatus.CREATED)

    def _create_note(self, request: ApiRequest) -> ApiResponse:
        person_id = request.body.get("personId")
        try:
            note_id = self._account.note(person_id if isinstance(person_id, int) else -1)
        except LookupError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: personId.") from error
        return ApiResponse({"id": note_id, "personId": person_id, "body": request.body.get("body")}, status=HTTPStatus.CREATED)

    def _rate_limits(self, request: ApiRequest) -> ApiResponse:
        registered = request.caller.system_key is not None
        limits = [{"context": name, "limit": both[0 if registered else 1], "window": 10} for name, both in LIMITS.items()]
        return ApiResponse({"limits": limits})

    def _rate_usage(self, request: ApiRequest) -> ApiResponse:
        bucket = request.caller.key if self._behaviour.limit_per_key else ""
        return ApiResponse({"usage": [{"context": name, "total": self._limits.total(name, bucket=bucket)} for name in LIMITS]})


def _strings(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []


def _sortable(value: object) -> tuple[int, str]:
    return (value, "") if isinstance(value, int) else (0, str(value))


def _list_response(
    request: ApiRequest, collection: str, items: Iterable[Mapping[str, object]], *, sorts: Sequence[str], text_total: bool = False
) -> ApiResponse:
    """Return one page of a small list, by offset."""
    every = list(items)
    sort = request.query.get("sort", "")
    if sort.lstrip("-") in sorts:
        every.sort(key=lambda item: _sortable(item[sort.lstrip("-")]), reverse=sort.startswith("-"))
    page = people_query.parse_paging(request.query)
    following = page.offset + page.limit
    total = len(every)
    link = f"{request.base}/{collection}?{urlencode({'limit': page.limit, 'offset': following})}" if following < total else None
    metadata = {
        "collection": collection,
        "offset": page.offset,
        "limit": page.limit,
        "total": str(total) if text_total else total,
        "next": None,
        "nextLink": link,
    }
    return ApiResponse({"_metadata": metadata, collection: every[page.offset : following]})


def read_json(raw: bytes) -> dict[str, object]:
    """Parse a request's JSON object; an empty body is an empty object. Raises ApiError 400."""
    if not raw:
        return {}
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid JSON in the request body.") from error
    if not isinstance(value, dict):
        raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid JSON in the request body.")
    return value
