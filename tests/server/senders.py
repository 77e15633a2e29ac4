"""Ways to speak to the door: a client that signs, and bare connections that say whatever a test wants."""

from __future__ import annotations

import asyncio
import io
from typing import Protocol

import aiohttp

from fubd.core.vocabulary import WEBHOOK_ROUTES
from tests.server.fakes import House, sign

MIB = 1024 * 1024
PATIENCE_SECONDS = 5.0


async def post(web: aiohttp.ClientSession, house: House, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    """Post a body to the door, signed."""
    signed = {"FUB-Signature": sign(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with web.post(f"{house.url}{WEBHOOK_ROUTES[0]}", data=io.BytesIO(body), headers=signed) as response:
        await response.read()
        return response


class Reached(Protocol):
    """Something that listens on loopback."""

    @property
    def port(self) -> int:
        """Where."""


async def connect(house: Reached) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection."""
    return await asyncio.open_connection("127.0.0.1", house.port)


def head(body: bytes, *more: str, length: int | None = None, path: str = WEBHOOK_ROUTES[0]) -> bytes:
    """Write the head of a signed POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"FUB-Signature: {sign(body)}", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def rest_of(reader: asyncio.StreamReader, *, within_seconds: float = PATIENCE_SECONDS) -> bytes:
    """Read until the other side closes, however it does so."""
    read = b""
    async with asyncio.timeout(within_seconds):
        try:
            while part := await reader.read(65536):
                read += part
        except ConnectionResetError:
            pass
    return read


async def exchange(house: Reached, sent: bytes) -> bytes:
    """Send bytes, stop sending, and give what comes back."""
    reader, writer = await connect(house)
    writer.write(sent)
    answer = await rest_of(reader)
    writer.close()
    return answer


async def until(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    """Read up to a mark."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await reader.readuntil(mark)


def balanced(house: House) -> bool:
    """Tell whether every answer is in exactly one outcome, in the plain counts as in the metrics."""
    door = house.server.door
    outcomes = sum(door.outcomes.values())
    counted = sum(house.counted(outcome) for outcome in door.outcomes)
    return door.answered == outcomes == counted == house.acknowledged()
