"""PgBouncer before a test's database. In transaction mode, as Supabase's port 6543 is, a connection is ours for one transaction only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fubd.store.dsn import parse
from tests.support.databases import url_of
from tests.support.ports import free_port
from tests.support.programs import needs
from tests.support.waiting import eventually

_CONFIGURATION = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
default_pool_size = 8
"""


@asynccontextmanager
async def pooled(database: str, folder: Path, *, mode: str = "transaction") -> AsyncIterator[str]:
    """Give the URL of the database through a pooler, which runs until the block ends. `mode`: session or transaction."""
    program, dsn, port = needs("pgbouncer"), parse(database), free_port()
    users, configuration = folder / "users", folder / "pgbouncer.ini"
    users.write_text(f'"{dsn.user}" ""\n')
    configuration.write_text(_CONFIGURATION.format(host=dsn.host, server_port=dsn.port, port=port, users=users, mode=mode))
    process = await asyncio.create_subprocess_exec(
        program,
        "-q",
        *(() if (user := _unprivileged(dsn.host)) is None else ("-u", user)),
        str(configuration),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: _listens(port))
        yield url_of(dsn, host="127.0.0.1", port=port) + "&pgbouncer=true"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _unprivileged(host: str) -> str | None:
    """Name whom it runs as: never root, and whoever may enter the folder of the server's socket."""
    if os.geteuid() != 0:
        return None
    socket_folder = Path(host)
    return socket_folder.owner() if socket_folder.is_dir() else "nobody"


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False
