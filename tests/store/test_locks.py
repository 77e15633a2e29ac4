"""The session that holds a lock for which fubd waits is named, without a word of what its statement says about people."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from fubd.errors import Interrupted
from fubd.store import Pool
from fubd.store.dsn import parse
from fubd.store.locks import first_words


async def test_the_session_that_holds_a_lock_is_named(database: str) -> None:
    """Number, program, user, state, since when in the office's time, first words of the statement, and the statement that ends the wait."""
    dsn = parse(database)
    owner = await asyncpg.connect(**dsn.connect_arguments() | {"server_settings": {"application_name": "table editor"}})
    pool = Pool(dsn, zone=ZoneInfo("America/Chicago"), name_lock_holders_after_seconds=0.05)
    try:
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute("/* by hand */ UPDATE public.stage_changes SET first_name = 'Grace' WHERE person_id = '7'")
        await owner.execute("LOCK TABLE public.stage_changes IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Interrupted) as waited:
            await _read(pool)
        text = str(waited.value)
        pid = owner.get_server_pid()
        assert f"it waited for a lock: session {pid} (table editor, user {dsn.user}) holds it, idle in transaction since 20" in text
        assert re.search(r"since [-0-9]+ [:0-9]+ C[DS]T: ", text)
        assert "LOCK TABLE public.stage_changes IN" in text
        assert f"SELECT pg_terminate_backend({pid})" in text
        await transaction.rollback()
        await _read(pool)
    finally:
        await pool.close()
        await owner.close()


async def _read(pool: Pool) -> None:
    async with pool.transaction() as connection:
        await connection.execute("SELECT FROM public.stage_changes")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("/* Ada */ UPDATE stage_changes SET first_name = 'Ada' -- Ada", "UPDATE stage_changes SET first_name …"),
        ("SELECT 'Ada Lovelace', 42", "SELECT …"),
        ("INSERT INTO notes VALUES ('Ada", "INSERT INTO notes VALUES …"),
        ('DELETE FROM "Ada"', "DELETE FROM …"),
        ("<insufficient privilege>", "a statement that is not shown"),
        (None, "a statement that is not shown"),
    ],
)
def test_only_the_first_words_of_a_statement_are_shown(query: str | None, shown: str) -> None:
    """Values, which may be people's, are no words at its beginning."""
    assert first_words(query) == shown
