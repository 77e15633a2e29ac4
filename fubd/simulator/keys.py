"""Authentication: API keys with their users and roles, and the registered systems."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fubd.simulator.account import Account, User
from fubd.simulator.registry import ApiError

UNAUTHORIZED: Final = (
    "Authentication is required. Use Basic HTTP Authentication with API Key as username and blank password, "
    "or use Bearer token authentication."
)
NOT_OWNER: Final = "Only the account owner may access webhooks."
NO_SYSTEM: Final = "A registered X-System and X-System-Key are required to access webhooks."


@dataclass(frozen=True, slots=True)
class Caller:
    """The author of a request. `system_key` is None for a system that is not registered."""

    key: str
    user: User
    system_key: str | None

    @property
    def viewer(self) -> int | None:
        """The user whose people are the only ones visible; None for roles that see everyone."""
        return self.user.id if self.user.role == "agent" else None


class Keys:
    """The keys and systems known to the account. Each key acts as one user and sees what that user may see."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._keys: dict[str, User] = {}
        self._systems: dict[str, str] = {}

    def add(self, key: str, role: str = "owner", *, user_id: int | None = None) -> None:
        """Add a key for a user, or for the first user of a role (owner, admin, agent). Raises LookupError when there is none."""
        for user in self._account.users:
            if user.id == user_id or (user_id is None and user.role == role):
                self._keys[key] = user
                return
        raise LookupError(f"there is no user {user_id or role}")

    def revoke(self, key: str) -> None:
        """Make a key invalid."""
        self._keys.pop(key, None)

    def register(self, system: str, key: str) -> None:
        """Register a system with its X-System-Key."""
        self._systems[key] = system

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Return who sent the request, by Basic (key as user, blank password) or Bearer. Raises ApiError 401."""
        key = _api_key_of(headers.get("Authorization", ""))
        user = self._keys.get(key)
        if user is None:
            raise ApiError(HTTPStatus.UNAUTHORIZED, UNAUTHORIZED, {"WWW-Authenticate": 'Basic realm="Follow Up Boss API"'})
        system_key = headers.get("X-System-Key", "")
        return Caller(key, user, system_key if headers.get("X-System") and system_key in self._systems else None)


def require_owner(caller: Caller) -> str:
    """Return the system key of a caller who may use webhooks. Raises ApiError 403.

    The account owner's key and a registered system are required (https://docs.followupboss.com/reference/webhooks-guide).
    """
    if caller.user.role != "owner":
        raise ApiError(HTTPStatus.FORBIDDEN, NOT_OWNER)
    if caller.system_key is None:
        raise ApiError(HTTPStatus.FORBIDDEN, NO_SYSTEM)
    return caller.system_key


def _api_key_of(header: str) -> str:
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return "" if password else user
