"""The bounds of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """A bound for everything that a sender or a reader decides; bytes, seconds or a count, as the name says."""

    body_bytes: int = 1024 * 1024
    body_seconds: float = 10.0
    # Nobody is known before a body is complete. So of those longer than any usual delivery only so many are taken in at a time, and of the
    # others no more is read than they may hold: a thousand strangers cannot fill the memory.
    large_body_bytes: int = 32 * 1024
    large_bodies: int = 32
    receive_bytes: int = 16 * 1024
    # FUB waits for 10, and 5 are promised, also where hundreds wait at once.
    deliver_seconds: float = 4.4
    retry_after_seconds: float = 30.0

    connections: int = 1000
    backlog: int = 128
    head_seconds: float = 10.0
    head_line_bytes: int = 8190
    head_fields: int = 128
    idle_seconds: float = 75.0
    linger_seconds: float = 5.0
    # The longest an answer other than a stream may take before the connection is given up as dead.
    answer_seconds: float = 60.0

    view_seconds: float = 10.0
    # Connections to the database are few, and the door needs them: so many readers ask it at a time, the others wait for their turn.
    views: int = 2
    page_rows: int = 100
    max_page_rows: int = 1000

    streams: int = 50
    stream_log: int = 2000
    stream_page_rows: int = 200
    stream_begin_seconds: float = 2.0
    # How long it may take to notice what another process recorded.
    stream_look_seconds: float = 1.0
    # Longer than any transaction lasts.
    stream_settle_seconds: float = 60.0
    stream_write_seconds: float = 10.0
    heartbeat_seconds: float = 15.0
