"""The first request of a connection, collected before it is parsed.

A connection that opens and sends only a part of a request must cost as little as possible: parser, task and timers are for those that send
a whole one. Only requests whose end is plain to see are held back: everything else is passed on at once, and judged by the HTTP parser.
"""

from __future__ import annotations

import re

_HEAD_END = re.compile(rb"\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r?\n)", re.IGNORECASE)
# With these, the sender waits for us, or the end of the body is not known from its head.
_UNPREDICTABLE = re.compile(rb"\n(expect|transfer-encoding|upgrade):", re.IGNORECASE)
_HEAD_END_BYTES = 3


class FirstRequest:
    """Collects bytes until they are a whole request, or cannot become one that is small enough to wait for."""

    __slots__ = ("_limit_bytes", "_request_bytes", "_searched", "received")

    def __init__(self, limit_bytes: int) -> None:
        self.received = b""
        self._limit_bytes = limit_bytes
        self._searched = 0
        self._request_bytes = 0

    @property
    def lacks_only_its_body(self) -> bool:
        """Return whether the head is complete, and a part of the body is missing."""
        return len(self.received) < self._request_bytes

    def add(self, data: bytes) -> bool:
        """Add received bytes. Return whether they are to be parsed now."""
        self.received += data
        if not self._request_bytes:
            head_end = _HEAD_END.search(self.received, self._searched)
            if head_end is None:
                self._searched = max(0, len(self.received) - _HEAD_END_BYTES)
                return not self.received[:1].isupper() or len(self.received) > self._limit_bytes
            self._request_bytes = head_end.end() + self._body_bytes(self.received[: head_end.end()])
        return not self.lacks_only_its_body

    def _body_bytes(self, head: bytes) -> int:
        """Return the length of the body, 0 if it is not to be waited for."""
        lengths = _CONTENT_LENGTH.findall(head)
        if len(lengths) != 1 or _UNPREDICTABLE.search(head) is not None:
            return 0
        length = int(lengths[0])
        return length if length <= self._limit_bytes else 0
