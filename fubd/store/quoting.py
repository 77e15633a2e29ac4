"""How names and texts are written into generated SQL."""

from __future__ import annotations


def quote_identifier(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return a text as a string literal."""
    return "'" + text.replace("'", "''") + "'"
