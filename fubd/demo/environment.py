"""The demo's environment: a temporary Postgres, a simulated Follow Up Boss account and the real daemon, all on loopback.

The settings come only from a mapping in this module: no environment variable and no .env file can lead the demo to a real account or
database.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fubd.components import Components, build, build_daemon, pacing_policy
from fubd.daemon import Daemon
from fubd.demo.plan import DemoPlan
from fubd.poller import Poller
from fubd.settings import Settings, load
from fubd.simulator import Account, SimClock, Simulator
from fubd.store.dsn import parse
from fubd.store.embedded import temporary_server

SEED = 7
PEOPLE = 2_000

_HOST = "127.0.0.1"
_PORTS_TRIED = 5
_STOP_SECONDS = 2.0
_ROWS_A_PAGE = 1_000
_INSTANTS = ("changed_at", "changed_after", "received_at", "confirmed_at")


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """Everything that runs. `running` is the daemon's task; `url` is its status page."""

    simulator: Simulator
    settings: Settings
    components: Components
    poller: Poller
    running: asyncio.Task[None]
    url: str

    @property
    def account(self) -> Account:
        """The simulated account."""
        return self.simulator.account

    async def rows(self, after: int = 0) -> list[dict[str, Any]]:
        """Return every recorded row with a higher id, ascending, its instants as datetimes. Raises Unavailable."""
        rows: list[dict[str, Any]] = []
        while page := await self.components.changes.page(after, _ROWS_A_PAGE):
            rows += [{**row, **{name: instant(row[name]) for name in _INSTANTS}} for row in (shown.to_dict() for shown in page)]
            after = page[-1].id
        return rows


def instant(text: str | None) -> datetime | None:
    """Parse an instant of a row."""
    return None if text is None else datetime.fromisoformat(text)


@asynccontextmanager
async def demo_environment(plan: DemoPlan) -> AsyncIterator[DemoEnvironment]:
    """Start everything, and stop it again in any case.

    Raises SettingsError when the embedded Postgres is not installed, Unavailable when it does not start.
    """
    async with _postgres() as database_url:
        # Random keys, so that no other program on this machine can sign a webhook for the demo.
        api_key, system_key = secrets.token_hex(16), secrets.token_hex(16)
        account = Account(seed=SEED, people=PEOPLE, clock=SimClock(datetime.now(UTC)))
        simulator = Simulator(account, api_key=api_key, system_key=system_key)
        async with simulator.running() as api_url:
            addresses = {"DATABASE_URL": database_url, "FUB_API_URL": api_url, "FUB_API_KEY": api_key, "FUB_SYSTEM_KEY": system_key}
            async with _daemon(plan, simulator, addresses) as environment:
                yield environment


@asynccontextmanager
async def _postgres() -> AsyncIterator[str]:
    """Run a Postgres, started and stopped in a thread. When cancelled during the start, wait for it: nothing may be left behind."""
    with ExitStack() as stack:
        starting = asyncio.ensure_future(asyncio.to_thread(stack.enter_context, temporary_server()))
        try:
            yield await asyncio.shield(starting)
        finally:
            await asyncio.wait({starting})
            if starting.exception() is None:
                await asyncio.to_thread(stack.close)


@asynccontextmanager
async def _daemon(plan: DemoPlan, simulator: Simulator, addresses: dict[str, str]) -> AsyncIterator[DemoEnvironment]:
    stop = asyncio.Event()
    running: asyncio.Task[None] | None = None
    try:
        for last in (*(False,) * (_PORTS_TRIED - 1), True):
            # The webhook address must be known before the daemon listens on it, so the port is chosen first.
            port = str(_free_port())
            url = f"http://{_HOST}:{port}"
            own = {"PORT": port, "FUBD_HOST": _HOST, "PUBLIC_URL": url}
            settings = load({**addresses, **own, **plan.settings}, env_file=None)
            components = build(settings, parse(addresses["DATABASE_URL"]))
            parts = build_daemon(components, poll_policy=plan.poll_policy(pacing_policy(settings)))
            daemon = Daemon(parts)
            running = asyncio.create_task(daemon.run(stop))
            if await _is_listening(daemon, running, may_be_taken=not last):
                yield DemoEnvironment(simulator, settings, components, parts.poller, running, url + "/")
                return
    finally:
        stop.set()
        if running is not None:
            await _stop(running)


async def _is_listening(daemon: Daemon, running: asyncio.Task[None], *, may_be_taken: bool) -> bool:
    """Wait until the daemon listens; False if another program took the port first. Raises any other error of the daemon."""
    listening = asyncio.create_task(daemon.listening.wait())
    try:
        await asyncio.wait({listening, running}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        listening.cancel()
    if running.done() and not (may_be_taken and isinstance(running.exception(), OSError)):
        await running
    return not running.done()


async def _stop(running: asyncio.Task[None]) -> None:
    """Give the daemon a short time to stop, then cancel it. An error that ended it earlier was already raised."""
    await asyncio.wait({running}, timeout=_STOP_SECONDS)
    running.cancel()
    await asyncio.wait({running}, timeout=_STOP_SECONDS)
    with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError):
        running.exception()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
