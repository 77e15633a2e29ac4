"""The endpoints of people, lead events and notes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from fubd.simulator import query as people_query
from fubd.simulator.account import Account
from fubd.simulator.api import GLOBAL, NOT_FOUND, ApiRequest, ApiResponse, Route, list_response
from fubd.simulator.conditions import Conditions
from fubd.simulator.oddities import distort
from fubd.simulator.population import GONE, HIDDEN
from fubd.simulator.registry import ApiError
from fubd.simulator.rng import Rng

DEEP: Final = "Deep pagination disabled, use 'nextLink' url"

_EMAIL = re.compile(r"person(\d+)@example\.com", re.IGNORECASE)
_INSTANTS: Final = ("created", "updated", "lastActivity")
_SHOWING_STAGE: Final = frozenset({"stage", "stageId", "allFields"})
_PERSON_FIELDS: Final = frozenset({"firstName", "lastName", "price", "contacted", "background", "type", "emails", "phones", "addresses"})


class PeopleApi:
    """The endpoints of people, lead events and notes. Handlers are synchronous, so each answer shows one instant."""

    def __init__(self, account: Account, conditions: Conditions, rng: Rng) -> None:
        self._account = account
        self._conditions = conditions
        self._rng = rng
        self._indexed_at = float("-inf")

    def routes(self) -> list[Route]:
        """Return the routes of these endpoints."""
        return [
            Route("GET", "/people", "people", GLOBAL, self._people),
            Route("GET", "/people/{id}", "person", GLOBAL, self._person),
            Route("POST", "/people", "people", GLOBAL, self._create_person),
            Route("PUT", "/people/{id}", "person", "people-put", self._update_person),
            Route("DELETE", "/people/{id}", "person", GLOBAL, self._delete_person),
            Route("GET", "/events", "events", "events", self._events),
            Route("POST", "/events", "events", None, self._create_event),
            Route("POST", "/notes", "notes", "notes", self._create_note),
        ]

    def _people(self, request: ApiRequest) -> ApiResponse:
        behaviour = self._conditions.behaviour
        if behaviour.refused_parameter in request.query:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"Invalid parameter: {behaviour.refused_parameter}.")
        page = people_query.parse_paging(request.query, max_limit=behaviour.page_limit)
        if page.since is None and page.offset >= behaviour.deep_offset:
            raise ApiError(HTTPStatus.BAD_REQUEST, DEEP)
        if behaviour.next_refused and "next" in request.query:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: next.")
        who = people_query.parse_filter(request.query, self._account, behaviour, viewer=request.caller.viewer)
        age_seconds = self._replica_age() + (self._index_age() if who.ids is None else 0.0)
        with self._account.as_of(age_seconds):
            found = people_query.find_people(self._account, who, page)
            people, shown = self._records(found.slots, request)
        metadata = {"collection": "people", "offset": page.offset, "limit": page.limit, "total": self._total(found)}
        payload = {"_metadata": metadata | self._next(found, page, request), "people": people}
        return ApiResponse(payload, shown_people=shown, as_of=self._instant(age_seconds))

    def _total(self, found: people_query.PeopleResult) -> int | str:
        total = len(found.slots) if self._conditions.behaviour.total_counts_page else found.total
        return str(total) if self._conditions.behaviour.total_as_text else total

    def _next(self, found: people_query.PeopleResult, page: people_query.Paging, request: ApiRequest) -> dict[str, str | None]:
        """Return `next` and `nextLink`."""
        behaviour = self._conditions.behaviour
        if not found.more or not found.slots:
            return {} if behaviour.next_absent_at_end else {"next": None, "nextLink": None}
        token = people_query.encode_next(self._account.people.first_id + found.slots[-1]) if page.sort == "id" else None
        step = {"next": token} if token else {"offset": str(page.offset + page.limit)}
        kept = {key: value for key, value in request.query.items() if key not in ("limit", "next", "offset")}
        link = urlencode({"limit": str(page.limit), **kept}) + ("&&" if behaviour.double_ampersand else "&") + urlencode(step)
        return {"next": token, "nextLink": f"{request.base}/people?{link}"}

    def _person(self, request: ApiRequest) -> ApiResponse:
        if people_query.parse_int(request.path["id"]) is None:
            return self._people(request)  # observed: /people/undefined returns the unfiltered list
        age_seconds = self._replica_age()
        with self._account.as_of(age_seconds):
            records, shown = self._records([self._slot(request)], request)
        return ApiResponse(records[0], shown_people=shown, as_of=self._instant(age_seconds))

    def _replica_age(self) -> float:
        limit = self._conditions.behaviour.replica_lag_seconds
        return self._rng.uniform(0, limit) if limit > 0 else 0.0

    def _index_age(self) -> float:
        """Return by how much the index behind the lists trails now; its own instant never goes back."""
        limit, now = self._conditions.behaviour.list_lag_seconds, self._account.clock.monotonic()
        if limit <= 0:
            return 0.0
        self._indexed_at = max(self._indexed_at, now - self._rng.uniform(0, limit))
        return now - self._indexed_at

    def _instant(self, age_seconds: float) -> datetime | None:
        return self._account.clock.now() - timedelta(seconds=age_seconds) if age_seconds else None

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

    def _records(self, slots: Sequence[int], request: ApiRequest) -> tuple[list[object], tuple[int, ...]]:
        """Return the people with the requested fields, and the ids of those whose stage is shown."""
        fields = {name.strip() for name in request.query.get("fields", "").split(",") if name.strip()}
        refused = self._conditions.behaviour.refused_field
        if refused and refused in fields:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"Invalid fields: {refused}.")
        records = [self._chosen(self._account.record(slot, full=bool(fields)), fields) for slot in slots]
        oddities = dict(self._conditions.oddities)
        if request.oddity is not None and slots:
            oddities[self._account.people.first_id + slots[len(slots) // 2]] = request.oddity
        ids = [self._account.people.first_id + slot for slot in slots]
        shown = tuple(one for one in ids if one not in oddities) if not fields or fields & _SHOWING_STAGE else ()
        return [distort(record, oddities[one]) if one in oddities else record for one, record in zip(ids, records, strict=True)], shown

    def _chosen(self, record: dict[str, object], fields: set[str]) -> dict[str, object]:
        """Return the requested fields of a person; all the usual ones if none is requested."""
        if self._conditions.behaviour.instants_without_zone:
            record |= {key: str(record[key]).removesuffix("Z") for key in _INSTANTS}
        if not fields or "allFields" in fields:
            return record
        custom = "allCustom" in fields
        return {key: value for key, value in record.items() if key in fields or key == "id" or (custom and key.startswith("custom"))}

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

    # --- events, notes ------------------------------------------------------------------------------------------------

    def _events(self, request: ApiRequest) -> ApiResponse:
        return list_response(request, "events", [], sorts=("id",))

    def _create_event(self, request: ApiRequest) -> ApiResponse:
        """Receive a lead event: a known person gets it (and leaves Trash), an unknown one is created by the lead flow."""
        if self._conditions.behaviour.lead_flow_archived:
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


def _strings(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []
