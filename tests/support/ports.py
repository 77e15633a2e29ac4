"""Free ports of this machine."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import cache
from itertools import cycle

# Below the ports that Linux (from 32768), macOS and Windows (from 49152) give to outgoing connections and to servers that ask for any
# port: one that was free a moment ago is not given away before the program under test listens on it.
_FIRST, _LAST = 10_000, 32_000
_PORTS_PER_PROCESS = 500


def free_port() -> int:
    """Return a port that nothing listens on and that no other test process gets. A server that can choose its port itself should."""
    ports = _own_ports()
    for _ in range(_PORTS_PER_PROCESS):
        port = next(ports)
        with suppress(OSError), _bound(port):
            return port
    raise AssertionError("every port of this test process is in use")


@cache
def _own_ports() -> cycle[int]:
    """Return this process's ports: those after the first port that it could bind, which it holds until it ends."""
    for first in range(_FIRST, _LAST, _PORTS_PER_PROCESS):
        with suppress(OSError):
            _held.append(_bound(first))
            return cycle(range(first + 1, first + _PORTS_PER_PROCESS))
    raise AssertionError(f"no free ports between {_FIRST} and {_LAST}")


_held: list[socket.socket] = []


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound
