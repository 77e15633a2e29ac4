"""The simulator tried as a new user would: started alone, moved from outside, watched by a receiver."""

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

PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def alone(*arguments: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the simulator in a process of its own, on a free port; gives its base URL and the process, which is ended at last."""
    command = [sys.executable, "-m", "fubd.simulator", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        assert process.stdout is not None
        told = (await process.stdout.readline()).decode()
        match = re.search(r"http://127\.0\.0\.1:\d+/v1", told)
        assert match, told
        yield match[0], process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_a_new_users_first_quarter_of_an_hour(receiver: WebhookReceiver) -> None:
    """Register a webhook, move a person, see the signed delivery, its retry after a 500, and the webhook gone after a 410."""
    async with asyncio.timeout(PATIENCE_SECONDS), alone("--people", "50", "--speed", "1200") as (url, _), HttpClient(url) as client:
        control = url.removesuffix("/v1") + "/control"
        async with HttpClient(control) as hand:
            receiver.statuses.extend([500, 200, 410])
            await client.post("webhooks", {"event": "peopleStageUpdated", "url": receiver.url})
            assert (await hand.post("move", {"id": 1010, "stage": "ACQ - Under Contract"})).json == {"moved": True}
            await receiver.wait_for(2)
            first, again = receiver.got[:2]
            assert first.body == again.body
            assert first.is_genuine()
            assert first.payload["data"] == {"stage": "ACQ - Under Contract"}
            assert (await client.get("people/1010")).json["stage"] == "ACQ - Under Contract"
            await hand.post("move", {"id": 1010, "stage": "Nurture"})
            await receiver.wait_for(3)
            while (await client.get("webhooks")).json["webhooks"]:
                pass  # the simulator has not read the answer yet
            truth = (await hand.get("truth")).json
            assert [change["stage_to"] for change in truth["changes"]] == ["ACQ - Under Contract", "Nurture"]


async def test_everything_can_be_moved_from_outside(receiver: WebhookReceiver) -> None:
    """The control API makes, edits, merges, trashes and deletes people, renames stages, sets faults, webhooks and the clock."""
    async with asyncio.timeout(PATIENCE_SECONDS), alone("--people", "50", "--speed", "0") as (url, _), HttpClient(url) as client:
        control = url.removesuffix("/v1") + "/control"
        async with HttpClient(control) as hand:
            made = (await hand.post("create", {"via": "lead_flow", "fields": {"firstName": "Ilse"}})).json["id"]
            assert (await hand.post("edit", {"id": made, "fields": {"lastName": "Tarnwick"}})).json == {"done": True}
            assert (await client.get(f"people/{made}")).json["name"] == "Ilse Tarnwick"
            assert (await hand.post("bulk", {"count": 20, "stage": "Past Client", "split": 5})).json["moved"] > 10
            assert (await hand.post("bulk", {"ids": [made], "stage": "Nurture"})).json == {"moved": 1}
            assert (await hand.post("trash", {"id": made})).json == {"moved": True}
            await hand.post("merge", {"loser": made, "winner": 1001})
            await hand.post("delete", {"id": 1002})
            assert [(await client.get(f"people/{one}")).status for one in (made, 1001, 1002)] == [404, 200, 404]
            await hand.post("rename", {"old": "Nurture", "new": "Long Nurture"})
            assert (await client.get("stages", limit=100)).json["stages"][15]["name"] == "Long Nurture"
            assert (await hand.post("faults", {"server_error": 1, "late_seconds": [1, 2]})).json["late_seconds"] == [1, 2]
            assert (await client.get("people")).status == 500
            assert (await hand.get("faults")).json["server_error"] == 1.0
            await hand.post("faults", {})
            await hand.post("script", {"endpoint": "people", "steps": ["throttled", None]})
            assert [(await client.get("people")).status for _ in range(2)] == [429, 200]
            await client.post("webhooks", {"event": "peopleUpdated", "url": receiver.url})
            await hand.post("script", {"endpoint": "deliveries", "steps": ["lost"]})
            for switch in ("kill", "revive", "hold", "release"):
                await hand.post(f"webhooks/{switch}", {})
            await hand.post("edit", {"id": 1001, "fields": {"price": 2}})
            shown = (await hand.get("webhooks")).json
            assert shown["outcomes"] == {"lost": 1}
            await hand.post("webhooks/disable", {"id": shown["webhooks"][0]["id"]})
            assert (await client.get("webhooks")).json["webhooks"][0]["status"] == "Disabled"
            before = (await hand.get("clock")).json["now"]
            after = (await hand.post("clock", {"advance": 3600, "shift": -60, "speed": 0})).json["now"]
            assert (datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds() == 3540
            assert "POST /control/move" in (await hand.get("")).json


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
async def test_a_wrong_wish_is_answered_with_words(control_url: str, what: str, body: object) -> None:
    """The control API answers 400 and says what is wrong."""
    async with HttpClient(control_url) as hand:
        reply = await hand.post(what, body)
    assert reply.status == 400
    assert reply.json["error"]


async def test_a_scenario_from_the_command_line() -> None:
    """A scenario is played from the start, and the log tells in plain words what happens."""
    async with asyncio.timeout(PATIENCE_SECONDS), alone("--people", "50", "--speed", "2000", "--scenario", "quick-stage") as (_, process):
        assert process.stdout is not None
        while "-> ACQ - Offers Made, by " not in (await process.stdout.readline()).decode():
            pass


async def test_bad_arguments() -> None:
    """A senseless number of people exits 2, and a port that is taken exits 1, in one line each."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for arguments, code in ((["--people", "0"], 2), (["--people", "5", "--port", str(taken.getsockname()[1])], 1)):
            command = [sys.executable, "-m", "fubd.simulator", *arguments]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
            said, _ = await process.communicate()
            assert process.returncode == code
            assert said.count(b"\n") == 1
