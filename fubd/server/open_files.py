"""How many connections the limit on open files allows."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fubd.server.limits import ServerLimits

try:
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
except ImportError:
    # Windows counts neither files nor sockets.
    _IS_LIMITED = False
else:
    _IS_LIMITED = True

_logger = logging.getLogger(__name__)
# File descriptors for the database, the FUB API, the standard streams, and asyncio itself.
_OTHER_DESCRIPTORS = 64


@dataclass(frozen=True, slots=True)
class Places:
    """How many connections may be open: those of known readers, and all others."""

    readers: int
    others: int


def divide_places(limits: ServerLimits) -> Places:
    """Raise the soft limit on open files as far as needed and allowed; divide what fits, and log when it is less than wanted."""
    wanted = limits.connections + limits.readers
    fitting = _raise_limit(wanted, limits.backlog) if _IS_LIMITED else wanted
    if fitting >= wanted:
        return Places(limits.readers, limits.connections)
    readers = max(2, min(limits.readers, fitting // 4))
    others = max(1, fitting - readers)
    _logger.warning(
        "the limit on open files leaves room for %d connections instead of %d: %d for deliveries, %d for readers. Raise it (ulimit -n)",
        others + readers,
        wanted,
        others,
        readers,
    )
    return Places(readers, others)


def _raise_limit(connections: int, backlog: int) -> int:
    """Return how many connections fit."""
    # One turn of the event loop may accept a whole backlog on each of two sockets before any of them can be closed.
    spare = _OTHER_DESCRIPTORS + 2 * backlog
    soft, hard = getrlimit(RLIMIT_NOFILE)
    wanted = connections + spare
    if soft != RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == RLIM_INFINITY else min(wanted, hard)
        setrlimit(RLIMIT_NOFILE, (soft, hard))
    return connections if soft == RLIM_INFINITY else min(connections, soft - spare)
