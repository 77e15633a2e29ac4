"""Each problem begins and ends by its real cause, on the real process; those of the database and the table are in test_readiness."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fubd.simulator.oddities import Oddity
from tests.commands.environment import run_command
from tests.recorder import execute
from tests.stack import Stack, event, running_stack, sign
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

_QUICK = {
    "FUBD_POLL_INTERVAL": "1",
    "FUBD_POLL_INTERVAL_WATCH": "0.5",
    "FUBD_POLL_INTERVAL_FAILOVER": "0.5",
    "FUBD_POLL_STALE_AFTER": "5",
    "FUBD_MISSED_AFTER": "900",
    "FUBD_WEBHOOK_STALE_AFTER": "900",
}
_WITHIN_SECONDS = 60.0


async def test_each_problem_begins_and_ends_by_its_cause(database: str, tmp_path: Path) -> None:
    """Once each: with a wrong signing key, taken places, an odd person, an unreadable delivery, and a revoked key."""
    async with running_stack(database, tmp_path, people=40) as stack:
        odd, key = stack.account.ids[7], stack.environ["FUB_API_KEY"]
        taken = [stack.simulator.subscribe("peopleDeleted", f"http://127.0.0.1:1/{name}") for name in ("one", "two")]
        stack.simulator.conditions.oddities[odd] = Oddity.NULL_STAGE
        async with stack.daemon(**_QUICK) as process:
            await process.answers(f"{stack.url}/readyz")
            for number in range(3):
                body = event(f"44444444-0000-4000-8000-00000000000{number}", "Nurture", datetime.now(UTC), [odd])
                assert (await stack.post(body, signature=sign(body, "another key")))[0] == 401
            await _shows(stack, "people_unreadable", "signing_key_wrong", "subscriptions_blocked")
            assert (await stack.post(b"{}"))[0] == 200
            await _shows(stack, "people_unreadable", "quarantine", "subscriptions_blocked")
            stack.tampered = True
            await execute(database, "UPDATE fubd.delivery SET quarantine = NULL")
            stack.simulator.conditions.oddities.clear()
            stack.account.move(odd, "Nurture")
            for webhook in taken:
                stack.simulator.registry.delete(webhook)
            await _shows(stack)
            stack.simulator.keys.revoke(key)
            await _shows(stack, "key_refused", "polling_stale")
            stack.simulator.keys.add(key)
            await _shows(stack)
        begun = Counter(_problem(line) for line in process.lines if "Problem " in line and " is over" not in line)
        ended = Counter(_problem(line) for line in process.lines if "Problem " in line and " is over" in line)
    names = ("people_unreadable", "signing_key_wrong", "subscriptions_blocked", "quarantine", "key_refused")
    assert [(begun[name], ended[name]) for name in names] == [(1, 1)] * len(names)


async def test_a_problem_outlives_the_daemon_and_ends_once(database: str, tmp_path: Path) -> None:
    """Without a public URL; then without a daemon, when `status` still shows it; the next daemon continues it until it has the evidence."""
    async with running_stack(database, tmp_path, people=40) as stack:
        environ = {name: value for name, value in stack.environ.items() if name != "PUBLIC_URL"}
        async with replace(stack, environ=environ).daemon(**_QUICK) as process:
            await process.answers(f"{stack.url}/readyz")
            await _shows(stack, "subscriptions_blocked")
            await eventually(lambda: stack.fetch("SELECT FROM fubd.problem"), _WITHIN_SECONDS)
        shown = await run_command("status", "--json", environ={"DATABASE_URL": database}, folder=tmp_path)
        assert [problem["problem"] for problem in shown.json["problems"]] == ["subscriptions_blocked"]
        async with stack.daemon(**_QUICK) as process:
            await process.line("Problem subscriptions_blocked holds since ")
            await process.line("Problem subscriptions_blocked is over; ", _WITHIN_SECONDS)
            await _shows(stack)
            assert not any("Problem subscriptions_blocked:" in line for line in process.lines)


async def _shows(stack: Stack, *names: str) -> None:
    """Wait until just these problems hold, for the metric and the health document alike."""

    async def shown() -> bool:
        metrics, health = await stack.metrics(), await stack.get("/health")
        found = {
            name.removeprefix("fubd_problem{problem=").rstrip("}") for name, held in metrics.items() if "fubd_problem{" in name and held
        }
        assert found == {problem["problem"] for problem in health["problems"]} == set(names)
        return True

    await eventually(shown, _WITHIN_SECONDS)


def _problem(line: str) -> str:
    message: str = json.loads(line)["message"]
    return message.removeprefix("Problem ").split()[0].rstrip(":")
