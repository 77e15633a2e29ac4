"""Requests to the receivers of alerts and heartbeats, whose URLs are secrets."""

from __future__ import annotations

from http import HTTPStatus

import aiohttp

from fubd.backoff import parse_retry_after

_TIMEOUT_SECONDS = 5.0
# These 4xx statuses mean that the receiver is busy, not that it rejects the alert.
_BUSY_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class SendFailed(Exception):
    """The receiver did not accept a message. `rejected`: it will not accept this one; otherwise it is down or busy."""

    def __init__(self, what: str, *, rejected: bool = False, retry_after_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.rejected = rejected
        self.retry_after_seconds = retry_after_seconds


def new_session() -> aiohttp.ClientSession:
    """Return a session for `send`; the caller closes it."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "fubd"})


async def send(session: aiohttp.ClientSession, method: str, url: str, document: object = None) -> None:
    """Send a request, with a JSON document unless that is None. Raises SendFailed.

    Redirects are not followed: an answer must not decide where names are sent.
    """
    try:
        async with session.request(method, url, json=document, allow_redirects=False) as response:
            if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                rejected = response.status < HTTPStatus.INTERNAL_SERVER_ERROR and response.status not in _BUSY_STATUSES
                retry_after_seconds = parse_retry_after(response.headers) or 0.0
                raise SendFailed(f"it answers {response.status}", rejected=rejected, retry_after_seconds=retry_after_seconds)
    except TimeoutError:
        raise SendFailed(f"no answer within {_TIMEOUT_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The error's text may contain the URL, which is a secret with chat tools.
        raise SendFailed(f"no connection ({type(error).__name__})") from None
