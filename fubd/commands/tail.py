"""`python -m fubd tail`: follows the recorded changes live, as read from the database."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fubd.clock import SystemClock
from fubd.commands.console import Console
from fubd.commands.session import load_settings, open_pool
from fubd.commands.signals import stop_on_signals
from fubd.core.text import format_instant, format_name
from fubd.errors import Unavailable
from fubd.settings import Settings
from fubd.store import ChangeReader

_INTERVAL_SECONDS = 1.0
_LONGEST_INTERVAL_SECONDS = 30.0
_PAGE = 500
_SHOWN_AT_START = 10


def run(args: argparse.Namespace) -> int:
    """Follow the changes until Ctrl-C; 0 then."""
    return asyncio.run(_tail(load_settings(), args, Console()))


async def _tail(settings: Settings, args: argparse.Namespace, console: Console) -> int:
    async with open_pool(settings) as pool:
        stop = stop_on_signals(only_first=True)
        follower = _Follower(ChangeReader(pool), console, stage=args.stage, zone=None if args.json else settings.zone())
        await follower.begin()
        await follower.run(stop)
    return 0


class _Follower:
    """Prints each row once. `zone`: of the times in the lines, None for a JSON object a line; `stage`: only changes into or out of it."""

    def __init__(self, changes: ChangeReader, console: Console, *, stage: str | None, zone: ZoneInfo | None) -> None:
        self._changes = changes
        self._console = console
        self._stage = stage.casefold() if stage else None
        self._zone = zone
        self._after = 0

    async def begin(self) -> None:
        """Print the last few changes. Raises Unavailable."""
        self._after = await self._changes.safe_id()
        for row in reversed(await self._changes.recent(_SHOWN_AT_START)):
            if row.id <= self._after:
                self._print(row.to_dict())

    async def run(self, stop: asyncio.Event) -> None:
        """Print each new change until stopped; an outage of the database is reported once and waited out."""
        clock, interval = SystemClock(), _INTERVAL_SECONDS
        while not await clock.pause(interval, stop):
            try:
                await self._print_new()
            except Unavailable as error:
                if interval == _INTERVAL_SECONDS:
                    self._console.print_notice(f"fubd: {error}; waiting for it")
                interval = min(2 * interval, _LONGEST_INTERVAL_SECONDS)
            else:
                interval = _INTERVAL_SECONDS

    async def _print_new(self) -> None:
        while rows := await self._changes.page(self._after, _PAGE):
            for row in rows:
                self._print(row.to_dict())
            self._after = rows[-1].id

    def _print(self, row: dict[str, Any]) -> None:
        stages = [str(row[column] or "") for column in ("stage_from", "stage_to")]
        if self._stage is not None and self._stage not in map(str.casefold, stages):
            return
        if self._zone is None:
            self._console.print_json(row)
        else:
            self._console.print(_line(row, self._zone))


def _line(row: dict[str, Any], zone: ZoneInfo) -> str:
    at = format_instant(datetime.fromisoformat(row["changed_at"]), zone)
    until = "" if row["changed_after"] is None else "≤ "
    name = format_name(row["first_name"], row["last_name"])
    person = f"{row['person_id']} {name}".strip()
    agent = f"  ({row['assigned_user_name']})" if row["assigned_user_name"] else ""
    return f"{until}{at}  {person}  {row['stage_from'] or '(unknown)'} -> {row['stage_to']}  {row['source']}{agent}"
