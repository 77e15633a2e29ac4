"""The Follow Up Boss API: build each request and return its parsed response. Implements `fubd.ports.FubApi`.

Every list of people includes Trash and unclaimed people: without `includeTrash` a move to Trash is invisible (observed; the parameter:
https://docs.followupboss.com/reference/people-get). FUB silently ignores unknown parameters (observed), so responses are checked where
that is possible. The token of the next page is sent with the same filters; `nextLink` is never followed, because the documentation's own
samples point to another host (https://docs.followupboss.com/reference/pagination).
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar

from fubd.client.http import DEFAULT_TIMEOUTS, Credentials, FubSession, HttpTransport, Request, Response, Timeouts, open_connections
from fubd.core.api import (
    PERSON_FIELDS,
    AccountIdentity,
    Listing,
    PeoplePage,
    is_not_found,
    parse_identity,
    parse_page,
    parse_person,
    parse_stages,
    parse_subscription,
    parse_subscriptions,
)
from fubd.core.observation import Reading
from fubd.core.subscriptions import Subscription, SubscriptionList, UnusableSubscription
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock, PeopleQuery

_log = logging.getLogger("fubd.client")

MAX_PER_PAGE = 100
"""People, stages or webhooks in one response (https://docs.followupboss.com/reference/people-get)."""
MAX_PAGES = 20
"""Pages of stages or webhooks; more than 2,000 of either is an error."""

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")

_OPTIONAL_PARAMETERS: tuple[str, ...] = ("includeTrash", "includeUnclaimed")
_NEEDED = frozenset({"id", "updated", "stage", "stageId"})
"""The fields without which nothing can be said of a person."""


class FubClient:
    """A client of one Follow Up Boss account; an async context manager. Implements `fubd.ports.FubApi`.

    `custom_fields` are FUB field names to request in addition to the standard ones; `share` is our part of the rate limit; `rng` only
    jitters the waits between attempts.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: Credentials,
        custom_fields: tuple[str, ...],
        share: float,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        open_transport: Callable[[Mapping[str, str]], HttpTransport] = open_connections,
    ) -> None:
        self._clock = clock
        self._fields = tuple(dict.fromkeys((*PERSON_FIELDS, *custom_fields)))
        self._parameters = _OPTIONAL_PARAMETERS
        self._zoneless_seen = False
        self._future_seen = False
        self._session = FubSession(
            base_url=base_url,
            credentials=credentials,
            share=share,
            clock=clock,
            metrics=metrics,
            rng=rng,
            timeouts=timeouts,
            open_transport=open_transport,
        )

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.__aexit__(kind, error, trace)

    def fub_now(self) -> datetime:
        """Return FUB's clock: ours, corrected by the estimated skew (0 before the first response)."""
        return self._session.skew.fub_now(self._clock.now())

    def latest_fub_now(self) -> datetime | None:
        """Return the later of FUB's clock as estimated and ours, as one of them may be days behind; None before the first response."""
        return max(self.fub_now(), self._clock.now()) if self._session.skew.is_known else None

    def skew_seconds(self) -> float:
        """Return our clock minus FUB's, as estimated; 0 before the first response."""
        return self._session.skew.seconds()

    def calls_made(self) -> int:
        """Return how many requests were sent so far, retries included."""
        return self._session.calls_made

    def limit_and_remaining(self) -> tuple[int | None, int | None]:
        """Return FUB's limit for reading people and what remains of it, from the last response; None where it gave none."""
        return self._session.limit_and_remaining()

    async def people(self, query: PeopleQuery) -> PeoplePage:
        """Read one page of people.

        Raises Unavailable, Malformed, FubRefused (for example 400 for an offset that is too deep), and ValueError for an invalid query.
        """
        requested = None if query.ids is None else frozenset(query.ids)

        def parse(fields: tuple[str, ...], response: Response) -> PeoplePage:
            body = self._session.raise_for_status(response)
            return parse_page(body, fields=fields, read_at=response.read_at, now=self.latest_fub_now(), requested=requested)

        page = await self._list_people(_people_params(query), parse)
        if page.has_zoneless_times and not self._zoneless_seen:
            self._zoneless_seen = True
            _log.warning("Follow Up Boss sends times of people without a time zone; they are taken as UTC, as it documents them")
        if page.has_future_times and not self._future_seen:
            self._future_seen = True
            _log.warning("Follow Up Boss dates changes of people in the future; they are taken as of the moment at which they are read")
        return page

    async def _list_people(self, params: dict[str, str], parse: Callable[[tuple[str, ...], Response], PeoplePage]) -> PeoplePage:
        """Request a list. Those of our optional parameters that FUB refuses by name are left out, from then on."""
        while True:
            optional = self._parameters
            try:
                return await self._with_fields("people", "people", {**params, **dict.fromkeys(optional, "true")}, parse)
            except FubRefused as refusal:
                self._parameters = tuple(name for name in optional if name.lower() not in _words_of(refusal))
                if self._parameters == optional:
                    raise
                _log.warning("Follow Up Boss refuses a parameter of lists, so it is no longer sent: %s", refusal)

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        """Read one person by id, Trash included; None when FUB answers 404 in its own words. Also returns `read_at`, as in PeoplePage.

        Raises Unavailable, Malformed, FubRefused.
        """

        def parse(fields: tuple[str, ...], response: Response) -> tuple[Reading | None, datetime]:
            if response.status == HTTPStatus.NOT_FOUND:
                # A 404 marks the person as deleted, so it must come from FUB and not from a gateway.
                if not is_not_found(response.body):
                    raise Malformed("a 404 that is not Follow Up Boss's own")
                return None, response.read_at
            body = self._session.raise_for_status(response)
            reading = parse_person(body, fields=fields, read_at=response.read_at, now=self.latest_fub_now(), requested=person_id)
            return reading, response.read_at

        return await self._with_fields("person", f"people/{person_id:d}", {}, parse)

    async def _with_fields(
        self, endpoint: str, path: str, params: dict[str, str], parse: Callable[[tuple[str, ...], Response], _Value]
    ) -> _Value:
        """Send the request with our fields. Those that FUB refuses with 400 and can be done without are left out, from then on."""
        fields = self._fields
        first: FubRefused | None = None
        while True:
            request = Request(endpoint, path, {**params, "fields": ",".join(fields)} if fields else params)
            custom = tuple(name for name in fields if name not in PERSON_FIELDS)
            try:
                value, _ = await self._session.request(request, partial(parse, custom))
            except FubRefused as refusal:
                first = first or refusal
                fields, before = _without_refused(fields, refusal), fields
                if fields == before:
                    raise first from None
                continue
            if first is not None:
                refused = ", ".join(name for name in self._fields if name not in fields)
                _log.warning("Follow Up Boss refuses the fields %s, so they are no longer requested: %s", refused, first)
                self._fields = fields
            return value

    async def stages(self) -> dict[str, int]:
        """Read all stages; return each id by name. Raises Unavailable, FubRefused."""
        return dict(await self._list_all("stages", parse_stages))

    async def identity(self) -> AccountIdentity | None:
        """Read the account of the API key; None when the response does not show it. Not from `/me`, which contains the key (observed).

        Raises Unavailable, FubRefused, Malformed.
        """
        identity, _ = await self._session.request(Request("identity", "identity"), self._parse_success(parse_identity))
        return identity

    async def subscriptions(self) -> SubscriptionList:
        """Read our system's webhooks. Raises Unavailable, and FubRefused (403) when the key is not the account owner's.

        A system sees only its own webhooks (https://docs.followupboss.com/reference/webhooks-guide).
        """
        listed = await self._list_all("webhooks", parse_subscriptions)
        usable = {(one.id, one.event): one for one in listed if isinstance(one, Subscription)}
        return SubscriptionList(tuple(usable.values()), tuple(one for one in listed if isinstance(one, UnusableSubscription)))

    async def subscribe(self, event: str, url: str) -> Subscription:
        """Create a webhook. Raises FubRefused, and Unavailable.

        After Unavailable it may exist nevertheless: read `subscriptions` before trying again.
        """
        request = Request("webhooks", "webhooks", method="POST", body={"event": event, "url": url}, idempotent=False)
        subscription, _ = await self._session.request(request, self._parse_success(parse_subscription))
        return subscription

    async def update_subscription(self, subscription_id: int, *, url: str | None = None, status: str | None = None) -> Subscription | None:
        """Change a webhook's URL, its status (`Active` or `Disabled`) or both. Return it; None where FUB answers without a body.

        Raises Unavailable, FubRefused.
        """
        body = {name: value for name, value in (("url", url), ("status", status)) if value is not None}
        request = Request("webhooks", f"webhooks/{subscription_id:d}", method="PUT", body=body)
        subscription, _ = await self._session.request(
            request, self._parse_success(lambda answer: parse_subscription(answer) if answer else None)
        )
        return subscription

    def _parse_success(self, parse: Callable[[bytes], _Value]) -> Callable[[Response], _Value]:
        return lambda response: parse(self._session.raise_for_status(response))

    async def _list_all(self, endpoint: str, parse: Callable[[bytes], Listing[_Item]]) -> list[_Item]:
        """Read a small collection to its end, which the token, the total or the page size shows."""
        items: list[_Item] = []
        known: set[_Item] = set()
        seen = 0
        token: str | None = None
        for _ in range(MAX_PAGES):
            position = {"next": token} if token is not None else {"offset": str(seen)}
            request = Request(endpoint, endpoint, {"limit": str(MAX_PER_PAGE), **position})
            page, _read_at = await self._session.request(request, self._parse_success(parse))
            items += page.items
            seen += page.count
            token = page.next
            is_complete = seen >= page.total if page.total is not None else page.count < MAX_PER_PAGE
            may_continue = token is not None or page.next_is_unusable or not is_complete
            # Where the way to a next page cannot be used, offsets lead on; a page of nothing new is the end, or they are ignored.
            if page.count == 0 or not may_continue or (page.next_is_unusable and known.issuperset(page.items)):
                return items
            known.update(page.items)
        raise Unavailable(f"Follow Up Boss lists more than {MAX_PAGES} pages of {endpoint}")


def _without_refused(fields: tuple[str, ...], refusal: FubRefused) -> tuple[str, ...]:
    """Return the fields without those that the refusal names, custom ones first; without all custom ones when it names none.

    None at all when it names the parameter itself: FUB then sends what it sends by default.
    """
    if refusal.status != HTTPStatus.BAD_REQUEST:
        return fields
    words = _words_of(refusal)
    optional = [name for name in fields if name not in _NEEDED]
    custom = [name for name in optional if name not in PERSON_FIELDS]
    named = [[name for name in names if name.lower() in words] for names in (custom, optional)]
    refused = named[0] or named[1] or custom or (fields if "fields" in words else ())
    return tuple(name for name in fields if name not in refused)


def _words_of(refusal: FubRefused) -> set[str]:
    """Return the words of a refusal with 400 in lower case, none of any other."""
    return set(re.findall(r"\w+", str(refusal).lower())) if refusal.status == HTTPStatus.BAD_REQUEST else set()


def _people_params(query: PeopleQuery) -> dict[str, str]:
    """Return the query's URL parameters. Raises ValueError for an invalid query: an empty list of ids would return everyone."""
    if not 1 <= query.limit <= MAX_PER_PAGE:
        raise ValueError(f"limit must be between 1 and {MAX_PER_PAGE}")
    if query.ids is not None and not 1 <= len(query.ids) <= query.limit:
        raise ValueError("ids must hold at least one id and at most `limit`")
    if query.updated_after is not None and query.updated_after.tzinfo is None:
        raise ValueError("updated_after must have a time zone")
    params = {
        "limit": query.limit,
        "id": None if query.ids is None else ",".join(map(str, query.ids)),
        "sort": query.sort,
        "updatedAfter": None if query.updated_after is None else _format_instant(query.updated_after),
        "idGreaterThan": query.id_greater_than,
        "idLessThan": query.id_less_than,
        "next": query.next,
        "offset": None if query.next is not None else query.offset,
    }
    return {name: str(value) for name, value in params.items() if value is not None}


def _format_instant(instant: datetime) -> str:
    """Format an instant as FUB does. Fractions are cut off, so `updatedAfter` can only return too much, never too little."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
