"""Starts a server again when it has died, for as long as this process uses it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fubd.errors import Unavailable

_log = logging.getLogger("fubd.embedded")

_LOOK_EVERY_SECONDS = 0.5
_RETRY_SECONDS = 5.0

# Is called with what happened, and with None when the server runs again.
OnFault = Callable[[str | None], None]


def log_fault(reason: str | None) -> None:
    """Log a fault, for programs without problems to report it as."""
    if reason is None:
        _log.info("The embedded Postgres runs again.")
    else:
        _log.warning("%s", reason)


@contextmanager
def supervised(is_alive: Callable[[], bool], restart: Callable[[], None], home: Path, on_fault: OnFault) -> Iterator[None]:
    """Look after a server during the block, from a thread of its own: an event loop may be waiting for the database."""
    stop = threading.Event()
    thread = threading.Thread(target=_supervise, args=(is_alive, restart, home, on_fault, stop), name="embedded-postgres", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _supervise(is_alive: Callable[[], bool], restart: Callable[[], None], home: Path, on_fault: OnFault, stop: threading.Event) -> None:
    while not stop.wait(_LOOK_EVERY_SECONDS):
        if is_alive():
            continue
        on_fault(f"the embedded Postgres in {home} has ended; it is being started again")
        while not _try(restart, on_fault):
            if stop.wait(_RETRY_SECONDS):
                return
        on_fault(None)


def _try(restart: Callable[[], None], on_fault: OnFault) -> bool:
    try:
        restart()
    except Unavailable as error:
        on_fault(f"{error}; it is tried again every {_RETRY_SECONDS:.0f} s")
        return False
    return True
