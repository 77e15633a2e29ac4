"""Who the server runs as, and what that user can reach."""

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
    """A user of the machine. `switched`: not ourselves, so we are root and must become this user to start anything."""

    name: str
    uid: int
    gid: int
    switched: bool

    @classmethod
    def of(cls, home: Path) -> OsUser:
        """Choose for a folder: ourselves, or when we are root its owner, `postgres` or `nobody`."""
        if os.geteuid() != 0:
            return cls("", os.geteuid(), os.getegid(), switched=False)
        owner = home.stat().st_uid if home.exists() else 0
        found = _by_uid(owner) if owner else _by_name("postgres") or _by_name("nobody")
        if found is None:
            raise Unavailable(f"Postgres does not run as root, and the owner of {home} is no user of this machine")
        return cls(found.pw_name, found.pw_uid, found.pw_gid, switched=True)

    def prepare(self, home: Path) -> None:
        """Make the server's folder where it is missing, and give it to this user. Raises Unavailable when they could not reach it."""
        for parent in reversed([folder for folder in home.parents if not folder.exists()]):
            parent.mkdir()
            parent.chmod(0o755)
        home.mkdir(mode=0o700, exist_ok=True)
        if not (home / "using.lock").exists() and any(home.iterdir()):
            raise Unavailable(f"{home} holds something else: the embedded Postgres needs a folder of its own")
        if blocked := self.blocked(home):
            raise Unavailable(
                f"Postgres does not run as root, and the user {self.name} cannot enter {blocked}: run as another user, or set DATABASE_URL"
            )
        self.give(home)

    def blocked(self, path: Path) -> Path | None:
        """Give the folder above `path` that this user may not pass, if there is one."""
        if not self.switched:
            return None
        return next((folder for folder in path.parents if not self._may(folder, stat.S_IXOTH)), None)

    def may_run(self, program: Path) -> bool:
        """Tell whether this user can reach and run a program."""
        return not self.switched or (self.blocked(program) is None and self._may(program, stat.S_IROTH | stat.S_IXOTH))

    def give(self, path: Path) -> None:
        """Make this user the owner of a file or folder of ours."""
        if self.switched:
            os.chown(path, self.uid, self.gid)

    def owns(self, path: Path) -> bool:
        """Tell whether the folder is ours or this user's, and not a link to somewhere else."""
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid in {self.uid, os.geteuid()}

    def switch(self) -> dict[str, Any]:
        """Give the arguments that let subprocess become this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switched else {}

    def _may(self, path: Path, for_others: int) -> bool:
        found = path.stat()
        if found.st_uid == self.uid:
            wanted = for_others << 6
        elif found.st_gid == self.gid:
            wanted = for_others << 3
        else:
            wanted = for_others
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
