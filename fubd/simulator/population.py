"""The people of the account in compact form: columns of numbers; everything else is computed from the seed on demand.

200,000 people take about 6 MB. Edited fields are stored in `edited`, by person.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fubd.simulator.rng import Rng, hash64

GONE: Final = 0
"""Visibility: deleted, merged away or never assigned."""
PLAIN: Final = 1
TRASHED: Final = 2
UNCLAIMED: Final = 3
TRASHED_UNCLAIMED: Final = 4
HIDDEN: Final = 5
"""Visibility: just created, and not yet readable."""

_YEARS_SECONDS: Final = 6 * 365 * 86400
_SHIFT: Final = 32
_LOW: Final = (1 << _SHIFT) - 1

FIRST_NAMES: Final = (
    "Ada", "Bram", "Cleo", "Dario", "Edda", "Finn", "Greta", "Hugo", "Ines", "Jonas", "Kaja", "Leif", "Mira", "Nils", "Odile", "Pavel",
    "Quinn", "Runa", "Sören", "Tilda", "Ugo", "Vera", "Wim", "Xenia", "Yara", "Zoë", "Łucja", "Ólafur", "Renée", "Björn",
)  # fmt: skip
LAST_NAMES: Final = (
    "Amberholt", "Brackwater", "Coldfern", "Dunmarrow", "Eastvale", "Fennimoor", "Grayhollow", "Hartsbrook", "Ironwick", "Juniper-Low",
    "Kestrelby", "Larkmead", "Mossgrove", "Nettlecombe", "O'Thornby", "Pinehallow", "Quillstead", "Ravensmere", "Saltmarsh", "Thistledown",
    "Umberfield", "Vexholm", "Wrenfield", "Yarrowby", "Zephyrhill", "Ångholm", "Peñaclara", "Weißbach",
)  # fmt: skip
TAGS: Final = ("Postcard", "Cold Call", "Web Form", "Driving For Dollars", "Referral", "Text Blast", "Absentee Owner", "Probate / Estate")
SOURCES: Final = ("<unspecified>", "Website", "Postcard", "Referral", "Open House", "Cold Call")
STATES: Final = ("AZ", "CO", "FL", "GA", "NC", "OH", "TN", "TX")


def stamp(seconds: float) -> str:
    """Return an instant as the people endpoint writes it: UTC, whole seconds, `Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass(frozen=True, slots=True)
class PersonState:
    """Everything about one person that can change."""

    stage: int
    updated: int
    user: int
    visibility: int
    edited: Mapping[str, object]


class UpdatedOrder:
    """The people ordered by `updated`, then id. An update appends a key; outdated keys are skipped and removed now and then."""

    def __init__(self, updated: array[int], first_id: int) -> None:
        self._updated = updated
        self._first_id = first_id
        self._keys: array[int] = array("q", sorted((at << _SHIFT) | (first_id + slot) for slot, at in enumerate(updated)))

    def touch(self, person_id: int, at: int) -> None:
        """Record that the person's `updated` is now `at`; the column must already hold it."""
        key = (at << _SHIFT) | person_id
        index = bisect_left(self._keys, key)
        if index < len(self._keys) and self._keys[index] == key:
            return  # a clock that was set back reached the same second again
        self._keys.insert(index, key)
        if len(self._keys) > 2 * len(self._updated) + 1000:
            self._keys = array("q", (key for key in self._keys if self._is_current(key)))

    def descending(self, *, after: int | None = None, before: int | None = None) -> Iterator[int]:
        """Yield slots, last updated first, with `after` <= updated < `before` (seconds since 1970)."""
        high = len(self._keys) if before is None else bisect_left(self._keys, before << _SHIFT)
        low = 0 if after is None else bisect_left(self._keys, after << _SHIFT)
        for index in range(high - 1, low - 1, -1):
            if self._is_current(self._keys[index]):
                yield (self._keys[index] & _LOW) - self._first_id

    def ascending(self, *, after: int | None = None, before: int | None = None) -> Iterator[int]:
        """Yield slots, longest not updated first, with `after` <= updated < `before` (seconds since 1970)."""
        high = len(self._keys) if before is None else bisect_left(self._keys, before << _SHIFT)
        low = 0 if after is None else bisect_left(self._keys, after << _SHIFT)
        for index in range(low, high):
            if self._is_current(self._keys[index]):
                yield (self._keys[index] & _LOW) - self._first_id

    def _is_current(self, key: int) -> bool:
        return self._updated[(key & _LOW) - self._first_id] == key >> _SHIFT


class Population:
    """Columns of people. A *slot* is `id - first_id`; ids grow with `created` and are never reused.

    `now` is seconds since 1970; everyone was created in the six years before. `weights` holds one weight per stage.
    `gaps` is the share of ids that no longer exist.
    """

    def __init__(
        self, *, seed: int, people: int, first_id: int, now: int, weights: tuple[int, ...], trash: int, users: int, gaps: float
    ) -> None:
        rng = Rng(seed)
        draw = rng.random
        self.seed = seed
        self.first_id = first_id
        began = now - _YEARS_SECONDS
        step = (_YEARS_SECONDS - 7200) / max(1, people)
        self.created: array[int] = array("q", [began + int(slot * step) for slot in range(people)])
        # Most people were last updated long ago, a few within this hour: the cube of a uniform draw.
        self.updated: array[int] = array("q", [at + int((now - 3600 - at) * (1 - draw()) ** 3) for at in self.created])
        self.stage = bytearray(rng.choices(range(len(weights)), weights, k=people))
        self.initial_stage = bytes(self.stage)
        self.user = bytearray(rng.choices(range(users), k=people))
        self.visibility = bytearray(TRASHED if index == trash else PLAIN for index in self.stage)
        for slot in rng.sample(range(people), people // 200):
            self.visibility[slot] += UNCLAIMED - PLAIN
        for slot in rng.sample(range(people), int(people * gaps)):
            self.visibility[slot] = GONE
        self.order = UpdatedOrder(self.updated, first_id)
        self.edited: dict[int, dict[str, object]] = {}

    def __len__(self) -> int:
        return len(self.created)

    def slot(self, person_id: int) -> int | None:
        """Return the slot of an id that was ever assigned, else None."""
        slot = person_id - self.first_id
        return slot if 0 <= slot < len(self.created) else None

    def add(self, *, now: int, stage: int, user: int, visibility: int) -> int:
        """Assign the next id and return its slot."""
        slot = len(self.created)
        self.created.append(now)
        self.updated.append(now)
        self.stage.append(stage)
        self.user.append(user)
        self.visibility.append(visibility)
        self.order.touch(self.first_id + slot, now)
        return slot

    def touch(self, slot: int, now: int) -> None:
        """Set `updated`; within the same second nothing changes."""
        if self.updated[slot] != now:
            self.updated[slot] = now
            self.order.touch(self.first_id + slot, now)

    def set_visibility(self, slot: int, visibility: int) -> None:
        """Set who may see the person."""
        self.visibility[slot] = visibility

    def state(self, slot: int) -> PersonState:
        """Return the present state of a person."""
        edited = dict(self.edited.get(slot, {}))
        return PersonState(self.stage[slot], self.updated[slot], self.user[slot], self.visibility[slot], edited)

    def restore(self, slot: int, state: PersonState) -> None:
        """Put a person into another state."""
        self.stage[slot], self.user[slot], self.visibility[slot] = state.stage, state.user, state.visibility
        self.touch(slot, state.updated)
        if state.edited or slot in self.edited:
            self.edited[slot] = dict(state.edited)

    def first_name(self, slot: int) -> str:
        """Return the first name, as edited."""
        edited = self.edited.get(slot, {}).get("firstName")
        return str(edited) if edited is not None else FIRST_NAMES[hash64(self.seed, slot) % len(FIRST_NAMES)]

    def last_name(self, slot: int) -> str:
        """Return the last name, as edited."""
        edited = self.edited.get(slot, {}).get("lastName")
        return str(edited) if edited is not None else LAST_NAMES[(hash64(self.seed, slot) >> 8) % len(LAST_NAMES)]

    def record(self, slot: int, *, stage: str, stage_id: int, assigned: tuple[int, str], full: bool) -> dict[str, object]:
        """Return a person as the API shows one, keys in FUB's order (observed); `full` adds the fields that come only on request."""
        draw = hash64(self.seed, slot)
        first, last = self.first_name(slot), self.last_name(slot)
        person_id = self.first_id + slot
        created, updated = stamp(self.created[slot]), stamp(self.updated[slot])
        source = SOURCES[(draw >> 16) % len(SOURCES)]
        phone = f"(555) 555-01{(draw >> 20) % 100:02d}"
        record: dict[str, object] = {
            "id": person_id,
            "created": created,
            "updated": updated,
            "createdVia": "Manually",
            "lastActivity": created,
            "name": f"{first} {last}",
            "firstName": first,
            "lastName": last,
            "stage": stage,
            "stageId": stage_id,
            "type": "Seller" if draw & 1 else "Buyer",
            "source": source,
            "sourceId": 1 + (draw >> 16) % len(SOURCES),
            "sourceUrl": None,
            "leadFlowId": None,
            "delayed": False,
            "contacted": (draw >> 27) & 1,
            "price": 50_000 + (draw >> 28) % 900 * 1_000,
            "assignedLenderId": None,
            "assignedLenderName": None,
            "assignedUserId": assigned[0],
            "assignedPondId": None,
            "assignedTo": assigned[1],
            "tags": list(dict.fromkeys(TAGS[(draw >> (40 + 3 * index)) % len(TAGS)] for index in range((draw >> 38) % 3))),
            "emails": [{"value": f"person{person_id}@example.com", "type": "home", "status": "Not Validated", "isPrimary": 1}],
            "phones": [
                {
                    "value": phone,
                    "type": "mobile",
                    "status": "Not Validated",
                    "isPrimary": 1,
                    "normalized": "".join(letter for letter in phone if letter.isdigit()),
                    "isLandline": False,
                    "isOnboardingNumber": False,
                }
            ],
            "addresses": [],
            "picture": None,
            "socialData": [],
            "websiteVisits": (draw >> 33) % 20,
            "timeframeId": None,
            "timeframeUpdated": None,
            "timeframeStatus": None,
            "timeframeDateRange": None,
            "claimed": self.visibility[slot] not in (UNCLAIMED, TRASHED_UNCLAIMED),
            "dealStatus": None,
            "dealStage": None,
            "dealName": None,
            "dealCloseDate": None,
            "dealPrice": None,
            "firstToClaimOffer": False,
            "collaborators": [],
            "teamLeaders": [],
            "pondMembers": [],
        }
        if full:
            record |= {
                "background": None,
                "lastReceivedEmail": None,
                "lastSentEmail": None,
                "lastIncomingCall": None,
                "lastOutgoingCall": None,
                "lastSentText": None,
                "lastReceivedText": None,
                "customCampaignID": f"C-{(draw >> 44) % 40:03d}",
                "customPropertyState": STATES[(draw >> 50) % len(STATES)],
                "customOfferAmount": None,
            }
        record.update(
            (key, value) for key, value in self.edited.get(slot, {}).items() if key in record or full or not key.startswith("custom")
        )
        record["name"] = f"{first} {last}"
        return record
