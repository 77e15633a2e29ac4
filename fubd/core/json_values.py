"""JSON values of Follow Up Boss as values that can be stored: text, lists, ids and instants; None for what is none of these."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime

from fubd.core.observation import normalize_stage_name
from fubd.errors import Malformed

MAX_TEXT_CHARS = 1_000
"""Characters kept of any one string. FUB's own forms allow fewer."""
MAX_TAG_CHARS = 200
MAX_TAGS = 1_000
MAX_INTEGER = 2**63 - 1
_EXACT_FLOAT = 2**53  # beyond it a float may be of another integer
_YEARS = range(1971, 2200)  # outside are zero dates and overflows, and arithmetic on them must not fail later

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def list_of(value: object) -> list[object] | None:
    """Return a JSON list; PHP writes an empty one as null, and one with gaps as an object with numeric keys. None for anything else."""
    if value is None:
        return []
    if isinstance(value, dict) and all(key.isdecimal() for key in value):
        return list(value.values())
    return value if isinstance(value, list) else None


def clean(text: str) -> str:
    """Return the text in a form that Postgres can store: without NUL, lone surrogates replaced."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    if not text.isascii():
        text = LONE_SURROGATE.sub("\ufffd", text)
    return text


def text_of(value: object) -> str | None:
    """Return a string as storable text of bounded length; None for anything else."""
    return clean(value)[:MAX_TEXT_CHARS] if isinstance(value, str) else None


def stage_name(value: object) -> str | None:
    """Return the one spelling of a stage's name; None for anything but a string."""
    text = text_of(value)
    return None if text is None else text_of(normalize_stage_name(text))


def as_text(value: object) -> str | None:
    """Return any JSON value as text: strings as they are, the rest as JSON."""
    if value is None or isinstance(value, str):
        return text_of(value)
    try:
        return text_of(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        raise Malformed("the answer is nested too deeply") from None


def evidence_of(value: object) -> object:
    """Return a JSON value for the payload: scalars as they are, too large numbers and nested values as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -MAX_INTEGER <= value <= MAX_INTEGER else as_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else as_text(value)
    return as_text(value)


def positive_integer(value: object) -> int | None:
    """Return a positive integer within 64 bits, also from a numeric string or written with a fraction of zero; None for anything else."""
    if isinstance(value, float) and value.is_integer() and value <= _EXACT_FLOAT:
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(MAX_INTEGER)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_INTEGER:
        return value
    return None


def count_of(value: object) -> int | None:
    """Return 0 or a positive integer; None for anything else."""
    return 0 if value in (0, "0") and not isinstance(value, bool) else positive_integer(value)


def tags_of(value: object) -> tuple[str, ...]:
    """Return the strings of a list, of bounded number and length."""
    return tuple(clean(tag)[:MAX_TAG_CHARS] for tag in (list_of(value) or [])[:MAX_TAGS] if isinstance(tag, str))


def instant_of(value: object) -> datetime | None:
    """Return an instant in UTC, whole seconds; None for anything that is not clearly one. A time without a zone is UTC."""
    if not isinstance(value, str) or ":" not in value:
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    if instant.year not in _YEARS:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return instant.astimezone(UTC).replace(microsecond=0)


def is_zoneless(value: object) -> bool:
    """Return whether a value is an instant without a zone."""
    try:
        return isinstance(value, str) and ":" in value and datetime.fromisoformat(value).tzinfo is None
    except ValueError:
        return False
