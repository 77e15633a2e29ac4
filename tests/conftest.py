"""Fixtures for every test: databases of a real Postgres."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fubd.store import embedded
from tests.stack import Stack, running_stack
from tests.support.databases import Databases
from tests.support.pooler import pooled

_MEMORY = Path("/dev") / "shm"
# The write-ahead log alone may take one gibibyte, for each worker.
_ROOM_BYTES = 8 * 1024**3

# Many containers ask Python not to keep what it compiled. Each worker would compile the tests again, for nine seconds of a core.
sys.dont_write_bytecode = False

# The speed of the machine says nothing about the code, and the ordinary run must not depend on chance: the same examples every time.
# `--hypothesis-profile long` draws new ones, many more of them.
settings.register_profile("ordinary", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ordinary")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for `-n auto`: one more than cores, because tests of whole processes mostly wait.

    None for single tests, whose start would take longer than they do.
    """
    return 0 if any("::" in argument for argument in config.args) else (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the URL of a server: FUBD_TEST_DATABASE_URL, whose user may create databases, or the embedded one."""
    given = os.environ.get("FUBD_TEST_DATABASE_URL")
    if given:
        yield given
    else:
        with embedded.temporary_server(parent=_memory()) as url:
            yield url


def _memory() -> Path | None:
    """Return a folder in memory with room for the server's data, if there is one: creating a database's 300 files costs far less there."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES else None


@pytest.fixture(scope="session")
def databases(postgres: str) -> Iterator[Databases]:
    """Return a factory of databases on that server."""
    databases = Databases(postgres)
    yield databases
    asyncio.run(databases.close())


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[str]:
    """Return the URL of a new database with the current schema."""
    async with databases.migrated() as url:
        yield url


@pytest.fixture
async def empty_database(databases: Databases) -> AsyncIterator[str]:
    """Return the URL of a new database without a schema."""
    async with databases.empty() as url:
        yield url


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Yield an empty folder for temporary files that a server of another user can traverse."""
    with tempfile.TemporaryDirectory() as folder:
        folder_path = Path(folder)
        folder_path.chmod(0o711)
        yield folder_path


@pytest.fixture(params=["direct", "transaction pooler"])
async def fubd_database(request: pytest.FixtureRequest, database: str) -> AsyncIterator[str]:
    """Return the URL by which fubd reaches `database`: directly, and in a second run through a transaction pooler."""
    if request.param == "direct":
        yield database
    else:
        async with pooled(database) as pooler:
            yield pooler.url


@pytest.fixture
async def ready_stack(database: str, fubd_database: str, tmp_path: Path) -> AsyncIterator[Stack]:
    """Return a stack whose daemon is ready."""
    async with running_stack(database, tmp_path, daemon_dsn=fubd_database) as stack, stack.ready_daemon():
        yield stack
