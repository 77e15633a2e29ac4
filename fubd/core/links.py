"""Addresses of people in Follow Up Boss: the one rule for alerts and the status page."""

from __future__ import annotations

import re

_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
# It leads to the account that the reader is logged in to.
_ANY_ACCOUNT = "app"


def people_url(domain: str | None) -> str:
    """Return what a person's id follows in their address, at the account's own domain if that is known."""
    host = domain.lower() if domain and _SUBDOMAIN.fullmatch(domain) else _ANY_ACCOUNT
    return f"https://{host}.followupboss.com/2/people/view/"


def person_url(person_id: str, domain: str | None) -> str:
    """Return the address of a person."""
    return f"{people_url(domain)}{person_id}"
