"""The README's picture of the demo, made from the real program, so that it shows what a user will see.

    python -m tests.pictures

runs the demo in a terminal of its own and writes deploy/demo.svg: the screen at the end of the failover. Linux and macOS.
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import struct
import sys
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "deploy" / "demo.svg"
_COLUMNS, _LINES = 110, 32
# The demo draws each frame from the top left corner of the screen.
_HOME = "\x1b[H"
_MODE_SWITCH = re.compile(r"\x1b\[\?\d+[hl]")


async def record_frames() -> list[str]:
    """Run the demo and return every screen that it draws, as text with colour codes."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fubd", "demo", stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    output = await asyncio.to_thread(_read_all, ours)
    os.close(ours)
    assert await process.wait() == 0
    return output.decode(errors="replace").split(_HOME)


def _read_all(terminal: int) -> bytes:
    output = b""
    # Linux reports an error when the program has closed its end of the terminal.
    with suppress(OSError):
        while data := os.read(terminal, 65536):
            output += data
    return output


def draw(frame: str) -> str:
    """Return one screen as an SVG picture."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, file=nowhere, width=_COLUMNS, force_terminal=True, color_system="truecolor")
        for line in _MODE_SWITCH.sub("", frame).splitlines()[:_LINES]:
            console.print(Text.from_ansi(line), no_wrap=True, crop=True)
        return console.export_svg(title="python -m fubd demo", unique_id="demo")


if __name__ == "__main__":
    frames = asyncio.run(record_frames())
    PICTURE.write_text(draw([frame for frame in frames if "FAILOVER" in frame and "The webhooks fail" in frame][-1]), encoding="utf-8")
