"""Postgres over asyncpg: the pool, migrations, and the statements in `fubd/sql`."""

from fubd.store.migrations import SchemaRefused, migrate

__all__ = ["SchemaRefused", "migrate"]
