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
from tests.deploy.programs import CHECKOUT
from tests.stack import running_stack
from tests.support.databases import url_of
from tests.support.process import fubd

DEPLOY = CHECKOUT / "deploy"
VIEWS = ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages")
PASSWORD = "choose-a-long-password"


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
    """The roles of the two files under names of this test's own (roles belong to the server, not to a database), and a database's owner."""

    def __init__(self, url: str) -> None:
        self.url = url
        mark = secrets.token_hex(4)
        self.names = {role: f"{role}_{mark}" for role in ("fubd_daemon", "fubd_reader", "fubd_owner")}

    def script(self, name: str) -> str:
        """Give a file of the deployment with the roles' names replaced."""
        text = (DEPLOY / name).read_text()
        return re.sub(r"\bfubd_(daemon|reader)\b", lambda match: self.names[match[0]], text)

    @asynccontextmanager
    async def as_role(self, role: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Connect as one of the roles; None for the server's own user."""
        connection = await asyncpg.connect(**self.dsn(role).connect_arguments())
        try:
            yield connection
        finally:
            await connection.close()

    def dsn(self, role: str | None = None) -> Dsn:
        """Give the address of the database for one of the roles."""
        given = parse(self.url)
        return given if role is None else replace(given, user=self.names[role], password=PASSWORD)

    async def make_owner(self) -> None:
        """Make the owner of the database: no superuser, as on a hosted database."""
        async with self.as_role() as connection:
            owner, database = self.names["fubd_owner"], parse(self.url).database
            await connection.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
            await connection.execute(f'ALTER DATABASE "{database}" OWNER TO {owner}')
            # As on a database that was made by an older server: nobody but the owner may create in public.
            await connection.execute(f"ALTER SCHEMA public OWNER TO {owner}")

    async def drop(self) -> None:
        """Drop the roles with all they own here."""
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
    """Give a database whose owner ran role.sql."""
    made = Roles(empty_database)
    try:
        await made.make_owner()
        async with made.as_role("fubd_owner") as connection:
            await connection.execute(made.script("role.sql"))
        yield made
    finally:
        await made.drop()


async def test_the_daemons_role_suffices(roles: Roles) -> None:
    """The role of role.sql makes the whole schema in an empty database, writes a row, and is none of the powerful ones."""
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


async def test_the_daemons_role_sees_nothing_of_others(roles: Roles) -> None:
    """What others keep in the database stays closed to the daemon's role."""
    async with roles.as_role("fubd_owner") as connection:
        await connection.execute("CREATE TABLE public.payroll (amount numeric)")
    async with roles.as_role("fubd_daemon") as connection:
        for statement in ("SELECT * FROM public.payroll", "INSERT INTO public.payroll VALUES (1)", "DROP TABLE public.payroll"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_an_older_table_is_adopted_by_the_daemons_role(empty_database: str) -> None:
    """With an older table there, the role of role.sql can adopt it and give it back; its former owner's view and writing go on."""
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
    """The whole way on an older table: taken over, recorded into, and nothing to put right."""
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


async def test_the_reader_reads_the_views_and_nothing_personal(roles: Roles) -> None:
    """The role of reader.sql sees the rows of every view; no name, no evidence, no delivery, and it writes nothing. The file runs again."""
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
        refused = (
            *("SELECT first_name FROM public.stage_changes", "SELECT raw_payload FROM public.stage_changes"),
            *("SELECT body FROM fubd.delivery", "SELECT first_name FROM fubd.person", "SELECT stage FROM fubd.claim"),
        )
        for statement in refused:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("DELETE FROM public.stage_changes")
        await connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM public.stage_changes")
