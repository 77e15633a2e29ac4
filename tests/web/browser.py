"""A headless Chromium, controlled by its DevTools protocol over a WebSocket: no driver program and no other package."""

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

from tests.support.programs import require_program

PATIENCE_SECONDS = 60.0
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
    """A running browser: sends commands, and passes events to their tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Page] = {}

    async def listen(self) -> None:
        """Receive messages until the browser closes the connection."""
        async for message in self._socket:
            received = json.loads(message.data)
            if "id" in received:
                self._answers.pop(received["id"]).set_result(received)
            elif received.get("sessionId") in self._tabs:
                self._tabs[received["sessionId"]].on_event(received["method"], received["params"])

    async def send(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        command: dict[str, object] = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(command)
        async with asyncio.timeout(PATIENCE_SECONDS):
            received = await answer
        assert "error" not in received, received
        result: dict[str, Any] = received["result"]
        return result

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Page]:
        """Open a tab with its own browser context."""
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
    """One tab. It keeps the errors that the page logged and the addresses it requested."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.errors: list[str] = []
        self.requested: list[str] = []
        self._browser = browser
        self._session = session
        self.password: str | None = None
        self._loaded = asyncio.Event()
        self._tasks: set[asyncio.Task[dict[str, Any]]] = set()

    def on_event(self, method: str, params: dict[str, Any]) -> None:
        """Handle an event of the tab."""
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Fetch.requestPaused":
            self._send_later("Fetch.continueRequest", requestId=params["requestId"])
        elif method == "Fetch.authRequired":
            credentials = {"response": "ProvideCredentials", "username": "", "password": self.password or ""}
            self._send_later("Fetch.continueWithAuth", requestId=params["requestId"], authChallengeResponse=credentials)
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(str(params["entry"]))

    def _send_later(self, method: str, **params: object) -> None:
        """Send a command in response to an event, without waiting for its result."""
        task = asyncio.create_task(self.send(method, **params))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answer_password_prompts(self, password: str) -> None:
        """Type this password when the browser asks for one."""
        self.password = password
        await self.send("Fetch.enable", handleAuthRequests=True)

    async def send(self, method: str, **params: object) -> dict[str, Any]:
        """Send the tab a command and return its result."""
        return await self._browser.send(method, self._session, **params)

    async def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Load an address in a window of this width in pixels."""
        await self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._loaded.wait()

    async def value(self, expression: str) -> object:
        """Evaluate JavaScript and return its value, awaiting a promise."""
        evaluated = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in evaluated, evaluated
        value: object = evaluated["result"].get("value")
        return value

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        met = await self.value(
            f"""new Promise((done) => {{
                const check = () => ({condition}) ? done(true) : setTimeout(check, 20);
                setTimeout(() => done(false), {PATIENCE_SECONDS * 900});
                check();
            }})"""
        )
        assert met, f"{condition} did not become true; the page shows: {await self.text('body')}"

    async def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def press(self, key: str) -> None:
        """Press a key."""
        described = {"key": key, "code": key, "windowsVirtualKeyCode": _KEY_CODES.get(key, 0)}
        # Chromium clicks a focused button by the character of the key, not by its code.
        await self.send("Input.dispatchKeyEvent", type="keyDown", **described, **({"text": "\r"} if key == "Enter" else {}))
        await self.send("Input.dispatchKeyEvent", type="keyUp", **described)

    async def picture(self, *, height: int | None = None) -> bytes:
        """Return a PNG of the whole page, or of its top `height` pixels."""
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])


_KEY_CODES = {"Enter": 13, "Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Browser]:
    """Run a browser with a fresh profile."""
    process = await asyncio.create_subprocess_exec(
        require_program("chromium", "chromium-browser", "google-chrome"),
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
    prefix = b"DevTools listening on "
    while line := await process.stderr.readline():
        if line.startswith(prefix):
            return line.removeprefix(prefix).decode().strip()
    raise AssertionError("the browser ended before it listened")
