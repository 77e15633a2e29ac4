"""Who holds the lock that one of our transactions waits for: found while it waits, because afterwards nobody knows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import tzinfo

import asyncpg

from fubd.core.text import format_instant, printable
from fubd.errors import TableRefused, Unavailable
from fubd.store import statements

_LONGEST_NAME = 40
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
# The first words of a statement. Values, which may be personal data, are no words at its beginning.
_FIRST_WORDS = re.compile(r"\s*((?:[A-Za-z_][\w.]*)(?:\s+[A-Za-z_][\w.]*){0,3})")


@asynccontextmanager
async def naming_lock_holders(find: Callable[[], Awaitable[str | None]], *, after_seconds: float) -> AsyncIterator[None]:
    """Add to the Unavailable of a block what `find` returned while it ran, after so many seconds; None: it waited for no lock."""
    looking: list[asyncio.Task[str | None]] = []
    timer = asyncio.get_running_loop().call_later(after_seconds, lambda: looking.append(asyncio.ensure_future(find())))
    try:
        yield
    except Unavailable as error:
        holders = looking[0].result() if looking and looking[0].done() else None
        if holders is None or isinstance(error, TableRefused):
            raise
        raise type(error)(f"{error}; it waited for a lock: {holders}", retry_after=error.retry_after) from None
    finally:
        # A look that has begun ends by itself: to cancel it would cost its connection.
        timer.cancel()


async def find_lock_holders(connection: asyncpg.Connection, application: str, zone: tzinfo) -> str | None:
    """Return who holds a lock for which a session of ours waits, and the statement that ends the wait; None when none waits.

    `zone`: of the times in the text.
    """
    rows = await statements.query("reads/lock_holders").fetch(connection, application=application)
    if not rows:
        return None
    ends = "; ".join(f"SELECT pg_terminate_backend({row['pid']})" for row in rows)
    return f"{', '.join(_describe(row, zone) for row in rows)}. End that transaction, or run: {ends}"


def _describe(row: asyncpg.Record, zone: tzinfo) -> str:
    application = printable(row["application"] or "no application name")[:_LONGEST_NAME]
    state = f"{row['state'] or 'in a transaction'} since {format_instant(row['since'], zone)}"
    return (
        f"session {row['pid']} ({application}, user {printable(row['user'] or 'unknown')}) holds it, {state}: {first_words(row['query'])}"
    )


def first_words(query: str | None) -> str:
    """Return the first words of a statement, without any value."""
    found = _FIRST_WORDS.match(_COMMENT.sub(" ", query or ""))
    return f"{found[1]} …" if found else "a statement that is not shown"
