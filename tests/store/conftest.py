"""A role that is no superuser, and a database that it owns."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from fubd.store.dsn import Dsn, parse
from tests.store.adopting import connected
from tests.support.databases import url_of


@pytest.fixture
async def ordinary_role(postgres: str) -> AsyncIterator[Dsn]:
    """Yield the login of a role that is no superuser. Requested before a database, it is dropped after it."""
    name = f"fubd_test_{secrets.token_hex(4)}"
    async with connected(postgres) as connection:
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        yield replace(parse(postgres), user=name, password=name)
        await connection.execute(f"DROP ROLE {name}")


@pytest.fixture
async def owned_database(ordinary_role: Dsn, empty_database: str) -> str:
    """Return the URL, for that role, of an empty database that it owns."""
    name = parse(empty_database).database
    async with connected(empty_database) as connection:
        await connection.execute(
            f'ALTER DATABASE "{name}" OWNER TO {ordinary_role.user}; ALTER SCHEMA public OWNER TO {ordinary_role.user}'
        )
    return url_of(ordinary_role, database=name)
