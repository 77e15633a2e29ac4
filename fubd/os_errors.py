"""The words for what the operating system refuses, the same on every platform."""

from __future__ import annotations

import errno
import os

# The words of Unix: on Windows the C library has none for the numbers of sockets, and the event loop raises errors with other numbers.
_REFUSED, _TIMED_OUT, _NO_NETWORK, _NO_ROUTE = ("Connection refused", "Connection timed out", "Network is unreachable", "No route to host")
_OF_SOCKETS = {
    errno.ECONNREFUSED: _REFUSED,
    errno.ETIMEDOUT: _TIMED_OUT,
    errno.ENETUNREACH: _NO_NETWORK,
    errno.EHOSTUNREACH: _NO_ROUTE,
    errno.ECONNRESET: "Connection reset by peer",
    errno.EADDRINUSE: "Address already in use",
}
_OF_WINDOWS = {64: "Connection reset by peer", 121: _TIMED_OUT, 1225: _REFUSED, 1231: _NO_NETWORK, 1232: _NO_ROUTE}


def describe_os_error(error: OSError) -> str:
    """Return what happened in the system's words, without the address that asyncio adds to them."""
    of_windows = _OF_WINDOWS.get(getattr(error, "winerror", None) or 0)
    return of_windows or _OF_SOCKETS.get(error.errno or 0) or os.strerror(error.errno or 0)
