"""The checks of what leaves fubd: alerts and the heartbeat. With `--alert` a test message and a test heartbeat are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import ClientSession

from fubd.alert_receiver import SendFailed, new_session, send_alert, send_heartbeat
from fubd.commands.check.result import CheckResult, CheckStatus
from fubd.settings import Settings

_WEB_PAGE = ("<!doctype html", "<html")
_TEST_ALERT = {
    "text": "fubd: this is a test message from `fubd check --alert`. Alerts will look like this.",
    "id": 0,
    "severity": "info",
    "kind": "test",
}


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
    url = settings.alert_url.get_secret_value()
    taken, answer = await _try(lambda session: send_alert(session, url, _TEST_ALERT))
    if taken:
        return CheckResult("alerts", CheckStatus.GOOD, f"{found}; the receiver took the test message and {answer}")
    fix = "correct FUBD_ALERT_URL: the whole address that the chat tool shows, with its token"
    return CheckResult("alerts", CheckStatus.FIX, f"the receiver of FUBD_ALERT_URL did not take the test message: {answer}", fix)


async def _check_heartbeat(settings: Settings, *, send: bool) -> CheckResult:
    if settings.heartbeat_url is None:
        found = "FUBD_HEARTBEAT_URL is not set: when the whole machine is down, no one learns of it"
        fix = "set FUBD_HEARTBEAT_URL to a check of Healthchecks.io, Uptime Kuma or Better Stack"
        return CheckResult("heartbeat", CheckStatus.NOTE, found, fix)
    if not send:
        return CheckResult("heartbeat", CheckStatus.GOOD, "FUBD_HEARTBEAT_URL is set")
    url = settings.heartbeat_url.get_secret_value()
    taken, answer = await _try(lambda session: send_heartbeat(session, url))
    if taken:
        return CheckResult("heartbeat", CheckStatus.GOOD, f"FUBD_HEARTBEAT_URL is set; the monitor took a test heartbeat and {answer}")
    fix = "correct FUBD_HEARTBEAT_URL: the address that the monitor shows for a GET"
    return CheckResult("heartbeat", CheckStatus.FIX, f"the receiver of FUBD_HEARTBEAT_URL did not take the heartbeat: {answer}", fix)


async def _try(request: Callable[[ClientSession], Awaitable[str]]) -> tuple[bool, str]:
    """Send a request; return whether it was taken, and what the receiver said."""
    async with new_session() as session:
        try:
            answer = await request(session)
        except SendFailed as error:
            return False, f"{error}: {error.answer}" if error.answer else str(error)
        if answer.lower().startswith(_WEB_PAGE):
            return False, f"it answered with a web page, as a log-in or a home page does: {answer!r}"
        return True, f"answered {answer!r}" if answer else "answered nothing"
