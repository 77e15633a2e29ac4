"""`python -m fubd`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading

from fubd import logs
from fubd.commands import greeting
from fubd.commands.console import Console
from fubd.commands.session import database, load_settings
from fubd.commands.signals import stop_on_signals
from fubd.components import Components, build, build_daemon
from fubd.core.problems import ProblemName
from fubd.daemon import Daemon
from fubd.errors import UserError
from fubd.os_errors import describe_os_error
from fubd.problems import Problems
from fubd.settings import FOR_THE_DAEMON, Settings, ineffective

_log = logging.getLogger("fubd")

# In addition to the two seconds that the log has to write its last lines.
_EXIT_WITHIN_SECONDS = 2.5


def run(_args: argparse.Namespace) -> int:
    """Run the daemon; 0 when it was stopped, 1 when it cannot run at all."""
    settings = load_settings(FOR_THE_DAEMON)
    with logs.configure(settings.log_format, secrets=settings.secrets(), zone=settings.zone()):
        return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    code = 1
    try:
        code = await _serve(settings)
    finally:
        _exit_soon(code)
    return code


async def _serve(settings: Settings) -> int:
    stop = stop_on_signals(only_first=False)
    async with contextlib.AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        shared: Components | None = None

        def on_fault(reason: str | None) -> None:
            if shared is not None:
                loop.call_soon_threadsafe(_update_problem, shared.problems, reason)

        dsn = await stack.enter_async_context(database(settings, on_fault=on_fault))
        console = Console()
        if console.is_terminal:
            console.print_facts(greeting.facts(settings, dsn.place))
        for found in ineffective():
            _log.warning("%s", found.line())
        try:
            shared = build(settings, dsn)
            await Daemon(build_daemon(shared)).run(stop)
        except OSError as error:
            raise UserError(f"cannot listen on port {settings.port}{_cause_and_advice(settings, error)}") from None
        except BaseExceptionGroup as bugs:
            bug = _first(bugs)
            _log.critical("ended by a bug, please report it: %s: %s", type(bug).__name__, bug, exc_info=bug)
            return 1
    _log.info("stopped")
    return 0


def _update_problem(problems: Problems, reason: str | None) -> None:
    """Begin or end the problem of an embedded server that has died."""
    if reason is None:
        problems.end(ProblemName.EMBEDDED_DATABASE_DOWN)
    else:
        problems.begin(ProblemName.EMBEDDED_DATABASE_DOWN, reason)


def _cause_and_advice(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f" of {settings.host}: set FUBD_HOST to an address of this machine, or remove it"
    # Windows refuses ports that it keeps for itself in the same way.
    advice = "set PORT to another one, above 1023" if error.errno == errno.EACCES else "set PORT to a free one"
    return f" ({describe_os_error(error)}): {advice}"


def _first(error: BaseException) -> BaseException:
    """Return the error that ended the group; the others in it followed from that."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _exit_soon(code: int) -> None:
    """Limit the time to exit: Python would wait for a thread that waits for a name server, and such a thread cannot be cancelled."""
    timer = threading.Timer(_EXIT_WITHIN_SECONDS, os._exit, (code,))
    timer.daemon = True
    timer.start()
