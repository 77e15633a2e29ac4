"""An account to run commands against, and the commands as a user starts them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fubd.simulator import Account, SimClock, Simulator
from tests.support.process import Process, fubd


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: its exit code, and the lines it wrote."""

    code: int
    lines: list[str]
    errors: list[str]

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object it printed."""
        (line,) = self.lines
        told: dict[str, Any] = json.loads(line)
        return told


@dataclass(frozen=True, slots=True)
class World:
    """A simulated account, and the settings under which commands work on it."""

    simulator: Simulator
    settings: Mapping[str, str]
    folder: Path

    @property
    def account(self) -> Account:
        """The account."""
        return self.simulator.account

    def pass_by(self, seconds: float = 60.0) -> None:
        """Let time pass in the account: what happened before lies in the past then."""
        self.account.clock.advance(seconds)

    @asynccontextmanager
    async def running(self, *arguments: str, **settings: str) -> AsyncIterator[Process]:
        """Run a command until the block ends; a setting of "" is not set."""
        environ = {name: value for name, value in {**self.settings, **settings}.items() if value}
        async with fubd(*arguments, environ=environ, folder=self.folder) as process:
            yield process

    async def run(self, *arguments: str, **settings: str) -> Ended:
        """Run a command to its end."""
        async with self.running(*arguments, **settings) as process:
            code = await process.ended()
        return Ended(code, process.lines, process.errors)


@asynccontextmanager
async def world(database: str, folder: Path, *, people: int = 250) -> AsyncIterator[World]:
    """Serve an account until the block ends."""
    account = Account(seed=7, people=people, clock=SimClock(datetime.now(UTC)))
    simulator = Simulator(account)
    async with simulator.running() as url:
        settings = {
            "DATABASE_URL": database,
            "FUB_API_KEY": "test-api-key",
            "FUB_SYSTEM_KEY": "test-system-key",
            "FUB_API_URL": url,
        }
        yield World(simulator, settings, folder)
