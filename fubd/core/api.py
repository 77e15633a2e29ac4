"""What Follow Up Boss answers about people, stages and webhooks: bytes in, values out, or Malformed.

The dialect, with where each liberty was seen (the same labels as everywhere: documented, or observed by others):

- a collection comes as `{"_metadata": {...}, "people": [...]}`; its key may differ in case, and `total` may be a string (observed);
- `next` is an opaque token, absent or null on the last page; `nextLink` repeats it in its query, on whatever host (documented samples);
- one person comes as the bare object (documented). Asked for something it does not know, FUB has been seen to give the whole list
  instead: so what comes back is checked against what was asked for;
- instants are UTC in whole seconds, as `...Z` here and as `...+00:00` in webhooks; ids are numbers, in places numeric strings.

Tolerant of all that, and of unknown and missing keys. Not tolerant of an answer that would be a smaller truth than it seems: an element
without an id, or a token for the next page that cannot be read, makes the page Malformed, for a walk that went on from it would end early
and look complete. A person without a usable `stage` or `updated` spoils nobody else: their id is told as unreadable.

Every string that leaves here can be stored: no NUL, which Postgres takes in neither text nor jsonb, and no lone surrogate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, NoReturn, TypeVar
from urllib.parse import unquote

from fubd.core.observation import Reading
from fubd.core.subscriptions import Subscription
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
"""What a person is asked for, and what is kept of them as evidence; custom fields come on top, only when asked for (observed)."""

MOST_TEXT = 1_000
"""Characters kept of any one string. FUB's own forms allow less."""
MOST_TAG_TEXT = 200
MOST_TAGS = 1_000
MOST_TAGS_KEPT = 100
MOST_TOKEN = 4_096
MOST_ERROR_TEXT = 200
_LARGEST = 2**63 - 1
_YEARS = range(1970, 2200)  # outside are zero dates and overflows, and arithmetic on them must not fail later

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """One page of people. `ids` are all ids in the page's order; `unreadable` those among them without a usable stage or `updated`."""

    readings: tuple[Reading, ...]
    ids: tuple[int, ...]
    unreadable: tuple[int, ...]
    total: int | None
    next: str | None


@dataclass(frozen=True, slots=True)
class Listing(Generic[_Item]):
    """One page of another collection. `count` is how many elements the page had, usable or not."""

    items: tuple[_Item, ...]
    count: int
    total: int | None
    next: str | None


def parse_page(body: bytes, *, fields: Sequence[str], asked: Collection[int] | None = None) -> ParsedPage:
    """Read an answer of `GET /people`.

    `fields` are the custom fields that were asked for; `asked` the ids, where ids were asked for. Raises Malformed when the answer is
    not a page of people, or names someone who was not asked for.
    """
    people, total, token = _collection(_object(body), "people")
    readings: list[Reading] = []
    ids: list[int] = []
    unreadable: list[int] = []
    for person in people:
        person_id = _person_id(person)
        if asked is not None and person_id not in asked:
            raise Malformed("the page names a person who was not asked for")
        ids.append(person_id)
        reading = _reading(person_id, person, fields)
        if reading is None:
            unreadable.append(person_id)
        else:
            readings.append(reading)
    return ParsedPage(tuple(readings), tuple(ids), tuple(unreadable), total, token)


def parse_person(body: bytes, *, fields: Sequence[str], asked: int | None = None) -> Reading:
    """Read an answer of `GET /people/:id`. Raises Malformed when it is not one person, not the one asked for, or not usable."""
    person = _object(body)
    person_id = _person_id(person)
    if asked is not None and person_id != asked:
        raise Malformed("the answer is not the person who was asked for")
    reading = _reading(person_id, person, fields)
    if reading is None:
        raise Malformed("the person has no usable stage or time of update")
    return reading


def parse_stages(body: bytes) -> Listing[tuple[str, int]]:
    """Read an answer of `GET /stages`: pairs of name and id. A stage without either is left out. Raises Malformed."""
    stages, total, token = _collection(_object(body), "stages")
    pairs = ((_text(stage.get("name")), _whole(stage.get("id"))) for stage in stages)
    named = tuple((name, stage_id) for name, stage_id in pairs if name and stage_id is not None)
    return Listing(named, len(stages), total, token)


def parse_subscriptions(body: bytes) -> Listing[Subscription]:
    """Read an answer of `GET /webhooks`. Raises Malformed, also when one webhook is unusable: it would be taken for missing."""
    webhooks, total, token = _collection(_object(body), "webhooks")
    return Listing(tuple(_subscription(webhook) for webhook in webhooks), len(webhooks), total, token)


def parse_subscription(body: bytes) -> Subscription:
    """Read the one webhook that `POST /webhooks` and `PUT /webhooks/:id` answer with. Raises Malformed."""
    return _subscription(_object(body))


def parse_identity(body: bytes) -> dict[str, object]:
    """Read an answer of `GET /identity` as it is: its shape is observed, not documented. Raises Malformed unless it is an object."""
    document = _object(body)
    if not document:
        raise Malformed("the identity is empty")
    return document


def parse_error(body: bytes) -> str | None:
    """Give FUB's own words for a refusal, in one bounded line; None when the answer is not FUB's error document."""
    try:
        document = _object(body)
    except Malformed:
        return None
    message = document.get("errorMessage")
    if not isinstance(message, str):
        return ""
    return " ".join(_CONTROL.sub(" ", _clean(message)).split())[:MOST_ERROR_TEXT]


# --- The frame ------------------------------------------------------------------------------------------------------


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


def _collection(document: dict[str, object], name: str) -> tuple[list[dict[str, object]], int | None, str | None]:
    """Take a page apart: its elements, the total and the token of the next page."""
    items = document.get(name)
    if items is None:
        items = next((value for key, value in document.items() if key.lower() == name), None)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Malformed(f"the answer is not a page of {name}")
    metadata = document.get("_metadata") or {}  # an empty PHP array is [], null or absent: nothing told
    if not isinstance(metadata, dict):
        raise Malformed("the page's _metadata is not an object")
    return items, _count(metadata.get("total")), _token(metadata)


def _token(metadata: dict[str, object]) -> str | None:
    token = metadata.get("next")
    link = metadata.get("nextLink")
    if token is None and isinstance(link, str):
        token = _token_of_link(link)
    if isinstance(token, int) and not isinstance(token, bool):
        token = str(token)
    if token is None or token is False or token == "":
        return None
    if not isinstance(token, str) or len(token) > MOST_TOKEN or _CONTROL.search(token) or _LONE_SURROGATE.search(token):
        raise Malformed("the token of the next page cannot be used")
    return token


def _token_of_link(link: str) -> str | None:
    """Take the token out of nextLink's query. A plus sign stays one: tokens are base64, and FUB's samples do not escape them."""
    query = link.partition("#")[0].partition("?")[2]
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "next":
            return unquote(value)
    return None


# --- One element ----------------------------------------------------------------------------------------------------


def _person_id(person: dict[str, object]) -> int:
    person_id = _whole(person.get("id"))
    if person_id is None:
        raise Malformed("a person has no usable id")
    return person_id


def _reading(person_id: int, person: dict[str, object], fields: Sequence[str]) -> Reading | None:
    stage = _text(person.get("stage"))
    updated = _instant(person.get("updated"))
    if stage is None or not stage.strip() or updated is None:
        return None
    told = {name: _told(person.get(name)) for name in fields}
    tags = _tags(person.get("tags"))
    return Reading(
        person_id=person_id,
        stage=stage,
        stage_id=_whole(person.get("stageId")),
        created=_instant(person.get("created")),
        updated=updated,
        first_name=_text(person.get("firstName")) or None,
        last_name=_text(person.get("lastName")) or None,
        assigned_user_id=_told(_whole(person.get("assignedUserId"))),
        assigned_user_name=_text(person.get("assignedTo")) or None,
        tags=tags,
        fields=told,
        payload=_payload(person, told, tags),
    )


def _payload(person: dict[str, object], told: dict[str, str | None], tags: tuple[str, ...]) -> dict[str, object]:
    payload: dict[str, object] = {name: _evidence(person[name]) for name in PERSON_FIELDS if name in person}
    payload.update((name, value) for name, value in told.items() if name in person and name not in payload)
    if "tags" in payload:
        payload["tags"] = list(tags[:MOST_TAGS_KEPT])
    return payload


def _subscription(webhook: dict[str, object]) -> Subscription:
    subscription_id = _whole(webhook.get("id"))
    event, url, status = (_text(webhook.get(name)) for name in ("event", "url", "status"))
    if subscription_id is None or not event or not url or not status:
        raise Malformed("a webhook lacks its id, event, url or status")
    return Subscription(subscription_id, event, url, status)


# --- Values ---------------------------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    """Make a string storable: without NUL, lone surrogates replaced."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    if not text.isascii():
        text = _LONE_SURROGATE.sub("\ufffd", text)
    return text


def _text(value: object) -> str | None:
    return _clean(value)[:MOST_TEXT] if isinstance(value, str) else None


def _told(value: object) -> str | None:
    """Give any JSON value as text: strings as they are, the rest as JSON."""
    if value is None or isinstance(value, str):
        return _text(value)
    try:
        return _text(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        raise Malformed("the answer is nested too deeply") from None


def _evidence(value: object) -> object:
    """Give a JSON value for the record: scalars as they are, what is too large or nested as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_LARGEST <= value <= _LARGEST else _told(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _told(value)
    return _told(value)


def _whole(value: object) -> int | None:
    """Give a positive whole number within 64 bits, also from a numeric string; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_LARGEST)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST:
        return value
    return None


def _count(value: object) -> int | None:
    return 0 if value in (0, "0") and not isinstance(value, bool) else _whole(value)


def _tags(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(_clean(tag)[:MOST_TAG_TEXT] for tag in value[:MOST_TAGS] if isinstance(tag, str))


def _instant(value: object) -> datetime | None:
    """Give an instant in UTC, whole seconds; None for anything that is not one beyond doubt, a time without zone included."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    if instant.tzinfo is None or instant.year not in _YEARS:
        return None
    return instant.astimezone(UTC).replace(microsecond=0)
