"""A real Chromium, headless, driven over its own protocol by a WebSocket: no driver program and no further package."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.programs import needs

PATIENCE_SECONDS = 20.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en-GB",
    "--remote-debugging-port=0",
)


class Browser:
    """A running browser: sends commands, and hands what it says to the tab concerned."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Page] = {}

    async def listen(self) -> None:
        """Take what the browser says until it says no more."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told.get("sessionId") in self._tabs:
                self._tabs[told["sessionId"]].note(told["method"], told["params"])

    async def send(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        """Give a command, and wait for its answer."""
        number = next(self._numbers)
        command: dict[str, object] = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(command)
        async with asyncio.timeout(PATIENCE_SECONDS):
            told = await answer
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Page]:
        """Open a tab that shares nothing with any other."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        target = await self.send("Target.createTarget", url="about:blank", browserContextId=context)
        session = (await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        page = self._tabs[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.send(f"{domain}.enable")
        await page.send("Emulation.setTimezoneOverride", timezoneId="Europe/Berlin")
        try:
            yield page
        finally:
            del self._tabs[session]
            await self.send("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """One tab. What the page itself logged as an error, and every address it asked for, is kept."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.errors: list[str] = []
        self.asked_for: list[str] = []
        self._browser = browser
        self._session = session
        self.password: str | None = None
        self._loaded = asyncio.Event()
        self._under_way: set[asyncio.Task[dict[str, Any]]] = set()

    def note(self, method: str, params: dict[str, Any]) -> None:
        """Take in what happened in the tab."""
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Network.requestWillBeSent":
            self.asked_for.append(params["request"]["url"])
        elif method == "Fetch.requestPaused":
            self._tell("Fetch.continueRequest", requestId=params["requestId"])
        elif method == "Fetch.authRequired":
            given = {"response": "ProvideCredentials", "username": "", "password": self.password or ""}
            self._tell("Fetch.continueWithAuth", requestId=params["requestId"], authChallengeResponse=given)
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(str(params["entry"]))

    def _tell(self, method: str, **params: object) -> None:
        """Give a command in answer to what happened; its answer matters to nobody."""
        task = asyncio.create_task(self.send(method, **params))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def ask_for_password(self, password: str) -> None:
        """Be somebody who types this when the browser asks for a password."""
        self.password = password
        await self.send("Fetch.enable", handleAuthRequests=True)

    async def send(self, method: str, **params: object) -> dict[str, Any]:
        """Give the tab a command."""
        return await self._browser.send(method, self._session, **params)

    async def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Load an address in a window of so many pixels."""
        await self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._loaded.wait()

    async def value(self, expression: str) -> object:
        """Evaluate JavaScript, waiting for a promise."""
        told = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        value: object = told["result"].get("value")
        return value

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        met = await self.value(
            f"""new Promise((done) => {{
                const look = () => ({condition}) ? done(true) : setTimeout(look, 20);
                setTimeout(() => done(false), {PATIENCE_SECONDS * 900});
                look();
            }})"""
        )
        assert met, f"{condition} did not come true; the page says: {await self.text('body')}"

    async def text(self, selector: str) -> str:
        """Give the text of an element as it is shown."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def press(self, key: str) -> None:
        """Press a key."""
        await self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=_KEY_CODES.get(key, 0))
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=_KEY_CODES.get(key, 0))

    async def picture(self, *, height: int | None = None) -> bytes:
        """Take the whole page, or so much of it from the top, as PNG."""
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])


_KEY_CODES = {"Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Browser]:
    """Run a browser with a fresh profile."""
    process = await asyncio.create_subprocess_exec(
        needs("chromium", "chromium-browser", "google-chrome"),
        *_FLAGS,
        f"--user-data-dir={profile}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            address = await _address(process)
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            browser = Browser(socket)
            listening = asyncio.create_task(browser.listen())
            yield browser
            await browser.send("Browser.close")
            await listening
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    mark = b"DevTools listening on "
    while line := await process.stderr.readline():
        if line.startswith(mark):
            return line.removeprefix(mark).decode().strip()
    raise AssertionError("the browser ended before it listened")
