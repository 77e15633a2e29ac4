"""The control API throws every switch while the simulator runs."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum

import pytest

from fubd.simulator import Account, ApiFault, Behaviour, DeliveryFault, Faults
from fubd.simulator.control import Control
from fubd.simulator.service import Simulator
from tests.simulator.http_client import HttpClient


def _other_than(value: object) -> object:
    if isinstance(value, StrEnum):
        return list(type(value))[-1]
    return {bool: not value, int: 9, float: 1.5, str: "customCampaignID"}[type(value)]


async def test_every_switch(account: Account) -> None:
    """Each switch is set alone and keeps the others; the answer shows them all."""
    simulator = Simulator(account)
    changed = {name: _other_than(value) for name, value in asdict(Behaviour()).items()}
    base = await simulator.start(control=Control(simulator).app())
    async with HttpClient(base.removesuffix("/v1") + "/control") as control:
        for name, value in changed.items():
            assert (await control.post("behaviour", {name: value})).json[name] == value
        assert (await control.get("behaviour")).json == changed
    await simulator.stop()
    assert asdict(simulator.behaviour) == changed


async def test_every_fault_has_a_probability(control_url: str) -> None:
    """Each fault of an API request or a delivery is set by its name."""
    names = [fault.value for fault in (*ApiFault, *DeliveryFault)]
    assert set(asdict(Faults())) == {*names, "late_seconds"}
    async with HttpClient(control_url) as control:
        assert all(value == 0.5 for name, value in (await control.post("faults", dict.fromkeys(names, 0.5))).json.items() if name in names)


async def test_oddities_accounts_keys_and_stages(control_url: str) -> None:
    """A person is malformed, a stage made and deleted, another account put behind the key, and the key made an agent's."""
    async with HttpClient(control_url) as control, HttpClient(control_url.removesuffix("/control") + "/v1") as api:
        await control.post("oddity", {"id": 1001, "kind": "null stage"})
        assert (await api.get("people/1001")).json["stage"] is None
        await control.post("oddity", {"id": 1001, "kind": None})
        assert (await api.get("people/1001")).json["stage"]
        assert (await control.post("stages/create", {"name": "Fresh"})).json["id"] > 0
        await control.post("bulk", {"ids": [1001, 1002], "stage": "Fresh"})
        assert (await control.post("stages/delete", {"name": "Fresh", "assign_to": "Lead"})).json == {"moved": 2}
        before = (await api.get("identity")).json["account"]["id"]
        await control.post("account", {"seed": 99})
        assert (await api.get("identity")).json["account"]["id"] != before
        await control.post("account", {})
        assert (await api.get("identity")).json["account"]["id"] == before
        await control.post("key", {"key": "test-api-key", "role": "agent"})
        assert (await api.get("people", limit=1)).metadata["total"] < 200
        assert (await api.get("webhooks")).status == 403
        await control.post("key", {"key": "test-api-key"})
        assert (await api.get("people")).status == 401


async def test_a_rival_deployment(control_url: str) -> None:
    """A second deployment takes the webhooks over at once."""
    async with HttpClient(control_url) as control, HttpClient(control_url.removesuffix("/control") + "/v1") as api:
        await api.post("webhooks", {"event": "peopleStageUpdated", "url": "https://ours.example.com/webhook/fub"})
        assert (await control.post("rival", {"url": "https://rival.example.com/webhook/fub"})).json == {"corrected": 1}
        assert (await api.get("webhooks")).json["webhooks"][0]["url"] == "https://rival.example.com/webhook/fub"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("behaviour", {"gravity": 1}),
        ("behaviour", {"page_limit": "many"}),
        ("behaviour", {"php_json": 1}),
        ("behaviour", {"page_limit": True}),
        ("behaviour", {"merge": "halved"}),
        ("oddity", {"id": 1001, "kind": "upside down"}),
        ("key", {"key": "new", "role": "janitor"}),
        ("rival", {"every_seconds": 60}),
        ("merge", {"losers": [1001], "winner": 1001}),
        ("stages/delete", {"name": "Trash", "assign_to": "Lead"}),
    ],
)
async def test_an_impossible_switch_is_refused(control_url: str, path: str, body: object) -> None:
    """What is unknown or of the wrong type is 400 with the reason, and changes nothing."""
    async with HttpClient(control_url) as control:
        before = (await control.get("behaviour")).json
        refused = await control.post(path, body)
        assert (refused.status, (await control.get("behaviour")).json) == (400, before)
    assert refused.json["error"]
