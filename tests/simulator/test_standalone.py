"""The simulator as a new user sees it: a separate process, controlled from outside, with a receiver."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from tests.simulator.http_client import HttpClient
from tests.simulator.receiver import WebhookReceiver

TIMEOUT_SECONDS = 20.0


@asynccontextmanager
async def standalone(*arguments: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the simulator as a process on a free port; yields its base URL and the process, and ends it afterwards."""
    command = [sys.executable, "-m", "fubd.simulator", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        match = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
        assert match, line
        yield match[0], process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_a_first_session(receiver: WebhookReceiver) -> None:
    """Register a webhook, move a person, see the signed delivery, its retry after a 500, and the webhook deleted by a 410."""
    async with asyncio.timeout(TIMEOUT_SECONDS), standalone("--people", "50", "--speed", "1200") as (url, _), HttpClient(url) as client:
        async with HttpClient(url.removesuffix("/v1") + "/control") as control:
            receiver.statuses.extend([500, 200, 410])
            await client.post("webhooks", {"event": "peopleStageUpdated", "url": receiver.url})
            assert (await control.post("move", {"id": 1010, "stage": "ACQ - Under Contract"})).json == {"moved": True}
            await receiver.wait_for(2)
            first, again = receiver.got[:2]
            assert first.body == again.body
            assert first.is_genuine()
            assert first.payload["data"] == {"stage": "ACQ - Under Contract"}
            assert (await client.get("people/1010")).json["stage"] == "ACQ - Under Contract"
            await control.post("move", {"id": 1010, "stage": "Nurture"})
            await receiver.wait_for(3)
            while (await client.get("webhooks")).json["webhooks"]:
                pass  # the simulator has not read the receiver's answer yet
            truth = (await control.get("truth")).json
            assert [change["stage_to"] for change in truth["changes"]] == ["ACQ - Under Contract", "Nurture"]


async def test_everything_can_be_changed_by_the_control_api(receiver: WebhookReceiver) -> None:
    """The control API creates, edits, merges, trashes and deletes people, renames stages, sets faults, webhooks and the clock."""
    async with asyncio.timeout(TIMEOUT_SECONDS), standalone("--people", "50", "--speed", "0") as (url, _), HttpClient(url) as client:
        async with HttpClient(url.removesuffix("/v1") + "/control") as control:
            made = (await control.post("create", {"via": "lead_flow", "fields": {"firstName": "Ilse"}})).json["id"]
            assert (await control.post("edit", {"id": made, "fields": {"lastName": "Tarnwick"}})).json == {"done": True}
            assert (await client.get(f"people/{made}")).json["name"] == "Ilse Tarnwick"
            assert (await control.post("bulk", {"count": 20, "stage": "Past Client", "split": 5})).json["moved"] > 10
            assert (await control.post("bulk", {"ids": [made], "stage": "Nurture"})).json == {"moved": 1}
            assert (await control.post("trash", {"id": made})).json == {"moved": True}
            await control.post("merge", {"loser": made, "winner": 1001})
            await control.post("delete", {"id": 1002})
            assert [(await client.get(f"people/{one}")).status for one in (made, 1001, 1002)] == [404, 200, 404]
            await control.post("rename", {"old": "Nurture", "new": "Long Nurture"})
            assert (await client.get("stages", limit=100)).json["stages"][15]["name"] == "Long Nurture"
            assert (await control.post("faults", {"server_error": 1, "late_seconds": [1, 2]})).json["late_seconds"] == [1, 2]
            assert (await client.get("people")).status == 500
            assert (await control.get("faults")).json["server_error"] == 1.0
            await control.post("faults", {})
            await control.post("script", {"endpoint": "people", "steps": ["throttled", None]})
            assert [(await client.get("people")).status for _ in range(2)] == [429, 200]
            await client.post("webhooks", {"event": "peopleUpdated", "url": receiver.url})
            await control.post("script", {"endpoint": "deliveries", "steps": ["lost"]})
            for switch in ("kill", "revive", "hold", "release"):
                await control.post(f"webhooks/{switch}", {})
            await control.post("edit", {"id": 1001, "fields": {"price": 2}})
            shown = (await control.get("webhooks")).json
            assert shown["outcomes"] == {"lost": 1}
            await control.post("webhooks/disable", {"id": shown["webhooks"][0]["id"]})
            assert (await client.get("webhooks")).json["webhooks"][0]["status"] == "Disabled"
            before = (await control.get("clock")).json["now"]
            after = (await control.post("clock", {"advance": 3600, "shift": -60, "speed": 0})).json["now"]
            assert (datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds() == 3540
            assert "POST /control/move" in (await control.get("")).json


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
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        standalone("--people", "50", "--speed", "2000", "--scenario", "quick-stage") as (_, process),
    ):
        assert process.stdout is not None
        while "-> ACQ - Offers Made, by " not in (await process.stdout.readline()).decode():
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
