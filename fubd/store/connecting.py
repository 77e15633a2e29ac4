"""Opens connections of the driver, by an address of the host that answers.

asyncpg tries the addresses of a host one after another, all within one time limit: a dead IPv6 address next to a living IPv4 one (common in
containers without an IPv6 route) uses the whole of it. Where a host has both kinds, they are therefore tried side by side first, a quarter
of a second apart (https://www.rfc-editor.org/rfc/rfc8305). TLS goes on to verify the name of the host, not the address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping

import asyncpg
from aiohappyeyeballs import AddrInfoType, start_connection

from fubd.store.array_types import PostgresConnection
from fubd.store.dsn import Dsn

_ATTEMPT_DELAY_SECONDS = 0.25

Resolve = Callable[[str, int], Awaitable[list[AddrInfoType]]]
Connect = Callable[..., Awaitable[asyncpg.Connection]]


def connector(dsn: Dsn, *, timeout_seconds: float, resolve: Resolve | None = None) -> Connect:
    """Return a function like asyncpg.connect that connects to this database. It takes asyncpg's other arguments, by name."""

    async def connect(*_: object, server_settings: Mapping[str, str] | None = None, **arguments: object) -> asyncpg.Connection:
        own = dsn.connect_arguments()
        own["server_settings"].update(server_settings or {})
        async with asyncio.timeout(timeout_seconds):
            own["host"] = await _living_address(dsn.host, dsn.port, resolve or _resolve)
        return await asyncpg.connect(**{**arguments, **own, "timeout": timeout_seconds, "connection_class": PostgresConnection})

    return connect


async def _living_address(host: str, port: int, resolve: Resolve) -> str:
    """Return an address that accepts a connection, or the host itself where there is no choice between two kinds."""
    if host.startswith("/"):
        return host
    addresses = await resolve(host, port)
    if len({family for family, *_ in addresses}) == 1:
        return host
    reached = await start_connection(addresses, happy_eyeballs_delay=_ATTEMPT_DELAY_SECONDS, interleave=1)
    address = str(reached.getpeername()[0])
    reached.close()
    return address


async def _resolve(host: str, port: int) -> list[AddrInfoType]:
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
