"""Starts `fubd` in forks of one process that has imported it, which saves each start most of its CPU time. On Linux only.

A fork is a process like any other, with its own id, environment, folder, streams and exit code. Left out is only what happens before fubd
reads its command line. `python -m tests.support.forks` is the process that forks; its stdin is a socket, with whose other end it ends.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn

from fubd import commands
from fubd.__main__ import main
from tests.support.environ import CHECKOUT, complete

_LONGEST_ORDER_BYTES = 128 * 1024
# Of an order: stdin, stdout, stderr, and a pipe for the process id and the exit code.
_DESCRIPTORS = 4


class Fork:
    """A process with what is used of asyncio's processes."""

    stdin = None

    def __init__(self, pid: int, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader, code: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self._code = asyncio.create_task(_number(code.read()))

    @property
    def returncode(self) -> int | None:
        """The exit code, the negative number of the signal that ended it, or None while it runs."""
        return self._code.result() if self._code.done() else None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        return await asyncio.shield(self._code)


async def start(arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, limit: int) -> Fork:
    """Start `fubd ARGUMENTS` with exactly this environment, in a folder. `limit` is that of a line of its streams."""
    pipes = _send({"arguments": arguments, "environ": dict(environ), "folder": str(folder)})
    stdout, stderr, reply = [await _reading(pipe, limit) for pipe in pipes]
    return Fork(await _number(reply.readline()), stdout, stderr, reply)


def _send(order: Mapping[str, object]) -> list[int]:
    """Send an order, and return the descriptors from which stdout, stderr and the reply are read."""
    pipes = [os.pipe() for _ in range(3)]
    sent = [os.open(os.devnull, os.O_RDONLY), *(write for _, write in pipes)]
    socket.send_fds(_forking_process(), [json.dumps(order).encode()], sent)
    for descriptor in sent:
        os.close(descriptor)
    return [read for read, _ in pipes]


async def _reading(descriptor: int, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb"))
    return reader


async def _number(reply: Awaitable[bytes]) -> int:
    text = await reply
    assert text, "the process that forks has ended"
    return int(text)


@cache
def _forking_process() -> socket.socket:
    """Start the process that forks, and return the socket for its orders."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen([sys.executable, "-m", "tests.support.forks"], stdin=its.fileno(), cwd=CHECKOUT, env=complete())

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(orders: socket.socket) -> None:
    """Fork for each order until the other end of the socket is closed."""
    # By a pipe whose other end only the fork has, which tells when it has ended.
    forks: dict[int, tuple[int, int]] = {}
    while True:
        ready, _, _ = select.select([orders.fileno(), *forks], [], [])
        for ended in forks.keys() & set(ready):
            _report_end(ended, *forks.pop(ended))
        if orders.fileno() not in ready:
            continue
        order, descriptors, _, _ = socket.recv_fds(orders, _LONGEST_ORDER_BYTES, _DESCRIPTORS)
        if not order:
            return
        *streams, reply = descriptors
        ended, alive = os.pipe()
        process_id = os.fork()
        if process_id == 0:
            orders.close()
            for descriptor in (ended, reply, *forks, *(reply for _, reply in forks.values())):
                os.close(descriptor)
            _run(json.loads(order), streams)
        for descriptor in (alive, *streams):
            os.close(descriptor)
        os.write(reply, f"{process_id}\n".encode())
        forks[ended] = process_id, reply


def _report_end(ended: int, process_id: int, reply: int) -> None:
    _, status = os.waitpid(process_id, 0)
    # Nobody reads it where the test has given up.
    with suppress(BrokenPipeError):
        os.write(reply, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(ended)
    os.close(reply)


def _run(order: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["folder"])
    # As with `python -m fubd`.
    sys.path[0] = order["folder"]
    sys.exit(main(order["arguments"]))


if __name__ == "__main__":
    for module in iter_modules(commands.__path__, f"{commands.__name__}."):
        import_module(module.name)
    # What is imported is the same in each fork: a search for garbage there would copy all of its memory.
    gc.freeze()
    _serve(socket.socket(fileno=os.dup(0)))
