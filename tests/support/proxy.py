"""A network that can fail: a proxy of ours between a client and a Postgres server, with switches."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from fubd.store.dsn import parse
from tests.support.databases import url_of

_CHUNK = 64 * 1024
_CHUNKS_UNDER_WAY = 256
_TYPED_HEADER = 5
_COMMIT = re.compile(rb"(?:^|;)\s*(?:COMMIT|END)\b", re.IGNORECASE)
# SSLRequest and GSSENCRequest.
_BEFORE_START = (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")
# ReadyForQuery, the last message of every answer, before its one byte of status.
_READY = b"Z\x00\x00\x00\x05"


class Proxy:
    """Listens on a loopback port; `dsn` is the URL through it. Plaintext only, which is what loopback addresses speak here.

    Switches, each for what flows from now on:
    `delay_seconds`: how much later every byte arrives, in each direction.
    `blackhole`: nothing arrives, nothing is refused; what was sent arrives when it is switched off.
    `lost_commit_replies`: of so many coming COMMITs the server's answer is swallowed, and the connection cut.
    `refusal`: a SQLSTATE and a text with which every log-in is refused, as a server or a pooler does.
    `cut_after_bytes`: once so many more bytes, of both directions together, have gone by, the connection they go by on is cut; then None.
    `connections`: how many were accepted so far; `commits`: how many COMMITs went by;
    `bytes`: how many bytes.
    """

    def __init__(self, database_url: str) -> None:
        self._upstream = parse(database_url)
        self.delay_seconds = 0.0
        self.lost_commit_replies = 0
        self.refusal: tuple[str, str] | None = None
        self.cut_after_bytes: int | None = None
        self.bytes = 0
        self.connections = 0
        self.commits = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.refuse()
        await self.cut()

    @property
    def dsn(self) -> str:
        """The database's URL, through the proxy."""
        return url_of(self._upstream, host="127.0.0.1", port=self._port)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def blackhole(self) -> bool:
        """Whether everything stands still."""
        return not self._flowing.is_set()

    @blackhole.setter
    def blackhole(self, on: bool) -> None:
        if on:
            self._flowing.clear()
        else:
            self._flowing.set()

    def deafen(self) -> None:
        """Let nothing more arrive on the connections under way, for good, and tell nobody; new ones are whole."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def accept(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections; those under way go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _allowed(self, data: bytes) -> bytes:
        """Give what of it goes by before the cut."""
        if self.cut_after_bytes is not None:
            kept = data[: self.cut_after_bytes]
            self.cut_after_bytes = None if len(kept) < len(data) else self.cut_after_bytes - len(kept)
            data = kept
        self.bytes += len(data)
        return data

    async def cut(self) -> None:
        """Break every connection under way."""
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        # The transports that were aborted close in the next turn of the loop.
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        self.connections += 1
        try:
            await self._connect(reader, writer)
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = self._upstream
        with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError, _Cut):
            if self.refusal is not None:
                # Its first message tells nothing that matters here.
                await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
                writer.write(_error(*self.refusal))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                return
            if upstream.host.startswith("/"):
                server_reader, server_writer = await asyncio.open_unix_connection(f"{upstream.host}/.s.PGSQL.{upstream.port}")
            else:
                server_reader, server_writer = await asyncio.open_connection(upstream.host, upstream.port)
            try:
                await self._relay(reader, writer, server_reader, server_writer)
            finally:
                server_writer.transport.abort()

    async def _relay(
        self,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        sent = _Sent()
        answer = _Answer()

        def watch(data: bytes) -> bytes:
            commits = sent.commits(data)
            self.commits += commits
            if commits and self.lost_commit_replies:
                self.lost_commit_replies -= 1
                answer.swallowed = True
            return data

        tasks = [*self._direction(client_reader, server_writer, watch), *self._direction(server_reader, client_writer, answer.passed)]
        try:
            # When one side is done the other has nobody to talk to: this is how a broken network ends too.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _direction(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: Callable[[bytes], bytes]
    ) -> list[asyncio.Task[None]]:
        """Carry bytes one way: one task takes them in, the other hands them out when they are due."""
        loop = asyncio.get_running_loop()
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        flowing = self._flowing

        async def leave() -> None:
            while data := await reader.read(_CHUNK):
                if rest := passed(data):
                    allowed = self._allowed(rest)
                    await line.put((loop.time() + self.delay_seconds, allowed))
                    if len(allowed) < len(rest):
                        break
            await line.join()

        async def arrive() -> None:
            while True:
                due, data = await line.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await flowing.wait()
                writer.write(data)
                await writer.drain()
                line.task_done()

        return [asyncio.create_task(leave()), asyncio.create_task(arrive())]


def _error(code: str, text: str) -> bytes:
    """Write what a server says when it refuses: severity, SQLSTATE and text."""
    fields = b"".join(kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", code), (b"M", text)))
    return b"E" + (len(fields) + 5).to_bytes(4) + fields + b"\0"


class _Cut(Exception):
    """The connection is to be broken now."""


class _Sent:
    """Reads what a client sends, as far as it takes to see a COMMIT."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._started = False

    def commits(self, data: bytes) -> int:
        """Count the COMMITs that are complete with these bytes: simple queries, and statements as they are parsed."""
        self._buffer += data
        count = 0
        while (message := self._message()) is not None:
            kind, body = message
            text = body.partition(b"\0")[2] if kind == b"P" else body
            count += kind in {b"Q", b"P"} and _COMMIT.search(text) is not None
        return count

    def _message(self) -> tuple[bytes, bytes] | None:
        # The first message bears no type, nor does a question about encryption before it.
        header = _TYPED_HEADER if self._started else _TYPED_HEADER - 1
        if len(self._buffer) < header:
            return None
        end = header - 4 + int.from_bytes(self._buffer[header - 4 : header])
        if len(self._buffer) < end:
            return None
        kind, body = bytes(self._buffer[: header - 4]), bytes(self._buffer[header:end])
        del self._buffer[:end]
        self._started = self._started or body[:4] not in _BEFORE_START
        return kind, body


class _Answer:
    """Passes on what the server says; once `swallowed` is set, takes the next whole answer away and cuts the connection."""

    def __init__(self) -> None:
        self.swallowed = False
        self._taken = bytearray()

    def passed(self, data: bytes) -> bytes:
        """Give what the client gets to see. Raises _Cut when the answer was taken away to its end."""
        if not self.swallowed:
            return data
        self._taken += data
        if self._taken[-6:-1] == _READY:
            raise _Cut
        return b""
