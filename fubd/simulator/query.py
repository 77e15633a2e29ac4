"""`GET /people`: parse its parameters and find the page without visiting everyone, as the account may hold hundreds of thousands."""

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

from fubd.simulator import population as visibility
from fubd.simulator.account import Account
from fubd.simulator.behaviour import Behaviour, UpdatedAfter
from fubd.simulator.population import Population

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 100

SORTS: Final = frozenset({"id", "created", "updated", "name", "firstName", "lastName", "price", "stage", "lastActivity"})
"""The columns this simulator sorts by; other names are ignored, as FUB ignores unknown parameters (observed)."""

Predicate = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Paging:
    """The requested part of a list. `since` is the id after which the page begins, from the `next` token."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    since: int | None = None
    sort: str = "id"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class PeopleFilter:
    """Conditions for a person to be listed. Instants are seconds since 1970; lower bounds are inclusive, upper bounds exclusive."""

    ids: tuple[int, ...] | None = None
    id_greater_than: int | None = None
    id_less_than: int | None = None
    updated_from: int | None = None
    updated_until: int | None = None
    visibilities: tuple[int, ...] = (visibility.PLAIN,)
    predicates: tuple[Predicate, ...] = field(default=(), compare=False)
    matches_nothing: bool = False


@dataclass(frozen=True, slots=True)
class PeopleResult:
    """One page: its slots, the total count, and whether more follow."""

    slots: list[int]
    total: int
    more: bool


def encode_next(since: int) -> str:
    """Return a `next` token: unpadded base64 of {"sinceId":n}, as in https://docs.followupboss.com/reference/pagination."""
    return base64.urlsafe_b64encode(json.dumps({"sinceId": since}, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_next(text: str) -> int | None:
    """Return the id in a `next` token, or None if it cannot be decoded."""
    try:
        parsed = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return None
    since = parsed.get("sinceId") if isinstance(parsed, dict) else None
    return since if isinstance(since, int) else None


def parse_int(text: str | None) -> int | None:
    """Parse an integer parameter; None for anything else, which FUB ignores."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def parse_instant(text: str | None) -> int | None:
    """Parse an ISO 8601 parameter to seconds since 1970, taken as UTC if it has no zone; None for anything else."""
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def parse_paging(query: Mapping[str, str], *, max_limit: int = MAX_LIMIT) -> Paging:
    """Parse limit, offset, next and sort; unreadable values are ignored."""
    limit = parse_int(query.get("limit"))
    requested = query.get("sort", "")
    sort = requested.lstrip("-")
    known = sort in SORTS
    return Paging(
        limit=min(max_limit, limit if limit is not None and limit > 0 else DEFAULT_LIMIT),
        offset=max(0, parse_int(query.get("offset")) or 0),
        since=decode_next(query["next"]) if query.get("next") else None,
        sort=sort if known else "id",
        descending=requested.startswith("-") if known else True,
    )


def parse_filter(query: Mapping[str, str], account: Account, behaviour: Behaviour, *, viewer: int | None) -> PeopleFilter:
    """Parse the filters; `viewer` is the id of an agent filters sees only their own people."""
    ids = query.get("id", query.get("ids"))
    updated_from, updated_until = parse_instant(query.get("updatedAfter")), parse_instant(query.get("updatedBefore"))
    by_updated = updated_from is not None or updated_until is not None
    if behaviour.updated_after is not UpdatedAfter.WORKS:
        matches_nothing = by_updated and behaviour.updated_after is UpdatedAfter.NOTHING
        updated_from = updated_until = None
    else:
        matches_nothing = False
        if updated_from is not None and not behaviour.updated_after_inclusive:
            updated_from += 1
    visibilities = [visibility.PLAIN]
    trash = _is_true(query.get("includeTrash")) and not behaviour.lists_hide_trash
    unclaimed = _is_true(query.get("includeUnclaimed"))
    if trash:
        visibilities.append(visibility.TRASHED)
    if unclaimed:
        visibilities.append(visibility.UNCLAIMED)
    if trash and unclaimed:
        visibilities.append(visibility.TRASHED_UNCLAIMED)
    return PeopleFilter(
        ids=None if ids is None else tuple(one for one in map(parse_int, ids.split(",")) if one is not None),
        id_greater_than=parse_int(query.get("idGreaterThan")),
        id_less_than=parse_int(query.get("idLessThan")),
        updated_from=updated_from,
        updated_until=updated_until,
        visibilities=tuple(visibilities),
        predicates=tuple(_predicates(query, account, viewer)),
        matches_nothing=matches_nothing,
    )


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in ("true", "1")


def _predicates(query: Mapping[str, str], account: Account, viewer: int | None) -> Iterator[Predicate]:
    people = account.people
    after, before = parse_instant(query.get("createdAfter")), parse_instant(query.get("createdBefore"))
    if after is not None:
        yield lambda slot: people.created[slot] > after
    if before is not None:
        yield lambda slot: people.created[slot] < before
    if "stage" in query:
        indexes = {index for index, stage in enumerate(account.stages) if stage.name == query["stage"]}
        yield lambda slot: people.stage[slot] in indexes
    if "tags" in query:
        tags = {tag.strip().lower() for tag in query["tags"].split(",")}
        yield lambda slot: bool(tags & _tags(account.record(slot, full=False)))
    assigned = parse_int(query.get("assignedUserId"))
    if assigned is not None:
        yield lambda slot: account.users[people.user[slot]].id == assigned
    if viewer is not None:
        yield lambda slot: account.users[people.user[slot]].id == viewer
    yield from _text_predicates(query, account)


def _text_predicates(query: Mapping[str, str], account: Account) -> Iterator[Predicate]:
    for key in ("name", "firstName", "lastName"):
        if key in query:
            yield _name_contains(account, key, query[key].lower())
    for key, column in (("email", "emails"), ("phone", "phones")):
        if key in query:
            yield _column_contains(account, column, query[key].lower())


def _tags(record: Mapping[str, object]) -> set[str]:
    tags = record["tags"]
    return {str(tag).lower() for tag in tags} if isinstance(tags, (list, tuple)) else set()


def _name_contains(account: Account, key: str, part: str) -> Predicate:
    return lambda slot: part in str(account.record(slot, full=False)[key]).lower()


def _column_contains(account: Account, column: str, value: str) -> Predicate:
    return lambda slot: f"'{value}'" in str(account.record(slot, full=False)[column]).lower()


def find_people(account: Account, filters: PeopleFilter, page: Paging) -> PeopleResult:
    """Return one page of the people filters match."""
    if filters.matches_nothing:
        return PeopleResult([], 0, more=False)
    people = account.people
    if page.sort == "id" and filters.ids is None and filters.updated_from is None and filters.updated_until is None:
        return _by_id(people, filters, page)
    if page.sort == "updated" and filters.ids is None:
        walk = people.order.descending if page.descending else people.order.ascending
        matching = _matching(people, filters, walk(after=filters.updated_from, before=filters.updated_until))
        if (
            not filters.predicates
            and filters.updated_from is None
            and filters.updated_until is None
            and filters.id_greater_than is None
            and filters.id_less_than is None
        ):
            slots = list(islice(matching, page.offset, page.offset + page.limit))
            total = sum(people.visibility.count(how) for how in filters.visibilities)
            return PeopleResult(slots, total, more=page.offset + page.limit < total)
        return _slice(list(matching), page)
    found = list(_matching(people, filters, _candidates(people, filters)))
    found.sort(key=_key(account, page.sort), reverse=page.descending)
    if page.sort == "id" and page.since is not None:
        indexes = [-slot for slot in found] if page.descending else found
        since = page.since - people.first_id
        start = bisect_left(indexes, -since + 1) if page.descending else bisect_left(indexes, since + 1)
        return PeopleResult(found[start : start + page.limit], len(found), more=start + page.limit < len(found))
    return _slice(found, page)


def _slice(found: list[int], page: Paging) -> PeopleResult:
    return PeopleResult(found[page.offset : page.offset + page.limit], len(found), more=page.offset + page.limit < len(found))


def _candidates(people: Population, filters: PeopleFilter) -> Iterable[int]:
    if filters.ids is not None:
        return [slot for slot in dict.fromkeys(people.slot(one) for one in filters.ids) if slot is not None]
    if filters.updated_from is not None or filters.updated_until is not None:
        return people.order.descending(after=filters.updated_from, before=filters.updated_until)
    return range(len(people))


def _matching(people: Population, filters: PeopleFilter, slots: Iterable[int]) -> Iterator[int]:
    low = -1 if filters.id_greater_than is None else filters.id_greater_than - people.first_id
    high = len(people) if filters.id_less_than is None else filters.id_less_than - people.first_id
    for slot in slots:
        if (
            low < slot < high
            and people.visibility[slot] in filters.visibilities
            and all(predicate(slot) for predicate in filters.predicates)
        ):
            yield slot


def _by_id(people: Population, filters: PeopleFilter, page: Paging) -> PeopleResult:
    """Walk the ids from the start of the page. The total is counted over bytes, unless a filter has to look at each person."""
    low = 0 if filters.id_greater_than is None else max(0, filters.id_greater_than - people.first_id + 1)
    high = len(people) if filters.id_less_than is None else max(low, min(len(people), filters.id_less_than - people.first_id))
    if filters.predicates:
        total = sum(1 for _ in _matching(people, filters, range(low, high)))
    else:
        total = sum(people.visibility.count(how, low, high) for how in filters.visibilities)
    since = None if page.since is None else page.since - people.first_id
    offset = page.offset if since is None else 0
    if page.descending:
        slots: range = range(high - 1 if since is None else min(high, since) - 1, low - 1, -1)
    else:
        slots = range(low if since is None else max(low, since + 1), high)
    page_and_one = list(islice(_matching(people, filters, slots), offset, offset + page.limit + 1))
    return PeopleResult(page_and_one[: page.limit], total, more=len(page_and_one) > page.limit)


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
