"""A simulated account and a database to run commands on, as a user starts them."""

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
class CompletedCommand:
    """A command that has ended: its exit code, the lines of stdout, and the lines of stderr."""

    code: int
    lines: list[str]
    errors: list[str]

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that it printed."""
        (line,) = self.lines
        document: dict[str, Any] = json.loads(line)
        return document


async def run_command(*arguments: str, environ: Mapping[str, str], folder: Path) -> CompletedCommand:
    """Run a command in this folder to its end, with only these settings."""
    async with fubd(*arguments, environ=environ, folder=folder) as process:
        code = await process.ended()
    return CompletedCommand(code, process.lines, process.errors)


@dataclass(frozen=True, slots=True)
class Environment:
    """A simulated account, and the settings with which commands work on it."""

    simulator: Simulator
    settings: Mapping[str, str]
    folder: Path

    @property
    def account(self) -> Account:
        """The account."""
        return self.simulator.account

    def advance(self, seconds: float = 60.0) -> None:
        """Move the account's clock on, so that what happened before lies in the past."""
        self.account.clock.advance(seconds)

    @asynccontextmanager
    async def running(self, *arguments: str, **settings: str) -> AsyncIterator[Process]:
        """Run a command until the block ends; a setting of "" is not set."""
        async with fubd(*arguments, environ=self._environ(settings), folder=self.folder) as process:
            yield process

    async def run(self, *arguments: str, **settings: str) -> CompletedCommand:
        """Run a command to its end; a setting of "" is not set."""
        return await run_command(*arguments, environ=self._environ(settings), folder=self.folder)

    def _environ(self, settings: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in {**self.settings, **settings}.items() if value}


@asynccontextmanager
async def environment(database: str, folder: Path, *, people: int = 250) -> AsyncIterator[Environment]:
    """Run a simulated account until the block ends."""
    simulator = Simulator(Account(seed=7, people=people, clock=SimClock(datetime.now(UTC))))
    async with simulator.running() as url:
        settings = {
            "DATABASE_URL": database,
            "FUB_API_KEY": "test-api-key",
            "FUB_SYSTEM_KEY": "test-system-key",
            "FUB_API_URL": url,
        }
        yield Environment(simulator, settings, folder)
