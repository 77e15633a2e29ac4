"""deploy/data.md agrees with the schema, and its queries answer on the data of the demo."""

from __future__ import annotations

import re
import secrets
import signal
from pathlib import Path

import asyncpg
import pytest

from fubd.store.dsn import parse
from tests.deploy.programs import CHECKOUT
from tests.support.documents import table
from tests.support.process import fubd

GUIDE = (CHECKOUT / "deploy" / "data.md").read_text(encoding="utf-8")
_CODE = re.compile("`([^`]+)`")
_COLUMNS = "SELECT array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns WHERE table_name = $1"
_VIEWS = "SELECT array_agg(table_name::text) FROM information_schema.views WHERE table_schema = 'public'"


def queries() -> dict[str, str]:
    """Return the queries of the guide by their headings."""
    _, _, section = GUIDE.partition("\n## Queries\n")
    return dict(re.findall(r"^### (.+?)\n.*?^```sql\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


async def test_every_column_is_described(database: str) -> None:
    """The first table has the columns of stage_changes in their order, each with an example and a meaning."""
    rows = table(GUIDE, "The table")
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        columns = await connection.fetchval(_COLUMNS, "stage_changes")
    finally:
        await connection.close()
    assert [row[0].strip("`") for row in rows] == columns
    assert all(example and meaning for _, example, meaning in rows)


async def test_every_view_is_described_with_its_columns(database: str) -> None:
    """The second table has every view, and names all columns of each."""
    described = {_CODE.findall(name)[0]: set(_CODE.findall(columns)) for name, columns, _ in table(GUIDE, "The views")}
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        assert sorted(described) == sorted(await connection.fetchval(_VIEWS))
        for view, words in described.items():
            assert set(await connection.fetchval(_COLUMNS, view)) <= words, view
    finally:
        await connection.close()


def _socket_folder(temporary: Path) -> str:
    """Return where the one Postgres whose data is in this folder listens."""
    (home,) = temporary.iterdir()
    return str(home / "data")


@pytest.mark.slow
async def test_the_demo_stays_until_ctrl_c_and_the_queries_answer_on_its_data(tmp_path: Path, temporary: Path) -> None:
    """At least eight of ten have rows after the story. The page still answers then; Ctrl-C shows the score and exits with its code."""
    async with fubd("demo", "--seconds", "20", "--stay", environ={"TMPDIR": str(temporary)}, folder=tmp_path) as demo:
        line = await demo.line("stay until Ctrl-C", 120)
        await demo.answers(f"{line.rpartition(': ')[2].rstrip('/')}/healthz")
        connection = await asyncpg.connect(host=_socket_folder(temporary), user="postgres", database="postgres")
        try:
            found = {heading: len(await connection.fetch(query)) for heading, query in queries().items()}
        finally:
            await connection.close()
        demo.signal(signal.SIGINT)
        assert await demo.ended(within_seconds=60) == 0
    assert demo.lines[-1].startswith("score: ")
    assert len(found) >= 10
    assert sum(rows > 0 for rows in found.values()) >= 0.8 * len(found), found


_SUPABASE = """
CREATE ROLE {role} NOLOGIN;
CREATE SCHEMA auth;
CREATE FUNCTION auth.jwt() RETURNS jsonb STABLE LANGUAGE sql AS $$SELECT current_setting('request.jwt.claims')::jsonb$$;
GRANT USAGE ON SCHEMA auth TO {role};
CREATE PUBLICATION supabase_realtime;
INSERT INTO stage_changes (person_id, first_name, stage_to, changed_at, received_at, source)
    VALUES ('1', 'Ada', 'Lead', now(), now(), 'webhook');
"""


@pytest.mark.parametrize(("claims", "rows"), [('{"app_metadata": {"office": "true"}}', 1), ('{"app_metadata": {}}', 0), ("{}", 0)])
async def test_realtime_shows_chosen_columns_to_chosen_users(database: str, claims: str, rows: int) -> None:
    """With stand-ins for what Supabase has: the table is published, and only users of the office read it, without names."""
    role = f"authenticated_{secrets.token_hex(4)}"
    (recipe,) = re.findall(r"^```sql realtime\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        await connection.execute(_SUPABASE.format(role=role))
        await connection.execute(recipe.replace("authenticated", role))
        assert (
            await connection.fetchval("SELECT tablename FROM pg_publication_tables WHERE pubname = 'supabase_realtime'") == "stage_changes"
        )
        await connection.execute(f"SET ROLE {role}")
        await connection.execute("SELECT set_config('request.jwt.claims', $1, false)", claims)
        assert len(await connection.fetch("SELECT id, stage_to FROM stage_changes")) == rows
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT first_name FROM stage_changes")
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
        await connection.close()
