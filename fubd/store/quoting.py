"""How names and texts are written into generated SQL."""

from __future__ import annotations

import json
from datetime import datetime


def quote_identifier(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return a text as a string literal, with the escapes of `E''` where a backslash could mean something else in some sessions."""
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def quote_document(document: object) -> str:
    """Return a JSON value as a `jsonb` literal that no setting and no encoding of the session changes.

    It is ASCII. A dollar, which can only stand in a string of the value, is escaped, so nothing in it ends the dollar-quoted literal; and
    nothing else has a meaning there. Instants are written in ISO format.
    """
    text = json.dumps(document, default=_instant)
    return "$$" + text.replace("$", "\\u0024") + "$$::jsonb"


def _instant(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
