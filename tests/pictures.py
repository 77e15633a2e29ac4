"""The README's pictures, made from the real program, so that they show what a user will see.

    python -m tests.pictures

runs `fubd demo` in a terminal of its own with the status page in Chromium next to it, and writes deploy/demo.svg, the terminal at the end
of the failover, and deploy/status-page.png, the page once the webhooks have recovered. All names are the simulated account's inventions.
Linux and macOS.
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import struct
import sys
import tempfile
from contextlib import suppress
from fcntl import ioctl
from functools import partial
from pathlib import Path
from termios import TIOCSWINSZ

from rich.console import Console
from rich.text import Text

from tests.support.waiting import eventually
from tests.web.browser import browsing

_DEPLOY = Path(__file__).parents[1] / "deploy"
TERMINAL_PICTURE = _DEPLOY / "demo.svg"
PAGE_PICTURE = _DEPLOY / "status-page.png"
_COLUMNS, _LINES = 110, 32
_PAGE_WIDTH, _PAGE_HEIGHT = 1280, 1320
_STORY_WITHIN_SECONDS = 240.0
# The demo draws each frame from the top left corner of the screen.
_HOME = "\x1b[H"
_MODE_SWITCH = re.compile(r"\x1b\[\?\d+[hl]")
_URL = re.compile(r"http://[\w.]+:\d+/")
_IS_FAILING = "document.querySelector('#mode').dataset.mode === 'failover'"
_HAS_RECOVERED = "document.querySelector('#mode').dataset.mode === 'steady'"
_IS_HEALTHY = "document.querySelectorAll('.source[data-state=healthy]').length === 2"


class Terminal:
    """What a program wrote to its terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._output = b""

    def read_all(self) -> None:
        """Read until the program has closed its end."""
        # Linux reports an error then.
        with suppress(OSError):
            while data := os.read(self._descriptor, 65536):
                self._output += data

    def frames(self) -> list[str]:
        """Return every screen that was drawn, as text with colour codes."""
        return self._output.decode(errors="replace").split(_HOME)


async def draw_both() -> None:
    """Run the demo once and write both pictures."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fubd", "demo", stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    terminal = Terminal(ours)
    reading = asyncio.create_task(asyncio.to_thread(terminal.read_all))
    url = await eventually(lambda: _URL.search("".join(terminal.frames())), _STORY_WITHIN_SECONDS)
    await photograph_page(url[0])
    assert await process.wait() == 0
    await reading
    os.close(ours)
    failover = [frame for frame in terminal.frames() if "FAILOVER" in frame and "The webhooks fail" in frame]
    TERMINAL_PICTURE.write_text(draw_screen(failover[-1]), encoding="utf-8")


async def photograph_page(url: str) -> None:
    """Follow the story on the status page, and write its picture once the webhooks work again."""
    with tempfile.TemporaryDirectory() as profile:
        async with browsing(Path(profile)) as browser, browser.tab() as page:
            await page.open(url, width=_PAGE_WIDTH)
            for condition in (_IS_FAILING, f"{_HAS_RECOVERED} && {_IS_HEALTHY}"):
                await eventually(partial(page.value, condition), _STORY_WITHIN_SECONDS)
            PAGE_PICTURE.write_bytes(await page.picture(height=_PAGE_HEIGHT))


def draw_screen(frame: str) -> str:
    """Return one screen of the terminal as an SVG picture."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, file=nowhere, width=_COLUMNS, force_terminal=True, color_system="truecolor")
        for line in _MODE_SWITCH.sub("", frame).splitlines()[:_LINES]:
            console.print(Text.from_ansi(line), no_wrap=True, crop=True)
        return console.export_svg(title="python -m fubd demo", unique_id="demo")


if __name__ == "__main__":
    asyncio.run(draw_both())
