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
# File descriptors for the database, the FUB API, receivers of alerts, the standard streams, and asyncio itself.
_OTHER_DESCRIPTORS = 48
_SMALLEST_SHARE_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Places:
    """How many connections may be open: those of known readers, and all others. `at_once`: how many a turn of the event loop accepts."""

    readers: int
    others: int
    at_once: int


def divide_places(limits: ServerLimits) -> Places:
    """Raise the soft limit on open files as far as needed and allowed; divide what fits, and log when it is less than wanted."""
    open_files = _raise_limit(_needed(limits)) if _IS_LIMITED else _needed(limits)
    places = places_within(open_files, limits)
    if (places.readers, places.others) != (limits.readers, limits.connections):
        _logger.warning(
            "the limit on open files leaves room for %d connections instead of %d: %d for deliveries, %d for readers. Raise it (ulimit -n)",
            places.others + places.readers,
            limits.connections + limits.readers,
            places.others,
            places.readers,
        )
    return places


def places_within(open_files: int, limits: ServerLimits) -> Places:
    """Return what fits into so many open files."""
    if open_files >= _needed(limits):
        return Places(limits.readers, limits.connections, limits.backlog)
    free = open_files - _OTHER_DESCRIPTORS
    at_once = max(1, min(limits.backlog, free // _SMALLEST_SHARE_AT_ONCE))
    fitting = free - 2 * at_once
    readers = max(2, min(limits.readers, fitting // 4))
    return Places(readers, max(1, fitting - readers), at_once)


def _needed(limits: ServerLimits) -> int:
    # One turn of the event loop may accept a whole backlog on each of two sockets before any of them can be closed.
    return limits.connections + limits.readers + _OTHER_DESCRIPTORS + 2 * limits.backlog


def _raise_limit(wanted: int) -> int:
    """Return how many files may be open, at most the wanted number."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if soft != RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == RLIM_INFINITY else min(wanted, hard)
        setrlimit(RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == RLIM_INFINITY else min(wanted, soft)
