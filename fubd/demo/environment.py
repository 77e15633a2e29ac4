"""What the story plays in: a Postgres of its own, a simulated Follow Up Boss, and the real daemon between them, on loopback only.

The settings are environment from a mapping written here and from nothing else: no variable of the environment and no .env can lead the demo
to a real account or a real database.
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

from fubd.components import Components, build, pacing_policy
from fubd.daemon import Daemon
from fubd.demo.plan import DemoPlan
from fubd.settings import Settings, load
from fubd.simulator import Account, SimClock, Simulator
from fubd.store.dsn import parse
from fubd.store.embedded import temporary

SEED = 7
PEOPLE = 2_000

_HOST = "127.0.0.1"
_PORTS_TRIED = 5
_STOP_SECONDS = 2.0
_ROWS_A_PAGE = 1_000
_INSTANTS = ("changed_at", "changed_after", "received_at", "confirmed_at")


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """All that runs. `running` ends only when the daemon does; `url` is its status page."""

    simulator: Simulator
    settings: Settings
    components: Components
    daemon: Daemon
    running: asyncio.Task[None]
    url: str

    @property
    def account(self) -> Account:
        """The simulated account."""
        return self.simulator.account

    async def rows(self, after: int = 0) -> list[dict[str, Any]]:
        """Give every recorded row with a higher id, ascending, its instants as such. Raises Unavailable."""
        found: list[dict[str, Any]] = []
        while page := await self.components.changes.page(after, _ROWS_A_PAGE):
            found += [{**row, **{name: instant(row[name]) for name in _INSTANTS}} for row in (shown.to_dict() for shown in page)]
            after = page[-1].id
        return found


def instant(text: str | None) -> datetime | None:
    """Read an instant as a row writes it."""
    return None if text is None else datetime.fromisoformat(text)


@asynccontextmanager
async def demo_environment(plan: DemoPlan) -> AsyncIterator[DemoEnvironment]:
    """Start everything and stop it again, whatever happens between.

    Raises SettingsError when there is no embedded Postgres to start, Unavailable when it does not start.
    """
    async with _postgres() as database_url:
        # Nobody else on this machine shall be able to sign a webhook for us.
        api_key, system_key = secrets.token_hex(16), secrets.token_hex(16)
        account = Account(seed=SEED, people=PEOPLE, clock=SimClock(datetime.now(UTC)))
        simulator = Simulator(account, api_key=api_key, system_key=system_key)
        async with simulator.running() as api_url:
            given = {"DATABASE_URL": database_url, "FUB_API_URL": api_url, "FUB_API_KEY": api_key, "FUB_SYSTEM_KEY": system_key}
            async with _daemon(plan, simulator, given) as environment:
                yield environment


@asynccontextmanager
async def _postgres() -> AsyncIterator[str]:
    """Run a Postgres, started and stopped beside the loop. Told to end while it starts, it is waited for: nothing may be left behind."""
    with ExitStack() as stack:
        starting = asyncio.ensure_future(asyncio.to_thread(stack.enter_context, temporary()))
        try:
            yield await asyncio.shield(starting)
        finally:
            await asyncio.wait({starting})
            if starting.exception() is None:
                await asyncio.to_thread(stack.close)


@asynccontextmanager
async def _daemon(plan: DemoPlan, simulator: Simulator, given: dict[str, str]) -> AsyncIterator[DemoEnvironment]:
    stop = asyncio.Event()
    running: asyncio.Task[None] | None = None
    try:
        for last in (*(False,) * (_PORTS_TRIED - 1), True):
            # Follow Up Boss must be told the address before anybody listens there, so the port is chosen first.
            port = str(_free_port())
            url = f"http://{_HOST}:{port}"
            own = {"PORT": port, "FUBD_HOST": _HOST, "PUBLIC_URL": url}
            settings = load({**given, **own, **plan.settings}, env_file=None)
            components = build(settings, parse(given["DATABASE_URL"]))
            daemon = Daemon(components, poll_policy=plan.poll_policy(pacing_policy(settings)))
            running = asyncio.create_task(daemon.run(stop))
            if await _listens(daemon, running, may_be_taken=not last):
                yield DemoEnvironment(simulator, settings, components, daemon, running, url + "/")
                return
    finally:
        stop.set()
        if running is not None:
            await _ended(running)


async def _listens(daemon: Daemon, running: asyncio.Task[None], *, may_be_taken: bool) -> bool:
    """Wait until the daemon listens; False when somebody took the port meanwhile. Raises what ended it otherwise."""
    listening = asyncio.create_task(daemon.listening.wait())
    try:
        await asyncio.wait({listening, running}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        listening.cancel()
    if running.done() and not (may_be_taken and isinstance(running.exception(), OSError)):
        await running
    return not running.done()


async def _ended(running: asyncio.Task[None]) -> None:
    """Let the daemon end in good order as long as that is short; what ended it before was told already."""
    await asyncio.wait({running}, timeout=_STOP_SECONDS)
    running.cancel()
    await asyncio.wait({running}, timeout=_STOP_SECONDS)
    with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError):
        running.exception()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
