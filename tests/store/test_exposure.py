"""The roles anon and authenticated, which every web client of a Supabase database has, get nothing of fubd's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from fubd.store import Pool, adoption, migrate, migrations, statements
from fubd.store.dsn import parse
from tests.support import legacy_tables

WEB = ("anon", "authenticated")

pytestmark = pytest.mark.usefixtures("roles")

# What Supabase sets up in every project, and what an older or hand-made one may have in addition.
_DEFAULTS = """
    GRANT USAGE ON SCHEMA public TO anon, authenticated;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated;
"""
_EVERYWHERE = _DEFAULTS.replace(" IN SCHEMA public", "") + "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO anon, authenticated;"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection of the test's own."""
    connection = await asyncpg.connect(**parse(url).connect_arguments())
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def roles(postgres: str) -> AsyncIterator[None]:
    """Create both roles where missing; drop them again after the database that refers to them."""
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
        await connection.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.stage_changes (id int); CREATE TABLE theirs.other (id int)")
        await migrate(connection)
        assert await privileges(connection) == []
        assert await connection.fetch("SELECT FROM pg_class WHERE relnamespace = 'theirs'::regnamespace AND relrowsecurity") == []
        assert await connection.fetch(statements.text("check/exposure")) == []
        # The product's names are counted, so that none is forgotten.
        names = [row["name"] for row in await objects(connection)]
        assert {f"public.{name}" for name in ("stage_changes", "source_health", "current_stages", "stage_changes_id_seq")} <= set(names)
        assert len(names) > 25


async def objects(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Return everything of fubd's that has privileges: all of its schema, and all in public."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT n.nspname || '.' || c.relname AS name, c.oid, c.relkind::text AS kind"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ('fubd', 'public') AND c.relkind IN ('r', 'v', 'm', 'S', 'p', 'f')"
        " UNION ALL SELECT p.oid::regprocedure::text, p.oid, 'function' FROM pg_proc p WHERE p.pronamespace = 'fubd'::regnamespace"
    )
    return rows


async def privileges(connection: asyncpg.Connection) -> list[str]:
    """Return every privilege that one of the two roles has on any of it."""
    having = []
    for role in WEB:
        if await connection.fetchval("SELECT has_schema_privilege($1, 'fubd', 'USAGE, CREATE')", role):
            having.append(f"{role} schema")
        for found in await objects(connection):
            kind = {"S": "sequence", "function": "function"}.get(found["kind"], "table")
            wanted = {"sequence": "USAGE, SELECT, UPDATE", "function": "EXECUTE"}.get(
                kind, "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER"
            )
            if await connection.fetchval(f"SELECT has_{kind}_privilege($1, $2::oid, $3)", role, found["oid"], wanted):
                having.append(f"{role} {found['name']}")
    return having


async def test_reading_and_writing_are_refused_to_both_roles(empty_database: str) -> None:
    """So is drawing ids; and every table is under row level security."""
    async with connected(empty_database) as connection:
        await connection.execute(_DEFAULTS)
        await migrate(connection)
        names = await objects(connection)
        for role in WEB:
            await connection.execute(f"SET ROLE {role}")
            for found in names:
                if found["kind"] != "function":
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.fetch(f"SELECT * FROM {found['name']}")
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


async def test_an_update_keeps_what_the_owner_granted(empty_database: str) -> None:
    """What an update makes is closed, the schema fubd is closed again, and the product table stays as its owner opened it."""
    async with connected(empty_database) as connection:
        await connection.execute(_DEFAULTS)
        for number, name, text in statements.migrations()[:-1]:
            await migrations.apply(connection, number, name, text)
        await connection.execute(statements.text("state/secure"))
        await connection.execute("CREATE TABLE public.theirs (id int)")
        await connection.execute("GRANT SELECT (id, stage_to) ON stage_changes TO authenticated; GRANT SELECT ON fubd.setting TO anon")
        await migrate(connection)
        granted = await connection.fetch(
            "SELECT table_schema::text, column_name::text, grantee::text FROM information_schema.column_privileges"
            " WHERE grantee IN ('anon', 'authenticated') AND table_name <> 'theirs' ORDER BY 2"
        )
        assert [tuple(row) for row in granted] == [("public", "id", "authenticated"), ("public", "stage_to", "authenticated")]
        theirs = "SELECT relrowsecurity, has_table_privilege('anon', oid, 'INSERT') FROM pg_class WHERE relname = 'theirs'"
        assert tuple(await connection.fetchrow(theirs)) == (False, True)


async def test_views_show_only_what_their_caller_may_see(empty_database: str) -> None:
    """When a view is granted to a web client, the tables below it stay closed, from PostgreSQL 15 on."""
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


async def test_what_an_adopted_table_exposes_is_reported_and_can_be_closed(empty_database: str) -> None:
    """The table and its views stay as open as they were, fubd's own objects are closed; revoking from the holders closes all."""
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
    ids=["no policy", "for a web client", "for another role"],
)
async def test_row_level_security_closes_a_table_unless_a_policy_opens_it(empty_database: str, policy: str, is_open: bool) -> None:
    """Grants alone do not open a table under row level security."""
    async with connected(empty_database) as connection:
        await connection.execute(_DEFAULTS)
        await connection.execute("CREATE TABLE stage_changes (id int); ALTER TABLE stage_changes ENABLE ROW LEVEL SECURITY;" + policy)
        found = [row["name"] for row in await connection.fetch(statements.text("check/exposure"))]
        assert found == (["public.stage_changes"] if is_open else [])
