"""Verify that a webhook request is genuine, and decode it.

The rules, from docs.followupboss.com/reference/webhooks-guide and from what senders were observed to do:

- A request is genuine when `FUB-Signature` is the lowercase hex HMAC-SHA256 of the *base64* of the received bytes, under the system key. It
  is checked before anything is parsed, and never over re-serialized JSON: FUB escapes slashes, and another serializer would not.
- An event of a kind that we do not use needs nothing but its name: the ids of a note or of a relationship are not people.
- An event about people needs a name, an instant and at least one usable id, and a stage event a stage; otherwise it is quarantined whole.
- Of usable and unusable ids together, the usable ones count and the delivery is quarantined as well.
- `eventId` is only as reliable as its sender. Without one the event still counts, under an id derived from its content.

Any bytes decode to a `Delivery`. A bulk edit may be split over several requests, perhaps under one `eventId`, so the key of a delivery
includes its people.
"""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as keyed_digest

from fubd.core.observation import Delivery, IgnoredEvent, RefetchEvent, StageEvent, normalize_stage_name
from fubd.core.vocabulary import STAGE_UPDATED, WEBHOOK_ROUTES
from fubd.errors import InvalidSignature, Malformed

MAX_NAME_CHARS = 200
MAX_STAGE_CHARS = 500
# The highest number that a bigint holds is the person of trial writes (store/adoption/dry_run.py), who must have no rows.
MAX_PERSON_ID = 2**63 - 2
MAX_AHEAD = timedelta(days=1)
TOO_FAR_AHEAD = "eventCreated is more than a day ahead of FUB's clock"

# No real event is older, and arithmetic on the first days of year 1 would leave the calendar.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ID_CHARS = 40
_UNUSUAL_TIME = re.compile(r"(?P<midnight>T24:00(:00)?(?![\d.:]))|(?P<minute>T\d\d:\d\d):60")
_PEOPLE_EVENTS = "people"
_RELATIONSHIP_EVENTS = "peopleRelationship"


def is_webhook_route(path: str) -> bool:
    """Return whether a path is one of our webhook routes, also with doubled or trailing slashes."""
    return re.sub("/+", "/", path).rstrip("/") in WEBHOOK_ROUTES


def verify(body: bytes, signature: str | None, keys: Sequence[bytes]) -> None:
    """Raise InvalidSignature unless `signature` (the header FUB-Signature) is that of `body` under one of the keys.

    It takes the same time whichever key fits, and whatever the header contains.
    """
    # Compared as bytes: compare_digest raises TypeError for a str beyond ASCII, and a header may contain any character.
    given = b"" if signature is None else signature.encode("utf-8", "surrogatepass")
    message = b2a_base64(body, newline=False)
    genuine = False
    for key in keys:
        genuine |= compare_digest(keyed_digest(key, message, "sha256").hex().encode(), given)
    if not genuine:
        raise InvalidSignature("no signature" if signature is None else "the signature does not fit the body")


def decode(body: bytes, *, fub_now: datetime) -> Delivery:
    """Decode a verified body as far as it can be used; never raises. An instant far ahead of `fub_now` (FUB's clock) is not usable."""
    try:
        document = _document(body)
    except Malformed as fault:
        return Delivery(_digest(body), body, None, None, None, str(fault))
    event_id = _name(document.get("eventId"))
    event = _name(document.get("event"))
    if event is None:
        return Delivery(_digest(body), body, event_id, None, None, "there is no usable event name")
    try:
        if event.startswith(_PEOPLE_EVENTS) and not event.startswith(_RELATIONSHIP_EVENTS):
            return _people_event(body, document, event_id, event, fub_now)
        return _ignored_event(body, document, event_id, event, fub_now)
    except Malformed as fault:
        return Delivery(_digest(body), body, event_id, event, None, str(fault))


def _people_event(body: bytes, document: dict[str, object], event_id: str | None, event: str, fub_now: datetime) -> Delivery:
    stage = _stage(document.get("data")) if event == STAGE_UPDATED else None
    at = _instant(document.get("eventCreated"), fub_now)
    people, unusable = _person_ids(document.get("resourceIds"))
    if not people:
        raise Malformed("there is no usable id in resourceIds")
    key = _meaning_digest(event_id, event, at, stage, people)
    quarantine = None
    if event_id is None:
        event_id = f"content-{key.hex()}"
    if unusable:
        # Unusable ids have no meaning to compare, so only the same bytes are the same delivery.
        key = _digest(body)
        quarantine = f"{unusable} of {unusable + len(people)} ids in resourceIds are unusable"
    content = RefetchEvent(event_id, event, at, people) if stage is None else StageEvent(event_id, at, stage, people)
    return Delivery(key, body, event_id, event, content, quarantine)


def _ignored_event(body: bytes, document: dict[str, object], event_id: str | None, event: str, fub_now: datetime) -> Delivery:
    ids, unusable = _person_ids(document.get("resourceIds"))
    try:
        at = _instant(document.get("eventCreated"), fub_now)
        key = _digest(body) if unusable else _meaning_digest(event_id, event, at, None, ids)
    except Malformed:
        at = fub_now
        key = _digest(body)
    if event_id is None:
        event_id = f"content-{key.hex()}"
    return Delivery(key, body, event_id, event, IgnoredEvent(event_id, event, at), None)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # It is unknown which of the two was meant, and another decoder may use the other.
        raise Malformed("a key occurs twice in the JSON")
    return members


def _no_constant(_name: str) -> object:
    raise Malformed("the body is not JSON: it holds NaN or Infinity")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def _document(body: bytes) -> dict[str, object]:
    """Parse the body as one JSON object in UTF-8. Raises Malformed."""
    try:
        # Not json.loads(bytes): that would guess UTF-16 and UTF-32 and skip a byte order mark.
        document = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except RecursionError:
        raise Malformed("the JSON is nested too deeply") from None
    except ValueError:
        # JSONDecodeError, and the interpreter's limit on the digits of an integer.
        raise Malformed("the body is not JSON") from None
    if type(document) is not dict:
        raise Malformed("the JSON is not an object")
    return document


def _text(value: object, max_chars: int) -> str | None:
    """Return the value when it is text that Postgres can store (no NUL, no half of a surrogate pair), else None."""
    if type(value) is not str or not value or len(value) > max_chars or "\0" in value:
        return None
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    return value


def _name(value: object) -> str | None:
    text = _text(value, MAX_NAME_CHARS)
    return None if text is None or text.isspace() else text


def _stage(data: object) -> str:
    text = _text(data.get("stage"), MAX_STAGE_CHARS) if type(data) is dict else None
    stage = None if text is None else _text(normalize_stage_name(text), MAX_STAGE_CHARS)
    if stage is None:
        raise Malformed("there is no usable stage in data")
    return stage


def _parse_instant(text: str) -> datetime:
    """Parse an ISO 8601 instant, also with small letters, the hour 24 or a leap second. Raises ValueError."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        unusual = _UNUSUAL_TIME.search(text.upper())
        if unusual is None:
            return datetime.fromisoformat(text.upper())
        # The day has no such time, so the instant is that of the last second before it, and a second later.
        usual = text.upper().replace(unusual.group(), "T23:59:59" if unusual["midnight"] else f"{unusual['minute']}:59", 1)
        return datetime.fromisoformat(usual) + timedelta(seconds=1)


def _instant(value: object, fub_now: datetime) -> datetime:
    if type(value) is not str:
        raise Malformed("eventCreated is missing")
    try:
        instant = _parse_instant(value)
        if instant.tzinfo is None:
            raise Malformed("eventCreated has no time zone")
        if instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed("eventCreated is unreadable") from None
    if instant < _EARLIEST:
        raise Malformed("eventCreated is out of range")
    if instant - fub_now > MAX_AHEAD:
        raise Malformed(TOO_FAR_AHEAD)
    return instant


def _person_ids(value: object) -> tuple[tuple[int, ...], int]:
    """Return the usable ids, each once, in their order, and the number of unusable elements.

    PHP writes a list with gaps as an object with numeric keys.
    """
    if type(value) is dict and all(key.isdecimal() for key in value):
        value = list(value.values())
    if type(value) is not list:
        return (), 0 if value is None else 1
    usable: dict[int, None] = {}
    unusable = 0
    for element in value:
        person_id = _person_id(element)
        if person_id:
            usable[person_id] = None
        else:
            unusable += 1
    return tuple(usable), unusable


def _person_id(element: object) -> int:
    """Return the id, or 0 for what cannot be one. The type is exact because a bool is an int in Python, but not in JSON."""
    if type(element) is int:
        number = element
    elif type(element) is str and len(element) <= _MAX_ID_CHARS and element.isascii() and element.isdigit():
        number = int(element)
    else:
        return 0
    return number if 0 < number <= MAX_PERSON_ID else 0


def _meaning_digest(event_id: str | None, event: str, at: datetime, stage: str | None, ids: tuple[int, ...]) -> bytes:
    """Return a digest of what the event says. The parts contain no NUL, so no two different events join to the same text."""
    people = str(ids[0]) if len(ids) == 1 else ",".join(map(str, sorted(ids)))
    return _digest(f"{event_id or ''}\0{event}\0{at.isoformat()}\0{stage or ''}\0{people}".encode())


def _digest(content: bytes) -> bytes:
    return sha256(content).digest()
