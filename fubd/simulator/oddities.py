"""Malformed values in otherwise right answers."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping
from enum import StrEnum

from fubd.simulator.behaviour import Arrays, Spelling


class Oddity(StrEnum):
    """How a person can be malformed."""

    NULL_STAGE = "null stage"
    NULL_ELEMENT = "null element"
    NO_ID = "no id"
    ZERO_DATE = "zero date"
    """`updated` is MySQL's zero date."""


def distort(record: Mapping[str, object], oddity: Oddity) -> dict[str, object] | None:
    """Return the person malformed."""
    match oddity:
        case Oddity.NULL_STAGE:
            return {**record, "stage": None, "stageId": None}
        case Oddity.NULL_ELEMENT:
            return None
        case Oddity.NO_ID:
            return {key: value for key, value in record.items() if key != "id"}
        case Oddity.ZERO_DATE:
            return {**record, "updated": "0000-00-00T00:00:00Z"}


def write_arrays(value: object, arrays: Arrays) -> object:
    """Return the JSON value with all its arrays written in this way."""
    if arrays is Arrays.LISTS:
        return value
    if isinstance(value, Mapping):
        return {key: write_arrays(item, arrays) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    items = [write_arrays(item, arrays) for item in value]
    if arrays is Arrays.NULL_WHEN_EMPTY:
        return items or None
    return {str(number): item for number, item in enumerate(items)} if items else items


def spell(stage: str, spelling: Spelling) -> str:
    """Return the name of a stage in another spelling."""
    match spelling:
        case Spelling.SAME:
            return stage
        case Spelling.ENTITIES:
            return html.escape(stage)
        case Spelling.BLANKS:
            return f" {stage} "
        case Spelling.DECOMPOSED:
            return unicodedata.normalize("NFD", stage)
        case Spelling.UPPER_CASE:
            return stage.upper()


def canonical(stage: str) -> str:
    """Return what all spellings of a stage have in common."""
    return " ".join(unicodedata.normalize("NFC", html.unescape(stage)).split()).casefold()
