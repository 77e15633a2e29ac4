"""A lock on a file, shared or exclusive, that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from fubd.errors import Unavailable

_PATIENCE_SECONDS = 120.0
_GLANCE_SECONDS = 0.02


class Lock:
    """Opened when made; closing it, or the end of the process, gives it back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._file)

    def share(self) -> None:
        """Hold it with others. Raises BlockingIOError when another holds it alone."""
        fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def try_exclusive(self) -> bool:
        """Hold it alone, unless another holds it: then nothing is held any more."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def exclusive(self) -> None:
        """Hold it alone, waiting for whoever has it. Raises Unavailable when that takes too long."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self.try_exclusive():
            if time.monotonic() > deadline:
                raise Unavailable(f"another process has held {self._path} for {_PATIENCE_SECONDS:.0f} s")
            time.sleep(_GLANCE_SECONDS)
