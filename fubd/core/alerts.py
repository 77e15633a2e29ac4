"""Alerts as text for people and as JSON for programs: changes of mode, and people who enter a watched stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from fubd.core.text import format_duration

_MAX_NAME_LENGTH = 80
_HARMLESS_LOOKALIKES = str.maketrans({"<": "\u2039", ">": "\u203a", "@": "(at)", "\uff20": "(at)", "[": "(", "]": ")", "`": "'"})
# Chat tools turn these into links by themselves: what follows a scheme, and words joined by a dot.
_SCHEME_COLON, _RATIO_SIGN = re.compile(r":(?=//)"), "\u2236"
_DOMAIN_DOT, _ONE_DOT_LEADER = re.compile(r"(?<=\w)\.(?=\w{2})"), "\u2024"
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
# Follow Up Boss's address for every account; it leads to the account of the user who is logged in.
_ANY_ACCOUNT = "app"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `content`: what happened, as JSON values; `attempts`: how often it was tried, this time included.

    The names, and that of the agent, are those last read; None for a change of mode, and for a person not read yet.
    """

    id: int
    content: Mapping[str, Any]
    attempts: int
    first_name: str | None = None
    last_name: str | None = None
    assigned_user_name: str | None = None


def alert_document(alert: Alert, *, zone: tzinfo, domain: str | None) -> dict[str, object]:
    """Return the JSON of an alert: `text` for people, the rest for programs. A repeated alert has the same `id`.

    Times in the text are written in `zone`; `domain` is the account's own in Follow Up Boss, for links.
    """
    content = alert.content
    if content["kind"] == "mode":
        severity = "critical" if content["mode"] == "failover" else "info"
        return {"text": _mode_text(content), "id": alert.id, "severity": severity, **content}
    change = _change(alert, domain)
    return {"text": f"{_stage_text(alert, zone)} {change['url']}", "id": alert.id, "severity": "info", **change}


def person_url(person_id: str, domain: str | None) -> str:
    """Return the address of a person in Follow Up Boss, at the account's own domain if that is known."""
    host = domain.lower() if domain and _SUBDOMAIN.fullmatch(domain) else _ANY_ACCOUNT
    return f"https://{host}.followupboss.com/2/people/view/{person_id}"


def _mode_text(content: Mapping[str, Any]) -> str:
    before = f" (was {content['before']})" if content["before"] else ""
    reason = str(content["reason"])
    pace = f" Polling every {format_duration(content['poll_interval_seconds'])}." if content["poll_interval_seconds"] else ""
    return f"fubd: {content['mode']}{before}. {reason[:1].upper()}{reason[1:]}.{pace}"


def _change(alert: Alert, domain: str | None) -> dict[str, object]:
    return {
        **alert.content,
        "first_name": alert.first_name,
        "last_name": alert.last_name,
        "assigned_user_name": alert.assigned_user_name,
        "url": person_url(alert.content["person_id"], domain),
    }


def _stage_text(alert: Alert, zone: tzinfo) -> str:
    content, name = alert.content, _name(alert)
    who = f"{name} ({content['person_id']})" if name else f"Person {content['person_id']}"
    origin = f", from {sanitize(content['stage_from'])}" if content["stage_from"] else ""
    assigned = f" Assigned to {sanitize(alert.assigned_user_name)}." if alert.assigned_user_name else ""
    return f"{who} entered {sanitize(content['stage_to'])}{origin}, {_when(content, zone)} (seen by {content['source']}).{assigned}"


def _name(alert: Alert) -> str:
    return sanitize(" ".join(part for part in (alert.first_name, alert.last_name) if part))


def _when(content: Mapping[str, Any], zone: tzinfo) -> str:
    at = datetime.fromisoformat(content["changed_at"]).astimezone(zone)
    if content["changed_after"] is None:
        return f"on {at:%Y-%m-%d} at {at:%H:%M:%S %Z}"
    after = datetime.fromisoformat(content["changed_after"]).astimezone(zone)
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
