"""What we ask of Follow Up Boss, and what its answers mean: the `FubApi` of the ports.

Every list of people asks for Trash and unclaimed people too: without that a move to Trash is invisible (observed). Parameters that FUB
does not know are ignored without a word (observed), so what comes back is checked where it can be. The token of the next page is handed
on with the same filters; `nextLink` itself is never followed, for the documentation's own samples point to another host.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar

from fubd.client.http import FubSession, Request, Response, Retryable
from fubd.core.api import (
    PERSON_FIELDS,
    Listing,
    ParsedPage,
    parse_error,
    parse_identity,
    parse_page,
    parse_person,
    parse_stages,
    parse_subscription,
    parse_subscriptions,
)
from fubd.core.observation import Reading
from fubd.core.subscriptions import Subscription
from fubd.errors import Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock, PeoplePage, PeopleQuery

MOST_PER_PAGE = 100
"""People, stages or webhooks in one answer (documented)."""
MOST_PAGES = 20
"""Of stages or webhooks; beyond 2,000 of either something is wrong."""

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")


class FubClient:
    """Follow Up Boss over one session; an async context manager. Implements `fubd.ports.FubApi`.

    `custom_fields` are the FUB field names to ask for besides the usual; `share` is the part of the rate limit that is ours; `rng` only
    jitters the waits between attempts. `system_key` None leaves the header away. Timeouts in seconds: to connect, for one attempt, and
    for a call over all its attempts (the wait for the rate limit comes on top).
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        system: str,
        system_key: str | None,
        custom_fields: tuple[str, ...],
        share: float,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        connect_timeout_seconds: float = 10.0,
        attempt_timeout_seconds: float = 30.0,
        total_timeout_seconds: float = 60.0,
    ) -> None:
        self._clock = clock
        self._custom_fields = tuple(dict.fromkeys(custom_fields))
        self._fields = ",".join(dict.fromkeys((*PERSON_FIELDS, *custom_fields)))
        self._connection = FubSession(
            base_url=base_url,
            api_key=api_key,
            system=system,
            system_key=system_key,
            share=share,
            clock=clock,
            metrics=metrics,
            rng=rng,
            connect_timeout_seconds=connect_timeout_seconds,
            attempt_timeout_seconds=attempt_timeout_seconds,
            total_timeout_seconds=total_timeout_seconds,
        )

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._connection.__aexit__(kind, error, trace)

    def fub_now(self) -> datetime:
        """Give FUB's clock: ours corrected by the skew last measured (0 before the first answer)."""
        return self._connection.skew.fub_now(self._clock.now())

    def skew_seconds(self) -> float:
        """Give our clock minus FUB's, in seconds, as last measured; 0 before the first answer."""
        return self._connection.skew.seconds()

    def calls_made(self) -> int:
        """Give how many requests were sent so far, retries included."""
        return self._connection.calls_made

    def limit_and_remaining(self) -> tuple[int | None, int | None]:
        """Give FUB's limit for a window and what is left of it, as last told; None where it told nothing."""
        return self._connection.limit_and_remaining()

    async def people(self, query: PeopleQuery) -> PeoplePage:
        """Read one page of people.

        Raises Unavailable, Refused (400 for an offset too deep, say), and ValueError for a query that FUB cannot be asked.
        """
        asked = None if query.ids is None else frozenset(query.ids)
        call = Request("people", "people", {**_people_params(query), "fields": self._fields})

        def read(body: bytes) -> ParsedPage:
            return parse_page(body, fields=self._custom_fields, asked=asked)

        page, read_at = await self._connection.request(call, self._success(read))
        return PeoplePage(page.readings, page.ids, page.unreadable, page.total, page.next, read_at)

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        """Read one person by id, Trash included; None when FUB answers 404. Second: `read_at` as in PeoplePage.

        Raises Unavailable, Refused.
        """

        def read(answer: Response) -> Reading | None:
            if answer.status == HTTPStatus.NOT_FOUND:
                # A person is marked gone on this, so it must be FUB's own word and not a proxy's.
                if parse_error(answer.body) is None:
                    raise Retryable("404, though not in its own words,")
                return None
            return parse_person(self._connection.raise_for_status(answer), fields=self._custom_fields, asked=person_id)

        return await self._connection.request(Request("person", f"people/{person_id:d}", {"fields": self._fields}), read)

    async def stages(self) -> dict[str, int]:
        """Read all stages: name to id. Raises Unavailable, Refused."""
        return dict(await self._list_all("stages", parse_stages))

    async def identity(self) -> dict[str, object]:
        """Read whose key this is: the account and the user, as FUB tells it. Never from `/me`, which tells the key as well.

        Raises Unavailable, Refused.
        """
        identity, _ = await self._connection.request(Request("identity", "identity"), self._success(parse_identity))
        return identity

    async def subscriptions(self) -> list[Subscription]:
        """Read our system's webhooks. Raises Unavailable, and Refused when the key may not (403: it is not the account owner's)."""
        found = await self._list_all("webhooks", parse_subscriptions)
        return list({subscription.id: subscription for subscription in found}.values())

    async def subscribe(self, event: str, url: str) -> Subscription:
        """Create a webhook. Raises Refused, and Unavailable, also when it may have been created: then look at `subscriptions` first."""
        call = Request("webhooks", "webhooks", method="POST", body={"event": event, "url": url}, idempotent=False)
        subscription, _ = await self._connection.request(call, self._success(parse_subscription))
        return subscription

    async def update_subscription(self, subscription_id: int, *, url: str | None = None, status: str | None = None) -> Subscription:
        """Correct a webhook's url or status (`Active`, `Disabled`) or both. Raises Unavailable, Refused."""
        body = {name: value for name, value in (("url", url), ("status", status)) if value is not None}
        call = Request("webhooks", f"webhooks/{subscription_id:d}", method="PUT", body=body)
        subscription, _ = await self._connection.request(call, self._success(parse_subscription))
        return subscription

    def _success(self, parse: Callable[[bytes], _Value]) -> Callable[[Response], _Value]:
        return lambda answer: parse(self._connection.raise_for_status(answer))

    async def _list_all(self, endpoint: str, parse: Callable[[bytes], Listing[_Item]]) -> list[_Item]:
        """Read a small collection to its end, whichever of token, total and page size tells where that is."""
        items: list[_Item] = []
        seen = 0
        token: str | None = None
        for _ in range(MOST_PAGES):
            at = {"next": token} if token is not None else {"offset": str(seen)}
            call = Request(endpoint, endpoint, {"limit": str(MOST_PER_PAGE), **at})
            page, _read_at = await self._connection.request(call, self._success(parse))
            items += page.items
            seen += page.count
            token = page.next
            whole = seen >= page.total if page.total is not None else page.count < MOST_PER_PAGE
            if page.count == 0 or (whole and token is None):
                return items
        raise Unavailable(f"Follow Up Boss lists {endpoint} without an end")


def _people_params(query: PeopleQuery) -> dict[str, str]:
    """Write a query as parameters. Raises ValueError for what must not be sent: an empty list of ids would name everyone."""
    if not 1 <= query.limit <= MOST_PER_PAGE:
        raise ValueError(f"a page holds 1 to {MOST_PER_PAGE} people")
    if query.ids is not None and not 1 <= len(query.ids) <= query.limit:
        raise ValueError("ids are at least one, and fit on the page")
    if query.updated_after is not None and query.updated_after.tzinfo is None:
        raise ValueError("updated_after is aware")
    told = {
        "limit": query.limit,
        "id": None if query.ids is None else ",".join(map(str, query.ids)),
        "sort": query.sort,
        "updatedAfter": None if query.updated_after is None else _written(query.updated_after),
        "idGreaterThan": query.id_greater_than,
        "idLessThan": query.id_less_than,
        "next": query.next,
        "offset": None if query.next is not None else query.offset,
        "includeTrash": "true",
        "includeUnclaimed": "true",
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def _written(instant: datetime) -> str:
    """Write an instant as FUB does; a fraction is cut off, which asks for a little more, never for less."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
