"""The checks of the public URL: whether webhooks sent to it reach fubd unchanged, and whether strangers can read names there."""

from __future__ import annotations

import re
from http import HTTPStatus

import aiohttp

from fubd.commands.check.result import CheckResult, CheckStatus
from fubd.core.vocabulary import WEBHOOK_ROUTE
from fubd.settings import Settings

_NAME = "public url"
_PAGE = "page"
# By this header the daemon knows that a request is not from this machine, also when the public URL is one of this machine.
_FORWARDED = {"X-Forwarded-For": "192.0.2.1"}
_LEADING_BYTES = 100
_TIMEOUT_SECONDS = 10.0
_MAX_METRICS_BYTES = 1024 * 1024
_FORWARD_UNCHANGED = "let the proxy or load balancer in front of fubd pass every POST to it unchanged"
# More than this command causes: each run posts once without a signature.
_MIN_FORGED = 20
_VERIFIED = ("accepted", "duplicate", "ignored", "quarantined")
_DELIVERIES = re.compile(r'^fubd_webhook_deliveries_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)

# In order: the first type that matches describes the error.
_CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid"),
    (aiohttp.ClientConnectorDNSError, "its name is unknown"),
    (TimeoutError, "no answer in time"),
    (Exception, "no connection"),
)


async def check_public_url(settings: Settings) -> list[CheckResult]:
    """Check how the public URL is reached, and who can see the page."""
    return [await _check_reach(settings), await _check_page(settings)]


async def _check_reach(settings: Settings) -> CheckResult:
    if settings.public_url is not None:
        return await _check_url(settings, settings.public_url)
    if not settings.manage_webhooks:
        found = "PUBLIC_URL is not set, and FUBD_MANAGE_WEBHOOKS is false: the webhooks are yours to manage"
        return CheckResult(_NAME, CheckStatus.NOTE, found)
    fix = "set PUBLIC_URL to the https URL at which Follow Up Boss reaches the daemon"
    return _to_fix("PUBLIC_URL is not set: the daemon cannot create or repair webhooks", fix)


async def _check_page(settings: Settings) -> CheckResult:
    """Check who can read people's names: ask the public URL for changes as a stranger would."""
    if settings.public_url is not None and await _shows_names(settings.public_url):
        found = f"anybody who knows {settings.public_url} can read people's names and stages there"
        return CheckResult(_PAGE, CheckStatus.FIX, found, "set FUBD_METRICS_TOKEN to at least 16 characters, and restart the daemon")
    if settings.metrics_token is not None:
        return CheckResult(
            _PAGE, CheckStatus.GOOD, "the page, /api, /health and /metrics want FUBD_METRICS_TOKEN as password or bearer token"
        )
    found = "only this machine can open the page and /api; /health and /metrics, which name nobody, are open to all"
    return CheckResult(_PAGE, CheckStatus.NOTE, found, "set FUBD_METRICS_TOKEN to open the page elsewhere with it as password")


async def _shows_names(public_url: str) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)) as session,
            session.get(f"{public_url}/api/changes?limit=1", headers=_FORWARDED, allow_redirects=False) as response,
        ):
            return response.status == HTTPStatus.OK and b'"changes"' in await response.content.read(_LEADING_BYTES)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return False


def _to_fix(found: str, fix: str) -> CheckResult:
    return CheckResult(_NAME, CheckStatus.FIX, found, fix)


async def _check_url(settings: Settings, public_url: str) -> CheckResult:
    """Send requests as Follow Up Boss does: no redirect is followed, and the certificate must be valid."""
    url = f"{public_url}/healthz"
    fix = "start the daemon, or correct PUBLIC_URL"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)) as session:
            async with session.get(url, allow_redirects=False) as response:
                status, body = response.status, await response.content.read(100)
            if _is_redirect(status):
                return _redirected(url, status)
            if status != HTTPStatus.OK or b"alive" not in body:
                return _to_fix(f"something other than fubd answers at {url} (status {status})", fix)
            return await _find_blocked_post(session, public_url) or await _check_signatures(session, settings, public_url)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return _to_fix(f"{url} cannot be reached ({_cause(error)})", fix)


def _is_redirect(status: int) -> bool:
    return HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST


def _redirected(url: str, status: int) -> CheckResult:
    return _to_fix(f"{url} redirects (status {status}); webhooks do not follow redirects", "set PUBLIC_URL to the target of the redirect")


async def _find_blocked_post(session: aiohttp.ClientSession, public_url: str) -> CheckResult | None:
    """Post to the webhook route without a signature: fubd answers 401 and stores nothing. Returns None when it does."""
    url = public_url + WEBHOOK_ROUTE
    try:
        async with session.post(url, data=b"{}", allow_redirects=False) as response:
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return _to_fix(f"fubd answers at {public_url}, but a POST to {url} does not reach it ({_cause(error)})", _FORWARD_UNCHANGED)
    if status == HTTPStatus.UNAUTHORIZED:
        return None
    if _is_redirect(status):
        return _redirected(url, status)
    found = f"a POST to {url} without a signature is answered with status {status}, not by fubd, which answers 401"
    if status in {HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.GONE}:
        found += ": Follow Up Boss deletes a webhook that is answered so"
    elif status < HTTPStatus.MULTIPLE_CHOICES:
        found += ": Follow Up Boss would take webhooks as delivered, and they would be lost"
    return _to_fix(found, _FORWARD_UNCHANGED)


async def _check_signatures(session: aiohttp.ClientSession, settings: Settings, public_url: str) -> CheckResult:
    """Read the daemon's metrics: if many signatures were checked and none was valid, the daemon has the wrong key."""
    good = CheckResult(_NAME, CheckStatus.GOOD, f"fubd answers at {public_url}")
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with session.get(f"{public_url}/metrics", headers=headers, allow_redirects=False) as response:
            text = await _read_bounded(response) if response.status == HTTPStatus.OK else ""
        deliveries = {outcome: float(count) for outcome, count in _DELIVERIES.findall(text)}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return good
    forged = deliveries.get("forged", 0.0)
    if forged < _MIN_FORGED or any(deliveries.get(outcome) for outcome in _VERIFIED):
        return good
    return _to_fix(
        f"fubd answers at {public_url}, but none of {forged:,.0f} requests since its start had a valid signature",
        f"set FUB_SYSTEM_KEY of the daemon to the key of the system {settings.fub_system}, and an older one as FUB_SYSTEM_KEY_PREVIOUS",
    )


async def _read_bounded(response: aiohttp.ClientResponse) -> str:
    """Return the body, cut at the size that fubd's metrics cannot reach."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_METRICS_BYTES:
            break
    return body.decode(errors="replace")


def _cause(error: Exception) -> str:
    return next(words for kind, words in _CAUSES if isinstance(error, kind))
