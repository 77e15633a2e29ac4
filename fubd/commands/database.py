"""Which database a command works on: the one of DATABASE_URL, or the embedded one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from pydantic import SecretStr

from fubd.settings import Settings
from fubd.store.dsn import Dsn, parse
from fubd.store.embedded import running


def secrets_of(settings: Settings) -> frozenset[str]:
    """Give every secret that is set, for the log to leave out."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    return frozenset(value.get_secret_value() for value in values if isinstance(value, SecretStr))


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Dsn]:
    """Give where to connect; an embedded server runs as long as the block. Raises SettingsError when there is neither."""
    if settings.database_url is not None:
        yield parse(settings.database_url.get_secret_value(), ca_certificates=settings.database_ca_cert)
        return
    with ExitStack() as stack:
        # Starting and stopping a server takes a moment; the loop goes on meanwhile.
        url = await asyncio.to_thread(stack.enter_context, running())
        try:
            yield parse(url)
        finally:
            await asyncio.to_thread(stack.close)
