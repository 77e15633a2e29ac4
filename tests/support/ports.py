"""Ports of this machine."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Give a port that nobody listened on a moment ago. Where the server can choose (PORT=0), let it choose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
