"""`python -m fubd`: the daemon, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys

from fubd import logs
from fubd.commands.database import configured, database
from fubd.daemon import Daemon, build
from fubd.settings import FOR_THE_DAEMON, Settings
from fubd.store import SchemaRefused

_log = logging.getLogger("fubd")


def run(_args: argparse.Namespace) -> int:
    """Run the daemon; 0 when told to stop, 1 when it cannot run at all."""
    settings = configured(FOR_THE_DAEMON)
    with logs.running(settings.log_format, secrets=settings.secrets()):
        return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(database(settings))
        daemon = Daemon(build(settings, dsn))
        try:
            await daemon.run(stop)
        except SchemaRefused as error:
            sys.stderr.write(f"fubd: {error}\n")
            return 1
        except OSError as error:
            sys.stderr.write(f"fubd: cannot listen on port {settings.port} ({error.strerror}): set PORT to a free one\n")
            return 1
        except BaseExceptionGroup as bugs:
            _log.critical("ended by a bug, to be started again", exc_info=bugs)
            return 1
    _log.info("stopped")
    return 0
