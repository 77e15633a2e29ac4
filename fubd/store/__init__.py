"""Postgres over asyncpg: the pool, migrations, and the statements in `fubd/sql`."""

from fubd.store.book import Book
from fubd.store.dsn import Dsn
from fubd.store.journal import Journal
from fubd.store.migrations import SchemaRefused, migrate
from fubd.store.pool import Pool
from fubd.store.report import Report

__all__ = ["Book", "Dsn", "Journal", "Pool", "Report", "SchemaRefused", "migrate"]
