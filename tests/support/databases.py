"""A database for each test on a real Postgres, cloned from one that was migrated once."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlencode

import asyncpg

from fubd import store
from fubd.store.dsn import Dsn, Tls, parse

_FIRST_WITH_STRATEGY = 15


class Databases:
    """Creates and drops databases on one server. The user of its URL must be allowed to create them."""

    def __init__(self, server_url: str) -> None:
        self._server = parse(server_url)
        self._names = (f"fubd_test_{secrets.token_hex(4)}_{number}" for number in itertools.count())
        self._template: str | None = None

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        """Return the URL of a new empty database."""
        async with self._cloned("template0") as url:
            yield url

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        """Return the URL of a new database with the current schema."""
        if self._template is None:
            self._template = await self._create("template0")
            connection = await asyncpg.connect(**parse(self._url(self._template)).connect_arguments())
            try:
                await store.migrate(connection)
            finally:
                await connection.close()
        async with self._cloned(self._template) as url:
            yield url

    async def close(self) -> None:
        """Drop the template."""
        if self._template is not None:
            await self._drop(self._template)
            self._template = None

    @asynccontextmanager
    async def _cloned(self, template: str) -> AsyncIterator[str]:
        name = await self._create(template)
        try:
            yield self._url(name)
        finally:
            await self._drop(name)

    async def _create(self, template: str) -> str:
        name = next(self._names)
        async with self._connection() as connection:
            # Copying the files takes a tenth of the time of the default, which logs each page. Before Postgres 15 it was the only way.
            strategy = " STRATEGY FILE_COPY" if connection.get_server_version().major >= _FIRST_WITH_STRATEGY else ""
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')
        return name

    async def _drop(self, name: str) -> None:
        async with self._connection() as connection:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(**self._server.connect_arguments())
        try:
            yield connection
        finally:
            await connection.close()

    def _url(self, name: str) -> str:
        return url_of(self._server, database=name)


def url_of(dsn: Dsn, *, database: str | None = None, host: str | None = None, port: int | None = None) -> str:
    """Return a URL of the same server, with another database or another address."""
    where = dsn.host if host is None else host
    parameters = {"port": str(dsn.port if port is None else port)}
    if where.startswith("/"):
        parameters["host"] = where
        where = ""
    elif dsn.tls is not Tls.DISABLE:
        parameters["sslmode"] = dsn.tls.value
    user = quote(dsn.user, safe="") + (":" + quote(dsn.password, safe="") if dsn.password else "")
    name = quote(dsn.database if database is None else database, safe="")
    return f"postgresql://{user}@{f'[{where}]' if ':' in where else where}/{name}?{urlencode(parameters, quote_via=quote)}"
