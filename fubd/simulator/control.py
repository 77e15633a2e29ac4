"""The control API: JSON over HTTP under /control, to change the simulated account from outside.

`GET /control` lists the commands. None of this exists in Follow Up Boss.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from fubd.simulator.account import Account
from fubd.simulator.behaviour import Behaviour
from fubd.simulator.faults import Faults
from fubd.simulator.oddities import Oddity
from fubd.simulator.registry import ApiError
from fubd.simulator.service import Simulator

_TRUTH_LIMIT: Final = 10_000
_HELP: Final = {
    "POST /control/move": '{"id": 1001, "stage": "ACQ - Offers Made"}',
    "POST /control/bulk": '{"ids": [1001, 1002] or "count": 250, "stage": "Nurture", "split": 100}',
    "POST /control/create": '{"stage": "Lead", "via": "api" or "lead_flow", "fields": {"firstName": "Ada"}}',
    "POST /control/edit": '{"id": 1001, "fields": {"firstName": "Ada"}}',
    "POST /control/delete": '{"id": 1001}',
    "POST /control/trash": '{"id": 1001}',
    "POST /control/merge": '{"losers": [1001, 1003], "winner": 1002}',
    "POST /control/rename": '{"old": "Nurture", "new": "Long Nurture"}',
    "POST /control/stages/create": '{"name": "Nurture"}; also a name that a stage had before',
    "POST /control/stages/delete": '{"name": "Nurture", "assign_to": "Lead"}',
    "GET, POST /control/behaviour": '{"event_lag_seconds": 3, "arrays": "objects"}; switches left out stay as they are',
    "POST /control/oddity": '{"id": 1001, "kind": "null stage"}; in every answer, until "kind" is null',
    "POST /control/account": '{"seed": 8}: another account behind the owner\'s key; {} for the right one again',
    "POST /control/key": '{"key": "agent-key", "role": "agent"}; without a role the key is revoked',
    "POST /control/rival": '{"url": "https://example.com/webhook/fub", "every_seconds": 60, "rounds": 5}: a second deployment',
    "GET, POST /control/faults": '{"server_error": 0.1, "lost": 0.5}; faults left out are off',
    "POST /control/script": '{"endpoint": "people", "steps": ["server_error", null, "hang"]}; endpoint "deliveries" scripts webhooks',
    "GET /control/webhooks": "all webhooks and the last delivery attempts",
    "POST /control/webhooks/kill": "webhooks are lost from now on; also revive, hold, release",
    "POST /control/webhooks/disable": '{"id": 1}',
    "GET /control/truth": "?after=NUMBER&limit=N: what really happened",
    "GET, POST /control/clock": '{"speed": 60, "advance": 3600, "shift": -30}, any of them',
}

Command = Mapping[str, object]


class BadCommand(Exception):
    """A command that is malformed or refers to something that does not exist."""


class Control:
    """The control API of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._account = simulator.account

    def app(self) -> web.Application:
        """Return the application to serve under /control."""
        app = web.Application()
        changes: dict[str, Callable[[Command], object]] = {
            "move": self._move,
            "bulk": self._bulk,
            "create": self._create,
            "edit": self._edit,
            "delete": self._delete,
            "trash": self._trash,
            "merge": self._merge,
            "rename": self._rename,
            "stages/create": self._create_stage,
            "stages/delete": self._delete_stage,
            "behaviour": self._set_behaviour,
            "oddity": self._set_oddity,
            "account": self._set_account,
            "key": self._set_key,
            "rival": self._start_rival,
            "faults": self._set_faults,
            "script": self._script,
            "clock": self._set_clock,
            "webhooks/disable": self._disable,
            "webhooks/kill": lambda _: self._simulator.deliveries.kill(),
            "webhooks/revive": lambda _: self._simulator.deliveries.revive(),
            "webhooks/hold": lambda _: self._simulator.deliveries.hold(),
            "webhooks/release": lambda _: self._simulator.deliveries.release(),
        }
        reads: dict[str, Callable[[Command], object]] = {
            "": lambda _: _HELP,
            "/": lambda _: _HELP,
            "/behaviour": lambda _: asdict(self._simulator.behaviour),
            "/faults": lambda _: asdict(self._simulator.faults),
            "/webhooks": lambda _: self._webhooks(),
            "/truth": self._truth,
            "/clock": lambda _: self._clock(),
        }
        for path, change in changes.items():
            app.router.add_post(f"/{path}", _post_handler(change))
        for path, read in reads.items():
            app.router.add_get(path, _get_handler(read))
        return app

    # --- the account --------------------------------------------------------------------------------------------------

    def _move(self, command: Command) -> object:
        return {"moved": self._account.move(_int(command, "id"), _text(command, "stage"))}

    def _bulk(self, command: Command) -> object:
        ids = command.get("ids")
        people = [int(str(one)) for one in ids] if isinstance(ids, list) else self._account.ids[: _int(command, "count")]
        split = _int(command, "split") if "split" in command else None
        return {"moved": self._account.bulk_move(people, _text(command, "stage"), split=split)}

    def _create(self, command: Command) -> object:
        stage, via = command.get("stage", "Lead"), command.get("via", "api")
        return {"id": self._account.create(stage=str(stage), via=str(via), fields=_fields(command))}

    def _edit(self, command: Command) -> None:
        self._account.edit(_int(command, "id"), **_fields(command))

    def _delete(self, command: Command) -> None:
        self._account.delete(_int(command, "id"))

    def _trash(self, command: Command) -> object:
        return {"moved": self._account.trash(_int(command, "id"))}

    def _merge(self, command: Command) -> None:
        losers = command.get("losers")
        people = [int(str(one)) for one in losers] if isinstance(losers, list) else [_int(command, "loser")]
        self._account.merge(people, _int(command, "winner"))

    def _rename(self, command: Command) -> None:
        self._account.rename_stage(_text(command, "old"), _text(command, "new"))

    def _create_stage(self, command: Command) -> object:
        return {"id": self._account.create_stage(_text(command, "name"))}

    def _delete_stage(self, command: Command) -> object:
        return {"moved": self._account.delete_stage(_text(command, "name"), _text(command, "assign_to"))}

    # --- faults, webhooks, clock --------------------------------------------------------------------------------------

    def _set_behaviour(self, command: Command) -> object:
        self._simulator.behaviour = replace(self._simulator.behaviour, **_switches(command))
        return asdict(self._simulator.behaviour)

    def _set_oddity(self, command: Command) -> None:
        person_id, kind = _int(command, "id"), command.get("kind")
        if kind is None:
            self._simulator.conditions.oddities.pop(person_id, None)
        else:
            self._simulator.conditions.oddities[person_id] = Oddity(str(kind))

    def _set_account(self, command: Command) -> None:
        """Put another account with the same ids behind the owner's key, or the right one again."""
        if command.get("seed") is None:
            self._simulator.put_behind_key(None)
        else:
            people = self._account.people
            other = Account(seed=_int(command, "seed"), people=len(people), clock=self._simulator.clock, first_id=people.first_id)
            self._simulator.put_behind_key(other)

    def _set_key(self, command: Command) -> None:
        role = command.get("role")
        if role is None:
            self._simulator.keys.revoke(_text(command, "key"))
        else:
            self._simulator.keys.add(_text(command, "key"), str(role))

    def _start_rival(self, command: Command) -> object:
        every_seconds = _float(command, "every_seconds") if "every_seconds" in command else 60.0
        rounds = _int(command, "rounds") if "rounds" in command else 1
        return {"corrected": self._simulator.start_rival(_text(command, "url"), every_seconds=every_seconds, rounds=rounds).corrections}

    def _set_faults(self, command: Command) -> object:
        known = {one.name for one in fields(Faults)}
        unknown = sorted(command.keys() - known)
        if unknown:
            raise BadCommand(f"unknown fault: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        late = command.get("late_seconds")
        span = (float(str(late[0])), float(str(late[-1]))) if isinstance(late, list) and late else Faults().late_seconds
        chances = {name: float(str(value)) for name, value in command.items() if name != "late_seconds"}
        self._simulator.faults = Faults(**chances, late_seconds=span)
        return asdict(self._simulator.faults)

    def _script(self, command: Command) -> None:
        steps = command.get("steps")
        faults = [None if step is None else str(step) for step in steps] if isinstance(steps, list) else []
        if command.get("endpoint") == "deliveries":
            self._simulator.script_deliveries(*faults)
        else:
            self._simulator.script(_text(command, "endpoint"), *faults)

    def _disable(self, command: Command) -> None:
        webhook_id = _int(command, "id")
        for webhook in self._simulator.registry.all():
            if webhook.id == webhook_id:
                self._simulator.registry.disable(webhook)
                return
        raise BadCommand(f"there is no webhook {webhook_id}")

    def _set_clock(self, command: Command) -> object:
        clock = self._simulator.clock
        if "speed" in command:
            clock.speed = _float(command, "speed")
        if "shift" in command:
            clock.shift(_float(command, "shift"))
        if "advance" in command:
            clock.advance(_float(command, "advance"))
        return self._clock()

    # --- reading ------------------------------------------------------------------------------------------------------

    def _clock(self) -> object:
        return {"now": self._simulator.clock.now().isoformat(), "speed": self._simulator.clock.speed}

    def _webhooks(self) -> object:
        deliveries = self._simulator.deliveries
        return {
            "alive": deliveries.alive,
            "webhooks": [webhook.to_json() for webhook in self._simulator.registry.all()],
            "outcomes": dict(deliveries.outcomes),
            "attempts": [asdict(attempt) for attempt in list(deliveries.attempts)[-100:]],
        }

    def _truth(self, command: Command) -> object:
        after = _int(command, "after") if "after" in command else -1
        limit = min(_TRUTH_LIMIT, _int(command, "limit") if "limit" in command else 100)
        changes = self._simulator.truth.changes
        return {"count": len(changes), "changes": [asdict(change) for change in changes[after + 1 : after + 1 + limit]]}


def _post_handler(change: Callable[[Command], object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            command = json.loads(await request.read() or b"{}")
        except ValueError:
            command = None
        if not isinstance(command, dict):
            return _json_response({"error": "the body must be a JSON object"}, HTTPStatus.BAD_REQUEST)
        return _execute(change, command)

    return handle


def _get_handler(read: Callable[[Command], object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return _execute(read, dict(request.query))

    return handle


def _execute(run: Callable[[Command], object], command: Command) -> web.Response:
    try:
        answer = run(command)
    except (BadCommand, LookupError, ValueError, ApiError) as error:
        return _json_response({"error": str(error)}, HTTPStatus.BAD_REQUEST)
    return _json_response({"done": True} if answer is None else answer, HTTPStatus.OK)


def _json_response(answer: object, status: int) -> web.Response:
    return web.Response(
        text=json.dumps(answer, default=str, ensure_ascii=False, indent=2) + "\n", status=status, content_type="application/json"
    )


def _int(command: Command, name: str) -> int:
    try:
        return int(str(command[name]))
    except (KeyError, ValueError) as error:
        raise BadCommand(f"{name} must be a whole number") from error


def _float(command: Command, name: str) -> float:
    try:
        return float(str(command[name]))
    except ValueError as error:
        raise BadCommand(f"{name} must be a number") from error


def _text(command: Command, name: str) -> str:
    value = command.get(name)
    if not isinstance(value, str) or not value:
        raise BadCommand(f"{name} must be a non-empty string")
    return value


def _fields(command: Command) -> dict[str, object]:
    values = command.get("fields", {})
    if not isinstance(values, dict):
        raise BadCommand("fields must be an object")
    return {str(key): value for key, value in values.items()}


def _switches(command: Command) -> dict[str, Any]:
    """Return the values for the switches of `Behaviour`, in the type of their defaults. Raises BadCommand."""
    defaults: dict[str, Any] = asdict(Behaviour())
    unknown = sorted(command.keys() - defaults)
    if unknown:
        raise BadCommand(f"unknown switch: {', '.join(unknown)}; known: {', '.join(sorted(defaults))}")
    values: dict[str, Any] = {}
    for name, value in command.items():
        kind = type(defaults[name])
        accepted = (int, float) if kind is float else str if issubclass(kind, StrEnum) else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise BadCommand(f"{name} must be a value like {defaults[name]!r}")
        values[name] = kind(value)
    return values
