"""deploy/data.md agrees with the schema, and its queries answer on the data of the demo."""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from fubd.demo.environment import demo_environment
from fubd.demo.observer import DaemonObserver
from fubd.demo.plan import make_plan
from fubd.demo.story import DemoStory
from fubd.demo.view import DemoView, Narrator
from fubd.store.dsn import parse
from tests.deploy.programs import CHECKOUT
from tests.support.documents import table

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


def _assert_failover_is_shown(observer: DaemonObserver) -> None:
    assert observer.known is not None
    observer.known = replace(observer.known, webhook_heard=datetime.now(UTC), webhooks_fail=True)
    assert observer.view().sources[0].status == "STALE - Check webhook server"


@pytest.mark.slow
async def test_the_queries_answer_on_the_data_of_the_demo() -> None:
    """At least eight of ten have rows after the demo's story, in which a webhook source that fails is not shown as healthy."""
    plan, narrator = make_plan(20), Narrator()
    found: dict[str, int] = {}
    async with demo_environment(plan) as environment:
        observer = DaemonObserver(environment, plan, narrator, _draw_nothing)
        observing = asyncio.create_task(observer.run())
        await DemoStory(environment, observer, plan, narrator).play()
        observing.cancel()
        _assert_failover_is_shown(observer)
        assert environment.settings.database_url is not None
        connection = await asyncpg.connect(**parse(environment.settings.database_url.get_secret_value()).connect_arguments())
        try:
            for heading, query in queries().items():
                found[heading] = len(await connection.fetch(query))
        finally:
            await connection.close()
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


def _draw_nothing(_view: DemoView) -> None:
    pass
