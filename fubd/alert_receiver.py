"""Requests to the receivers of alerts and heartbeats, whose URLs are secrets.

An alert is a JSON object whose `text` is the message, which many chat tools take as it is. Those that want another form are recognised by
their host, and get theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from http import HTTPStatus

import aiohttp
from yarl import URL

from fubd.backoff import parse_retry_after
from fubd.core.text import printable

_TIMEOUT_SECONDS = 5.0
# These 4xx statuses mean that the receiver is busy, not that it rejects the alert.
_BUSY_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_ANSWER_BYTES = 2_000
_ANSWER_LENGTH = 200
# Shorter parts of a URL are not secrets, and would be blanked out of ordinary words.
_SHORTEST_SECRET = 6
# Healthchecks.io answers 200 to every address that looks like one of its own (https://healthchecks.io/docs/http_api/).
_IGNORED_HEARTBEATS = ("OK (not found)", "OK (rate limited)")
# Discord takes at most 2,000 characters, Telegram 4,096; ntfy makes a file of more than 4,096 bytes.
_LONGEST_TEXT = 2_000

Document = Mapping[str, object]
_Dialect = Callable[[URL, Document], tuple[URL, Document]]


class SendFailed(Exception):
    """The receiver did not accept a message. `rejected`: it will not accept this one; otherwise it is down or busy.

    `answer`: the begin of its answer, without what the URL contains; empty when there was none.
    """

    def __init__(self, what: str, *, rejected: bool = False, retry_after_seconds: float = 0.0, answer: str = "") -> None:
        super().__init__(what)
        self.rejected = rejected
        self.retry_after_seconds = retry_after_seconds
        self.answer = answer


def new_session() -> aiohttp.ClientSession:
    """Return a session for `send_alert` and `send_heartbeat`; the caller closes it."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "fubd"})


async def send_alert(session: aiohttp.ClientSession, url: str, document: Document) -> str:
    """Post an alert in the form that its receiver takes; return the begin of the answer. Raises SendFailed."""
    address, body = in_dialect(url, document)
    return await _send(session, "POST", address, body)


async def send_heartbeat(session: aiohttp.ClientSession, url: str) -> str:
    """Send a heartbeat; return the begin of the answer. Raises SendFailed, also where a monitor takes the request and ignores it."""
    answer = await _send(session, "GET", URL(url), None)
    if answer in _IGNORED_HEARTBEATS:
        raise SendFailed("it ignores it", rejected=True, answer=answer)
    return answer


async def _send(session: aiohttp.ClientSession, method: str, url: URL, document: Document | None) -> str:
    """Send a request. Redirects are not followed: an answer must not decide where names are sent."""
    try:
        async with session.request(method, url, json=document, allow_redirects=False) as response:
            answer = _shown(url, await response.content.read(_ANSWER_BYTES))
            if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                return answer
            raise SendFailed(
                f"it answers {response.status}",
                rejected=response.status < HTTPStatus.INTERNAL_SERVER_ERROR and response.status not in _BUSY_STATUSES,
                retry_after_seconds=parse_retry_after(response.headers) or 0.0,
                answer=answer,
            )
    except TimeoutError:
        raise SendFailed(f"no answer within {_TIMEOUT_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The error's text may contain the URL, which is a secret with chat tools.
        raise SendFailed(f"no connection ({type(error).__name__})") from None


def _shown(url: URL, body: bytes) -> str:
    """Return the begin of an answer on one line; what it repeats of the URL is blanked out."""
    text = " ".join(printable(body.decode("utf-8", "replace")).split())
    for part in sorted((*url.parts, *url.query.values(), url.raw_path), key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            text = text.replace(part, "\u2026")
    return text[:_ANSWER_LENGTH]


# --- the forms that chat tools take ---


def in_dialect(url: str, document: Document) -> tuple[URL, Document]:
    """Return where and in which form to post an alert."""
    address = URL(url)
    for suffix, dialect in _DIALECTS.items():
        if f".{address.host}".endswith(f".{suffix}"):
            return dialect(address, document)
    return address, document


def _text_only(url: URL, document: Document) -> tuple[URL, Document]:
    """Slack (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks) and Google Chat, which refuses unknown keys."""
    text = str(document["text"])
    return url, {"text": escape(text, quote=False) if url.host == "hooks.slack.com" else text}


def _discord(url: URL, document: Document) -> tuple[URL, Document]:
    """See https://discord.com/developers/docs/resources/webhook#execute-webhook; an address that ends in /slack takes Slack's form."""
    if url.name == "slack":
        return url, {"text": _shortened(document)}
    return url, {"content": _shortened(document), "allowed_mentions": {"parse": []}}


def _teams(url: URL, document: Document) -> tuple[URL, Document]:
    """See https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using.

    The flow that Teams makes of its template posts each attachment. One of your own may use every other key.
    """
    card = {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.4",
        "body": [{"type": "TextBlock", "text": document["text"], "wrap": True}],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return url, {**document, "type": "message", "attachments": [attachment]}


def _telegram(url: URL, document: Document) -> tuple[URL, Document]:
    """See https://core.telegram.org/bots/api#sendmessage. The chat is `chat_id` in the address."""
    return url, {**url.query, "text": _shortened(document), "link_preview_options": {"is_disabled": True}}


def _ntfy(url: URL, document: Document) -> tuple[URL, Document]:
    """See https://docs.ntfy.sh/publish/#publish-as-json: posted to the root, with the topic. With a template ntfy takes it as it is."""
    if not url.query.keys().isdisjoint(("template", "tpl")) or len(url.parts) != len(("/", "topic")):
        return url, document
    message = {"topic": url.name, "message": _shortened(document), "priority": 4 if document["severity"] == "critical" else 3}
    return url.with_path("/").with_query(url.query), {**message, **({"click": document["url"]} if "url" in document else {})}


def _shortened(document: Document) -> str:
    text = str(document["text"])
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}\u2026"


# By the end of the host's name.
_DIALECTS: Mapping[str, _Dialect] = {
    "hooks.slack.com": _text_only,
    "chat.googleapis.com": _text_only,
    "discord.com": _discord,
    "discordapp.com": _discord,
    "logic.azure.com": _teams,
    "api.powerplatform.com": _teams,
    "webhook.office.com": _teams,
    "api.telegram.org": _telegram,
    "ntfy.sh": _ntfy,
}
