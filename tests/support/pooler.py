"""A pooler between a client and a Postgres server: PgBouncer, in the mode that a test wants."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fubd.store.dsn import Dsn, parse
from tests.support.databases import url_of
from tests.support.ports import free_port
from tests.support.programs import needs
from tests.support.waiting import eventually

_NOBODY = 65_534


@asynccontextmanager
async def pooled_by(mode: str, database_url: str) -> AsyncIterator[str]:
    """Give the URL of a database through a pooler. `mode`: session or transaction."""
    program = needs("pgbouncer")
    upstream = parse(database_url)
    port = free_port()
    folder, user = _configured(upstream, mode, port)
    process = await asyncio.create_subprocess_exec(
        program,
        "-q",
        str(folder / "pgbouncer.ini"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        user=user,
    )
    try:
        await eventually(lambda: _listens(port))
        yield url_of(upstream, host="127.0.0.1", port=port)
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _configured(upstream: Dsn, mode: str, port: int) -> tuple[Path, int | None]:
    """Write its files; give their folder, and the user it must run as: it refuses to be root."""
    folder = Path(tempfile.mkdtemp(prefix="fubd-pooler-"))
    users = folder / "users.txt"
    users.write_text(f'"{upstream.user}" "{upstream.password}"\n')
    password = f" password={upstream.password}" if upstream.password else ""
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={upstream.host} port={upstream.port}{password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {users}\n"
        f"pool_mode = {mode}\ndefault_pool_size = 4\n"
    )
    if os.geteuid() != 0:
        return folder, None
    # The embedded server's socket is its owner's alone.
    user = Path(upstream.host).stat().st_uid if upstream.host.startswith("/") else _NOBODY
    for path in (folder, *folder.iterdir()):
        os.chown(path, user, -1)
    return folder, user


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
