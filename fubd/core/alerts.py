"""Alerts as text for people and as JSON for programs: problems, modes, people who enter a watched stage, the summary of a day."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from fubd.core.daily_summary import summary_text
from fubd.core.links import person_url
from fubd.core.text import format_count, format_duration

_MAX_NAME_LENGTH = 80
# A mode or problem that is reported later than this may be over by then.
_LATE = timedelta(minutes=5)
# What a digest names in its text, and lists in its JSON.
_NAMED_STAGES = 5
_NAMED_PEOPLE = 5
_LISTED_CHANGES = 100
_HARMLESS_LOOKALIKES = str.maketrans({"<": "\u2039", ">": "\u203a", "@": "(at)", "\uff20": "(at)", "[": "(", "]": ")", "`": "'"})
# Chat tools turn these into links by themselves: what follows a scheme, and words joined by a dot.
_SCHEME_COLON, _RATIO_SIGN = re.compile(r":(?=//)"), "\u2236"
_DOMAIN_DOT, _ONE_DOT_LEADER = re.compile(r"(?<=\w)\.(?=\w{2})"), "\u2024"


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """One event to be reported. `id`: its own in the outbox; `content`: what happened, as JSON values.

    The names, and that of the agent, are those last read; None where no person is concerned, and for a person not read yet.
    """

    id: int
    content: Mapping[str, Any]
    first_name: str | None = None
    last_name: str | None = None
    assigned_user_name: str | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """One message: about one event, or a digest of all people who entered watched stages in one commit.

    `attempts`: how often it was tried, this time included.
    """

    events: Sequence[AlertEvent]
    attempts: int

    @property
    def event_ids(self) -> list[int]:
        """Return the ids of its events."""
        return [event.id for event in self.events]


def alert_document(alert: Alert, *, zone: tzinfo, domain: str | None, now: datetime | None = None) -> dict[str, object]:
    """Return the JSON of an alert: `text` for people, the rest for programs. A repeated alert has the same `id`.

    Times in the text are written in `zone`; `domain` is the account's own in Follow Up Boss, for links. What is sent at `now`, long after
    it happened, because the receiver was down, says when that was.
    """
    document = _document(alert, zone, domain)
    return document if now is None else with_delay(document, zone=zone, now=now)


def with_delay(document: Mapping[str, object], *, zone: tzinfo, now: datetime) -> dict[str, object]:
    """Return the JSON of an alert as sent at `now`: it says when that was, if long after it happened."""
    written = document.get("at")
    if not isinstance(written, str) or now - (at := _instant(written)) < _LATE:
        return dict(document)
    return {**document, "text": f"{document['text']} (Sent late: this was {_when(at, at, zone)}.)"}


def _document(alert: Alert, zone: tzinfo, domain: str | None) -> dict[str, object]:
    event = alert.events[0]
    content = event.content
    if content["kind"] == "problem":
        return dict(content)
    if content["kind"] == "mode":
        severity = "critical" if content["mode"] == "failover" else "info"
        return {"text": _mode_text(content), "id": event.id, "severity": severity, **content}
    if content["kind"] == "summary":
        return {"text": summary_text(content, zone, sanitize), "id": event.id, "severity": "info", **content}
    changes = [_change(event, domain) for event in alert.events[:_LISTED_CHANGES]]
    if len(alert.events) == 1:
        return {"text": f"{_stage_text(event, zone)} {changes[0]['url']}", "id": event.id, "severity": "info", **changes[0]}
    count = len(alert.events)
    return {
        "text": _digest_text(alert.events, zone),
        "id": event.id,
        "severity": "info",
        "kind": "stages",
        "count": count,
        "changes": changes,
    }


def _mode_text(content: Mapping[str, Any]) -> str:
    before = f" (was {content['before']})" if content["before"] else ""
    reason = str(content["reason"])
    pace = f" Polling every {format_duration(content['poll_interval_seconds'])}." if content["poll_interval_seconds"] else ""
    return f"fubd: {content['mode']}{before}. {reason[:1].upper()}{reason[1:]}.{pace}"


def _change(event: AlertEvent, domain: str | None) -> dict[str, object]:
    return {
        **event.content,
        "first_name": event.first_name,
        "last_name": event.last_name,
        "assigned_user_name": event.assigned_user_name,
        "url": person_url(event.content["person_id"], domain),
    }


def _stage_text(event: AlertEvent, zone: tzinfo) -> str:
    content, name = event.content, _name(event)
    who = f"{name} ({content['person_id']})" if name else f"Person {content['person_id']}"
    origin = f", from {sanitize(content['stage_from'])}" if content["stage_from"] else ""
    assigned = f" Assigned to {sanitize(event.assigned_user_name)}." if event.assigned_user_name else ""
    at = _instant(content["changed_at"])
    when = _when(at if content["changed_after"] is None else _instant(content["changed_after"]), at, zone)
    return f"{who} entered {sanitize(content['stage_to'])}{origin}, {when} (seen by {content['source']}).{assigned}"


def _digest_text(events: Sequence[AlertEvent], zone: tzinfo) -> str:
    by_stage: defaultdict[str, list[AlertEvent]] = defaultdict(list)
    for event in events:
        by_stage[event.content["stage_to"]].append(event)
    stages = sorted(by_stage, key=lambda stage: -len(by_stage[stage]))
    lines = [_digest_line(stage, by_stage[stage]) for stage in stages[:_NAMED_STAGES]]
    if others := stages[_NAMED_STAGES:]:
        lines.append(
            f"{format_count(sum(len(by_stage[stage]) for stage in others), 'change')} into {format_count(len(others), 'other stage')}."
        )
    after = min(_instant(event.content["changed_after"] or event.content["changed_at"]) for event in events)
    return "\n".join((*lines, f"All {_when(after, max(_instant(event.content['changed_at']) for event in events), zone)}."))


def _digest_line(stage: str, events: Sequence[AlertEvent]) -> str:
    people = {event.content["person_id"]: _name(event) or f"person {event.content['person_id']}" for event in events}
    named = list(people.values())[:_NAMED_PEOPLE]
    more = f" and {len(people) - len(named)} more" if len(people) > len(named) else ""
    return f"{format_count(len(people), 'person')} entered {sanitize(stage)}: {', '.join(named)}{more}."


def _name(event: AlertEvent) -> str:
    return sanitize(" ".join(part for part in (event.first_name, event.last_name) if part))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _when(after: datetime, at: datetime, zone: tzinfo) -> str:
    """Return the time between the two instants in words."""
    after, at = after.astimezone(zone), at.astimezone(zone)
    if after == at:
        return f"on {at:%Y-%m-%d} at {at:%H:%M:%S %Z}"
    return f"between {after:%Y-%m-%d %H:%M:%S} and {at:%Y-%m-%d %H:%M:%S %Z}"


def sanitize(text: str) -> str:
    """Return a name that a chat tool shows and does nothing else with: no mention, no link, no invisible character.

    Leads type their own names. A chat tool may take `<!channel>` or `@all` for a command, and `[you won](example.org)` or a bare address
    for a link that seems to come from us. Each such character is replaced by one that looks like it.
    """
    printable = "".join(character if character.isprintable() else " " for character in text)
    harmless = _SCHEME_COLON.sub(_RATIO_SIGN, _DOMAIN_DOT.sub(_ONE_DOT_LEADER, printable.translate(_HARMLESS_LOOKALIKES)))
    short = " ".join(harmless.split())
    return short if len(short) <= _MAX_NAME_LENGTH else short[:_MAX_NAME_LENGTH] + "\u2026"
