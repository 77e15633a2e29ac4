"""The checks of what leaves fubd: alerts and the heartbeat. With `--alert` a test message and a test heartbeat are sent."""

from __future__ import annotations

from http import HTTPStatus

import aiohttp
from pydantic import SecretStr

from fubd.commands.check.result import CheckResult, CheckStatus
from fubd.settings import Settings

_TIMEOUT_SECONDS = 10.0
_TEST_ALERT = {"text": "fubd: this is a test message from `fubd check --alert`. Alerts will look like this.", "id": 0, "severity": "info"}


async def check_alerts(settings: Settings, *, send: bool) -> list[CheckResult]:
    """Check what is set; `send` also sends a test to each receiver."""
    return [await _check_messages(settings, send=send), await _check_heartbeat(settings, send=send)]


async def _check_messages(settings: Settings, *, send: bool) -> CheckResult:
    if settings.alert_url is None:
        found = "FUBD_ALERT_URL is not set: no one learns when webhooks fail, polling stops or nothing can be recorded"
        fix = "set FUBD_ALERT_URL to the incoming webhook of a chat tool; deploy/README.md has them"
        if send or settings.alert_stages:
            return CheckResult("alerts", CheckStatus.FIX, found, fix)
        return CheckResult("alerts", CheckStatus.NOTE, found, fix)
    stages = ", ".join(settings.alert_stages) or "none"
    found = f"FUBD_ALERT_URL is set; watched stages: {stages}"
    if not send:
        return CheckResult("alerts", CheckStatus.GOOD, f"{found}; check --alert sends a test message")
    failure = await _failure("POST", settings.alert_url, _TEST_ALERT)
    if failure is None:
        return CheckResult("alerts", CheckStatus.GOOD, f"{found}; the receiver took the test message")
    fix = "correct FUBD_ALERT_URL: the whole address that the chat tool shows, with its token"
    return CheckResult("alerts", CheckStatus.FIX, f"the receiver of FUBD_ALERT_URL did not take the test message: {failure}", fix)


async def _check_heartbeat(settings: Settings, *, send: bool) -> CheckResult:
    if settings.heartbeat_url is None:
        found = "FUBD_HEARTBEAT_URL is not set: when the whole machine is down, no one learns of it"
        fix = "set FUBD_HEARTBEAT_URL to a check of Healthchecks.io, Uptime Kuma or Better Stack"
        return CheckResult("heartbeat", CheckStatus.NOTE, found, fix)
    failure = await _failure("GET", settings.heartbeat_url, None) if send else None
    if failure is None:
        taken = "; the monitor took a test heartbeat" if send else ""
        return CheckResult("heartbeat", CheckStatus.GOOD, f"FUBD_HEARTBEAT_URL is set{taken}")
    fix = "correct FUBD_HEARTBEAT_URL: the address that the monitor shows for a GET"
    return CheckResult("heartbeat", CheckStatus.FIX, f"the receiver of FUBD_HEARTBEAT_URL did not take the heartbeat: {failure}", fix)


async def _failure(method: str, url: SecretStr, document: object) -> str | None:
    """Send a request; return why it failed, None when it did not. The URL is a secret, so it is not in the text."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)) as session,
            session.request(method, url.get_secret_value(), json=document, allow_redirects=False) as response,
        ):
            status = response.status
    except TimeoutError:
        return "no answer in time"
    except (aiohttp.ClientError, OSError) as error:
        return f"no connection ({type(error).__name__})"
    return None if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else f"status {status}"
