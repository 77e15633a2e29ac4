"""Ways to send requests: a client that signs, and plain connections for any bytes."""

from __future__ import annotations

import asyncio
import io
from typing import Protocol

import aiohttp

from fubd.core.vocabulary import WEBHOOK_ROUTES
from tests.server.fakes import ServerUnderTest, sign

MIB = 1024 * 1024
PATIENCE_SECONDS = 30.0


async def post(web: aiohttp.ClientSession, server: ServerUnderTest, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    """Post a signed body to the webhook route."""
    signed = {"FUB-Signature": sign(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with web.post(f"{server.url}{WEBHOOK_ROUTES[0]}", data=io.BytesIO(body), headers=signed) as response:
        await response.read()
        return response


class Listening(Protocol):
    """A server on loopback."""

    @property
    def port(self) -> int:
        """Return its port."""


async def connect(server: Listening) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection."""
    return await asyncio.open_connection("127.0.0.1", server.port)


def head(body: bytes, *fields: str, length: int | None = None, path: str = WEBHOOK_ROUTES[0]) -> bytes:
    """Return the head of a signed POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"FUB-Signature: {sign(body)}", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def rest_of(reader: asyncio.StreamReader, *, within_seconds: float = PATIENCE_SECONDS) -> bytes:
    """Read until the server closes the connection, cleanly or not."""
    read = b""
    async with asyncio.timeout(within_seconds):
        try:
            while part := await reader.read(65536):
                read += part
        except ConnectionResetError:
            pass
    return read


async def exchange(server: Listening, sent: bytes) -> bytes:
    """Send bytes and return the whole response."""
    reader, writer = await connect(server)
    writer.write(sent)
    answer = await rest_of(reader)
    writer.close()
    return answer


async def until(reader: asyncio.StreamReader, separator: bytes) -> bytes:
    """Read up to and including a separator."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await reader.readuntil(separator)
