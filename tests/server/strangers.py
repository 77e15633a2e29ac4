"""A program that opens many connections to a server and finishes no request.

python -m tests.server.strangers PORT CONNECTIONS WAVE MILLISECONDS: in waves of so many, so far apart.
"""

from __future__ import annotations

import resource
import socket
import sys
import time

_ONE_BYTE = b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nFUB-Signature: " + b"0" * 64 + b"\r\nContent-Length: 500\r\n\r\n{"
_UNREAD = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20


def main(port: int, connections: int, wave: int, milliseconds: int) -> None:
    """Open them in waves, and keep all of them open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[socket.socket] = []
    while len(opened) < connections:
        opened += [_begin(port, _UNREAD if number % 25 == 0 else _ONE_BYTE) for number in range(wave)]
        time.sleep(milliseconds / 1000)


def _begin(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    try:
        connection.sendall(sent)
    except ConnectionError:
        return connection
    return connection


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
