from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from fubd import store
from fubd.store import Pool, adoption
from fubd.store.dsn import Dsn, parse
from fubd.store.inspection import Schema, inspect
from tests.deploy.programs import CHECKOUT
from tests.stack import running_stack
from tests.support.databases import url_of
from tests.support.process import fubd

pytestmark = pytest.mark.slow

DEPLOY = CHECKOUT / "deploy"
VIEWS = ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages")
PASSWORD = "an-invented-password"


ANOTHER_ROW = (
    "INSERT INTO public.stage_changes (person_id, stage_from, stage_to, changed_at, received_at, source)"
    " VALUES ('7', 'Lead', 'Offer', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC', 'polling')"
)
OLDER = f"""
CREATE TABLE public.stage_changes (
    id bigserial PRIMARY KEY, person_id text, first_name text, last_name text, stage_from varchar(200), stage_to varchar(200),
    changed_at timestamp, received_at timestamp, raw_payload jsonb, lead_source_tag text, source varchar(20), event_id varchar(200),
    assigned_user_id text, assigned_user_name text
);
ALTER TABLE public.stage_changes ADD CONSTRAINT stage_changes_event_id_unique UNIQUE (event_id);
{ANOTHER_ROW};
CREATE VIEW public.report AS SELECT person_id, stage_to FROM public.stage_changes;
CREATE VIEW public.source_health AS SELECT source, count(*) FROM public.stage_changes GROUP BY 1;
"""


class Roles:
    """The roles of the two files under names for this test (roles belong to the server, not to a database), and a database owner."""

    def __init__(self, url: str) -> None:
        self.url = url
        suffix = secrets.token_hex(4)
        self.names = {role: f"{role}_{suffix}" for role in ("fubd_daemon", "fubd_reader", "fubd_owner")}

    def script(self, name: str) -> str:
        """Return a file of deploy/ with the roles' names replaced, and the statement after which its role can log in."""
        role = "fubd_daemon" if name == "role.sql" else "fubd_reader"
        return f"{self.script_alone(name)}ALTER ROLE {self.names[role]} LOGIN PASSWORD '{PASSWORD}';"

    def script_alone(self, name: str) -> str:
        """Return a file of deploy/ with the roles' names replaced."""
        return re.sub(r"\bfubd_(daemon|reader)\b", lambda match: self.names[match[0]], (DEPLOY / name).read_text())

    @asynccontextmanager
    async def as_role(self, role: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Connect as one of the roles; None for the server's own user."""
        connection = await asyncpg.connect(**self.dsn(role).connect_arguments())
        try:
            yield connection
        finally:
            await connection.close()

    def dsn(self, role: str | None = None) -> Dsn:
        """Return the address of the database for one of the roles."""
        dsn = parse(self.url)
        return dsn if role is None else replace(dsn, user=self.names[role], password=PASSWORD)

    async def make_owner(self) -> None:
        """Create the owner of the database: not a superuser, as on a hosted database."""
        async with self.as_role() as connection:
            owner, database = self.names["fubd_owner"], parse(self.url).database
            await connection.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
            await connection.execute(f'ALTER DATABASE "{database}" OWNER TO {owner}')
            # As on a database from an older server: only the owner may create in public.
            await connection.execute(f"ALTER SCHEMA public OWNER TO {owner}")

    async def drop(self) -> None:
        """Drop the roles with everything that they own here."""
        async with self.as_role() as connection:
            database, user = parse(self.url).database, await connection.fetchval("SELECT current_user")
            await connection.execute(f'ALTER DATABASE "{database}" OWNER TO "{user}"')
            for name in self.names.values():
                if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name):
                    await connection.execute(f'REASSIGN OWNED BY {name} TO "{user}"; DROP OWNED BY {name} CASCADE')
            for name in self.names.values():
                await connection.execute(f"DROP ROLE IF EXISTS {name}")


@pytest.fixture
async def roles(empty_database: str) -> AsyncIterator[Roles]:
    """Yield a database whose owner ran role.sql."""
    made = Roles(empty_database)
    try:
        await made.make_owner()
        async with made.as_role("fubd_owner") as connection:
            await connection.execute(made.script("role.sql"))
        yield made
    finally:
        await made.drop()


async def test_the_daemons_role_is_sufficient(roles: Roles) -> None:
    """The role of role.sql creates the whole schema in an empty database and writes a row, without any administrative right."""
    async with roles.as_role("fubd_daemon") as connection:
        await store.migrate(connection, columns={"campaign_id": "customCampaignID"})
        await connection.execute(
            "INSERT INTO public.stage_changes (person_id, stage_to, changed_at, received_at, source)"
            " VALUES ('7', 'Lead', now(), now(), 'webhook')"
        )
        row = await connection.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        assert not any(row.values())
    async with roles.as_role("fubd_owner") as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 1


async def test_nobody_can_log_in_before_a_password_was_set(empty_database: str) -> None:
    """Neither with the daemon's role nor with the reader's."""
    roles = Roles(empty_database)
    try:
        async with roles.as_role() as connection:
            await store.migrate(connection)
            for name in ("role.sql", "reader.sql"):
                await connection.execute(roles.script_alone(name))
            made = await connection.fetch("SELECT rolcanlogin FROM pg_roles WHERE rolname = ANY($1)", list(roles.names.values()))
            assert [row["rolcanlogin"] for row in made] == [False, False]
    finally:
        await roles.drop()


async def test_the_daemons_role_cannot_read_other_tables(roles: Roles) -> None:
    """The daemon's role can neither read nor write nor drop the table of another role."""
    async with roles.as_role("fubd_owner") as connection:
        await connection.execute("CREATE TABLE public.payroll (amount numeric)")
    async with roles.as_role("fubd_daemon") as connection:
        for statement in ("SELECT * FROM public.payroll", "INSERT INTO public.payroll VALUES (1)", "DROP TABLE public.payroll"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_the_daemons_role_takes_over_from_the_owner(empty_database: str) -> None:
    """role.sql also works after a first start as the owner: everything goes over, and later migrations can run."""
    roles = Roles(empty_database)
    try:
        await roles.make_owner()
        async with roles.as_role("fubd_owner") as connection:
            await store.migrate(connection)
            await connection.execute(roles.script("role.sql"))
        async with roles.as_role("fubd_daemon") as connection:
            await connection.execute("ALTER TABLE fubd.claim ADD COLUMN later text; ALTER FUNCTION fubd.is_stage(text) COST 10")
            await store.migrate(connection, columns={"campaign_id": "customCampaignID"})
            others = await connection.fetchval(
                "SELECT count(*) FROM pg_class c WHERE c.relnamespace IN ('fubd'::regnamespace, 'public'::regnamespace)"
                " AND pg_get_userbyid(c.relowner) <> current_user"
            )
            assert others == 0
    finally:
        await roles.drop()


async def test_an_older_table_is_adopted_by_the_daemons_role(empty_database: str) -> None:
    """The role of role.sql can adopt an older table and restore it; its former owner's view and writes keep working."""
    roles = Roles(empty_database)
    try:
        await roles.make_owner()
        async with roles.as_role("fubd_owner") as connection:
            await connection.execute(OLDER)
            await connection.execute(roles.script("role.sql"))
        pool = Pool(roles.dsn("fubd_daemon"), size=1)
        try:
            plan = await adoption.plan_adoption(pool, {})
            assert plan is not None
            assert plan.obstacles == ()
            proof = await adoption.adopt(pool, {}, plan=plan)
            assert proof.before == proof.after
            async with roles.as_role("fubd_owner") as connection:
                await connection.execute(ANOTHER_ROW)
                assert await connection.fetchval("SELECT count(*) FROM public.report") == 2
            assert (await adoption.undo(pool)).after.rows == 2
        finally:
            await pool.close()
    finally:
        await roles.drop()


async def test_adopt_the_daemon_and_check_work_with_that_role(empty_database: str, tmp_path: Path) -> None:
    """An older table is adopted and recorded into, and `check` finds nothing to fix."""
    roles = Roles(empty_database)
    try:
        await roles.make_owner()
        async with roles.as_role("fubd_owner") as connection:
            await connection.execute(OLDER)
            await connection.execute(roles.script("role.sql"))
        async with running_stack(empty_database, tmp_path, people=5, daemon_dsn=url_of(roles.dsn("fubd_daemon"))) as stack:
            async with fubd("adopt", "--yes", environ=stack.environ, folder=tmp_path) as process:
                assert await process.ended() == 0, process.errors
            async with stack.ready_daemon():
                stack.account.move(next(iter(stack.account.ids)), "Nurture")
                assert (await stack.final_score(30.0)).captured == 1
                async with fubd("check", environ=stack.environ, folder=tmp_path) as process:
                    assert await process.ended() == 0, process.lines
    finally:
        await roles.drop()


async def test_the_reader_sees_the_views_and_no_personal_data(roles: Roles) -> None:
    """The role of reader.sql reads every view; no names, evidence or deliveries, and it cannot write. The file can run twice."""
    async with roles.as_role("fubd_daemon") as connection:
        await store.migrate(connection)
        await connection.execute(
            "INSERT INTO public.stage_changes (person_id, first_name, stage_to, changed_at, received_at, source) VALUES"
            " ('7', 'Invented', 'Lead', now() - interval '2 minutes', now(), 'webhook'),"
            " ('7', 'Invented', 'Offer', now(), now(), 'webhook')"
        )
        await connection.execute("INSERT INTO fubd.person (id, stage) VALUES (7, 'Offer')")
    async with roles.as_role("fubd_owner") as connection:
        await connection.execute(roles.script("reader.sql"))
        await connection.execute(roles.script("reader.sql"))
    async with roles.as_role("fubd_reader") as connection:
        for view in VIEWS:
            assert await connection.fetchval(f"SELECT count(*) FROM public.{view}") > 0, view
        statements = (
            *("SELECT first_name FROM public.stage_changes", "SELECT raw_payload FROM public.stage_changes"),
            *("SELECT body FROM fubd.delivery", "SELECT first_name FROM fubd.person", "SELECT stage FROM fubd.claim"),
        )
        for statement in statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("DELETE FROM public.stage_changes")
        await connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM public.stage_changes")


async def test_a_role_that_does_not_own_the_schema_is_recognised(roles: Roles) -> None:
    """Row level security hides fubd's tables from it: `check` does not take the schema for one of an older version."""
    async with roles.as_role("fubd_daemon") as connection:
        await store.migrate(connection)
    async with roles.as_role("fubd_owner") as connection:
        await connection.execute(roles.script("reader.sql"))
    async with roles.as_role("fubd_daemon") as connection:
        await connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA fubd TO {roles.names['fubd_reader']}")
    assert (await inspect(roles.dsn("fubd_reader"))).schema is Schema.HIDDEN
    assert (await inspect(roles.dsn("fubd_daemon"))).schema is Schema.READY
