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


class Interrupted(Unavailable):
    """This transaction was stopped: too slow, or in the way of another one. The same again, or less of it, may succeed."""


class TableRefused(Unavailable):
    """The table refuses rows because of something that its owner can change; the message names it and the remedy."""


class UserError(Exception):
    """Only the user can fix this; the message says how."""


class Stopped(UserError):
    """A signal ended the work before its result; `signal` is its number."""

    def __init__(self, message: str, *, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class ConfigurationError(UserError):
    """The settings cannot be used as they are; the message says how to change them."""


class AccountMismatch(ConfigurationError):
    """The API key belongs to another account than the one whose people the database records; the message names both."""


class FubRefused(Exception):
    """FUB understood the request and refused it (400, 401, 403 or 404); a retry does not help. `status` is the HTTP status.

    `owner_only`: FUB said that only the key of the account's owner may do this. `is_foreign`: the answer is not FUB's own, but that of
    something in between.
    """

    def __init__(self, message: str, *, status: int, owner_only: bool = False, is_foreign: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.owner_only = owner_only
        self.is_foreign = is_foreign
