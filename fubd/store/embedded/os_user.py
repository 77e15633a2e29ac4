"""The user of the operating system that runs the server, and what that user can reach."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fubd.errors import Unavailable


@dataclass(frozen=True, slots=True)
class OsUser:
    """A user of the machine. `is_switched`: another user than ours, so we are root and start every program as this user."""

    name: str
    uid: int
    gid: int
    is_switched: bool

    @classmethod
    def of(cls, home: Path) -> OsUser:
        """Return the user for a folder: our own, or for root the folder's owner, `postgres` or `nobody`. Raises Unavailable."""
        if os.geteuid() != 0:
            return cls("", os.geteuid(), os.getegid(), is_switched=False)
        owner = home.stat().st_uid if home.exists() else 0
        found = _by_uid(owner) if owner else _by_name("postgres") or _by_name("nobody")
        if found is None:
            raise Unavailable(f"Postgres does not run as root, and the owner of {home} is not a user of this machine")
        return cls(found.pw_name, found.pw_uid, found.pw_gid, is_switched=True)

    def prepare(self, home: Path) -> None:
        """Create the server's folder where it is missing, and let this user own it. Raises Unavailable when they could not reach it."""
        for parent in reversed([folder for folder in home.parents if not folder.exists()]):
            parent.mkdir()
            parent.chmod(0o755)
        home.mkdir(mode=0o700, exist_ok=True)
        if not (home / "using.lock").exists() and any(home.iterdir()):
            raise Unavailable(f"{home} contains other files: the embedded Postgres needs a folder of its own")
        if blocked := self.blocked_by(home):
            raise Unavailable(
                f"Postgres does not run as root, and the user {self.name} cannot enter {blocked}: run as another user, or set DATABASE_URL"
            )
        self.chown(home.resolve())

    def blocked_by(self, path: Path) -> Path | None:
        """Return the highest folder above `path` that this user cannot enter; None when there is none."""
        if not self.is_switched:
            return None
        return next((folder for folder in path.parents if not self._has_mode(folder, stat.S_IXOTH)), None)

    def can_execute(self, program: Path) -> bool:
        """Return whether this user can reach and run a program."""
        return not self.is_switched or (self.blocked_by(program) is None and self._has_mode(program, stat.S_IROTH | stat.S_IXOTH))

    def chown(self, path: Path) -> None:
        """Make this user the owner of a file or folder of ours."""
        if self.is_switched:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def owns(self, path: Path) -> bool:
        """Return whether the path is a folder, not a link, that is ours or this user's."""
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid in {self.uid, os.geteuid()}

    def popen_args(self) -> dict[str, Any]:
        """Return the arguments by which subprocess starts a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_switched else {}

    def _has_mode(self, path: Path, mode_for_others: int) -> bool:
        found = path.stat()
        if found.st_uid == self.uid:
            wanted = mode_for_others << 6
        elif found.st_gid == self.gid:
            wanted = mode_for_others << 3
        else:
            wanted = mode_for_others
        return found.st_mode & wanted == wanted


def _by_uid(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _by_name(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
