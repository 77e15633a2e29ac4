"""Roles anon and authenticated, which any web client of a Supabase database bears, get nothing of fubd's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from fubd.store import Pool, adoption, migrate, statements
from fubd.store.dsn import parse
from tests.support import legacy_tables

WEB = ("anon", "authenticated")

pytestmark = pytest.mark.usefixtures("roles")

# What Supabase sets up in every project, and what an older or hand-made one may have besides.
_DEFAULTS = """
    GRANT USAGE ON SCHEMA public TO anon, authenticated;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated;
"""
_EVERYWHERE = _DEFAULTS.replace(" IN SCHEMA public", "") + "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO anon, authenticated;"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection of the test's own."""
    connection = await asyncpg.connect(**parse(url).connect_arguments())
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def roles(postgres: str) -> AsyncIterator[None]:
    """Have both roles; those that were made here go again, once the database that knows them has gone."""
    async with connected(postgres) as connection:
        made = [name for name in WEB if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name)]
        for name in made:
            await connection.execute(f"CREATE ROLE {name} NOLOGIN")
        yield
        for name in made:
            await connection.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("defaults", [_DEFAULTS, _EVERYWHERE], ids=["as in every project", "everywhere"])
async def test_a_fresh_install_is_closed(empty_database: str, defaults: str) -> None:
    """No privilege on any table, view, sequence, function or schema of fubd's, whatever the database grants by default."""
    async with connected(empty_database) as connection:
        await connection.execute(defaults)
        await migrate(connection)
        assert await privileges(connection) == []
        assert await connection.fetch(statements.text("check/exposure")) == []
        # The product's names are counted, so that none is forgotten.
        names = [row["name"] for row in await things(connection)]
        assert {f"public.{name}" for name in ("stage_changes", "source_health", "current_stages", "stage_changes_id_seq")} <= set(names)
        assert len(names) > 25


async def things(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Give everything of fubd's that privileges are for: all in its schema, all in public that no other made."""
    found: list[asyncpg.Record] = await connection.fetch(
        "SELECT n.nspname || '.' || c.relname AS name, c.oid, c.relkind::text AS kind"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ('fubd', 'public') AND c.relkind IN ('r', 'v', 'm', 'S', 'p', 'f')"
        " UNION ALL SELECT p.oid::regprocedure::text, p.oid, 'function' FROM pg_proc p WHERE p.pronamespace = 'fubd'::regnamespace"
    )
    return found


async def privileges(connection: asyncpg.Connection) -> list[str]:
    """Give every privilege that one of the two roles has on any of it."""
    having = []
    for role in WEB:
        if await connection.fetchval("SELECT has_schema_privilege($1, 'fubd', 'USAGE, CREATE')", role):
            having.append(f"{role} schema")
        for thing in await things(connection):
            kind = {"S": "sequence", "function": "function"}.get(thing["kind"], "table")
            wanted = {"sequence": "USAGE, SELECT, UPDATE", "function": "EXECUTE"}.get(
                kind, "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER"
            )
            if await connection.fetchval(f"SELECT has_{kind}_privilege($1, $2::oid, $3)", role, thing["oid"], wanted):
                having.append(f"{role} {thing['name']}")
    return having


async def test_trying_it_is_refused(empty_database: str) -> None:
    """Bearing one of the roles, reading, writing and drawing numbers are all refused; the tables are under row level security besides."""
    async with connected(empty_database) as connection:
        await connection.execute(_DEFAULTS)
        await migrate(connection)
        names = await things(connection)
        for role in WEB:
            await connection.execute(f"SET ROLE {role}")
            for thing in names:
                if thing["kind"] != "function":
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.fetch(f"SELECT * FROM {thing['name']}")
            for statement in (
                "INSERT INTO public.stage_changes DEFAULT VALUES",
                "UPDATE public.stage_changes SET stage_to = 'B'",
                "DELETE FROM public.stage_changes",
                "TRUNCATE public.stage_changes",
                "SELECT nextval('public.stage_changes_id_seq')",
                "SELECT fubd.source_of('x')",
                "CREATE TABLE fubd.mine (n int)",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
            await connection.execute("RESET ROLE")
        unprotected = await connection.fetch(
            "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND NOT relrowsecurity"
            " AND relnamespace IN ('fubd'::regnamespace, 'public'::regnamespace)"
        )
        assert unprotected == []


async def test_views_show_no_more_than_their_caller_may_see(empty_database: str) -> None:
    """Somebody grants a view of ours to a web client: what it stands on stays closed, from PostgreSQL 15 on."""
    async with connected(empty_database) as connection:
        await connection.execute(_DEFAULTS)
        await migrate(connection)
        await connection.execute("GRANT SELECT ON public.current_stages, public.stage_changes_daily TO anon")
        version: int = await connection.fetchval("SELECT current_setting('server_version_num')::int / 10000")
        exposed = [row["name"] for row in await connection.fetch(statements.text("check/exposure"))]
        assert exposed == ([] if version > 14 else ["public.current_stages", "public.stage_changes_daily"])
        if version > 14:
            await connection.execute("SET ROLE anon")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch("SELECT * FROM public.stage_changes_daily")


async def test_what_an_adopted_table_shows_is_told_and_can_be_closed(empty_database: str) -> None:
    """The table and the views on it that were open stay as they were found; fubd's own is closed; with the holders' grants gone all is."""
    async with connected(empty_database) as connection:
        await connection.execute(_DEFAULTS)
        await legacy_tables.make(connection, rows=10)
        await connection.execute("GRANT SELECT ON stage_changes TO PUBLIC")
        pool = Pool(parse(empty_database), size=1)
        plan = await adoption.plan_adoption(pool, {})
        assert plan is not None
        await adoption.adopt(pool, {}, plan=plan)
        await pool.close()
        open_now = {row["name"]: row for row in await connection.fetch(statements.text("check/exposure"))}
        assert list(open_now) == ["public.stage_changes", "public.stage_changes_id_seq", "public.throwaway_leads_detail_60d"]
        assert open_now["public.stage_changes"]["holders"] == ["PUBLIC", "anon", "authenticated"]
        for name, row in open_now.items():
            await connection.execute(
                f"REVOKE ALL ON {'SEQUENCE' if row['kind'] == 'sequence' else 'TABLE'} {name} FROM {', '.join(row['holders'])}"
            )
        assert await connection.fetch(statements.text("check/exposure")) == []
        assert await privileges(connection) == []


@pytest.mark.parametrize(
    ("policy", "is_open"),
    [
        ("", False),
        ("CREATE POLICY all_of_it ON stage_changes TO anon USING (true)", True),
        ("CREATE POLICY mine ON stage_changes TO pg_monitor", False),
    ],
    ids=["none", "for a web client", "for somebody else"],
)
async def test_row_level_security_closes_a_table_unless_a_policy_opens_it(empty_database: str, policy: str, is_open: bool) -> None:
    """Grants alone do not open a table that is under it."""
    async with connected(empty_database) as connection:
        await connection.execute(_DEFAULTS)
        await connection.execute("CREATE TABLE stage_changes (id int); ALTER TABLE stage_changes ENABLE ROW LEVEL SECURITY;" + policy)
        found = [row["name"] for row in await connection.fetch(statements.text("check/exposure"))]
        assert found == (["public.stage_changes"] if is_open else [])
