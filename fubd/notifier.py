"""Alerts out: tells FUBD_ALERT_URL of changes of mode and of people who enter a watched stage.

What is to be told stands in the outbox from the very transaction that recorded it, and stays there until the receiver answers 2xx. So an
alert goes out at least once, whatever ends or fails in between; a receiver that minds tells repetitions by `id`. What is of one person goes
out in order, for the next is not taken up before the one before is through. The webhook door knows nothing of all this.

While the receiver is down one alert at a time tries its luck, ever more seldom, until it answers again or the alert is days old. One that
it does not want (4xx) is tried again by itself, and holds up nobody but its own person.

Redirects are not followed: names would travel to wherever an answer says.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from fubd.core.text import format_duration
from fubd.errors import Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock

if TYPE_CHECKING:
    from fubd.store.outbox import Alert

_log = logging.getLogger("fubd.notifier")

# A look finds nothing almost always and costs one probe of an index; an alert is to be out within two seconds.
_LOOK_SECONDS = 1.0
_AT_ONCE = 40
_SIDE_BY_SIDE = 8
_ANSWER_SECONDS = 5.0
# The slowest batch takes 40 / 8 x 5 s. What is begun later than that belongs to whoever claims it next.
_CLAIM_SECONDS = 60.0
_BEGIN_WITHIN_SECONDS = 45.0
_DATABASE_RETRY_SECONDS = 3.0
_LONGEST_BACKOFF_SECONDS = 30.0
_LONGEST_REFUSED_SECONDS = 600.0
_MOST_DOUBLINGS = 10
_LONGEST_WISH_SECONDS = 600.0
_GIVEN_UP_AFTER_DAYS = 3.0
_LONGEST_NAME = 80
_TAME = str.maketrans({"<": "\u2039", ">": "\u203a", "@": "(at)", "\uff20": "(at)", "[": "(", "]": ")", "`": "'"})
# What chats turn into links by themselves: what follows a scheme, and a dot between letters.
_SCHEME, _RATIO = re.compile(r":(?=//)"), "\u2236"
_DOT_OF_AN_ADDRESS, _ONE_DOT_LEADER = re.compile(r"(?<=\w)\.(?=\w{2})"), "\u2024"

# Of the 4xx these say that it is busy, not that it does not want this one.
_BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class Outbox(Protocol):
    """Where alerts wait (`fubd.store.outbox`). Every method raises Unavailable."""

    async def claim(self, limit: int, *, for_seconds: float) -> list[Alert]:
        """Take alerts to be sent now, the oldest of each person."""

    async def settle(self, sent: Sequence[int], later: Mapping[int, float]) -> None:
        """Remove what was taken, and put off the others by so many seconds."""

    async def give_up(self, *, older_than_days: float) -> int:
        """Remove what nobody has taken for so long; gives how many those were."""


class _Failed(Exception):
    """The receiver did not take it. `refused`: it does not want this one; else it is down, and asks us to wait `wish_seconds`."""

    def __init__(self, what: str, *, refused: bool = False, wish_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.refused = refused
        self.wish_seconds = wish_seconds


@dataclass(slots=True)
class _Outcome:
    """What became of one batch. `sent`: ids that were taken; `later`: ids that were not, with the seconds until their next try.

    `failures`: how many were not taken, `down` whether one of them met a receiver that is down; `wish_seconds`: its longest wish.
    """

    sent: list[int] = field(default_factory=list)
    later: dict[int, float] = field(default_factory=dict)
    failures: int = 0
    down: bool = False
    wish_seconds: float = 0.0


class Notifier:
    """Sends what the outbox holds. `url`: FUBD_ALERT_URL. Any number of instances may run on one database."""

    def __init__(self, outbox: Outbox, clock: Clock, metrics: Metrics, *, url: str) -> None:
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._url = url
        self._unsettled: _Outcome | None = None
        self._failures = 0
        self._said: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`. Outages of either side are waited out."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "fubd"}) as session:
            while not stop.is_set():
                try:
                    wait = await self._turn(session, stop)
                except Unavailable:
                    # The database tells of itself elsewhere. What was sent meanwhile is settled when it is back.
                    wait = _DATABASE_RETRY_SECONDS
                await self._clock.pause(wait, stop)

    async def _turn(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> float:
        """Send what is due; give the seconds until the next look. Raises Unavailable."""
        await self._settle()
        alerts = await self._outbox.claim(1 if self._failures else _AT_ONCE, for_seconds=_CLAIM_SECONDS)
        if not alerts:
            return _LOOK_SECONDS
        outcome = self._unsettled = _Outcome()
        began = self._clock.monotonic()
        lanes = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def send(alert: Alert) -> None:
            async with lanes:
                if stop.is_set() or self._clock.monotonic() - began > _BEGIN_WITHIN_SECONDS:
                    outcome.later[alert.id] = 0.0
                else:
                    await self._send(session, alert, outcome)

        await asyncio.gather(*(send(alert) for alert in alerts))
        wait = self._after(outcome)
        await self._settle()
        if outcome.failures:
            await self._give_up()
        return wait

    async def _send(self, session: aiohttp.ClientSession, alert: Alert, outcome: _Outcome) -> None:
        try:
            await self._post(session, alert)
        except _Failed as error:
            self._metrics.alerts.labels("failed").inc()
            longest = _LONGEST_REFUSED_SECONDS if error.refused else _LONGEST_BACKOFF_SECONDS
            outcome.later[alert.id] = max(_backoff_seconds(alert.attempts, longest), error.wish_seconds)
            outcome.failures += 1
            outcome.down |= not error.refused
            outcome.wish_seconds = max(outcome.wish_seconds, error.wish_seconds)
            if str(error) != self._said:
                self._said = str(error)
                _log.warning("The receiver of alerts (FUBD_ALERT_URL) does not take them: %s. They are kept and tried again.", error)
        else:
            self._metrics.alerts.labels("sent").inc()
            outcome.sent.append(alert.id)

    async def _post(self, session: aiohttp.ClientSession, alert: Alert) -> None:
        try:
            async with session.post(self._url, json=document(alert), allow_redirects=False) as answer:
                if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                    refused = answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in _BUSY
                    raise _Failed(f"it answers {answer.status}", refused=refused, wish_seconds=_wish_seconds(answer.headers))
        except TimeoutError:
            raise _Failed("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their texts may hold the address, and the address is a secret of chat tools.
            raise _Failed(f"no connection ({type(error).__name__})") from None

    def _after(self, outcome: _Outcome) -> float:
        """Give the seconds until the next turn: at once while it goes well, ever longer while the receiver is down."""
        if outcome.sent:
            if self._failures:
                _log.info("The receiver of alerts takes them again.")
            self._failures, self._said = 0, None
            return 0.0
        if not outcome.down:
            return _LOOK_SECONDS
        self._failures += 1
        return max(_backoff_seconds(self._failures, _LONGEST_BACKOFF_SECONDS), outcome.wish_seconds)

    async def _settle(self) -> None:
        """Keep what became of the last batch. Raises Unavailable; then it is done by the next turn."""
        if self._unsettled is not None:
            await self._outbox.settle(self._unsettled.sent, self._unsettled.later)
            self._unsettled = None

    async def _give_up(self) -> None:
        given_up = await self._outbox.give_up(older_than_days=_GIVEN_UP_AFTER_DAYS)
        if given_up:
            self._metrics.alerts.labels("given_up").inc(given_up)
            _log.warning("Gave up %d alerts: nobody has taken them for %g days.", given_up, _GIVEN_UP_AFTER_DAYS)


def document(alert: Alert) -> dict[str, object]:
    """Give what is posted: `text` for people, the rest for programs. A repetition bears the same `id`."""
    told = alert.content
    if told["kind"] == "mode":
        severity = "critical" if told["mode"] == "failover" else "info"
        return {"text": _text_of_mode(told), "id": alert.id, "severity": severity, **told}
    names = {"first_name": alert.first_name, "last_name": alert.last_name}
    return {"text": _text_of_stage(told, alert), "id": alert.id, "severity": "info", **told, **names}


def _text_of_mode(told: Mapping[str, Any]) -> str:
    before = f" (was {told['before']})" if told["before"] else ""
    reason = str(told["reason"])
    pace = f" Polling every {format_duration(told['poll_interval_seconds'])}." if told["poll_interval_seconds"] else ""
    return f"fubd: {told['mode']}{before}. {reason[:1].upper()}{reason[1:]}.{pace}"


def _text_of_stage(told: Mapping[str, Any], alert: Alert) -> str:
    name = _plain(" ".join(part for part in (alert.first_name, alert.last_name) if part))
    who = f"{name} ({told['person_id']})" if name else f"Person {told['person_id']}"
    origin = f", from {_plain(told['stage_from'])}" if told["stage_from"] else ""
    return f"{who} entered {_plain(told['stage_to'])}{origin}, {_when(told)} (seen by {told['source']})."


def _when(told: Mapping[str, Any]) -> str:
    at = datetime.fromisoformat(told["changed_at"]).astimezone(UTC)
    if told["changed_after"] is None:
        return f"on {at:%Y-%m-%d} at {at:%H:%M:%S} UTC"
    after = datetime.fromisoformat(told["changed_after"]).astimezone(UTC)
    return f"between {after:%Y-%m-%d %H:%M:%S} and {at:%Y-%m-%d %H:%M:%S} UTC"


def _plain(text: str) -> str:
    """Give a name as a chat shows it and does nothing else with it: no mention of everybody, no link, nothing invisible.

    A lead types their own name, and a chat may read `<!channel>` or `@all` as an order, and `[you won](example.org)` or a bare address as a
    link that seems to come from us. Each sign of those is replaced by one that looks alike.
    """
    printable = "".join(character if character.isprintable() else " " for character in text)
    tame = _SCHEME.sub(_RATIO, _DOT_OF_AN_ADDRESS.sub(_ONE_DOT_LEADER, printable.translate(_TAME)))
    short = " ".join(tame.split())
    return short if len(short) <= _LONGEST_NAME else short[:_LONGEST_NAME] + "\u2026"


def _backoff_seconds(attempts: int, longest_seconds: float) -> float:
    return min(longest_seconds, 2.0 ** min(attempts - 1, _MOST_DOUBLINGS))


def _wish_seconds(headers: Mapping[str, str]) -> float:
    """Read Retry-After in seconds, 0 when absent or odd."""
    text = headers.get("Retry-After", "")
    return min(float(text), _LONGEST_WISH_SECONDS) if text.isascii() and text.isdigit() else 0.0
