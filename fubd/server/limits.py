"""The limits of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """A limit for everything that a client decides. Bytes and seconds are named as such; everything else is a count."""

    body_bytes: int = 1024 * 1024
    body_timeout_seconds: float = 10.0
    # A body that fits into one read arrives with its head, unless packets were lost.
    small_body_timeout_seconds: float = 5.0
    # A sender is unknown until its body is complete and verified. Only so many bodies larger than any usual delivery are therefore read at
    # a time, and a further one ends the one that has taken longest: a thousand strangers cannot fill the memory, nor keep a delivery out.
    large_body_bytes: int = 32 * 1024
    large_bodies: int = 32
    receive_bytes: int = 16 * 1024
    # FUB waits 10 s (https://docs.followupboss.com/reference/webhooks-guide). fubd promises an answer within 5 s, even when hundreds of
    # deliveries wait.
    ingest_timeout_seconds: float = 4.4
    # While a delivery about very many people is being recorded, part by part.
    partly_recorded_timeout_seconds: float = 9.0
    retry_after_seconds: float = 30.0

    connections: int = 1000
    # Requests to the read-only routes with the token, or from this machine. They take no place of the webhook route.
    readers: int = 100
    # Requests of unknown senders that are answered on one connection: the last answer ends it.
    unknown_requests: int = 10
    # Connections accepted in one turn of the event loop, and those that the kernel keeps until then.
    backlog: int = 32
    kernel_backlog: int = 4096
    head_timeout_seconds: float = 10.0
    head_line_bytes: int = 8190
    head_fields: int = 128
    idle_timeout_seconds: float = 75.0
    linger_seconds: float = 5.0
    # A response other than a stream that takes longer is aborted: its reader is considered dead.
    response_timeout_seconds: float = 60.0

    # Database connections are few, and webhooks need them: only so many reads run at a time, the others wait for their turn.
    concurrent_reads: int = 2
    read_timeout_seconds: float = 10.0
    # Unknown clients get /metrics and /health as they were up to this long ago: rendering them costs more than answering a delivery.
    open_text_max_age_seconds: float = 1.0
    page_rows: int = 100
    max_page_rows: int = 1000

    # Wrong tokens a minute that are answered at once; later ones wait.
    guesses_per_minute: int = 10
    refusal_delay_seconds: float = 1.0

    streams: int = 50
    stream_log_events: int = 2000
    stream_page_rows: int = 500
    # A stream opens after this time even if the table could not be read yet.
    stream_open_timeout_seconds: float = 2.0
    # How often the table is read for what other processes recorded: a commit of this one is sent at once.
    stream_poll_seconds: float = 5.0
    # Longer than any transaction lasts.
    stream_settle_seconds: float = 60.0
    stream_write_timeout_seconds: float = 10.0
    heartbeat_seconds: float = 15.0
