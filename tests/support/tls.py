"""A Postgres server behind a TLS proxy; the embedded server has no TLS itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import trustme

from fubd.store.dsn import parse
from tests.support.databases import url_of

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@asynccontextmanager
async def behind_tls(database_url: str, authority: trustme.CA, name: str, *, expired: bool = False) -> AsyncIterator[str]:
    """Return the URL of a database through TLS at `localhost`, with a certificate for `name` of this authority."""
    upstream = parse(database_url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    until = datetime.now(UTC) - timedelta(days=1) if expired else None
    authority.issue_cert(name, not_after=until).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(context)
                await _relay(reader, writer)
        writer.transport.abort()

    async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if upstream.host.startswith("/"):
            there_reader, there_writer = await asyncio.open_unix_connection(f"{upstream.host}/.s.PGSQL.{upstream.port}")
        else:
            there_reader, there_writer = await asyncio.open_connection(upstream.host, upstream.port)
        try:
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        finally:
            there_writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield url_of(upstream, host="localhost", port=server.sockets[0].getsockname()[1]) + "&sslmode=require"
    finally:
        server.close()
        await asyncio.sleep(0)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
