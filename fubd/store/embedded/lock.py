"""A lock on a file, shared or exclusive, that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from fubd.errors import Unavailable

_TIMEOUT_SECONDS = 120.0
_RETRY_SECONDS = 0.02


class FileLock:
    """Opens the file at once; closing it, or the end of the process, releases the lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._file)

    def acquire_shared(self) -> None:
        """Acquire the lock together with others. Raises BlockingIOError when another process holds it exclusively."""
        fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def try_exclusive(self) -> bool:
        """Acquire the lock exclusively; False when another process holds it, and then a shared lock of ours is lost too."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire_exclusive(self) -> None:
        """Wait until the lock can be acquired exclusively. Raises Unavailable when that takes too long."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not self.try_exclusive():
            if time.monotonic() > deadline:
                raise Unavailable(f"another process has held {self._path} for {_TIMEOUT_SECONDS:.0f} s")
            time.sleep(_RETRY_SECONDS)
