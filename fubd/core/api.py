"""Decode what Follow Up Boss answers about people, stages and webhooks: bytes become values, or Malformed is raised.

What its answers look like (docs.followupboss.com/reference/pagination and people-get, or observed by other clients):

- A collection is `{"_metadata": {...}, "people": [...]}`. Its key may differ in case, and `total` may be a string (observed).
- `next` is an opaque token, absent or null on the last page. `nextLink` repeats it in its query, on any host (documented samples).
- One person is the bare object (documented). Asked for something unknown, FUB was seen to answer with the whole list instead, so an answer
  is compared with what was requested: of it only those count who were.
- Instants are UTC in whole seconds, as `...Z` here and as `...+00:00` in webhooks. One without a zone is UTC too
  (https://docs.followupboss.com/reference/common-filters). Ids are numbers, in places numeric strings.

The decoder accepts all that, and unknown and missing keys. It does not accept an answer that would show less than there is: elements
without an id are counted, and where `_metadata` or the token of the next page cannot be used, the page says that another may follow,
because a read that ended there would look complete. A person without a usable `stage` or `updated` affects no other person: the id is
listed as unreadable. An `updated` that cannot have come yet counts as the moment of reading, the latest that it can have been: it would
date a row in the future, after all that follow.

Every string that leaves here can be stored: no NUL, which Postgres accepts in neither text nor jsonb, and no lone surrogate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, NoReturn, TypeVar
from urllib.parse import unquote

from fubd.core.json_values import (
    LONE_SURROGATE,
    MAX_INTEGER,
    as_text,
    clean,
    count_of,
    evidence_of,
    instant_of,
    is_zoneless,
    list_of,
    positive_integer,
    stage_name,
    tags_of,
    text_of,
)
from fubd.core.observation import Reading
from fubd.core.subscriptions import Subscription, UnusableSubscription
from fubd.core.webhook import MAX_PERSON_ID
from fubd.errors import Malformed

PERSON_FIELDS = (
    "id",
    "created",
    "updated",
    "firstName",
    "lastName",
    "name",
    "stage",
    "stageId",
    "source",
    "assignedTo",
    "assignedUserId",
    "tags",
)
"""The fields that are requested of a person and kept as evidence, next to custom fields, which FUB sends only on request (observed)."""

MAX_TAGS_IN_EVIDENCE = 100
MAX_TOKEN_CHARS = 4_096
MAX_ERROR_CHARS = 200
_CLOCKS_DIFFER = timedelta(minutes=1)
_MAX_AHEAD = timedelta(days=1)  # of Follow Up Boss's clock, as for webhooks

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """One answer of `GET /people`.

    `ids` are all ids in the page's order; `unreadable` are those among them without a usable stage or `updated`. `total` and `next` are
    None where the page has none. `read_at` is at or before the moment of reading, in FUB's time. `unidentified` counts the elements without
    a usable id, `repeated` those of a person who is on the page already. `next_is_unusable`: there is a next page, and its token cannot be
    used. `has_zoneless_times`: an instant came without a zone and was taken as UTC. `has_future_times`: one cannot have come yet.
    """

    readings: tuple[Reading, ...]
    ids: tuple[int, ...]
    unreadable: tuple[int, ...]
    total: int | None
    next: str | None
    read_at: datetime
    unidentified: int
    repeated: int
    next_is_unusable: bool
    has_zoneless_times: bool
    has_future_times: bool

    @property
    def rows(self) -> int:
        """The number of elements on the page, usable or not."""
        return self.people + self.repeated

    @property
    def people(self) -> int:
        """The number of people on the page, without repetitions: what a total counts."""
        return len(self.ids) + self.unidentified

    @property
    def may_continue(self) -> bool:
        """Whether another page may follow: this one names it, or does not say how many people there are."""
        return self.next is not None or self.next_is_unusable or self.total is None


@dataclass(frozen=True, slots=True)
class Listing(Generic[_Item]):
    """One page of another collection. `count` is the number of elements on the page, usable or not; the rest as in `PeoplePage`."""

    items: tuple[_Item, ...]
    count: int
    total: int | None
    next: str | None
    next_is_unusable: bool = False


@dataclass(frozen=True, slots=True)
class AccountIdentity:
    """A Follow Up Boss account. `name`: its name, or else its subdomain; `domain`: the subdomain, None where it was not read."""

    id: int
    name: str | None
    domain: str | None = None

    def label(self) -> str:
        """Return the name and the id in words."""
        return f"{self.name} (id {self.id})" if self.name else f"with the id {self.id}"


def parse_page(
    body: bytes, *, fields: Sequence[str], read_at: datetime, now: datetime | None = None, requested: Collection[int] | None = None
) -> PeoplePage:
    """Decode an answer of `GET /people`.

    `now` is the latest that Follow Up Boss's clock can show, None while that is unknown. `fields` are the custom fields that were
    requested; `requested` the ids, where ids were: others on the page are left out. Raises Malformed when the answer is not a page of
    people, shows nobody with a usable id, or only people who were not requested.
    """
    document = _object(body)
    people, total = _collection(document, "people")
    read: dict[int, Reading | None] = {}
    unrequested, repeated, is_ahead = 0, 0, False
    moment = _Moment(read_at, None if now is None else now + _MAX_AHEAD)
    for person in people:
        person_id = _person_id(person) if isinstance(person, dict) else None
        if person_id is None or not isinstance(person, dict):
            continue
        if requested is not None and person_id not in requested:
            unrequested += 1
            continue
        repeated += person_id in read
        # Of a person who is on the page twice the first counts, unless only another is usable.
        read[person_id] = reading = read.get(person_id) or _reading(person_id, person, fields, moment)
        is_ahead |= reading is not None and not moment.is_past(instant_of(person.get("updated")) or read_at)
    if people and not read:
        raise Malformed("the page holds only people who were not requested" if unrequested else "no person on the page has a usable id")
    token, next_is_unusable = _next(document)
    return PeoplePage(
        readings=tuple(reading for reading in read.values() if reading is not None),
        ids=tuple(read),
        unreadable=tuple(person_id for person_id, reading in read.items() if reading is None),
        total=total,
        next=token,
        read_at=read_at,
        unidentified=len(people) - len(read) - unrequested - repeated,
        repeated=repeated,
        next_is_unusable=next_is_unusable,
        has_zoneless_times=any(is_zoneless(person.get("updated")) for person in people if isinstance(person, dict)),
        has_future_times=is_ahead,
    )


def parse_person(
    body: bytes, *, fields: Sequence[str], read_at: datetime, now: datetime | None = None, requested: int | None = None
) -> Reading:
    """Decode an answer of `GET /people/:id`; `now` as in `parse_page`. Raises Malformed when it is not one usable person, as requested."""
    person = _object(body)
    person_id = _person_id(person)
    if person_id is None:
        raise _unusable(person, "the answer is not a person")
    if requested is not None and person_id != requested:
        raise Malformed("the answer is not the person who was requested")
    reading = _reading(person_id, person, fields, _Moment(read_at, None if now is None else now + _MAX_AHEAD))
    if reading is None:
        raise Malformed("the person has no usable stage or time of update")
    return reading


def parse_stages(body: bytes) -> Listing[tuple[str, int]]:
    """Decode an answer of `GET /stages`: pairs of name and id in FUB's order, without those that lack one of them. Raises Malformed."""
    document = _object(body)
    stages, total = _collection(document, "stages")
    usable = [stage for stage in stages if isinstance(stage, dict)]
    # Stages without a place come last.
    ordered = sorted(usable, key=lambda stage: positive_integer(stage.get("orderWeight")) or MAX_INTEGER)
    pairs = ((stage_name(stage.get("name")), positive_integer(stage.get("id"))) for stage in ordered)
    named = tuple((name, stage_id) for name, stage_id in pairs if name and stage_id is not None)
    return Listing(named, len(stages), total, *_next(document))


def parse_subscriptions(body: bytes) -> Listing[Subscription | UnusableSubscription]:
    """Decode an answer of `GET /webhooks`. Raises Malformed when it is no list, or one of several elements none of which can be used."""
    document = _object(body)
    webhooks, total = _collection(document, "webhooks")
    listed = tuple(_listed_subscription(webhook) for webhook in webhooks)
    if len(listed) > 1 and not any(isinstance(one, Subscription) for one in listed):
        # One alone is only ever one odd webhook.
        raise Malformed("none of the webhooks can be used")
    return Listing(listed, len(webhooks), total, *_next(document))


def parse_subscription(body: bytes) -> Subscription:
    """Decode the webhook that `POST /webhooks` and `PUT /webhooks/:id` answer with. Raises Malformed."""
    document = _object(body)
    subscription = _listed_subscription(document)
    if not isinstance(subscription, Subscription):
        raise _unusable(document, f"the answer is not a webhook: {subscription.fault}")
    return subscription


def parse_identity(body: bytes) -> AccountIdentity | None:
    """Return the account in an answer of `GET /identity`, which is nested (observed); None without a usable id.

    Raises Malformed unless the answer is a JSON object.
    """
    account = _object(body).get("account")
    account_id = positive_integer(account.get("id")) if isinstance(account, dict) else None
    if account_id is None or not isinstance(account, dict):
        return None
    domain = text_of(account.get("domain")) or None
    return AccountIdentity(account_id, text_of(account.get("name")) or domain, domain)


def parse_error(body: bytes) -> str | None:
    """Return FUB's own error message in one bounded line, empty when it has none; None when the answer is not FUB's error document."""
    try:
        document = _object(body)
    except Malformed:
        return None
    return _message(document)


def is_not_found(body: bytes) -> bool:
    """Return whether a 404 is FUB's own (observed), and not that of a gateway in front of it, which says nothing about a person."""
    return (parse_error(body) or "").rstrip(".").lower() == "requested resource was not found"


def is_owner_only(body: bytes) -> bool:
    """Return whether a 403 means that the key is not the account owner's (observed), and not a firewall or an expired account."""
    return (parse_error(body) or "").rstrip(".").lower() == "only the account owner may access webhooks"


# --- Answers as a whole ------------------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _object(body: bytes) -> dict[str, object]:
    """Decode one JSON object. NaN and Infinity are not JSON, though Python's decoder takes them; jsonb does not."""
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise Malformed("the answer is nested too deeply") from None
    except ValueError:
        raise Malformed("the answer is not JSON") from None
    if not isinstance(document, dict):
        raise Malformed("the answer is not a JSON object")
    return document


def _unusable(document: dict[str, object], what: str) -> Malformed:
    """Return the error for an answer that is not what was requested, with FUB's own words where it sent an error under status 200."""
    message = _message(document)
    return Malformed(f"{what}; Follow Up Boss says: {message}" if message else what)


def _message(document: dict[str, object]) -> str:
    message = document.get("errorMessage")
    return " ".join(_CONTROL.sub(" ", clean(message)).split())[:MAX_ERROR_CHARS] if isinstance(message, str) else ""


def _collection(document: dict[str, object], name: str) -> tuple[list[object], int | None]:
    """Return the elements of a page and the total."""
    key = next((key for key in document if key == name), None) or next((key for key in document if key.lower() == name), None)
    items = None if key is None else list_of(document[key])
    if items is None:
        raise _unusable(document, f"the answer is not a page of {name}")
    metadata = _metadata(document)
    return items, None if metadata is None else count_of(metadata.get("total"))


def _metadata(document: dict[str, object]) -> dict[str, object] | None:
    """Return the page's metadata, None for what cannot be that: then the page says nothing of a total or a next page."""
    metadata = document.get("_metadata") or {}  # an empty PHP array is [], null or absent
    return metadata if isinstance(metadata, dict) else None


def _next(document: dict[str, object]) -> tuple[str | None, bool]:
    """Return the token of the next page, None for none, and whether there may be one that cannot be used."""
    metadata = _metadata(document)
    if metadata is None:
        return None, True
    token = metadata.get("next")
    link = metadata.get("nextLink")
    if token is None and isinstance(link, str):
        token = _token_of_link(link)
    if isinstance(token, int) and not isinstance(token, bool):
        token = str(token)
    if token is None or token is False or token == "":
        return None, False
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARS or _CONTROL.search(token) or LONE_SURROGATE.search(token):
        return None, True
    return token, False


def _token_of_link(link: str) -> str | None:
    """Return the token in nextLink's query. A plus sign stays one: tokens are base64, and FUB's samples do not escape them."""
    query = link.partition("#")[0].partition("?")[2]
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "next":
            return unquote(value)
    return None


# --- One element ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Moment:
    """The moment of reading, and the latest instant that can have come by then, None while that is unknown."""

    read_at: datetime
    latest: datetime | None

    def is_past(self, instant: datetime) -> bool:
        """Return whether it can have come."""
        return self.latest is None or instant <= self.latest


def _person_id(person: dict[str, object]) -> int | None:
    person_id = positive_integer(person.get("id"))
    return person_id if person_id is not None and person_id <= MAX_PERSON_ID else None


def _reading(person_id: int, person: dict[str, object], fields: Sequence[str], moment: _Moment) -> Reading | None:
    stage = stage_name(person.get("stage"))
    updated = instant_of(person.get("updated"))
    if stage is None or not stage.strip() or updated is None:
        return None
    if not moment.is_past(updated):
        updated = moment.read_at.replace(microsecond=0)
    custom_fields = {name: as_text(person.get(name)) for name in fields}
    tags = tags_of(person.get("tags"))
    return Reading(
        person_id=person_id,
        stage=stage,
        stage_id=positive_integer(person.get("stageId")),
        created=_created(instant_of(person.get("created")), updated),
        updated=updated,
        first_name=text_of(person.get("firstName")) or None,
        last_name=text_of(person.get("lastName")) or None,
        assigned_user_id=as_text(positive_integer(person.get("assignedUserId"))),
        assigned_user_name=text_of(person.get("assignedTo")) or None,
        tags=tags,
        fields=custom_fields,
        payload=_payload(person, custom_fields, tags),
    )


def _created(created: datetime | None, updated: datetime) -> datetime | None:
    """Return when the person was created; None when that is said to have been after the last change, seconds between two clocks aside."""
    return None if created is None or created - updated > _CLOCKS_DIFFER else min(created, updated)


def _payload(person: dict[str, object], custom_fields: dict[str, str | None], tags: tuple[str, ...]) -> dict[str, object]:
    payload: dict[str, object] = {name: evidence_of(person[name]) for name in PERSON_FIELDS if name in person}
    payload.update((name, value) for name, value in custom_fields.items() if name in person and name not in payload)
    if "tags" in payload:
        payload["tags"] = list(tags[:MAX_TAGS_IN_EVIDENCE])
    return payload


def _listed_subscription(webhook: object) -> Subscription | UnusableSubscription:
    if not isinstance(webhook, dict):
        return UnusableSubscription(None, None, "one is not an object")
    subscription_id = positive_integer(webhook.get("id"))
    event, url, status = (text_of(webhook.get(name)) or None for name in ("event", "url", "status"))
    if subscription_id is not None and event and url and status:
        return Subscription(subscription_id, event, url, status)
    values = {"id": subscription_id, "event": event, "url": url, "status": status}
    lacking = ", ".join(name for name, value in values.items() if value is None)
    which = "one" if subscription_id is None else f"webhook {subscription_id}"
    return UnusableSubscription(event, url, f"{which} has no usable {lacking}")
