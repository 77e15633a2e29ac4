"""`python -m fubd`: the daemon, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading

from fubd import logs
from fubd.commands.session import configured, database
from fubd.components import build, build_daemon
from fubd.daemon import Daemon
from fubd.settings import FOR_THE_DAEMON, Settings
from fubd.store import SchemaRefused

_log = logging.getLogger("fubd")

# Beyond the two that the log has for its last words.
_LAST_SECONDS = 2.5


def run(_args: argparse.Namespace) -> int:
    """Run the daemon; 0 when told to stop, 1 when it cannot run at all."""
    settings = configured(FOR_THE_DAEMON)
    with logs.running(settings.log_format, secrets=settings.secrets()):
        return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    code = await _serve(settings)
    _end_soon(code)
    return code


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(database(settings))
        daemon = Daemon(build_daemon(build(settings, dsn)))
        try:
            await daemon.run(stop)
        except SchemaRefused as error:
            sys.stderr.write(f"fubd: {error}\n")
            return 1
        except OSError as error:
            sys.stderr.write(f"fubd: cannot listen on port {settings.port}{_why(settings, error)}\n")
            return 1
        except BaseExceptionGroup as bugs:
            bug = _first(bugs)
            _log.critical("ended by a bug, to be started again: %s: %s", type(bug).__name__, bug, exc_info=bug)
            return 1
    _log.info("stopped")
    return 0


def _why(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f" of {settings.host}: set FUBD_HOST to an address of this machine, or leave it out"
    advice = "set PORT to one above 1023" if error.errno == errno.EACCES else "set PORT to a free one"
    return f" ({os.strerror(error.errno or 0)}): {advice}"


def _first(error: BaseException) -> BaseException:
    """Give what it all began with: the rest of a group was ended with it."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _end_soon(code: int) -> None:
    """Let nothing hold up the end: a thread that asks a silent name server cannot be told to stop, and would be waited for."""
    timer = threading.Timer(_LAST_SECONDS, os._exit, (code,))
    timer.daemon = True
    timer.start()
