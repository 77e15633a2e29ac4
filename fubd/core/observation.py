"""What the two sources report, decoded: webhook deliveries and people as read. Both become claims (see `reconcile`).

Every instant here is aware and in Follow Up Boss's own time, except those named `received_at`, which are ours. The two are never compared.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


def normalize_stage_name(name: str) -> str:
    """Return the one spelling of a stage's name: HTML entities decoded, blanks single, Unicode composed (each observed to differ)."""
    if name.isascii() and "&" not in name and "  " not in name and name == name.strip() and name.isprintable():
        return name
    return unicodedata.normalize("NFC", " ".join(html.unescape(name).split()))


class Channel(StrEnum):
    """The source that a claim came through. A read that a webhook prompted came through the webhook."""

    WEBHOOK = "webhook"
    POLLING = "polling"


@dataclass(frozen=True, slots=True)
class Reading:
    """One person as the people endpoint showed them.

    `created` and `updated` are FUB's, whole seconds. `fields` holds only the custom fields that were requested, as text.
    `payload` is the part of the answer that is kept as evidence: JSON values, no key that was not requested.
    """

    person_id: int
    stage: str
    stage_id: int | None
    created: datetime | None
    updated: datetime
    first_name: str | None = None
    last_name: str | None = None
    assigned_user_id: str | None = None
    assigned_user_name: str | None = None
    tags: tuple[str, ...] = ()
    fields: Mapping[str, str | None] = field(default_factory=dict)
    payload: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The readings of one answer, with what is known of its moment.

    `read_at`: an instant of FUB's clock at or before the moment the people were read (never later than the truth).
    `watermark`: FUB's instant up to which everything was already recorded then; None outside polls and before the baseline.
    `channel`: WEBHOOK when a webhook prompted this read, else POLLING.
    """

    readings: tuple[Reading, ...]
    read_at: datetime
    watermark: datetime | None
    channel: Channel


@dataclass(frozen=True, slots=True)
class StageEvent:
    """peopleStageUpdated: each of these people entered `stage` at `at` (FUB's clock)."""

    event_id: str
    at: datetime
    stage: str
    person_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RefetchEvent:
    """A webhook that reports something about these people, but no stage: they are read soon after."""

    event_id: str
    event: str
    at: datetime
    person_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IgnoredEvent:
    """A genuine delivery of a kind that says nothing about people's stages."""

    event_id: str
    event: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One verified webhook request, decoded as far as possible.

    `key` identifies its meaning (not its bytes): a redelivery has the same key. `content` is None when nothing in it could be used.
    `quarantine` is the reason, in one sentence, why something in it could not be used; None when everything could.
    """

    key: bytes
    body: bytes
    event_id: str | None
    event: str | None
    content: StageEvent | RefetchEvent | IgnoredEvent | None
    quarantine: str | None
