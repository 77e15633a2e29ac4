"""Ctrl-C and SIGTERM from the first moments of a process: no traceback, and the exit code that is promised."""

from __future__ import annotations

import select
import signal
import socket
from pathlib import Path

import pytest

from tests.support.process import Process, python
from tests.support.waiting import eventually

_SETTINGS = {"FUB_API_KEY": "key-1", "FUB_SYSTEM_KEY": "key-2"}
_CONNECTING = "connecting"


@pytest.mark.parametrize("moment", ["argparse", "pydantic_core", _CONNECTING])
@pytest.mark.parametrize(
    ("command", "number", "code"), [("status", signal.SIGINT, 130), ("audit", signal.SIGTERM, 143), ("tail", signal.SIGINT, 0)]
)
async def test_a_signal_before_the_work_has_begun(tmp_path: Path, moment: str, command: str, number: int, code: int) -> None:
    """It ends the process silently, from the import of the first larger module on; what runs until it is stopped ends with 0.

    The database never answers, so no command ends before its signal arrives, however late.
    """
    with socket.create_server(("127.0.0.1", 0)) as database:
        environ = {**_SETTINGS, "DATABASE_URL": f"postgresql://someone@127.0.0.1:{database.getsockname()[1]}/stage_changes"}
        async with python("-X", "importtime", "-m", "fubd", command, environ=environ, folder=tmp_path) as process:
            await eventually(lambda: _is_connected(database) if moment == _CONNECTING else moment in _imported(process))
            process.signal(number)
            # Until the command line was read, the code does not depend on the command.
            assert await process.ended() in ({code, 130} if moment == "argparse" else {code})
    assert process.lines == []
    assert [line for line in process.errors if not line.startswith("import time:")] == []


async def test_help_imports_nothing_large(tmp_path: Path) -> None:
    """The help needs neither an event loop, nor an HTTP library, nor the settings."""
    async with python("-X", "importtime", "-m", "fubd", "--help", environ={}, folder=tmp_path) as process:
        assert await process.ended() == 0
    assert _imported(process) & {"argparse", "asyncio", "pydantic", "aiohttp", "asyncpg", "rich"} == {"argparse"}


def _is_connected(database: socket.socket) -> bool:
    return bool(select.select([database], [], [], 0)[0])


def _imported(process: Process) -> set[str]:
    """Return the modules that the process has imported so far, as `-X importtime` reports on stderr."""
    return {line.rpartition("|")[2].strip() for line in process.errors}
