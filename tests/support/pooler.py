"""PgBouncer in front of a database. In transaction mode (Supabase's port 6543) a server connection is ours for one transaction only."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fubd.store.dsn import parse
from tests.support.databases import url_of
from tests.support.ports import free_port
from tests.support.programs import require_program
from tests.support.waiting import eventually

# Round robin is the harder case: a client hardly ever gets the same server connection twice.
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
max_client_conn = 500
server_round_robin = {round_robin}
server_login_retry = 1
"""


class Pooler:
    """A PgBouncer in front of the server of one database; `url` is that database through it."""

    def __init__(self, database: str, folder: Path) -> None:
        self._server = parse(database)
        self._folder = folder
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The URL of the database through the pooler."""
        return url_of(self._server, host="127.0.0.1", port=self._port) + "&pgbouncer=true"

    async def start(self, mode: str, *, round_robin: bool) -> None:
        """Start it, and wait until it listens."""
        program = require_program("pgbouncer")
        (self._folder / "users").write_text(f'"{self._server.user}" ""\n')
        self._configure(mode, round_robin=round_robin)
        user = _unprivileged(self._server.host)
        self._process = await asyncio.create_subprocess_exec(
            program,
            "-q",
            *(() if user is None else ("-u", user)),
            str(self._folder / "pgbouncer.ini"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await eventually(self._is_listening)

    def change_mode(self, mode: str) -> None:
        """Change the mode, also for open connections."""
        self._configure(mode, round_robin=True)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Stop it, and wait until it has ended."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _configure(self, mode: str, *, round_robin: bool) -> None:
        text = _CONFIGURATION.format(
            host=self._server.host,
            server_port=self._server.port,
            port=self._port,
            users=self._folder / "users",
            mode=mode,
            round_robin=int(round_robin),
        )
        (self._folder / "pgbouncer.ini").write_text(text)

    async def _is_listening(self) -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.close()
            await writer.wait_closed()
            return True
        return False


@asynccontextmanager
async def pooled(database: str, *, mode: str = "transaction", round_robin: bool = True) -> AsyncIterator[Pooler]:
    """Run a pooler in front of a database until the block ends. `mode`: session or transaction.

    `round_robin`: it uses its server connections in turn; otherwise the one that was released last.
    """
    folder = _new_folder()
    pooler = Pooler(database, folder)
    try:
        await pooler.start(mode, round_robin=round_robin)
        yield pooler
    finally:
        await pooler.stop()
        shutil.rmtree(folder)


def _new_folder() -> Path:
    """Create a folder that the user of the pooler can read."""
    folder = Path(tempfile.mkdtemp(prefix="fubd-pooler-"))
    folder.chmod(0o755)
    return folder


def _unprivileged(host: str) -> str | None:
    """Return the user to run as: never root, and allowed to read the folder of the server's socket. None: the present user."""
    if os.geteuid() != 0:
        return None
    socket_folder = Path(host)
    return socket_folder.owner() if socket_folder.is_dir() else "nobody"
