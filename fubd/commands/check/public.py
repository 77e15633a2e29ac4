"""The line on the public address: whether webhooks that are sent there reach fubd, and are fit for it."""

from __future__ import annotations

import re
from http import HTTPStatus

import aiohttp

from fubd.commands.check.finding import Finding, Status
from fubd.core.vocabulary import WEBHOOK_ROUTE
from fubd.settings import Settings

_URL_SECONDS = 10.0
_LONGEST_BYTES = 1024 * 1024
_LET_THROUGH = "let whatever stands before fubd pass every POST to it as it is"
# More than come of looking: each look knocks once without a signature.
_FORGED = 20
_VERIFIED = ("accepted", "duplicate", "ignored", "quarantined")
_DELIVERIES = re.compile(r'^fubd_webhook_deliveries_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


async def examine_public_url(settings: Settings) -> list[Finding]:
    """Go in by the public address, if it is known."""
    if settings.public_url is None:
        if not settings.manage_webhooks:
            return [
                Finding("public url", Status.NOTE, "PUBLIC_URL is not set, and FUBD_MANAGE_WEBHOOKS is off: webhooks are your own affair")
            ]
        return [
            Finding(
                "public url",
                Status.FIX,
                "PUBLIC_URL is not set: nobody sees to the webhooks",
                "set PUBLIC_URL to the https address at which Follow Up Boss reaches the daemon",
            )
        ]
    return [await _answer(settings, settings.public_url)]


async def _answer(settings: Settings, public_url: str) -> Finding:
    """Ask as Follow Up Boss would: no redirect is followed, and the certificate must be good."""
    url = f"{public_url}/healthz"
    fix = "start the daemon, or correct PUBLIC_URL"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_URL_SECONDS)) as session:
            async with session.get(url, allow_redirects=False) as answer:
                status, body = answer.status, await answer.content.read(100)
            if _is_redirect(status):
                return _leads_elsewhere(url, status)
            if status != HTTPStatus.OK or b"alive" not in body:
                return Finding("public url", Status.FIX, f"something else than fubd answers at {url} ({status})", fix)
            return await _door(session, public_url) or await _signatures(session, settings, public_url)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return Finding("public url", Status.FIX, f"{url} cannot be reached ({_told(error)})", fix)


def _is_redirect(status: int) -> bool:
    return HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST


def _leads_elsewhere(url: str, status: int) -> Finding:
    return Finding(
        "public url", Status.FIX, f"{url} leads elsewhere ({status}), where no webhook follows", "set PUBLIC_URL to where it leads"
    )


async def _door(session: aiohttp.ClientSession, public_url: str) -> Finding | None:
    """Knock where webhooks come in, without a signature: fubd answers 401 and keeps nothing of it. None when it does."""
    url = public_url + WEBHOOK_ROUTE
    try:
        async with session.post(url, data=b"{}", allow_redirects=False) as answer:
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        told = f"fubd answers at {public_url}, but a POST to {url} does not get there ({_told(error)})"
        return Finding("public url", Status.FIX, told, _LET_THROUGH)
    if status == HTTPStatus.UNAUTHORIZED:
        return None
    if _is_redirect(status):
        return _leads_elsewhere(url, status)
    told = f"a POST to {url} without a signature is answered {status}, and not by fubd, which answers 401"
    if status in {HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.GONE}:
        told += ": Follow Up Boss deletes a webhook that is answered so"
    elif status < HTTPStatus.MULTIPLE_CHOICES:
        told += ": webhooks would be taken as delivered, and lost"
    return Finding("public url", Status.FIX, told, _LET_THROUGH)


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    """Read as much as our metrics can be."""
    read = bytearray()
    async for chunk in answer.content.iter_any():
        read += chunk
        if len(read) > _LONGEST_BYTES:
            break
    return read.decode(errors="replace")


async def _signatures(session: aiohttp.ClientSession, settings: Settings, public_url: str) -> Finding:
    """Ask the daemon how signatures were: where not one was good, its key is not the one that Follow Up Boss signs with."""
    good = Finding("public url", Status.GOOD, f"fubd answers at {public_url}")
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
    try:
        async with session.get(
            f"{public_url}/metrics", headers={"Authorization": f"Bearer {token}"} if token else {}, allow_redirects=False
        ) as answer:
            text = await _beginning(answer) if answer.status == HTTPStatus.OK else ""
        counted_by = {outcome: float(count) for outcome, count in _DELIVERIES.findall(text)}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return good
    forged = counted_by.pop("forged", 0.0)
    if forged < _FORGED or any(counted_by.get(outcome) for outcome in _VERIFIED):
        return good
    return Finding(
        "public url",
        Status.FIX,
        f"fubd answers at {public_url}, but not one of {forged:,.0f} requests since its start had a good signature",
        f"set FUB_SYSTEM_KEY of the daemon to the key of the system {settings.fub_system}, and an older one as FUB_SYSTEM_KEY_PREVIOUS",
    )


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate is not good"),
    (aiohttp.ClientConnectorDNSError, "its name is not known"),
    (TimeoutError, "no answer in time"),
    (Exception, "no connection"),
)


def _told(error: Exception) -> str:
    return next(words for kind, words in _WORDS if isinstance(error, kind))
