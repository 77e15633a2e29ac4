"""Programs run to their end, with what they print."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and both of its outputs."""

    code: int
    out: str
    error: str

    @property
    def told(self) -> str:
        """Everything it said, for the message of a failed assertion."""
        return f"ended with {self.code}\n{self.out}{self.error}"


async def run(
    *command: str,
    folder: Path = CHECKOUT,
    environ: Mapping[str, str] | None = None,
    given: bytes | None = None,
    within_seconds: float = 120.0,
) -> Ended:
    """Run a program. `environ`: its whole environment, ours when None; `given`: what it reads from its stdin, nothing when None."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=dict(os.environ if environ is None else environ),
    )
    try:
        async with asyncio.timeout(within_seconds):
            out, error = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode or 0, out.decode(), error.decode())
