"""The simulator as a new user sees it: a separate process, controlled from outside, with a receiver."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.simulator.http_client import HttpClient
from tests.simulator.receiver import WebhookReceiver

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Standalone:
    """The simulator as a process of its own, with clients of its two APIs."""

    process: asyncio.subprocess.Process
    api: HttpClient
    control: HttpClient

    async def line(self) -> str:
        """Return the next line of its log."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode()


@asynccontextmanager
async def standalone(*arguments: str) -> AsyncIterator[Standalone]:
    """Run the simulator as a process on a free port, with a limit on its time."""
    command = [sys.executable, "-m", "fubd.simulator", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        match = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert match, line
        async with asyncio.timeout(TIMEOUT_SECONDS), HttpClient(f"{match[0]}/v1") as api, HttpClient(f"{match[0]}/control") as control:
            yield Standalone(process, api, control)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_a_first_session(receiver: WebhookReceiver) -> None:
    """Register a webhook, move a person, see the signed delivery, its retry after a 500, and the webhook deleted by a 410."""
    async with standalone("--people", "50", "--speed", "1200") as simulator:
        receiver.statuses.extend([500, 200, 410])
        await simulator.api.post("webhooks", {"event": "peopleStageUpdated", "url": receiver.url})
        assert (await simulator.control.post("move", {"id": 1010, "stage": "ACQ - Under Contract"})).json == {"moved": True}
        await receiver.wait_for(2)
        first, again = receiver.got[:2]
        assert first.body == again.body
        assert first.is_genuine()
        assert first.payload["data"] == {"stage": "ACQ - Under Contract"}
        assert (await simulator.api.get("people/1010")).json["stage"] == "ACQ - Under Contract"
        await simulator.control.post("move", {"id": 1010, "stage": "Nurture"})
        await receiver.wait_for(3)
        while (await simulator.api.get("webhooks")).json["webhooks"]:
            pass  # the simulator has not read the receiver's answer yet
        truth = (await simulator.control.get("truth")).json
        assert [change["stage_to"] for change in truth["changes"]] == ["ACQ - Under Contract", "Nurture"]


async def test_everything_can_be_changed_by_the_control_api(receiver: WebhookReceiver) -> None:
    """The control API creates, edits, merges, trashes and deletes people, renames stages, sets faults, webhooks and the clock."""
    async with standalone("--people", "50", "--speed", "0") as simulator:
        made = (await simulator.control.post("create", {"via": "lead_flow", "fields": {"firstName": "Ilse"}})).json["id"]
        assert (await simulator.control.post("edit", {"id": made, "fields": {"lastName": "Tarnwick"}})).json == {"done": True}
        assert (await simulator.api.get(f"people/{made}")).json["name"] == "Ilse Tarnwick"
        assert (await simulator.control.post("bulk", {"count": 20, "stage": "Past Client", "split": 5})).json["moved"] > 10
        assert (await simulator.control.post("bulk", {"ids": [made], "stage": "Nurture"})).json == {"moved": 1}
        assert (await simulator.control.post("trash", {"id": made})).json == {"moved": True}
        assert (await simulator.control.post("behaviour", {"merge": "vanished"})).json["merge"] == "vanished"
        await simulator.control.post("merge", {"losers": [made], "winner": 1001})
        await simulator.control.post("delete", {"id": 1002})
        assert [(await simulator.api.get(f"people/{one}")).status for one in (made, 1001, 1002)] == [404, 200, 404]
        await simulator.control.post("rename", {"old": "Nurture", "new": "Long Nurture"})
        assert (await simulator.api.get("stages", limit=100)).json["stages"][15]["name"] == "Long Nurture"
        assert (await simulator.control.post("faults", {"server_error": 1, "late_seconds": [1, 2]})).json["late_seconds"] == [1, 2]
        assert (await simulator.api.get("people")).status == 500
        assert (await simulator.control.get("faults")).json["server_error"] == 1.0
        await simulator.control.post("faults", {})
        await simulator.control.post("script", {"endpoint": "people", "steps": ["throttled", None]})
        assert [(await simulator.api.get("people")).status for _ in range(2)] == [429, 200]
        await simulator.api.post("webhooks", {"event": "peopleUpdated", "url": receiver.url})
        await simulator.control.post("script", {"endpoint": "deliveries", "steps": ["lost"]})
        for switch in ("kill", "revive", "hold", "release"):
            await simulator.control.post(f"webhooks/{switch}", {})
        await simulator.control.post("edit", {"id": 1001, "fields": {"price": 2}})
        shown = (await simulator.control.get("webhooks")).json
        assert shown["outcomes"] == {"lost": 1}
        await simulator.control.post("webhooks/disable", {"id": shown["webhooks"][0]["id"]})
        assert (await simulator.api.get("webhooks")).json["webhooks"][0]["status"] == "Disabled"
        before = (await simulator.control.get("clock")).json["now"]
        after = (await simulator.control.post("clock", {"advance": 3600, "shift": -60, "speed": 0})).json["now"]
        assert (datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds() == 3540
        assert "POST /control/move" in (await simulator.control.get("")).json


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("move", {"id": 1, "stage": "Nurture"}),
        ("move", {"id": 1001}),
        ("move", {"id": "x", "stage": "Nurture"}),
        ("move", []),
        ("edit", {"id": 1001, "fields": 3}),
        ("faults", {"earthquake": 1}),
        ("script", {"endpoint": "people", "steps": ["earthquake"]}),
        ("webhooks/disable", {"id": 9}),
        ("clock", {"speed": "fast"}),
        ("rename", {"old": "Trash", "new": "Bin"}),
    ],
)
async def test_a_bad_command_is_answered_with_the_reason(control_url: str, what: str, body: object) -> None:
    """The control API answers 400 and says what is wrong."""
    async with HttpClient(control_url) as control:
        reply = await control.post(what, body)
    assert reply.status == 400
    assert reply.json["error"]


async def test_a_scenario_from_the_command_line() -> None:
    """A scenario is played from the start, and the log says in plain words what happens."""
    async with standalone("--people", "50", "--speed", "2000", "--scenario", "quick-stage") as simulator:
        while "-> ACQ - Offers Made, by " not in await simulator.line():
            pass


async def test_bad_arguments() -> None:
    """An impossible number of people exits 2, and a port in use exits 1, with one line each."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for arguments, code in ((["--people", "0"], 2), (["--people", "5", "--port", str(taken.getsockname()[1])], 1)):
            command = [sys.executable, "-m", "fubd.simulator", *arguments]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
            output, _ = await process.communicate()
            assert process.returncode == code
            assert output.count(b"\n") == 1
