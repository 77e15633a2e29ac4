"""Postgres over asyncpg: the pool, migrations, and the statements in `fubd/sql`."""

from fubd.store.changes import ChangeReader
from fubd.store.dsn import Dsn
from fubd.store.maintenance import Maintenance
from fubd.store.migrations import SchemaRefused, migrate
from fubd.store.overview import OverviewReader, OverviewSpan, StoredOverview
from fubd.store.people import PeopleReader
from fubd.store.pool import Pool
from fubd.store.recording import ChangeStore
from fubd.store.state import StateStore
from fubd.store.status import StatusReader

__all__ = [
    "ChangeReader",
    "ChangeStore",
    "Dsn",
    "Maintenance",
    "OverviewReader",
    "OverviewSpan",
    "PeopleReader",
    "Pool",
    "SchemaRefused",
    "StateStore",
    "StatusReader",
    "StoredOverview",
    "migrate",
]
