"""Postgres over asyncpg: the pool, migrations, and the statements in `fubd/sql`."""

from fubd.store.dsn import Dsn
from fubd.store.migrations import SchemaRefused, migrate
from fubd.store.pool import Pool
from fubd.store.recording import ChangeStore
from fubd.store.state import StateStore
from fubd.store.status import Report

__all__ = ["ChangeStore", "Dsn", "Pool", "Report", "SchemaRefused", "StateStore", "migrate"]
