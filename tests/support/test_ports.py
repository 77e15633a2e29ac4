"""Ports that tests choose for the programs they start."""

from __future__ import annotations

import socket
import sys
from asyncio import create_subprocess_exec, subprocess
from pathlib import Path

from tests.support.ports import free_port

_ROOT = Path(__file__).parents[2]
_PRINT_PORTS = "from tests.support.ports import free_port; print(*(free_port() for _ in range(50)), flush=True); input()"


async def test_two_test_processes_never_choose_the_same_port() -> None:
    """Each has ports of its own, also while the other has not yet started what it chose a port for."""
    program = (sys.executable, "-c", _PRINT_PORTS)
    other = await create_subprocess_exec(*program, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    theirs = {int(port) for port in (await other.stdout.readline()).split()}
    ours = {free_port() for _ in range(500)}
    await other.communicate(b"\n")
    assert len(theirs) == 50
    assert not ours & theirs


def test_a_port_that_is_listened_on_is_not_chosen() -> None:
    """Nor is one that the system gives to outgoing connections."""
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        chosen = {free_port() for _ in range(500)}
    assert taken not in chosen
    assert max(chosen) < 32_768
