"""Who issued the certificate that a server shows: a firewall or antivirus program that inspects TLS shows its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_POSTGRES_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_TIMEOUT_SECONDS = 5.0
# The tag of a certificate's version, and the names of an issuer: organization, common name (https://www.rfc-editor.org/rfc/rfc5280).
_VERSION = 0xA0
_NAMES = (b"\x55\x04\x0a", b"\x55\x04\x03")
_LONG_LENGTH = 0x80


async def find_issuer(host: str, port: int, *, is_postgres: bool = False) -> str | None:
    """Return the issuer of the server's certificate, which is not verified; None if that cannot be found out."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                if is_postgres:
                    writer.write(_POSTGRES_SSL_REQUEST)
                    await reader.readexactly(1)
                await writer.start_tls(context, server_hostname=host)
                certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, EOFError):
        return None
    return issuer_name(certificate)


def issuer_name(certificate: bytes) -> str | None:
    """Return the organization or the common name of the issuer of a DER certificate, None if it has neither or is no certificate."""
    try:
        signed = next(_elements(next(_elements(certificate))[1]))[1]
        issuer = [content for tag, content in _elements(signed) if tag != _VERSION][2]
        parts = [list(_elements(part)) for _, parts in _elements(issuer) for _, part in _elements(parts)]
        names = {kind[1]: value[1].decode("utf-8", "replace") for kind, value in parts}
    except (IndexError, ValueError, StopIteration):
        return None
    return next((names[kind] for kind in _NAMES if kind in names), None)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element."""
    while der:
        length, begin = der[1], 2
        if length >= _LONG_LENGTH:
            begin += length - _LONG_LENGTH
            length = int.from_bytes(der[2:begin], "big")
        yield der[0], der[begin : begin + length]
        der = der[begin + length :]
