"""Remove what a stored webhook request says about forgotten people, and keep what it says about others. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

_IDS = "resourceIds"
# An id is a signed number of 64 bits.
_NUMBER = re.compile(rb"(?<!\d)\d{1,18}(?!\d)")


def mentioned_people(body: bytes) -> set[int]:
    """Return the ids of people that a body may mention: every number in it."""
    return set(map(int, _NUMBER.findall(body)))


def redact(body: bytes, people: Collection[int]) -> bytes | None:
    """Return the body without these people, empty when it is about nobody else; None when it does not mention them.

    Digits within a longer number are not a mention. A body that is no JSON object is emptied where it mentions one of them, because it
    is unknown which parts are about them.
    """
    if not any(re.search(rb"(?<!\d)%d(?!\d)" % person_id, body) for person_id in people):
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return b""
    if not isinstance(document, dict) or not isinstance(document.get(_IDS), list):
        return b""
    forgotten = {str(person_id) for person_id in people}
    others = [value for value in document[_IDS] if str(value).strip() not in forgotten]
    if len(others) == len(document[_IDS]):
        return None
    return json.dumps({**document, _IDS: others}).encode() if others else b""
