"""The hand that moves the simulated account from outside: JSON over HTTP under /control, for whoever develops against it.

`GET /control` lists what there is. Nothing here exists in Follow Up Boss.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from http import HTTPStatus
from typing import Final

from aiohttp import web

from fubd.simulator.faults import Faults
from fubd.simulator.registry import Refusal
from fubd.simulator.service import Simulator

_TRUTH_LIMIT: Final = 10_000
_HELP: Final = {
    "POST /control/move": '{"id": 1001, "stage": "ACQ - Offers Made"}',
    "POST /control/bulk": '{"ids": [1001, 1002] or "count": 250, "stage": "Nurture", "split": 100}',
    "POST /control/create": '{"stage": "Lead", "via": "api" or "lead_flow", "fields": {"firstName": "Ada"}}',
    "POST /control/edit": '{"id": 1001, "fields": {"firstName": "Ada"}}',
    "POST /control/delete": '{"id": 1001}',
    "POST /control/trash": '{"id": 1001}',
    "POST /control/merge": '{"loser": 1001, "winner": 1002}',
    "POST /control/rename": '{"old": "Nurture", "new": "Long Nurture"}',
    "GET, POST /control/faults": '{"server_error": 0.1, "lost": 0.5}; what is not named is off',
    "POST /control/script": '{"endpoint": "people", "steps": ["server_error", null, "hang"]}; endpoint "deliveries" scripts webhooks',
    "GET /control/webhooks": "every hook and the last delivery attempts",
    "POST /control/webhooks/kill": "webhooks are lost from now on; also revive, hold, release",
    "POST /control/webhooks/disable": '{"id": 1}',
    "GET /control/truth": "?after=NUMBER&limit=N: what really happened",
    "GET, POST /control/clock": '{"speed": 60, "advance": 3600, "shift": -30}, each if wanted',
}

Told = Mapping[str, object]


class _Wrong(Exception):
    """The caller asked for something that is not there, or not in the form it wants."""


class Control:
    """The control API of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._account = simulator.account

    def app(self) -> web.Application:
        """Give the application to be served under /control."""
        app = web.Application()
        changes: dict[str, Callable[[Told], object]] = {
            "move": self._move,
            "bulk": self._bulk,
            "create": self._create,
            "edit": self._edit,
            "delete": self._delete,
            "trash": self._trash,
            "merge": self._merge,
            "rename": self._rename,
            "faults": self._set_faults,
            "script": self._script,
            "clock": self._set_clock,
            "webhooks/disable": self._disable,
            "webhooks/kill": lambda _: self._simulator.deliveries.kill(),
            "webhooks/revive": lambda _: self._simulator.deliveries.revive(),
            "webhooks/hold": lambda _: self._simulator.deliveries.hold(),
            "webhooks/release": lambda _: self._simulator.deliveries.release(),
        }
        looks: dict[str, Callable[[Told], object]] = {
            "": lambda _: _HELP,
            "/": lambda _: _HELP,
            "/faults": lambda _: asdict(self._simulator.faults),
            "/webhooks": lambda _: self._webhooks(),
            "/truth": self._truth,
            "/clock": lambda _: self._clock(),
        }
        for path, change in changes.items():
            app.router.add_post(f"/{path}", _changing(change))
        for path, look in looks.items():
            app.router.add_get(path, _looking(look))
        return app

    # --- the account --------------------------------------------------------------------------------------------------

    def _move(self, told: Told) -> object:
        return {"moved": self._account.move(_int(told, "id"), _text(told, "stage"))}

    def _bulk(self, told: Told) -> object:
        ids = told.get("ids")
        people = [int(str(one)) for one in ids] if isinstance(ids, list) else self._account.ids[: _int(told, "count")]
        split = _int(told, "split") if "split" in told else None
        return {"moved": self._account.bulk_move(people, _text(told, "stage"), split=split)}

    def _create(self, told: Told) -> object:
        stage, via = told.get("stage", "Lead"), told.get("via", "api")
        return {"id": self._account.create(stage=str(stage), via=str(via), fields=_fields(told))}

    def _edit(self, told: Told) -> None:
        self._account.edit(_int(told, "id"), **_fields(told))

    def _delete(self, told: Told) -> None:
        self._account.delete(_int(told, "id"))

    def _trash(self, told: Told) -> object:
        return {"moved": self._account.trash(_int(told, "id"))}

    def _merge(self, told: Told) -> None:
        self._account.merge(_int(told, "loser"), _int(told, "winner"))

    def _rename(self, told: Told) -> None:
        self._account.rename_stage(_text(told, "old"), _text(told, "new"))

    # --- the weather --------------------------------------------------------------------------------------------------

    def _set_faults(self, told: Told) -> object:
        known = {one.name for one in fields(Faults)}
        unknown = sorted(told.keys() - known)
        if unknown:
            raise _Wrong(f"no such fault: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        late = told.get("late_seconds")
        span = (float(str(late[0])), float(str(late[-1]))) if isinstance(late, list) and late else Faults().late_seconds
        chances = {name: float(str(value)) for name, value in told.items() if name != "late_seconds"}
        self._simulator.faults = Faults(**chances, late_seconds=span)
        return asdict(self._simulator.faults)

    def _script(self, told: Told) -> None:
        steps = told.get("steps")
        words = [None if step is None else str(step) for step in steps] if isinstance(steps, list) else []
        if told.get("endpoint") == "deliveries":
            self._simulator.script_deliveries(*words)
        else:
            self._simulator.script(_text(told, "endpoint"), *words)

    def _disable(self, told: Told) -> None:
        wanted = _int(told, "id")
        for hook in self._simulator.registry.all():
            if hook.id == wanted:
                self._simulator.registry.disable(hook)
                return
        raise _Wrong(f"there is no webhook {wanted}")

    def _set_clock(self, told: Told) -> object:
        clock = self._simulator.clock
        if "speed" in told:
            clock.speed = _float(told, "speed")
        if "shift" in told:
            clock.shift(_float(told, "shift"))
        if "advance" in told:
            clock.advance(_float(told, "advance"))
        return self._clock()

    # --- looking ------------------------------------------------------------------------------------------------------

    def _clock(self) -> object:
        return {"now": self._simulator.clock.now().isoformat(), "speed": self._simulator.clock.speed}

    def _webhooks(self) -> object:
        deliveries = self._simulator.deliveries
        return {
            "alive": deliveries.alive,
            "webhooks": [hook.shown() for hook in self._simulator.registry.all()],
            "outcomes": dict(deliveries.outcomes),
            "attempts": [asdict(attempt) for attempt in list(deliveries.attempts)[-100:]],
        }

    def _truth(self, told: Told) -> object:
        after = _int(told, "after") if "after" in told else -1
        limit = min(_TRUTH_LIMIT, _int(told, "limit") if "limit" in told else 100)
        changes = self._simulator.truth.changes
        return {"count": len(changes), "changes": [asdict(change) for change in changes[after + 1 : after + 1 + limit]]}


def _changing(change: Callable[[Told], object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            told = json.loads(await request.read() or b"{}")
        except ValueError:
            told = None
        if not isinstance(told, dict):
            return _answer({"error": "send a JSON object"}, HTTPStatus.BAD_REQUEST)
        return _do(change, told)

    return handle


def _looking(look: Callable[[Told], object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return _do(look, dict(request.query))

    return handle


def _do(what: Callable[[Told], object], told: Told) -> web.Response:
    try:
        answer = what(told)
    except (_Wrong, LookupError, ValueError, Refusal) as error:
        return _answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)
    return _answer({"done": True} if answer is None else answer, HTTPStatus.OK)


def _answer(told: object, status: int) -> web.Response:
    return web.Response(
        text=json.dumps(told, default=str, ensure_ascii=False, indent=2) + "\n", status=status, content_type="application/json"
    )


def _int(told: Told, name: str) -> int:
    try:
        return int(str(told[name]))
    except (KeyError, ValueError) as error:
        raise _Wrong(f"{name} must be a whole number") from error


def _float(told: Told, name: str) -> float:
    try:
        return float(str(told[name]))
    except ValueError as error:
        raise _Wrong(f"{name} must be a number") from error


def _text(told: Told, name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not value:
        raise _Wrong(f"{name} must be a text")
    return value


def _fields(told: Told) -> dict[str, object]:
    given = told.get("fields", {})
    if not isinstance(given, dict):
        raise _Wrong("fields must be an object")
    return {str(key): value for key, value in given.items()}
