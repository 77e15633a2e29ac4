"""Makes sure that the API key reads the account whose people the database records: ids of people collide between accounts."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Protocol

from fubd.backoff import backoff_seconds
from fubd.core.api import AccountIdentity
from fubd.core.problems import ProblemName
from fubd.errors import AccountMismatch, FubRefused, Malformed, Unavailable
from fubd.log_once import LogOnce
from fubd.ports import Clock
from fubd.problems import Problems

CHANGE_ONE = "set FUB_API_KEY to a key of the database's account, or DATABASE_URL to another database"

_log = logging.getLogger("fubd.account")

# The first poll waits for the answer.
_ANSWER_WITHIN_SECONDS = 5.0
_FIRST_RETRY_SECONDS = 30.0
_LONGEST_RETRY_SECONDS = 300.0


class IdentityReader(Protocol):
    """Reads the account of the API key."""

    async def identity(self) -> AccountIdentity | None:
        """Return it; None when the answer does not show it. Raises Unavailable, FubRefused, Malformed."""


class AccountStore(Protocol):
    """Keeps the account of the database. Every method raises Unavailable."""

    async def account(self) -> AccountIdentity | None:
        """Return the account of the database; None before it has one."""

    async def keep_account(self, account: AccountIdentity) -> AccountIdentity:
        """Keep this account if the database has none. Return the account of the database."""


class AccountGuard:
    """Verifies the account before the first write, until it was compared once, and again from time to time or when that is required.

    `known` is that of the database, once it was read.
    """

    def __init__(
        self,
        client: IdentityReader,
        store: AccountStore,
        problems: Problems,
        clock: Clock,
        *,
        answer_within_seconds: float = _ANSWER_WITHIN_SECONDS,
    ) -> None:
        self._client = client
        self._store = store
        self._problems = problems
        self._clock = clock
        self._answer_within_seconds = answer_within_seconds
        self._unknown_log = LogOnce(_log)
        self._is_compared = False
        self._is_verification_required = False
        self._asked_at = clock.monotonic()
        self.known: AccountIdentity | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Ask again until the account was compared; then wait for `stop`. Raises AccountMismatch."""
        attempts = 0
        while not self._is_compared:
            attempts += 1
            delay = backoff_seconds(attempts, first_seconds=_FIRST_RETRY_SECONDS, longest_seconds=_LONGEST_RETRY_SECONDS)
            if await self._clock.pause(delay, stop):
                return
            with suppress(Unavailable):
                await self.verify()
        await stop.wait()

    def require_verification(self) -> None:
        """Have the next `verify_if_due` ask: something shows that the key may be of another account by now."""
        self._is_verification_required = True

    async def verify_if_due(self, every_seconds: float) -> None:
        """Verify again when that is required, or when the last time was so long ago. Raises as `verify` does."""
        if self._is_verification_required or (self._is_compared and self._clock.monotonic() - self._asked_at >= every_seconds):
            await self.verify()

    async def verify(self) -> None:
        """Return when the account of the key is that of the database, or is unknown. Raises AccountMismatch, Unavailable (the database)."""
        # The database and Follow Up Boss answer side by side.
        reading = asyncio.create_task(self._read())
        try:
            self.known = self.known or await self._store.account()
            self._asked_at, self._is_verification_required = self._clock.monotonic(), False
            of_key = await reading
        finally:
            reading.cancel()
        if of_key is None:
            return
        if self.known is None:
            self.known = await self._store.keep_account(of_key)
        if of_key.id != self.known.id:
            text = f"{describe_mismatch(of_key, self.known)}. Nothing is recorded: {CHANGE_ONE}."
            self._problems.begin(ProblemName.ACCOUNT_MISMATCH, text)
            raise AccountMismatch(text)
        self._is_compared = True
        self._unknown_log.resolved("The account of FUB_API_KEY is the one in the database.")
        self.known = replace(self.known, domain=of_key.domain)
        self._problems.end(ProblemName.ACCOUNT_MISMATCH)

    async def compare(self) -> None:
        """Do as `verify` for a command that only reads: nothing is kept or reported. Raises AccountMismatch, Unavailable (the database)."""
        of_database = await self._store.account()
        of_key = await self._read() if of_database is not None else None
        if of_database is not None and of_key is not None and of_key.id != of_database.id:
            raise AccountMismatch(f"{describe_mismatch(of_key, of_database)}: {CHANGE_ONE}")

    async def _read(self) -> AccountIdentity | None:
        reason = "its answer to /identity does not contain the account's id"
        try:
            async with asyncio.timeout(self._answer_within_seconds):
                of_key = await self._client.identity()
        except TimeoutError:
            of_key, reason = None, f"no answer to /identity within {self._answer_within_seconds:g} s"
        except (Unavailable, FubRefused, Malformed) as error:
            if isinstance(error, FubRefused) and error.status == HTTPStatus.UNAUTHORIZED:
                # Such a key reads nothing, and whatever polls with it says so.
                return None
            of_key, reason = None, str(error)
        if of_key is None:
            self._unknown_log.warning(
                "The account of FUB_API_KEY is unknown, so it was not compared with the one in the database: %s", reason
            )
        return of_key


def describe_mismatch(of_key: AccountIdentity, of_database: AccountIdentity) -> str:
    """Return what is wrong, naming both accounts."""
    return f"FUB_API_KEY belongs to the account {of_key.label()}, but this database records the account {of_database.label()}"
