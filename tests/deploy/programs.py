"""Run a program to its end and keep its output."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit code and both of its outputs."""

    code: int
    out: str
    error: str

    @property
    def report(self) -> str:
        """Exit code and output, as the message of a failed assertion."""
        return f"ended with {self.code}\n{self.out}{self.error}"


async def run(
    *command: str,
    folder: Path = CHECKOUT,
    environ: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_seconds: float = 600.0,
) -> Ended:
    """Run a program until it ends. `environ`: its whole environment, ours when None; `stdin`: its input, none when None."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=dict(os.environ if environ is None else environ),
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            out, error = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode or 0, out.decode(), error.decode())
