"""`python -m fubd status`: what the database knows of both sources, whether or not anything of fubd runs."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fubd.commands.console import Screen, ago, instant, moment, named, share
from fubd.commands.session import configured, reading
from fubd.core.freshness import source_status
from fubd.core.text import format_count, format_duration
from fubd.core.vocabulary import HEALTHY
from fubd.ports import ModeRecord
from fubd.settings import Settings
from fubd.store import ChangeReader, Pool, StateStore, StatusReader
from fubd.store.status import EmptyDatabase, StatusSettings, StatusSummary

_LAST_CHANGES = 10


def run(args: argparse.Namespace) -> int:
    """Show the state; 0 when both sources are healthy, 1 when one is stale."""
    settings = configured()
    return asyncio.run(_status(settings, args, Screen()))


async def _status(settings: Settings, args: argparse.Namespace, screen: Screen) -> int:
    try:
        async with reading(settings) as pool:
            status = await _look(pool)
    except EmptyDatabase as nothing:
        screen.note(f"fubd: {nothing}")
        status = _nothing_yet(settings)
    if args.json:
        screen.json(status.document())
    else:
        _show(status, screen)
    return 0 if status.healthy else 1


@dataclass(frozen=True, slots=True)
class _Status:
    """One look at the database. `blind_seconds`: of this day (UTC), None before the first complete poll."""

    known: StatusSummary
    state: StatusSettings
    mode: ModeRecord | None
    blind_seconds: float | None
    changes: list[dict[str, Any]]

    @property
    def statuses(self) -> dict[str, str]:
        """The word for each source, by the settings that the daemon last started with."""
        known, state = self.known, self.state
        return {
            "webhook": source_status("webhook", known.webhook_heard, state.now, stale_after_seconds=state.webhook_stale_after),
            "polling": source_status("polling", known.polling_heard, state.now, stale_after_seconds=state.polling_stale_after),
        }

    @property
    def healthy(self) -> bool:
        """Whether neither source is stale."""
        return set(self.statuses.values()) == {HEALTHY}

    @property
    def somebody_polls(self) -> bool:
        """Whether an instance holds the lease."""
        return self.state.polled_until is not None and self.state.polled_until > self.state.now

    def sentence(self) -> str:
        """Say in one sentence how today goes."""
        known = self.known
        today = known.webhook_today + known.polling_today
        told = [format_count(today, "change"), f"{known.webhook_today:,} by webhook", f"{known.polling_today:,} by polling"]
        told.append("never polled yet" if self.blind_seconds is None else f"blind for {format_duration(round(self.blind_seconds))}")
        if known.oldest is not None:
            told.append(f"everyone verified within {format_duration(max(1, round((self.state.now - known.oldest).total_seconds())))}")
        return f"Today: {', '.join(told)}"

    def document(self) -> dict[str, object]:
        """Give it as JSON values, named as in `/health` where that tells the same."""
        known, mode = self.known, self.mode
        heard = {"webhook": known.webhook_heard, "polling": known.polling_heard}
        changed = {"webhook": known.webhook_change, "polling": known.polling_change}
        today = {"webhook": known.webhook_today, "polling": known.polling_today}
        return {
            "healthy": self.healthy,
            "sentence": self.sentence(),
            "mode": None if mode is None else mode.mode,
            "reason": None if mode is None else mode.reason,
            "since": None if mode is None else mode.since,
            "poll_interval_seconds": None if mode is None else mode.delay_seconds,
            "somebody_polls": self.somebody_polls,
            "coverage": known.coverage,
            "sources": {
                source: {
                    "status": status,
                    "last_heard": heard[source],
                    "last_change": changed[source],
                    "records_today": today[source],
                }
                for source, status in self.statuses.items()
            },
            # Only Follow Up Boss knows them, and it is not asked here.
            "subscriptions": None,
            "completeness": {"ratio": known.completeness, "people": known.people, "oldest": known.oldest},
            "blind_seconds_today": self.blind_seconds,
            "pending": known.hints,
            "quarantined": known.quarantined,
            "changes": self.changes,
        }


async def _look(pool: Pool) -> _Status:
    reader = StatusReader(pool)
    state = await reader.settings()
    midnight = state.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return _Status(
        known=await reader.summary(),
        state=state,
        mode=await StateStore(pool).mode(),
        blind_seconds=await reader.blind_seconds(midnight, state.now),
        changes=[row.to_dict() for row in await ChangeReader(pool).recent(_LAST_CHANGES)],
    )


def _nothing_yet(settings: Settings) -> _Status:
    """Give what there is to see before anything of fubd ever ran: nothing is known, so both sources are stale."""
    state = StatusSettings(datetime.now(UTC), settings.webhook_stale_after_seconds, settings.poll_stale_after_seconds, None)
    known = StatusSummary(None, None, 0, 0, None, None, None, None, 0, None, 0, 0, 0)
    return _Status(known=known, state=state, mode=None, blind_seconds=None, changes=[])


def _show(status: _Status, screen: Screen) -> None:
    known, now = status.known, status.state.now
    screen.tell(status.sentence(), "bold green" if status.healthy else "bold yellow")
    screen.say()
    words = status.statuses
    screen.table(
        ("source", "status", "last heard", "last change", "today"),
        (
            ("webhook", words["webhook"], ago(known.webhook_heard, now), instant(known.webhook_change), known.webhook_today),
            ("polling", words["polling"], ago(known.polling_heard, now), instant(known.polling_change), known.polling_today),
        ),
    )
    screen.say()
    screen.facts(_facts(status, now))
    if status.changes:
        screen.say()
        screen.table(
            ("row", "person", "from", "to", "changed at", "seen by", "confirmed by"),
            [
                (
                    row["id"], f"{row['person_id']} {named(row['first_name'], row['last_name'])}".strip(), row["stage_from"] or "-",
                    row["stage_to"], moment(datetime.fromisoformat(row["changed_at"]), now), row["source"], row["confirmed_by"] or "-",
                )
                for row in status.changes
            ],
        )  # fmt: skip


def _facts(status: _Status, now: datetime) -> list[tuple[str, str]]:
    known, mode = status.known, status.mode
    if mode is None:
        facts = [("mode", "none was decided yet")]
    else:
        facts = [
            ("mode", f"{mode.mode} for {format_duration(max(0.0, round((now - mode.since).total_seconds())))}: {mode.reason}"),
            ("polled", f"every {format_duration(mode.delay_seconds)}" if mode.delay_seconds else "at once"),
        ]
    facts.append(("polled by", _who_polls(status, now)))
    facts.append(("coverage", f"all that changed before {instant(known.coverage)} is recorded" if known.coverage else "nothing yet"))
    if known.completeness is None:
        facts.append(("completeness", "not measured yet"))
    else:
        oldest = "" if known.oldest is None else f", the longest unverified was read {ago(known.oldest, now)}"
        facts.append(("completeness", f"{share(known.completeness)}, measured over {format_count(known.people, 'person')}{oldest}"))
    facts.append(("subscriptions", "not known to the database: `python -m fubd check` asks Follow Up Boss"))
    facts.append(("still to be read", format_count(known.hints, "person")))
    facts.append(
        ("quarantined", format_count(known.quarantined, "delivery") + (": see `python -m fubd replay`" if known.quarantined else ""))
    )
    return facts


def _who_polls(status: _Status, now: datetime) -> str:
    if status.somebody_polls:
        return "an instance at work"
    until = status.state.polled_until
    return "no instance now" if until is None else f"no instance now, the last one until {ago(until, now)}"
