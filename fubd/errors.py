"""The errors that cross module boundaries, each named by its remedy."""

from __future__ import annotations


class InvalidSignature(Exception):
    """The signature is missing or wrong: answer 401 and store nothing."""


class Malformed(Exception):
    """Genuine data in a form that cannot be used: quarantine it and go on."""


class Unavailable(Exception):
    """The other side cannot answer now: back off and try again. `retry_after` is the delay it asked for, in seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UserError(Exception):
    """Only the user can fix this; the message says how."""


class FubRefused(Exception):
    """FUB understood the request and refused it (400, 401, 403 or 404); a retry does not help. `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
