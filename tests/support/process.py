"""Real processes: `python -m fubd …` as a user or a platform starts and ends it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from tests.support import forks
from tests.support.environ import complete
from tests.support.waiting import eventually

_MAX_LINE_BYTES = 1024 * 1024
# The names of variables that Python, or a library that it has imported, reads once at its start.
_READ_AT_START = ("PYTHON", "LC_", "LD_", "TZ", "SSL_")


class Process:
    """A running process. `lines` is its stdout so far, `errors` its stderr."""

    def __init__(self, process: asyncio.subprocess.Process | forks.Fork) -> None:
        self._process = process
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            asyncio.create_task(_read(process.stdout, self.lines)),
            asyncio.create_task(_read(process.stderr, self.errors)),
        ]

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, the negative number of the signal that ended it, or None while it runs."""
        return self._process.returncode

    async def line(self, wanted: str | Callable[[str], bool], within_seconds: float = 60.0) -> str:
        """Wait for a line of stdout that contains the text, or for which the function returns True, and return it."""
        holds = wanted if callable(wanted) else lambda line: wanted in line

        def found() -> str | None:
            hit = next((line for line in self.lines if holds(line)), None)
            if hit is None and self.code is not None:
                # Nothing more will be written; the readers may still have the last lines.
                assert not all(reader.done() for reader in self._readers), f"ended with {self.code}: {self.errors[-5:]}"
            return hit

        return await eventually(found, within_seconds)

    async def answers(self, url: str, status: int = 200, within_seconds: float = 60.0) -> bytes:
        """Wait until a URL answers with this status, and return the body."""
        async with aiohttp.ClientSession() as session:

            async def body() -> bytes | None:
                assert self.code is None, f"ended with {self.code}: {self.errors[-5:]}"
                with suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        text = await answer.read()
                        return text or b" " if answer.status == status else None
                return None

            return await eventually(body, within_seconds)

    def write_line(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None, "started without an input"
        self._process.stdin.write(f"{line}\n".encode())

    def terminate(self) -> None:
        """Send SIGTERM."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send any signal."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self, within_seconds: float = 60.0) -> int:
        """Wait for the end of the process and for its last line, and return the exit code."""
        async with asyncio.timeout(within_seconds):
            code = await self._process.wait()
            await asyncio.gather(*self._readers)
        return code


@asynccontextmanager
async def fubd(*arguments: str, environ: Mapping[str, str] | None = None, folder: Path, forked: bool = True) -> AsyncIterator[Process]:
    """Run `fubd ARGUMENTS` until the block ends, in a folder (whose .env it reads) and with only these settings.

    `forked`: not by starting Python, but in a fork of a process that has imported fubd.
    """
    if forked and sys.platform == "linux" and not any(name.startswith(_READ_AT_START) for name in environ or ()):
        started = await forks.start(arguments, environ=complete(environ), folder=folder, limit=_MAX_LINE_BYTES)
        async with _until_the_end(Process(started)) as process:
            yield process
    else:
        async with python("-m", "fubd", *arguments, environ=environ, folder=folder) as process:
            yield process


@asynccontextmanager
async def python(
    *arguments: str, environ: Mapping[str, str] | None = None, folder: Path, user: int | None = None, has_input: bool = False
) -> AsyncIterator[Process]:
    """Run this Python with arguments until the block ends. `user`: the id of the user it runs as, which requires root."""
    async with program(sys.executable, *arguments, environ=environ, folder=folder, user=user, has_input=has_input) as process:
        yield process


@asynccontextmanager
async def program(
    path: str | Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    folder: Path,
    user: int | None = None,
    has_input: bool = False,
) -> AsyncIterator[Process]:
    """Run any program until the block ends; the arguments are those of `python`."""
    started = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        stdin=asyncio.subprocess.PIPE if has_input else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
        cwd=folder,
        user=user,
        env=complete(environ),
    )
    async with _until_the_end(Process(started)) as process:
        yield process


@asynccontextmanager
async def _until_the_end(process: Process) -> AsyncIterator[Process]:
    try:
        yield process
    finally:
        process.kill()
        await process.ended()


async def _read(stream: asyncio.StreamReader | None, lines: list[str]) -> None:
    while stream is not None and (line := await stream.readline()):
        lines.append(line.decode(errors="replace").rstrip("\n"))
