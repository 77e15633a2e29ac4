"""What a command begins with: its settings, and the database they lead to: the one of DATABASE_URL, or the embedded one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager

from fubd.settings import Settings, load
from fubd.store.dsn import Dsn, parse
from fubd.store.embedded import installed, running


def configured(need: Collection[str] = frozenset()) -> Settings:
    """Read the settings; `need` names those that must be there. Raises SettingsError with all that is wrong, no database included."""
    return load(need=need, checks={"DATABASE_URL": parse}, stand_ins={"DATABASE_URL": installed})


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
