"""A network that fails on demand: a proxy between a client and a Postgres server."""

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
_MAX_CHUNKS_IN_TRANSIT = 256
_TYPED_HEADER = 5
_COMMIT = re.compile(rb"(?:^|;)\s*(?:COMMIT|END)\b", re.IGNORECASE)
# Between two statements of a script.
_BETWEEN = re.compile(rb";\n")
# SSLRequest and GSSENCRequest, which may come before the startup message.
_BEFORE_STARTUP = (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")
# ReadyForQuery, the last message of every response, without its status byte.
_READY_FOR_QUERY = b"Z\x00\x00\x00\x05"


class Proxy:
    """Listens on a loopback port; `dsn` is the URL through it. Without TLS.

    Faults, each for what is sent from now on:
    `delay_seconds`: every byte arrives so much later, in each direction.
    `blackhole`: nothing arrives and nothing is refused; what was sent arrives when it is switched off.
    `lost_commit_replies`: for so many COMMITs the server's response is dropped and the connection is cut.
    `refusal`: a SQLSTATE and a text with which every log-in is refused, as by a server or a pooler.
    `cut_after_bytes`: after so many more bytes, of both directions together, the connection that carries them is cut; then None.
    Counters: `connections` accepted, `commits` and `bytes` carried, `round_trips`: how often a client spoke first or after an answer,
    `statements`: how many were run, each one of a script counted.
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
        self.round_trips = 0
        self.statements = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: set[asyncio.Task[None]] = set()

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
        """The port it listens on."""
        return self._port

    @property
    def blackhole(self) -> bool:
        """Whether nothing arrives."""
        return not self._flowing.is_set()

    @blackhole.setter
    def blackhole(self, on: bool) -> None:
        if on:
            self._flowing.clear()
        else:
            self._flowing.set()

    def freeze_open_connections(self) -> None:
        """Let nothing more arrive on the open connections, without closing them; new connections work."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def accept(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _allowed(self, data: bytes) -> bytes:
        """Return the part of the data that is carried before the cut."""
        if self.cut_after_bytes is not None:
            carried = data[: self.cut_after_bytes]
            self.cut_after_bytes = None if len(carried) < len(data) else self.cut_after_bytes - len(carried)
            data = carried
        self.bytes += len(data)
        return data

    async def cut(self) -> None:
        """Break every open connection."""
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The transports that were aborted close in the next turn of the loop.
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        self.connections += 1
        try:
            await self._connect(reader, writer)
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = self._upstream
        with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError, _Cut):
            if self.refusal is not None:
                # The content of the startup message does not matter here.
                await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
                writer.write(_error_response(*self.refusal))
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
        requests = _ClientMessages()
        responses = _ServerMessages()
        answered = True

        def watch(data: bytes) -> bytes:
            nonlocal answered
            self.round_trips += answered
            answered = False
            commits, statements = requests.count(data)
            self.commits += commits
            self.statements += statements
            if commits and self.lost_commit_replies:
                self.lost_commit_replies -= 1
                responses.drop_next = True
            return data

        def answer(data: bytes) -> bytes:
            nonlocal answered
            answered = True
            return responses.carried(data)

        tasks = [*self._direction(client_reader, server_writer, watch), *self._direction(server_reader, client_writer, answer)]
        try:
            # When one side ends, the connection of the other is closed too, as in a broken network.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _direction(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carried: Callable[[bytes], bytes]
    ) -> list[asyncio.Task[None]]:
        """Carry bytes in one direction: one task reads them, the other writes them when they are due."""
        loop = asyncio.get_running_loop()
        in_transit: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MAX_CHUNKS_IN_TRANSIT)
        flowing = self._flowing

        async def read() -> None:
            while data := await reader.read(_CHUNK):
                if rest := carried(data):
                    allowed = self._allowed(rest)
                    await in_transit.put((loop.time() + self.delay_seconds, allowed))
                    if len(allowed) < len(rest):
                        break
            await in_transit.join()

        async def write() -> None:
            while True:
                due, data = await in_transit.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await flowing.wait()
                writer.write(data)
                await writer.drain()
                in_transit.task_done()

        return [asyncio.create_task(read()), asyncio.create_task(write())]


def _error_response(code: str, text: str) -> bytes:
    """Return an ErrorResponse: severity, SQLSTATE and text."""
    fields = b"".join(kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", code), (b"M", text)))
    return b"E" + (len(fields) + 5).to_bytes(4) + fields + b"\0"


class _Cut(Exception):
    """The connection has to be broken now."""


class _ClientMessages:
    """Parses what a client sends as far as needed to find COMMITs and to count statements."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._started = False

    def count(self, data: bytes) -> tuple[int, int]:
        """Count the COMMITs (in Query and Parse messages) and the statements that are complete with these bytes."""
        self._buffer += data
        commits = statements = 0
        while (message := self._next_message()) is not None:
            kind, body = message
            text = body.partition(b"\0")[2] if kind == b"P" else body
            commits += kind in {b"Q", b"P"} and _COMMIT.search(text) is not None
            statements += len(_BETWEEN.findall(body)) + 1 if kind == b"Q" else kind == b"E"
        return commits, statements

    def _next_message(self) -> tuple[bytes, bytes] | None:
        # The startup message has no type byte, nor has a request for encryption before it.
        header = _TYPED_HEADER if self._started else _TYPED_HEADER - 1
        if len(self._buffer) < header:
            return None
        end = header - 4 + int.from_bytes(self._buffer[header - 4 : header])
        if len(self._buffer) < end:
            return None
        kind, body = bytes(self._buffer[: header - 4]), bytes(self._buffer[header:end])
        del self._buffer[:end]
        self._started = self._started or body[:4] not in _BEFORE_STARTUP
        return kind, body


class _ServerMessages:
    """Carries what the server sends; with `drop_next` it drops the next complete response and cuts the connection."""

    def __init__(self) -> None:
        self.drop_next = False
        self._dropped = bytearray()

    def carried(self, data: bytes) -> bytes:
        """Return what the client receives. Raises _Cut at the end of the dropped response."""
        if not self.drop_next:
            return data
        self._dropped += data
        if self._dropped[-6:-1] == _READY_FOR_QUERY:
            raise _Cut
        return b""
