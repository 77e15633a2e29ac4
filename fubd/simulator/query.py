"""`GET /people`: what is asked for, and finding it without touching everyone, since the account may hold hundreds of thousands."""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from fubd.simulator import population as standing
from fubd.simulator.account import Account
from fubd.simulator.faults import Behaviour, UpdatedAfter
from fubd.simulator.population import Population

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 100

SORTS: Final = frozenset({"id", "created", "updated", "name", "firstName", "lastName", "price", "stage", "lastActivity"})
"""The columns this simulator sorts by; another name is ignored, as the service ignores what it does not know."""

Check = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is asked for. `since` is the id after which the page begins, from the `next` token."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    since: int | None = None
    sort: str = "id"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Filter:
    """Who belongs to the list. Instants are seconds since 1970, lower bounds inclusive, upper bounds exclusive."""

    ids: tuple[int, ...] | None = None
    greater: int | None = None
    less: int | None = None
    updated_from: int | None = None
    updated_until: int | None = None
    allowed: tuple[int, ...] = (standing.PLAIN,)
    checks: tuple[Check, ...] = field(default=(), compare=False)
    nothing: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """One page: its slots, how many there are in all, and whether more follow."""

    slots: list[int]
    total: int
    more: bool


def token(since: int) -> str:
    """Give the `next` token: unpadded base64 of {"sinceId":n}, as the documented samples decode."""
    return base64.urlsafe_b64encode(json.dumps({"sinceId": since}, separators=(",", ":")).encode()).decode().rstrip("=")


def since_of(text: str) -> int | None:
    """Read a `next` token; None for one that is none."""
    try:
        told = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return None
    since = told.get("sinceId") if isinstance(told, dict) else None
    return since if isinstance(since, int) else None


def number(text: str | None) -> int | None:
    """Read an integer parameter; None for anything else, which the service ignores."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def instant(text: str | None) -> int | None:
    """Read an ISO 8601 parameter as seconds since 1970, UTC where it says nothing; None for anything else."""
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return int((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp())


def paging(query: Mapping[str, str]) -> Paging:
    """Read limit, offset, next and sort; what cannot be read is ignored."""
    limit = number(query.get("limit"))
    asked = query.get("sort", "")
    sort = asked.lstrip("-")
    known = sort in SORTS
    return Paging(
        limit=min(MAX_LIMIT, limit if limit is not None and limit > 0 else DEFAULT_LIMIT),
        offset=max(0, number(query.get("offset")) or 0),
        since=since_of(query["next"]) if query.get("next") else None,
        sort=sort if known else "id",
        descending=asked.startswith("-") if known else True,
    )


def wanted(query: Mapping[str, str], account: Account, behaviour: Behaviour, *, viewer: int | None) -> Filter:
    """Read the filters; `viewer` is the agent who sees only their own people."""
    ids = query.get("id", query.get("ids"))
    updated_from, updated_until = instant(query.get("updatedAfter")), instant(query.get("updatedBefore"))
    by_updated = updated_from is not None or updated_until is not None
    if behaviour.updated_after is not UpdatedAfter.WORKS:
        nothing = by_updated and behaviour.updated_after is UpdatedAfter.NOTHING
        updated_from = updated_until = None
    else:
        nothing = False
        if updated_from is not None and not behaviour.updated_after_inclusive:
            updated_from += 1
    allowed = [standing.PLAIN]
    trash = _yes(query.get("includeTrash")) and not behaviour.lists_hide_trash
    unclaimed = _yes(query.get("includeUnclaimed"))
    if trash:
        allowed.append(standing.TRASHED)
    if unclaimed:
        allowed.append(standing.UNCLAIMED)
    if trash and unclaimed:
        allowed.append(standing.TRASHED_UNCLAIMED)
    return Filter(
        ids=None if ids is None else tuple(one for one in map(number, ids.split(",")) if one is not None),
        greater=number(query.get("idGreaterThan")),
        less=number(query.get("idLessThan")),
        updated_from=updated_from,
        updated_until=updated_until,
        allowed=tuple(allowed),
        checks=tuple(_checks(query, account, viewer)),
        nothing=nothing,
    )


def _yes(text: str | None) -> bool:
    return text is not None and text.lower() in ("true", "1")


def _checks(query: Mapping[str, str], account: Account, viewer: int | None) -> Iterator[Check]:
    people = account.people
    after, before = instant(query.get("createdAfter")), instant(query.get("createdBefore"))
    if after is not None:
        yield lambda slot: people.created[slot] > after
    if before is not None:
        yield lambda slot: people.created[slot] < before
    if "stage" in query:
        places = {place for place, stage in enumerate(account.stages) if stage.name == query["stage"]}
        yield lambda slot: people.stage[slot] in places
    if "tags" in query:
        tags = {tag.strip().lower() for tag in query["tags"].split(",")}
        yield lambda slot: bool(tags & _tags(account.record(slot, full=False)))
    assigned = number(query.get("assignedUserId"))
    if assigned is not None:
        yield lambda slot: account.users[people.user[slot]].id == assigned
    if viewer is not None:
        yield lambda slot: account.users[people.user[slot]].id == viewer
    yield from _words(query, account)


def _words(query: Mapping[str, str], account: Account) -> Iterator[Check]:
    for key in ("name", "firstName", "lastName"):
        if key in query:
            yield _named(account, key, query[key].lower())
    for key, column in (("email", "emails"), ("phone", "phones")):
        if key in query:
            yield _holds(account, column, query[key].lower())


def _tags(record: Mapping[str, object]) -> set[str]:
    tags = record["tags"]
    return {str(tag).lower() for tag in tags} if isinstance(tags, (list, tuple)) else set()


def _named(account: Account, key: str, part: str) -> Check:
    return lambda slot: part in str(account.record(slot, full=False)[key]).lower()


def _holds(account: Account, column: str, value: str) -> Check:
    return lambda slot: f"'{value}'" in str(account.record(slot, full=False)[column]).lower()


def find(account: Account, who: Filter, page: Paging) -> Found:
    """Find one page."""
    if who.nothing:
        return Found([], 0, more=False)
    people = account.people
    if page.sort == "id" and who.ids is None and who.updated_from is None and who.updated_until is None:
        return _by_id(people, who, page)
    if page.sort == "updated" and who.ids is None:
        walk = people.order.descending if page.descending else people.order.ascending
        matching = _matching(people, who, walk(after=who.updated_from, before=who.updated_until))
        if not who.checks and who.updated_from is None and who.updated_until is None and who.greater is None and who.less is None:
            slots = list(islice(matching, page.offset, page.offset + page.limit))
            total = sum(people.standing.count(how) for how in who.allowed)
            return Found(slots, total, more=page.offset + page.limit < total)
        return _cut(list(matching), page)
    found = list(_matching(people, who, _candidates(people, who)))
    found.sort(key=_key(account, page.sort), reverse=page.descending)
    if page.sort == "id" and page.since is not None:
        places = [-slot for slot in found] if page.descending else found
        since = page.since - people.first_id
        start = bisect_left(places, -since + 1) if page.descending else bisect_left(places, since + 1)
        return Found(found[start : start + page.limit], len(found), more=start + page.limit < len(found))
    return _cut(found, page)


def _cut(found: list[int], page: Paging) -> Found:
    return Found(found[page.offset : page.offset + page.limit], len(found), more=page.offset + page.limit < len(found))


def _candidates(people: Population, who: Filter) -> Iterable[int]:
    if who.ids is not None:
        return [slot for slot in dict.fromkeys(people.slot(one) for one in who.ids) if slot is not None]
    if who.updated_from is not None or who.updated_until is not None:
        return people.order.descending(after=who.updated_from, before=who.updated_until)
    return range(len(people))


def _matching(people: Population, who: Filter, slots: Iterable[int]) -> Iterator[int]:
    low = -1 if who.greater is None else who.greater - people.first_id
    high = len(people) if who.less is None else who.less - people.first_id
    for slot in slots:
        if low < slot < high and people.standing[slot] in who.allowed and all(check(slot) for check in who.checks):
            yield slot


def _by_id(people: Population, who: Filter, page: Paging) -> Found:
    """Walk the ids from where the page begins; the total is counted over bytes, not over people, unless a filter needs a look."""
    low = 0 if who.greater is None else max(0, who.greater - people.first_id + 1)
    high = len(people) if who.less is None else max(low, min(len(people), who.less - people.first_id))
    if who.checks:
        total = sum(1 for _ in _matching(people, who, range(low, high)))
    else:
        total = sum(people.standing.count(how, low, high) for how in who.allowed)
    since = None if page.since is None else page.since - people.first_id
    offset = page.offset if since is None else 0
    if page.descending:
        slots: range = range(high - 1 if since is None else min(high, since) - 1, low - 1, -1)
    else:
        slots = range(low if since is None else max(low, since + 1), high)
    page_and_one = list(islice(_matching(people, who, slots), offset, offset + page.limit + 1))
    return Found(page_and_one[: page.limit], total, more=len(page_and_one) > page.limit)


def _key(account: Account, sort: str) -> Callable[[int], int | str]:
    people = account.people
    keys: dict[str, Callable[[int], int | str]] = {
        "id": lambda slot: slot,
        "created": lambda slot: people.created[slot],
        "lastActivity": lambda slot: people.created[slot],
        "updated": lambda slot: people.updated[slot],
        "stage": lambda slot: account.stages[people.stage[slot]].name,
        "name": lambda slot: f"{people.first_name(slot)} {people.last_name(slot)}",
        "firstName": people.first_name,
        "lastName": people.last_name,
        "price": lambda slot: int(str(account.record(slot, full=False)["price"] or 0)),
    }
    return keys[sort]
