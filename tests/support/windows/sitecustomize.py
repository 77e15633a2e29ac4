"""Takes away from Python on Unix what Python on Windows lacks. Python loads it at start when its folder is on PYTHONPATH."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
from functools import partial

_MODULES: dict[str, object] = vars(sys)["modules"]


def _refuse(*_arguments: object) -> bool:
    raise NotImplementedError


# Parts of the standard library that exist on both platforms, here in their variant for Unix: they must be loaded before.
for module in ("subprocess", "tempfile", "asyncio.unix_events"):
    importlib.import_module(module)
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    _MODULES[module] = None
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGALRM"):
    delattr(signal, name)
for name in ("chown", "fork", "getegid", "geteuid", "getgid", "getuid", "O_NOFOLLOW"):
    delattr(os, name)
# What Ctrl-Break and the end of the console window send.
vars(signal)["SIGBREAK"] = signal.SIGUSR2
# The event loop wakes itself through such a pair.
vars(socket)["socketpair"] = partial(socket.socketpair, socket.AF_UNIX)
delattr(socket, "AF_UNIX")
for name in ("add_signal_handler", "remove_signal_handler"):
    setattr(asyncio.SelectorEventLoop, name, _refuse)
