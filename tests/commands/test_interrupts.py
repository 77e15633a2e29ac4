"""Ctrl-C and SIGTERM from the first moments of a process: no traceback, and the exit code that is promised."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Process, python
from tests.support.waiting import eventually

_SETTINGS = {"FUB_API_KEY": "key-1", "FUB_SYSTEM_KEY": "key-2"}


@pytest.fixture
def silent_database() -> Iterator[str]:
    """Return the URL of a database that never answers, so that a command does not end before its signal arrives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://someone@127.0.0.1:{listener.getsockname()[1]}/stage_changes"


@pytest.mark.parametrize("module", ["argparse", "pydantic_core"])
@pytest.mark.parametrize(
    ("command", "number", "code"), [("status", signal.SIGINT, 130), ("audit", signal.SIGTERM, 143), ("tail", signal.SIGINT, 0)]
)
async def test_a_signal_while_modules_are_imported(
    silent_database: str, tmp_path: Path, module: str, command: str, number: int, code: int
) -> None:
    """It ends the process silently, from the import of the first larger module on; what runs until it is stopped ends with 0."""
    environ = {**_SETTINGS, "DATABASE_URL": silent_database}
    async with python("-X", "importtime", "-m", "fubd", command, environ=environ, folder=tmp_path) as process:
        await _imported(process, module)
        process.signal(number)
        # Which code a signal has before the command line was read does not depend on the command.
        assert await process.ended() in ({code, 130} if module == "argparse" else {code})
    assert process.lines == []
    assert [line for line in process.errors if not line.startswith("import time:")] == []


async def test_help_imports_nothing_large(tmp_path: Path) -> None:
    """The help needs neither an event loop, nor an HTTP library, nor the settings."""
    async with python("-X", "importtime", "-m", "fubd", "--help", environ={}, folder=tmp_path) as process:
        assert await process.ended() == 0
    imported = {line.rpartition("|")[2].strip() for line in process.errors}
    assert imported & {"argparse", "asyncio", "pydantic", "aiohttp", "asyncpg", "rich"} == {"argparse"}


async def _imported(process: Process, module: str) -> None:
    """Wait until the process has imported a module, as `-X importtime` reports on stderr."""
    await eventually(lambda: any(line.rpartition("|")[2].strip() == module for line in process.errors))
